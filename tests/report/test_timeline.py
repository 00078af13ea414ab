"""Slices and histograms lose nothing: what they add up to is what the report says of the whole run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting import hand_made, make_answer, make_call

from engine.report.histogram import MOST_BINS, edges_between
from engine.report.series import Series
from engine.report.timeline import MOST_BINS as MOST_SLICES

SECONDS = st.one_of(st.floats(0.0, 5_000.0), st.sampled_from([0.0, 1e-7, 0.25, 1.0, 60.0]))
CALLS = st.lists(
    st.tuples(SECONDS, SECONDS, st.integers(1, 64), st.booleans(), st.sampled_from(["ok", "missing", "server"])),
    min_size=1,
    max_size=40,
)
ENDS = st.lists(st.tuples(SECONDS, st.booleans()), max_size=40)


def series_of(calls: list[tuple[float, float, int, bool, str]], ends: list[tuple[float, bool]]) -> Series:
    rows = [
        make_call(
            number, sent_at=1e9 + sent_s, latency_s=latency_s, size=size, accepted=int(gave), outcome=outcome,
            input_tokens=7 * size, cached_tokens=size, output_tokens=number,
        )
        for number, (sent_s, latency_s, size, gave, outcome) in enumerate(calls, start=1)
    ]  # fmt: skip
    first = min(row.sent_at for row in rows)
    answers = [
        make_answer(
            f"r{number}", answered_at=first + at_s, latency_s=at_s, output='"red"' if ok else None,
            error_kind=None if ok else "missing", error_message=None if ok else "gone",
        )
        for number, (at_s, ok) in enumerate(ends)
    ]  # fmt: skip
    series = hand_made(rows, answers).series
    assert series is not None
    return series


@given(CALLS, ENDS)
def test_sums_over_slices_are_those_of_the_run(
    calls: list[tuple[float, float, int, bool, str]], ends: list[tuple[float, bool]]
) -> None:
    """Requests, records, tokens and causes by slice add up to all of them; so do seconds in flight."""
    timeline = series_of(calls, ends).timeline
    if timeline is None:  # all of it at one moment
        first, last = min(sent for sent, *_ in calls), max(sent + latency for sent, latency, *_ in calls)
        assert last == pytest.approx(first, abs=1e-6)  # the report's figures have microseconds
        return
    assert len(timeline.at_s) <= MOST_SLICES
    assert sum(timeline.sent) == sum(timeline.ended) == len(calls)
    assert sum(timeline.records_ok) == sum(ok for _, ok in ends)
    assert sum(timeline.records_failed) == sum(not ok for _, ok in ends)
    assert sum(timeline.tokens_input) == sum(7 * size for _, _, size, _, _ in calls)
    assert sum(timeline.tokens_cached) == sum(size for _, _, size, _, _ in calls)
    wasted = [7 * call[2] + number for number, call in enumerate(calls, start=1) if not call[3]]
    assert sum(timeline.tokens_wasted) == sum(wasted)
    for cause in ("missing", "server"):
        assert sum(timeline.causes.get(cause, [])) == sum(outcome == cause for *_, outcome in calls)
    assert "ok" not in timeline.causes
    busy_s = sum(latency_s for _, latency_s, *_ in calls)
    tolerance = 1e-4 * timeline.bin_s * len(timeline.at_s) + 1e-5 * len(calls)
    assert timeline.bin_s * sum(timeline.in_flight) == pytest.approx(busy_s, abs=tolerance)
    assert {len(getattr(timeline, name)) for name in timeline.__struct_fields__ if name not in {"bin_s", "causes"}} == {
        len(timeline.at_s)
    }


@given(CALLS, ENDS)
def test_histograms_hold_every_latency_once(
    calls: list[tuple[float, float, int, bool, str]], ends: list[tuple[float, bool]]
) -> None:
    """As many as were counted for the percentiles, in bins that grow, and in no more of them than can be drawn."""
    series = series_of(calls, ends)
    assert series.request_latency is not None
    assert sum(series.request_latency.counts) == len(calls)
    assert sum(series.record_latency.counts if series.record_latency else []) == len(ends)
    for histogram in (series.request_latency, series.record_latency):
        if histogram is not None:
            assert len(histogram.counts) == len(histogram.edges_s) - 1 <= MOST_BINS
            assert histogram.edges_s == sorted(set(histogram.edges_s))
    assert sum(size.requests for size in series.sizes) == len(calls)


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_edges_enclose_what_they_are_made_for(one: float, other: float) -> None:
    """The least value is not below the first edge (or what a logarithm can take), the largest not above the last."""
    least_s, most_s = sorted((one, other))
    edges, is_logarithmic = edges_between(least_s, most_s)
    assert edges[0] <= max(least_s, 1e-4 if is_logarithmic else 0.0) * (1 + 1e-9)
    assert edges[-1] >= most_s
    assert 2 <= len(edges) <= MOST_BINS + 1


def test_a_slice_knows_its_median_latency_and_its_requests_in_flight() -> None:
    """Worked out by hand: two requests that overlap for a half of the run."""
    series = series_of([(0.0, 8.0, 1, True, "ok"), (4.0, 8.0, 3, True, "ok")], [(8.0, True), (12.0, True)])
    timeline = series.timeline
    assert timeline is not None
    assert timeline.bin_s == pytest.approx(1.0)
    assert timeline.in_flight == pytest.approx([1.0] * 4 + [2.0] * 4 + [1.0] * 4)
    assert timeline.request_p50_s[8] == 8.0
    assert timeline.record_p50_s[-1] == 12.0
    assert (timeline.batch_size[0], timeline.batch_size[4], timeline.batch_size[5]) == (1.0, 3.0, None)


def test_a_long_pause_is_told_apart() -> None:
    """Throughput stays from first send to last result, as defined; beside it stands the rate without the pause."""
    calls = [make_call(1, sent_at=100.0, latency_s=5.0), make_call(2, sent_at=1100.0, latency_s=5.0)]
    answers = [make_answer("a", answered_at=105.0), make_answer("b", answered_at=1105.0)]
    throughput = hand_made(calls, answers).throughput
    assert throughput.records_per_s == pytest.approx(2 / 1005, abs=1e-6)
    assert throughput.idle_s == pytest.approx(995.0)
    assert throughput.active_records_per_s == pytest.approx(0.2)
    paced = [make_call(number, sent_at=100.0 + 6 * number, latency_s=1.0) for number in range(1, 9)]
    assert hand_made(paced, answers[1:]).throughput.idle_s == 0.0
