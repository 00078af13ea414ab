"""What several plots need of their axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.report import words
from engine.report.charts import inks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BESIDE, _A_LETTER, _A_KEY = 58, 7.2, 36  # pixels: what is left of the axes, and in a legend
_UNITS = (
    (3 * 86_400.0, 86_400.0, "days"),
    (3 * 3600.0, 3600.0, "hours"),
    (180.0, 60.0, "minutes"),
    (0.0, 1.0, "seconds"),
)


def time_unit(span_s: float) -> tuple[float, str]:
    """Seconds in the unit that suits a run of this length, and its name."""
    return next((unit_s, name) for least_s, unit_s, name in _UNITS if span_s >= least_s)


def over_time(axes: Axes, span_s: float, *, label: bool = True) -> float:
    """Make the x axis the time of the run; returns what seconds are to be divided by."""
    unit_s, name = time_unit(span_s)
    axes.set_xlim(0, span_s / unit_s)
    axes.locator_params(axis="x", nbins=8)
    if label:
        axes.set_xlabel(f"{name} since the first request")
    return unit_s


def from_zero(axes: Axes, most: float, *, whole: bool = False) -> None:
    """Make the y axis begin at 0 and leave some room above the highest value; few, short numbers on it."""
    axes.set_ylim(0, 1.08 * most if most > 0 else 1.0)
    axes.locator_params(axis="y", nbins=5, integer=whole)
    axes.yaxis.set_major_formatter(lambda value, _: tick(value))


def tick(value: float) -> str:
    """A number on an axis: ``0``, ``0.25``, ``40``, ``12.5k``."""
    if abs(value) >= 10_000:
        return words.short_number(value).replace(".00", "").replace(".0", "")
    if abs(value) >= 1000 or value == round(value):
        return f"{value:,.10g}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.9f}".rstrip("0")


def seconds_tick(value: float, _: Any = None) -> str:
    """A latency on a logarithmic axis: ``5 ms``, ``2 s``, ``3 min``."""
    if value < 0.9995:
        return f"{1000 * value:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def legend(axes: Axes, *, last: Sequence[str] = ()) -> None:
    """A legend above the plot, where it covers nothing, in as many columns as there is room for.

    :param last: labels that stand behind the others, in this order; the library's own order has lines first.
    """
    places = {label: place for place, label in enumerate(last, start=1)}
    entries = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: places.get(entry[1], 0))
    labels = [label for _, label in entries]
    figure = axes.get_figure(root=True)
    if not labels or figure is None:
        return
    room = 72 * figure.get_figwidth() - _BESIDE
    columns = max(1, min(len(labels), int(room / (_A_LETTER * max(map(len, labels)) + _A_KEY))))
    axes.legend([handle for handle, _ in entries], labels, loc="lower left", bbox_to_anchor=(0.0, 1.01), ncols=columns)


def marked(axes: Axes, moments: Sequence[tuple[float, str]], narrow: bool) -> None:
    """Numbers of moves above the plot, at their times; neighbours share a label (``3–7``)."""
    begin, end = axes.get_xlim()
    near = (0.15 if narrow else 0.04) * (end - begin)
    groups: list[list[tuple[float, str]]] = []
    for at, name in moments:
        if groups and at - groups[-1][0][0] < near:
            groups[-1].append((at, name))
        else:
            groups.append([(at, name)])
    for group in groups:
        at = group[0][0]
        name = (", " if len(group) == 2 else "–").join(dict.fromkeys((group[0][1], group[-1][1])))
        axes.axvline(at, color=inks.SOFT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            name, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=11.5, fontweight="bold", color=inks.SOFT,
        )  # fmt: skip
