"""What was valid of a record that was asked again for the rest is kept over the end of the run."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.store import BallotRow, open_store, read_store
from engine.decide.answers import Reading
from engine.decide.recovery import Verdict
from engine.run.audit import MISSING
from engine.run.audit_settling import _produced
from engine.run.partials import partial_rows, with_partial
from engine.run.votes import with_ballots
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedReply, ScriptedTransport, chat_reply
from engine.vocabulary.config import RunConfig
from engine.vocabulary.values import Ballot, Batch, Item, Record
from tests.run.test_stacking import TASK, make_records
from tests.support import SAMPLING, annotate_all, make_config

WHOLE = {"topic": "art", "tone": "calm"}


class Model:
    """The first time that it answers, a record's tone is no label; later its topic is another, which does not count."""

    def __init__(self, *, asked: Counter[str] | None = None, dies_after: int | None = None) -> None:
        self.asked: Counter[str] = Counter(asked or {})
        self.transport = ScriptedTransport(self._reply)
        self._dies_after = dies_after

    def _reply(self, request: RecordedRequest) -> Outcome:
        if self._dies_after is not None and len(self.transport.requests) > self._dies_after:
            return ScriptedReply(status=401, body=b'{"error":{"message":"the key has expired"}}')
        results = []
        for item in request.items:
            first = {"topic": "art", "tone": "loud"}
            output = {"topic": "sport", "tone": "calm"} if self.asked[item["input"]] else first
            self.asked[item["input"]] += 1
            results.append({"id": item["id"], "output": output})
        return chat_reply(json.dumps({"results": results}))


def run(model: Model, count: int, config: RunConfig, store: Path, *, records: Any = None) -> Any:
    return virtual_time.run(
        annotate_all, records or make_records(count), model.transport, config, task=TASK, virtual_time=True,
        store=store, endpoint=SAMPLING,
    )  # fmt: skip


def kept(store: Path) -> list[tuple[str, int, Any]]:
    with closing(read_store(store)) as opened:
        rows = opened.query("SELECT key, round, output FROM ballots ORDER BY key, round")
    return [(json.loads(key), round_, json.loads(output)) for key, round_, output in rows]


@pytest.mark.parametrize("dies_after", range(1, 8))
def test_what_was_valid_before_the_end_stands_after_it(tmp_path: Path, dies_after: int) -> None:
    """Wherever the first run ends: over both runs each record is asked as often as in one run that does not end, its
    first valid topic stands, its calls are all that asked for it, and nothing is left of parts."""
    store = tmp_path / "s.sqlite"
    config = make_config(4, concurrency=1)
    first = Model(dies_after=dies_after)
    assert run(first, 8, config, store).stopped is not None
    parts = kept(store)
    assert all((round_, output) == (-1, {"topic": "art"}) for _, round_, output in parts)
    assert {id_ for id_, _, _ in parts} == {f"r{text.split()[-1]}" for text, times in first.asked.items() if times == 1}
    again = Model(asked=first.asked)
    outcome = run(again, 8, config, store)
    assert {result.id: result.output for result in outcome.results} == {f"r{number}": WHOLE for number in range(8)}
    assert again.asked == {f"text number {number}": 2 for number in range(8)}
    assert kept(store) == []
    with closing(read_store(store)) as opened:
        assert {calls for (calls,) in opened.query("SELECT json_array_length(calls) FROM answers")} == {2}


def test_parts_belong_to_the_round_that_is_under_way(tmp_path: Path) -> None:
    """With votes each round begins anew: what was kept of the first round, which has ended, is not in the second."""
    config = msgspec.structs.replace(make_config(4, concurrency=1), votes=2, votes_stop="never")
    for dies_after in (2, 4, 6):
        path = tmp_path / f"{dies_after}.sqlite"
        first = Model(dies_after=dies_after)
        run(first, 4, config, path)
        outcome = run(Model(asked=first.asked), 4, config, path)
        # Round 1: topic art, then tone calm. Round 2: sport and calm at once.
        assert {(result.output["tone"], result.votes) for result in outcome.results} == {("calm", 2)}
        assert {result.confidence for result in outcome.results} == {0.5}
        assert kept(path) == []


def test_another_text_has_no_parts(tmp_path: Path) -> None:
    """They are of a text: the same id with another one begins anew."""
    store = tmp_path / "s.sqlite"
    config = make_config(4, concurrency=1)
    run(Model(dies_after=1), 4, config, store)
    assert kept(store)
    records = [{"id": f"r{number}", "text": f"another text {number}"} for number in range(4)]
    again = Model(asked=Counter({record["text"]: 1 for record in records}))
    outcome = run(again, 4, config, store, records=records)
    assert {result.output["topic"] for result in outcome.results} == {"sport"}


