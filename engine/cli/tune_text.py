"""A search on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.cli.console import one_line
from engine.report import words
from engine.tuning import tune_sentences as sentences
from engine.tuning.tune_document import Row, Tuned

_WIDTH = 180
"""Of the table where nobody says how wide a line is: in a file or a pipe."""

_TITLES = {"batch_size": "batch"}


def print_tuned(tuned: Tuned, *, console: Console | None = None) -> None:
    """Print it on standard output."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, highlight=False, width=_WIDTH, color_system=None)
    console.print(_table(tuned))
    console.print(Text(_legend(tuned)), soft_wrap=True)
    if tuned.variables:
        console.print()
        console.print(_by_variable(tuned))
    console.print()
    lines = (sentences.headline(tuned), *sentences.why(tuned), sentences.spending(tuned))
    for line in (*lines, *(f"note: {note}" for note in tuned.notes)):
        console.print(Text(one_line(line, most=900)), soft_wrap=True)


def _legend(tuned: Tuned) -> str:
    sure = f"{100 * tuned.confidence:.0f} %"
    return (
        f"> chosen; * on the Pareto front of cost and {tuned.metric}; tokens are per record; intervals {sure}; "
        "records: as far as a setting was asked before it was clear that it need not be. Stopped: no gain, beside a "
        "cheaper one that is as good; worse, by more than the margin; broken, replies make no sense"
    )


def _table(tuned: Tuned) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", no_wrap=True)
    for dimension in tuned.dimensions or ["batch_size"]:
        table.add_column(_TITLES.get(dimension, dimension.removeprefix("body.")), justify="right", no_wrap=True)
    for name in ("records", tuned.metric, "interval", "input", "cached", "output", *_money(tuned)):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("request p50", "parse errors", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("stopped", no_wrap=True)
    for place, row in enumerate(tuned.rows):
        table.add_row(*_cells(tuned, place, row))
    return table


def _by_variable(tuned: Tuned) -> Table:
    """The same settings, variable by variable."""
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left",
        title=f"accuracy of each variable, with its interval{tuned.beside}",
    )  # fmt: skip
    table.add_column("", no_wrap=True)
    for dimension in tuned.dimensions or ["batch_size"]:
        table.add_column(_TITLES.get(dimension, dimension.removeprefix("body.")), justify="right", no_wrap=True)
    for name in tuned.variables:
        table.add_column(one_line(name, most=40), justify="right", no_wrap=True)
    for place, row in enumerate(tuned.rows):
        if row.variables:
            table.add_row(*_head(tuned, place, row), *map(sentences.variable, row.variables))
    return table


def _money(tuned: Tuned) -> list[str]:
    return ["$/1,000"] if any(row.usd_per_1000 is not None for row in tuned.rows) else []


def _head(tuned: Tuned, place: int, row: Row) -> Iterator[str]:
    yield f"{'>' if place == tuned.chosen else ' '}{'*' if row.on_front else ' '}"
    for dimension in tuned.dimensions or ["batch_size"]:
        yield one_line(sentences.cell(row, dimension), most=30)


def _cells(tuned: Tuned, place: int, row: Row) -> Iterator[str]:
    yield from _head(tuned, place, row)
    yield words.number(row.records)
    if not row.records:
        yield from ("–",) * (8 + len(_money(tuned)))
        yield sentences.ended(row)
        return
    yield f"{row.score:.3f}"
    yield f"{row.interval.low:.3f} to {row.interval.high:.3f}"
    yield from (f"{value:,.0f}" for value in (row.input_per_record, row.cached_per_record, row.output_per_record))
    if _money(tuned):
        yield "–" if row.usd_per_1000 is None else words.usd(row.usd_per_1000)
    yield words.seconds(row.latency_s)
    yield words.number(row.malformed)
    yield words.number(row.failed)
    yield sentences.ended(row)
