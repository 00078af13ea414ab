"""From calls to figures: steady window, throughput, latencies, goodput, waste, cost, spread."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bench.figures import (
    Answered,
    Arrival,
    Limits,
    OpenVisit,
    Seen,
    Visit,
    Window,
    closed_figures,
    mean_in_flight,
    open_figures,
    percentiles,
    spread,
    steady_window,
    summary,
)
from engine.bench.plan import Cell, OpenCell
from engine.vocabulary.config import Prices


def seen(sent_s: float, ended_s: float, **changes: Any) -> Seen:
    plain = {"size": 1, "accepted": 1, "status": 200, "outcome": "ok", "input_tokens": 100, "output_tokens": 10}
    return Seen(sent_s=sent_s, ended_s=ended_s, **(plain | changes))


def closed_loop(concurrency: int, latency_s: float, rounds: int, *, size: int = 1, step_s: float = 0.0) -> list[Seen]:
    """Two probes, and then slots that send again when they are answered, each `step_s` behind the one before."""
    calls = [seen(0.0, latency_s, size=size, accepted=size) for _ in range(2)]
    for slot in range(concurrency):
        start = latency_s + slot * step_s
        calls += [
            seen(start + turn * latency_s, start + (turn + 1) * latency_s, size=size, accepted=size)
            for turn in range(rounds)
        ]
    return calls


def figures_of(calls: list[Seen], cell: Cell, **changes: Any) -> Visit:
    plain: dict[str, Any] = {"repeat": 0, "target_s": None, "prices": None, "limits": Limits()}
    return closed_figures(calls, [], cell, **(plain | changes))


@given(
    st.integers(1, 40), st.floats(0.01, 100), st.integers(6, 30), st.integers(1, 32), st.floats(0, 1, exclude_max=True)
)
def test_slots_that_are_always_busy_give_slots_by_latency(
    concurrency: int, latency_s: float, rounds: int, size: int, phase: float
) -> None:
    """C slots with replies after L give B * C / L records a second, in step or out of it; Little's law holds."""
    calls = closed_loop(concurrency, latency_s, rounds, size=size, step_s=phase * latency_s / concurrency)
    found = figures_of(calls, Cell(batch_size=size, concurrency=concurrency))
    assert not found.short
    assert found.records_per_s == pytest.approx(size * concurrency / latency_s, rel=1e-6)
    assert found.requests_per_s == pytest.approx(concurrency / latency_s, rel=1e-6)
    assert found.utilisation["window"] == pytest.approx(1.0, rel=1e-6)
    assert found.request_latency_s.p50 == pytest.approx(latency_s, rel=1e-5, abs=1e-6)


def test_ramp_up_and_the_end_are_not_in_the_steady_window() -> None:
    """Probes that take a minute, and a last reply that does, change no rate."""
    calls = [seen(0.0, 60.0), seen(0.0, 60.0)]
    calls += [seen(60.0 + turn, 61.0 + turn) for turn in range(20)]
    calls.append(seen(80.0, 140.0))
    found = figures_of(calls, Cell(batch_size=1, concurrency=1))
    assert found.records_per_s == pytest.approx(1.0)
    assert found.request_latency_s.max == pytest.approx(1.0)


def test_too_few_requests_are_no_steady_window() -> None:
    """The figures are then of the whole visit, and marked."""
    calls = closed_loop(4, 1.0, 1)
    assert steady_window(calls, 4) is None
    found = figures_of(calls, Cell(batch_size=1, concurrency=4))
    assert found.short
    assert found.records_per_s == pytest.approx(6 / 2.0, rel=0.01)


def test_a_visit_without_calls_has_figures() -> None:
    """Nothing was sent: everything is 0 or missing, and nothing divides by it."""
    found = figures_of([], Cell(batch_size=1, concurrency=4))
    assert (found.requests, found.records_per_s, found.waste_share, found.tokens_per_record) == (0, 0.0, None, None)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_measured_values_by_nearest_rank(values: list[float]) -> None:
    """p % of all values are at or below the p-th percentile, and fewer are below it."""
    found = percentiles(values)
    for share, value in ((0.5, found.p50), (0.9, found.p90), (0.95, found.p95), (0.99, found.p99), (1.0, found.max)):
        assert value is not None
        assert sum(v <= value + 1e-6 for v in values) >= share * len(values) - 1e-9
        assert sum(v < value - 1e-6 for v in values) < math.ceil(share * len(values) - 1e-9)
    assert found.count == len(values)


@given(st.floats(0.0, 3.0), st.integers(1, 8))
def test_goodput_is_what_is_within_the_target(target_s: float, concurrency: int) -> None:
    """Never more than the throughput; all of it within a target above every latency, nothing below."""
    calls = closed_loop(concurrency, 1.0, 10)
    found = figures_of(calls, Cell(batch_size=1, concurrency=concurrency), target_s=target_s)
    assert found.goodput_per_s is not None
    assert found.goodput_per_s <= found.records_per_s + 1e-9
    if target_s > 1.01:
        assert found.goodput_per_s == pytest.approx(found.records_per_s)
    if target_s < 0.99:
        assert found.goodput_per_s == 0


def test_errors_are_counted_and_lower_the_throughput_but_not_the_latency() -> None:
    """A refusal after a millisecond must not make the endpoint look quick, and its tokens are waste."""
    calls = closed_loop(1, 1.0, 10)
    calls += [
        seen(3.0 + n, 3.001 + n, accepted=0, status=429, outcome="rate-limit", input_tokens=0, output_tokens=0)
        for n in range(3)
    ]
    calls.append(seen(4.0, 5.0, accepted=0, outcome="missing"))
    found = figures_of(calls, Cell(batch_size=1, concurrency=1))
    assert found.errors == {"rate-limit": 3, "missing": 1}
    assert found.http_429 == 3
    assert found.request_latency_s.p50 == pytest.approx(1.0)
    assert found.wasted_tokens == 110
    assert found.waste_share == pytest.approx(110 / (13 * 110))


