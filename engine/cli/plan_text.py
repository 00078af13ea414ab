"""A plan on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli.console import one_line
from engine.decide.forecast import Forecast
from engine.report import words
from engine.tuning import sentences
from engine.tuning.document import Plan

_WIDTH = 160
"""Of the table where nobody says how wide a line is: in a file or a pipe."""


def print_plan(plan: Plan, *, console: Console | None = None) -> None:
    """Print it on standard output."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, highlight=False, width=_WIDTH, color_system=None)
    for line in sentences.corpus(plan):
        console.print(Text(one_line(line, most=600)), soft_wrap=True)
    console.print()
    console.print(_table(plan))
    console.print()
    for line in (*sentences.advice(plan), *(f"note: {note}" for note in plan.notes)):
        console.print(Text(one_line(line, most=600)), soft_wrap=True)


def _table(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    sampled = ["±"] if _is_sampled(plan) else []
    thought = ["reasoning"] if _thinks(plan) else []
    tokens = ("input tokens", *sampled, "static", "output", *thought)
    asks = ["asks"] if plan.votes is not None else []
    for name in ("batch", *asks, "requests", *tokens, "input saved", *_more(plan)):
        table.add_column(name, justify="right", no_wrap=True)
    for each in plan.forecasts:
        table.add_row(*_row(plan, each))
    return table


def _more(plan: Plan) -> Iterator[str]:
    if plan.prices is not None:
        yield "cost"
        yield "cached prefix"
        yield "batch API"
    if any(each.time_s is not None for each in plan.forecasts):
        yield "least time"
        yield "bound by"


def _is_sampled(plan: Plan) -> bool:
    return any(each.input_interval is not None for each in plan.forecasts)


def _thinks(plan: Plan) -> bool:
    return any(each.reasoning_tokens for each in plan.forecasts)


def _row(plan: Plan, each: Forecast) -> Iterator[str]:
    yield f"{words.batch_size(each.batch_size, each.mean_size)}{' <' if each.batch_size == plan.worth_it else '  '}"
    if plan.votes is not None:
        yield f"{each.rounds.expected:.2f}"
    yield words.number(each.requests)
    yield words.number(each.input_tokens)
    if _is_sampled(plan):
        interval = each.input_interval
        yield "" if interval is None else words.share((interval.high - interval.low) / 2, each.input_tokens)
    yield words.share(each.static_tokens, each.input_tokens)
    yield words.number(each.output_tokens)
    if _thinks(plan):
        yield words.share(each.reasoning_tokens, each.output_tokens)
    yield words.share(each.saved, 1)
    if plan.prices is not None:
        yield from ("–" if usd is None else words.usd(usd) for usd in (each.usd, each.cached_usd, each.batch_api_usd))
    if any(one.time_s is not None for one in plan.forecasts):
        yield "–" if each.time_s is None else words.duration(each.time_s)
        yield sentences.BOUND.get(each.bound_by or "", "–")
