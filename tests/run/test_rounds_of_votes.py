"""Rounds of votes in the whole pipeline: who is asked again, beside whom, and what is kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from benchmarks.votes import run as measured
from engine.adapters.store import read_store
from engine.run.session import Engine
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedReply, ScriptedTransport, chat_reply
from engine.vocabulary.config import Limits, RunConfig
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Field, FieldType, Task
from tests.support import LABELS, SAMPLING, annotate_all, make_config, make_records, make_task

Say = Callable[[str, int], Any]
"""From a text and how often it was asked before to an output; None for no result at all."""


class Model:
    """An endpoint whose answers a test decides, by text and by how often it was asked."""

    def __init__(self, say: Say, *, dies_after: int | None = None, tokens_each: int = 0) -> None:
        """:param tokens_each: input tokens of each record, beside 100 of each request, as it says itself."""
        self._tokens_each = tokens_each
        self.asked: Counter[str] = Counter()
        self.transport = ScriptedTransport(self._reply)
        self._say = say
        self._dies_after = dies_after

    def _reply(self, request: RecordedRequest) -> Outcome:
        if self._dies_after is not None and len(self.transport.requests) > self._dies_after:
            return ScriptedReply(status=401, body=b'{"error":{"message":"the key has expired"}}')
        results = []
        for item in request.items:
            output = self._say(item["input"], self.asked[item["input"]])
            self.asked[item["input"]] += 1
            results += [] if output is None else [{"id": item["id"], "output": output}]
        tokens = 100 + self._tokens_each * len(request.items)
        return chat_reply(json.dumps({"results": results}), prompt_tokens=tokens)

    def rounds(self, number: int) -> list[list[str]]:
        """The texts of each request whose texts had been asked so often before."""
        asked: Counter[str] = Counter()
        found = []
        for batch in self.batches:
            if asked[batch[0]] == number:
                found.append(batch)
            asked.update(batch)
        return found

    @property
    def batches(self) -> list[list[str]]:
        """The texts of each request, in the order in which they were sent."""
        return [request.inputs for request in self.transport.requests]


def voting(votes: int, batch_size: int = 8, **changes: Any) -> RunConfig:
    return msgspec.structs.replace(make_config(batch_size, concurrency=1), votes=votes, **changes)


def run(model: Model, count: int, config: RunConfig, *, records: Any = None, **engine: Any) -> Any:
    """These models change their minds about the very same question, as they may above temperature 0."""
    given = {"endpoint": SAMPLING, "virtual_time": True} | engine
    return virtual_time.run(annotate_all, records or make_records(count), model.transport, config, **given)


def test_only_records_that_are_not_settled_are_asked_again() -> None:
    """Three rounds: where the first two agree nothing more is asked; where they do not, a third time decides. The
    confidence is the winner's share."""

    def say(text: str, times: int) -> str:
        return ["red", "green", "green"][times] if text.endswith("7") else "red"

    model = Model(say)
    outcome = run(model, 40, voting(3))
    open_ones = {f"text number {number}" for number in (7, 17, 27, 37)}
    assert {text: times for text, times in model.asked.items() if times != 2} == dict.fromkeys(open_ones, 3)
    found = {result.id: (result.output, result.confidence, result.votes) for result in outcome.results}
    assert found == {
        f"r{number}": ("green", pytest.approx(2 / 3), 3) if number % 10 == 7 else ("red", 1.0, 2)
        for number in range(40)
    }
    use = outcome.counters.votes.use()
    assert use.settled_by_round == (0, 36, 4)
    assert use.requests == len(model.batches) - len(model.rounds(0))
    assert outcome.counters.records_ok == 40


