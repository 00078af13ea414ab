"""The run store: what was written is there, whatever dies; what was not, is not; and nobody gets another's answer."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.adapters.store import (
    RAW_LIMIT,
    AnswerRow,
    CallRow,
    InputRow,
    RunStore,
    open_store,
    read_store,
    temporary_store,
)
from engine.adapters.store.rows import Spent
from engine.vocabulary.errors import StoreError

WEIRD = [
    '"a"',
    "1",
    '"1"',
    '""',
    '"漢字 😀"',
    '"it\'s; DROP TABLE answers --"',
    '"%_?"',
    '"\\u0000"',
    "1.0",
    '"\x00"',
    '"A"',
]


def make_call(number: int, **changes: Any) -> CallRow:
    fields: dict[str, Any] = {
        "id": number, "sent_at": 1.0, "latency_s": 0.5, "size": 1, "accepted": 1, "status": 200, "outcome": "ok",
    }  # fmt: skip
    return CallRow(**(fields | changes))


def make_answer(key: str, output: str | None = '"x"', *, digest: bytes = b"d" * 16, **changes: Any) -> AnswerRow:
    kind = None if output is not None else "no-json"
    message = None if output is not None else "nothing in it"
    fields: dict[str, Any] = {
        "key": key, "digest": digest, "output": output, "error_kind": kind, "error_message": message, "calls": (1, 2),
        "batch_size": 4, "answered_at": 7.0, "latency_s": 1.5,
    }  # fmt: skip
    return AnswerRow(**(fields | changes))


def make_input(position: int, key: str | None = None, **changes: Any) -> InputRow:
    key = f'"r{position}"' if key is None else key
    fields: dict[str, Any] = {"position": position, "line": position + 1, "id": key, "key": key, "digest": b"d" * 16}
    return InputRow(**(fields | changes))


def begin(store: RunStore) -> tuple[int, int]:
    """A run of one task: its number, and the task's."""
    settings_id = store.settings(task_key="task", model="model", task="{}")
    return store.begin_run(settings_id=settings_id, started_at=1.0, config="{}"), settings_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[RunStore]:
    with contextlib.closing(open_store(path)) as opened:
        yield opened


def answers_of(store: RunStore, settings_id: int, *keys: str) -> dict[str, list[str | None]]:
    found = store.find(settings_id, keys=keys, digests=[])
    return {key: [answer.output for answer in answers] for key, answers in found.by_key.items()}


# -- opening -------------------------------------------------------------------------------------------------------


def test_a_store_is_still_there_when_it_is_opened_again(path: Path) -> None:
    """Everything of an answer and a call comes back as it was written."""
    answer = make_answer('"a"', form="keyed", copied=True)
    call = make_call(5, message="no", raw="raw", estimated=True, input_tokens=3, cached_tokens=2, output_tokens=1)
    with contextlib.closing(open_store(path)) as store:
        run_id, settings_id = begin(store)
        store.write(run_id, settings_id, [call], [answer])
    with contextlib.closing(open_store(path)) as store:
        assert begin(store)[1] == settings_id
        assert store.next_call_id() == 6
        assert store.find(settings_id, keys=['"a"'], digests=[]).by_key == {'"a"': [answer]}
        assert store.query("SELECT id, message, raw, estimated, input_tokens FROM calls") == [(5, "no", "raw", 1, 3)]


def test_an_answer_was_asked_for_unless_it_is_said_to_be_a_copy(store: RunStore) -> None:
    """Reports count copies apart, and what is marked to be asked again is asked again: neither is so by itself."""
    run_id, settings_id = begin(store)
    plain = {"output": '"red"', "digest": b"d" * 16}
    store.write(run_id, settings_id, [], [AnswerRow(key='"a"', **plain), AnswerRow(key='"b"', copied=True, **plain)])
    assert store.query("SELECT key, copied, redo FROM answers ORDER BY key") == [('"a"', 0, 0), ('"b"', 1, 0)]
    assert not AnswerRow(key='"a"', **plain).redo


