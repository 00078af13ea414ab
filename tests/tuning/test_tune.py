"""A search through the engine, against the simulated endpoint on virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.decide.racing import Rule
from engine.decide.scores import METRICS, metric_of
from engine.testing import virtual_time
from engine.testing.scripted import RecordedRequest, ScriptedTransport, answer_all, chat_reply, results_content
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.made_up import CLIFF_AT_3
from engine.testing.simulator.transport import InProcessTransport
from engine.tuning import tune_sentences as sentences
from engine.tuning.gold import Gold
from engine.tuning.page.tune_html import render
from engine.tuning.space import Space
from engine.tuning.trial import Means, Trial
from engine.tuning.tune import Aim, Search
from engine.tuning.tune_document import Tuned
from engine.vocabulary.config import Endpoint, Limits, Prices, RunConfig, VotesStop
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.task import Task

LABELS = ["red", "green", "blue"]
TASK = Task(instructions="Say which colour it is. " * 10, labels=LABELS)
SPACE = Space(batch_size=(1, 5), form=("compact",), examples=(0,))


def make_gold(count: int) -> Gold:
    """Records that the simulated model answers rightly, but for what its behaviour does."""
    texts = [f"text number {number}" for number in range(count)]
    return Gold(
        records=[{"id": f"g{number}", "text": text} for number, text in enumerate(texts)],
        outputs=[stable_label(text, LABELS) for text in texts], field="label", unusable=0, problems=[],
    )  # fmt: skip


def search(
    folder: Path, endpoint: SimulatedEndpoint, *, gold: Gold, space: Space = SPACE, prices: Prices | None = None,
    limits: Limits | None = None, transport: ScriptedTransport | None = None, votes_stop: VotesStop = "decided",
    task: Task | None = None, **aim: Any,
) -> Search:  # fmt: skip
    """A search that sends nothing yet."""
    folder.mkdir(exist_ok=True)
    means = Means(
        endpoint=Endpoint(base_url="http://simulated/v1", model="simulated"), model="simulated", is_embedded=False,
        config=RunConfig(limits=limits or Limits(max_concurrency=8), prices=prices, votes_stop=votes_stop),
        folder=folder,
    )  # fmt: skip
    return Search(
        task or TASK, gold,
        Aim(space=space, rule=Rule(), metric=metric_of("accuracy", TASK), metric_name="accuracy", task_name="task.toml",
            gold_name="gold.jsonl", **aim),
        means, transport=transport or InProcessTransport(endpoint), virtual_time=True,
    )  # fmt: skip


def trials_of(made: Search) -> list[Trial]:
    """All of them."""
    return [trial for stack in made._trials for trial in stack.trials]


def ended(made: Search) -> Tuned:
    """What it comes to."""
    tuned: Tuned = virtual_time.run(made.run, lambda progress: None)
    return tuned


def test_a_batch_size_that_holds_is_taken_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    """Where batches change nothing, five a request; where they cost thirty points, one."""
    gold = make_gold(300)
    for harm, size in ((0.0, 5), (0.3, 1)):
        behaviour = BatchBehaviour(
            accuracy=0.9, redraw=Redraw(share={1: 0.0, 2: 1.0, 5: 1.0}, accuracy={1: 0.9 - harm})
        ) if harm else None  # fmt: skip
        tuned = ended(search(tmp_path / f"{harm}", build_endpoint(SimulatorConfig(behaviour=behaviour)), gold=gold))
        assert tuned.choice.setting.batch_size == size
        assert tuned.is_clear
        assert tuned.options[:2] == ["--batch-size", str(size)]


def test_the_same_search_again_pays_for_nothing(tmp_path: Path) -> None:
    """Every answer is in a store: no request, the same choice, the same figures."""
    gold = make_gold(200)
    first_endpoint, second_endpoint = build_endpoint(SimulatorConfig()), build_endpoint(SimulatorConfig())
    first = ended(search(tmp_path, first_endpoint, gold=gold))
    second = ended(search(tmp_path, second_endpoint, gold=gold))
    assert first_endpoint.ledger.requests > 0
    assert second_endpoint.ledger.requests == 0
    assert (second.choice.setting, second.spent_tokens) == (first.choice.setting, first.spent_tokens)


def test_a_budget_ends_the_search_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """It says that it stopped, spends no more over all trials, and a larger budget takes up from there."""
    gold = make_gold(200)
    endpoint = build_endpoint(SimulatorConfig())
    stopped = ended(search(tmp_path, endpoint, gold=gold, budget_tokens=12_000))
    assert stopped.stopped is not None
    ledger = endpoint.ledger
    assert 9_000 < ledger.prompt_tokens + ledger.completion_tokens <= 12_000
    assert ended(search(tmp_path, endpoint, gold=gold, budget_tokens=20_000)).stop_kind == "budget"
    assert 17_000 < ledger.prompt_tokens + ledger.completion_tokens <= 20_000
    whole = ended(search(tmp_path, endpoint, gold=gold))
    assert whole.stopped is None
    assert whole.spent_tokens == ledger.prompt_tokens + ledger.completion_tokens
    fresh = build_endpoint(SimulatorConfig())
    ended(search(tmp_path / "fresh", fresh, gold=gold))
    assert ledger.requests <= fresh.ledger.requests + 8  # what the first look left unanswered was not asked twice


def test_replies_that_make_no_sense_are_counted_and_priced(tmp_path: Path) -> None:
    """Prose above three records: batches of five are split, so they cost more than they save, and it shows."""
    tuned = ended(search(tmp_path, build_endpoint(SimulatorConfig(faults=CLIFF_AT_3)), gold=make_gold(60)))
    one, five = (next(row for row in tuned.rows if row.setting.batch_size == size) for size in (1, 5))
    assert one.malformed == 0
    assert five.malformed >= 6  # of twelve batches, or fewer where ids, which are random, end one within three
    assert five.failed == 0


def test_a_setting_that_the_brake_stops_loses_and_ends_nothing(tmp_path: Path) -> None:
    """Its records count as wrong and it is asked no more. When all are so, the search says it."""
    silent = build_endpoint(SimulatorConfig(mode="never_format"))
    with pytest.raises(RunStopped, match="no setting gets an answer"):
        ended(search(tmp_path, silent, gold=make_gold(60)))
    made = search(tmp_path / "half", build_endpoint(SimulatorConfig()), gold=make_gold(60))
    broken, asked = trials_of(made)[1], silent.ledger.requests
    broken._transport = InProcessTransport(silent)
    tuned = ended(made)
    row = next(row for row in tuned.rows if row.broken is not None)
    assert (row.setting, row.score, row.failed) == (broken.setting, 0.0, row.records)
    assert tuned.choice.setting != broken.setting
    assert silent.ledger.requests > asked


def test_gold_is_never_sent(tmp_path: Path) -> None:
    """Nothing that the endpoint receives holds a gold output beside its record."""
    seen: list[str] = []
    endpoint = build_endpoint(SimulatorConfig())
    transport = InProcessTransport(endpoint)
    made = search(tmp_path, endpoint, gold=make_gold(60))
    post = transport.post

    async def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(repr((args, kwargs)))
        return await post(*args, **kwargs)

    transport.post = spy  # type: ignore[method-assign]
    for trial in trials_of(made):
        trial._transport = transport
    ended(made)
    assert seen
    assert not any('"label"' in body or "'label'" in body for body in seen)


def test_prices_order_the_settings_and_are_told(tmp_path: Path) -> None:
    """With prices the cost is in dollars, and the table has it."""
    tuned = ended(search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(60),
                         prices=Prices(input=1.0, output=2.0)))  # fmt: skip
    assert tuned.spent_usd == pytest.approx(sum((row.usd_per_1000 or 0) * row.records for row in tuned.rows) / 1000)
    with pytest.raises(ConfigError, match="budget in dollars needs prices"):
        search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(60), budget_usd=1.0)


def test_what_a_setting_says_is_what_is_sent(tmp_path: Path) -> None:
    """Schema or not, temperature, model and the user's own keys stand in the requests of their settings."""
    space = Space(batch_size=(5,), form=("compact",), examples=(0,), schema=(True, False), temperature=(0.0, 0.7),
                  model=("one", "two"), body={"top_p": [0.5]})  # fmt: skip
    endpoint = build_endpoint(SimulatorConfig(labels=LABELS))
    transport, bodies = InProcessTransport(endpoint), []
    made = search(tmp_path, endpoint, gold=make_gold(20), space=space)
    post = transport.post

    async def spy(*args: Any, **kwargs: Any) -> Any:
        found = next(value for value in (*args, *kwargs.values()) if isinstance(value, bytes))
        bodies.append(msgspec.json.decode(found))
        return await post(*args, **kwargs)

    transport.post = spy  # type: ignore[method-assign]
    for trial in trials_of(made):
        trial._transport = transport
    tuned = ended(made)
    assert {row.score for row in tuned.rows} == {1.0}, [(row.setting, row.broken) for row in tuned.rows]
    sent = {(body["response_format"]["type"], body["temperature"], body["model"], body["top_p"]) for body in bodies}
    assert sent == {
        (kind, temperature, model, 0.5)
        for kind in ("json_schema", "text") for temperature in (0.0, 0.7) for model in ("one", "two")
    }  # fmt: skip


