"""What is said at the end of a run: a table, what to know about it, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.report import sentences, words
from engine.report.document import Percentiles, Report
from engine.report.gold import gold_values
from engine.report.saving import saved_words
from engine.report.variables import variable_values
from engine.report.vote_words import escalation_values, votes_values

_LABEL_WIDTH = 12
_LONG_PAUSE_S = 10.0
_MUCH = 1.5  # times the most that was sent in a minute: a limit above it was not reached


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run left what it made.

    :ivar output: ``-`` is standard output; None if there is none.
    :ivar store: None when answers were kept for this process only.
    :ivar report: the page, if there is one.
    :ivar is_earlier_report: an earlier run's, because this one sent nothing.
    :ivar ask_again: the command that asks for failed records again; None for the same one with --retry-failed.
    """

    output: str | None = None
    store: str | None = None
    report: str | None = None
    is_earlier_report: bool = False
    ask_again: str | None = None


class Row(msgspec.Struct, frozen=True):
    """One row: a label, and values that are kept whole when the row is wrapped."""

    label: str
    values: list[str]
    bad: bool = False


def print_final(report: Report, places: Places, *, ways_on: Sequence[str] = (), console: Console | None = None) -> None:
    """Print the end of a run on standard error: in colour on a terminal, as plain text elsewhere.

    :param ways_on: lines that say how a stopped run goes on.
    :param console: of standard error; given in tests.
    """
    console = console or Console(stderr=True, highlight=False)
    if console.file.isatty() and not console.is_dumb_terminal:
        _print_rich(report, places, ways_on, console)
    else:
        click.echo("\n".join(plain_lines(report, places, ways_on)), err=True)


def plain_lines(report: Report, places: Places, ways_on: Sequence[str] = ()) -> Iterator[str]:
    """The end of a run, line by line, without colour and without wrapping."""
    yield headline(report)
    for row in rows(report, places):
        yield f"  {row.label:<{_LABEL_WIDTH}}{' · '.join(row.values)}"
    for warning in warnings(report):
        yield f"annotate: {warning}"
    yield from going_on(report, places, ways_on)


