"""Learned sizes: they find what the endpoint says, and survive what it cannot mean."""

from __future__ import annotations

import math
import random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide.estimates import TokenEstimates
from engine.vocabulary.values import Usage

CAP = 4_000


def make_estimates(prior: float = 40.0) -> TokenEstimates:
    return TokenEstimates(static_tokens=500, prior_output_tokens=prior)


def usage(input_tokens: int, output_tokens: int, **changes: bool) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, **changes)


def assert_sane(estimates: TokenEstimates) -> None:
    figures = [
        estimates.input_ratio,
        estimates.output_per_record,
        estimates.call_overhead,
        estimates.static_tokens,
        estimates.input_tokens(100),
        estimates.output_tokens(5),
        estimates.max_output_tokens(5, 4.0, CAP),
        1_000 / estimates.input_ratio,
    ]
    assert all(math.isfinite(figure) and figure > 0 for figure in figures), figures
    assert estimates.max_output_tokens(5, 4.0, CAP) <= CAP


@given(st.floats(0.3, 3.0), st.integers(0, 2**32))
def test_the_ratio_of_tokenizers_is_found(ratio: float, seed: int) -> None:
    """After a hundred replies our counts come out as the endpoint's, within 2 %."""
    estimates, rng = make_estimates(), random.Random(seed)
    for _ in range(100):
        counted = estimates.counted_input(rng.randint(50, 2_000))
        estimates.observe(counted_input=counted, usage=usage(round(counted * ratio), 100), answered=5, cut=False)
    assert estimates.input_ratio == pytest.approx(ratio, rel=0.02)
    assert estimates.input_tokens(1_000) == pytest.approx(ratio * estimates.counted_input(1_000), rel=0.02)


@given(st.integers(5, 200), st.sampled_from([0.1, 1.0, 10.0]), st.integers(0, 2**32))
@settings(max_examples=40)
def test_the_output_of_a_record_is_estimated_above_its_mean(per_record: int, wrong_by: float, seed: int) -> None:
    """From a prior ten times off, the estimate comes to lie above the mean, and not far above it for like records."""
    estimates, rng = make_estimates(per_record * wrong_by), random.Random(seed)
    drawn = [[rng.uniform(0.7, 1.3) * per_record for _ in range(8)] for _ in range(400)]
    for outputs in drawn:
        estimates.observe(counted_input=900, usage=usage(900, round(sum(outputs))), answered=8, cut=False)
    truth = mean(output for outputs in drawn for output in outputs)
    assert 0.98 * truth < estimates.output_per_record < 2.5 * truth
    assert estimates.max_output_tokens(8, 1.0, 10**6) > max(map(sum, drawn))


def test_a_cut_reply_without_answers_gives_the_call_room_up_to_a_bound() -> None:
    """A model that thinks first is given room for it; an endpoint that never answers does not raise it for ever."""
    estimates = make_estimates()
    before = estimates.output_per_record
    estimates.observe(counted_input=900, usage=usage(900, 700), answered=0, cut=True)
    assert estimates.call_overhead >= 1_400
    for _ in range(200):
        estimates.observe(counted_input=900, usage=usage(900, CAP), answered=0, cut=True)
    assert estimates.call_overhead <= 32_000
    assert estimates.output_per_record == before


def test_room_that_is_not_needed_is_given_back() -> None:
    """One endless reply must not keep batches small for the rest of the run: forty answered ones undo it."""
    estimates = make_estimates()
    estimates.observe(counted_input=900, usage=usage(900, CAP), answered=0, cut=True)
    assert estimates.call_overhead >= 2 * CAP
    for _ in range(40):
        estimates.observe(counted_input=600, usage=usage(600, 25), answered=1, cut=False)
    assert estimates.call_overhead < 100


def test_room_that_is_needed_is_kept() -> None:
    """A model that thinks for 800 tokens in every reply keeps its room."""
    estimates = make_estimates()
    estimates.observe(counted_input=900, usage=usage(900, 500), answered=0, cut=True)
    for _ in range(100):
        estimates.observe(counted_input=900, usage=usage(900, 900), answered=5, cut=False)
    assert estimates.call_overhead >= 800
    assert estimates.max_output_tokens(1, 1.0, CAP) > 900


absurd = st.builds(
    usage,
    st.integers(-5, 10**18) | st.integers(0, 3_000),
    st.integers(-5, 10**18) | st.integers(0, 3_000),
    estimated=st.booleans(),
)


@given(st.lists(st.tuples(absurd, st.integers(0, 100), st.booleans()), max_size=30), st.sampled_from([0.0, 1.0, 60.0]))
def test_no_usage_makes_an_estimate_absurd(observed: list[tuple[Usage, int, bool]], prior: float) -> None:
    """Whatever an endpoint says it used, estimates stay positive and finite, and requests within their cap."""
    estimates = make_estimates(prior or 1.0)
    for said, answered, cut in observed:
        estimates.observe(counted_input=600, usage=said, answered=answered, cut=cut)
        assert_sane(estimates)


