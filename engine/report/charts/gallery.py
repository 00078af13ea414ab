"""All plots of a report, in the order in which they are shown, and the page's markup for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from markupsafe import Markup

from engine.report.charts.control import control_plot
from engine.report.charts.gold import gold_plot
from engine.report.charts.latency import latency_plot, waits_plot
from engine.report.charts.places import positions_plot
from engine.report.charts.plot import HALF, NARROW, WIDE, LeftOut, Plot, Step
from engine.report.charts.quality import quality_plot
from engine.report.charts.sizes import sizes_plot
from engine.report.charts.throughput import against_latency_plot, throughput_plot
from engine.report.charts.tokens import cost_plot, tokens_plot
from engine.report.charts.trouble import causes_plot, when_plot
from engine.report.document import Report

LIBRARY = "matplotlib"

PLOTS: tuple[Callable[[Report], Plot | LeftOut], ...] = (
    throughput_plot,
    control_plot,
    when_plot,
    latency_plot,
    waits_plot,
    against_latency_plot,
    sizes_plot,
    tokens_plot,
    causes_plot,
    positions_plot,
    quality_plot,
    cost_plot,
)

_UNITS = re.compile(r"(\d) (?=(?:%|ms|s|min|h|d)\b|%)")


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A plot in the page.

    :ivar wide: None where nothing could be drawn. `narrow` is for small screens; None where `wide` serves both.
    """

    title: str
    heading: str
    note: str
    is_wide: bool
    wide: Markup | None
    narrow: Markup | None
    steps: list[Step]


class Gallery(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn, and what is not.

    :ivar missing: the library that is not installed, so that only the sentences are there; None when all is well.
    """

    pictures: list[Picture]
    left_out: list[LeftOut]
    missing: str | None


def hang(report: Report) -> Gallery:
    """Draw everything that this run has something to show in."""
    plots = PLOTS if report.gold is None else (*PLOTS, gold_plot)
    return gallery_of([plot(report) for plot in plots])


def gallery_of(plots: Sequence[Plot | LeftOut]) -> Gallery:
    """Draw what there is to draw, in this order."""
    painter = _painter()
    return Gallery(
        pictures=[_picture(plot, painter) for plot in plots if isinstance(plot, Plot)],
        left_out=[plot for plot in plots if isinstance(plot, LeftOut)],
        missing=None if painter else LIBRARY,
    )


def _painter() -> Callable[..., str] | None:
    """What draws; None where the library is not installed, or not in working order."""
    try:
        from engine.report.charts.canvas import svg  # noqa: PLC0415 - a third of a second, for reports only
    except ImportError:
        return None
    return svg


def together(text: str) -> str:
    """A sentence whose figures stay on one line with their units."""
    return _UNITS.sub("\\1\u00a0", text)


def _picture(plot: Plot, painter: Callable[..., str] | None) -> Picture:
    wide = narrow = None
    if painter is not None:

        def drawn(**how: Any) -> Markup:
            # Shapes and escaped text of a known kind only: `svg.clean` has made it so.
            return Markup(painter(plot.draw, label=plot.heading, **how))  # noqa: S704

        wide = drawn(width=WIDE if plot.is_wide else HALF, height=plot.heights[0], narrow=not plot.is_wide)
        narrow = drawn(width=NARROW, height=plot.heights[1], narrow=True) if plot.is_wide else None
    return Picture(
        title=plot.title, heading=together(plot.heading), note=together(plot.note), is_wide=plot.is_wide,
        wide=wide, narrow=narrow, steps=plot.steps,
    )  # fmt: skip
