"""The report as a document: what `report.json` holds, word for word. Units are in the names; see docs/design/report.md.

Keys that DESIGN.md names are a contract; more may come, and none of them goes away.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from engine.decide.batch_size import Move
from engine.decide.quality_values import CurveRow, QualityVerdict
from engine.report.escalation import EscalationUse
from engine.report.gold import GoldUse
from engine.report.series import Series
from engine.report.steering import FormUse, RateUse, TargetUse, WarmUse, WindowUse
from engine.report.variables import VariableUse
from engine.report.votes import Confidence, VotesUse

REPORT_VERSION = 1


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the records of the input. `ok`, `failed` and `pending` add up to `total`.

    :ivar total: of the input; where a stream was stopped, those read so far.
    :ivar pending: neither answered nor failed, because the run was stopped.
    :ivar stored: of ok and failed, those answered by an earlier run.
    :ivar copied: of ok and failed, those that share the answer of an identical input.
    :ivar changed: known to the store under the same id with another text, and asked again.
    :ivar changed_lines: where the first few of them stand.
    """

    total: int
    ok: int
    failed: int
    pending: int
    stored: int
    copied: int
    changed: int
    changed_lines: list[int]


class FailedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One failed record: `id` as in the input, `calls` for ``annotate show``."""

    id: Any
    line: int | None
    message: str
    calls: list[int]


class FailureKind(msgspec.Struct, frozen=True, kw_only=True):
    """Failed records of one kind, the commonest first, with a few examples."""

    kind: str
    count: int
    examples: list[FailedRecord]


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """HTTP attempts that ended, failed ones included.

    :ivar complete: replies that answered every record they were asked.
    :ivar malformed: replies with status 200 that left an asked record unanswered.
    :ivar retried: attempts whose batch was sent again as it was.
    :ivar splits: attempts whose batch was halved.
    :ivar causes: why an attempt did not answer every record -> attempts.
    :ivar followed: cause -> what was done about it (``sent again``, ``halved``, ``asked again``,
        ``given up``) -> attempts.
    :ivar by_status: HTTP status -> attempts; ``0`` is no reply at all.
    :ivar foreign_ids: results for ids that were not asked in that request; never used.
    """

    total: int
    complete: int
    http_429: int
    retried: int
    malformed: int
    splits: int
    causes: dict[str, int]
    by_status: dict[str, int]
    peak_in_flight: int
    foreign_ids: int
    followed: dict[str, dict[str, int]] = {}


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """Input tokens saved against one record a call: an estimate, by `formula`.

    :ivar share: of what one record a call would have sent, asking as often.
    :ivar static_tokens: of the prompt, as the endpoint counts them.
    :ivar once_share: of what asking each record once and alone would have sent, for a run with votes: less than 0 where
        the votes took more than that. None where each record is asked once.
    """

    input: int
    share: float
    static_tokens: int
    answers: int
    calls: int
    formula: str
    once_share: float | None = None


class TokenParts(msgspec.Struct, frozen=True, kw_only=True):
    """Where all input and output tokens went; they add up to it.

    :ivar records: of input: the records' own text, and what wraps it. `answers` are the output for them.
    :ivar static: of input: instructions, labels and examples, by our own count and the endpoint's tokens for one of
        ours, as far as they were not cached.
    :ivar cached: of input, by the endpoint's count.
    :ivar reasoning: of the output for the records: what was thought before the answers.
    :ivar audits: of requests that only compared labels.
    :ivar wasted: of attempts that gave no accepted answer.
    """

    records: int
    static: int
    cached: int
    answers: int
    audits: int
    wasted: int
    reasoning: int = 0


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of every reply that carried usage, by the endpoint's own count; `input` includes `cached`.

    :ivar reasoning: of the output, what the model thought with: by the endpoint's count, or where it has none by the
        share of the text that was thought, or of the output that nobody saw.
    :ivar wasted: input and output of attempts that gave no accepted answer.
    :ivar written: of the input, what was written into the provider's cache.
    :ivar estimated: of input and output, those that are our own estimate since the reply carried no usage.
    :ivar unconfirmed: in no other figure: the most that attempts without any reply (timeouts, resets, given up) may be
        billed for, by our estimate of their input and their limit of output.
    """

    input: int
    cached: int
    output: int
    wasted: int
    wasted_share: float | None
    estimated: int
    unconfirmed: int
    saved: Saving | None
    parts: TokenParts | None = None
    reasoning: int = 0
    written: int = 0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars of this run. `prices` are per million tokens.

    :ivar unconfirmed_usd: on top of `usd`, the most that attempts without any reply may be billed for.
    :ivar source: the page that the prices are from; None: the user gave them. `as_of` is when they were so.
    """

    usd: float
    unconfirmed_usd: float
    per_1000_valid_usd: float | None
    wasted_usd: float
    prices: dict[str, float]
    source: str | None = None
    as_of: str | None = None


NoCost = Literal["unpriced", "local", "embedded"]
"""Why a report has no cost: nobody knows the price, or it is a machine of one's own, or the embedded model."""


