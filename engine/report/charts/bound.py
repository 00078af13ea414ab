"""The band of colour that shows what held requests back, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.report.charts import inks
from engine.report.charts.axes import legend
from engine.report.sentences import BINDING
from engine.report.series import WaitSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOUND_SHARE = 0.1  # of a slice that requests were held, below which nothing bound there
_SHORT = {"rpm": "requests/min", "tpm": "tokens/min", "window": "the window", "pause": "pauses"}


def binding(waits: WaitSeries) -> list[str | None]:
    """What held requests in each slice for the longest; None where nothing did for a tenth of it."""
    bound: list[str | None] = []
    for place in range(len(waits.at_s)):
        seconds = {name: held[place] for name, held in waits.by_cause.items()}
        most = max(seconds, key=lambda name: seconds[name])
        bound.append(most if seconds[most] >= _BOUND_SHARE * waits.bin_s else None)
    return bound


def draw_band(axes: Axes, waits: WaitSeries, unit_s: float) -> None:
    bound = binding(waits)
    axes.plot([], [], linestyle="none", label="bound by:")
    for name in BINDING:
        spans = [
            (max(0.0, at_s - waits.bin_s) / unit_s, waits.bin_s / unit_s)
            for at_s, cause in zip(waits.at_s, bound, strict=True)
            if cause == name and at_s > 0
        ]
        if spans:
            axes.broken_barh(_joined(spans), (0, 1), facecolors=inks.HELD_BY[name], label=_SHORT[name])
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    if any(bound):
        legend(axes)
    else:
        axes.text(0.5, 0.5, "nothing held requests back", transform=axes.transAxes, ha="center", va="center")


def _joined(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Neighbours become one bar: seams would show."""
    joined: list[tuple[float, float]] = []
    for begin, length in spans:
        if joined and begin <= sum(joined[-1]) + 1e-3 * length:
            joined[-1] = (joined[-1][0], begin + length - joined[-1][0])
        else:
            joined.append((begin, length))
    return joined
