"""What a retry marks of a run of two models, which list of inputs an output is made from, and what `show` tells."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.adapters.store import InputRow, RunStore, open_store, read_store
from engine.adapters.store.run_rows import SecondPart
from engine.adapters.stored import count_failed_by_second, failed_by_second, newest_input, newest_list
from engine.adapters.stored_again import AnswerFilter, Marked, Unfinished, left_behind, mark_again, unfinished_retry
from engine.run.export import write_newest
from engine.vocabulary.errors import StoreError
from tests.adapters.test_stored import DIGEST, answer
from tests.cli.cli_support import command
from tests.support import make_task

TASK = msgspec.json.encode(make_task()).decode()
NOTE = '{"source":"escalation","failures":["missing"]}'
ANSWERS = {
    # name: of the first model, of the second
    "sure": (answer("sure", confidence=1.0, batch_size=4), None),
    "taken": (answer("taken", confidence=0.5, batch_size=4), answer("taken", output='"blue"', batch_size=2)),
    "stands": (
        answer("stands", confidence=0.5, batch_size=4),
        answer("stands", output=None, error_kind="refused", error_message="no", batch_size=2),
    ),
    "rescued": (
        answer("rescued", output=None, error_kind="missing", batch_size=4),
        answer("rescued", output='"blue"', batch_size=2),
    ),
    "failed": (
        answer("failed", output=None, error_kind="missing", batch_size=4),
        answer("failed", output=None, error_kind="refused", batch_size=2),
    ),
    "server": (answer("server", output=None, error_kind="http", batch_size=4), None),
    "left": (answer("left", confidence=0.95, batch_size=4), answer("left", output='"blue"', batch_size=2)),
}
"""`left` went to the second model under a higher bound, of an earlier run."""


def rows_named(names: list[str]) -> list[InputRow]:
    return [
        InputRow(position=n, line=n + 1, id=f'"{name}"', key=f'"{name}"', digest=DIGEST) for n, name in enumerate(names)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    """A store with a run of two models."""
    with contextlib.closing(open_store(tmp_path / "o.jsonl.store.sqlite")) as opened:
        first = opened.settings(task_key="k", model="m1", task=TASK)
        second = opened.settings(task_key="k", model="m2", task=TASK, allow_change=True)
        part = SecondPart(settings_id=second, config=NOTE, below=0.9)
        run_id = opened.begin_run(settings_id=first, started_at=1.0, config="{}", second=part)
        opened.add_inputs(run_id, rows_named(list(ANSWERS)))
        opened.complete_inputs(run_id)
        opened.write(run_id, first, [], [one for one, _ in ANSWERS.values()])
        opened.write(run_id + 1, second, [], [other for _, other in ANSWERS.values() if other is not None])
        opened.end_run(run_id, ended_at=2.0, status="done")
        yield opened


def marked(store: RunStore) -> tuple[set[str], set[str]]:
    """Names of the records whose answers, of either model, are marked."""
    rows = store.query("SELECT settings_id, key FROM answers WHERE redo = 1")
    return {key.strip('"') for id_, key in rows if id_ == 1}, {key.strip('"') for id_, key in rows if id_ == 2}


def wanted(*, failed: bool = False, above: int | None = None, keys: tuple[str, ...] = ()) -> AnswerFilter:
    return AnswerFilter(failed=failed, kinds=(), batch_size_above=above, keys=[f'"{key}"' for key in keys])


@pytest.mark.parametrize(
    ("selection", "first", "second", "counts", "of_second"),
    [
        (wanted(failed=True), {"failed", "server"}, {"stands", "failed"}, {"missing": 1, "http": 1, "refused": 1}, 1),
        (wanted(above=3), {"sure", "stands", "failed", "server", "left"}, set(), {None: 3, "missing": 1, "http": 1}, 0),
        (
            wanted(above=1),
            {"sure", "stands", "failed", "server", "left"},
            {"taken", "stands", "rescued", "failed"},
            {None: 5, "missing": 1, "http": 1},
            2,
        ),
        (wanted(keys=("taken",)), set(), {"taken"}, {None: 1}, 1),
        (wanted(keys=("rescued",)), set(), {"rescued"}, {None: 1}, 1),
        (wanted(keys=("stands",)), {"stands"}, {"stands"}, {None: 1}, 0),
        (wanted(keys=("left",)), {"left"}, set(), {None: 1}, 0),
    ],
)
def test_the_answer_that_counts_is_asked_again(
    store: RunStore, selection: AnswerFilter, first: set[str], second: set[str], counts: dict[str | None, int],
    of_second: int,
) -> None:  # fmt: skip
    """The first model is not paid for an answer that does not count; what the second failed is asked of it again."""
    told: Marked = mark_again(store, 1, selection, run_id=1)
    assert marked(store) == (first, second)
    assert (told.counts, told.of_second, told.total) == (counts, of_second, sum(counts.values()))


def test_what_was_answered_since_is_not_marked(store: RunStore) -> None:
    """Of either model, by the retries that did not end; or by another run, if it is done. What is marked stays in the
    count."""
    store.mark_redo(1, "key = ?", ['"sure"'])
    told = mark_again(store, 1, wanted(above=1), run_id=1, earlier=Unfinished(runs=(1,)))
    assert (marked(store), told.counts) == (({"sure"}, set()), {None: 1})
    mark_again(store, 1, wanted(above=1), run_id=1, earlier=Unfinished(runs=(0,)))
    assert marked(store) == ({"sure", "failed", "server"}, {"stands", "failed"})
    mark_again(store, 1, wanted(above=1), run_id=1, earlier=Unfinished(runs=(9, 2)))
    assert marked(store)[0] == {"sure", "stands", "failed", "server", "left"}


def test_show_names_what_the_second_model_failed(store: RunStore, tmp_path: Path) -> None:
    """Also where the first one's answer stands: else nobody would know what was paid for nothing."""
    run = newest_input(store)
    assert [row.place.id for row in failed_by_second(store, run, most=9) if row.place] == ['"stands"']
    assert count_failed_by_second(store, run) == 1
    shown = command("show", tmp_path / "o.jsonl.store.sqlite")
    assert "1 failed at the second model; the first one's answers stand" in shown.stdout
    failed = command("show", tmp_path / "o.jsonl.store.sqlite", "--failed")
    assert '"stands" (line 3)  second model, the first one\'s answer stands; refused: no' in failed.stdout