def test_nothing_is_counted_that_was_not_said(store: RunStore) -> None:
    """A call without usage took nothing that is known, by an estimate neither; and what nobody sent cost nothing."""
    run_id, settings_id = begin(store)
    assert msgspec.to_builtins(store.spent()) == dict.fromkeys(Spent.__struct_fields__, 0)
    assert set(msgspec.to_builtins(Spent()).values()) == {0}
    call = CallRow(id=1, sent_at=1.0, latency_s=1.0, size=5, accepted=0, status=0, outcome="transport")
    store.write(run_id, settings_id, [call], [])
    assert msgspec.to_builtins(store.spent()) == dict.fromkeys(Spent.__struct_fields__, 0)
    assert store.query("SELECT estimated, purpose, message, raw FROM calls") == [(0, "ask", None, None)]


def test_marks_to_ask_again_are_counted_as_they_are_made_and_taken_off(store: RunStore) -> None:
    """How many answers a mark met; and how many of the marked are ok and so lose it: a failed one is still to do."""
    run_id, settings_id = begin(store)
    store.write(run_id, settings_id, [], [make_answer('"a"'), make_answer('"b"'), make_answer('"c"', output=None)])
    assert store.mark_redo(settings_id, "key <> ?", ['"b"']) == 2
    assert store.clear_redo(settings_id) == 1
    assert store.query("SELECT key FROM answers WHERE redo = 1") == [('"c"',)]
    assert store.clear_redo(settings_id) == 0


def test_only_the_owner_can_read_it(path: Path) -> None:
    """The store holds the user's texts and replies: file, log and lock are 0600, whatever the umask."""
    before = os.umask(0)
    try:
        with contextlib.closing(open_store(path)) as store:
            run_id, settings_id = begin(store)
            store.write(run_id, settings_id, [make_call(1)], [make_answer('"a"')])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert path.name in modes
    assert set(modes.values()) == {0o600}


def test_it_is_as_durable_as_it_says(store: RunStore) -> None:
    """WAL with synchronous=FULL (2): a commit that returned survives a power cut."""
    assert store.query("PRAGMA journal_mode") == [("wal",)]
    assert store.query("PRAGMA synchronous") == [(2,)]


def test_a_store_is_in_wal_mode_before_it_has_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its rollback journal, which a loss of power may bring back, would keep `annotate show` from reading it.

    What a killed process left under the other name is taken away, its log and journal included.
    """
    for left in ("", "-journal", "-wal", "-shm"):
        path.with_name(f"{path.name}.new{left}").write_bytes(b"left")
    headers = []
    replace = os.replace

    def seen(old: Any, new: Any) -> None:
        if str(old).endswith(".sqlite.new"):
            headers.append((Path(old).read_bytes()[18:20], sorted(one.name for one in path.parent.iterdir())))
        replace(old, new)

    monkeypatch.setattr(os, "replace", seen)
    open_store(path).close()
    beside = [f"{path.name}.holder", f"{path.name}.lock", f"{path.name}.new"]
    assert headers == [(b"\x02\x02", beside)]  # file format versions, 2: WAL


def test_what_a_killed_process_left_in_the_log_is_synced_before_it_is_exported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has its last commit, and the disk may not have it: an output must not hold what the store loses."""
    with contextlib.closing(open_store(path)) as store:
        run_id, settings_id = begin(store)
        store.write(run_id, settings_id, [make_call(1)], [make_answer('"a"')])
        log = path.with_name(f"{path.name}-wal")
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
        with contextlib.closing(read_store(path)) as reader:
            reader.check_whole()
        assert synced == [log.stat().st_ino]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    """The message names the folder and what to do."""
    with pytest.raises(StoreError, match=r"folder .* does not exist: .*/nowhere\. Create it"):
        open_store(tmp_path / "nowhere" / "s.sqlite")


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    """A folder is no file to write to."""
    with pytest.raises(StoreError, match="is a folder; name a file"):
        open_store(tmp_path)


