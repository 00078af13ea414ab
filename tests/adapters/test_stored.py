"""What a run store is asked by people: each question is answered from what was written, and from nothing else."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters import stored
from engine.adapters.store import (
    AnswerRow,
    CallRow,
    InputRow,
    RunStore,
    SentRow,
    open_store,
    read_store,
    temporary_store,
)
from engine.adapters.stored import OutcomeCount
from engine.vocabulary.errors import ConfigError, StoreError
from tests.support import make_task

DIGEST, OTHER = b"d" * 16, b"e" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl.store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[RunStore]:
    with contextlib.closing(open_store(path)) as opened:
        yield opened


def begin(store: RunStore, *, model: str = "m", config: str = "{}", **changes: Any) -> tuple[int, int]:
    """A run, and its settings."""
    text = msgspec.json.encode(make_task()).decode()
    settings_id = store.settings(task_key="task", model=model, task=text, allow_change=True)
    return store.begin_run(settings_id=settings_id, started_at=1.0, config=config, **changes), settings_id


def call(number: int, **changes: Any) -> CallRow:
    fields = {"sent_at": 1.0, "latency_s": 0.5, "size": 1, "accepted": 1, "status": 200, "outcome": "ok"}
    return CallRow(id=number, **(fields | changes))


def answer(name: str, *, digest: bytes = DIGEST, **changes: Any) -> AnswerRow:
    return AnswerRow(key=f'"{name}"', digest=digest, **({"output": '"red"'} | changes))


def failure(name: str, kind: str = "missing", **changes: Any) -> AnswerRow:
    return answer(name, output=None, error_kind=kind, error_message="no answer", **changes)


def record(position: int, name: str, **changes: Any) -> InputRow:
    fields = {"id": f'"{name}"', "key": f'"{name}"', "digest": DIGEST}
    return InputRow(position=position, line=position + 1, **(fields | changes))


def unreadable(position: int, name: str) -> InputRow:
    return record(position, name, key=None, digest=None, error="no text")


def in_flight(run_id: int, number: int) -> SentRow:
    return SentRow(run_id=run_id, call_id=number, sent_at=1.0, size=3, input_tokens=70, output_tokens=9)


def killed(path: Path, folder: Path) -> Path:
    """The store as it would be had its process been killed now: all that is on disk, and nobody holds it."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if file.suffix not in (".lock", ".holder"):
            shutil.copy(file, folder)
    return folder / path.name


# -- where it is ---------------------------------------------------------------------------------------------------