def _print_rich(report: Report, places: Places, ways_on: Sequence[str], console: Console) -> None:
    console.print(Text(headline(report), style="bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows(report, places):
        table.add_row(row.label, Text(" · ".join(row.values), style="red" if row.bad else ""))
    console.print(table)
    for warning in warnings(report):
        console.print(Text(warning, style="yellow"))
    for line in going_on(report, places, ways_on):
        console.print(Text(line, style="bold"), soft_wrap=True)


def headline(report: Report) -> str:
    """The headline, marked when it says nothing about a real model."""
    return sentences.headline(report) + (" (simulated endpoint)" if report.simulated else "")


def rows(report: Report, places: Places) -> Iterator[Row]:
    """The table: what is zero, or not known, and says nothing by being so, is left out."""
    yield Row("records", _records(report))
    for failure in report.failures:
        meaning = sentences.failure(failure.kind)
        said = f"{words.number(failure.count)} {words.visible(failure.kind)}"
        yield Row("failed", [f"{said}: {meaning}" if meaning else said], bad=True)
    if report.requests.total:
        yield Row("requests", _requests(report))
        yield Row("tokens", _tokens(report))
        yield from _speed(report)
        yield from _labels(report)
        yield from ([Row("variables", variable_values(report.variables))] if report.variables else [])
        if report.gold is not None:
            yield Row("gold", gold_values(report.gold), bad=bool(report.gold.moves))
        if report.votes is not None or report.confidence is not None:
            yield Row("confidence" if report.votes is None else "votes", votes_values(report))
    if report.escalation is not None:
        yield Row("escalated", escalation_values(report))
    if report.cost is not None and report.requests.total:
        each = report.cost.per_1000_valid_usd
        price = [] if each is None else [f"{words.usd(each)} for 1,000 valid records"]
        source = [] if report.cost.source is None else [f"prices {sentences.price_source(report)}"]
        whose = [] if report.escalation is None else ["of the first model alone"]
        yield Row("cost", [words.usd(report.cost.usd), *whose, *price, *source])
    elif report.no_cost == "unpriced" and report.requests.total and not report.simulated:
        yield Row("cost", ["unpriced", "--price-input and --price-output, or --prices FILE, give what it takes"])
    if report.all_runs.runs > 1 and report.all_runs.requests > report.requests.total:
        yield Row("all runs", _all_runs(report))
    yield from _where(places)


def _records(report: Report) -> list[str]:
    records = report.records
    counts = {"ok": records.ok, "failed": records.failed}
    more = {
        "not reached": records.pending,
        "stored earlier": records.stored,
        "copied from identical inputs": records.copied,
    }
    return [f"{words.number(count)} {name}" for name, count in (counts | {k: v for k, v in more.items() if v}).items()]


def _requests(report: Report) -> list[str]:
    requests = report.requests
    more = {
        "HTTP 429": requests.http_429,
        "retried": requests.retried,
        "malformed": requests.malformed,
        "split": requests.splits,
    }
    return [words.number(requests.total), *(f"{words.number(count)} {name}" for name, count in more.items() if count)]


def _tokens(report: Report) -> list[str]:
    tokens = report.tokens
    cached = f" ({words.share(tokens.cached, tokens.input)} cached)" if tokens.cached else ""
    cached += f" ({words.share(tokens.written, tokens.input)} written into the cache)" if tokens.written else ""
    thought = f" ({words.share(tokens.reasoning, tokens.output)} reasoning)" if tokens.reasoning else ""
    said = [f"{words.number(tokens.input)} in{cached}", f"{words.number(tokens.output)} out{thought}"]
    if tokens.wasted:
        said.append(f"{words.share(tokens.wasted, tokens.input + tokens.output)} wasted")
    if tokens.estimated:
        said.append(f"{words.share(tokens.estimated, tokens.input + tokens.output)} of it our estimate")
    saved = saved_words(report)
    return said if saved is None else [*said, saved]


def _speed(report: Report) -> Iterator[Row]:
    if report.throughput.records_per_s is not None:
        said = [f"{words.three_digits(report.throughput.records_per_s)} valid records/s{_span(report)}"]
        if report.throughput.steady is not None:
            said.append(f"{words.three_digits(report.throughput.steady.records_per_s)}/s in the steady part")
        if report.limits.bound_by is not None:
            said.append(f"held back by {sentences.BINDING[report.limits.bound_by]}")
        yield Row("throughput", said)
    if report.queue_wait_s.pause > _LONG_PAUSE_S:
        paused = words.duration(report.queue_wait_s.pause)
        yield Row("paused", [f"{paused} in all, after errors or as the endpoint asked"])
    found = list(_found(report))
    if found:
        yield Row("found out", found)
    latencies = {"request": report.latency_s.request, "record": report.latency_s.record}
    said = [f"{name} {_halves(values)}" for name, values in latencies.items() if values.count]
    target, p95_s = report.target, report.latency_s.record.p95
    missed = target is not None and p95_s is not None and p95_s > target.target_s
    if missed and target is not None:
        why = ": a request with one record alone takes longer" if target.is_out_of_reach else ""
        said.append(f"the target of {target.target_s:g} s for 95 % of the records was missed{why}")
    if said:
        yield Row("latency", said, bad=missed)


def _span(report: Report) -> str:
    """What throughput is over, where much of the run lies outside of it."""
    span_s = report.throughput.span_s
    if span_s is None or report.wall_s < 1.2 * span_s + 5.0:
        return ""
    return f" in the {words.seconds(span_s)} from first send to last result, of {words.seconds(report.wall_s)}"


def _found(report: Report) -> Iterator[str]:
    """What nobody had told the run of its endpoint."""
    window, rate = report.window, report.rate
    if window is not None and window.settled is not None and (window.configured is None or window.moves):
        most = report.requests.peak_in_flight
        yield f"{window.settled} in flight at the end" + (f", {most} at the most" if most > window.settled else "")
    if rate is None:
        return
    for unit, per_minute in (("requests", rate.requests_per_minute), ("tokens", rate.tokens_per_minute)):
        reasons = [move.reason for move in rate.moves if move.dimension == unit]
        if per_minute is not None and reasons and per_minute <= _MUCH * _most_a_minute(report, unit):
            yield f"{words.short_number(round(per_minute))} {unit} a minute: {reasons[-1]}"


def _most_a_minute(report: Report, unit: str) -> float:
    """The most that was sent; of a run of less than a minute as if it had gone on so. Limits far above did nothing."""
    peak = (report.limits.rpm if unit == "requests" else report.limits.tpm).peak or 0.0
    return peak * 60.0 / min(60.0, max(1.0, report.throughput.span_s or 60.0))


def _labels(report: Report) -> Iterator[Row]:
    """The size of batches, where the run chose it, and what it did to the labels."""
    size, quality = report.batch_size, report.quality
    if size.configured is None and size.settled is not None:
        moved = [] if not size.moves else [size.moves[-1].reason]
        yield Row("batch size", [f"{size.settled} at the end", *moved])
    if quality is None:
        return
    bad = quality.verdict.kind in ("collapsing", "changes", "worse")
    if quality.guarded:
        share = [] if not quality.share_of_one else [f"the guard cost {quality.share_of_one:.1%} of one record a call"]
        yield Row("labels", [quality.verdict.sentence, *share], bad=bad)
    elif bad:
        yield Row("labels", [quality.verdict.sentence], bad=True)


def _halves(values: Percentiles) -> str:
    return f"p50 {words.seconds(values.p50)}, p95 {words.seconds(values.p95)}"


def _all_runs(report: Report) -> list[str]:
    runs = report.all_runs
    spent = [] if runs.usd is None else [words.usd(runs.usd)]
    if runs.unconfirmed_usd:
        spent.append(f"up to {words.usd(runs.unconfirmed_usd)} more for requests without a reply")
    tokens = words.number(runs.input_tokens + runs.output_tokens)
    whose = [] if report.escalation is None else ["of the first model alone"]
    return [words.plural(runs.runs, "run"), words.plural(runs.requests, "request"), f"{tokens} tokens", *spent, *whose]


def _where(places: Places) -> Iterator[Row]:
    if places.output is not None:
        yield Row("output", ["standard output" if places.output == "-" else places.output])
    if places.store is not None:
        yield Row("store", [places.store])
    if places.report is not None:
        earlier = ["of an earlier run, as this one sent nothing"] if places.is_earlier_report else []
        yield Row("report", [places.report, *earlier])


def warnings(report: Report) -> Iterator[str]:
    """What the user should know, beyond figures."""
    for notice in report.notices:
        yield words.visible(notice)
    records = report.records
    if records.changed:
        lines = ", ".join(map(str, records.changed_lines))
        more = ", ..." if records.changed > len(records.changed_lines) else ""
        have = "has" if records.changed == 1 else "have"
        yield (
            f"{words.plural(records.changed, 'record')} {have} another text than an earlier run saw under the same id, "
            f"and {'was' if records.changed == 1 else 'were'} asked again (line{'s' * (records.changed > 1)} "
            f"{lines}{more}). Ids that are line numbers move when lines are inserted or removed."
        )


def going_on(report: Report, places: Places, ways_on: Sequence[str]) -> Iterator[str]:
    """Why the run stopped and what to do now; how to ask again for what failed."""
    if report.stop is not None:
        kind, message = report.stop.kind, words.visible(report.stop.message)
        yield f"annotate: stopped: {message}" if message == kind else f"annotate: stopped ({kind}): {message}"
        yield from ways_on
    else:
        yield from _failed_again(report, places)


def _failed_again(report: Report, places: Places) -> Iterator[str]:
    """What asking again can mend, and what it cannot."""
    bad = sum(failure.count for failure in report.failures if failure.kind == "bad-record")
    if report.records.failed > bad and places.store is not None:
        yield f"Ask again for what failed: {places.ask_again or 'the same command with --retry-failed'}"
    if bad:
        yield f"{words.plural(bad, 'record')} could not be read: mend the input, and the same command asks for them"
