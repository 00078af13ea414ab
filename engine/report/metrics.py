"""Counters of a run, updated by the pipeline and read by anybody at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from engine.decide.answer_form import AnswerForms
from engine.decide.batch_size import BatchSize
from engine.decide.concurrency import Window
from engine.decide.latency_target import LatencyTarget
from engine.decide.quality import QualityGuard
from engine.decide.rate import DiscoveredRate
from engine.decide.recovery import Verdict
from engine.decide.warmup import WarmUp
from engine.report.counted import CountedInput
from engine.report.escalation import EscalationLog
from engine.report.gold import Gilded
from engine.report.positions import PositionLog
from engine.report.variables import VariableLog
from engine.report.votes import VoteLog
from engine.report.waits import WaitLog
from engine.vocabulary.values import Usage, Waits


class Audited(Protocol):
    """The guard of the labels at work, as far as a report looks at it.

    :ivar requests: that only compared; `tokens_input` and `tokens_output` are theirs.
    :ivar cost_at_one: what the records so far would have cost one a request; the same unit as `cost`, of audits.
    """

    guard: QualityGuard
    forms: AnswerForms
    asks: bool
    requests: int
    tokens_input: int
    tokens_output: int
    cost: float
    cost_at_one: float


@dataclass
class Counters:
    """All of one run, from its start. Tokens are the endpoint's own, or estimated where it gave none.

    :ivar records_total: of the input, or None while it is not known.
    :ivar records_stored: of `records_ok` and `records_failed`, those whose result was in the store already.
    :ivar records_copied: of `records_ok` and `records_failed`, those that share the answer of an identical input.
    :ivar records_changed: ids that the store knows with another text; they are asked again.
    :ivar requests: HTTP attempts that have ended; `in_flight` those that have not.
    :ivar abandoned: of `requests`, those given up by a stop at once.
    :ivar unconfirmed_input: tokens of attempts that reached the endpoint and brought no usage (timeouts, resets, given
        up): it may bill them. Our estimate, and in no other count; `unconfirmed_output` is the most they may put out.
    :ivar counted: our own count of the input beside the endpoint's.
    :ivar malformed: replies with status 200 that left an asked record unanswered.
    :ivar tokens_reasoning: of `tokens_output`, what the model thought with.
    :ivar tokens_wasted: input and output tokens of attempts that gave no accepted answer.
    :ivar followed: (cause, what was done about it) -> attempts.
    :ivar waits: `wait_s` over time and by length.
    :ivar positions: where in a batch records went without an answer.
    :ivar variables: of a task with several, which were answered at once, and which asked again.
    :ivar votes: where records are asked several times: in which round they were settled, and how sure answers are.
    :ivar escalation: what went to a second model; None without one.
    :ivar auditor: the guard of the labels; None without one.
    :ivar gold: records with known answers that ride along; None without any.
    :ivar window: requests in flight as it is found out, with its moves; None where the user gave the number.
    :ivar rate: requests and tokens a minute as they are found out, with their moves; None where the user gave them.
    :ivar target: what a latency target allows, with its moves; None without one.
    :ivar batch_size: how large new batches are at present, and why; None before a run begins.
    :ivar warm_up: the first request that went alone for the prefix cache; None before a run begins.
    :ivar held_by: what the next request waits for at present: ``rpm``, ``tpm``, ``window`` or ``pause``.
    :ivar paused_until_s: nobody sends before it, as the endpoint asked or because it failed (loop time).
    :ivar held_until_s: so long is held back what alone is left to send, after errors or as the endpoint asked.
    :ivar tokens_estimated: input and output tokens, of the above, that are our own estimate.
    """

    records_total: int | None = None
    records_ok: int = 0
    records_failed: int = 0
    records_stored: int = 0
    records_copied: int = 0
    records_changed: int = 0
    changed_lines: list[int] = field(default_factory=list)
    requests: int = 0
    abandoned: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    http_429: int = 0
    retried: int = 0
    malformed: int = 0
    splits: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    followed: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens_input: int = 0
    tokens_cached: int = 0
    tokens_written: int = 0
    tokens_output: int = 0
    tokens_reasoning: int = 0
    tokens_wasted: int = 0
    tokens_estimated: int = 0
    unconfirmed_input: int = 0
    unconfirmed_output: int = 0
    counted: CountedInput = field(default_factory=CountedInput)
    foreign_ids: int = 0
    wait_s: Counter[str] = field(default_factory=Counter)
    waits: WaitLog = field(default_factory=WaitLog)
    positions: PositionLog = field(default_factory=PositionLog)
    variables: VariableLog = field(default_factory=VariableLog)
    votes: VoteLog = field(default_factory=VoteLog)
    escalation: EscalationLog | None = None
    notices: list[str] = field(default_factory=list)
    batch_size: BatchSize | None = None
    auditor: Audited | None = None
    gold: Gilded | None = None
    window: Window | None = None
    rate: DiscoveredRate | None = None
    target: LatencyTarget | None = None
    warm_up: WarmUp | None = None
    held_by: Callable[[], str | None] = lambda: None
    paused_until_s: float = 0.0
    held_until_s: float = 0.0
    first_sent_s: float | None = None
    last_result_s: float | None = None

    @property
    def records_done(self) -> int:
        """Records that have ended, well or not."""
        return self.records_ok + self.records_failed

    def add_usage(self, usage: Usage, *, gave: bool) -> None:
        """Count the tokens of one attempt; those of one that gave nothing are wasted."""
        both = usage.input_tokens + usage.output_tokens
        self.tokens_input += usage.input_tokens
        self.tokens_cached += usage.cached_tokens
        self.tokens_written += usage.written_tokens
        self.tokens_output += usage.output_tokens
        self.tokens_reasoning += usage.reasoning_tokens
        self.tokens_wasted += 0 if gave else both
        self.tokens_estimated += both if usage.estimated else 0

    def add_unconfirmed(self, input_tokens: int, output_tokens: int) -> None:
        """Count what an attempt without a reply may be billed for."""
        self.unconfirmed_input += input_tokens
        self.unconfirmed_output += output_tokens

    def add_verdict(self, verdict: Verdict) -> None:
        """Count why an attempt did not answer every record, and what is done about it."""
        self.retried += verdict.retry
        self.splits += verdict.split
        self.variables.add_failed(verdict.failed)
        if verdict.cause:
            self.causes[verdict.cause] += 1
            self.followed[verdict.cause, remedy(verdict)] += 1

    def add_waits(self, waits: Waits, now: float) -> None:
        """Count the seconds that a batch waited to be sent, by cause; it goes `now`."""
        self.waits.add(waits, now)
        for cause in waits.__struct_fields__:
            self.wait_s[cause.removesuffix("_s")] += getattr(waits, cause)

    def notice(self, text: str) -> None:
        """Something that the user should read once."""
        if text not in self.notices:
            self.notices.append(text)


def remedy(verdict: Verdict) -> str:
    """What is done about it, in the words of the report."""
    if verdict.retry:
        return "sent again"
    if verdict.split:
        return "halved"
    if verdict.fatal:
        return "ended"
    if verdict.children:
        return "asked again"
    return "given up" if verdict.failed else "only compared"
