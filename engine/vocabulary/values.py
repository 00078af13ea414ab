"""What flows through the pipeline: records in, minibatches and replies between, results out.

All are frozen and keyword-only. A `msgspec.Struct` constructor does not check types (only decoding does), so
whatever comes from outside is checked where it enters.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

RecordId = str | int | float
"""An id keeps its JSON type from input to output; a record without one gets its line number."""

Input = str | dict[str, Any]
"""What is sent of a record: a string when the task sends one field, else an object of the chosen fields."""


class RawRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record as a source read it, before the task chose its fields.

    :ivar position: ordinal in the source, from 0, counting broken records too: the order of the output.
    :ivar line: the number that a person would look up, from 1 (a line of JSONL, a data row of CSV or Parquet).
    :ivar data: the fields, or None when the record could not be read; beside an `error`, those that can be trusted all
        the same, so that the record keeps its id.
    :ivar unreadable: fields that are there and cannot be read, each with the reason: they matter if the task uses them.
    :ivar error: why it could not be read, for a person, without the place (the caller adds it); None if it could.
    """

    position: int
    line: int
    data: dict[str, Any] | None = None
    unreadable: dict[str, str] = {}
    error: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record, ready to be asked about.

    :ivar key: the id as JSON text, so that ``1`` and ``"1"`` stay two records.
    :ivar digest: 16 bytes of BLAKE2b over the canonical JSON of `input`. The same id with another digest is another
        question.
    :ivar input_tokens: estimated tokens of the record's entry in the request.
    """

    position: int
    line: int
    id: RecordId
    key: str
    input: Input
    digest: bytes
    input_tokens: int = 0


class BadRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record that cannot be asked about, with the reason. It is stored and put out as failed, never dropped."""

    position: int
    line: int
    id: RecordId | None
    message: str


class RecordError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a record has no output: `kind` for programs, `message` for people.

    :ivar valid: of a task with several variables, those that were answered, with their values.
    """

    kind: str
    message: str
    valid: dict[str, Any] = {}

    def beside(self, other: RecordError, model: str) -> RecordError:
        """This reason, with that of a second model, which failed as well."""
        told = f"{self.message}; the second model ({model}) failed too, {other.kind}: {other.message}"
        return msgspec.structs.replace(self, message=told)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record.

    :ivar output: a label, a list of labels or an object of fields, as the task says; None when `error` is set.
    :ivar stored: True when the answer came from the run store and cost nothing now.
    :ivar calls: the numbers of the calls that asked for it, in order; the last one answered. Look them up with
        ``annotate show``.
    :ivar batch_size: records in the call that answered.
    :ivar latency_s: from accepted by the engine to stored; 0 for stored answers.
    :ivar confidence: from 0 to 1, by votes or by token probabilities; None where it is not known.
    :ivar votes: replies that the output was chosen from.
    :ivar model: that answered, where a second one is asked about records of which the first is unsure; else None.
    """

    id: RecordId | None
    output: Any = None
    error: RecordError | None = None
    position: int = 0
    stored: bool = False
    calls: tuple[int, ...] = ()
    batch_size: int = 0
    latency_s: float = 0.0
    confidence: float | None = None
    votes: int = 1
    model: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the record was annotated."""
        return self.error is None


Purpose = Literal["ask", "anchor", "anchored", "reordered", "audit-lone", "repeat", "gold"]
"""Why a request is sent: ``ask`` for answers, ``anchor`` for one that is also compared with; the rest only compare."""

ASKS: frozenset[str] = frozenset({"ask", "anchor"})


class Ballot(msgspec.Struct, frozen=True, kw_only=True):
    """One valid answer to a record that is asked several times.

    :ivar confidence: by token probabilities; None where there are none.
    :ivar call: the request that brought it; 0 where that is not known.
    :ivar place: of the record in that request, from 0 (first) to 1 (last); None alone, or where it is not known.
    :ivar lone_form: the answer form of that request, where the record was alone in it; "" where it was not.
    """

    output: Any
    confidence: float | None = None
    call: int = 0
    place: float | None = None
    lone_form: str = ""


class Item(msgspec.Struct, kw_only=True):
    """A record on its way: the record and what has been tried for it. Owned by one batch at a time.

    :ivar accepted_at_s: loop time at which the engine took the record in.
    :ivar calls: numbers of the calls that have asked for it so far.
    :ivar lone_attempts: how often it was asked alone and not answered.
    :ivar last_defect: what was wrong with its last answer, for the reason of a failure.
    :ivar kept: variables that were answered already, where others of the record were not: each the first valid value.
    :ivar ballots: answers of the rounds before this one.
    """

    record: Record
    accepted_at_s: float
    calls: tuple[int, ...] = ()
    lone_attempts: int = 0
    last_defect: str = ""
    kept: dict[str, Any] = {}
    ballots: tuple[Ballot, ...] = ()


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A minibatch to be sent: items, and how often this very batch failed in transport or was told to wait.

    :ivar origin: records that were aimed at when these were first sent: re-asks and halves are charged to that size.
    :ivar first: no reply has come to these records yet.
    :ivar purpose: what its answers are for.
    :ivar audit: the number of the audit that it belongs to; 0 for production.
    :ivar family: the number of the disturbed batch that these records came from; 0 for none.
    :ivar output_scale: factor on the expected output tokens; doubled when a lone reply was cut off.
    :ivar not_before_s: loop time before which it must not be sent (back-off); 0 for at once.
    """

    items: tuple[Item, ...]
    origin: int = 0
    first: bool = True
    purpose: Purpose = "ask"
    audit: int = 0
    family: int = 0
    transport_attempts: int = 0
    rate_limited: int = 0
    output_scale: float = 1.0
    not_before_s: float = 0.0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one reply. `cached_tokens` are counted inside `input_tokens`.

    :ivar estimated: the endpoint gave no usage, or an absurd one, and these are our own counts.
    :ivar reasoning_tokens: counted inside `output_tokens`: what the model thought with before it answered.
    :ivar written_tokens: counted inside `input_tokens`, beside the cached ones: written into the provider's cache.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    estimated: bool = False
    reasoning_tokens: int = 0
    written_tokens: int = 0


