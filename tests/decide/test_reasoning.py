"""Reasoning is learned apart from answers, and leaves a request room; a thought that was cut is no batch too large."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide.answers import Reading
from engine.decide.estimates import TokenEstimates
from engine.decide.overthought import OVERTHOUGHT, is_overthought, judge_overthought
from engine.decide.packing import pack
from engine.decide.reasoning import Reasoning
from engine.decide.room import request_room
from engine.vocabulary.config import Limits, Packing
from engine.vocabulary.values import Batch, Completion, Item, Record, Usage

CAP = 16_000


def make_estimates() -> TokenEstimates:
    return TokenEstimates(static_tokens=500, prior_output_tokens=20.0)


def usage(output: int, reasoning: int) -> Usage:
    return Usage(input_tokens=600, output_tokens=output, reasoning_tokens=reasoning)


@given(
    call=st.floats(50, 3_000), record=st.floats(0, 60), sizes=st.lists(st.sampled_from([2, 4, 8, 16]), min_size=40),
    seed=st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_reasoning_is_told_from_answers(call: float, record: float, sizes: list[int], seed: int) -> None:
    """Calls of several sizes teach what a request thinks and what a record adds; answers are learned as without it."""
    estimates, rng = make_estimates(), random.Random(seed)
    for size in [1, 2, 4, 8, 16, *sizes] * 4:
        thought = round((call + record * size) * rng.uniform(0.8, 1.2))
        estimates.observe(
            counted_input=600, usage=usage(15 * size + thought, thought), answered=size, cut=False, asked=size
        )
    for size in (1, 4, 16):
        assert estimates.reasoning.expected(size) == pytest.approx(call + record * size, rel=0.2)
    assert estimates._answer == pytest.approx(15, abs=5)
    assert estimates.output_tokens(8) == pytest.approx(15 * 8 + call + 8 * record, rel=0.35)


@given(st.floats(100, 4_000), st.floats(0.1, 0.6), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_request_is_allowed_what_it_thinks(call: float, variation: float, seed: int) -> None:
    """Once fifty replies have told, fewer than one request in twenty needs more than it is allowed."""
    estimates, rng = make_estimates(), random.Random(seed)
    sigma = math.sqrt(math.log(1 + variation**2))
    short = 0
    for number in range(450):
        thought = round(call * rng.lognormvariate(-sigma * sigma / 2, sigma))
        if number >= 50:
            short += estimates.max_output_tokens(4, 1.0, 10**6) < thought + 60
        estimates.observe(counted_input=600, usage=usage(thought + 60, thought), answered=4, cut=False, asked=4)
    assert short <= 20


def test_a_thought_that_was_cut_makes_room_at_once() -> None:
    """One reply that was cut while it thought gives the next one several times the room; those that are whole take it
    back, or one long thought would keep every request large."""
    estimates = make_estimates()
    first = estimates.max_output_tokens(2, 1.0, CAP)
    estimates.observe(counted_input=600, usage=usage(first, first), answered=0, cut=True, asked=2)
    assert estimates.max_output_tokens(2, 1.0, CAP) >= first + 1_024
    again = estimates.max_output_tokens(2, 1.0, CAP)
    estimates.observe(counted_input=600, usage=usage(again, again), answered=0, cut=True, asked=2)
    assert estimates.max_output_tokens(2, 1.0, CAP) >= 2 * again
    for _ in range(60):
        estimates.observe(counted_input=600, usage=usage(40 + 100, 100), answered=2, cut=False, asked=2)
    assert estimates.max_output_tokens(2, 1.0, CAP) < 700


def test_a_model_that_does_not_reason_pays_nothing_for_it() -> None:
    """Without reasoning every estimate is as it was without this module."""
    estimates = make_estimates()
    for size in (1, 2, 8, 16) * 30:
        estimates.observe(counted_input=600, usage=usage(15 * size, 0), answered=size, cut=False, asked=size)
    assert not estimates.reasoning.is_seen
    assert (estimates.reasoning.per_call, estimates.reasoning.per_record, estimates.reasoning.most(9)) == (
        0.0,
        0.0,
        0.0,
    )


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 10**9), st.booleans()), max_size=60))
def test_whatever_is_said_room_stays_finite_and_within_the_cap(told: list[tuple[int, int, bool]]) -> None:
    """An endpoint may say anything of its reasoning: requests stay within their budget, and one record always goes."""
    estimates = make_estimates()
    for size, thought, cut in told:
        estimates.observe(
            counted_input=600, usage=usage(thought + 1, thought), answered=0 if cut else size, cut=cut, asked=size
        )
        packing = Packing(max_output_tokens=4_000)
        room = request_room(estimates, packing, Limits(tokens_per_minute=50_000), items=8)
        assert math.isfinite(estimates.output_per_record)
        assert 1 <= estimates.max_output_tokens(8, 1.0, 4_000) <= 4_000
        chosen = pack([20] * 8, room=room, output_per_record=estimates.output_per_record, rng=random.Random(0))
        assert chosen


def test_what_a_request_thinks_anyway_does_not_keep_it_small() -> None:
    """Where a request thinks for most of its budget, batches of one would think as much for a single record each."""
    estimates = make_estimates()
    for size in (1, 2, 4, 4) * 10:
        thought = 2_500 + 20 * size
        estimates.observe(
            counted_input=600, usage=usage(thought + 15 * size, thought), answered=size, cut=False, asked=size
        )
    room = request_room(estimates, Packing(max_output_tokens=4_000), Limits(), items=32)
    assert len(pack([20] * 64, room=room, output_per_record=estimates.output_per_record, rng=random.Random(0))) >= 16


def test_of_one_size_only_a_larger_one_may_be_tried() -> None:
    """Calls of one size cannot tell whether a larger one thinks more: what is believed of it lets twice the size go."""
    reasoning = Reasoning()
    for _ in range(30):
        reasoning.observe(2, 2_000)
    assert reasoning.expected(2) == pytest.approx(2_000, rel=0.05)
    assert reasoning.expected(4) < 1.5 * reasoning.expected(2)


# -- a reply that is nothing but a thought -----------------------------------------------------------------------------


def make_batch(size: int) -> Batch:
    def item(number: int) -> Item:
        return Item(
            record=Record(position=number, line=number, id=number, key=str(number), input="x", digest=bytes([number])),
            accepted_at_s=0.0,
        )

    return Batch(items=tuple(item(number) for number in range(size)), origin=size)


def reply(
    *, finish: str = "length", text: str = "", said: Usage | None = None, refusal: str | None = None
) -> Completion:
    return Completion(text=text, finish_reason=finish, refusal=refusal, usage=said)


def reading(found: int = 0) -> Reading:
    return Reading(answers={}, defects={}, foreign=0, found=found)


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("said", [usage(900, 900), usage(900, 800), None])
def test_a_cut_thought_is_sent_again_whole_with_more_room(size: int, said: Usage | None) -> None:
    """The same records, twice the room, no half and no attempt of a lone record used up."""
    batch = make_batch(size)
    verdict = judge_overthought(batch, reading(), reply(said=said), has_room=True)
    assert verdict is not None
    assert verdict.cause == OVERTHOUGHT
    assert verdict.retry
    assert not verdict.split
    (child,) = verdict.children
    assert [item.record.key for item in child.items] == [item.record.key for item in batch.items]
    assert child.output_scale == 2 * batch.output_scale
    assert all(item.lone_attempts == 0 for item in child.items)


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        (reply(said=usage(900, 900)), 2),  # it had begun to answer
        (reply(text='{"results":[{"id":', said=usage(900, 300)), 0),  # an endless answer
        (reply(finish="stop", said=usage(900, 900)), 0),  # an empty answer of its own will
        (reply(refusal="no", said=usage(900, 900)), 0),
    ],
)
def test_other_replies_are_judged_as_ever(completion: Completion, found: int) -> None:
    """Only a thought that was cut before anything was answered is one."""
    assert not is_overthought(reading(found), completion)
    assert judge_overthought(make_batch(4), reading(found), completion, has_room=True) is None


def test_without_more_room_it_is_judged_as_a_cut_reply() -> None:
    """A model that thinks beyond the user's budget is not asked the same for ever."""
    assert judge_overthought(make_batch(4), reading(), reply(said=usage(900, 900)), has_room=False) is None