def test_nothing_is_worn_away_by_a_million_records() -> None:
    """An endpoint that always reports one token of input does not, in the end, make the ratio zero."""
    estimates = make_estimates()
    for _ in range(60_000):
        estimates.observe(counted_input=600, usage=usage(1, 0), answered=5, cut=False)
    assert_sane(estimates)


def test_one_wrong_figure_does_little_harm() -> None:
    """A single usage of a billion tokens does not turn batches into lone asks for the rest of the run."""
    estimates = make_estimates()
    for _ in range(50):
        estimates.observe(counted_input=900, usage=usage(900, 200), answered=10, cut=False)
    estimates.observe(counted_input=900, usage=usage(10**9, 10**9), answered=10, cut=False)
    assert estimates.output_per_record < 10 * 20
    assert estimates.input_ratio < 2


def test_our_own_counts_teach_nothing() -> None:
    """Usage that we estimated ourselves is no evidence."""
    estimates = make_estimates()
    before = repr(estimates)
    estimates.observe(counted_input=900, usage=usage(5_000, 5_000, estimated=True), answered=1, cut=True)
    assert repr(estimates) == before


@given(st.integers(0, 5_000), st.integers(1, 100))
def test_more_needs_more(entries: int, records: int) -> None:
    """Estimates grow with what is asked, and the limit of a request leaves slack above the expectation."""
    estimates = make_estimates()
    assert estimates.input_tokens(entries + 1) >= estimates.input_tokens(entries) >= estimates.static_tokens
    assert estimates.output_tokens(records + 1) > estimates.output_tokens(records)
    assert estimates.max_output_tokens(records, 1.0, 10**6) > estimates.output_tokens(records)
    assert estimates.max_output_tokens(records, 2.0, 10**6) > estimates.max_output_tokens(records, 1.0, 10**6)
    assert estimates.max_output_tokens(records, 2.0, 7) == 7


@given(st.floats(0.5, 2.0), st.floats(0.0, 0.02), st.integers(0, 2**32))
@settings(max_examples=40)
def test_what_is_packed_into_a_budget_hardly_exceeds_it(ratio: float, deviation: float, seed: int) -> None:
    """Once twenty replies have come, a request packed full by our count is over the budget by theirs in few cases."""
    estimates, rng = make_estimates(), random.Random(seed)
    budget, over, filled = 8_000, 0, []
    for number in range(120):
        counted = estimates.counted_input(estimates.entry_room(budget))
        charged = round(counted * ratio * rng.gauss(1.0, deviation))
        estimates.observe(counted_input=counted, usage=usage(charged, 100), answered=5, cut=False)
        if number >= 20:
            over += charged > budget
            filled.append(charged / budget)
    assert over <= 3
    assert mean(filled) >= 1 - 4 * deviation - 0.02


def test_before_any_reply_there_is_room_for_another_tokenizer() -> None:
    """Others take up to 15 % more tokens for prose than ours: the first requests are packed for that."""
    estimates = make_estimates()
    counted = estimates.counted_input(estimates.entry_room(8_000))
    assert 0.8 * 8_000 / 1.15 < counted <= 8_000 / 1.15


@given(st.integers(0, 50_000), st.integers(1, 400), st.integers(0, 400))
def test_room_and_most_are_inverse(budget: int, charged: int, replies: int) -> None:
    """What fits by `entry_room` takes at most that by `most_input_tokens`, and not much less."""
    estimates = make_estimates()
    for number in range(replies % 5):
        estimates.observe(counted_input=300, usage=usage(charged + number, 10), answered=1, cut=False)
    room = estimates.entry_room(budget)
    assert room == 0 or estimates.most_input_tokens(room) <= budget + 1
    assert estimates.most_input_tokens(room + 2) >= min(budget, estimates.most_input_tokens(2))


def test_less_room_is_charged_once_replies_have_been_whole() -> None:
    """What a request may put out is charged where input and output count together: after fifty replies that were not
    cut it is two thirds above what four labels take; one that was cut brings the slack back."""
    estimates = TokenEstimates(static_tokens=200, prior_output_tokens=18.0)

    def observe(times: int, *, cut: bool = False) -> None:
        for _ in range(times):
            estimates.observe(
                counted_input=300, usage=Usage(input_tokens=300, output_tokens=4 * 12 + 5), answered=4, cut=cut
            )

    observe(49)
    loose = estimates.max_output_tokens(4, 1.0, 4_000)
    observe(400)
    assert estimates.max_output_tokens(4, 1.0, 4_000) <= 1.7 * 53 < 0.8 * loose
    observe(1, cut=True)
    assert estimates.max_output_tokens(4, 1.0, 4_000) > 1.8 * 53
