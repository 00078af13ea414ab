"""Votes of records that are alone in their requests: at temperature 0 the same question is not asked twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from engine.adapters.providers.openai_chat import OpenAIChat
from engine.adapters.store import read_store
from engine.decide.outputs import output_check
from engine.decide.prompts import make_prompt
from engine.decide.recovery import Answer, Verdict
from engine.report.votes import VoteLog
from engine.run.plan import Asking
from engine.run.session import Engine
from engine.run.votes import Voting
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedReply, ScriptedTransport, chat_reply
from engine.vocabulary.config import Limits, RunConfig
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.values import Ballot, Batch, Item, Record
from tests.run.test_rounds_of_votes import Model, run, voting
from tests.support import ENDPOINT, SAMPLING, make_records, make_task

UNKNOWN = msgspec.structs.replace(ENDPOINT, temperature=None)


def long_text(number: int) -> str:
    return f"text number {number}" + " and so on" * 100


def one_each(**changes: Any) -> RunConfig:
    """A batch size of eight, and requests that hold one long text, not two."""
    config = voting(3, **changes)
    return msgspec.structs.replace(config, packing=msgspec.structs.replace(config.packing, max_input_tokens=600))


class LongModel(Model):
    """Always says the same, and counts the tokens of long texts."""

    def __init__(self, *, dies_after: int | None = None) -> None:
        super().__init__(lambda text, times: "red", dies_after=dies_after, tokens_each=310)


def run_long(model: Model, count: int, config: RunConfig, **engine: Any) -> Any:
    return run(model, count, config, records=make_records(count, text=long_text), **engine)


def lone_asks(model: Model) -> Counter[str]:
    return Counter(batch[0] for batch in model.batches if len(batch) == 1)


@pytest.mark.parametrize("packing", [{"batch_size": 1}, {"batch_size": None, "max_batch_size": 1}])
@pytest.mark.parametrize(
    "endpoint", [ENDPOINT, msgspec.structs.replace(UNKNOWN, extra_body={"temperature": 0})], ids=["own", "extra body"]
)
def test_a_fixed_size_of_one_at_temperature_0_is_an_error(packing: dict[str, Any], endpoint: Any) -> None:
    """Before anything is sent, with what to do about it; without votes it is as ever."""
    config = voting(3)
    config = msgspec.structs.replace(config, packing=msgspec.structs.replace(config.packing, **packing))
    model = Model(lambda text, times: "red")
    outcome = run(model, 4, config, endpoint=endpoint)
    assert isinstance(outcome.stopped, ConfigError)
    assert model.batches == []
    assert all(remedy in str(outcome.stopped) for remedy in ("--batch-size", "--temperature", "--votes"))
    once = run(model, 4, msgspec.structs.replace(config, votes=1), endpoint=endpoint)
    assert (once.stopped, len(once.ok)) == (None, 4)


@pytest.mark.parametrize(("endpoint", "doubted"), [(SAMPLING, False), (UNKNOWN, True)])
def test_above_temperature_0_records_alone_have_all_their_votes(endpoint: Any, doubted: bool) -> None:
    """Also where the temperature is not known, with a notice of what a confidence is worth then."""
    model = Model(lambda text, times: ["red", "green", "green"][times])
    outcome = run(model, 6, voting(3, batch_size=1), endpoint=endpoint)
    assert {(result.output, result.votes) for result in outcome.results} == {("green", 3)}
    assert any("endpoint's own temperature" in notice for notice in outcome.counters.notices) is doubted


def test_who_would_be_alone_again_is_settled_with_what_there_is() -> None:
    """Where it turns out in the run that each record goes alone, none is asked twice; one vote has no confidence, and
    the run says how many there were."""
    model = LongModel()
    outcome = run_long(model, 30, one_each(), endpoint=ENDPOINT)
    assert lone_asks(model) == Counter({long_text(number): 1 for number in range(30)}) == model.asked
    assert {(result.output, result.confidence, result.votes) for result in outcome.results} == {("red", None, 1)}
    assert sorted(result.id for result in outcome.results) == sorted(f"r{number}" for number in range(30))
    assert outcome.counters.votes.use().repeats == 30
    assert any(notice.startswith("30 records were settled with fewer votes") for notice in outcome.counters.notices)
    above = LongModel()
    assert run_long(above, 30, one_each(), endpoint=SAMPLING).counters.votes.use().repeats == 0
    assert set(above.asked.values()) == {2}


@pytest.mark.parametrize("count", [6, 20, 60])
@pytest.mark.parametrize("concurrency", [4, 16])
def test_the_last_records_are_not_spread_over_idle_slots(count: int, concurrency: int) -> None:
    """Without votes, the last ones of a run go alone where slots are free, to be done sooner. With votes at temperature
    0 they keep each other company, or none of them could have a second one."""
    config = voting(3)
    packing = msgspec.structs.replace(config.packing, batch_size=None)
    config = msgspec.structs.replace(config, packing=packing, limits=Limits(max_concurrency=concurrency))
    model = Model(lambda text, times: "red")
    outcome = run(model, count, config, endpoint=ENDPOINT)
    assert {(result.votes, result.confidence) for result in outcome.results} == {(2, 1.0)}
    assert outcome.counters.votes.use().repeats == 0


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("neighbours", ["off", "watch", "canaries"])
def test_alone_now_and_then_costs_no_votes_where_there_is_company(batch_size: int | None, neighbours: Any) -> None:
    """At temperature 0 each record ends once, with all of its votes. Where others wait, one that was alone sits among
    them the next time: probes, canaries-to-be and what the guard of labels compares with are alone in one round."""
    config = voting(3, votes_stop="never")
    config = msgspec.structs.replace(
        config,
        packing=msgspec.structs.replace(config.packing, batch_size=batch_size),
        quality=msgspec.structs.replace(config.quality, neighbours=neighbours),
    )
    model = Model(lambda text, times: ["red", "green", "blue"][sum(text.encode()) % 3])
    outcome = run(model, 300, config, endpoint=ENDPOINT)
    assert len(outcome.results) == 300
    assert {result.votes for result in outcome.results} == {3}
    assert outcome.counters.votes.use().repeats == 0


def test_what_was_asked_alone_by_an_earlier_run_is_not_asked_alone_again(tmp_path: Path) -> None:
    """A vote in the store says that it was of a record alone. With company, the record gets the votes that are left."""
    store = tmp_path / "s.sqlite"
    first = LongModel(dies_after=5)
    run_long(first, 12, one_each(), store=store, endpoint=ENDPOINT)
    assert 0 < len(first.asked) < 12
    with closing(read_store(store)) as opened:
        assert opened.query("SELECT count(*) FROM ballots") != [(0,)]
    again = LongModel()
    outcome = run_long(again, 12, one_each(), store=store, endpoint=ENDPOINT)
    assert first.asked + again.asked == Counter({long_text(number): 1 for number in range(12)})
    assert len(outcome.results) == 12
    assert outcome.counters.votes.use().repeats == 12


def test_lone_votes_of_an_earlier_run_are_followed_by_votes_among_others(tmp_path: Path) -> None:
    """The lone probe that a run begins with is none of the records that have been asked alone: it would end by that."""
    store = tmp_path / "s.sqlite"
    first = LongModel(dies_after=12)
    run_long(first, 12, one_each(votes_stop="never"), store=store, endpoint=SAMPLING)
    assert set(first.asked.values()) == {1}
    again = LongModel()
    outcome = run_long(again, 12, voting(3, votes_stop="never"), store=store, endpoint=ENDPOINT)
    assert {result.votes for result in outcome.results} == {3}
    assert outcome.counters.votes.use().repeats == 0


@pytest.mark.parametrize("late_s", [1.0, 60.0])
def test_the_first_record_of_an_input_waits_for_the_others_to_be_read(tmp_path: Path, late_s: float) -> None:
    """It was asked alone before, and now it is there before anybody else: it does not end by that. It does not wait for
    good: whoever gives the records may want to see it answered first."""
    store, records = tmp_path / "s.sqlite", make_records(12, text=long_text)
    first = LongModel(dies_after=1)
    run_long(first, 12, one_each(votes_stop="never"), store=store, endpoint=SAMPLING)
    assert sorted(first.asked.values()) == [1]

    async def slowly() -> AsyncIterator[dict[str, Any]]:
        yield records[0]
        await anyio.sleep(late_s)
        for record in records[1:]:
            yield record

    outcome = run(LongModel(), 12, voting(3, votes_stop="never"), records=slowly(), store=store, endpoint=ENDPOINT)
    assert outcome.counters.votes.use().repeats == int(late_s > 5)
    assert sorted(result.votes for result in outcome.results) == [1] * int(late_s > 5) + [3] * (12 - int(late_s > 5))


def test_a_lone_answer_that_was_asked_for_all_the_same_is_no_vote_more() -> None:
    """Who changes the answers to others is found out by asking records alone, also those that were alone before."""
    log = VoteLog()
    counting = Voting(make_task(), voting(3), log=log)
    record = Record(position=0, line=1, id="a", key='"a"', input="a text", digest=b"0" * 16)
    item = Item(record=record, accepted_at_s=0.0, calls=(1, 2), ballots=(Ballot(output="red", lone_form="compact"),))
    batch = Batch(items=(item,), family=1)
    verdict = Verdict(accepted=(Answer(item=item, output="red"),))
    polled = counting.poll(batch, verdict, size=1, asking=asking_at(0.0), sure={})
    assert [(won.elected.votes, won.elected.confidence) for won in polled.winners] == [(1, None)]
    assert (polled.again, polled.ballots, log.repeats) == ((), (), 1)
    above = counting.poll(batch, verdict, size=1, asking=asking_at(0.7), sure={})
    assert [(won.elected.votes, won.elected.confidence) for won in above.winners] == [(2, 1.0)]
    lost = counting.poll(batch, Verdict(children=(batch,)), size=1, asking=asking_at(0.0), sure={})
    assert (lost.winners, lost.verdict.children) == ((), (batch,))  # a request that brought nothing goes again


def test_while_each_goes_alone_many_wait_for_batches_to_grow() -> None:
    """At temperature 0, and as long as there is anything else to send; above it, who waits goes at once."""
    counting = Voting(make_task(), voting(3), log=VoteLog())
    record = Record(position=0, line=1, id="a", key='"a"', input="a text", digest=b"0" * 16)
    item = Item(record=record, accepted_at_s=0.0, ballots=(Ballot(output="red", lone_form="compact"),))
    counting.add([item] * 20)

    def is_due(temperature: float | None, size: int = 1, fresh: int = 5) -> bool:
        asking = asking_at(temperature)
        return counting.is_due(size, fresh=fresh, calls=fresh, is_full=False, asking=asking)

    assert [is_due(0.0), is_due(0.7), is_due(None), is_due(0.0, size=4)] == [False, True, True, True]
    assert is_due(0.0, fresh=0)
    counting.add([item] * 250)
    assert is_due(0.0)


def asking_at(temperature: float | None) -> Asking:
    task = make_task()
    provider = OpenAIChat(transport=ScriptedTransport(), endpoint=ENDPOINT, system="", schema=None)
    return Asking(
        prompt=make_prompt(task, "compact"), provider=provider, check=output_check(task), static_tokens=1,
        output_tokens=1.0, temperature=lambda: temperature,
    )  # fmt: skip


def test_a_record_that_was_not_answered_among_others_has_half_of_the_votes() -> None:
    """Alone in its first round; in the second nothing valid came for it, among others: asking it alone again would be
    the same question, so it ends with one vote of two."""
    silent: list[str] = []

    def say(request: RecordedRequest) -> Outcome:
        if not silent and len(request.inputs) == 1:
            silent.append(request.inputs[0])
        results = [
            {"id": item["id"], "output": "red"}
            for item in request.items
            if len(request.items) == 1 or item["input"] not in silent
        ]
        return chat_reply(json.dumps({"results": results}))

    model = Model(lambda text, times: "red")
    model.transport = ScriptedTransport(say)
    outcome = run(model, 16, voting(3), endpoint=ENDPOINT)
    by_text = {f"text number {result.id[1:]}": result for result in outcome.results}
    assert (by_text[silent[0]].confidence, by_text[silent[0]].votes) == (0.5, 2)
    assert lone_asks(model)[silent[0]] == 1
    assert outcome.counters.votes.use().kept == 1


def test_where_the_endpoint_takes_no_temperature_it_is_not_known() -> None:
    """It was to be 0, and was refused: what is asked again may be answered in another way, so all votes are asked."""

    def say(request: RecordedRequest) -> Outcome:
        if "temperature" in request.document:
            told = {"message": "Unsupported parameter: 'temperature'", "param": "temperature"}
            return ScriptedReply(status=400, body=json.dumps({"error": told}).encode())
        results = [{"id": item["id"], "output": "red"} for item in request.items]
        return chat_reply(json.dumps({"results": results}), prompt_tokens=100 + 310 * len(request.items))

    model = LongModel()
    model.transport = ScriptedTransport(say)
    outcome = run_long(model, 10, one_each(votes_stop="never"), endpoint=ENDPOINT)
    assert {result.votes for result in outcome.results} == {3}


def test_identical_inputs_share_a_vote_that_stays_alone() -> None:
    """Only one text: it is asked once, and all of its records have the answer."""
    model = Model(lambda text, times: "red")
    records = [{"id": f"r{number}", "text": "the same"} for number in range(5)]
    outcome = run(model, 5, voting(3), records=records, endpoint=ENDPOINT)
    assert model.asked == {"the same": 1}
    assert {(result.output, result.confidence, result.votes) for result in outcome.results} == {("red", None, 1)}
    assert len(outcome.results) == 5


def test_a_live_record_alone_is_asked_once() -> None:
    """Its caller has the answer at once, of unknown confidence."""
    model = Model(lambda text, times: "red")

    async def live() -> Any:
        async with Engine(ENDPOINT, voting(3), transport=model.transport, virtual_time=True) as engine:
            return await engine.submit("a text", task=make_task())

    result = virtual_time.run(live)
    assert (result.output, result.confidence, result.votes) == ("red", None, 1)
    assert model.asked == {"a text": 1}
