"""`annotate show` for people: the words and the layout."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.adapters.stored import StoredRecord
from engine.cli.console import one_line, plain
from engine.report import sentences
from engine.run.inspection import CallStory, Overview, RecordStory, RunLine, Sampled, record_id

_RAW_SHOWN = 1_000
_WIDTH = 11


def overview(view: Overview) -> str:
    """The store as a whole."""
    lines = [
        _line("store", f"{view.store}, {_bytes(view.bytes)}"),
        _line("task", one_line(view.instructions, most=100)),
        *(_line("", _variable(name, labels)) for name, labels in view.variables.items() if name or labels),
        _line("model", one_line(view.model)),
        _line("input", one_line(view.input or "of a program")),
        _line("records", _records(view)),
        *(_line("", said) for said in _of_second(view)),
        _line("answers", _answers(view)),
        _line("requests", _requests(view)),
        *(_line("", meaning) for meaning in _meanings(view)),
        _line("tokens", _tokens(view)),
        *(_line("", maybe) for maybe in _unconfirmed(view)),
    ]
    several = len({run.model for run in view.runs}) > 1
    runs = [_line("" if number else "runs", _run(run, with_model=several)) for number, run in enumerate(view.runs)]
    return "\n".join([*lines, *runs])


def _line(name: str, content: str) -> str:
    return f"{name:<{_WIDTH}}{content}".rstrip()


def _variable(name: str, labels: list[str]) -> str:
    listed = one_line(", ".join(labels), most=100)
    return f"{plain(name)}: {listed}" if name and labels else plain(name) or listed


def _records(view: Overview) -> str:
    records = view.records
    if records is None:
        return "the input is not known"
    parts = [f"{records.total:,} in the input", f"{records.ok:,} ok", f"{records.failed:,} failed"]
    if records.unusable:
        parts.append(f"{records.unusable:,} unusable")
    if records.pending:
        parts.append(f"{records.pending:,} not done yet")
    return ", ".join(parts)


def _of_second(view: Overview) -> list[str]:
    count = view.failed_by_second
    return [f"{count:,} failed at the second model; the first one's answers stand (see --failed)"] if count else []


def _answers(view: Overview) -> str:
    parts = []
    for answer in view.answers:
        copied = f" ({answer.copied:,} taken from identical inputs)" if answer.copied else ""
        marked = f" ({answer.redo:,} to be asked again)" if answer.redo else ""
        name = "ok" if answer.kind is None else f"failed: {plain(answer.kind)}"
        parts.append(f"{answer.count:,} {name}{copied}{marked}")
    return ", ".join(parts) or "none yet"


def _requests(view: Overview) -> str:
    total = sum(one.requests for one in view.requests)
    kinds = ", ".join(f"{one.requests:,} {plain(one.outcome)}" for one in view.requests)
    audits = sum(one.audits for one in view.requests)
    compared = f"; {audits:,} of them only to compare labels" if audits else ""
    return f"{total:,}: {kinds}{compared}" if total else "none yet"


_ENDS = {
    "in-flight": "sent, and no reply yet",
    "killed": "in flight when a process was killed; whether they were answered is not known",
    "abandoned": "given up by a stop at once (Ctrl-C twice); their replies were not waited for",
}


def _meanings(view: Overview) -> list[str]:
    """What the ends of requests mean, where there are words for it."""
    meanings = {one.outcome: _ENDS.get(one.outcome) or sentences.cause(one.outcome) for one in view.requests}
    return [f"{name}: {meaning}" for name, meaning in meanings.items() if meaning]


def _tokens(view: Overview) -> str:
    sums = {
        name: sum(getattr(one, f"{name}_tokens") for one in view.requests)
        for name in ("input", "cached", "output", "wasted", "reasoning")
    }
    thought = f" ({sums['reasoning']:,} of them reasoning)" if sums["reasoning"] else ""
    said = f"{sums['input']:,} input ({sums['cached']:,} of them cached), {sums['output']:,} output{thought}"
    return f"{said}; {sums['wasted']:,} wasted"


def _unconfirmed(view: Overview) -> list[str]:
    """Tokens that are in no sum, as only the endpoint knows of them."""
    input_tokens = sum(one.unconfirmed_input_tokens for one in view.requests)
    output_tokens = sum(one.unconfirmed_output_tokens for one in view.requests)
    if not input_tokens + output_tokens:
        return []
    return [
        f"up to {input_tokens:,} input and {output_tokens:,} output more may be billed: of requests without a reply"
    ]


_RUN_ENDS = {
    "done": "done",
    "interrupted": "interrupted",
    "killed": "killed: its process ended before it did, or could not note its end (a full disk)",
    "store": "stopped: the run store could not be written, as on a full disk",
    "input": "stopped: the input, or what was asked of it, could not be used",
    "crashed": "crashed: an error of the program ended it",
}


def _run(run: RunLine, *, with_model: bool) -> str:
    lasted = "" if run.ended_at is None else f", {run.ended_at - run.started_at:,.1f} s"
    ended = "going on" if run.status is None else _RUN_ENDS.get(run.status, f"stopped: {run.status}")
    model = f", {one_line(run.model)}" if with_model else ""
    return f"#{run.id}  {_time(run.started_at)}  {ended}{lasted}{model}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


# -- one record --------------------------------------------------------------------------------------------------


def story(record: RecordStory) -> str:
    """All that is known of a record."""
    place = "not in the newest input: an earlier text" if record.line is None else f"line {record.line}"
    lines = [
        _line("record", f"{_json(record.id)} ({place})"),
        _line("status", _status(record)),
        _line("input", _value(record.input) if not record.input_missing else record.input_missing),
    ]
    if record.status == "ok":
        lines.append(_line("output", _value(record.output)))
        lines += _sure(record)
    if record.error is not None and record.error.valid:
        lines.append(_line("valid", _value(record.error.valid)))
    if record.marked:
        lines.append(_line("marked", "the next run asks it again"))
    if record.calls:
        lines.append(_line("cost", _cost(record)))
        lines.append(_line("asked", f"in {_count(len(record.calls), 'request')}, in this order"))
    return "\n".join([*lines, *(_call(call) for call in record.calls)])


def _sure(record: RecordStory) -> list[str]:
    """How sure the answer is, and whose."""
    lines = []
    if record.confidence is not None:
        votes = "" if record.votes == 1 else f", of {record.votes} votes"
        lines.append(_line("confidence", f"{record.confidence:.2f}{votes}"))
    if record.model is not None:
        said = "" if record.first_output is None else f"; the first model had said {_value(record.first_output)}"
        lines.append(_line("model", f"{plain(record.model)}{said}"))
    return lines


def _status(record: RecordStory) -> str:
    if record.error is not None:
        return f"{record.status}: {plain(record.error.kind)}: {one_line(record.error.message)}"
    if record.status == "ok":
        how = "taken from an identical input" if record.copied else f"answered in {_batch(record.batch_size)}"
        return f"ok, {how}{', keyed' if record.form == 'keyed' else ''}"
    return "not done yet"


def _batch(size: int) -> str:
    return "a request of its own" if size == 1 else f"a request of {size} records"


def _cost(record: RecordStory) -> str:
    if record.copied:
        return "none of its own; it was taken from an identical input, whose requests these are"
    return f"about {record.cost_tokens:,.0f} tokens: of each request, its tokens by its records"


def _call(call: CallStory) -> str:
    ended = ", ".join(
        part
        for part in (
            f"HTTP {call.status}" if call.status else "no reply",
            f"finish {plain(call.finish_reason)}" if call.finish_reason else "",
            f"{call.latency_s:.2f} s",
        )
        if part
    )
    guess = ", estimated" if call.estimated else ""
    thought = f" ({call.reasoning_tokens:,} of them reasoning)" if call.reasoning_tokens else ""
    maybe = call.unconfirmed_input_tokens + call.unconfirmed_output_tokens
    if maybe:
        guess += f"; no reply, and it may be billed for up to {maybe:,}"
    lines = [
        f"  #{call.number}  {_count(call.records, 'record')}, {call.accepted} answered: "
        f"{plain(call.outcome)} ({ended})",
        f"      {call.input_tokens:,} input and {call.output_tokens:,} output tokens{thought}{guess}, "
        f"share {call.share_tokens:,.1f}",
    ]
    if call.message:
        lines.append(f"      {one_line(call.message)}")
    if call.raw:
        lines.append(f"      reply: {one_line(call.raw, most=_RAW_SHOWN)}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _json(value: Any) -> str:
    return plain(msgspec.json.encode(value).decode())


def _value(value: Any) -> str:
    return plain(value) if isinstance(value, str) else _json(value)


# -- failed ones and samples -------------------------------------------------------------------------------------


def failed_row(record: StoredRecord) -> dict[str, Any]:
    """A failed record for programs."""
    kind, message = _failure(record)
    answer = record.answer
    valid = {} if answer is None or answer.output is None else {"valid": msgspec.json.decode(answer.output)}
    return {
        "id": record_id(record),
        "line": record.place.line if record.place else None,
        "error": {"kind": kind, "message": message, **valid},
        "calls": list(record.answer.calls) if record.answer else [],
    }


def failed_line(record: StoredRecord, *, stands: bool = False) -> str:
    """A failed record for people; ``stands``: of a second model's, where the first one's answer does."""
    kind, message = _failure(record)
    place = f" (line {record.place.line})" if record.place else ""
    whose = "second model, the first one's answer stands; " if stands else ""
    return f"{_json(record_id(record))}{place}  {whose}{plain(kind)}: {one_line(message)}"


def _failure(record: StoredRecord) -> tuple[str, str]:
    if record.answer is None:
        return "bad-record", (record.place.error if record.place else None) or ""
    return record.answer.error_kind or "failed", record.answer.error_message or ""


def print_sample(drawn: list[Sampled]) -> None:
    """Inputs and outputs side by side, as wide as the terminal is."""
    table = Table(show_lines=True, expand=True)
    table.add_column("id", ratio=1, overflow="fold")
    table.add_column("input", ratio=4, overflow="fold")
    table.add_column("output", ratio=2, overflow="fold")
    for record in drawn:
        shown = record.input_missing and f"({record.input_missing})"
        table.add_row(
            *(Text(value) for value in (_json(record.id), shown or _value(record.input), _output(record.output)))
        )
    console = Console(highlight=False, markup=False)
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)


def _output(value: Any) -> str:
    """A line for each variable."""
    if isinstance(value, dict):
        return "\n".join(f"{plain(name)}: {_value(one)}" for name, one in value.items())
    return _value(value)
