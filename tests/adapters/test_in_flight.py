"""Requests in flight at a crash: what a killed process may have paid for is in the next one's account."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.store import AnswerRow, CallRow, InputRow, OutputRow, RunStore, SentRow, open_store
from engine.adapters.store.in_flight import InFlightFile, left_over

PLACE = 48
"""Bytes of a note."""


def make_sent(call_id: int, *, run_id: int = 1) -> SentRow:
    return SentRow(run_id=run_id, call_id=call_id, sent_at=1e9 + call_id, size=5, input_tokens=100, output_tokens=50)


def make_call(call_id: int) -> CallRow:
    return CallRow(id=call_id, sent_at=1e9, latency_s=1.0, size=5, accepted=5, status=200, outcome="ok")


def begin(store: RunStore) -> tuple[int, int]:
    settings_id = store.settings(task_key="task", model="model", task="{}")
    return store.begin_run(settings_id=settings_id, started_at=1.0, config="{}"), settings_id


def crash(store: RunStore) -> None:
    """Leave the files as a killed process does: nothing is closed in order."""
    store._db.close()
    assert store._hold is not None
    store._hold.release()


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_what_was_noted_and_not_forgotten_is_left_over(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    """After any sequence of notes and endings every open request is found, and the file holds no more places than
    there ever were requests in flight at once."""
    path = tmp_path_factory.mktemp("flight") / "file"
    file = InFlightFile(path)
    open_calls: set[int] = set()
    most = 0
    for sends, call_id in steps:
        if sends and call_id not in open_calls:
            file.note(make_sent(call_id))
            open_calls.add(call_id)
        elif not sends:
            file.forget(call_id)
            open_calls.discard(call_id)
        most = max(most, len(open_calls))
    found = list(left_over(path))
    assert open_calls <= {sent.call_id for sent in found}
    assert len(found) <= most
    file.close()
    assert path.exists() == bool(open_calls)


@given(st.one_of(st.binary(max_size=400), st.binary(min_size=100, max_size=400)))
def test_a_torn_or_foreign_file_is_no_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the file holds, only whole notes are believed."""
    path = tmp_path_factory.mktemp("flight") / "file"
    path.write_bytes(content)
    assert list(left_over(path)) == []


def test_a_note_cut_short_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = InFlightFile(path)
    for call_id in (1, 2, 3):
        file.note(make_sent(call_id))
    path.write_bytes(path.read_bytes()[:-5])
    assert list(left_over(path)) == [make_sent(1), make_sent(2)]


@given(byte=st.integers(0, 3 * PLACE - 1), bit=st.integers(0, 7))
def test_a_damaged_note_is_left_out_and_the_others_stay(
    tmp_path_factory: pytest.TempPathFactory, byte: int, bit: int
) -> None:
    """One turned bit makes a note nobody's: an account of it would be of a request that was never sent."""
    path = tmp_path_factory.mktemp("flight") / "file"
    file = InFlightFile(path)
    for call_id in (1, 2, 3):
        file.note(make_sent(call_id))
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)
    damaged = byte // PLACE + 1
    assert list(left_over(path)) == [make_sent(call_id) for call_id in (1, 2, 3) if call_id != damaged]


def test_a_place_of_zeros_is_no_note(tmp_path: Path) -> None:
    """What a file system leaves where nothing was written yet, and its checksum with it."""
    path, row = tmp_path / "file", bytes(PLACE - 4)
    path.write_bytes(row + zlib.crc32(row).to_bytes(4, "little") + bytes(PLACE))
    assert list(left_over(path)) == []


def test_nothing_is_noted_in_a_closed_file(tmp_path: Path) -> None:
    """A request whose note nobody would find is not sent; and a closed file may be closed again."""
    file = InFlightFile(tmp_path / "file")
    file.note(make_sent(1))
    file.close()
    file.close()
    with pytest.raises(OSError, match="the store is closed"):
        file.note(make_sent(2))
    assert list(left_over(tmp_path / "file")) == [make_sent(1)]


def test_a_note_that_found_no_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk may take a part of a note without a word: the request is then not sent."""
    notes = InFlightFile(tmp_path / "in-flight")
    monkeypatch.setattr(os, "pwrite", lambda file, content, place: len(content) - 1)
    with pytest.raises(OSError, match="No space left"):
        notes.note(make_sent(1))


def test_requests_in_flight_at_a_crash_are_calls_of_their_run(tmp_path: Path) -> None:
    """The next opening notes them as killed, with what they may have cost; those whose outcome was stored stay as
    they are; and no number is given twice."""
    path = tmp_path / "store.sqlite"
    store = open_store(path)
    run_id, settings_id = begin(store)
    for call_id in (1, 2, 3):
        store.note_sent(make_sent(call_id, run_id=run_id))
    store.write(run_id, settings_id, [make_call(1)], [])
    store.note_ended(1)
    store.write(run_id, settings_id, [make_call(2)], [])  # stored, and killed before the note was taken back
    crash(store)
    for _ in range(2):  # the account is made once, however often the store is opened
        again = open_store(path)
        rows = again.query("SELECT id, outcome, run_id, unconfirmed_input, unconfirmed_output FROM calls ORDER BY id")
        assert rows == [(1, "ok", run_id, 0, 0), (2, "ok", run_id, 0, 0), (3, "killed", run_id, 100, 50)]
        assert again.next_call_id() == 4
        again.close()
    assert not Path(f"{path}.in-flight").exists()


def test_a_new_store_of_an_old_name_takes_over_nothing(tmp_path: Path) -> None:
    """Somebody who deletes the store has deleted its account too."""
    path = tmp_path / "store.sqlite"
    store = open_store(path)
    run_id, _ = begin(store)
    store.note_sent(make_sent(7, run_id=run_id))
    crash(store)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    new = open_store(path)
    assert new.query("SELECT count(*) FROM calls") == [(0,)]
    new.close()


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its calls and answers are kept, the new columns are there, and what it holds is sealed."""
    path = tmp_path / "store.sqlite"
    store = open_store(path)
    run_id, settings_id = begin(store)
    row = InputRow(position=0, line=1, id='"a"', key='"a"', digest=b"d" * 16)
    store.add_inputs(run_id, [row])
    answer = AnswerRow(key='"a"', digest=b"d" * 16, output='"x"', calls=(1,))
    store.write(run_id, settings_id, [make_call(1)], [answer])
    for table in ("answers", "inputs"):
        store._db.execute(f"ALTER TABLE {table} DROP COLUMN seal")
    for column in ("unconfirmed_input", "unconfirmed_output", "purpose", "reasoning_tokens", "written_tokens"):
        store._db.execute(f"ALTER TABLE calls DROP COLUMN {column}")
    of_runs = ("first_run", "below", "inputs", "seal")
    later = {"answers": ("confidence", "votes"), "runs": of_runs, "settings": ("seal",)}
    for table, column in ((table, column) for table, columns in later.items() for column in columns):
        store._db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    store._db.execute("DROP TABLE ballots")
    store._db.execute("PRAGMA user_version = 1")
    store.close()
    again = open_store(path)
    assert again.query("SELECT id, outcome, unconfirmed_input, purpose FROM calls") == [(1, "ok", 0, "ask")]
    assert list(again.outputs(run_id, settings_id)) == [OutputRow(record=row, answer=answer)]
    again.close()
