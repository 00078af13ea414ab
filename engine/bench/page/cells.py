"""What the plots of cells share: a colour and a mark a batch size, bars over the repeats, requests in flight below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from engine.bench.document import Bench, ClosedPoint
from engine.bench.figures import Spread
from engine.report.charts import inks
from engine.report.charts.axes import seconds_tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import LogLocator

_COLOURS = (inks.BLUE, inks.ORANGE, inks.TEAL, inks.PURPLE, inks.GREEN, inks.YELLOW, inks.RED, inks.GREY)
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "p")
_APART = 0.13
"""Doublings of the requests in flight between two batch sizes, so that equal values do not hide each other."""
_FAR = 12.0
"""Slowest / quickest latency, from where on the quick ones would lie flat on the axis."""
TARGET = "target of p95"
_TICK_APART = 0.45
"""Doublings between two numbers below an axis, or they touch on a telephone."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One batch size as it is drawn."""

    batch_size: int
    colour: str
    mark: str
    points: list[ClosedPoint]

    @property
    def name(self) -> str:
        """As in a legend."""
        return f"{self.batch_size} a request"


def sizes_of(document: Bench) -> list[Size]:
    """The batch sizes, each with its cells in order."""
    found = sorted({point.batch_size for point in document.closed})
    return [
        Size(
            batch_size=size,
            colour=_COLOURS[place % len(_COLOURS)],
            mark=_MARKS[(place + place // len(_MARKS)) % len(_MARKS)],
            points=sorted(
                (point for point in document.closed if point.batch_size == size), key=lambda point: point.concurrency
            ),
        )
        for place, size in enumerate(found)
    ]


def reach(found: Sequence[Spread]) -> Any:
    """Medians to least and greatest, as matplotlib wants its bars."""
    return [[one.median - one.min for one in found], [one.max - one.median for one in found]]


def by_in_flight(
    axes: Axes, sizes: Sequence[Size], value: Callable[[ClosedPoint], Spread | None], *, dashed: bool = False,
    named: bool = True,
) -> float:  # fmt: skip
    """One line a batch size; returns the greatest value drawn."""
    most = 0.0
    for place, size in enumerate(sizes):
        aside = 2 ** (_APART * (place - (len(sizes) - 1) / 2))
        drawn = [(point.concurrency * aside, found) for point in size.points if (found := value(point)) is not None]
        if not drawn:
            continue
        spreads = [one for _, one in drawn]
        axes.errorbar(
            [at for at, _ in drawn], [one.median for one in spreads], yerr=reach(spreads), color=size.colour,
            marker=size.mark, markersize=5, linewidth=1.4 if dashed else 1.8, elinewidth=1.2, capsize=2.5,
            linestyle=(0, (3, 2)) if dashed else "solid", label=size.name if named else None,
            markerfacecolor=inks.CARD if dashed else size.colour,
        )  # fmt: skip
        most = max(most, *(one.max for one in spreads))
    return most


def in_flight_axis(axes: Axes, document: Bench, *, label: bool = True) -> None:
    """Make the x axis the requests in flight, by doublings, with the numbers that were tried."""
    tried = sorted({point.concurrency for point in document.closed})
    axes.set_xscale("log", base=2)
    axes.set_xlim(tried[0] / 1.3, tried[-1] * 1.3)
    shown = [tried[-1]]
    for number in reversed(tried[:-1]):
        if shown[-1] >= number * 2**_TICK_APART:
            shown.append(number)
    axes.set_xticks(shown, [str(number) for number in shown])
    axes.minorticks_off()
    if label:
        axes.set_xlabel("requests in flight")


def seconds_axis(axes: Axes, least_s: float, most_s: float) -> None:
    """Make the y axis one of latencies: from 0, or by powers of ten where the slowest are far from the quickest."""
    if least_s > 0 and most_s > _FAR * least_s:
        axes.set_yscale("log")
        axes.set_ylim(least_s / 1.4, most_s * 1.3)
        if most_s < 100 * least_s:
            cast("LogLocator", axes.yaxis.get_major_locator()).set_params(subs=(1, 2, 5))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_ylim(0, 1.08 * most_s if most_s > 0 else 1.0)
        axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: seconds_tick(value) if value else "0")


def target_line(axes: Axes, document: Bench) -> None:
    """The latency target, across a y axis of latencies that reaches it."""
    target_s = document.target_p95_s
    if target_s is not None:
        axes.axhline(target_s, color=inks.RED, linewidth=1.3, linestyle=(0, (5, 2)), label=TARGET)
