"""Throughput against latency: one curve a batch size, one point a number of requests in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.bench.document import Bench, ClosedPoint
from engine.bench.figures import Spread
from engine.bench.page.cells import TARGET, Size, reach, seconds_axis, sizes_of, target_line
from engine.bench.sentences import best_point, knee_of, p95_s, rate
from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import legend, tick
from engine.report.charts.plot import NARROW, WIDE, LeftOut, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Throughput against latency"

_HEIGHTS = (400, 380)
_FRAME = 95
"""Pixels that labels and legend take of a plot, each way, to tell which numbers would touch."""
_LETTERS, _MARK = (20.0, 14.0), (13.0, 11.0)
"""Pixels between the middles of two numbers, and of a number and a point, from which on they do not touch."""
_ASIDE = (14.0, 12.0)
_SIDES = ((-1, 1), (1, -1), (-1, -1), (1, 1))
"""Where a number may stand: left above its point where there is room, because curves go right and up."""


def curve_plot(document: Bench) -> Plot | LeftOut:
    """The throughput-latency curves, with the knees and the target."""
    drawn = [point for point in document.closed if _at(point)]
    if not drawn:
        return LeftOut(title=TITLE, reason="no cell brought a valid record")
    if len(document.closed) == 1:
        return LeftOut(title=TITLE, reason="one cell makes no curve; the table has its figures")
    missing = len(document.closed) - len(drawn)

    def draw(figure: Figure, narrow: bool) -> None:
        _draw(figure, document, narrow)

    note = "Numbers: requests in flight. Bars: least to greatest of the repeats, both ways. Ring: the knee."
    if any(point.summary.short for point in drawn):
        note += " Hollow: too short to be steady."
    if missing:
        note += f" Not drawn: {words.plural(missing, 'cell')} without a valid record."
    return Plot(title=TITLE, heading=_heading(document), note=note, draw=draw, heights=_HEIGHTS)


def _at(point: ClosedPoint) -> tuple[Spread, Spread] | None:
    """Records a second, and the request p95; None where nothing was answered."""
    found, p95 = point.summary.records_per_s, point.summary.request_latency_s.get("p95")
    return None if found is None or p95 is None or not found.median else (found, p95)


def _heading(document: Bench) -> str:
    best = best_point(document) or max(document.closed, key=rate)
    knee = knee_of(document, best.batch_size)
    said = ""
    if knee is not None:
        there = next((point for point in document.closed if _is(point, knee.batch_size, knee.concurrency)), best)
        said = (
            f"With {knee.batch_size} a request the knee is at {knee.concurrency} in flight, with "
            f"{words.three_digits(knee.records_per_s)} records/s, request p95 {words.seconds(p95_s(there))}"
        )
        said += "; no more were tried, so there may be more beyond" if knee.at_end else ""
    target_s = document.target_p95_s
    if target_s is not None:
        timed = [found for point in document.closed if (found := p95_s(point)) is not None]
        within = sum(found <= target_s for found in timed)
        said += f"; {within} of {words.plural(len(timed), 'cell')} kept p95 within {target_s:g} s"
    return f"{said}."


def _is(point: ClosedPoint, batch_size: int, concurrency: int) -> bool:
    return (point.batch_size, point.concurrency) == (batch_size, concurrency)


def _draw(figure: Figure, document: Bench, narrow: bool) -> None:
    axes = figure.subplots()
    latencies: list[float] = []
    most = 0.0
    places: list[tuple[float, float, ClosedPoint]] = []
    for size in sizes_of(document):
        for point in _draw_size(axes, size):
            found, p95 = point.summary.records_per_s, point.summary.request_latency_s["p95"]
            assert found is not None  # noqa: S101 - `_at` has looked
            places.append((found.median, p95.median, point))
            latencies += [p95.min, p95.max]
            most = max(most, found.max)
    target_line(axes, document)
    axes.set_xlim(0, 1.08 * most)
    axes.locator_params(axis="x", nbins=6 if narrow else 10)
    axes.xaxis.set_major_formatter(lambda value, _: tick(value))
    seconds_axis(axes, min(latencies), max(*latencies, document.target_p95_s or 0.0))
    knees = {(knee.batch_size, knee.concurrency) for knee in document.knees}
    ringed = [place for place in places if (place[2].batch_size, place[2].concurrency) in knees]
    if ringed:
        axes.plot(
            [at for at, _, _ in ringed], [high for _, high, _ in ringed], "o", markersize=14, color=inks.TEXT,
            markerfacecolor="none", markeredgewidth=1.5, label="knee",
        )  # fmt: skip
    _number(axes, [*ringed, *(place for place in reversed(places) if place not in ringed)], narrow)
    axes.set_xlabel("valid records a second")
    axes.set_ylabel("request latency, p95")
    axes.grid(visible=True, axis="x")
    legend(axes, last=(TARGET, "knee"))


def _draw_size(axes: Axes, size: Size) -> list[ClosedPoint]:
    """One curve; the points that are on it."""
    drawn = [(point, at) for point in size.points if (at := _at(point)) is not None]
    if not drawn:
        return []
    rates, latencies = [at[0] for _, at in drawn], [at[1] for _, at in drawn]
    axes.errorbar(
        [one.median for one in rates], [one.median for one in latencies], xerr=reach(rates), yerr=reach(latencies),
        color=size.colour, marker=size.mark, markersize=6, elinewidth=1.2, capsize=2.5, label=size.name,
    )  # fmt: skip
    short = [at for point, at in drawn if point.summary.short]
    if short:
        axes.plot(
            [found.median for found, _ in short], [p95.median for _, p95 in short], size.mark, color=size.colour,
            markersize=6, markerfacecolor=inks.CARD, zorder=4,
        )  # fmt: skip
    return [point for point, _ in drawn]


def _number(axes: Axes, places: list[tuple[float, float, ClosedPoint]], narrow: bool) -> None:
    """The requests in flight beside their points, the first ones first; what would cover something is left out."""
    width = (NARROW if narrow else WIDE) - _FRAME
    height = _HEIGHTS[narrow] - _FRAME
    scaled = [(axes.transScale + axes.transLimits).transform((at, high)) for at, high, _ in places]
    points = [(across * width, up * height) for across, up in scaled]
    taken: list[tuple[float, float]] = []
    for (x, y), (at, high, point) in zip(points, places, strict=True):
        for right, above in _SIDES:
            middle = (x + right * _ASIDE[0], y + above * _ASIDE[1])
            is_inside = middle[0] > _LETTERS[0] / 2
            if is_inside and _is_free(middle, taken, _LETTERS) and _is_free(middle, points, _MARK):
                taken.append(middle)
                axes.annotate(
                    str(point.concurrency), (at, high), xytext=(right * _ASIDE[0], above * _ASIDE[1]),
                    textcoords="offset points", ha="center", va="center", fontsize=11.5, color=inks.TEXT, zorder=5,
                )  # fmt: skip
                break


def _is_free(middle: tuple[float, float], others: list[tuple[float, float]], apart: tuple[float, float]) -> bool:
    return not any(abs(middle[0] - x) < apart[0] and abs(middle[1] - y) < apart[1] for x, y in others)
