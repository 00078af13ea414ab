"""Attempts that did not answer every record: why, when, and what was done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, legend, over_time
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Report
from engine.report.series import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAUSES = "Retries and splits by cause"
WHEN = "Trouble over time"

_REMEDIES = {
    "sent again": inks.BLUE, "halved": inks.ORANGE, "asked again": inks.TEAL, "given up": inks.RED,
    "ended": inks.YELLOW, "only compared": inks.PURPLE,
}  # fmt: skip
_SHOWN = 8
_FEWEST_WHEN = 10


def causes_plot(report: Report) -> Plot | LeftOut:
    """A bar for each cause, coloured by what was done."""
    causes = report.requests.causes
    if not causes:
        return LeftOut(title=CAUSES, reason="every attempt answered all that it was asked")
    shown = list(causes)[:_SHOWN]
    followed = report.requests.followed

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_causes(figure, {name: causes[name] for name in shown}, followed)

    total = sum(causes.values())
    heading = (
        f"{words.number(total)} of {words.plural(report.requests.total, 'attempt')} "
        f"({words.share(total, report.requests.total)}) did not answer all that they were asked, most often because of "
        f"“{words.visible(shown[0])}” ({words.number(causes[shown[0]])}); {words.number(report.requests.retried)} were "
        f"sent again and {words.number(report.requests.splits)} halved."
    )
    return Plot(
        title=CAUSES,
        heading=heading,
        note="The table on requests says what each cause means."
        + (f" The {_SHOWN} commonest of {len(causes)}." if len(causes) > _SHOWN else ""),
        draw=draw,
        heights=(110 + 30 * len(shown),),
    )


def _draw_causes(figure: Figure, causes: dict[str, int], followed: dict[str, dict[str, int]]) -> None:
    axes = figure.subplots()
    names = list(causes)
    left = [0] * len(names)
    for remedy, colour in _REMEDIES.items():
        widths = [followed.get(name, {}).get(remedy, 0) for name in names]
        if sum(widths):
            axes.barh(range(len(names)), widths, left=left, height=0.7, color=colour, label=remedy)
            left = [sum(pair) for pair in zip(left, widths, strict=True)]
    rest = [max(0, causes[name] - done) for name, done in zip(names, left, strict=True)]
    if sum(rest):
        axes.barh(range(len(names)), rest, left=left, height=0.7, color=inks.GREY)
    most = max(causes.values())
    for place, name in enumerate(names):
        axes.text(causes[name] + 0.015 * most, place, words.number(causes[name]), va="center", fontsize=12)
    axes.set_xlim(0, 1.14 * most)
    axes.set_yticks(range(len(names)), [words.visible(name)[:24] for name in names])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.set_xlabel("attempts")
    if followed:
        legend(axes)


def when_plot(report: Report) -> Plot | LeftOut:
    """The commonest causes, by when the attempts ended."""
    timeline = None if report.series is None else report.series.timeline
    total = 0 if timeline is None else sum(map(sum, timeline.causes.values()))
    if timeline is None or total < _FEWEST_WHEN:
        return LeftOut(title=WHEN, reason="too few attempts went wrong to tell when")
    slices = [sum(column) for column in zip(*timeline.causes.values(), strict=True)]
    worst = max(range(len(slices)), key=lambda slot: slices[slot])
    share = words.share(slices[worst], timeline.ended[worst])
    heading = (
        f"Trouble was worst around {words.duration(timeline.at_s[worst] - timeline.bin_s / 2)} into the run, when "
        f"{words.number(slices[worst])} of {words.number(timeline.ended[worst])} attempts ({share}) did not answer all."
    )

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_when(figure, timeline)

    return Plot(
        title=WHEN,
        heading=heading,
        note=f"Each step is {words.seconds(timeline.bin_s)}; an attempt is counted when it ended.",
        draw=draw,
        heights=(230, 250),
    )


def _draw_when(figure: Figure, timeline: Timeline) -> None:
    axes = figure.subplots()
    unit_s = over_time(axes, timeline.at_s[-1])
    edges = [0.0, *(at_s / unit_s for at_s in timeline.at_s)]
    most = len(inks.CYCLE)
    groups = {words.visible(name)[:24]: counts for name, counts in list(timeline.causes.items())[: most - 1]}
    others = list(timeline.causes.values())[most - 1 :]
    if others:
        groups["others"] = [sum(column) for column in zip(*others, strict=True)]
    below = [0] * len(timeline.at_s)
    for (name, counts), colour in zip(groups.items(), inks.CYCLE, strict=False):
        above = [sum(pair) for pair in zip(below, counts, strict=True)]
        axes.stairs(above, edges, baseline=below, fill=True, color=colour, label=name)
        below = above
    from_zero(axes, max(below), whole=True)
    axes.set_ylabel("attempts")
    legend(axes)
