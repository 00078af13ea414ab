"""What a batch size is worth: valid records a second that each limit allows. See docs/design/batch-size.md.

Measured, not believed: for each size that was tried, the valid records that came of it per request, per token, per
slot-second and per unit of cost, with every re-ask and split that it caused charged to it. The throughput that a size
would reach is the least of what each limit allows,

    T(B) = min( rpm/60 * valid/request, tpm/60 * valid/token, window * valid/slot-second )

and the limit that gives the least is the one that binds. Slot-seconds scatter by a tenth and more from call to call
where two sizes differ by some hundredths, so they are learned from the calls of all sizes together (`SlotTimes`), and
each size departs from that only as far as its own calls are many.
"""

from __future__ import annotations

import math

import msgspec

from engine.decide.line import MEMORY, Line
from engine.vocabulary.config import Objective

__all__ = ["MEMORY", "Allowed", "SlotTimes", "Tried", "Work", "Worth", "faded"]

_FADE = math.exp(-1 / MEMORY)
_ALARM = math.log(5_000.0)  # evidence for "it fails now", against "as ever", at which a size is left at once
_LEAST_FAILURE = 0.03
_FAILING = 0.7  # of its batches, where a size is no use any more
_FAILURE_COST = 2.5  # calls more for a batch that brings nothing: its halves, and now and then theirs
_DEPARTS = 0.05  # how far a size may be off the common line: a share of its time, standard deviation


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one call took, and gave.

    :ivar origin: the size that was aimed at when its records were first sent: re-asks and halves are charged to it.
    :ivar first: it is the first send of its records, and not a re-ask, a half or a retry.
    :ivar size: records asked in this call.
    :ivar failed: records that were given up.
    :ivar tokens: charged against tokens/min; `input_tokens` and `output_tokens` where these are limited apart.
    :ivar slot_s: seconds that it held its slot.
    :ivar cost: in dollars, or in any unit that is the same for all calls.
    """

    origin: int
    first: bool
    size: int
    accepted: int
    failed: int = 0
    tokens: float
    slot_s: float
    cost: float
    input_tokens: float = 0.0
    output_tokens: float = 0.0


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What limits the run at present. None means no such limit.

    :ivar window: requests in flight at once.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    window: float = 1.0


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What a size is worth: valid records per second (or per unit of cost), and the limit that binds.

    :ivar noise: standard error of the rate, as a share of it.
    :ivar tokens: for one valid record.
    """

    rate: float
    binding: str
    noise: float = 0.0
    tokens: float = 0.0


class SlotTimes(Line):
    """Seconds that a call holds its slot."""

    @property
    def base_s(self) -> float:
        """Of every call."""
        return self.base

    @property
    def each_s(self) -> float:
        """Of every record in it."""
        return self.each

    def expected_s(self, calls: float, records: float) -> float:
        """For so many calls with so many records together."""
        return self.expected(calls, records)


_SUMS = (
    "batches", "requests", "asked", "accepted", "tokens", "input_tokens", "output_tokens", "cost",
    "first_asked", "first_accepted",
    "timed_batches", "timed_calls", "timed_asked", "timed_accepted", "slot_s",
)  # fmt: skip


