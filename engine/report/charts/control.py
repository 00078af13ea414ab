"""How the run was steered: what held requests back, and the window, the batch size and the rates over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, marked, over_time
from engine.report.charts.bound import draw_band
from engine.report.charts.moves import SIZE_STEPS, numbers, steps_of
from engine.report.charts.plot import LeftOut, Plot, Step
from engine.report.document import Report
from engine.report.sentences import BINDING
from engine.report.series import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTROL = "What bound, and how the run was steered"
_MINUTE_S = 60.0
_FEWEST = 10  # requests: a run of a few has no course

Curve = list[tuple[float, float]]
Panel = tuple[float, Callable[["Axes", float, bool], None]]


def control_plot(report: Report) -> Plot | LeftOut:
    """Panels over the same time, one below the other."""
    timeline = None if report.series is None else report.series.timeline
    if timeline is None or sum(timeline.sent) < _FEWEST:
        return LeftOut(title=CONTROL, reason="too little was sent for anything to move")
    steps = steps_of(report)
    panels = _panels(report, timeline, steps)

    def draw(figure: Figure, narrow: bool) -> None:
        drawn = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [share for share, _ in panels]}
        )[:, 0]
        for axes, (_, paint) in zip(drawn, panels, strict=True):
            unit_s = over_time(axes, timeline.at_s[-1], label=axes is drawn[-1])
            paint(axes, unit_s, narrow)
        figure.align_ylabels(list(drawn))

    height = 60 + round(sum(120 * share + 26 for share, _ in panels))
    return Plot(
        title=CONTROL,
        heading=_steered(report),
        note="Solid lines: what was allowed or aimed at. Filled: what was done. Numbers: moves, explained below.",
        draw=draw,
        heights=(height, height),
        steps=steps,
    )


def _panels(report: Report, timeline: Timeline, steps: list[Step]) -> list[Panel]:
    waits = None if report.series is None else report.series.waits
    panels: list[Panel] = []
    if waits is not None:
        panels.append((0.22, lambda axes, unit_s, narrow: draw_band(axes, waits, unit_s)))

    def window(axes: Axes, unit_s: float, narrow: bool) -> None:
        allowed = _window_curve(report, timeline.at_s[-1])
        _draw_used(axes, timeline, timeline.in_flight, allowed, unit_s, inks.ORANGE)
        axes.set_ylabel("in flight")
        moves = report.window.moves if report.window is not None else []
        marked(axes, numbers(steps, unit_s, {move.at_s for move in moves}, "window"), narrow)

    def size(axes: Axes, unit_s: float, narrow: bool) -> None:
        sizes = [value or 0.0 for value in timeline.batch_size]
        _draw_used(axes, timeline, sizes, _size_curve(report, timeline.at_s[-1]), unit_s, inks.GREEN)
        axes.set_ylabel("records\na request")
        marked(axes, numbers(steps, unit_s, None, SIZE_STEPS), narrow)

    panels += [(1.0, window), (1.0, size)]
    return panels + _rate_panels(report, timeline, steps)


def _rate_panels(report: Report, timeline: Timeline, steps: list[Step]) -> list[Panel]:
    tokens = [sum(pair) for pair in zip(timeline.tokens_input, timeline.tokens_output, strict=True)]
    panels: list[Panel] = []
    given: dict[str, float | None] = report.settings.get("limits", {})
    for kind, amounts, option, colour in (
        ("requests", timeline.sent, "requests_per_minute", inks.BLUE),
        ("tokens", tokens, "tokens_per_minute", inks.PURPLE),
        ("input tokens", timeline.tokens_input, "input_tokens_per_minute", inks.PURPLE),
        ("output tokens", timeline.tokens_output, "output_tokens_per_minute", inks.PURPLE),
    ):
        curve = rate_curve(report, kind, given.get(option), timeline.at_s[-1])
        if curve:
            panels.append((1.0, _rate_panel(timeline, amounts, curve, colour, steps, kind)))
    return panels


def _rate_panel(
    timeline: Timeline, amounts: Sequence[int], curve: Curve, colour: str, steps: list[Step], kind: str
) -> Callable[[Axes, float, bool], None]:
    def paint(axes: Axes, unit_s: float, narrow: bool) -> None:
        _draw_used(axes, timeline, last_minute(amounts, timeline.bin_s), curve, unit_s, colour)
        axes.set_ylabel(f"{kind}\nin the last min")
        marked(axes, numbers(steps, unit_s, None, kind), narrow)

    return paint


def last_minute(amounts: Sequence[int], bin_s: float) -> list[float]:
    """For each slice, the amount in the 60 s that end with it; where slices are longer, its amount a minute.

    That is what a limit a minute is about, and at no time above it where the limit is kept.
    """
    if bin_s >= _MINUTE_S:
        return [amount * _MINUTE_S / bin_s for amount in amounts]
    back = int(_MINUTE_S / bin_s)
    sums, running = [], 0
    for place, amount in enumerate(amounts):
        running += amount - (amounts[place - back] if place >= back else 0)
        sums.append(float(running))
    return sums


def _draw_used(
    axes: Axes, timeline: Timeline, used: Sequence[float], allowed: Curve, unit_s: float, colour: str
) -> None:
    edges = [0.0, *(at_s / unit_s for at_s in timeline.at_s)]
    axes.stairs(used, edges, fill=True, color=colour, alpha=0.4)
    if allowed:
        axes.step([at_s / unit_s for at_s, _ in allowed], [value for _, value in allowed], where="post", color=colour)
    from_zero(axes, max([*used, *(value for _, value in allowed)]))
    axes.locator_params(axis="y", nbins=4)


# -- curves ----------------------------------------------------------------------------------------------------------


def _window_curve(report: Report, until_s: float) -> Curve:
    window = report.window
    if window is None or window.settled is None:
        return []
    return stairs([(move.at_s, move.old, move.new) for move in window.moves], float(window.settled), until_s)


def _size_curve(report: Report, until_s: float) -> Curve:
    size = report.batch_size
    if size.settled is None:
        return []
    return stairs([(move.at_s, move.old, move.new) for move in size.moves], float(size.settled), until_s)


def rate_curve(report: Report, kind: str, given: float | None, until_s: float) -> Curve:
    """The limit over time: as given, as found, or the lower of both; empty where there is none."""
    moves = [] if report.rate is None else [move for move in report.rate.moves if move.dimension == kind]
    if not moves:
        return [] if given is None else [(0.0, given), (until_s, given)]
    found = None
    if report.rate is not None:
        found = report.rate.requests_per_minute if kind == "requests" else report.rate.tokens_per_minute
    lower = [(move.at_s, _lower(move.old, given), _lower(move.new, given)) for move in moves]
    return stairs(lower, _lower(found, given), until_s)


def _lower(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return min(known) if known else None


def stairs(moves: Sequence[tuple[float, float | None, float | None]], settled: float | None, until_s: float) -> Curve:
    """Corners of a value that moved at some times, from the first to the end; left out while it was not known."""
    if not moves:
        return [] if settled is None else [(0.0, settled), (until_s, settled)]
    levels = [(0.0, moves[0][1]), *((at_s, new) for at_s, _, new in moves), (until_s, settled)]
    return [(at_s, level) for at_s, level in levels if level is not None]


def _steered(report: Report) -> str:
    """What bound, and from where to where things went."""
    bound = report.limits.bound_by
    said = [f"What held requests back most: {BINDING[bound]}" if bound else "No limit held requests back for long"]
    size = report.batch_size
    if size.moves:
        said.append(f"the batch size went from {size.moves[0].old} to {size.settled}")
    elif size.settled is not None:
        said.append(f"the batch size stayed at {size.settled}")
    window = report.window
    if window is not None and window.moves:
        most = max(move.new for move in window.moves)
        over = f", {most} at the most" if window.settled is not None and most > window.settled else ""
        said.append(f"the window from {window.moves[0].old} to {window.settled} requests in flight{over}")
    found = () if report.rate is None else (
        ("requests", report.rate.requests_per_minute), ("tokens", report.rate.tokens_per_minute)
    )  # fmt: skip
    paced = " and ".join(f"{words.number(value)} {kind}" for kind, value in found if value is not None)
    if paced:
        said.append(f"at the end refusals or headers had set the pace at {paced} a minute")
    return "; ".join(said) + "."