def test_a_store_is_named_by_itself_or_by_the_output_beside_it(store: RunStore, path: Path) -> None:
    """Whichever of the two is given, also where the output is not written yet."""
    assert stored.store_path(str(path)) == path
    output = str(path.parent / "labels.jsonl")
    assert stored.store_path(output) == path
    Path(output).write_text("{}\n")
    assert stored.store_path(output) == path


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "no run store is named"), ("absent", "neither"), ("folder", "is a folder"), ("file", "is not a run store")],
)
def test_what_is_no_store_is_refused_and_said(tmp_path: Path, name: str, said: str) -> None:
    """One error, which says what was found in its place."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("SQLite")
    with pytest.raises(ConfigError, match=said):
        stored.store_path(name and str(tmp_path / name))


def test_the_size_is_that_of_all_its_files(store: RunStore, path: Path) -> None:
    """What is not folded in yet lies in the log, and takes room as well."""
    run_id, settings_id = begin(store)
    store.write(run_id, settings_id, [call(1)], [])
    log = Path(f"{path}-wal")
    assert stored.size_of(path) == path.stat().st_size + log.stat().st_size > path.stat().st_size
    assert stored.size_of(str(path.parent / "absent")) == 0


# -- runs ----------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_without_the_part_of_a_second_model(store: RunStore) -> None:
    """All of them, or as many as are asked for; what a second model said belongs to the run that asked it."""
    first, _ = begin(store, config='{"input": "a"}')
    store.end_run(first, ended_at=2.0, status="done")
    second, settings_id = begin(store, config='{"input": "b"}')
    begin(store, model="larger", first_run=second, below=0.9)
    found = stored.runs(store)
    assert [run.id for run in found] == [second, first]
    assert [run.note for run in found] == [{"input": "b"}, {"input": "a"}]
    assert found[0].settings_id == settings_id
    assert (found[0].model, found[0].task_key, found[0].task) == ("m", "task", make_task())
    assert (found[1].started_at, found[1].ended_at, found[1].status) == (1.0, 2.0, "done")
    assert [run.id for run in stored.runs(store, newest=1)] == [second]


def test_a_run_without_an_end_goes_on_while_its_store_is_held_and_was_killed_otherwise(
    store: RunStore, path: Path, tmp_path: Path
) -> None:
    """What is known of it does not wait for the next run to open the store."""
    store.end_run(begin(store)[0], ended_at=2.0, status="done")
    begin(store)
    assert stored.is_held(path)
    with contextlib.closing(read_store(path)) as beside:
        assert [run.status for run in stored.runs(beside)] == [None, "done"]
    left = killed(path, tmp_path / "killed")
    for nobody_holds in (False, True):
        if nobody_holds:
            Path(f"{left}.lock").touch()
        assert stored.is_held(left) is False
        with contextlib.closing(read_store(left)) as beside:
            assert [run.status for run in stored.runs(beside)] == ["killed", "done"]


def test_a_lock_that_cannot_be_looked_at_is_taken_for_held(tmp_path: Path) -> None:
    """Else a run that goes on would be called killed."""
    lock = tmp_path / "x.lock"
    lock.symlink_to(lock)
    assert stored.is_held(tmp_path / "x")


def test_outputs_are_made_from_the_newest_list_of_inputs(store: RunStore) -> None:
    """A run that never came so far as to note its input is not the one that an output is of."""
    assert stored.newest_input(store) is None
    runs = [begin(store)[0] for _ in range(3)]
    for run_id in runs[:2]:
        store.add_inputs(run_id, [record(0, "a")])
    newest = stored.newest_input(store)
    assert newest is not None
    assert newest.id == runs[1]


def test_the_inputs_of_all_runs_are_known(store: RunStore) -> None:
    """However old the run: none of its files may be written over. Programs name none, and a damaged note is said."""
    for config in ('{"input": "b"}', '{"input": "a"}', '{"input": "b"}', "{}", '{"input": 3}'):
        begin(store, config=config)
    assert stored.noted_inputs(store) == ["a", "b"]
    run_id, _ = begin(store, config="{")
    with pytest.raises(StoreError, match="damaged"):
        stored.noted_inputs(store)
    with pytest.raises(StoreError, match=f"run {run_id} "):
        stored.runs(store)


# -- counts --------------------------------------------------------------------------------------------------------


def test_answers_are_counted_by_how_they_ended(store: RunStore) -> None:
    """Those with an output first, then the commonest failure; copies and marks are counted within, and only of these
    settings."""
    run_id, settings_id = begin(store)
    rows = [answer("a"), failure("b", "rare"), failure("c"), failure("d"), failure("e"), answer("f", copied=True)]
    store.write(run_id, settings_id, [], rows)
    store.mark_redo(settings_id, "key = ?", ['"c"'])
    other_run, other_settings = begin(store, model="other")
    store.write(other_run, other_settings, [], [answer("z")])
    counts = [(one.kind, one.count, one.copied, one.redo) for one in stored.answer_counts(store, settings_id)]
    assert counts == [(None, 2, 1, 0), ("missing", 3, 0, 1), ("rare", 1, 0, 0)]


def test_requests_are_counted_by_how_they_ended(store: RunStore) -> None:
    """The commonest first. Waste is what brought no accepted answer though one was asked for: no audit is that."""
    run_id, settings_id = begin(store)
    took = {"input_tokens": 100, "output_tokens": 10, "cached_tokens": 40, "reasoning_tokens": 3}
    calls = [
        call(1, outcome="missing", accepted=0, **took),
        call(2, **took),
        call(3, **took),
        call(4, purpose="audit", accepted=0, **took),
        call(5, outcome="timeout", status=0, accepted=0, unconfirmed_input=7, unconfirmed_output=5),
        call(6, outcome="timeout", status=0, accepted=0, unconfirmed_input=7, unconfirmed_output=5),
    ]
    store.write(run_id, settings_id, calls, [])
    assert stored.outcome_counts(store) == [
        OutcomeCount(
            outcome="ok", requests=3, audits=1, input_tokens=300, cached_tokens=120, output_tokens=30,
            reasoning_tokens=9,
        ),
        OutcomeCount(
            outcome="timeout", requests=2, barren=2, unconfirmed_input_tokens=14, unconfirmed_output_tokens=10
        ),
        OutcomeCount(
            outcome="missing", requests=1, barren=1, input_tokens=100, cached_tokens=40, output_tokens=10,
            wasted_tokens=110, reasoning_tokens=3,
        ),
    ]  # fmt: skip


def test_requests_in_flight_are_counted_until_they_are_stored(store: RunStore, path: Path, tmp_path: Path) -> None:
    """As in flight while the store is held, as killed when nobody holds it; once each, together with those that an
    earlier kill left; and not those of an older store of the same name."""
    run_id, settings_id = begin(store)
    assert stored.outcome_counts(store) == []
    store.write(run_id, settings_id, [call(1), call(2), call(3, outcome="killed", status=0, accepted=0)], [])
    for number in (2, 4, 5):  # the second is stored, and its note not taken back yet
        store.note_sent(in_flight(run_id, number))
    store.note_sent(in_flight(run_id + 1, 6))
    lost = {"barren": 2, "unconfirmed_input_tokens": 140, "unconfirmed_output_tokens": 18}
    flying = OutcomeCount(outcome="in-flight", requests=2, **lost)
    assert flying in stored.outcome_counts(store)
    assert sum(one.requests for one in stored.outcome_counts(store)) == 5
    with contextlib.closing(read_store(killed(path, tmp_path / "killed"))) as left:
        assert stored.outcome_counts(left) == [
            OutcomeCount(outcome="killed", requests=3, **(lost | {"barren": 3})),
            OutcomeCount(outcome="ok", requests=2),
        ]
    for number in (2, 4, 5, 6):
        store.note_ended(number)


FATES = st.lists(st.sampled_from(["ok", "failed", "pending", "unusable", "another text"]), max_size=12)


@settings(max_examples=25, deadline=None)
@given(FATES)
def test_every_record_of_an_input_is_counted_once(fates: list[str]) -> None:
    """As done, failed, unusable or to come; an answer to another text of it, or of other settings, is none. Those that
    failed or could not be read are listed in the order of the input."""
    with contextlib.closing(temporary_store()) as store:
        run_id, settings_id = begin(store)
        other_run, other_settings = begin(store, model="other")
        store.add_inputs(
            run_id,
            [
                unreadable(place, f"r{place}") if fate == "unusable" else record(place, f"r{place}")
                for place, fate in enumerate(fates)
            ],
        )
        store.add_inputs(other_run, [record(0, "r0")])
        ended = {"ok": answer, "failed": failure}
        rows = [ended[fate](f"r{place}") for place, fate in enumerate(fates) if fate in ended]
        rows += [answer(f"r{place}", digest=OTHER) for place, fate in enumerate(fates) if fate == "another text"]
        store.write(run_id, settings_id, [], rows)
        store.write(other_run, other_settings, [], [failure(f"r{place}") for place in range(len(fates))])
        run = next(one for one in stored.runs(store) if one.id == run_id)
        count = stored.input_count(store, run)
        assert (count.total, count.ok, count.failed, count.unusable) == (
            len(fates), fates.count("ok"), fates.count("failed"), fates.count("unusable"),
        )  # fmt: skip
        assert count.pending == fates.count("pending") + fates.count("another text")
        listed = [place for place, fate in enumerate(fates) if fate in ("failed", "unusable")]
        found = stored.failed_records(store, run, settings_id, most=4)
        assert [one.place.position for one in found if one.place] == listed[:4]
        for one in found:
            assert one.place is not None
            if fates[one.place.position] == "failed":
                assert one.place == record(one.place.position, f"r{one.place.position}")
                assert one.answer == failure(f"r{one.place.position}")
            else:
                assert one.place == unreadable(one.place.position, f"r{one.place.position}")
                assert one.answer is None


def test_without_a_list_of_inputs_failures_come_by_id(store: RunStore) -> None:
    """So many at the most, of these settings."""
    run_id, settings_id = begin(store)
    store.write(run_id, settings_id, [], [failure("b"), answer("d"), failure("c"), failure("a")])
    found = stored.failed_records(store, None, settings_id, most=2)
    assert [(one.place, one.answer) for one in found] == [(None, failure("a")), (None, failure("b"))]
    assert stored.failed_records(store, None, settings_id + 1, most=2) == []


# -- single records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ("7", ['"7"', "7"]),
        ("1.5", ['"1.5"', "1.5"]),
        ('"7"', ['"\\"7\\""', '"7"']),
        ("true", ['"true"']),
        ("null", ['"null"']),
        ("[1]", ['"[1]"']),
        ("x", ['"x"']),
    ],
)
def test_an_id_is_the_string_that_it_is_or_the_number_or_string_that_it_reads_as(given: str, keys: list[str]) -> None:
    """Nothing else can be an id: neither truth values, nor null, nor lists."""
    assert stored.id_keys(given) == keys


def test_everything_known_under_an_id_is_found(store: RunStore) -> None:
    """Its places in the input with the answer to that very text, then answers to texts that it had before; also where
    it could not be read, and without an input; of another id nothing."""
    run_id, settings_id = begin(store)
    seven = InputRow(position=1, line=2, id="7", key="7", digest=DIGEST)
    store.add_inputs(run_id, [record(0, "7"), seven, unreadable(2, "7"), record(3, "8"), unreadable(4, "8")])
    store.write(run_id, settings_id, [], [answer("7"), answer("7", digest=OTHER), answer("8")])
    store.write(run_id, settings_id, [], [AnswerRow(key="7", digest=DIGEST, output='"blue"')])
    run = stored.runs(store)[0]
    places = [(one.place, one.answer) for one in stored.records_with_id(store, run, settings_id, "7")]
    assert places == [
        (record(0, "7"), answer("7")),
        (seven, AnswerRow(key="7", digest=DIGEST, output='"blue"')),
        (unreadable(2, "7"), None),
        (None, answer("7", digest=OTHER)),
    ]
    without = stored.records_with_id(store, None, settings_id, "8")
    assert [(one.place, one.answer) for one in without] == [(None, answer("8"))]
    assert stored.records_with_id(store, run, settings_id, "9") == []
    assert [one.answer for one in stored.records_with_id(store, run, settings_id + 1, "8")] == [None, None]


def test_an_answer_is_to_one_text_under_one_task_and_model(store: RunStore) -> None:
    """To another text of the same record, or under other settings, there is none."""
    run_id, settings_id = begin(store)
    store.write(run_id, settings_id, [], [answer("a"), failure("a", digest=OTHER)])
    assert stored.answer_of(store, settings_id, '"a"', DIGEST) == answer("a")
    assert stored.answer_of(store, settings_id, '"a"', OTHER) == failure("a", digest=OTHER)
    assert stored.answer_of(store, settings_id, '"a"', b"f" * 16) is None
    assert stored.answer_of(store, settings_id + 1, '"a"', DIGEST) is None


def test_calls_come_in_the_order_asked_for_as_far_as_they_are_stored(store: RunStore) -> None:
    """Each as it was written."""
    run_id, settings_id = begin(store)
    rows = {1: call(1, estimated=True), 2: call(2, outcome="no-json", message="m", raw="r"), 3: call(3)}
    store.write(run_id, settings_id, list(rows.values()), [])
    assert stored.calls(store, [3, 9, 1, 2]) == [rows[3], rows[1], rows[2]]
    assert [one.estimated for one in stored.calls(store, [1, 2])] == [True, False]


def test_all_answers_are_given_once_by_key(store: RunStore) -> None:
    """However many there are, those to several texts of one record included, and none of other settings."""
    run_id, settings_id = begin(store)
    rows = [answer(f"r{number:05}", digest=digest) for number in range(1_010) for digest in (DIGEST, OTHER)]
    del rows[501]  # so that they do not come in twos to where a page ends
    store.write(run_id, settings_id, [], rows[::-1])
    other_run, other_settings = begin(store, model="other")
    store.write(other_run, other_settings, [], [answer("r00007")])
    assert list(stored.answers(store, settings_id)) == rows