QuotaOf = Literal["requests", "tokens"]


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A limit a minute, as a reply's headers state it.

    :ivar remaining: as of when the endpoint wrote the reply; None where it does not say.
    """

    of: QuotaOf
    per_minute: float
    remaining: float | None = None


class Token(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One token of a reply: its bytes, which may be half a letter, and the logarithm of its probability, 0 or less."""

    content: bytes
    logprob: float


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A reply of the model: HTTP 200 and an envelope that could be read.

    :ivar finish_reason: as the endpoint said, in lower case; ``length`` means cut off.
    :ivar refusal: the endpoint's words when the model or a filter refused, else None.
    :ivar usage: None when the endpoint sent none.
    :ivar quotas: limits that its headers state.
    :ivar tokens: of the text, with their probabilities, where they were asked for and came.
    """

    text: str
    finish_reason: str
    refusal: str | None
    usage: Usage | None
    quotas: tuple[Quota, ...] = ()
    tokens: tuple[Token, ...] = ()


class FaultKind(StrEnum):
    """What kind of failure a request met; `decide.recovery` says what follows from each."""

    RATE_LIMIT = "rate-limit"
    SERVER = "server"
    TRANSPORT = "transport"
    TIMEOUT = "timeout"
    BAD_REPLY = "bad-reply"
    AUTH = "auth"
    QUOTA = "quota"
    MODEL = "model"
    CONTEXT = "context"
    FILTERED = "filtered"
    UNSUPPORTED = "unsupported"
    REJECTED = "rejected"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A request that brought no completion.

    :ivar message: one line for a person, in the endpoint's own words where it had some.
    :ivar status: HTTP status, or 0 when there was none.
    :ivar retry_after_s: how long the endpoint asked us to wait, if it did.
    :ivar parameter: for ``UNSUPPORTED``: the request parameter that it does not take.
    :ivar usage: tokens billed all the same, when the reply said so.
    :ivar limit: for ``RATE_LIMIT``: which limit it was, where the reply says so.
    :ivar quotas: limits that its headers state.
    :ivar sent: the request may have reached the endpoint, which may then bill it; False when no connection was made.
    """

    kind: FaultKind
    message: str
    status: int = 0
    retry_after_s: float | None = None
    parameter: str | None = None
    excerpt: str = ""
    usage: Usage | None = None
    limit: QuotaOf | None = None
    quotas: tuple[Quota, ...] = ()
    sent: bool = True

    @property
    def text(self) -> str:
        """The message with its status, for a person."""
        said = not self.status or self.message.startswith(f"HTTP {self.status}")
        return self.message if said else f"HTTP {self.status}: {self.message}"


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a batch waited before it was sent, by cause."""

    window_s: float = 0.0
    requests_s: float = 0.0
    tokens_s: float = 0.0
    pause_s: float = 0.0
