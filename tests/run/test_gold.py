"""Gold in a run: it rides in the batches, judges their size, and never comes out. Virtual time, simulated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.adapters.store import read_store
from engine.report.gold import GoldUse
from engine.run.session import Engine
from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import (
    FormChoice,
    Limits,
    NeighbourGuardMode,
    Packing,
    Prices,
    Quality,
    Recovery,
    RunConfig,
)
from engine.vocabulary.errors import ConfigError, InputError, RunStopped
from engine.vocabulary.task import Example, Field, FieldType
from support import ENDPOINT, LABELS, Outcome, make_records, make_task

FALLS = BatchBehaviour(accuracy=0.85, redraw=Redraw(share={8: 0.0, 16: 0.5}, accuracy={1: 0.4}))
"""As alone up to eight records; above, half of the answers are drawn anew, and few of them right."""

HOLDS = BatchBehaviour(accuracy=0.85)


def make_gold(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": f"secret-{number}",
            "text": f"gold number {number}",
            "label": stable_label(f"gold number {number}", LABELS),
        }
        | more
        for number in range(count)
    ]


def make_gold_config(
    batch_size: int | None = None,
    *,
    rate: float = 0.05,
    guard: bool = True,
    neighbours: NeighbourGuardMode = "watch",
    **more: Any,
) -> RunConfig:
    return RunConfig(
        packing=Packing(batch_size=batch_size, max_batch_size=32),
        limits=more.pop("limits", Limits(max_concurrency=8)),
        recovery=Recovery(max_failed=1.0),
        quality=Quality(guard=guard, gold_rate=rate, neighbours=neighbours),
        **more,
    )


class Told(InProcessTransport):
    """Keeps the bodies of all requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bodies: list[bytes] = []

    async def post(self, url: str, *, body: bytes, **how: Any) -> Any:
        self.bodies.append(body)
        return await super().post(url, body=body, **how)


async def _annotate(
    records: Any, transport: Told, config: RunConfig, gold: Any, task: Any, store: str | None
) -> Outcome:
    outcome = Outcome()
    async with Engine(ENDPOINT, config, transport=transport, virtual_time=True, store=store) as engine:
        stream = engine.annotate(task or make_task(), records, gold=gold)
        try:
            async for result in stream:
                outcome.results.append(result)
        except Exception as error:  # noqa: BLE001 - whatever ends the stream is what the test looks at
            outcome.stopped = error
        outcome.counters = stream.counters
    return outcome


def run_with_gold(
    count: int, config: RunConfig, gold: Any, *, simulator: SimulatorConfig | None = None, task: Any = None,
    store: str | None = None, records: Any = None,
) -> tuple[Outcome, Told]:  # fmt: skip
    endpoint = build_endpoint(simulator or SimulatorConfig())
    transport = Told(endpoint)
    outcome = virtual_time.run(
        _annotate, make_records(count) if records is None else records, transport, config, gold, task, store
    )
    outcome.endpoint = endpoint
    return outcome, transport


def used(outcome: Outcome) -> GoldUse:
    assert outcome.counters.gold is not None
    return outcome.counters.gold.use(began_s=0.0)


def asked_of(body: bytes) -> list[str]:
    """The texts that a request asks about."""
    last = json.loads(json.loads(body)["messages"][-1]["content"])
    items = last["items"] if isinstance(last, Mapping) else last
    return [item["input"] for item in items]


FAULTS = {"drop": 0.05, "cut": 0.05, "http_500": 0.05, "http_429": 0.05, "reset": 0.02, "hang": 0.01, "off_label": 0.03}


