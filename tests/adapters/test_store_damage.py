"""A store cut off, with a turned byte, or without its log: an error with the remedy, or what is right."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.adapters.store import (
    AnswerRow,
    CallRow,
    InputRow,
    OutputRow,
    RunStore,
    open_store,
    read_store,
    salvage,
)
from engine.vocabulary.errors import StoreError

LABELS = ("red", "green", "blue")
COUNT = 60
INPUTS = [InputRow(position=n, line=n + 1, id=f'"r{n}"', key=f'"r{n}"', digest=bytes([n, 7]) * 8) for n in range(COUNT)]
ANSWERS = [
    AnswerRow(key=f'"r{n}"', digest=bytes([n, 7]) * 8, output=f'"{LABELS[n % 3]}"', calls=(n // 4 + 1,), batch_size=4)
    for n in range(COUNT)
]
ROWS = [OutputRow(record=row, answer=answer) for row, answer in zip(INPUTS, ANSWERS, strict=True)]
NAME = "run.store.sqlite"


def fill(store: RunStore) -> tuple[int, int]:
    """A run of one task with all its answers, in several transactions."""
    settings_id = store.settings(task_key="t", model="m", task="{}")
    run_id = store.begin_run(settings_id=settings_id, started_at=1.0, config="{}")
    store.add_inputs(run_id, INPUTS)
    for start in range(0, COUNT, 4):
        number = start // 4 + 1
        call = CallRow(id=number, sent_at=1.0, latency_s=0.5, size=4, accepted=4, status=200, outcome="ok")
        store.write(run_id, settings_id, [call], ANSWERS[start : start + 4])
    return run_id, settings_id


@cache
def closed() -> bytes:
    """A store that was closed in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        with contextlib.closing(open_store(path)) as store:
            fill(store)
        return path.read_bytes()


@cache
def killed() -> tuple[bytes, bytes]:
    """What a killed process leaves of the same: the file, and its log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        with contextlib.closing(open_store(path)) as store:
            fill(store)
            return path.read_bytes(), Path(f"{path}-wal").read_bytes()


@contextlib.contextmanager
def files(content: bytes, log: bytes | None = None) -> Iterator[Path]:
    """A store of this content, in memory where there is a folder in memory."""
    memory = "/dev/shm"  # noqa: S108 - a name in it is made by mkdtemp
    with tempfile.TemporaryDirectory(dir=memory if Path(memory).is_dir() else None) as folder:
        path = Path(folder) / NAME
        path.write_bytes(content)
        if log is not None:
            Path(f"{path}-wal").write_bytes(log)
        yield path


def said(answer: AnswerRow) -> AnswerRow:
    """An answer without what is not sealed: when it came, and whether it is to be asked again."""
    return msgspec.structs.replace(answer, answered_at=0.0, latency_s=0.0, redo=False)


def assert_right_or_said(path: Path) -> str:
    """Whatever comes out is what was written; else an error says what to do. Gives the error's text."""
    try:
        with contextlib.closing(open_store(path)) as store:
            keys, digests = [row.key for row in ANSWERS], [row.digest for row in ANSWERS]
            found = store.find(1, keys=keys, digests=digests)
            assert all(said(answer) in ANSWERS for answers in found.by_key.values() for answer in answers)
            assert all(
                answer.digest == digest and said(answer) in ANSWERS for digest, answer in found.by_digest.items()
            )
            store.check_whole()
            for row in store.outputs(1, 1):
                assert row.record in INPUTS
                assert row.answer is None or OutputRow(record=row.record, answer=said(row.answer)) in ROWS
    except StoreError as error:
        return str(error)
    return ""


def turned(content: bytes, position: int, bits: int) -> bytes:
    """One byte of it turned."""
    return content[:position] + bytes([content[position] ^ bits]) + content[position + 1 :]


@cache
def used(content: bytes) -> list[int]:
    """Positions with something in them, and those beside: most of a small file is room to grow."""
    return [n for n in range(len(content)) if any(content[max(0, n - 1) : n + 2])]


quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(size=st.integers(0, len(closed()) - 1) | st.sampled_from([0, 1, 15, 16, 99, 100, 511, 512, 4096, 8192]))
@settings(max_examples=200, deadline=None)
def test_a_store_cut_off_anywhere_is_refused(size: int) -> None:
    """Wherever a closed store is cut, nothing left included: opening it is refused with the remedy, no new one is begun
    over it, and what is left of it stays as it is."""
    with files(closed()[:size]) as path:
        for opener in (open_store, read_store):
            with pytest.raises(StoreError, match=rf"{NAME}.*(Use another store|Put a copy)"):
                opener(path).check_whole()
        assert path.read_bytes() == closed()[:size]


