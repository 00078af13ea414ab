"""A run's time with its way up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.climb import Pace, run_s
from engine.decide.concurrency import Window


def played_s(requests: int, *, every_s: float = 0.0, latency_s: float = 1.0, knee: int | None = None,
             scatter: float = 0.0, cap: int = 256, seeks: bool = True) -> float:  # fmt: skip
    pace = Pace(every_s=every_s, latency_s=latency_s, scatter=scatter, output_tokens=100, knee=knee)
    return run_s(requests, pace, window=lambda: Window(cap=cap, seeks=seeks), rng=random.Random(0))


@given(
    st.integers(1, 800), st.floats(0.0, 2.0), st.floats(0.1, 20.0), st.floats(0.0, 0.6), st.integers(1, 64),
    st.booleans(),
)  # fmt: skip
def test_never_shorter_than_what_bounds_it(
    requests: int, every_s: float, latency_s: float, scatter: float, cap: int, seeks: bool
) -> None:
    """Neither than the limits allow, nor (latencies all alike) than the window does, nor than one request takes."""
    took_s = played_s(requests, every_s=every_s, latency_s=latency_s, scatter=scatter, cap=cap, seeks=seeks)
    assert took_s >= every_s * (requests - 1) - 1e-6
    if not scatter:
        assert took_s >= latency_s * max(1.0, requests / cap) - 1e-6


def test_where_a_limit_binds_the_way_up_is_paid_once() -> None:
    """Ten times as many requests take nine times the limit's pace more."""
    short_s, long_s = (played_s(count, every_s=0.5, latency_s=10.0) for count in (300, 3_000))
    assert long_s - short_s == pytest.approx(0.5 * 2_700, rel=0.01)
    assert short_s > 300 * 0.5 + 10 + 20  # some rounds of ten seconds, in which fewer than the limit allows are sent


def test_a_window_that_was_given_has_no_way_up_but_the_two_probes() -> None:
    """Two requests first, then all slots."""
    assert played_s(100, latency_s=1.0, cap=10, seeks=False) == pytest.approx(11.0)  # 2, then nine times 10, then 8


def test_beyond_the_knee_nothing_is_gained() -> None:
    """Eight at once are all that the server does: however wide the window becomes, 8 a second."""
    assert played_s(2_000, latency_s=1.0, knee=8) >= 2_000 / 8
    assert played_s(2_000, latency_s=1.0, knee=8) == pytest.approx(2_000 / 8, rel=0.15)


def test_a_long_run_is_not_played_to_its_end() -> None:
    """A million requests at a limit's pace: their number times the pace, in a moment."""
    assert played_s(1_000_000, every_s=0.1, latency_s=2.0) == pytest.approx(100_000, rel=0.001)
    assert played_s(100_000, latency_s=9.0) >= 9.0 * 100_000 / 256  # the window has no more
