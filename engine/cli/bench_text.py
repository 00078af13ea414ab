"""What a bench says on a terminal: what it will send, and what it found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.bench import sentences
from engine.bench.document import Bench, ClosedPoint, OpenPoint
from engine.bench.figures import Spread, Summary
from engine.bench.plan import AtMost, Grid
from engine.cli.console import one_line
from engine.report import words

_WIDTH = 160
"""Of the tables where nobody says how wide a line is: in a file or a pipe."""


def print_plan(
    grid: Grid, at_most: AtMost, *, time_s: float, endpoint: str, model: str, usd: float | None,
    budget_usd: float | None, budget_tokens: int | None, records: int, skipped: int,
) -> None:  # fmt: skip
    """Say, before anything is sent, what will be."""
    for line in plan_lines(
        grid, at_most, time_s=time_s, endpoint=endpoint, model=model, usd=usd, budget_usd=budget_usd,
        budget_tokens=budget_tokens, records=records, skipped=skipped,
    ):  # fmt: skip
        click.echo(line, err=True)


def plan_lines(
    grid: Grid, at_most: AtMost, *, time_s: float, endpoint: str, model: str, usd: float | None,
    budget_usd: float | None, budget_tokens: int | None, records: int, skipped: int,
) -> Iterator[str]:  # fmt: skip
    """The plan, line by line."""
    yield f"bench of {one_line(model)} at {one_line(endpoint)}, within {words.duration(time_s)}"
    yield (
        f"  closed loop   batch sizes {_listed(grid.batch_sizes)} x in flight {_listed(grid.concurrencies)}, "
        f"{words.plural(grid.repeats, 'repeat')}"
    )
    if grid.rates:
        yield f"  open loop     {', '.join(f'{rate:g}' for rate in grid.rates)} records/s"
    elif grid.rate_shares:
        shares = ", ".join(f"{share:.0%}" for share in grid.rate_shares)
        yield f"  open loop     records arriving at {shares} of the best throughput found"
    yield (
        f"  at most       {words.plural(at_most.requests, 'request')}, {words.plural(at_most.records, 'record')} "
        f"({words.number(records)} different ones, round and round), about "
        f"{words.short_number(at_most.input_tokens)} input and {words.short_number(at_most.output_tokens)} output "
        "tokens; retries come on top"
    )
    if skipped:
        yield f"  skipped       {words.plural(skipped, 'record')} that cannot be read"
    if usd is not None:
        held = "" if budget_usd is None else f"; it stops at {words.price(budget_usd)}"
        yield f"  cost          about {words.usd(usd)} at the most{held}"
    if budget_tokens is not None:
        yield f"  budget        it stops at {words.number(budget_tokens)} tokens"


def print_bench(document: Bench, output: Path, *, console: Console | None = None) -> None:
    """Print what was found, on standard output."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, highlight=False, width=_WIDTH, color_system=None)
    console.print(Text(headline(document), style="bold"))
    console.print(closed_table(document))
    if document.open:
        console.print(open_table(document))
    for line in findings(document):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"every figure: {output}"), soft_wrap=True)


def headline(document: Bench) -> str:
    """Whose figures these are, and whether they are all."""
    kind = "SIMULATED endpoint" if document.simulated else "endpoint"
    state = f"PARTIAL ({one_line(document.stopped)})" if document.partial else "complete"
    return f"{one_line(document.model)} at {one_line(document.endpoint)}, {kind}, {state}"


def closed_table(document: Bench) -> Table:
    """The throughput-latency curve."""
    has_target = document.target_p95_s is not None
    has_prices = document.settings.get("prices") is not None
    table = _table(
        "closed loop: median of the repeats, ± half of least to greatest",
        ["batch", "in flight", "records/s", "±", *(["goodput"] if has_target else []), "request p50", "p95", "±"],
        ["p99", "record p95", "used", "tok/rec", "waste", *(["$/1,000"] if has_prices else [])],
        [point.summary for point in document.closed],
    )
    knees = {(knee.batch_size, knee.concurrency) for knee in document.knees}
    for point, following in zip(document.closed, [*document.closed[1:], None], strict=True):
        table.add_row(
            *_closed_row(point, has_target=has_target, has_prices=has_prices, knees=knees),
            end_section=following is not None and following.batch_size != point.batch_size,
        )
    return table