@given(position=st.integers(0, len(closed()) - 1) | st.sampled_from(used(closed())), bits=st.integers(1, 255))
@quick
def test_a_turned_byte_is_never_a_wrong_label(position: int, bits: int) -> None:
    """Any byte of the file: what comes out is right, or an error says that the store is damaged and what to do."""
    with files(turned(closed(), position, bits)) as path:
        error = assert_right_or_said(path)
        assert not error or NAME in error or "damaged" in error


@pytest.mark.slow
def test_no_turned_byte_is_a_wrong_label() -> None:
    """Every byte that holds something, two bits each."""
    for position in used(closed()):
        for bits in (1, 2):
            with files(turned(closed(), position, bits)) as path:
                assert_right_or_said(path)


def test_a_turned_label_is_found_and_asked_again() -> None:
    """The case that no check of pages finds: a letter of a label, still a valid answer. It is thrown away when it is
    looked up, so that the record is asked anew, and its new answer is taken; an export before that is refused."""
    content = closed().replace(b'"green"', b'"greed"', 1)
    assert content != closed()
    with files(content) as path:
        with contextlib.closing(read_store(path)) as store:
            store.check_whole()
            with pytest.raises(
                StoreError, match=r"answer to the record .* is damaged.*Run the same `annotate run` again"
            ):
                list(store.outputs(1, 1))
        with contextlib.closing(open_store(path)) as store:
            found = store.find(1, keys=[row.key for row in ANSWERS], digests=[])
            assert found.damaged == 1
            assert len(found.by_key) == COUNT - 1
            (missing,) = [row for row in ANSWERS if row.key not in found.by_key]
            failure = msgspec.structs.replace(missing, output=None, error_kind="no-json", error_message="it failed")
            store.write(1, 1, [], [failure])  # it would not have replaced an ok answer
            assert [row.answer for row in store.outputs(1, 1) if row.answer not in ANSWERS] == [failure]
            store.write(1, 1, [], [missing])
            assert list(store.outputs(1, 1)) == ROWS


