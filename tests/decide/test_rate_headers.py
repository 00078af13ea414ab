"""Limits that an endpoint names in its headers: taken at their word, once, and never for more than they say."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.rate import Dimension, DiscoveredRate

DIMENSIONS = st.sampled_from(get_args(Dimension))
PER_MINUTE = st.floats(1.0, 1e7)


@given(DIMENSIONS, PER_MINUTE)
def test_a_limit_in_a_header_is_named_believed_and_paced_by(dimension: Dimension, per_minute: float) -> None:
    """It and no other one; a little below it, since the endpoint's clock is not ours."""
    rate = DiscoveredRate()
    other: Dimension = "tokens" if dimension == "requests" else "requests"
    assert not rate.is_named(dimension)
    assert rate.believed(dimension) is None
    rate.learn_limit(dimension, per_minute, 0.0)
    assert rate.is_named(dimension)
    assert rate.believed(dimension) == pytest.approx(per_minute)
    paced = rate.per_minute(dimension)
    assert paced is not None
    assert 0.95 * per_minute <= paced < per_minute
    assert not rate.is_named(other)
    assert rate.believed(other) is rate.per_minute(other) is None


@given(DIMENSIONS, st.lists(st.tuples(PER_MINUTE, st.integers(1, 5)), min_size=1, max_size=8))
def test_the_same_limit_again_is_no_news(dimension: Dimension, limits: list[tuple[float, int]]) -> None:
    """Every reply names it. What is listed are its changes: by more than rounding, and each once."""
    rate, now, believed = DiscoveredRate(), 0.0, 0.0
    changes: list[float] = []
    for limit, times in limits:
        if not changes or abs(limit / changes[-1] - 1) >= 0.02:
            changes.append(limit)
        for _ in range(times):
            now += 1.0
            rate.learn_limit(dimension, changes[-1], now)
        believed = rate.believed(dimension) or 0.0
        assert believed == pytest.approx(changes[-1])
    assert len(rate.history) == len(changes)
    assert [move.dimension for move in rate.history] == [dimension] * len(changes)
    assert [move.old is None for move in rate.history] == [number == 0 for number in range(len(changes))]
    assert rate.history[-1].new == rate.per_minute(dimension)


@given(requests=PER_MINUTE, tokens=PER_MINUTE, amount=st.integers(1, 10**6))
def test_the_limit_that_is_waited_for_longest_binds(requests: float, tokens: float, amount: int) -> None:
    """Of those that are named; and the wait is that one's."""
    rate = DiscoveredRate()
    rate.learn_limit("requests", requests, 0.0)
    assert rate.binding(0.0, amount) == "requests"
    of_requests_s = rate.delay_s(0.0, amount)
    rate.learn_limit("tokens", tokens, 0.0)
    both_s = rate.delay_s(0.0, amount)
    assert both_s >= of_requests_s
    assert rate.binding(0.0, amount) == ("tokens" if both_s > of_requests_s else "requests")


@given(DIMENSIONS, st.floats(1.0, 1e5))
def test_a_limit_that_has_just_become_known_is_taken_for_used_up(dimension: Dimension, per_minute: float) -> None:
    """What was sent until then has used it: the next request waits for its share of time, however small it is."""
    rate = DiscoveredRate()
    rate.learn_limit(dimension, per_minute, 0.0)
    paced = rate.per_minute(dimension) or 0.0
    least = min(1.0, 0.9 * max(1.0, paced / 60 * 0.5))  # of a bucket that holds half a second's worth
    assert rate.delay_s(0.0, 1) == pytest.approx(60 * least / paced)


@given(first=st.floats(100, 1e6), times=st.floats(1.1, 10))
def test_a_larger_limit_forgets_what_refusals_taught_of_the_smaller(first: float, times: float) -> None:
    """Else a limit that was raised would be crept up to from below; a smaller one is below both anyway."""
    rate = DiscoveredRate()
    rate.learn_limit("requests", first, 0.0)
    for ticket in [rate.spend(0.01 * number, 10) for number in range(20)]:
        rate.observe_rate_limited(ticket, 1.0, dimension="requests")
    rate.learn_limit("requests", times * first, 2.0)
    assert rate.believed("requests") == pytest.approx(times * first)
    rate.learn_limit("requests", first / times, 3.0)
    assert rate.believed("requests") == pytest.approx(first / times)