def _table(title: str, first: Sequence[str], others: Sequence[str], cells: Sequence[Summary]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in (*first, *others):
        table.add_column(name, justify="right", no_wrap=True)
    if any(cell.errors for cell in cells):
        table.add_column("errors", overflow="fold")
    return table


def _closed_row(
    point: ClosedPoint, *, has_target: bool, has_prices: bool, knees: set[tuple[int, int]]
) -> list[str]:  # fmt: skip
    found = point.summary
    mark = "<" if (point.batch_size, point.concurrency) in knees else " "
    short = "~" if found.short else ""
    row = [str(point.batch_size), f"{point.concurrency} {mark}"]
    row += [short + _middle(found.records_per_s), _half(found.records_per_s)]
    row += [_middle(found.goodput_per_s)] if has_target else []
    request = found.request_latency_s
    row += [_seconds(request, "p50"), _seconds(request, "p95"), _half(request.get("p95"))]
    row += [
        _seconds(request, "p99"),
        _seconds(found.record_latency_s, "p95"),
        _used(found),
        _middle(found.tokens_per_record),
        "–" if found.waste_share is None else words.share(found.waste_share.median, 1.0),
    ]
    row += ["–" if found.usd_per_1000 is None else words.usd(found.usd_per_1000.median)] if has_prices else []
    return [*row, *_errors(found)]


def open_table(document: Bench) -> Table:
    """What becomes of records that arrive on their own."""
    first = document.open[0]
    has_target = document.target_p95_s is not None
    table = _table(
        f"open loop: records arriving, {first.batch_size} a request, at most {first.concurrency} in flight",
        ["share", "arriving/s", "answered/s", "±", *(["goodput"] if has_target else [])],
        ["effective p50", "p90", "p95", "±", "p99", "max", "unanswered"],
        [point.summary for point in document.open],
    )
    for point in document.open:
        table.add_row(*_open_row(point, has_target=has_target))
    return table


def _open_row(point: OpenPoint, *, has_target: bool) -> list[str]:
    found = point.summary
    effective = found.record_latency_s
    row = ["–" if point.share is None else f"{point.share:.0%}", _middle(point.offered_per_s)]
    row += [_middle(found.records_per_s), _half(found.records_per_s)]
    row += [_middle(found.goodput_per_s)] if has_target else []
    row += [_seconds(effective, rank) for rank in ("p50", "p90", "p95")]
    row += [_half(effective.get("p95")), _seconds(effective, "p99"), _seconds(effective, "max")]
    row += [f"{point.unanswered} of {point.arrivals}" if point.unanswered else "0"]
    return [*row, *_errors(found)]


def findings(document: Bench) -> Iterator[str]:
    """What it comes to, in sentences."""
    best = document.best
    if best is not None:
        yield f"best: {sentences.most(document, best)}"
    if (kept := sentences.within_target(document)) is not None:
        yield kept
    for knee in document.knees:
        yield f"knee (<) at {knee.batch_size} a request: {sentences.of_knee(knee)}"
    if (used := sentences.used_at_best(document)) is not None:
        yield f"used there: {used}"
    if any(point.late for point in document.open):
        yield "some records were handed over late: this client could not keep the rate, and its delay is in the figures"
    yield f"sent: {sentences.sent(document)}"
    planned = document.planned
    if planned.left_out:
        yield f"left out, to end within {words.duration(planned.time_s)}: {'; '.join(planned.left_out)}"
    for note in document.notes:
        yield f"note: {one_line(note)}"
    if any(point.summary.short for point in document.closed):
        yield "~: too few requests ended for a steady window, so ramp-up and end are in the figure"


def _used(found: Summary) -> str:
    return "–" if found.bound is None else f"{found.utilisation[found.bound].median:.0%} {found.bound}"


def _errors(found: Summary) -> list[str]:
    return [", ".join(f"{count} {name}" for name, count in found.errors.items())] if found.errors else []


def _middle(value: Spread | None) -> str:
    return "–" if value is None else words.three_digits(value.median)


def _half(value: Spread | None) -> str:
    """Half the way from the least to the greatest repeat, of the median; nothing where there is one repeat."""
    if value is None or value.min == value.max or not value.median:
        return ""
    return f"{(value.max - value.min) / 2 / value.median:.1%}"


def _seconds(found: dict[str, Spread], rank: str) -> str:
    return words.seconds(found[rank].median) if rank in found else "–"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