class Steady(msgspec.Struct, frozen=True, kw_only=True):
    """From the moment a tenth of the valid records was there until nine tenths were: without ramp and tail."""

    records_per_s: float
    from_s: float
    to_s: float
    records: int


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Valid records of this run per second from first send to last result (`span_s`).

    :ivar idle_s: of the span, seconds in which nothing was in flight for 10 s or more: pauses, a slow source.
    :ivar active_records_per_s: valid records per second of the rest.
    :ivar goodput_per_s: valid and within the latency target; None where there was none.
    """

    records_per_s: float | None
    valid_records: int
    span_s: float | None
    steady: Steady | None
    goodput_per_s: float | None
    idle_s: float | None = None
    active_records_per_s: float | None = None


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Nearest rank: the smallest measured value that at least p % of all values do not exceed. None without values."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    count: int = 0


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """`request`: last byte - sent, of every attempt. `record`: accepted by the engine -> answered or failed."""

    request: Percentiles
    record: Percentiles


class QueueWait(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that requests stood first in line and could not go, by what held them."""

    rpm: float = 0.0
    tpm: float = 0.0
    window: float = 0.0
    pause: float = 0.0


class LimitUse(msgspec.Struct, frozen=True, kw_only=True):
    """One limit.

    :ivar allowed: as given, else as found out by the end; None where it is not known.
    :ivar used: the mean over the span: a minute's worth, or requests in flight.
    :ivar utilisation: used / allowed; None where that was found out, which moved.
    :ivar peak: the most in any 60 seconds, or in flight at once.
    """

    allowed: float | None
    used: float | None
    utilisation: float | None
    peak: float | None


class LimitsUse(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and tokens (input + output) a minute, requests in flight, and which of them bound.

    :ivar itpm: input tokens a minute; None where no such limit was given, as `otpm`, of output tokens.
    :ivar bound_by: what held requests back for the longest (``rpm``, ``tpm``, ``window``, ``pause``); None when
        nothing did for a tenth of the time.
    """

    rpm: LimitUse
    tpm: LimitUse
    concurrency: LimitUse
    bound_by: str | None
    itpm: LimitUse | None = None
    otpm: LimitUse | None = None


class SizeUse(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the requests with so many records."""

    size: int
    requests: int
    asked: int
    accepted: int


class BatchSize(msgspec.Struct, frozen=True, kw_only=True):
    """Records in a request.

    :ivar configured: as the run was told; None where it adapts.
    :ivar mean: over all requests, re-asks included.
    :ivar settled: the size of new batches when the run ended.
    :ivar moves: the newest changes of it, oldest first, `at_s` after the first send.
    """

    configured: int | None
    mean: float | None
    max: int | None
    by_size: list[SizeUse]
    settled: int | None
    moves: list[Move]


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What batching did to the labels. See docs/design/quality.md.

    :ivar guarded: the run asked on purpose to find out; else only what production showed is in here.
    :ivar verdict: at the size at which the run ended.
    :ivar curve: by size.
    :ivar requests: that only compared; `tokens` are theirs, and in no other count of this report but the sums.
    :ivar share_of_one: what they cost, as a share of what the records would have cost one a request.
    """

    guarded: bool
    verdict: QualityVerdict
    curve: list[CurveRow]
    requests: int
    tokens: int
    share_of_one: float | None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Records ended since the one before, up to `at_s` after the first send."""

    at_s: float
    ok: int
    failed: int


class StopReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why the run ended before its input did."""

    kind: str
    message: str


class AllRuns(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of this task and model in this store, this one included.

    :ivar killed: of `requests`, those in flight when a process was killed: whether they were answered is not known.
    :ivar unconfirmed: in no other figure: the most tokens that requests without any reply may be billed for.
    """

    runs: int
    requests: int
    killed: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    unconfirmed: int
    usd: float | None
    unconfirmed_usd: float | None
    reasoning_tokens: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as somebody needs it who was not there.

    :ivar simulated: the endpoint was a simulator: figures say something about the engine, nothing about a model.
    :ivar endpoint: base URL without credentials, or the provider's name.
    :ivar wall_s: from the start of the command, set-up included.
    :ivar settings: everything about how the run was done; it holds no secrets.
    :ivar rate: what was found out of limits a minute; None where nobody looked.
    :ivar target: None without a latency target; `answer_form`: None where there was nothing to choose.
    :ivar escalation: a second model's part; None without one.
    :ivar votes: None where each record was asked for one answer; `confidence`: None where nothing says how sure answers
        are.
    :ivar variables: of a task with several; empty for one with one, or where nothing was asked.
    :ivar series: what the plots are drawn from; None in reports of before there were any, as `window`.
    :ivar gold: records with known answers that rode along; None without any.
    """

    report_version: int
    mode: Literal["real", "simulated"]
    simulated: bool
    task: str
    model: str
    endpoint: str
    started_at: str
    ended_at: str
    wall_s: float
    stop: StopReason | None
    records: Records
    failures: list[FailureKind]
    requests: Requests
    tokens: Tokens
    cost: Cost | None
    throughput: Throughput
    latency_s: Latencies
    queue_wait_s: QueueWait
    limits: LimitsUse
    batch_size: BatchSize
    quality: Quality | None
    over_time: list[Moment]
    all_runs: AllRuns
    notices: list[str]
    seed: int
    settings: dict[str, Any]
    versions: dict[str, str]
    no_cost: NoCost | None = None
    window: WindowUse | None = None
    rate: RateUse | None = None
    target: TargetUse | None = None
    answer_form: FormUse | None = None
    warm_prefix: WarmUse | None = None
    series: Series | None = None
    gold: GoldUse | None = None
    variables: list[VariableUse] = []
    votes: VotesUse | None = None
    confidence: Confidence | None = None
    escalation: EscalationUse | None = None
