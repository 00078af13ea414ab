"""What each cell used of its limits, wasted and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.bench.document import Bench, ClosedPoint
from engine.bench.figures import Spread
from engine.bench.page.cells import by_in_flight, in_flight_axis, sizes_of
from engine.bench.sentences import LIMITS, best_point, place, used_at_best
from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, legend, tick
from engine.report.charts.plot import LeftOut, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USED, WASTED, COST = "Use of each limit", "Waste", "Cost"

_ONE_CELL = "there is one cell; the table has its figure"
_BARS = "Bars: least to greatest of the repeats."


def _where(point: ClosedPoint) -> str:
    return place(point.batch_size, point.concurrency)


def used_plot(document: Bench) -> Plot | LeftOut:
    """Used / allowed of each limit, a panel each."""
    used = used_at_best(document)
    if used is None:
        return LeftOut(title=USED, reason="no cell brought a valid record")
    if len(document.closed) == 1:
        return LeftOut(title=USED, reason=_ONE_CELL)
    names = [name for name in LIMITS if any(name in point.summary.utilisation for point in document.closed)]

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_used(figure, document, names)

    return Plot(
        title=USED,
        heading=f"Used by the best cell: {used.replace('%', ' %')}.",
        note="Used / allowed in the steady window; requests in flight: time average.",
        draw=draw,
        heights=(120 + 140 * len(names),),
    )


def _used(name: str) -> Callable[[ClosedPoint], Spread | None]:
    return lambda point: point.summary.utilisation.get(name)


def _draw_used(figure: Figure, document: Bench, names: Sequence[str]) -> None:
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        most = by_in_flight(
            axes, sizes_of(document), _used(name), named=axes is panels[0],
        )  # fmt: skip
        axes.axhline(1.0, color=inks.SOFT, linewidth=1, linestyle="dashed")
        from_zero(axes, max(1.0, most))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        axes.set_ylabel(LIMITS[name].replace("requests in flight", "in flight").replace(" a ", "\na "))
        in_flight_axis(axes, document, label=axes is panels[-1])
    legend(panels[0])


def waste_plot(document: Bench) -> Plot | LeftOut:
    """Tokens without an accepted answer, by cell."""
    found = _by_cell(document, lambda point: point.summary.waste_share)
    if not found:
        return LeftOut(title=WASTED, reason="no reply stated tokens")
    if not any(one.max for _, one in found):
        return LeftOut(title=WASTED, reason="no token was wasted in any cell")
    if len(document.closed) == 1:
        return LeftOut(title=WASTED, reason=_ONE_CELL)
    worst, share = max(found, key=lambda pair: pair[1].median)
    totals = document.totals
    of_all = words.share(totals.wasted_tokens, totals.input_tokens + totals.output_tokens)
    return _half(
        document, WASTED, lambda point: point.summary.waste_share, unit="tokens wasted",
        formatted=lambda value: f"{100 * value:.3g} %", note=f"Tokens of attempts without an accepted answer. {_BARS}",
        heading=f"{of_all} of all tokens were wasted; in a cell at most {words.share(share.median, 1.0)}, with "
        f"{_where(worst)}.",
    )  # fmt: skip


def cost_plot(document: Bench) -> Plot | LeftOut:
    """Dollars for 1,000 valid records, by cell."""
    if document.settings.get("prices") is None:
        return LeftOut(title=COST, reason="prices were not given")
    found = _by_cell(document, lambda point: point.summary.usd_per_1000)
    if not found:
        return LeftOut(title=COST, reason="no cell brought a valid record")
    if len(document.closed) == 1:
        return LeftOut(title=COST, reason=_ONE_CELL)
    best = best_point(document)
    cheapest, least = min(found, key=lambda pair: (pair[1].median, pair[0] is not best))
    heading = f"1,000 valid records cost least with {_where(cheapest)}: {words.usd(least.median)}"
    if best is not None and best is not cheapest and best.summary.usd_per_1000 is not None:
        heading += f"; the best cell took {words.usd(best.summary.usd_per_1000.median)}"
    return _half(
        document, COST, lambda point: point.summary.usd_per_1000, unit="dollars for 1,000 valid records",
        formatted=lambda value: f"${tick(value)}", heading=f"{heading}.", note=f"Wasted tokens are paid too. {_BARS}",
    )  # fmt: skip


def _by_cell(
    document: Bench, value: Callable[[ClosedPoint], Spread | None]
) -> list[tuple[ClosedPoint, Spread]]:  # fmt: skip
    return [(point, found) for point in document.closed if (found := value(point)) is not None]


def _half(
    document: Bench, title: str, value: Callable[[ClosedPoint], Spread | None], *, unit: str,
    formatted: Callable[[float], str], heading: str, note: str,
) -> Plot:  # fmt: skip
    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        from_zero(axes, by_in_flight(axes, sizes_of(document), value))
        axes.yaxis.set_major_formatter(lambda shown, _: formatted(shown))
        axes.set_ylabel(unit)
        in_flight_axis(axes, document)
        legend(axes)

    return Plot(title=title, heading=heading, note=note, draw=draw, heights=(280,))
