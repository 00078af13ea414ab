"""What a bench does and how it keeps to its time: plans, orders and arrival times."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.bench.plan import (
    FULL,
    PROBES,
    QUICK,
    Caps,
    Grid,
    allotted_s,
    arrivals,
    arrivals_at_most,
    at_most,
    closed_share,
    fit,
    need_s,
    order,
    repeats_that_fit,
    requests_at_most,
)

SIZES = st.lists(st.integers(1, 64), min_size=1, max_size=6, unique=True).map(sorted).map(tuple)
GRIDS = st.builds(
    Grid,
    batch_sizes=SIZES,
    concurrencies=SIZES,
    rate_shares=st.sampled_from([(), (0.5, 1.0)]),
    repeats=st.integers(1, 5),
)
CAPS = Caps(visit_s=20.0)


@given(GRIDS, st.floats(0.001, 500), st.floats(1, 3_600))
def test_what_is_planned_fits_the_time_or_says_so(grid: Grid, latency_s: float, time_s: float) -> None:
    """The plan that is chosen fits the closed loop's share of the time, or is the smallest one and marked tight."""
    latencies = {size: latency_s * size for size in grid.batch_sizes}
    fitted = fit(grid, latencies, time_s)
    small = fitted.grid
    needed = small.repeats * sum(need_s(latencies[cell.batch_size]) for cell in small.cells)
    if fitted.tight:
        assert (len(small.cells), small.repeats) == (1, 1)
    else:
        assert needed <= time_s * closed_share(small)


@given(GRIDS, st.floats(0.001, 500), st.floats(1, 3_600))
def test_a_plan_only_ever_leaves_out(grid: Grid, latency_s: float, time_s: float) -> None:
    """A smaller plan holds nothing that was not asked for, keeps the most in flight, and says what went."""
    fitted = fit(grid, dict.fromkeys(grid.batch_sizes, latency_s), time_s)
    assert set(fitted.grid.cells) <= set(grid.cells)
    assert fitted.grid.repeats <= grid.repeats
    assert fitted.grid.concurrencies[-1] == grid.concurrencies[-1]
    assert bool(fitted.left_out) == (fitted.grid != grid)


def test_a_fast_endpoint_gets_the_whole_plan() -> None:
    """At 2 s a request the quick plan is whole within ten minutes, and at 0.5 s the full one within thirty."""
    assert fit(QUICK, {1: 2.0, 4: 2.0, 16: 2.0}, 560.0).left_out == ()
    assert fit(FULL, {1: 0.5, 4: 0.5, 16: 2.0}, 1_700.0).left_out == ()


def test_repeats_go_before_points_of_the_curve_but_a_second_look_stays() -> None:
    """A little too slow: two repeats of the whole grid, and not three of half of it."""
    fitted = fit(QUICK, {1: 3.0, 4: 3.0, 16: 3.0}, 560.0)
    assert fitted.grid.repeats == 2
    assert fitted.grid.cells == QUICK.cells
    assert fitted.left_out == ("1 of 3 repeats",)


@given(
    st.lists(st.floats(0.1, 50), min_size=1, max_size=20),
    st.floats(1, 600),
    st.lists(st.floats(0, 1), min_size=20, max_size=20),
)
def test_visits_together_never_pass_the_time_that_was_left(
    needs: list[float], left_s: float, used_shares: list[float]
) -> None:
    """However much of its time each visit takes, the sum stays within what was left at the start."""
    used = 0.0
    for number, need in enumerate(needs):
        given_s = allotted_s(left_s - used, need, sum(needs[number:]), 12.0)
        used += given_s * used_shares[number]
    assert used <= left_s + 1e-6


def test_a_visit_gets_more_than_the_most_only_where_it_needs_that() -> None:
    """Time left over is not spent on a cell that has enough; a slow cell may pass the cap."""
    assert allotted_s(1_000.0, 2.0, 4.0, 12.0) == 12.0
    assert allotted_s(1_000.0, 60.0, 120.0, 12.0) == 60.0
    assert allotted_s(-1.0, 2.0, 4.0, 12.0) == 0.0


