"""What the batch size did to the labels, as far as it could be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.decide.quality_values import CurveRow
from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import legend
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Quality, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AGREEMENT = "Labels by batch size"


def quality_plot(report: Report) -> Plot | LeftOut:
    """Agreement with lone asks, with its interval; accuracy where there is gold."""
    quality = report.quality
    if quality is None:
        return LeftOut(title=AGREEMENT, reason="the guard of the labels was off, or nothing was sent")
    rows = [row for row in quality.curve if row.verdict.agreement is not None or row.accuracy is not None]
    rows += [row for row in quality.curve if row not in rows and row.reordered_agreement is not None]
    rows.sort(key=lambda row: row.verdict.size)
    if not rows:
        return LeftOut(
            title=AGREEMENT, reason="no record was asked a second time, and there was no gold to compare with"
        )

    def draw(figure: Figure, narrow: bool) -> None:
        _draw(figure, rows, quality)

    return Plot(
        title=AGREEMENT,
        heading=_said(quality, rows),
        note="Bars: intervals. Same as alone: the answer in a batch equals the one to a lone ask. Below the sizes: the "
        "verdict on each.",
        draw=draw,
        heights=(300,),
    )


def _said(quality: Quality, rows: list[CurveRow]) -> str:
    """The verdict where the run ended; where nothing was compared there, the one on the largest size that was."""
    if quality.verdict.size in {row.verdict.size for row in rows} or quality.verdict.kind != "unknown":
        return words.visible(quality.verdict.sentence)
    ended = f"The run ended at {words.plural(quality.verdict.size, 'record')} a request."
    return f"{words.visible(rows[-1].verdict.sentence)} {ended}"


def _draw(figure: Figure, rows: list[CurveRow], quality: Quality) -> None:
    axes = figure.subplots()
    _points(axes, [(place, row.verdict.agreement, row.verdict.low, row.verdict.high) for place, row in enumerate(rows)],
            inks.BLUE, "o", "same as alone", -0.08)  # fmt: skip
    reordered = [(place, row.reordered_agreement, None, None) for place, row in enumerate(rows)]
    _points(axes, reordered, inks.TEAL, "D", "same re-ordered", 0.08)
    gold = [(place, row.accuracy, row.accuracy_low, row.accuracy_high) for place, row in enumerate(rows)]
    _points(axes, gold, inks.YELLOW, "s", "right by gold", 0.2)
    noise = quality.verdict.noise
    if noise is not None:
        axes.axhline(1 - noise, color=inks.SOFT, linestyle="dashed", linewidth=1.2, label="same asked twice")
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel("share of records")
    axes.set_xlim(-0.5, len(rows) - 0.5)
    verdicts = len(rows) <= 5
    axes.set_xticks(
        range(len(rows)),
        [f"{row.verdict.size}\n{row.verdict.kind}" if verdicts else str(row.verdict.size) for row in rows],
    )
    axes.set_xlabel("records in a request")
    legend(axes)


def _points(
    axes: Axes, points: Sequence[tuple[int, float | None, float | None, float | None]], colour: str, marker: str,
    name: str, aside: float,
) -> None:  # fmt: skip
    known = [(place + aside, value, low, high) for place, value, low, high in points if value is not None]
    for place, _, low, high in known:
        if low is not None and high is not None:
            axes.vlines(place, low, high, colors=colour, linewidth=2)
    if known:
        axes.plot(
            [place for place, *_ in known], [value for _, value, *_ in known], marker, color=colour, markersize=7,
            label=name,
        )  # fmt: skip
