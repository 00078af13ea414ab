"""What a person asks of a store: how far it is, why a record ended as it did, and a sample to check."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.store import AnswerRow, CallRow, InputRow, OutputRow, RunStore, SecondRun
from engine.adapters.stored import (
    AnswerCount,
    InputCount,
    OutcomeCount,
    StoredRecord,
    StoredRun,
    answer_counts,
    answer_of,
    calls,
    count_failed_by_second,
    input_count,
    outcome_counts,
    runs,
    size_of,
)
from engine.run.outcome import stored_error
from engine.run.reread import reread
from engine.vocabulary.values import RecordError

_RUNS_SHOWN = 10
_EXCERPT = 2_000


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """One run, in short; `status` is None while it goes on. Times are seconds since 1970."""

    id: int
    status: str | None
    model: str
    started_at: float
    ended_at: float | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A store as a whole. Answers are those to the newest run's task and model; requests are of all runs.

    :ivar input: where the newest run read from; None for a program's run.
    :ivar records: of that input; None if it is not known.
    :ivar failed_by_second: of them, those that a second model failed, and whose first answer stands.
    """

    store: str
    bytes: int
    instructions: str
    variables: dict[str, list[str]]
    model: str
    input: str | None
    records: InputCount | None
    answers: list[AnswerCount]
    requests: list[OutcomeCount]
    runs: list[RunLine]
    failed_by_second: int = 0


class CallStory(msgspec.Struct, frozen=True, kw_only=True):
    """One request that asked for a record.

    :ivar unconfirmed_input_tokens: of a request without any reply: it may be billed for them, and for
        `unconfirmed_output_tokens` at the most.
    :ivar share_tokens: what fell to each of its records: input and output tokens by their number.
    """

    number: int
    records: int
    accepted: int
    outcome: str
    status: int
    finish_reason: str
    sent_at: float
    latency_s: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool
    unconfirmed_input_tokens: int
    unconfirmed_output_tokens: int
    share_tokens: float
    message: str | None
    raw: str | None