@given(GRIDS, st.integers(0, 10), st.integers(0, 10))
def test_every_repeat_holds_every_cell_once(grid: Grid, repeat: int, seed: int) -> None:
    """The order is a shuffle of the cells, the same for the same seed."""
    shuffled = order(grid.cells, repeat, seed)
    assert sorted(shuffled) == sorted(grid.cells)
    assert shuffled == order(grid.cells, repeat, seed)


def test_every_repeat_has_its_own_order() -> None:
    """A drift of the endpoint must not fall on the same cells each time."""
    orders = {tuple(order(FULL.cells, repeat, 0)) for repeat in range(5)}
    assert len(orders) == 5
    assert tuple(FULL.cells) not in orders


@given(st.floats(0.1, 200), st.floats(0.1, 60), st.integers(1, 500), st.integers(0, 100))
def test_arrivals_are_in_order_within_their_time_and_number(rate: float, seconds: float, most: int, seed: int) -> None:
    """No arrival lies outside the schedule, and no more come than allowed."""
    times = arrivals(rate, seconds=seconds, most=most, rng=random.Random(seed))
    assert times == sorted(times)
    assert len(times) <= most
    assert all(0 <= at_s < seconds for at_s in times)


def test_arrivals_are_poisson() -> None:
    """Mean count is rate x time, and the gaps vary as much as their mean (a metronome's would not vary)."""
    times = arrivals(50.0, seconds=200.0, most=1_000_000, rng=random.Random(1))
    gaps = [later - sooner for sooner, later in zip([0.0, *times], times, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert 9_700 < len(times) < 10_300
    assert 0.95 < deviation / mean < 1.05


@given(GRIDS, st.booleans(), st.one_of(st.none(), st.integers(3, 100)))
def test_at_most_counts_every_visit(grid: Grid, quick: bool, requests: int | None) -> None:
    """What is announced is no less than the caps of all visits of the closed loop together."""
    caps = Caps(visit_s=12.0, requests=requests, quick=quick)
    most = at_most(grid, caps, static_tokens=100, entry_tokens=50.0, output_tokens=10.0, time_s=600.0)
    counts = [(requests_at_most(cell.concurrency, caps), cell.batch_size) for cell in grid.cells]
    assert most.requests >= grid.repeats * sum(count for count, _ in counts)
    assert most.records >= grid.repeats * sum(count * size for count, size in counts)
    most_open = max(arrivals_at_most(cell, caps) for cell in grid.cells) * grid.open_count * grid.repeats
    assert most.requests >= grid.repeats * sum(count for count, _ in counts) + most_open
    assert most.input_tokens >= most.requests * 100
    assert most.visits == grid.repeats * (len(grid.cells) + grid.open_count)


def test_at_most_knows_a_limit_of_requests() -> None:
    """Under 60 requests a minute, ten minutes hold 600."""
    most = at_most(
        FULL, CAPS, static_tokens=100, entry_tokens=50.0, output_tokens=10.0, time_s=600.0, requests_per_minute=60.0
    )
    assert most.requests == 600


@given(st.integers(1, 512))
def test_a_visit_holds_more_than_probes_and_a_turn_of_every_slot(concurrency: int) -> None:
    """Otherwise there would be no steady window to measure."""
    for quick in (False, True):
        count = requests_at_most(concurrency, Caps(visit_s=1.0, quick=quick))
        assert count > PROBES
        assert count >= 2 * concurrency or concurrency > 200


def test_repeats_that_fit() -> None:
    """Whole rounds only, and no more than are wanted."""
    assert repeats_that_fit(100.0, 30.0, 5) == 3
    assert repeats_that_fit(100.0, 30.0, 2) == 2
    assert repeats_that_fit(-1.0, 30.0, 2) == 0
