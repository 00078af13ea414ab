"""What tokens and money went into."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from engine.report import words
from engine.report.charts import inks
from engine.report.charts.axes import from_zero, legend, over_time, tick
from engine.report.charts.plot import LeftOut, Plot
from engine.report.document import Report, TokenParts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOKENS = "Tokens"
COST = "Cost over time"

_PARTS = {
    "records": ("records (input)", inks.BLUE),
    "answers": ("answers (output)", inks.GREEN),
    "reasoning": ("reasoning (output)", inks.ORANGE),
    "static": ("static prompt", inks.GREY),
    "cached": ("cached input", inks.TEAL),
    "audits": ("checks of labels", inks.PURPLE),
    "wasted": ("wasted", inks.RED),
}
_NAMED = 0.08  # of the bar, below which a share has no room for its figure


def tokens_plot(report: Report) -> Plot | LeftOut:
    """Where all tokens went, in one bar."""
    parts = report.tokens.parts
    if parts is None:
        return LeftOut(title=TOKENS, reason="no reply carried or cost any")
    total = report.tokens.input + report.tokens.output

    def draw(figure: Figure, narrow: bool) -> None:
        _draw_parts(figure, parts)

    useful = parts.records + parts.answers
    thought = f"{words.share(parts.reasoning, total)} reasoning, " if parts.reasoning else ""
    prompt = parts.static + parts.cached
    heading = (
        f"Of {words.short_number(total)} tokens {words.share(useful, total)} were records and their answers, "
        f"{thought}"
        f"{words.share(prompt, total)} the static prompt and other cached input, "
        f"{words.share(parts.wasted, total)} wasted."
    )
    return Plot(
        title=TOKENS,
        heading=heading,
        note="Wasted: attempts that gave no accepted answer. Cached is the endpoint's count, static our own in "
        "its tokens, as far as it was not cached.",
        draw=draw,
        heights=(190,),
    )


def _draw_parts(figure: Figure, parts: TokenParts) -> None:
    axes = figure.subplots()
    total = sum(getattr(parts, name) for name in _PARTS)
    begin = 0.0
    for name, (label, colour) in _PARTS.items():
        value = getattr(parts, name)
        if not value:
            continue
        axes.barh(0, value, left=begin, height=0.8, color=colour, label=label)
        if value >= _NAMED * total:
            share = f"{100 * value / total:.0f} %"
            axes.text(begin + value / 2, 0, share, ha="center", va="center", color=inks.CARD, fontweight="bold")
        begin += value
    axes.set_xlim(0, total)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: tick(value))
    axes.set_xlabel("tokens, input and output")
    legend(axes)


def cost_plot(report: Report) -> Plot | LeftOut:
    """Dollars spent so far, over time."""
    timeline = None if report.series is None else report.series.timeline
    cost = report.cost
    if cost is None:
        return LeftOut(title=COST, reason="prices were not given")
    if timeline is None or not cost.usd:
        return LeftOut(title=COST, reason="nothing was spent")
    prices = cost.prices
    plain = [total - cached for total, cached in zip(timeline.tokens_input, timeline.tokens_cached, strict=True)]
    layers = [
        ("input", inks.BLUE, _spent(plain, prices["input"])),
        ("cached input", inks.TEAL, _spent(timeline.tokens_cached, prices["cached_input"])),
        ("output", inks.GREEN, _spent(timeline.tokens_output, prices["output"])),
    ]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        unit_s = over_time(axes, timeline.at_s[-1])
        _draw_layers(axes, [0.0, *(at_s / unit_s for at_s in timeline.at_s)], layers, report.settings.get("budget_usd"))

    each = "" if cost.per_1000_valid_usd is None else f", {words.usd(cost.per_1000_valid_usd)} for 1,000 valid records"
    wasted = f"{words.share(cost.wasted_usd, cost.usd)} of it for attempts that gave nothing"
    return Plot(
        title=COST,
        heading=f"{words.usd(cost.usd)} was spent{each}; {wasted}.",
        note="Added up by when requests were sent, at the prices given.",
        draw=draw,
        heights=(300,),
    )


def _spent(tokens: list[int], price: float) -> list[float]:
    return [0.0, *accumulate(count * price / 1e6 for count in tokens)]


def _draw_layers(axes: Axes, at: list[float], layers: list[tuple[str, str, list[float]]], budget: float | None) -> None:
    below = [0.0] * len(at)
    for name, colour, spent in layers:
        above = [low + value for low, value in zip(below, spent, strict=True)]
        if spent[-1]:
            axes.fill_between(at, below, above, color=colour, alpha=0.75, linewidth=0, label=name)
        below = above
    most = below[-1]
    if budget is not None and budget <= 2 * most:
        axes.axhline(budget, color=inks.RED, linestyle="dashed", linewidth=1.2, label="budget")
        most = max(most, budget)
    from_zero(axes, most)
    axes.set_ylabel("US dollars so far")
    legend(axes)