@pytest.mark.parametrize("faults", [{}, FAULTS], ids=["well", "faults"])
@pytest.mark.parametrize(
    ("batch_size", "form", "neighbours"),
    [(None, "auto", "watch"), (1, "auto", "watch"), (2, "compact", "watch"), (10, "keyed", "watch"),
     (10, "compact", "canaries")],
)  # fmt: skip
def test_gold_is_in_nothing_that_comes_out(
    tmp_path: Path, batch_size: int | None, form: FormChoice, neighbours: NeighbourGuardMode, faults: dict[str, float]
) -> None:
    """Each record of the input ends once with its own answer, whatever rode with it; the store has no other answers and
    every request is counted."""
    records, store = make_records(1_500), tmp_path / "run.sqlite"
    simulator = SimulatorConfig(faults=faults, seed=2)
    outcome, told = run_with_gold(
        1_500,
        make_gold_config(batch_size, rate=0.2, answer_form=form, neighbours=neighbours),
        make_gold(120),
        simulator=simulator,
        store=str(store),
    )
    outcome.assert_each_once(records)
    counters, use = outcome.counters, used(outcome)
    assert outcome.endpoint is not None
    assert counters.requests == outcome.endpoint.ledger.requests == len(told.bodies)
    assert (counters.records_ok + counters.records_failed, counters.records_copied) == (1_500, 0)
    assert use.alone > 0
    assert (use.rides > 0) == (batch_size != 1)
    assert all(row.accuracy == 1.0 for row in use.by_size)  # the simulated model is always right
    opened = read_store(store)
    ((answers, texts),) = opened.query("SELECT count(*), count(DISTINCT key) FROM answers")
    ((accepted,),) = opened.query("SELECT total(accepted) FROM calls")
    opened.close()
    assert (answers, texts) == (1_500, 1_500)
    assert accepted >= counters.records_ok or faults


def test_a_model_cannot_tell_gold_from_the_rest() -> None:
    """Neither the label, nor its id, nor a field that the input does not have, nor a fixed place in the batch; and no
    batch is larger than was said."""
    _, told = run_with_gold(1_000, make_gold_config(8, rate=0.1), make_gold(200))
    assert not any(b"secret" in body for body in told.bodies)
    full = [texts for texts in map(asked_of, told.bodies) if len(texts) == 8]
    places = [place for texts in full for place, text in enumerate(texts) if text.startswith("gold")]
    assert set(places) == set(range(8))
    assert max(len(asked_of(body)) for body in told.bodies) == 8
    assert all(len(set(asked_of(body))) == len(asked_of(body)) for body in told.bodies)


def test_gold_that_has_other_fields_is_refused_before_anything_is_sent() -> None:
    """Where the task sends all fields, gold with one more would be seen through; naming the fields mends it."""
    outcome, told = run_with_gold(100, make_gold_config(), make_gold(50, annotator="me"))
    assert isinstance(outcome.stopped, ConfigError)
    assert "annotator" in str(outcome.stopped)
    assert 'input = ["..."]' in str(outcome.stopped)
    assert told.bodies == []
    named, _ = run_with_gold(100, make_gold_config(), make_gold(50, annotator="me"), task=make_task(input=["text"]))
    assert named.stopped is None
    assert used(named).alone > 0


def test_a_record_never_rides_beside_itself() -> None:
    """Gold is often a part of the corpus: a batch that asked the same text twice would tell it, and prove nothing."""
    records = make_records(60)
    gold = [{"text": row["text"], "label": stable_label(row["text"], LABELS)} for row in records]
    outcome, told = run_with_gold(60, make_gold_config(8, rate=0.5), gold, records=records)
    outcome.assert_each_once(records)
    assert used(outcome).rides > 5
    assert all(len(set(texts)) == len(texts) for texts in map(asked_of, told.bodies))


def test_gold_rides_with_records_of_its_own_fields() -> None:
    """Where the records of the input differ in their fields, so does what gold may stand among."""
    records = [{"id": f"r{n}", "text": f"text {n}"} | ({"source": "web"} if n % 2 else {}) for n in range(800)]
    gold = [row | {"source": "web"} for row in make_gold(100)]
    outcome, told = run_with_gold(800, make_gold_config(2, rate=0.3), gold, records=records)
    assert outcome.stopped is None
    pairs = [
        texts for texts in map(asked_of, told.bodies) if len(texts) == 2 and any("gold" in str(one) for one in texts)
    ]
    assert pairs
    assert all(isinstance(one, Mapping) and set(one) == {"text", "source"} for texts in pairs for one in texts)


