"""What the run store holds, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.adapters.store.seals import seal
from engine.adapters.store.translate import Damaged
from engine.vocabulary.task import Task
from engine.vocabulary.values import RecordError

RAW_LIMIT = 64_000
"""Characters of the raw reply of a failed call that are kept."""


class CallRow(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP attempt. `outcome` is ``ok`` or the cause why not every record was answered.

    :ivar status: of the HTTP reply; 0 when there was none.
    :ivar raw: the reply's text where the outcome is not ``ok``.
    :ivar unconfirmed_input: expected tokens of an attempt that brought no reply: the endpoint may bill them;
        `unconfirmed_output` is the most that it may have put out. In no other count.
    :ivar purpose: ``ask`` for a label.
    :ivar reasoning_tokens: of `output_tokens`, those that the model thought with.
    :ivar written_tokens: of `input_tokens`, those that were written into the provider's cache.
    """

    id: int
    sent_at: float
    latency_s: float
    size: int
    accepted: int
    status: int
    outcome: str
    finish_reason: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    message: str | None = None
    raw: str | None = None
    unconfirmed_input: int = 0
    unconfirmed_output: int = 0
    purpose: str = "ask"
    reasoning_tokens: int = 0
    written_tokens: int = 0


class AnswerRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record: `output` as JSON text, or an error.

    :ivar copied: taken over from an identical input instead of being asked for.
    :ivar confidence: from 0 to 1, by votes or by token probabilities; None where it is not known.
    :ivar votes: replies that it was chosen from.
    """

    key: str
    digest: bytes
    output: str | None
    error_kind: str | None = None
    error_message: str | None = None
    calls: tuple[int, ...] = ()
    batch_size: int = 0
    form: str = "compact"
    answered_at: float = 0.0
    latency_s: float = 0.0
    copied: bool = False
    redo: bool = False
    confidence: float | None = None
    votes: int = 1

    @property
    def ok(self) -> bool:
        """Whether there is an output."""
        return self.error_kind is None


class BallotRow(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to a record that has not ended, since it is asked several times, or since the answer is not whole:
    `output` as JSON text.

    :ivar round: from 1; a record has one answer in each. Of the round n that is under way, -n: `output` is then an
        object with those of its variables that are valid so far.
    :ivar calls: that asked for it until then, in all rounds.
    """

    key: str
    digest: bytes
    round: int
    output: str
    calls: tuple[int, ...] = ()
    batch_size: int = 0
    form: str = "compact"
    confidence: float | None = None


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that calls took. `cached_tokens` are part of `input_tokens`; unconfirmed ones are in neither.

    :ivar unconfirmed_input: of calls that brought no reply and may be billed, as is `unconfirmed_output`, at the most.
    :ivar reasoning_tokens: of `output_tokens`; `written_tokens` of `input_tokens`, into the provider's cache.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    unconfirmed_input: int = 0
    unconfirmed_output: int = 0
    reasoning_tokens: int = 0
    written_tokens: int = 0


class InputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the input: `id` as JSON text; `key` and `digest` are None where `error` says why."""

    position: int
    line: int
    id: str
    key: str | None
    digest: bytes | None
    error: str | None = None


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """An id that occurs twice in one input."""

    id: str
    position: int
    line: int
    first_line: int


class OutputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the input beside what became of it; `answer` is None while nothing has.

    :ivar second: what the second model of that run says of it; None without one, or while it says nothing.
    """

    record: InputRow
    answer: AnswerRow | None
    second: AnswerRow | None = None