def test_one_strange_reply_makes_no_reasoning_model() -> None:
    """A reply that showed nothing is forgotten where all others answer without a thought."""
    estimates = make_estimates()
    estimates.observe(counted_input=600, usage=usage(900, 900), answered=0, cut=True, asked=2)
    assert estimates.reasoning.is_seen
    for _ in range(120):
        estimates.observe(counted_input=600, usage=usage(40, 0), answered=2, cut=False, asked=2)
    assert not estimates.reasoning.is_seen


def test_thoughts_that_were_cut_count_among_the_others() -> None:
    """One request in five thinks beyond its room: by the others alone all would seem to think alike, and the room that
    a cut one makes would be gone a few replies later."""
    reasoning = Reasoning()
    for _ in range(100):
        reasoning.observe(4, 1_000)
    calm = reasoning.most(4)
    for _ in range(20):
        reasoning.observe_cut(4, 3_000)
        for _ in range(4):
            reasoning.observe(4, 1_000)
    for _ in range(40):
        reasoning.observe(4, 1_000)
    assert reasoning.most(4) > 1.5 * calm


def test_a_request_far_beyond_what_is_known_may_think_for_each_record() -> None:
    """From calls of two records nobody can tell what thirty take: they are not cut for that."""
    reasoning = Reasoning()
    for _ in range(40):
        reasoning.observe(2, 400)
    assert reasoning.most(32) >= 1.2 * (200 + 100 * 32)
    for size in (16, 32) * 10:
        reasoning.observe(size, 900 + 10 * size)
    assert reasoning.most(32) < 32 * 150
