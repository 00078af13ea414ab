"""Where in the batch records went without a usable answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, legend
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Report
from engine.report.series import PositionRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POSITIONS = "Failures by position in the batch"

_FEWEST_ASKED = 100  # at a place, or its share is chance
_Z = 1.96


def positions_plot(report: Report) -> Plot | LeftOut:
    """The share of records without an answer, by where they stood."""
    rows = [] if report.series is None else report.series.positions
    rows = [row for row in rows if row.largest > 1]
    if not any(any(row.missed) for row in rows):
        return LeftOut(title=POSITIONS, reason="no reply to a batch left out an answer, or none was noted")
    curves = [(row, _known(row)) for row in rows]
    curves = [(row, places) for row, places in curves if len(places) > 1]
    if not curves:
        return LeftOut(title=POSITIONS, reason="too few records were asked at each place to tell")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_positions(figure, curves)

    return Plot(
        title=POSITIONS,
        heading=_ends(rows),
        note="Of the replies of a model. Shaded: 95 % intervals (Wilson). Places with fewer than "
        f"{_FEWEST_ASKED} records are left out.",
        draw=draw,
        heights=(300,),
    )


def _known(row: PositionRow) -> list[int]:
    return [place for place, asked in enumerate(row.asked) if asked >= _FEWEST_ASKED]


def _ends(rows: list[PositionRow]) -> str:
    """The first half of every batch beside its second half; what chance makes is not called a difference."""
    halves = [[0, 0], [0, 0]]
    for row in rows:
        for place, (asked, missed) in enumerate(zip(row.asked, row.missed, strict=True)):
            half = halves[int(2 * place >= len(row.asked))]
            half[0] += asked
            half[1] += missed
    (asked_first, missed_first), (asked_last, missed_last) = halves
    shares = f"{words.share(missed_first, asked_first)} of the records in the first half of the places against "
    shares += f"{words.share(missed_last, asked_last)} in the second"
    if not asked_first or not asked_last:
        return f"No usable answer came for {shares}."
    pooled = (missed_first + missed_last) / (asked_first + asked_last)
    error = math.sqrt(pooled * (1 - pooled) * (1 / asked_first + 1 / asked_last))
    difference = missed_last / asked_last - missed_first / asked_first
    if abs(difference) <= _Z * error:
        return f"The place in the batch made no difference beyond chance: no usable answer for {shares}."
    where = "later" if difference > 0 else "earlier"
    return f"Records {where} in the batch went without an answer more often: {shares}."


def wilson(missed: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    share, squared = missed / asked, _Z * _Z / asked
    middle = (share + squared / 2) / (1 + squared)
    reach = _Z * math.sqrt(share * (1 - share) / asked + squared / (4 * asked)) / (1 + squared)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _draw_positions(figure: Figure, curves: list[tuple[PositionRow, list[int]]]) -> None:
    axes: Axes = figure.subplots()
    most = 0.0
    colours = (inks.GREY, inks.TEAL, inks.BLUE, inks.PURPLE, inks.ORANGE, inks.RED, inks.YELLOW)
    for (row, places), colour in zip(curves, colours, strict=False):
        shares = [row.missed[place] / row.asked[place] for place in places]
        bounds = [wilson(row.missed[place], row.asked[place]) for place in places]
        at = [place + 1 for place in places]
        axes.fill_between(at, [low for low, _ in bounds], [high for _, high in bounds], color=colour, alpha=0.15)
        name = f"{row.smallest}" if row.smallest == row.largest else f"{row.smallest} to {row.largest}"
        axes.plot(at, shares, "-o", markersize=3.5, color=colour, label=f"{name} records")
        most = max(most, *shares, *(high for _, high in bounds if high < 3 * max(shares) + 0.02))
    from_zero(axes, min(1.0, most))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axes.locator_params(axis="x", nbins=8, integer=True)
    axes.set_xlabel("place in the request, from the first")
    axes.set_ylabel("without a usable answer")
    legend(axes)
