"""The open loop: how long records took that arrived on their own, and which were not answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.bench.document import Bench, OpenPoint
from engine.bench.figures import Spread
from engine.bench.page.cells import TARGET, reach, seconds_axis, target_line
from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, legend, tick
from engine.report.charts.plot import LeftOut, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Records arriving on their own"

_RANKS = {"p50": (inks.BLUE, "o"), "p90": (inks.TEAL, "s"), "p95": (inks.PURPLE, "^"), "p99": (inks.ORANGE, "D")}


def arrivals_plot(document: Bench) -> Plot | LeftOut:
    """Effective latency against the offered rate, and what was answered of it."""
    points = [point for point in document.open if point.offered_per_s is not None and "p95" in _effective(point)]
    points.sort(key=_offered)
    if not document.open:
        return LeftOut(title=TITLE, reason="no arrival rates were measured")
    if not points:
        return LeftOut(title=TITLE, reason="too few records arrived to tell")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw(figure, document, points, narrow)

    first = points[0]
    return Plot(
        title=TITLE,
        heading=_heading(document, points),
        note=f"{first.batch_size} a request, at most {first.concurrency} in flight. Effective latency: from the "
        "scheduled arrival; a record without an answer has its age. Bars: least to greatest of the repeats.",
        draw=draw,
        heights=(320, 540),
    )


def _effective(point: OpenPoint) -> dict[str, Spread]:
    return point.summary.record_latency_s


def _offered(point: OpenPoint) -> float:
    return point.records_per_s if point.offered_per_s is None else point.offered_per_s.median


def _said(point: OpenPoint) -> str:
    return words.three_digits(_offered(point))


def _heading(document: Bench, points: list[OpenPoint]) -> str:
    least, most = points[0], points[-1]
    p95 = words.seconds(_effective(most)["p95"].median)
    target_s = document.target_p95_s
    if target_s is not None:
        said = _kept(points, target_s)
    elif least is most:
        said = f"With {_said(most)} records/s arriving, 95 % had their answer within {p95}"
    else:
        said = (
            f"With {_said(least)} records/s arriving, 95 % had their answer within "
            f"{words.seconds(_effective(least)['p95'].median)}, with {_said(most)} within {p95}"
        )
    behind = [point for point in points if point.unanswered]
    if behind:
        worst = max(behind, key=lambda point: point.unanswered / max(1, point.arrivals))
        said += (
            f"; with {_said(worst)} arriving, {worst.unanswered} of {words.plural(worst.arrivals, 'record')} had none "
            "when the time was over"
        )
    return f"{said}."


def _kept(points: list[OpenPoint], target_s: float) -> str:
    """Up to which rate the target held: of the rates tried, those below the first that broke it."""
    kept = 0
    while kept < len(points) and _effective(points[kept])["p95"].median <= target_s:
        kept += 1
    if not kept:
        p95 = words.seconds(_effective(points[0])["p95"].median)
        return f"At no rate tried 95 % had their answer within {target_s:g} s; {_said(points[0])} records/s took {p95}"
    held = points[kept - 1]
    p95 = words.seconds(_effective(held)["p95"].median)
    most = ", the most tried," if kept == len(points) else ""
    return f"Up to {_said(held)} records/s arriving{most} 95 % had their answer within {target_s:g} s (there {p95})"


def _draw(figure: Figure, document: Bench, points: list[OpenPoint], narrow: bool) -> None:
    latencies, answered = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    _draw_latencies(latencies, document, points)
    _draw_answered(answered, points)
    for axes in (latencies, answered):
        axes.set_xlim(0, 1.08 * max(map(_offered, points)))
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(lambda value, _: tick(value))
        axes.set_xlabel("records arriving a second")
        legend(axes, last=(TARGET, "unanswered", "all of it"))


def _draw_latencies(axes: Axes, document: Bench, points: list[OpenPoint]) -> None:
    found: list[float] = []
    for rank, (colour, mark) in _RANKS.items():
        drawn = [(_offered(point), one) for point in points if (one := _effective(point).get(rank)) is not None]
        if drawn:
            spreads = [one for _, one in drawn]
            axes.errorbar(
                [at for at, _ in drawn], [one.median for one in spreads], yerr=reach(spreads), color=colour,
                marker=mark, markersize=5, elinewidth=1.2, capsize=2.5, label=rank,
            )  # fmt: skip
            found += [value for one in spreads for value in (one.min, one.max)]
    target_line(axes, document)
    seconds_axis(axes, min(found), max(*found, document.target_p95_s or 0.0))
    axes.set_ylabel("effective latency")


def _draw_answered(axes: Axes, points: list[OpenPoint]) -> None:
    most = max(map(_offered, points))
    axes.plot([0, 1.08 * most], [0, 1.08 * most], color=inks.SOFT, linewidth=1, linestyle="dotted", label="all of it")
    drawn = [(_offered(point), one) for point in points if (one := point.summary.records_per_s) is not None]
    if drawn:
        spreads = [one for _, one in drawn]
        axes.errorbar(
            [at for at, _ in drawn], [one.median for one in spreads], yerr=reach(spreads), color=inks.BLUE, marker="o",
            markersize=5, elinewidth=1.2, capsize=2.5, label="answered",
        )  # fmt: skip
    behind = [point for point in points if point.unanswered]
    if behind:
        shares = [_offered(point) * point.unanswered / max(1, point.arrivals) for point in behind]
        axes.plot([_offered(point) for point in behind], shares, "v", color=inks.RED, markersize=7, label="unanswered")
        for point, share in zip(behind, shares, strict=True):
            axes.annotate(
                f"{point.unanswered} of {point.arrivals}", (_offered(point), share), xytext=(-7, 4),
                textcoords="offset points", ha="right", va="bottom", fontsize=11.5, color=inks.RED,
            )  # fmt: skip
    from_zero(axes, max(most, *(one.max for _, one in drawn)) if drawn else most)
    axes.set_ylabel("records a second")