class RecordStory(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a record.

    :ivar status: ``ok``, ``failed``, ``unusable`` (could not be read, or repeats an id) or ``pending``.
    :ivar line: None when it is not in the newest run's input: an answer to an earlier text of that id.
    :ivar input_missing: why there is no `input`; empty if there is.
    :ivar cost_tokens: its share of all requests that asked for it.
    :ivar confidence: None where nothing says it; `votes` that it was chosen from.
    :ivar model: that gave `output`, where a second one was asked; `first_output` is then what the first had said.
    """

    id: Any
    line: int | None
    status: str
    output: Any
    error: RecordError | None
    input: Any
    input_missing: str
    batch_size: int
    form: str
    copied: bool
    marked: bool
    cost_tokens: float
    calls: list[CallStory]
    confidence: float | None = None
    votes: int = 1
    model: str | None = None
    first_output: Any = None


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """A done record beside its input, for a person to judge."""

    id: Any
    line: int
    input: Any
    input_missing: str
    output: Any


def overview(store: RunStore, path: Path, listed: StoredRun | None, newest: StoredRun) -> Overview:
    """The store as a whole.

    :param listed: the newest run with a list of inputs.
    """
    run = listed or newest
    place = run.note.get("input")
    return Overview(
        store=str(path),
        bytes=size_of(path),
        instructions=run.task.instructions,
        variables={name: list(field.labels) for name, field in run.task.variables.items()},
        model=run.model,
        input=place if isinstance(place, str) else None,
        records=None if listed is None else input_count(store, listed),
        failed_by_second=count_failed_by_second(store, listed),
        answers=answer_counts(store, run.settings_id),
        requests=outcome_counts(store),
        runs=[
            RunLine(id=one.id, status=one.status, model=one.model, started_at=one.started_at, ended_at=one.ended_at)
            for one in runs(store, newest=_RUNS_SHOWN)
        ],
    )


_UNUSABLE = "not shown: it could not be used as it is"


def tell(store: RunStore, path: Path, run: StoredRun | None, found: Sequence[StoredRecord]) -> list[RecordStory]:
    """The stories of these records, their inputs read again from the run's source."""
    marks = {mark for record in found if (mark := _mark(record)) is not None}
    again = reread(run, path, marks)
    second = None if run is None else store.second_run(run.id)
    return [_story(store, record, again.inputs, again.missing, second) for record in found]


def _mark(record: StoredRecord) -> tuple[str, bytes] | None:
    if record.answer is not None:
        return record.answer.key, record.answer.digest
    place = record.place
    if place is None or place.key is None or place.digest is None:
        return None
    return place.key, place.digest


def _story(
    store: RunStore, record: StoredRecord, inputs: dict[tuple[str, bytes], Any], missing: str, second: SecondRun | None
) -> RecordStory:
    first, place, mark = record.answer, record.place, _mark(record)
    is_there = mark is not None and mark in inputs
    answer, model, numbers = first, None, () if first is None else first.calls
    if second is not None and first is not None:
        answer, model = second.chosen(first, answer_of(store, second.settings_id, first.key, first.digest))
        numbers = numbers if answer is first or not answer.ok else (*numbers, *answer.calls)
    asked = [_call_story(call) for call in calls(store, numbers)]
    status, error = _ending(record.place, answer)
    return RecordStory(
        id=record_id(record),
        line=place.line if place else None,
        status=status,
        output=_output(answer.output) if answer and answer.ok else None,
        error=error,
        input=inputs[mark] if is_there and mark is not None else None,
        input_missing="" if is_there else _UNUSABLE if mark is None else missing,
        batch_size=answer.batch_size if answer else 0,
        form=answer.form if answer else "",
        copied=answer.copied if answer else False,
        marked=answer.redo if answer else False,
        cost_tokens=0.0 if answer is None or answer.copied else sum(call.share_tokens for call in asked),
        calls=asked,
        confidence=answer.confidence if answer else None,
        votes=answer.votes if answer else 1,
        model=model,
        first_output=None if first is None or not first.ok or answer is first else _output(first.output),
    )


def record_id(record: StoredRecord) -> Any:
    """The id, with its JSON type."""
    key = record.place.id if record.place else record.answer.key if record.answer else "null"
    return msgspec.json.decode(key)


def _ending(place: InputRow | None, answer: AnswerRow | None) -> tuple[str, RecordError | None]:
    if place is not None and place.error is not None:
        return "unusable", RecordError(kind="bad-record", message=place.error)
    if answer is None:
        return "pending", None
    if answer.ok:
        return "ok", None
    return "failed", stored_error(answer)


def _output(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _call_story(call: CallRow) -> CallStory:
    return CallStory(
        number=call.id,
        records=call.size,
        accepted=call.accepted,
        outcome=call.outcome,
        status=call.status,
        finish_reason=call.finish_reason,
        sent_at=call.sent_at,
        latency_s=round(call.latency_s, 6),
        input_tokens=call.input_tokens,
        cached_tokens=call.cached_tokens,
        output_tokens=call.output_tokens,
        reasoning_tokens=call.reasoning_tokens,
        estimated=call.estimated,
        unconfirmed_input_tokens=call.unconfirmed_input,
        unconfirmed_output_tokens=call.unconfirmed_output,
        share_tokens=round((call.input_tokens + call.output_tokens) / max(1, call.size), 2),
        message=call.message,
        raw=None if call.raw is None else call.raw[:_EXCERPT],
    )


# -- samples -----------------------------------------------------------------------------------------------------


def sampled(store: RunStore, path: Path, run: StoredRun, *, count: int, seed: int | None) -> list[Sampled]:
    """Done records drawn at random, each as likely as any other, in the order of the input.

    One pass over the store, one over the source, and memory for the sample only.

    :param seed: None draws another sample each time.
    """
    drawn = _reservoir(store, run, count, random.Random(seed))
    again = reread(run, path, {(row.answer.key, row.answer.digest) for row in drawn if row.answer is not None})
    return [_sampled(row, again.inputs, again.missing) for row in sorted(drawn, key=lambda row: row.record.position)]


def _reservoir(store: RunStore, run: StoredRun, count: int, rng: random.Random) -> list[OutputRow]:
    drawn: list[OutputRow] = []
    seen = 0
    for row in store.outputs(run.id, run.settings_id):
        if row.answer is None or not row.answer.ok:
            continue
        seen += 1
        if len(drawn) < count:
            drawn.append(row)
        elif (place := rng.randrange(seen)) < count:
            drawn[place] = row
    return drawn


def _sampled(row: OutputRow, inputs: dict[tuple[str, bytes], Any], missing: str) -> Sampled:
    answer = row.answer
    mark = (answer.key, answer.digest) if answer else ("", b"")
    return Sampled(
        id=msgspec.json.decode(row.record.id),
        line=row.record.line,
        input=inputs.get(mark),
        input_missing="" if mark in inputs else missing,
        output=_output(answer.output if answer else None),
    )
