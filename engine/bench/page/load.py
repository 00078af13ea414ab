"""Throughput and latency against requests in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.bench.document import Bench, ClosedPoint
from engine.bench.page.cells import by_in_flight, in_flight_axis, seconds_axis, sizes_of, target_line
from engine.bench.sentences import best_point, p95_s, rate
from engine.report import words
from engine.report.charts.axes import from_zero, legend
from engine.report.charts.plot import LeftOut, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Against requests in flight"


def load_plot(document: Bench) -> Plot | LeftOut:
    """What more requests at once brought, and what they took."""
    best = best_point(document)
    if best is None:
        return LeftOut(title=TITLE, reason="no cell brought a valid record")
    if len({point.concurrency for point in document.closed}) == 1:
        return LeftOut(title=TITLE, reason="only one number of requests in flight was tried")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw(figure, document, narrow)

    return Plot(
        title=TITLE,
        heading=_heading(document, best),
        note="Latency of requests: p50 full, p95 dashed and hollow. Bars: least to greatest of the repeats.",
        draw=draw,
        heights=(300, 500),
    )


def _heading(document: Bench, best: ClosedPoint) -> str:
    points = [point for point in document.closed if point.batch_size == best.batch_size and rate(point)]
    points.sort(key=lambda point: point.concurrency)
    least, most = points[0], points[-1]
    if least is most:
        return f"With {best.batch_size} a request only {least.concurrency} in flight brought valid records."
    return (
        f"With {best.batch_size} a request, from {least.concurrency} to {most.concurrency} in flight throughput went "
        f"from {words.three_digits(rate(least))} to {words.three_digits(rate(most))} records/s, request p95 from "
        f"{words.seconds(p95_s(least))} to {words.seconds(p95_s(most))}."
    )


def _draw(figure: Figure, document: Bench, narrow: bool) -> None:
    sizes = sizes_of(document)
    rates, latencies = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    from_zero(rates, by_in_flight(rates, sizes, lambda point: point.summary.records_per_s))
    rates.set_ylabel("valid records a second")
    in_flight_axis(rates, document)
    legend(rates)
    by_in_flight(latencies, sizes, lambda point: point.summary.request_latency_s.get("p50"), named=False)
    by_in_flight(latencies, sizes, lambda point: point.summary.request_latency_s.get("p95"), named=False, dashed=True)
    target_line(latencies, document)
    found = [
        value
        for point in document.closed
        for rank in ("p50", "p95")
        if (one := point.summary.request_latency_s.get(rank)) is not None
        for value in (one.min, one.max)
    ]
    seconds_axis(latencies, min(found), max(*found, document.target_p95_s or 0.0))
    latencies.set_ylabel("request latency")
    in_flight_axis(latencies, document)
    legend(latencies)