def test_a_turned_id_is_found() -> None:
    """A letter of an id in the list of the input, and one of a digest, by which the answer is found."""
    for part, other in ((b'"r41""r41"', b'"r40""r41"'), (b'"r41""r41"', b'"r41""r40"')):
        content = closed().replace(part, other)
        assert content != closed()
        with (
            files(content) as path,
            contextlib.closing(read_store(path)) as store,
            pytest.raises(
                StoreError, match=r"of the input, as the run store holds it, is damaged.*notes the input anew"
            ),
        ):
            list(store.outputs(1, 1))


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_a_log_cut_off_anywhere_loses_its_end_only(share: float) -> None:
    """A killed process leaves its newest answers in the log: cut anywhere, a whole number of the last transactions is
    gone, as if it had been killed before, and everything else is there."""
    content, log = killed()
    with files(content, log[: int(share * len(log))]) as path, contextlib.closing(open_store(path)) as store:
        keys = [key for (key,) in store.query("SELECT key FROM answers ORDER BY calls, key")]
        assert len(keys) % 4 == 0
        assert assert_found(store, keys) == keys
        assert store.query("SELECT count(*) FROM calls") == [(len(keys) // 4,)]


@given(position=st.integers(0, len(killed()[1]) - 1), bits=st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_turned_byte_of_the_log_ends_it_there(position: int, bits: int) -> None:
    """SQLite's log has checksums: what comes after a turned byte is as if it had not been written."""
    content, log = killed()
    with files(content, turned(log, position, bits)) as path, contextlib.closing(open_store(path)) as store:
        keys = [key for (key,) in store.query("SELECT key FROM answers")]
        assert len(keys) % 4 == 0
        assert_found(store, keys)


def assert_found(store: RunStore, keys: list[str]) -> list[str]:
    """The answers to these are the right ones; gives the keys found."""
    found = store.find(1, keys=keys, digests=[])
    assert all(answer in ANSWERS for answers in found.by_key.values() for answer in answers)
    return [key for key in keys if key in found.by_key]


def test_without_its_log_a_store_is_what_it_was_before(tmp_path: Path) -> None:
    """Somebody copies or moves the file alone: what the log held is asked again, and nothing is mixed up."""
    content, _ = killed()
    path = tmp_path / NAME
    path.write_bytes(content)
    with contextlib.closing(open_store(path)) as store:
        assert store.query("SELECT count(*) FROM answers") == [(0,)]
        assert store.next_call_id() == 1


def test_a_log_without_its_store_is_not_written_over(tmp_path: Path) -> None:
    """The file is gone and its log is there: a new store would be begun over it, or would swallow it. The message says
    how to begin anew."""
    _, log = killed()
    path = tmp_path / NAME
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(StoreError, match=r"is missing, but .*-wal.* is there\. Put the store back.* rm .*-wal"):
        open_store(path)
    assert not path.exists()
    assert Path(f"{path}-wal").read_bytes() == log


# -- saving what can be read ---------------------------------------------------------------------------------------


@given(page=st.integers(1, len(closed()) // 4096 - 1), fill=st.sampled_from([b"\xff", b"\0", b"ab"]))
@settings(max_examples=60, deadline=None)
def test_what_can_be_read_is_saved(page: int, fill: bytes) -> None:
    """Any page but the first is lost: what is saved into a new store is right, is all but what was on that page, and
    the damaged store stays as it is. Without the page that says of which task the answers are, an error says so, and
    without any answer too: an empty store is no rescue."""
    content = closed()[: page * 4096] + (fill * 4096)[:4096] + closed()[(page + 1) * 4096 :]
    with files(content) as path:
        new = path.with_name("new.sqlite")
        try:
            saved = salvage(path, new)
        except StoreError as error:
            none_left = page in answer_pages() and "none of its answers" in str(error)
            assert none_left or "of which task" in str(error)  # noqa: PT017 - one of two ends
            assert not new.exists()
            return
        with contextlib.closing(open_store(new)) as store:
            found = assert_found(store, [row.key for row in ANSWERS])
            assert len(found) == saved.answers > 0
            assert saved.answers == COUNT or page in answer_pages()
        assert path.read_bytes() == content


@cache
def answer_pages() -> set[int]:
    """Numbers, from 0, of the pages that hold the answers; this small store has them on a few."""
    with files(closed()) as path, contextlib.closing(open_store(path)) as store:
        (root,) = store.query("SELECT rootpage FROM sqlite_master WHERE name = 'answers'")[0]
        return {root - 1}


@pytest.mark.parametrize("listed", [True, False])
def test_a_row_behind_a_lost_page_is_saved(tmp_path: Path, listed: bool) -> None:
    """In a store of many pages, two of which are lost: only what was on them is missing, and what lies between them
    where no input names it; what is damaged itself is left behind and counted."""
    path, count = tmp_path / NAME, 3000
    rows = [AnswerRow(key=f'"{n:05}"', digest=n.to_bytes(16, "big"), output=f'"{LABELS[n % 3]}"') for n in range(count)]
    inputs = [
        InputRow(position=n, line=n + 1, id=row.key, key=row.key, digest=row.digest) for n, row in enumerate(rows)
    ]
    with contextlib.closing(open_store(path)) as store:
        settings_id = store.settings(task_key="t", model="m", task="{}")
        run_id = store.begin_run(settings_id=settings_id, started_at=1.0, config="{}")
        store.add_inputs(run_id, inputs if listed else [])
        store.write(run_id, settings_id, [], rows)
    content = path.read_bytes()
    stored = [row.key.encode() + row.digest + str(row.output).encode() for row in rows]
    for page in {content.index(stored[n]) // 4096 for n in (700, 1900)}:
        content = content[: page * 4096] + bytes(4096) + content[(page + 1) * 4096 :]
    assert stored[300] in content
    content = content.replace(stored[300], stored[300][:-2] + b'x"')
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged .* annotate salvage .* NEW, and then go on with --store NEW"):
        open_store(path)
    saved = salvage(path, tmp_path / "new.sqlite")
    assert saved.damaged == 1
    with contextlib.closing(open_store(tmp_path / "new.sqlite")) as store:
        keys = {key for (key,) in store.query("SELECT key FROM answers")}
        found = store.find(settings_id, keys=sorted(keys), digests=[])
    assert found.damaged == 0
    assert all(answer in rows for answers in found.by_key.values() for answer in answers)
    lost = {int(row.key[1:-1]) for row in rows if row.key not in keys}
    assert saved.answers == count - len(lost)
    assert {300, 700, 1900} <= lost
    assert not {0, 600, 2000, 2999} & lost
    assert (1500 in lost) == (not listed)
    with pytest.raises(StoreError, match="is there already"):
        salvage(path, tmp_path / "new.sqlite")
