"""The article's plot: input tokens saved against batch size, for corpora of several shapes, with this one marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.decide.pricing import input_saving
from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import legend
from engine.report.charts.plot import LeftOut, Plot
from engine.tuning.document import Plan
from engine.tuning.sentences import chosen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Saved against batch size"

_OTHERS = (0.5, 1.0, 2.0, 5.0, 20.0)
"""Static tokens per token of a record, of other tasks to compare with."""

_HEIGHTS = (400, 360)


def savings_plot(plan: Plan) -> Plot | LeftOut:
    """The curve of this corpus among others."""
    if len(plan.forecasts) < 2:
        return LeftOut(title=TITLE, reason="one batch size makes no curve")
    worth = chosen(plan)
    return Plot(
        title=TITLE,
        heading=(
            f"This corpus has r = {plan.static_share:.1f} static tokens per token of a record; {worth.batch_size} a "
            f"request save {words.share(worth.saved, 1)} of the input."
        ),
        note=(
            "Points: as packed, with this corpus's lengths and budgets. Lines: r (1 - 1/B) / (1 + r). Ring: nine "
            "tenths of what the largest size saves."
        ),
        draw=lambda figure, narrow: _draw(figure, plan, narrow),
        heights=_HEIGHTS,
    )


def _draw(figure: Figure, plan: Plan, narrow: bool) -> None:
    axes = figure.subplots()
    sizes = [each.batch_size for each in plan.forecasts]
    along = sorted({*range(1, min(sizes[-1], 64) + 1), *sizes})
    for share in _OTHERS:
        _curve(axes, along, share)
    mine = [100 * input_saving(static_share=plan.static_share, batch_size=size) for size in along]
    axes.plot(along, mine, color=inks.BLUE, linewidth=2.2, label=f"this corpus, r = {plan.static_share:.1f}")
    axes.plot(sizes, [100 * each.saved for each in plan.forecasts], "o", color=inks.BLUE, label="as packed")
    worth = chosen(plan)
    axes.plot(
        [worth.batch_size], [100 * worth.saved], "o", markersize=14, color=inks.TEXT, markerfacecolor="none",
        markeredgewidth=1.5, label=f"B = {worth.batch_size}",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xlim(1, 1.25 * sizes[-1])
    shown = [size for number, size in enumerate(sizes) if not narrow or number % 2 == 0]
    axes.set_xticks(shown, [str(size) for size in shown])
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.set_xlabel("records a request")
    axes.set_ylabel("input tokens saved")
    legend(axes)


def _curve(axes: Axes, along: list[int], share: float) -> None:
    saved = [100 * input_saving(static_share=share, batch_size=size) for size in along]
    axes.plot(along, saved, color=inks.LINE, linewidth=1.4)
    axes.annotate(
        f"r = {share:g}", (along[-1], saved[-1]), xytext=(4, 0), textcoords="offset points", ha="left", va="center",
        fontsize=11, color=inks.SOFT, annotation_clip=False,
    )  # fmt: skip
