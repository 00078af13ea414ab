"""How long requests and records took, and how long requests stood in line."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, seconds_tick, tick
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Percentiles, Report
from engine.report.sentences import BINDING
from engine.report.series import Histogram, WaitSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

LATENCIES = "Latency"
WAITS = "Waiting to be sent"

_FEWEST = 5
_FEW_DECADES = 60.0


def latency_plot(report: Report) -> Plot | LeftOut:
    """Two histograms, with the median and the 95th percentile."""
    series = report.series
    request = None if series is None else series.request_latency
    record = None if series is None else series.record_latency
    if request is None:
        return LeftOut(title=LATENCIES, reason="nothing was sent")
    if sum(request.counts) < _FEWEST:
        return LeftOut(title=LATENCIES, reason="too few requests were sent; the table has their latencies")
    panels = [("requests", request, report.latency_s.request, inks.BLUE)]
    if record is not None:
        panels.append(("records", record, report.latency_s.record, inks.TEAL))

    def draw(figure: Figure, narrow: bool) -> None:
        drawn = figure.subplots(len(panels), 1, squeeze=False)
        for axes, (name, histogram, percentiles, colour) in zip(drawn[:, 0], panels, strict=True):
            _draw_histogram(axes, name, histogram, percentiles, colour)

    of_request, of_record = report.latency_s.request, report.latency_s.record
    heading = (
        f"Half of the requests came back within {words.seconds(of_request.p50)}, 95 % within "
        f"{words.seconds(of_request.p95)}"
    )
    if of_record.p50 is not None:
        heading += (
            f"; a record was done within {words.seconds(of_record.p50)}, 95 % within {words.seconds(of_record.p95)}"
        )
    return Plot(
        title=LATENCIES,
        heading=f"{heading}.",
        note="Requests: sent to last byte, failed ones too. Records: taken in to answered or failed.",
        draw=draw,
        heights=(360 if len(panels) > 1 else 220,),
    )


def _draw_histogram(axes: Axes, name: str, histogram: Histogram, percentiles: Percentiles, colour: str) -> None:
    axes.stairs(histogram.counts, histogram.edges_s, fill=True, color=colour, alpha=0.55)
    axes.set_xlim(histogram.edges_s[0], histogram.edges_s[-1])
    if histogram.logarithmic:
        logarithmic(axes)
    else:
        axes.locator_params(axis="x", nbins=7)
    from_zero(axes, max(histogram.counts), whole=True)
    for value, mark, align, aside in ((percentiles.p50, "p50", "right", -3), (percentiles.p95, "p95", "left", 3)):
        if value is not None:
            axes.axvline(value, color=inks.TEXT, linewidth=1.2, linestyle="dashed")
            axes.annotate(
                mark, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(aside, 0),
                textcoords="offset points", ha=align, va="bottom", fontsize=12, color=inks.TEXT,
            )  # fmt: skip
    axes.set_ylabel(name)
    axes.set_xlabel("latency" if histogram.logarithmic else "latency, s")


def logarithmic(axes: Axes) -> None:
    """Make the x axis one of seconds by powers of ten, labelled so that nobody needs to know the word."""
    axes.set_xscale("log")
    begin, end = axes.get_xlim()
    if end < _FEW_DECADES * begin:  # or there would be one label
        cast("LogLocator", axes.xaxis.get_major_locator()).set_params(subs=(1, 2, 5))
    axes.xaxis.set_major_formatter(seconds_tick)
    axes.xaxis.set_minor_formatter(lambda value, _: "")


def waits_plot(report: Report) -> Plot | LeftOut:
    """How many requests were held for how long, by what held them."""
    waits = None if report.series is None else report.series.waits
    if waits is None:
        return LeftOut(title=WAITS, reason="waits were not recorded")
    held = {name: counts for name, counts in waits.requests_by_cause.items() if sum(counts)}
    if not held:
        return LeftOut(title=WAITS, reason="no request was held back by a limit")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_waits(figure, waits, held)

    return Plot(
        title=WAITS,
        heading=_held(report),
        note="Of the request first in line, by what held it. They leave one at a time, so waits add up to time.",
        draw=draw,
        heights=(360,),
    )


def _held(report: Report) -> str:
    seconds = {name: float(getattr(report.queue_wait_s, name)) for name in BINDING}
    most = max(seconds, key=lambda name: seconds[name])
    total = sum(seconds.values())
    return (
        f"Requests were held for {words.seconds(total)} in all, {words.share(seconds[most], total)} of it by "
        f"{BINDING[most]}."
    )


def _draw_waits(figure: Figure, waits: WaitSeries, held: dict[str, list[int]]) -> None:
    used = [place for counts in held.values() for place, count in enumerate(counts) if count]
    begin, end = max(0, min(used) - 1), min(len(waits.edges_s) - 2, max(used) + 1)
    edges = waits.edges_s[begin : end + 2]
    drawn = figure.subplots(len(held), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, counts) in zip(drawn, held.items(), strict=True):
        axes.stairs(counts[begin : end + 1], edges, fill=True, color=inks.HELD_BY[name], alpha=0.7)
        axes.set_xlim(edges[0], edges[-1])
        logarithmic(axes)
        from_zero(axes, max(counts), whole=True)
        axes.locator_params(axis="y", nbins=3)
        axes.set_title(f"by {BINDING[name]}: {tick(sum(counts))} of {tick(sum(counts) + waits.unheld[name])}")
    drawn[-1].set_xlabel("held for")
    drawn[len(drawn) // 2].set_ylabel("requests")