@pytest.mark.parametrize("name", METRICS)
def test_every_measure_can_be_raced(tmp_path: Path, name: str) -> None:
    """Measures of the whole set too: right answers score 1, and the sooner a batch harms the lower it is."""
    behaviour = BatchBehaviour(accuracy=1.0, redraw=Redraw(share={1: 0.0, 2: 1.0}, accuracy={1: 0.5}))
    made = search(tmp_path, build_endpoint(SimulatorConfig(behaviour=behaviour)), gold=make_gold(100))
    made._aim = msgspec.structs.replace(made._aim, metric=metric_of(name, TASK), metric_name=name)
    tuned = ended(made)
    one, five = (next(row for row in tuned.rows if row.setting.batch_size == size) for size in (1, 5))
    assert one.score == pytest.approx(1.0)
    assert five.score < 0.8
    assert tuned.choice == one


def test_the_page_shows_what_a_name_holds_and_runs_none_of_it(tmp_path: Path) -> None:
    """One offline file; a script in a wording's name stays text."""
    space = Space(batch_size=(5,), form=("compact",), examples=(0,), wording=("own", "<script>alert(1)</script>"),
                  wordings={"<script>alert(1)</script>": "Colour? {instructions}"})  # fmt: skip
    tuned = ended(search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(60), space=space))
    page = render(tuned)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "not distinguishable" in page or "It is the cheapest setting" in page