def test_who_sat_together_is_parted_and_sits_elsewhere() -> None:
    """With 64 records in batches of 8, hardly two that were in one request in the first round are in one in the second,
    and hardly one has the place that it had."""
    model = Model(lambda text, times: "red")
    run(model, 64, voting(2, seed=5))
    first, second = model.rounds(0), model.rounds(1)
    assert sorted(chain(*first)) == sorted(chain(*second))
    batch_of = {text: number for number, batch in enumerate(first) for text in batch}
    pairs = [Counter(batch_of[text] for text in batch) for batch in second]
    together = sum(number * (number - 1) // 2 for counts in pairs for number in counts.values())
    assert together <= 8  # of some 220 pairs; at random 25: the last batches have nobody left to exchange with
    place_of = {text: place for batch in first if len(batch) > 1 for place, text in enumerate(batch)}
    assert sum(place_of.get(text) == place for batch in second for place, text in enumerate(batch)) <= 4  # at random: 8


def test_without_votes_everybody_is_asked_once() -> None:
    """The default asks each record once, and says nothing of a confidence."""
    model = Model(lambda text, times: "red")
    outcome = run(model, 20, make_config(8, concurrency=1))
    assert set(model.asked.values()) == {1}
    assert {(result.confidence, result.votes) for result in outcome.results} == {(None, 1)}
    assert outcome.counters.votes.use() is None


def test_a_record_that_fails_in_a_later_round_keeps_its_answer() -> None:
    """It was answered once and then no more: the answer stands, with half the votes; who was never answered fails."""

    def say(text: str, times: int) -> str | None:
        if text == "text number 3":
            return "green" if times == 0 else None
        return None if text == "text number 5" else "red"

    model = Model(say)
    outcome = run(model, 8, voting(2))
    by_id = {result.id: result for result in outcome.results}
    assert (by_id["r3"].output, by_id["r3"].confidence, by_id["r3"].votes) == ("green", 0.5, 2)
    assert [result.id for result in outcome.failed] == ["r5"]
    assert outcome.counters.votes.use().kept == 1


def test_identical_inputs_share_the_votes() -> None:
    """They are asked once a round, and each has the answer and its confidence."""
    model = Model(lambda text, times: ["red", "green", "red"][times])
    records = [{"id": f"r{number}", "text": "the same"} for number in range(5)]
    outcome = run(model, 5, voting(3), records=records)
    assert model.asked == {"the same": 3}
    assert {(result.output, result.confidence, result.votes) for result in outcome.results} == {("red", 2 / 3, 3)}
    assert len(outcome.results) == 5


@pytest.mark.parametrize("dies_after", range(1, 8))
def test_a_run_that_ends_between_rounds_pays_for_no_vote_twice(tmp_path: Path, dies_after: int) -> None:
    """Whatever was answered before the end, in whichever round, is not asked again, and counts: over both runs each
    record is asked exactly three times."""

    def say(text: str, times: int) -> str:
        return ["red", "green", "green"][times]

    store = tmp_path / "s.sqlite"
    config = voting(3, batch_size=4)
    first = Model(say, dies_after=dies_after)
    stopped = run(first, 12, config, store=store)
    assert stopped.stopped is not None
    again = Model(lambda text, times: say(text, first.asked[text] + times))
    outcome = run(again, 12, config, store=store)
    assert outcome.stopped is None
    assert first.asked + again.asked == Counter({f"text number {number}": 3 for number in range(12)})
    assert {(result.output, result.votes) for result in outcome.results} == {("green", 3)}
    with closing(read_store(store)) as opened:
        assert opened.query("SELECT count(*) FROM ballots") == [(0,)]
        calls = {calls for (calls,) in opened.query("SELECT json_array_length(calls) FROM answers")}
        assert calls == {3}  # the calls of the first run are among them; refused ones are not


def test_votes_that_suffice_by_a_new_rule_are_not_asked_for(tmp_path: Path) -> None:
    """A second run without votes takes what the first brought, and asks only those that nobody has asked."""
    store = tmp_path / "s.sqlite"
    first = Model(lambda text, times: "green", dies_after=2)
    run(first, 12, voting(3, batch_size=4), store=store)
    assert len(first.asked) == 5  # one alone, to see whether anything works
    again = Model(lambda text, times: "red")
    outcome = run(again, 12, voting(1, batch_size=4), store=store)
    assert len(again.asked) == 7
    assert Counter(result.output for result in outcome.results) == {"green": 5, "red": 7}


def test_twins_of_a_record_whose_votes_suffice_are_not_asked(tmp_path: Path) -> None:
    """The first run left votes on a text; in the second, without votes, that text comes for other ids as well."""
    store = tmp_path / "s.sqlite"
    first = Model(lambda text, times: "green", dies_after=2)
    run(first, 4, voting(3, batch_size=4), store=store)
    again = Model(lambda text, times: "red")
    records = [*make_records(4), *({"id": f"twin{number}", "text": "text number 1"} for number in range(3))]
    outcome = run(again, 7, voting(1, batch_size=4), records=records, store=store)
    assert again.asked == {}
    assert Counter(result.output for result in outcome.results) == {"green": 7}


def test_a_changed_text_has_no_votes(tmp_path: Path) -> None:
    """Votes are on a text: the same id with another one begins anew."""
    store = tmp_path / "s.sqlite"
    first = Model(lambda text, times: "green", dies_after=1)
    run(first, 4, voting(3, batch_size=4), store=store)
    again = Model(lambda text, times: "red")
    records = make_records(4, text="another text {}".format)
    outcome = run(again, 4, voting(3, batch_size=4), records=records, store=store)
    assert set(again.asked.values()) == {2}
    assert {(result.output, result.votes) for result in outcome.results} == {("red", 2)}


@pytest.mark.parametrize("batch_size", [None, 1, 8])
@pytest.mark.parametrize("neighbours", ["off", "watch", "canaries"])
def test_votes_go_with_the_guards_and_an_adaptive_size(batch_size: int | None, neighbours: Any) -> None:
    """With audits, canaries and a size that is found out, each record still ends once, with the answer of all rounds,
    and every vote is an answer to it."""
    config = make_config(8)
    config = msgspec.structs.replace(
        config,
        votes=3,
        votes_stop="never",
        packing=msgspec.structs.replace(config.packing, batch_size=batch_size),
        quality=msgspec.structs.replace(config.quality, neighbours=neighbours),
    )
    truth = {f"text number {number}": LABELS[number * 7 % 3] for number in range(1_200)}
    model = Model(lambda text, times: truth.get(text, "red"))
    outcome = run(model, 1_200, config)
    assert outcome.stopped is None
    assert {result.id: (result.output, result.confidence, result.votes) for result in outcome.results} == {
        f"r{number}": (truth[f"text number {number}"], 1.0, 3) for number in range(1_200)
    }
    assert len(outcome.results) == 1_200
    assert min(model.asked[text] for text in truth) >= 3  # more often where it was an audit or a canary


def test_a_budget_ends_the_votes_and_keeps_them(tmp_path: Path) -> None:
    """The run stops within its budget in tokens, in the middle of the rounds; with more it goes on from there."""
    store = tmp_path / "s.sqlite"
    first = Model(lambda text, times: "red")
    outcome = run(first, 40, voting(3, votes_stop="never", budget_tokens=900), store=store)
    assert getattr(outcome.stopped, "kind", None) == "budget"
    assert outcome.counters.tokens_input + outcome.counters.tokens_output <= 900
    again = Model(lambda text, times: "red")
    outcome = run(again, 40, voting(3, votes_stop="never"), store=store)
    assert len(outcome.results) == 40
    assert set((first.asked + again.asked).values()) == {3}


def test_a_task_of_texts_has_nothing_to_vote_on() -> None:
    """One error, before anything is sent, that says what to leave out."""
    task = Task(instructions="Sum it up.", fields={"summary": Field(type=FieldType.STRING)})
    outcome = run(Model(lambda text, times: None), 4, voting(3), task=task)
    assert isinstance(outcome.stopped, ConfigError)
    assert "--votes" in str(outcome.stopped)


def test_live_records_are_voted_on_too() -> None:
    """Single records of a program are asked in rounds as well; each caller has the majority."""

    model = Model(lambda text, times: ["red", "green", "green"][times])

    async def live() -> Any:
        async with Engine(SAMPLING, voting(3), transport=model.transport, virtual_time=True) as engine:
            return await engine.submit("a text", task=make_task())

    result = virtual_time.run(live)
    assert (result.output, result.confidence, result.votes) == ("green", pytest.approx(2 / 3), 3)


def test_who_waits_for_an_answer_does_not_wait_for_another_s() -> None:
    """A live record's next round goes at once, though a request that may bring company takes two minutes."""

    def reply(request: RecordedRequest) -> Outcome:
        results = [{"id": item["id"], "output": "red"} for item in request.items]
        return chat_reply(json.dumps({"results": results}), delay_s=100.0 if "slow" in request.inputs else 1.0)

    config = msgspec.structs.replace(voting(3), limits=Limits(max_concurrency=4))

    async def live() -> tuple[float, float]:
        async with Engine(SAMPLING, config, transport=ScriptedTransport(reply), virtual_time=True) as engine:
            await engine.submit("first", task=make_task())  # something has worked
            ended: dict[str, float] = {}

            async def one(text: str) -> None:
                await engine.submit(text, task=make_task())
                ended[text] = anyio.current_time()

            began = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one, "slow")
                await anyio.sleep(10.0)
                tasks.start_soon(one, "quick")
            return ended["slow"] - began, ended["quick"] - began

    slow, quick = virtual_time.run(live)
    assert slow > 190.0
    assert quick < 20.0


def test_votes_make_answers_right_where_they_hang_on_the_batch() -> None:
    """On a simulated model that draws most answers anew in each batch (right three times out of four), the majority of
    five is right clearly more often, and answers that all rounds agree on more often than the others. The margins are
    some five standard errors below what is expected: .12 and .14."""
    once = measured("changes", 1, "decided", records=1_000, seed=1, batch_size=10)
    five = measured("changes", 5, "never", records=1_000, seed=1, batch_size=10)
    assert five.accuracy > once.accuracy + 0.03
    assert five.sure_right > five.unsure_right + 0.03