@pytest.mark.parametrize("content", [b"id,text\n1,hello\n" * 100, b"some notes", b"\x00" * 5_000])
def test_another_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    """A file that is no database is not overwritten; the message says what to do instead."""
    path.write_bytes(content)
    for opener in (open_store, read_store):
        with pytest.raises(StoreError, match=r"run\.store\.sqlite is no run store .*Use another"):
            opener(path)
    assert path.read_bytes() == content


def test_another_database_is_refused_and_left_alone(path: Path) -> None:
    """Some other program's database is not changed in a single byte, not even its journal mode."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
    before = path.read_bytes()
    for opener in (open_store, read_store):
        with pytest.raises(StoreError, match=r"is no run store of annotation-engine; it was left as it is"):
            opener(path)
    assert path.read_bytes() == before


def test_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    """A store of a newer version is not touched; the message says which is needed."""
    open_store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for opener in (open_store, read_store):
        with pytest.raises(StoreError, match=r"newer version of annotation-engine \(store format 99.*install"):
            opener(path)
    assert path.read_bytes() == before


def test_a_damaged_store_is_said(path: Path) -> None:
    """Half a file: a StoreError that names it, at the latest when what is missing is read."""
    with contextlib.closing(open_store(path)) as store:
        run_id, settings_id = begin(store)
        store.write(run_id, settings_id, [], [make_answer(f'"{n}"', digest=bytes([n]) * 16) for n in range(200)])
    path.write_bytes(path.read_bytes()[:20_000])

    def use() -> None:
        with contextlib.closing(open_store(path)) as store:
            for n in range(200):
                store.find(settings_id, keys=[f'"{n}"'], digests=[])

    with pytest.raises(StoreError, match=r"run\.store\.sqlite"):
        use()


def test_an_empty_file_is_not_taken_for_a_new_store(path: Path) -> None:
    """No run leaves one, whenever it is killed: so a store was cut off. The message says how to begin anew."""
    path.touch()
    with pytest.raises(StoreError, match=r"is empty.*cut off.*begin anew.*rm "):
        open_store(path)
    path.unlink()
    open_store(path).close()


def test_a_refused_store_can_be_opened_once_it_is_mended(path: Path) -> None:
    """A failed opening holds neither lock nor connection."""
    path.write_text("no database")
    with pytest.raises(StoreError):
        open_store(path)
    path.unlink()
    open_store(path).close()


HOLD = """
import sys
from engine.adapters.store import open_store
store = open_store(sys.argv[1])
print(1, flush=True)
input()
"""


def test_a_store_in_use_is_refused(path: Path) -> None:
    """One run at a time: another process, or this one, gets an error that says so, also by another name of the file;
    when the other is killed, the store is free."""
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        for name in (path, link):
            with pytest.raises(StoreError, match="is in use by another run; wait for it, or stop it"):
                open_store(name)
        holder.kill()
    with contextlib.closing(open_store(path)), pytest.raises(StoreError, match="in use"):
        open_store(path)


def test_no_store_to_read_is_said(path: Path) -> None:
    """Reading makes no file."""
    with pytest.raises(StoreError, match="there is no run store at"):
        read_store(path)
    assert not path.exists()


def test_a_temporary_store_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works like any other, and no file is left when it is closed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    with contextlib.closing(temporary_store()) as store:
        run_id, settings_id = begin(store)
        store.add_inputs(run_id, [make_input(n) for n in range(20_000)])
        store.write(run_id, settings_id, [make_call(1)], [make_answer('"a"')])
        assert answers_of(store, settings_id, '"a"') == {'"a"': ['"x"']}
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_is_fine_and_use_after_it_is_not(path: Path) -> None:
    """A closed store says what it is."""
    store = open_store(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match=r"run\.store\.sqlite failed"):
        store.next_call_id()


# -- settings and runs ---------------------------------------------------------------------------------------------


def test_another_task_or_model_is_refused_unless_asked_for(store: RunStore) -> None:
    """A store belongs to one task on one model; a change must be meant, and then both are kept."""
    first = store.settings(task_key="t", model="m", task="{}")
    run_id = store.begin_run(settings_id=first, started_at=1.0, config="{}")
    store.write(run_id, first, [], [AnswerRow(key="1", digest=b"d", output='"a"')])
    with pytest.raises(StoreError, match=r"holds answers of model 'm', not 'm2'.*--allow-change"):
        store.settings(task_key="t", model="m2", task="{}")
    with pytest.raises(StoreError, match="holds answers of another task"):
        store.settings(task_key="t2", model="m", task="{}")
    second = store.settings(task_key="t", model="m2", task="{}", allow_change=True)
    assert second != first
    assert store.settings(task_key="t", model="m", task="{}") == first


def test_a_run_without_an_end_was_killed(path: Path) -> None:
    """The next opening, which holds the lock, says so of it; an ended run keeps its end."""
    with contextlib.closing(open_store(path)) as store:
        run_id, settings_id = begin(store)
        store.end_run(run_id, ended_at=2.0, status="done")
        store.begin_run(settings_id=settings_id, started_at=3.0, config="{}")
    with contextlib.closing(open_store(path)) as store:
        assert store.query("SELECT status, ended_at FROM runs ORDER BY id") == [("done", 2.0), ("killed", None)]


# -- inputs --------------------------------------------------------------------------------------------------------


def test_inputs_keep_their_order_whatever_the_order_of_arrival(store: RunStore) -> None:
    """Outputs come in the order of the input, each beside its own answer: same id, same text, same task."""
    run_id, settings_id = begin(store)
    rows = [make_input(n) for n in range(50)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert store.add_inputs(run_id, shuffled[:20]) + store.add_inputs(run_id, shuffled[20:]) == []
    other = store.settings(task_key="other", model="m", task="{}", allow_change=True)
    store.write(run_id, settings_id, [], [make_answer('"r3"', '"yes"'), make_answer('"r4"', None)])
    store.write(run_id, settings_id, [], [make_answer('"r5"', '"of another text"', digest=b"e" * 16)])
    store.write(run_id, other, [], [make_answer('"r6"', '"of another task"')])
    outputs = list(store.outputs(run_id, settings_id))
    assert [row.record for row in outputs] == rows
    answered = {row.record.key: row.answer for row in outputs if row.answer}
    assert {key: answer.output for key, answer in answered.items()} == {'"r3"': '"yes"', '"r4"': None}
    assert answered['"r4"'] == make_answer('"r4"', None)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_id_that_occurs_twice_is_found(store: RunStore, size: int) -> None:
    """The second of an id is noted as broken, with the line of the first, in whatever chunks they come; broken records
    have no id to repeat; a string and a number are two ids."""
    run_id, settings_id = begin(store)
    rows = [
        make_input(0, '"a"'),
        make_input(1, '"b"'),
        make_input(2, '"a"'),
        InputRow(position=3, line=4, id="null", key=None, digest=None, error="not JSON"),
        make_input(4, "1"),
        make_input(5, '"1"'),
        InputRow(position=6, line=7, id="null", key=None, digest=None, error="not JSON either"),
        make_input(7, '"a"'),
    ]
    twins = [twin for n in range(0, len(rows), size) for twin in store.add_inputs(run_id, rows[n : n + size])]
    assert [(twin.id, twin.position, twin.line, twin.first_line) for twin in twins] == [
        ('"a"', 2, 3, 1),
        ('"a"', 7, 8, 1),
    ]
    noted = [row.record for row in store.outputs(run_id, settings_id)]
    assert [row.error for row in noted] == [
        None, None, 'the id "a" stands in line 1 already', "not JSON", None, None, "not JSON either",
        'the id "a" stands in line 1 already',
    ]  # fmt: skip
    assert [row.id for row in noted] == [row.id for row in rows]


def test_a_position_noted_twice_is_a_bug_and_changes_nothing(store: RunStore) -> None:
    """Not taken for a repeated id; the whole chunk is taken back."""
    run_id, settings_id = begin(store)
    store.add_inputs(run_id, [make_input(0)])
    with pytest.raises(StoreError, match="position 0 of the input was noted twice"):
        store.add_inputs(run_id, [make_input(1), make_input(0, '"new"')])
    assert len(list(store.outputs(run_id, settings_id))) == 1


def test_the_same_ids_in_two_runs_are_no_duplicates(store: RunStore) -> None:
    """Each run has its own list; lists of ended runs can be dropped, and a run can be forgotten."""
    first, settings_id = begin(store)
    second = store.begin_run(settings_id=settings_id, started_at=2.0, config="{}")
    for run_id in (first, second):
        assert store.add_inputs(run_id, [make_input(0)]) == []
    store.end_run(first, ended_at=3.0, status="done")
    store.complete_inputs(second)
    assert [len(list(store.outputs(run_id, settings_id))) for run_id in (first, second)] == [0, 1]
    store.forget_run(second)
    assert store.query("SELECT count(*) FROM inputs") == [(0,)]


def test_an_input_that_changed_between_two_passes_is_noticed(store: RunStore) -> None:
    """What is read again must be what was noted: by place and by text."""
    run_id, _ = begin(store)
    rows = [make_input(n) for n in range(4)]
    store.add_inputs(run_id, [*rows[:3], make_input(3, '"r0"')])
    changed = [rows[0], make_input(1, digest=b"e" * 16), rows[2], rows[3], make_input(4)]
    broken = store.broken_inputs(run_id, changed)
    assert broken == {
        1: "the input changed while it was read",
        3: 'the id "r0" stands in line 1 already',
        4: "the input changed while it was read",
    }


# -- answers -------------------------------------------------------------------------------------------------------


def test_a_failure_never_replaces_an_answer(store: RunStore) -> None:
    """ok stays; ok replaces failure and ok; failure replaces failure."""
    run_id, settings_id = begin(store)
    for output, kept in [(None, None), ('"a"', '"a"'), (None, '"a"'), ('"b"', '"b"'), (None, '"b"')]:
        store.write(run_id, settings_id, [], [make_answer("1", output)])
        assert answers_of(store, settings_id, "1") == {"1": [kept]}


def test_a_write_is_whole_or_not_at_all(store: RunStore) -> None:
    """A call number that is there already takes back the calls and answers beside it, and the store works on."""
    run_id, settings_id = begin(store)
    store.write(run_id, settings_id, [make_call(1)], [make_answer("1")])
    with pytest.raises(StoreError, match=r"run\.store\.sqlite failed: UNIQUE"):
        store.write(run_id, settings_id, [make_call(2), make_call(1)], [make_answer("2")])
    broken: Any = [make_answer("3"), None]
    with pytest.raises(AttributeError):
        store.write(run_id, settings_id, [make_call(2)], broken)
    assert answers_of(store, settings_id, "1", "2", "3") == {"1": ['"x"']}
    assert store.next_call_id() == 2
    store.write(run_id, settings_id, [make_call(2)], [make_answer("2")])


def test_a_full_disk_is_said_and_survived(store: RunStore) -> None:
    """The write fails with words and leaves nothing; when there is room again, the next one works."""
    run_id, settings_id = begin(store)
    pages = store.query("PRAGMA page_count")[0][0]
    store.query(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match="database or disk is full"):
        store.write(run_id, settings_id, [make_call(1, raw="x" * 60_000)], [make_answer("1")])
    store.query("PRAGMA max_page_count = 1000000")
    assert answers_of(store, settings_id, "1") == {}
    store.write(run_id, settings_id, [make_call(1)], [make_answer("1")])


def test_weird_ids_are_found_each_for_itself(store: RunStore) -> None:
    """Quotes, SQL, NUL, case, and hundreds of keys at once: every key gets its own answers and no other's."""
    run_id, settings_id = begin(store)
    keys = WEIRD + [f'"{n}"' for n in range(2, 900)]
    store.write(run_id, settings_id, [], [make_answer(key, f'"{n}"') for n, key in enumerate(keys)])
    assert answers_of(store, settings_id, *keys, '"absent"') == {key: [f'"{n}"'] for n, key in enumerate(keys)}
    assert store.find(settings_id, keys=[], digests=[]).by_key == {}


