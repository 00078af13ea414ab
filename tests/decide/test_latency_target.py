"""A target for the latency of records shrinks batches and look-ahead, and no more than it takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.decide.latency_target import LatencyTarget, percentile


def settle(target: LatencyTarget, request_s: float, *, from_s: float = 0.0) -> LatencyTarget:
    """Requests that take `request_s` for each of their records, all of the allowed size."""
    for number in range(400):
        size = target.most_records
        target.observe_request(from_s + number, size=size, latency_s=request_s * size)
    return target


@given(target_s=st.floats(0.5, 60), request_s=st.floats(0.01, 10))
def test_the_batch_becomes_as_small_as_the_target_asks_and_no_smaller(target_s: float, request_s: float) -> None:
    """Two thirds of the target are for the request: a record more would be too much, one less not."""
    target = settle(LatencyTarget(target_s, most=32), request_s)
    took_s = request_s * target.most_records
    assert took_s <= 0.66 * target_s or target.most_records == 1
    assert target.most_records == 32 or took_s + request_s >= 0.5 * target_s
    if target.is_out_of_reach:
        assert target.most_records == 1
        assert request_s >= 0.999 * target_s
    assert all(move.reason for move in target.history)


def test_it_grows_back_when_the_endpoint_gets_faster() -> None:
    """A slow minute is no reason to send small batches for ever."""
    target = settle(LatencyTarget(4.0, most=32), 1.0)
    assert target.most_records <= 2
    settle(target, 0.05, from_s=400.0)
    assert settle(target, 0.05, from_s=800.0).most_records == 32


def test_the_look_ahead_is_as_long_as_the_target_by_little_s_law() -> None:
    """At 100 records a second and a target of 4 s some 200 may be held; never so few that a slot must wait."""
    target = LatencyTarget(4.0, most=8)
    assert target.waiting(0.0, in_flight=0) == 16
    for number in range(1_000):
        target.observe_records(number / 100, [1.0])
    assert 150 <= target.waiting(10.0, in_flight=0) <= 320
    assert target.waiting(10.0, in_flight=1_000) == 1_016


def test_it_is_shortened_when_records_take_too_long_all_the_same() -> None:
    """Retries and bursts are not in the formula; what is measured corrects it."""
    late, early = LatencyTarget(4.0, most=8), LatencyTarget(4.0, most=8)
    for number in range(3_000):
        late.observe_records(number / 100, [6.0])
        early.observe_records(number / 100, [1.0])
    assert late.waiting(30.0, in_flight=0) < 0.5 * early.waiting(30.0, in_flight=0)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_a_percentile_lies_between_the_values(values: list[float]) -> None:
    """Whatever they are."""
    slack = 1e-9 * max(values)
    assert min(values) - slack <= percentile(values, 95) <= max(values) + slack
