"""Score against cost: every setting with its interval, the Pareto front, and the choice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import legend, tick
from engine.report.charts.plot import LeftOut, Plot
from engine.tuning import tune_sentences as sentences
from engine.tuning.space import value_of
from engine.tuning.tune_document import Row, Tuned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Score against cost"

_HEIGHTS = (420, 380)
_SHAPES = "os^DvPX"
_NUMBERED = 16  # settings, beyond which their batch sizes would cover each other
_LEAST_TICKS = 4
_PARTS: tuple[tuple[float, ...], ...] = (
    (1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(n / 10 for n in range(10, 100)),
    tuple(n / 100 for n in range(100, 1000)),
)  # fmt: skip
"""Of a decade, where ticks may stand: the first that gives enough of them."""
_COLOURS = (inks.BLUE, inks.ORANGE, inks.GREEN, inks.PURPLE, inks.TEAL, inks.GREY)


def front_plot(tuned: Tuned) -> Plot | LeftOut:
    """One point a setting."""
    asked = [row for row in tuned.rows if row.records and row.broken is None and row.cost_per_record > 0]
    if len(asked) < 2:
        return LeftOut(title=TITLE, reason="one setting makes no picture; the table has its figures")
    return Plot(
        title=TITLE,
        heading=_heading(tuned, asked),
        note=(
            f"Bars: {100 * tuned.confidence:.0f} % intervals; long ones were stopped early. Ring: the choice. Line: "
            f"the Pareto front of the settings that are known well enough. Cost: {_unit(tuned)}."
            + _numbers(tuned, asked)
            + _alike(tuned)
        ),
        draw=lambda figure, narrow: _draw(figure, tuned, asked, narrow),
        heights=_HEIGHTS,
    )


def _heading(tuned: Tuned, asked: list[Row]) -> str:
    """The best is one of those that were asked most: a higher estimate on fewer records is mostly luck."""
    best = tuned.rows[tuned.best]
    higher = max((row for row in asked if row.score > best.score), key=lambda row: row.score, default=None)
    lucky = "" if higher is None else f" (higher ones, up to {higher.score:.3f}, are less well known)"
    return (
        f"Of the settings that were asked most the best is {best.score:.3f} on {words.plural(best.records, 'record')}"
        f"{lucky}; what lies above the dashed line is estimated to be within {tuned.margin:g} of it."
    )


def _looks(tuned: Tuned) -> list[str]:
    """The dimensions that colour and shape tell, in this order: one for each."""
    others = [name for name in tuned.dimensions if name != "batch_size"]
    return sorted(others, key=lambda name: (name != "examples", name != "form"))[:2]


def _is_numbered(tuned: Tuned, asked: list[Row]) -> bool:
    return "batch_size" in tuned.dimensions and len(asked) <= _NUMBERED


def _numbers(tuned: Tuned, asked: list[Row]) -> str:
    return " Numbers: records a request." if _is_numbered(tuned, asked) else ""


def _alike(tuned: Tuned) -> str:
    """What the plot does not tell."""
    hidden = [name for name in tuned.dimensions if name not in ("batch_size", *_looks(tuned))]
    if not hidden:
        return ""
    named = ", ".join(words.visible(name.removeprefix("body.")) for name in hidden)
    return f" Settings that differ in {named} look alike here; the table tells them apart."


def _series(tuned: Tuned, asked: list[Row]) -> list[tuple[str, str, str, list[Row]]]:
    """Name, colour, shape and settings of each kind."""
    looks = _looks(tuned)
    seen: list[list[Any]] = [[], []]
    kinds: dict[tuple[int, ...], list[Row]] = {}
    for row in asked:
        places: list[int] = []
        for number, name in enumerate(looks):
            value = value_of(row.setting, name)
            if value not in seen[number]:
                seen[number].append(value)
            places.append(seen[number].index(value))
        kinds.setdefault(tuple(places), []).append(row)
    made = []
    for kind, rows in sorted(kinds.items()):
        colour, shape = (*kind, 0, 0)[:2]
        name = ", ".join(sentences.named_value(rows[0], look) for look in looks) or "settings"
        made.append((words.visible(name), _COLOURS[colour % len(_COLOURS)], _SHAPES[shape % len(_SHAPES)], rows))
    return made


def _unit(tuned: Tuned) -> str:
    return "tokens a record, one of output as four of input" if tuned.spent_usd is None else "dollars for 1,000 records"


def _cost(tuned: Tuned, row: Row) -> float:
    return row.cost_per_record if tuned.spent_usd is None else 1000 * row.cost_per_record


def _draw(figure: Figure, tuned: Tuned, asked: list[Row], narrow: bool) -> None:
    axes = figure.subplots()
    for name, colour, shape, rows in _series(tuned, asked):
        axes.errorbar(
            [_cost(tuned, row) for row in rows], [row.score for row in rows], yerr=_reach(rows), fmt=shape,
            color=colour, markersize=6, elinewidth=1.0, capsize=2.0, label=name,
        )  # fmt: skip
    if _is_numbered(tuned, asked):
        for row in asked:
            axes.annotate(
                str(row.setting.batch_size), (_cost(tuned, row), row.score), xytext=(6, 5), color=inks.SOFT,
                textcoords="offset points", fontsize=10,
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
    ticks = cost_ticks(*axes.get_xlim(), most=5 if narrow else 9)
    axes.set_xticks(ticks, [tick(value) for value in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"cost: {_unit(tuned)}" if not narrow else "cost")
    axes.set_ylabel(tuned.metric)
    legend(axes, last=("chosen",))


def cost_ticks(low: float, high: float, *, most: int) -> list[float]:
    """Round numbers on a logarithmic axis, at least two of them, however little of a decade it shows."""
    for parts in _PARTS:
        found = [
            round(part * 10.0**power, 12)
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for part in parts
            if low <= part * 10.0**power <= high
        ]
        if len(found) >= _LEAST_TICKS:
            return found[:: math.ceil(len(found) / most)]
    return [low, high]


def _reach(rows: list[Row]) -> list[list[float]]:
    below = [max(0.0, row.score - row.interval.low) for row in rows]
    return [below, [max(0.0, row.interval.high - row.score) for row in rows]]