def test_the_same_id_with_another_text_is_another_answer(store: RunStore) -> None:
    """Both are kept; which one is meant, the digest says."""
    run_id, settings_id = begin(store)
    store.write(run_id, settings_id, [], [make_answer("1", '"a"'), make_answer("1", '"b"', digest=b"e" * 16)])
    found = store.find(settings_id, keys=["1"], digests=[])
    assert {answer.digest: answer.output for answer in found.by_key["1"]} == {b"d" * 16: '"a"', b"e" * 16: '"b"'}


def test_a_text_is_found_by_whoever_asked_it(store: RunStore) -> None:
    """By digest only answers that are ok, not to be redone, and of the same task."""
    run_id, settings_id = begin(store)
    other = store.settings(task_key="other", model="m", task="{}", allow_change=True)
    digests = [bytes([n]) * 16 for n in range(5)]
    store.write(run_id, settings_id, [], [make_answer("0", None, digest=digests[0])])
    store.write(run_id, settings_id, [], [make_answer("1", digest=digests[1]), make_answer("2", digest=digests[2])])
    store.write(run_id, other, [], [make_answer("3", digest=digests[3])])
    store.mark_redo(settings_id, "key = ?", ["2"])
    found = store.find(settings_id, keys=[], digests=[*digests, digests[1]])
    assert {digest: answer.key for digest, answer in found.by_digest.items()} == {digests[1]: "1"}