def test_cost_of_a_thousand_valid_records() -> None:
    """All tokens, wasted ones too, over the valid records; cached ones at their own price."""
    calls = [*closed_loop(1, 1.0, 8), seen(3.0, 4.0, accepted=0, outcome="missing", cached_tokens=100)]
    prices = Prices(input=1.0, output=10.0, cached_input=0.1)
    found = figures_of(calls, Cell(batch_size=1, concurrency=1), prices=prices)
    usd = (10 * 100 * 1.0 + 100 * 0.1 + 11 * 10 * 10.0) / 1e6
    assert found.usd_per_1000 == pytest.approx(usd / 10 * 1_000)


def test_utilisation_of_every_limit() -> None:
    """Used by allowed: 60 requests a minute of 120, 6,600 tokens of 13,200."""
    calls = closed_loop(1, 1.0, 30)
    limits = Limits(requests_per_minute=120.0, tokens_per_minute=13_200.0)
    found = figures_of(calls, Cell(batch_size=1, concurrency=1), limits=limits)
    assert found.utilisation == pytest.approx({"window": 1.0, "rpm": 0.5, "tpm": 0.5})


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=30))
def test_mean_in_flight_is_the_area_under_the_calls(pairs: list[tuple[float, float]]) -> None:
    """By stepping through the window: the same as adding up what each call covers of it."""
    calls = [seen(min(pair), max(pair)) for pair in pairs]
    window = Window(from_s=10.0, to_s=30.0)
    moments = sorted({10.0, 30.0, *(s for pair in pairs for s in pair if 10 < s < 30)})
    area = sum(
        (later - sooner) * sum(call.sent_s <= sooner and call.ended_s >= later for call in calls)
        for sooner, later in pairwise(moments)
    )
    assert mean_in_flight(calls, window) == pytest.approx(area / 20.0, abs=1e-9)


def test_record_latencies_are_those_of_the_steady_window() -> None:
    """Records that were answered during ramp-up do not count."""
    calls = closed_loop(1, 1.0, 10)
    records = [Answered(at_s=call.ended_s, latency_s=99.0 if call.ended_s < 2 else 2.0, ok=True) for call in calls]
    cell = Cell(batch_size=1, concurrency=1)
    found = closed_figures(calls, records, cell, repeat=0, target_s=None, prices=None, limits=Limits())
    assert (found.record_latency_s.p50, found.record_latency_s.max) == (2.0, 2.0)


# -- open loop -----------------------------------------------------------------------------------------------------


def open_of(arrived: list[Arrival], calls: list[Seen], **changes: Any) -> OpenVisit:
    cell = OpenCell(records_per_s=1.0, batch_size=1, concurrency=4)
    plain: dict[str, Any] = {"repeat": 0, "target_s": 2.0, "prices": None, "limits": Limits(), "seconds": 100.0}
    return open_figures(calls, arrived, cell, started_s=1_000.0, **(plain | changes))


def arrival(scheduled_s: float, latency_s: float, *, answered: bool = True) -> Arrival:
    return Arrival(scheduled_s=scheduled_s, late_s=0.0, latency_s=latency_s, answered=answered, ok=answered)


def test_the_open_loop_counts_from_the_scheduled_time_and_leaves_the_start_out() -> None:
    """The first tenth of the schedule finds an empty queue; rates are of the rest."""
    arrived = [arrival(float(second), 50.0 if second < 10 else 1.0) for second in range(1, 100)]
    calls = [seen(1_000.0 + second, 1_001.0 + second) for second in range(1, 100)]
    found = open_of(arrived, calls)
    assert found.offered_per_s == pytest.approx(1.0, rel=0.02)
    assert found.figures.records_per_s == pytest.approx(1.0, rel=0.02)
    assert found.figures.record_latency_s.max == 1.0
    assert found.figures.goodput_per_s == pytest.approx(1.0, rel=0.02)


def test_what_was_never_answered_counts_with_its_age_and_not_as_good() -> None:
    """Leaving it out would make an overloaded endpoint look quick."""
    arrived = [arrival(float(second), 1.0) for second in range(10, 60)]
    arrived += [arrival(float(second), 110.0 - second, answered=False) for second in range(60, 100)]
    found = open_of(arrived, [])
    assert found.unanswered == 40
    assert found.figures.record_latency_s.p90 is not None
    assert found.figures.record_latency_s.p90 > 30.0
    assert found.figures.goodput_per_s == pytest.approx(49 / 90)


# -- repeats -------------------------------------------------------------------------------------------------------


def test_repeats_come_with_their_spread() -> None:
    """Median, least and greatest; what is missing is no 0."""
    found = spread([3.0, None, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.min, found.max) == (2.0, 1.0, 3.0)
    assert spread([None]) is None


def test_short_visits_count_only_where_all_are_short() -> None:
    """A visit that was cut off must not pull the median down."""
    cell = Cell(batch_size=1, concurrency=1)
    good, short = figures_of(closed_loop(1, 1.0, 20), cell), figures_of(closed_loop(1, 1.0, 1), cell)
    both, only = summary([short, good]), summary([short])
    assert (both.short, only.short) == (False, True)
    assert both.records_per_s is not None
    assert both.records_per_s.min == pytest.approx(1.0)
    assert both.requests == good.requests + short.requests
    assert both.bound == "window"