@pytest.mark.parametrize("guard", [True, False])
def test_a_size_that_loses_is_left_and_said(guard: bool) -> None:
    """Whether the guard is off or lets much through: B grows until gold says that it loses."""
    simulator = SimulatorConfig(behaviour=FALLS, seed=3)
    config = make_gold_config(guard=guard, answer_form="compact")  # each form has a test of its own
    config = msgspec.structs.replace(config, quality=msgspec.structs.replace(config.quality, max_disagreement=0.7))
    outcome, _ = run_with_gold(9_000, config, make_gold(600), simulator=simulator)
    assert outcome.counters.batch_size is not None
    assert outcome.counters.batch_size.settled_size <= 8
    moves = used(outcome).moves
    assert all(move.capped and move.pairs <= 150 and move.loss > 0.1 for move in moves)
    assert [move.kept for move in moves] in ([16, 8], [8])
    assert any("points less accuracy" in notice for notice in outcome.counters.notices)
    if guard:
        above = sum(result.batch_size > moves[-1].kept for result in outcome.results)
        assert 0.6 * above < moves[-1].labelled <= above  # those in flight then are not counted
        assert any("annotate retry --batch-size-above" in notice for notice in outcome.counters.notices)
    assert any("by" in each.reason and each.new == 8 for each in outcome.counters.batch_size.history)


def test_a_size_that_the_user_fixed_is_kept_and_said_to_lose() -> None:
    """Nothing is capped, and nobody can miss it."""
    simulator = SimulatorConfig(behaviour=FALLS, seed=3)
    outcome, _ = run_with_gold(9_000, make_gold_config(16), make_gold(600), simulator=simulator)
    assert outcome.counters.batch_size is not None
    assert outcome.counters.batch_size.settled_size == 16
    (move,) = used(outcome).moves
    assert not move.capped
    assert any("a smaller size (none was measured here), or auto" in notice for notice in outcome.counters.notices)


def test_a_size_that_loses_nothing_is_left_alone() -> None:
    """As many gold answers, and no word of a loss."""
    simulator = SimulatorConfig(behaviour=HOLDS, seed=3)
    outcome, _ = run_with_gold(9_000, make_gold_config(guard=False), make_gold(600), simulator=simulator)
    use = used(outcome)
    assert use.moves == []
    assert sum(loss.pairs for loss in use.losses) > 200
    assert outcome.counters.batch_size is not None
    assert outcome.counters.batch_size.settled_size > 8


def test_gold_takes_no_more_than_its_rate_and_is_paid_under_the_budget() -> None:
    """A twentieth of the records ride, and a tenth of the tokens goes to lone asks; the report says what it took, and a
    budget holds for gold as for all else."""
    prices = Prices(input=1.0, output=2.0)
    outcome, _ = run_with_gold(6_000, make_gold_config(10, prices=prices), make_gold(2_000))
    use, counters = used(outcome), outcome.counters
    assert use.rides <= 0.055 * 6_000
    assert 16 < use.alone == use.requests
    assert 0 < use.tokens < 0.17 * (counters.tokens_input + counters.tokens_output)
    limits = Limits(max_concurrency=8, requests_per_minute=100_000)
    paced, _ = run_with_gold(6_000, make_gold_config(10, limits=limits), make_gold(2_000))
    assert 16 < used(paced).alone <= 0.11 * paced.counters.requests
    assert use.usd == pytest.approx(use.tokens * 1e-6, rel=1.0)
    budget = 40_000
    stopped, _ = run_with_gold(6_000, make_gold_config(10, budget_tokens=budget), make_gold(2_000))
    assert isinstance(stopped.stopped, RunStopped)
    assert stopped.stopped.kind == "budget"
    assert used(stopped).tokens > 0
    assert stopped.counters.tokens_input + stopped.counters.tokens_output <= budget


def test_a_run_that_goes_on_asks_no_gold_where_nothing_is_left(tmp_path: Path) -> None:
    """All answers are in the store: nothing is sent, and gold is in none of them."""
    store = str(tmp_path / "run.sqlite")
    first, _ = run_with_gold(300, make_gold_config(10), make_gold(100), store=store)
    again, told = run_with_gold(300, make_gold_config(10), make_gold(100), store=store)
    assert told.bodies == []
    assert [result.output for result in again.results] != []
    assert {result.id for result in again.results} == {result.id for result in first.results}
    assert used(again).rides == 0