def most_in_a_minute(times: list[float]) -> int:
    """Of any 60 s."""
    return max(sum(1 for other in times if time <= other < time + 60.0) for time in times)


def test_no_minute_holds_more_requests_than_are_allowed_whichever_trial_sends(tmp_path: Path) -> None:
    """Trials run one after another, each in an engine of its own; the limit is the endpoint's."""
    transport = ScriptedTransport(answer_all(lambda text: stable_label(text, LABELS), delay_s=0.5))
    made = search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(60),
                  space=msgspec.structs.replace(SPACE, batch_size=(10, 20), form=("compact", "keyed")),
                  limits=Limits(requests_per_minute=12), transport=transport)  # fmt: skip
    ended(made)
    times = [request.at_s for request in transport.requests]
    assert len(times) > 24
    assert most_in_a_minute(times) <= 12


def test_a_stop_ends_in_order_and_the_same_search_goes_on(tmp_path: Path) -> None:
    """While requests are in flight: nothing is sent any more, their answers are kept, the search says what it has, and
    the next one asks for the rest only."""
    gold, stopped_at_s = make_gold(100), []

    def reply(request: RecordedRequest) -> Any:
        if len(transport.requests) == 40:
            stopped_at_s.append(request.at_s)
            made.stop()
        return chat_reply(results_content(request.items, lambda text: stable_label(text, LABELS)), delay_s=1.0)

    transport = ScriptedTransport(reply)
    made = search(tmp_path, build_endpoint(SimulatorConfig()), gold=gold, transport=transport)
    tuned = ended(made)
    assert tuned.stop_kind == "interrupted"
    assert "goes on" in " ".join(sentences.why(tuned))
    assert all(request.at_s <= stopped_at_s[0] for request in transport.requests)
    assert made.spent == 110 * len(transport.requests)

    def searched(folder: Path) -> tuple[Tuned, int]:
        again = ScriptedTransport(answer_all(lambda text: stable_label(text, LABELS)))
        return ended(search(folder, build_endpoint(SimulatorConfig()), gold=gold, transport=again)), len(again.requests)

    whole, asked = searched(tmp_path)
    anew, of_all = searched(tmp_path / "anew")
    assert whole.stopped is None
    assert whole.choice.setting == anew.choice.setting
    assert len(transport.requests) + asked <= of_all + 2  # the stop left a batch less full


def test_a_stop_before_anything_was_answered_is_told(tmp_path: Path) -> None:
    """There is no table to print: the reason is raised."""
    made = search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(20))
    made.stop()
    with pytest.raises(RunStopped, match="interrupted"):
        ended(made)