# -- retries -----------------------------------------------------------------------------------------------------


def begin(store: RunStore, status: str | None, **note: object) -> int:
    run_id = store.begin_run(settings_id=1, started_at=3.0, config=msgspec.json.encode(note).decode())
    if status is not None:
        store.end_run(run_id, ended_at=4.0, status=status)
    return run_id


def test_a_retry_goes_on_with_the_first_of_those_that_did_not_end(store: RunStore) -> None:
    """Of its own selection, up to the last one that ended; other runs between do not part them, and are known."""
    mine, other = wanted(above=8), wanted(failed=True)
    assert unfinished_retry(store, mine) is None
    begin(store, "killed", again=mine.note())
    begin(store, "done", again=mine.note())
    assert unfinished_retry(store, mine) is None
    first = begin(store, "interrupted", again=mine.note())
    begin(store, "brake", again=other.note())
    begin(store, "killed", again=mine.note())
    found = unfinished_retry(store, mine)
    assert found is not None
    assert (found.runs, found.since) == ((first + 2, first), first)
    begin(store, "done")
    own = begin(store, None, again=mine.note())
    found = unfinished_retry(store, mine, before=own)
    assert found is not None
    assert found.since == first


# -- lists of inputs -----------------------------------------------------------------------------------------------


def test_a_list_that_is_not_complete_is_not_the_input(store: RunStore) -> None:
    """Neither for an output nor for what a newer one leaves behind; the list before it stays until it is."""
    cut = begin(store, "killed", input="in.jsonl")
    store.add_inputs(cut, rows_named(["sure"]))
    found = newest_list(store)
    assert found is not None
    assert (found.run.id, found.inputs, found.passed_over) == (1, len(ANSWERS), cut)
    new = begin(store, None)
    store.add_inputs(new, rows_named(["sure", "taken"]))
    assert left_behind(store, new) == len(ANSWERS) - 2
    store.complete_inputs(new)
    found = newest_list(store)
    assert found is not None
    assert (found.run.id, found.inputs, found.passed_over) == (new, 2, None)
    assert store.query("SELECT DISTINCT run_id FROM inputs") == [(new,)]


@pytest.mark.parametrize("where", ["position > 3", "position = 0", "1"])
def test_a_list_that_lost_records_is_refused(store: RunStore, tmp_path: Path, where: str) -> None:
    """At its end as well, and all of them: it says how many there were."""
    store._db.execute(f"DELETE FROM inputs WHERE {where}")  # noqa: S608
    with pytest.raises(StoreError, match=f"records of {len(ANSWERS)}, so nothing was written"):
        write_newest(store, str(tmp_path / "out.jsonl"))


@pytest.mark.parametrize(("note", "is_it"), [({"streamed": True}, True), ({"source": "api"}, True), ({}, False)])
def test_a_stream_that_goes_on_is_what_has_come_so_far(store: RunStore, note: dict[str, object], is_it: bool) -> None:
    """Beside a live run; of a file nothing is asked before its list is complete, so a part of one is nothing."""
    live = begin(store, None, **note)
    store.add_inputs(live, rows_named(["sure"]))
    path = store.path
    assert path is not None
    with contextlib.closing(read_store(path)) as reader:
        found = newest_list(reader)
        assert found is not None
        assert (found.run.id, found.goes_on) == ((live, True) if is_it else (1, False))
    store.close()
    with contextlib.closing(read_store(path)) as reader:
        found = newest_list(reader)  # it was killed
        assert found is not None
        assert (found.run.id, found.goes_on) == (1, False)


def test_of_overlapping_streams_the_newest_is_kept(store: RunStore) -> None:
    """A program may run two at once: the older one, which ends later, takes no list of the newer one away."""
    older, newer = begin(store, None, source="api"), begin(store, None, source="api")
    for run_id in (older, newer):
        store.add_inputs(run_id, rows_named(["sure"]))
    for run_id in (newer, older):
        store.complete_inputs(run_id)
        store.end_run(run_id, ended_at=5.0, status="done")
    newest = newest_input(store)
    assert newest is not None
    assert newest.id == newer
    assert store.query("SELECT count(*) FROM inputs WHERE run_id = ?", (newer,)) == [(1,)]
