"""How right the answers to gold were, by batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.decide.gold_values import GoldRow
from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import legend
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY = "Accuracy by batch size"
_MOST_VARIABLES = 4
_INKS = (inks.YELLOW, inks.BLUE, inks.TEAL, inks.SOFT)


def gold_plot(report: Report) -> Plot | LeftOut:
    """Accuracy by gold with its interval, one line for each variable."""
    gold = report.gold
    if gold is None or not gold.by_size:
        return LeftOut(title=ACCURACY, reason="no record with a known answer was asked")
    rows, said = gold.by_size, gold.sentence.removeprefix("gold: ")

    def draw(figure: Figure, narrow: bool) -> None:
        _draw(figure, rows)

    return Plot(
        title=ACCURACY,
        heading=words.visible(said[:1].upper() + said[1:] + "."),
        note="Records with known answers that rode in the batches, and alone. Bars: 95 % intervals.",
        draw=draw,
        heights=(300,),
    )


def _draw(figure: Figure, rows: list[GoldRow]) -> None:
    axes = figure.subplots()
    sizes = sorted({row.where for row in rows}, key=lambda where: int(where.rpartition("-")[2]))
    names = list(dict.fromkeys(row.variable for row in rows))[:_MOST_VARIABLES]
    for number, name in enumerate(names):
        own = [row for row in rows if row.variable == name]
        places = [sizes.index(row.where) + 0.1 * number for row in own]
        ink = _INKS[number]
        for place, row in zip(places, own, strict=True):
            axes.vlines(place, row.low, row.high, colors=ink, linewidth=2)
        axes.plot(
            places, [row.accuracy for row in own], "s-", color=ink, markersize=6, linewidth=1.2,
            label=words.visible(name) or "right",
        )  # fmt: skip
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel("share of gold")
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_xlabel("records in a request")
    legend(axes)