def test_a_damaged_part_counts_for_nothing(tmp_path: Path) -> None:
    """Its record is asked as if there were none."""
    store = tmp_path / "s.sqlite"
    config = make_config(4, concurrency=1)
    run(Model(dies_after=1), 4, config, store)
    with closing(open_store(store)) as opened:
        opened._db.execute("""UPDATE ballots SET output = '{"topic":"xxx"}'""")
    outcome = run(Model(asked=Counter({f"text number {number}": 1 for number in range(4)})), 4, config, store)
    assert {result.output["topic"] for result in outcome.results} == {"sport"}


def test_a_record_that_fails_leaves_no_parts(tmp_path: Path) -> None:
    """What is valid of it stands beside its failure."""
    store = tmp_path / "s.sqlite"

    def loud(request: RecordedRequest) -> Outcome:
        results = [{"id": item["id"], "output": {"topic": "art", "tone": "loud"}} for item in request.items]
        return chat_reply(json.dumps({"results": results}))

    model = Model()
    model.transport = ScriptedTransport(loud)
    outcome = run(model, 1, make_config(1, concurrency=1), store)
    assert [result.error.valid for result in outcome.failed] == [{"topic": "art"}]
    assert kept(store) == []


def test_only_what_is_new_is_stored() -> None:
    """A reply that brings nothing more of a record writes no row."""
    known, new = make_item(0, kept={"topic": "art"}), make_item(1)
    batch = Batch(items=(known, new))
    more = msgspec.structs.replace(new, kept={"tone": "calm"}, calls=(7,))
    rows = partial_rows(batch, Verdict(children=(Batch(items=(known, more)),)), size=2, form="compact")
    assert [(row.key, row.round, row.output, row.calls) for row in rows] == [('"r1"', -1, '{"tone":"calm"}', (7,))]


@given(whole=st.integers(0, 4), rounds=st.sets(st.integers(-6, -1)))
def test_a_part_is_taken_only_into_its_own_round(whole: int, rounds: set[int]) -> None:
    """Whatever rows there are: whole answers are ballots, in their order, and the part of the next round is kept."""
    rows = [
        BallotRow(key='"r0"', digest=b"0" * 16, round=round_, output='{"topic":"art"}', calls=(9,), batch_size=2)
        for round_ in sorted(rounds)
    ]
    rows += [
        BallotRow(key='"r0"', digest=b"0" * 16, round=round_, output=json.dumps(round_), calls=(round_,), batch_size=2)
        for round_ in range(1, whole + 1)
    ]
    item = with_ballots(make_item(0), rows)
    assert [ballot.output for ballot in item.ballots] == list(range(1, whole + 1))
    is_there = -1 - whole in rounds
    assert item.kept == ({"topic": "art"} if is_there else {})
    assert item.calls == ((9,) if is_there else (whole,) if whole else ())


def test_a_round_that_has_begun_is_known_by_its_number() -> None:
    """`with_partial` alone: of two rounds, that of the record's own."""
    item = make_item(0, ballots=(Ballot(output=WHOLE),))
    rows = [BallotRow(key='"r0"', digest=b"0" * 16, round=-2, output='{"tone":"calm"}', calls=(1, 2))]
    assert with_partial(item, rows).kept == {"tone": "calm"}
    assert with_partial(make_item(0), rows).kept == {}


def make_item(number: int, **changes: Any) -> Item:
    record = Record(
        position=number, line=number + 1, id=f"r{number}", key=f'"r{number}"', input="a text",
        digest=bytes([48 + number]) * 16,
    )  # fmt: skip
    return Item(record=record, accepted_at_s=0.0, **changes)


def test_the_guard_of_labels_does_not_look_at_answers_of_two_requests() -> None:
    """A record of which an earlier run kept a part is answered partly in that run's company: its first answer is none
    of this batch. Of a batch that is sent again for the rest it is looked at as ever."""
    items = (make_item(0, kept={"topic": "art"}), make_item(1))
    reading = Reading(answers={"a": WHOLE, "b": WHOLE}, defects={}, foreign=0, found=2)

    def produced(first: bool) -> list[object]:
        sent = SimpleNamespace(batch=Batch(items=items, first=first), ids=dict(zip("ab", items, strict=True)))
        return _produced(sent, reading)  # type: ignore[arg-type]

    assert produced(first=True) == [MISSING, WHOLE]
    assert produced(first=False) == [WHOLE, WHOLE]