class SecondRun(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a run that a second model had.

    :ivar below: it had records whose answer had a confidence under this; None: none.
    :ivar failures: and those that failed so.
    """

    settings_id: int
    below: float | None
    failures: tuple[str, ...] = ()
    first_model: str
    model: str

    def chosen(self, first: AnswerRow, second: AnswerRow | None) -> tuple[AnswerRow, str]:
        """The answer that counts, and whose it is; where both failed, the first one's failure with both reasons."""
        if second is None or not self._had(first):
            return first, self.first_model
        if second.ok:
            return second, self.model
        return (first if first.ok else _beside(first, second, self.model)), self.first_model

    def _had(self, first: AnswerRow) -> bool:
        if not first.ok:
            return first.error_kind in self.failures
        return self.below is not None and first.confidence is not None and first.confidence < self.below


def _beside(first: AnswerRow, second: AnswerRow, model: str) -> AnswerRow:
    one, other = (
        RecordError(kind=row.error_kind or "failed", message=row.error_message or "") for row in (first, second)
    )
    return msgspec.structs.replace(first, error_message=one.beside(other, model).message)


class _SecondNote(msgspec.Struct, frozen=True):
    """Of the note of a second model's part: kinds of failure of the first model that it was asked about."""

    failures: tuple[str, ...] = ()


def noted_failures(note: str) -> tuple[str, ...]:
    """What the note of a second model's part says of failures; nothing where it cannot be read."""
    try:
        return msgspec.json.decode(note, type=_SecondNote).failures
    except (msgspec.MsgspecError, UnicodeError):
        return ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of some records.

    :ivar by_key: key -> its answers, one for each text that the record has had.
    :ivar by_digest: digest -> an ok answer to the same input, whoever asked.
    :ivar damaged: answers that are not what was written; they were thrown away, and their records are to be asked.
    :ivar ballots: key -> answers of earlier rounds, to whatever text, the first round first.
    """

    by_key: dict[str, list[AnswerRow]]
    by_digest: dict[bytes, AnswerRow]
    damaged: int = 0
    ballots: dict[str, list[BallotRow]] = {}


ANSWER_COLUMNS = (
    "key, digest, output, error_kind, error_message, calls, batch_size, form, answered_at, latency_s, copied, redo, "
    "settings_id, ok, seal, confidence, votes"
)
BALLOT_COLUMNS = "settings_id, key, digest, round, output, calls, batch_size, form, confidence, seal"
INPUT_COLUMNS = "position, line, id, key, digest, error, seal"


INSERT_CALL = f"INSERT INTO calls VALUES ({', '.join('?' * 20)})"
INSERT_KILLED = INSERT_CALL.replace("INSERT INTO", "INSERT OR IGNORE INTO")
"""A request that was in flight at a crash; one whose outcome was stored is known better."""

INSERT_ANSWER = f"""
INSERT INTO answers VALUES ({", ".join("?" * 18)})
ON CONFLICT (settings_id, key, digest) DO UPDATE SET
    ok = excluded.ok, output = excluded.output, error_kind = excluded.error_kind,
    error_message = excluded.error_message, calls = excluded.calls, batch_size = excluded.batch_size,
    form = excluded.form, run_id = excluded.run_id, answered_at = excluded.answered_at,
    latency_s = excluded.latency_s, copied = excluded.copied, redo = 0, seal = excluded.seal,
    confidence = excluded.confidence, votes = excluded.votes
WHERE excluded.ok = 1 OR answers.ok = 0
"""
KEEP_ANSWER = "UPDATE answers SET redo = 2 WHERE settings_id = ? AND key = ? AND digest = ? AND ok = 1 AND redo = 1"
"""An answer that was to be asked again, and the new ask failed: it stays, and nobody pays for a third."""


INSERT_BALLOT = f"INSERT OR REPLACE INTO ballots VALUES ({', '.join('?' * 10)})"


def call_values(run_id: int, call: CallRow) -> tuple[Any, ...]:
    """A call as a row of its table."""
    raw = None if call.raw is None else _whole(call.raw[:RAW_LIMIT])
    return (
        call.id, run_id, call.sent_at, call.latency_s, call.size, call.accepted, call.status, call.outcome,
        call.finish_reason, call.input_tokens, call.cached_tokens, call.output_tokens, int(call.estimated),
        call.message and _whole(call.message), raw, call.unconfirmed_input, call.unconfirmed_output, call.purpose,
        call.reasoning_tokens, call.written_tokens,
    )  # fmt: skip


def answer_values(run_id: int, settings_id: int, answer: AnswerRow) -> tuple[Any, ...]:
    """An answer as a row of its table."""
    message = answer.error_message and _whole(answer.error_message)
    calls = msgspec.json.encode(answer.calls).decode()
    ok, copied = int(answer.ok), int(answer.copied)
    sealed = (
        settings_id, answer.key, answer.digest, ok, answer.output, answer.error_kind, message, calls,
        answer.batch_size, answer.form, copied, *_beyond_one(answer.confidence, answer.votes),
    )  # fmt: skip
    return (
        settings_id, answer.key, answer.digest, ok, answer.output, answer.error_kind, message, calls,
        answer.batch_size, answer.form, run_id, answer.answered_at, answer.latency_s, copied, 0, seal(sealed),
        answer.confidence, answer.votes,
    )  # fmt: skip


def _beyond_one(confidence: float | None, votes: int) -> tuple[float | None, int] | tuple[()]:
    """What the seal of an answer holds of its votes: nothing where there is one and no more is known, as before
    format 4."""
    return () if confidence is None and votes == 1 else (confidence, votes)


def ballot_values(settings_id: int, ballot: BallotRow) -> tuple[Any, ...]:
    """A ballot as a row of its table."""
    calls = msgspec.json.encode(ballot.calls).decode()
    values = (
        settings_id, ballot.key, ballot.digest, ballot.round, ballot.output, calls, ballot.batch_size, ballot.form,
        ballot.confidence,
    )  # fmt: skip
    return (*values, seal(values))


def read_ballot(row: Sequence[Any]) -> BallotRow:
    """The ballot in a row of `BALLOT_COLUMNS`.

    :raises StoreError: it is not what was written.
    """
    *values, sealed = row
    if seal(values) != sealed:
        raise Damaged("a stored vote is damaged: it is not what was written")
    _, key, digest, number, output, calls, size, form, confidence = values
    return BallotRow(
        key=key,
        digest=digest,
        round=number,
        output=output,
        calls=msgspec.json.decode(calls, type=tuple[int, ...]),
        batch_size=size,
        form=form,
        confidence=confidence,
    )


def input_values(run_id: int, row: InputRow) -> tuple[Any, ...]:
    """A record of the input as a row of its table."""
    values = (row.position, row.line, row.id, row.key, row.digest, row.error)
    return (run_id, *values, seal(values))


UNREADABLE_TASK = msgspec.json.encode(
    Task(instructions="(what the task said was damaged; the same `annotate run` notes it again)")
).decode()
"""Stands for a task that cannot be read any more. Its key, by which a run knows it again, is beside it."""


def is_readable_task(text: object) -> bool:
    """Whether a task, as `settings` holds it, says what was asked."""
    try:
        return text != UNREADABLE_TASK and bool(msgspec.json.decode(str(text), type=Task))
    except (msgspec.MsgspecError, UnicodeError):
        return False


def _whole(text: str) -> str:
    """The text with half characters (lone surrogates) replaced, which SQLite does not take."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def read_answer(row: Sequence[Any]) -> AnswerRow:
    """The answer in a row of `ANSWER_COLUMNS`.

    :raises StoreError: it is not what was written.
    """
    (
        key, digest, output, kind, message, calls, size, form, answered_at, latency_s, copied, redo, of, ok, sealed,
        confidence, votes,
    ) = row  # fmt: skip
    values = (of, key, digest, ok, output, kind, message, calls, size, form, copied, *_beyond_one(confidence, votes))
    if seal(values) != sealed:
        raise Damaged(
            f"the stored answer to the record {key} is damaged: it is not what was written. Run the same "
            "`annotate run` again, which asks for it anew"
        )
    return AnswerRow(
        key=key,
        digest=digest,
        output=output,
        error_kind=kind,
        error_message=message,
        calls=msgspec.json.decode(calls, type=tuple[int, ...]),
        batch_size=size,
        form=form,
        answered_at=answered_at,
        latency_s=latency_s,
        copied=bool(copied),
        redo=redo == 1,
        confidence=confidence,
        votes=votes,
    )


def read_input(row: Sequence[Any]) -> InputRow:
    """The record in a row of `INPUT_COLUMNS`.

    :raises StoreError: it is not what was written.
    """
    position, line, id_, key, digest, error, sealed = row
    if seal((position, line, id_, key, digest, error)) != sealed:
        raise Damaged(
            f"line {line} of the input, as the run store holds it, is damaged: it is not what was written. Run the "
            "same `annotate run` again, which notes the input anew"
        )
    return InputRow(position=position, line=line, id=id_, key=key, digest=digest, error=error)
