"""What a request of each size took and gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, tick
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Report
from engine.report.series import SizeLatency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = "By records in a request"

_FEWEST_REQUESTS = 5
_FEWEST_SIZES = 2


def sizes_plot(report: Report) -> Plot | LeftOut:
    """Valid records that one slot gave a second, and latency, by size."""
    every = [] if report.series is None else report.series.sizes
    sizes = [size for size in every if size.requests >= _FEWEST_REQUESTS and size.busy_s > 0]
    if len(sizes) < _FEWEST_SIZES:
        return LeftOut(title=SIZES, reason=f"fewer than two sizes had {_FEWEST_REQUESTS} requests or more")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw(figure, sizes)

    best, least = max(sizes, key=_speed), sizes[0]
    heading = f"While it was in flight, a request gave most with {words.plural(best.size, 'record')}: "
    heading += f"{words.three_digits(_speed(best))} valid records a second"
    if best is not least:
        heading += f", against {words.three_digits(_speed(least))} with {least.size}"
    return Plot(
        title=SIZES,
        heading=f"{heading}.",
        note=f"Sizes with {_FEWEST_REQUESTS} requests or more, re-asks and halves included. Bars: p50 to p95.",
        draw=draw,
        heights=(360,),
    )


def _speed(size: SizeLatency) -> float:
    return size.accepted / size.busy_s


def _draw(figure: Figure, sizes: list[SizeLatency]) -> None:
    above, below = figure.subplots(2, 1, sharex=True)
    places = [size.size for size in sizes]
    speeds = [_speed(size) for size in sizes]
    above.plot(places, speeds, "-o", color=inks.BLUE, markersize=5)
    from_zero(above, max(speeds))
    above.set_ylabel("valid records\na second in flight")
    below.vlines(places, [size.p50_s for size in sizes], [size.p95_s for size in sizes], colors=inks.TEAL, linewidth=3)
    below.plot(places, [size.p50_s for size in sizes], "o", color=inks.TEAL, markersize=6)
    from_zero(below, max(size.p95_s for size in sizes))
    below.set_ylabel("request\nlatency, s")
    below.set_xlim(places[0] - 0.5 - 0.02 * places[-1], places[-1] + 0.5 + 0.02 * places[-1])
    below.locator_params(axis="x", nbins=8, integer=True)
    below.xaxis.set_major_formatter(lambda value, _: tick(value))
    below.set_xlabel("records in a request")
