"""Score against cost: every setting with its interval, the Pareto front, and the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.report.charts import inks
from engine.report.charts.axes import legend, tick
from engine.report.charts.plot import LeftOut, Plot
from engine.tuning.tune_document import Row, Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Score against cost"

_HEIGHTS = (420, 380)
_COLOURS = (inks.BLUE, inks.ORANGE, inks.GREEN, inks.PURPLE, inks.TEAL, inks.GREY)


def front_plot(tuned: Tuned) -> Plot | LeftOut:
    """One point a setting."""
    asked = [row for row in tuned.rows if row.records and row.broken is None and row.cost_per_record > 0]
    if len(asked) < 2:
        return LeftOut(title=TITLE, reason="one setting makes no picture; the table has its figures")
    best = tuned.rows[tuned.best]
    return Plot(
        title=TITLE,
        heading=(
            f"The best estimate is {best.score:.3f}; what lies above the dashed line is estimated to be within "
            f"{tuned.margin:g} of it."
        ),
        note=(
            f"Bars: {100 * tuned.confidence:.0f} % intervals; long ones were stopped early. Ring: the choice. Line: "
            f"the Pareto front of the settings that are known well enough. Cost: {_unit(tuned)}."
        ),
        draw=lambda figure, narrow: _draw(figure, tuned, asked, narrow),
        heights=_HEIGHTS,
    )


def _unit(tuned: Tuned) -> str:
    return "tokens a record, one of output as four of input" if tuned.spent_usd is None else "dollars for 1,000 records"


def _cost(tuned: Tuned, row: Row) -> float:
    return row.cost_per_record if tuned.spent_usd is None else 1000 * row.cost_per_record


def _draw(figure: Figure, tuned: Tuned, asked: list[Row], narrow: bool) -> None:
    axes = figure.subplots()
    for form, shape in (("compact", "o"), ("keyed", "s")):
        for place, examples in enumerate(sorted({row.setting.examples for row in asked})):
            rows = [row for row in asked if row.setting.form == form and row.setting.examples == examples]
            if not rows:
                continue
            colour = _COLOURS[place % len(_COLOURS)]
            axes.errorbar(
                [_cost(tuned, row) for row in rows], [row.score for row in rows], yerr=_reach(rows), fmt=shape,
                color=colour, markersize=6, elinewidth=1.0, capsize=2.0, label=f"{form}, {examples} examples",
            )  # fmt: skip
    front = [row for row in asked if row.on_front]
    axes.plot([_cost(tuned, row) for row in front], [row.score for row in front], color=inks.SOFT, linewidth=1.2)
    axes.axhline(tuned.rows[tuned.best].score - tuned.margin, color=inks.SOFT, linestyle="--", linewidth=1.2)
    choice = tuned.choice
    axes.plot(
        [_cost(tuned, choice)], [choice.score], "o", markersize=15, color=inks.TEXT, markerfacecolor="none",
        markeredgewidth=1.6, label="chosen",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: tick(value))
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel(f"cost: {_unit(tuned)}" if not narrow else "cost")
    axes.set_ylabel(tuned.metric)
    legend(axes, last=("chosen",))


def _reach(rows: list[Row]) -> list[list[float]]:
    below = [max(0.0, row.score - row.interval.low) for row in rows]
    return [below, [max(0.0, row.interval.high - row.score) for row in rows]]
