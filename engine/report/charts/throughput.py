"""Records over time, and how fast they came against how long they took."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, legend, over_time
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Report
from engine.report.series import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVER_TIME = "Throughput over time"
AGAINST_LATENCY = "Throughput against latency"

_FEWEST = 3  # slices with something in them, or a curve says nothing
_FEWEST_POINTS = 8
_IDLE = 0.1  # of the run, from where on idle time belongs in the heading


def throughput_plot(report: Report) -> Plot | LeftOut:
    """Valid and failed records a second."""
    timeline = None if report.series is None else report.series.timeline
    if timeline is None:
        return LeftOut(title=OVER_TIME, reason="nothing was sent, or the run took no time")
    ended = [ok + failed for ok, failed in zip(timeline.records_ok, timeline.records_failed, strict=True)]
    if sum(map(bool, ended)) < _FEWEST:
        return LeftOut(title=OVER_TIME, reason="the records ended in one or two moments, which make no curve")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_over_time(figure, report, timeline)

    return Plot(
        title=OVER_TIME,
        heading=_pace(report),
        note=f"Each step is {words.seconds(timeline.bin_s)}. Valid: answered under its own id, in the task's schema.",
        draw=draw,
        heights=(250, 230),
    )


def _pace(report: Report) -> str:
    throughput = report.throughput
    whole = words.three_digits(throughput.records_per_s or 0.0)
    span = words.seconds(throughput.span_s)
    if throughput.steady is not None:
        steady = words.three_digits(throughput.steady.records_per_s)
        said = f"{steady} valid records a second came in the steady part, {whole} over all {span}"
    else:
        said = f"{words.plural(throughput.valid_records, 'valid record')} came in {span}, {whole} a second"
    idle_s, span_s = throughput.idle_s or 0.0, throughput.span_s or 0.0
    if idle_s > _IDLE * span_s and throughput.active_records_per_s is not None:
        active = words.three_digits(throughput.active_records_per_s)
        said += f"; nothing was in flight for {words.seconds(idle_s)} of it, and the rest made {active} a second"
    failed = report.records.failed
    return said + (f"; {words.plural(failed, 'record')} failed." if failed else ".")


def _draw_over_time(figure: Figure, report: Report, timeline: Timeline) -> None:
    axes = figure.subplots()
    unit_s = over_time(axes, timeline.at_s[-1])
    edges = [0.0, *(at_s / unit_s for at_s in timeline.at_s)]
    ok = [count / timeline.bin_s for count in timeline.records_ok]
    both = [rate + failed / timeline.bin_s for rate, failed in zip(ok, timeline.records_failed, strict=True)]
    axes.stairs(ok, edges, fill=True, color=inks.BLUE, alpha=0.3)
    axes.stairs(ok, edges, color=inks.BLUE, linewidth=1.6, label="valid records")
    if sum(timeline.records_failed):
        axes.stairs(both, edges, baseline=ok, fill=True, color=inks.RED, label="failed records")
    steady = report.throughput.steady
    if steady is not None:
        axes.hlines(
            steady.records_per_s, steady.from_s / unit_s, steady.to_s / unit_s, colors=inks.TEXT, linewidth=1.4,
            linestyles="dashed", label="mean of the steady part",
        )  # fmt: skip
    from_zero(axes, max(both))
    axes.set_ylabel("records a second")
    legend(axes)


def against_latency_plot(report: Report) -> Plot | LeftOut:
    """One point for each slice of time."""
    timeline = None if report.series is None else report.series.timeline
    points = [] if timeline is None else _points(timeline)
    if timeline is None or len(points) < _FEWEST_POINTS:
        return LeftOut(title=AGAINST_LATENCY, reason="the run was too short to compare its parts")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_against(figure, points)

    return Plot(
        title=AGAINST_LATENCY,
        heading=_comparison(points),
        note=f"Each point is a slice of {words.seconds(timeline.bin_s)}; paler points had fewer requests in flight.",
        draw=draw,
        heights=(300,),
    )


def _points(timeline: Timeline) -> list[tuple[float, float, float]]:
    """Valid records a second, median latency of the requests that ended, and requests in flight."""
    columns = zip(timeline.records_ok, timeline.request_p50_s, timeline.in_flight, strict=True)
    return [(ok / timeline.bin_s, p50_s, flying) for ok, p50_s, flying in columns if p50_s is not None and ok]


def _comparison(points: list[tuple[float, float, float]]) -> str:
    """The fastest third beside the slowest one."""
    third = max(1, len(points) // 3)
    ranked = sorted(points)
    slow, fast = ranked[:third], ranked[-third:]
    slow_s, fast_s = (median(latency_s for _, latency_s, _ in part) for part in (slow, fast))
    return (
        f"In the fastest third of the run ({words.three_digits(fast[0][0])} records a second or more) half of the "
        f"requests took {words.seconds(fast_s)} or less, in the slowest third (up to "
        f"{words.three_digits(slow[-1][0])}) {words.seconds(slow_s)}."
    )


def _draw_against(figure: Figure, points: list[tuple[float, float, float]]) -> None:
    axes = figure.subplots()
    most = max(flying for _, _, flying in points) or 1.0
    rates, latencies_s, flying = zip(*points, strict=True)
    colours = [(inks.BLUE, 0.2 + 0.7 * number / most) for number in flying]
    axes.scatter(rates, latencies_s, s=44, c=colours, linewidths=0)
    axes.set_xlim(0, 1.08 * max(rate for rate, _, _ in points))
    axes.locator_params(axis="x", nbins=6)
    from_zero(axes, max(latency_s for _, latency_s, _ in points))
    axes.set_xlabel("valid records a second")
    axes.set_ylabel("median request latency, s")