def test_a_text_that_many_records_share_is_found_at_once(store: RunStore) -> None:
    """Looking a text up reads one answer, not one for every record that holds it: counted in steps of SQLite."""
    run_id, settings_id = begin(store)
    shared = [make_answer(f'"{n}"') for n in range(20_000)]
    failed = [make_answer(f'"f{n}"', None, digest=b"f" * 16) for n in range(20_000)]
    store.write(run_id, settings_id, [], [*shared, *failed])
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store._db.set_progress_handler(count, 1_000)
    found = store.find(settings_id, keys=['"7"'], digests=[b"d" * 16, b"e" * 16, b"f" * 16])
    assert found.by_digest.keys() == {b"d" * 16}
    assert steps < 5


def test_redo_keeps_the_answer_until_there_is_a_new_one(store: RunStore) -> None:
    """Marked answers are still the answers; a new one clears the mark, a failure does not take the old one away."""
    run_id, settings_id = begin(store)
    store.write(run_id, settings_id, [], [make_answer("1", batch_size=20), make_answer("2", batch_size=2)])
    assert store.mark_redo(settings_id, "batch_size > ?", [10]) == 1
    (marked,) = store.find(settings_id, keys=["1"], digests=[]).by_key["1"]
    assert (marked.redo, marked.output) == (True, '"x"')
    store.write(run_id, settings_id, [], [make_answer("1", None)])
    assert answers_of(store, settings_id, "1") == {"1": ['"x"']}
    store.write(run_id, settings_id, [], [make_answer("1", '"new"')])
    (redone,) = store.find(settings_id, keys=["1"], digests=[]).by_key["1"]
    assert (redone.redo, redone.output) == (False, '"new"')