class Tried:
    """Fading sums of what came of one size."""

    def __init__(self) -> None:
        self.batches = self.requests = self.asked = self.accepted = self.tokens = self.cost = 0.0
        self.input_tokens = self.output_tokens = 0.0
        self.first_asked = self.first_accepted = 0.0
        self.timed_batches = self.timed_calls = self.timed_asked = self.timed_accepted = self.slot_s = 0.0
        self.alarm = 0.0
        self.open = 0  # records whose first send was not enough and that have not ended yet

    def add(self, work: Work, *, timed: bool) -> None:
        """A call has ended.

        :param timed: whether the time that it took says anything of the present.
        """
        if work.first:
            for name in _SUMS:
                setattr(self, name, getattr(self, name) * _FADE)
            self.batches += 1
            self.first_asked += work.size
            self.first_accepted += work.accepted
        self.open += (work.size if work.first else 0) - work.accepted - work.failed
        self.requests += 1
        self.asked += work.size
        self.accepted += work.accepted
        self.tokens += work.tokens
        self.input_tokens += work.input_tokens
        self.output_tokens += work.output_tokens
        self.cost += work.cost
        if timed:
            self.timed_batches += work.first
            self.timed_calls += 1
            self.timed_asked += work.size
            self.timed_accepted += work.accepted
            self.slot_s += work.slot_s

    def forget_times(self) -> None:
        """What calls took was at another load."""
        self.timed_batches = self.timed_calls = self.timed_asked = self.timed_accepted = self.slot_s = 0.0

    @property
    def failing(self) -> float:
        """Of the records in first sends, the share that was not answered at once."""
        return (1.0 + self.first_asked - self.first_accepted) / (20.0 + self.first_asked)

    def raise_alarm(self, work: Work, usual: float, *, alarm: float = _ALARM) -> bool:
        """Whether a batch is one too many that fails more than usual: Page's CUSUM test (Biometrika, 1954).

        Each batch adds the log-likelihood ratio of failing with probability `_FAILING` (or halfway to 1) against
        failing as usual.
        """
        usual = max(_LEAST_FAILURE, usual)
        changed = max(_FAILING, (1.0 + usual) / 2.0)
        failed = 1.0 - work.accepted / max(1, work.size)
        step = failed * math.log(changed / usual) + (1.0 - failed) * math.log((1.0 - changed) / (1.0 - usual))
        self.alarm = max(0.0, self.alarm + step)
        return self.alarm >= alarm

    def scatter(self, times: SlotTimes | None) -> float:
        """Variance of one batch's cost, as a share of its mean squared: from failures, and from latencies as well where
        time counts (`times`)."""
        failing = self.failing
        extra = _FAILURE_COST / (1.0 + _FAILURE_COST * failing)
        return failing * (1.0 - failing) * extra * extra + (0.0 if times is None else times.scatter**2)

    def worth(self, allowed: Allowed, objective: Objective, times: SlotTimes) -> Worth:
        """What it is worth under these limits."""
        valid = max(self.accepted, 1e-9)
        counted = math.sqrt(self.scatter(None) / self.batches) if self.batches >= 2 else 1.0
        tokens = self.tokens / valid
        if objective == "cost":
            return Worth(rate=valid / max(self.cost, 1e-12), binding="cost", noise=counted, tokens=tokens)
        worths = [self._timed_worth(allowed.window, times, counted, tokens)]
        for binding, per_minute, used in (
            ("requests", allowed.requests_per_minute, self.requests),
            ("tokens", allowed.tokens_per_minute, self.tokens),
            ("tokens", allowed.input_tokens_per_minute, self.input_tokens),
            ("tokens", allowed.output_tokens_per_minute, self.output_tokens),
        ):
            if per_minute is not None:
                rate = per_minute / 60.0 * valid / max(used, 1e-9)
                worths.append(Worth(rate=rate, binding=binding, noise=counted, tokens=tokens))
        return min(worths, key=lambda worth: worth.rate)

    def _timed_worth(self, window: float, times: SlotTimes, counted: float, tokens: float) -> Worth:
        """By the time that its calls took: the common line, and what is its own as far as its calls are many.

        A posterior mean: how far sizes are off the line is taken as normal with `_DEPARTS`, the mean of its own calls
        as normal around that.
        """
        expected = max(times.expected_s(self.timed_calls, self.timed_asked), 1e-9)
        if self.timed_batches < 1.0:  # at this load nothing has come back yet: the line alone
            expected = max(times.expected_s(self.requests, self.asked), 1e-9)
            return Worth(rate=window * self.accepted / expected, binding="window", noise=1.0, tokens=tokens)
        error = times.scatter / math.sqrt(self.timed_batches)
        departs = max(_DEPARTS, self.failing)  # replies that fail take any time: then its own calls count
        own = departs**2 / (departs**2 + error**2)
        slot_s = expected * (max(self.slot_s, 1e-9) / expected) ** own
        noise = math.hypot(error * math.sqrt(own), counted)
        rate = window * max(self.timed_accepted, 1e-9) / slot_s
        return Worth(rate=rate, binding="window", noise=noise, tokens=tokens)


def faded(batches: int) -> float:
    """The faded sum of so many batches."""
    return (1.0 - _FADE**batches) / (1.0 - _FADE) - 1e-9
