"""From a verdict to what is stored and what is given out: rows, results, and copies for identical inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from engine.adapters.store import AnswerRow
from engine.vocabulary.values import Item, Record, RecordError, Result

_encode = msgspec.json.Encoder().encode


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A record that has ended."""

    row: AnswerRow
    result: Result


def settle(
    item: Item,
    *,
    output: Any = None,
    error: RecordError | None = None,
    batch_size: int,
    form: str,
    now: float,
    wall_time: float,
    copied: bool = False,
    confidence: float | None = None,
    votes: int = 1,
) -> Settled:
    """The end of a record, as a row for the store and a result for the caller."""
    record = item.record
    latency_s = max(0.0, now - item.accepted_at_s)
    row = AnswerRow(
        key=record.key,
        digest=record.digest,
        output=_stored(output, error),
        error_kind=error.kind if error else None,
        error_message=error.message if error else None,
        calls=item.calls,
        batch_size=batch_size,
        form=form,
        answered_at=wall_time,
        latency_s=latency_s,
        copied=copied,
        confidence=confidence,
        votes=votes,
    )
    result = Result(
        id=record.id,
        output=output,
        error=error,
        position=record.position,
        calls=item.calls,
        batch_size=batch_size,
        latency_s=latency_s,
        confidence=confidence,
        votes=votes,
    )
    return Settled(row=row, result=result)


def _stored(output: Any, error: RecordError | None) -> str | None:
    """An output as JSON; of a record that failed, the variables that were answered, for those who look into it."""
    if error is None:
        return _encode(output).decode()
    return _encode(error.valid).decode() if error.valid else None


def stored_error(row: AnswerRow) -> RecordError:
    """Why a record in the store failed."""
    valid = {} if row.output is None else msgspec.json.decode(row.output, type=dict[str, Any])
    return RecordError(kind=row.error_kind or "failed", message=row.error_message or "", valid=valid)


def copies(settled: Settled, followers: Iterable[Item], *, now: float) -> list[Settled]:
    """The same end for records with an identical input."""
    return [
        settle(
            msgspec.structs.replace(follower, calls=settled.result.calls),
            output=settled.result.output,
            error=settled.result.error,
            batch_size=settled.row.batch_size,
            form=settled.row.form,
            now=now,
            wall_time=settled.row.answered_at,
            copied=True,
            confidence=settled.row.confidence,
            votes=settled.row.votes,
        )
        for follower in followers
    ]


def stored_result(record: Record, row: AnswerRow) -> Result:
    """The result of a record whose answer was in the store already."""
    error = None if row.ok else stored_error(row)
    return Result(
        id=record.id,
        output=None if error is not None or row.output is None else msgspec.json.decode(row.output),
        error=error,
        position=record.position,
        stored=True,
        calls=row.calls,
        batch_size=row.batch_size,
        confidence=row.confidence,
        votes=row.votes,
    )


def copied_row(record: Record, row: AnswerRow) -> AnswerRow:
    """The answer of an identical input, as this record's own row."""
    return msgspec.structs.replace(row, key=record.key, digest=record.digest, copied=True, latency_s=0.0)