def test_raw_replies_are_cut_and_made_whole(store: RunStore) -> None:
    """A raw reply is kept up to a limit; half characters in it or in a message do not lose the paid answers beside."""
    run_id, settings_id = begin(store)
    call = make_call(1, raw="\ud800" + "x" * 100_000, message="\udfff!")
    store.write(run_id, settings_id, [call], [make_answer("1", None, error_message="said \ud800")])
    assert store.query("SELECT raw, message FROM calls") == [("?" + "x" * (RAW_LIMIT - 1), "?!")]
    assert store.find(settings_id, keys=["1"], digests=[]).by_key["1"][0].error_message == "said ?"


# -- several at once -----------------------------------------------------------------------------------------------


def test_reading_and_writing_do_not_hinder_each_other(path: Path) -> None:
    """A reader, also in the middle of a long answer, sees one state and never keeps the writer waiting."""
    with contextlib.closing(open_store(path)) as writer:
        run_id, settings_id = begin(writer)
        writer.add_inputs(run_id, [make_input(n) for n in range(500)])
        with contextlib.closing(read_store(path)) as reader:
            rows = reader.outputs(run_id, settings_id)
            assert next(rows).answer is None
            began = time.monotonic()
            for n in range(500):
                writer.write(run_id, settings_id, [make_call(n + 1)], [make_answer(f'"r{n}"')])
            assert time.monotonic() - began < 120  # where a reader hinders, each write waits for seconds
            assert [row.answer for row in rows] == [None] * 499  # as it was when the question was asked
            assert all(row.answer for row in reader.outputs(run_id, settings_id))
            with pytest.raises(StoreError, match="readonly"):
                reader.write(run_id, settings_id, [], [make_answer("1")])
        assert writer.query("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


def test_a_store_left_by_a_killed_run_can_be_read(path: Path) -> None:
    """Also before any run has opened it again: what the log holds is read from there."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True, bufsize=1
    ) as writer:
        assert writer.stdout is not None
        written = [writer.stdout.readline().strip() for _ in range(5)]
        writer.kill()
    with contextlib.closing(read_store(path)) as reader:
        assert len(answers_of(reader, 1, *written)) == 5


def test_threads_take_turns(store: RunStore) -> None:
    """Several threads write and read through one store: every write is there, none half."""
    run_id, settings_id = begin(store)
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for n in range(40):
                number = worker * 1_000 + n + 1
                keys = [f'"{number}a"', f'"{number}b"']
                store.write(run_id, settings_id, [make_call(number)], [make_answer(key) for key in keys])
                assert len(answers_of(store, settings_id, *keys)) == 2
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.query("SELECT count(*) FROM answers") == [(480,)]
    assert store.query("SELECT count(*) FROM calls") == [(240,)]


# -- crashes -------------------------------------------------------------------------------------------------------

WRITE = """
import sys
from engine.adapters.store import AnswerRow, CallRow, open_store
store = open_store(sys.argv[1])
settings_id = store.settings(task_key="t", model="m", task="{}")
run_id = store.begin_run(settings_id=settings_id, started_at=0.0, config="{}")
while True:
    number = store.next_call_id()
    keys = [f'"{number}-{n}"' for n in range(3)]
    call = CallRow(id=number, sent_at=0, latency_s=0, size=3, accepted=3, status=200, outcome="ok")
    answers = [AnswerRow(key=key, digest=key.encode(), output='"x"', calls=(number,)) for key in keys]
    store.write(run_id, settings_id, [call], answers)
    print(*keys, sep="\\n", flush=True)
"""


def killed_after(path: Path, delay_s: float) -> list[str]:
    """What a writing process said was written, before SIGKILL struck it so long after its first word."""
    with subprocess.Popen([sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(delay_s)  # real time: another process writes meanwhile
        writer.send_signal(signal.SIGKILL)
        said = (first + writer.stdout.read()).splitlines(keepends=True)
    return [line.strip() for line in said if line.endswith("\n")]


def hold_after_kills(path: Path, kills: int) -> None:
    rng = random.Random(7)
    said: list[str] = []
    for _ in range(kills):
        said += killed_after(path, rng.uniform(0.0, 0.15))
        with contextlib.closing(open_store(path)) as store:
            assert store.query("PRAGMA integrity_check") == [("ok",)]
            stored = {row[0] for row in store.query("SELECT key FROM answers")}
            calls = {row[0] for row in store.query("SELECT id FROM calls")}
        assert set(said) <= stored
        assert stored == {f'"{call}-{n}"' for call in calls for n in range(3)}  # groups are whole
    assert len(said) == len(set(said)) > 3 * kills


def test_what_was_written_survives_sigkill(path: Path) -> None:
    """A writer is killed at random moments, again and again: each answer whose write had returned is there, groups are
    whole, and the file opens."""
    hold_after_kills(path, 4)


@pytest.mark.slow
def test_what_was_written_survives_many_sigkills(path: Path) -> None:
    """The same, 60 times."""
    hold_after_kills(path, 60)


# -- against a model -----------------------------------------------------------------------------------------------

Key = tuple[str, bytes]
some_keys = st.sampled_from(WEIRD)
some_digests = st.sampled_from([b"a" * 16, b"b" * 16])
some_answers = st.builds(
    lambda key, digest, output, size: make_answer(key, output, digest=digest, batch_size=size),
    some_keys,
    some_digests,
    st.none() | st.sampled_from(['"x"', '["y"]', '"\x00é😀"']),
    st.integers(1, 4),
)


class StoreMachine(RuleBasedStateMachine):
    """The store against a dict: any order of writes, failed writes, marks and reopenings."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "s.sqlite"
        self.store = open_store(self.path)
        self.run_id, self.settings_id = begin(self.store)
        self.model: dict[Key, AnswerRow] = {}
        self.kept: set[Key] = set()  # asked again, and the new ask failed: not asked a third time, and not copied
        self.calls = 0

    @rule(answers=st.lists(some_answers, max_size=6), calls=st.integers(0, 3))
    def write(self, answers: list[AnswerRow], calls: int) -> None:
        numbers = range(self.calls + 1, self.calls + calls + 1)
        self.store.write(self.run_id, self.settings_id, [make_call(number) for number in numbers], answers)
        self.calls += calls
        for answer in answers:
            key = (answer.key, answer.digest)
            before = self.model.get(key)
            if answer.ok or before is None or not before.ok:
                self.model[key] = answer
                self.kept.discard(key)
            elif before.redo:
                self.model[key] = msgspec.structs.replace(before, redo=False)
                self.kept.add(key)

    @rule(answers=st.lists(some_answers, min_size=1, max_size=4))
    def write_in_vain(self, answers: list[AnswerRow]) -> None:
        twice = make_call(self.calls + 1)
        with pytest.raises(StoreError):
            self.store.write(self.run_id, self.settings_id, [twice, twice], answers)

    @rule(size=st.integers(1, 4))
    def redo(self, size: int) -> None:
        marked = {key for key, answer in self.model.items() if answer.batch_size > size}
        assert self.store.mark_redo(self.settings_id, "batch_size > ?", [size]) == len(marked)
        self.kept -= marked
        for key in marked:
            answer = self.model[key]
            self.model[key] = make_answer(
                answer.key, answer.output, digest=answer.digest, batch_size=answer.batch_size, redo=True
            )

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.path)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "store"):
            return
        found = self.store.find(self.settings_id, keys=WEIRD, digests=[b"a" * 16, b"b" * 16])
        stored = {(answer.key, answer.digest): answer for answers in found.by_key.values() for answer in answers}
        assert stored == self.model
        usable = {
            key[1] for key, answer in self.model.items() if answer.ok and not answer.redo and key not in self.kept
        }
        assert found.by_digest.keys() == usable
        assert all(answer in self.model.values() and answer.ok for answer in found.by_digest.values())
        assert self.store.next_call_id() == self.calls + 1

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestStoreAgainstAModel = StoreMachine.TestCase
TestStoreAgainstAModel.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


class BegunAndFailed:
    """A connection whose first transaction begins, and says that it could not."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._has_failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """As the connection does."""
        cursor = self._db.execute(sql, *values)
        if sql.startswith("BEGIN") and not self._has_failed:
            self._has_failed = True
            raise sqlite3.OperationalError("disk I/O error")
        return cursor


def test_a_beginning_that_failed_halfway_is_taken_back(store: RunStore) -> None:
    """The next transaction begins; and if it fails as well, its own reason is told."""
    run_id, settings_id = begin(store)
    store._db = BegunAndFailed(store._db)  # type: ignore[assignment]
    with pytest.raises(StoreError, match="disk I/O error"):
        store.write(run_id, settings_id, [make_call(1)], [make_answer('"r1"')])
    store.write(run_id, settings_id, [make_call(1)], [make_answer('"r1"')])
    assert len(answers_of(store, settings_id, '"r1"')) == 1
