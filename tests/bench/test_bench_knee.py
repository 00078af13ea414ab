"""Where a throughput curve bends."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.bench.knee import NEAR_BEST, Point, find_knee

CURVES = st.lists(
    st.tuples(st.integers(1, 256), st.floats(0.01, 1e4), st.floats(0.001, 100)),
    min_size=1,
    max_size=8,
    unique_by=lambda point: point[0],
)


def points(rows: list[tuple[int, float, float]]) -> list[Point]:
    return [Point(concurrency=many, records_per_s=rate, latency_s=latency) for many, rate, latency in rows]


@given(CURVES)
def test_the_knee_is_the_fewest_in_flight_near_the_best(rows: list[tuple[int, float, float]]) -> None:
    """It has 95 % of the best throughput, and nothing with fewer in flight has."""
    knee = find_knee(1, points(rows))
    assert knee is not None
    best = max(rate for _, rate, _ in rows)
    near = [many for many, rate, _ in rows if rate >= NEAR_BEST * best]
    assert knee.concurrency == min(near)


@given(CURVES, st.floats(0.01, 100), st.randoms())
def test_the_knee_depends_on_neither_unit_nor_order(
    rows: list[tuple[int, float, float]], unit: float, rng: random.Random
) -> None:
    """Records or thousands of records, sorted or not: the same knee."""
    shuffled = list(rows)
    rng.shuffle(shuffled)
    scaled = find_knee(1, points([(many, rate * unit, latency) for many, rate, latency in shuffled]))
    plain = find_knee(1, points(rows))
    assert scaled is not None
    assert plain is not None
    near_edge = any(abs(rate / max(r for _, r, _ in rows) - NEAR_BEST) < 1e-9 for _, rate, _ in rows)
    assert scaled.concurrency == plain.concurrency or near_edge


def test_a_server_of_32_slots() -> None:
    """Throughput rises to 32 in flight and stays, latency rises from there: both rules say 32."""
    rows = [(many, min(many, 32) / 0.5, 0.5 * max(1.0, many / 32)) for many in (1, 8, 16, 32, 64, 128)]
    knee = find_knee(4, points(rows))
    assert knee is not None
    assert (knee.concurrency, knee.power_concurrency, knee.at_end) == (32, 32, False)


def test_a_curve_that_still_rises_says_so() -> None:
    """The most that was tried is no knee that anybody should believe in."""
    knee = find_knee(1, points([(1, 1.0, 1.0), (2, 2.0, 1.0), (4, 4.0, 1.0)]))
    assert knee is not None
    assert knee.at_end


def test_nothing_answered_has_no_knee() -> None:
    """Cells with errors only are no points of a curve."""
    assert find_knee(1, []) is None
    assert find_knee(1, [Point(concurrency=1, records_per_s=0.0, latency_s=None)]) is None