def test_bad_gold_names_its_line_and_what_to_do() -> None:
    """Before anything is sent: a label outside the set, an example of the task, a twin."""
    gold = make_gold(5)
    cases: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
        ([*gold[:3], {"id": 9, "text": "t", "label": "pink"}], {}, "line 4"),
        ([*gold, dict(gold[1])], {}, "line 6: it is the same as line 2"),
        (
            gold,
            {"examples": [Example(input=gold[2]["text"], output="red")]},
            "line 3: it is one of the task's examples",
        ),
    ]
    for rows, changes, said in cases:
        outcome, told = run_with_gold(50, make_gold_config(), rows, task=make_task(**changes))
        assert isinstance(outcome.stopped, InputError), outcome.stopped
        assert said in str(outcome.stopped)
        assert "--on-bad-record fail-record" in str(outcome.stopped)
        assert told.bodies == []
        config = msgspec.structs.replace(make_gold_config(), on_bad_record="fail-record")
        lenient, _ = run_with_gold(50, config, rows, task=make_task(**changes))
        assert used(lenient).unusable == 1


def test_what_rides_twice_is_a_record_of_another_pass() -> None:
    """A small file is asked again and again, ever more seldom, and an interval is over its records."""
    outcome, _ = run_with_gold(6_000, make_gold_config(10, rate=0.1), make_gold(20))
    use = used(outcome)
    assert use.passes > 2
    assert 20 < use.rides < 0.1 * 6_000 / 2
    rows = [row for row in use.by_size if row.where != "1"]
    assert all(row.records <= 20 for row in rows)
    assert sum(loss.pairs for loss in use.losses) <= 20


def test_several_variables_are_told_apart() -> None:
    """Each has its own accuracy; gold of several variables in columns of their own."""
    task = make_task(
        labels=[],
        fields={
            "colour": Field(labels=LABELS),
            "big": Field(type=FieldType.BOOLEAN),
            "why": Field(type=FieldType.STRING),
        },
    )
    gold = [{"text": f"gold {number}", "colour": "red", "big": True, "why": "so"} for number in range(200)]
    outcome, _ = run_with_gold(2_000, make_gold_config(10), gold, task=task)
    assert outcome.stopped is None
    assert {row.variable for row in used(outcome).by_size} == {"colour", "big"}
    free, told = run_with_gold(
        50, make_gold_config(), gold, task=make_task(labels=[], fields={"why": Field(type=FieldType.STRING)})
    )
    assert isinstance(free.stopped, ConfigError)
    assert told.bodies == []


def accuracy(outcome: Outcome) -> float:
    return sum(
        result.output == stable_label(f"text number {result.position}", LABELS) for result in outcome.results
    ) / len(outcome.results)


PLACES = BatchBehaviour(accuracy=0.95, redraw=Redraw(share={2: 0.02, 4: 0.1, 8: 0.25, 16: 0.5}, accuracy={1: 0.3}))
"""The larger the batch, the more answers are drawn anew and mostly wrong."""


@pytest.mark.parametrize("count", [250, 400])
def test_labels_are_no_worse_with_gold_than_without(count: int) -> None:
    """Gold caps what the looks let through, and lets nothing through that was not looked at: however much of it there
    is, no record of the input is labelled in a batch of a size that nobody looked at."""
    simulator = SimulatorConfig(behaviour=PLACES, seed=3)
    plain, _ = run_with_gold(6_000, make_gold_config(), None, simulator=simulator)
    gold, _ = run_with_gold(6_000, make_gold_config(), make_gold(count), simulator=simulator)
    assert gold.counters.auditor is not None
    assert gold.counters.auditor.requests > 0
    largest = max(result.batch_size for result in plain.results)
    assert max(result.batch_size for result in gold.results) <= largest
    assert accuracy(plain) > 0.9
    assert accuracy(gold) > accuracy(plain) - 0.01


def test_a_collapse_under_gold_is_left_for_the_size_below() -> None:
    """Sound up to 16, ruined above: B ends at 16, after few answers at 32."""
    simulator = named_profile("collapse-at-16").config(labels=LABELS, seed=3)
    outcome, _ = run_with_gold(9_000, make_gold_config(), make_gold(400), simulator=simulator)
    assert outcome.counters.batch_size is not None
    assert outcome.counters.batch_size.settled_size == 16
    assert sum(result.batch_size > 16 for result in outcome.results) < 0.2 * 9_000
