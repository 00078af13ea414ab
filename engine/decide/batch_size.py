"""How many records a request should hold: a hill climb on predicted throughput. See docs/design/batch-size.md.

What a size is worth is measured, not believed: for each size that was tried, the valid records that came of it per
request, per token, per slot-second and per dollar, with every re-ask and split that it caused charged to it. The
throughput that a size would reach is the least of what each limit allows,

    T(B) = min( rpm/60 * valid/request, tpm/60 * valid/token, window * valid/slot-second )

and the limit that gives the least is the one that binds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import msgspec

from engine.vocabulary.config import Objective, RunConfig

DEFAULT_BATCH_SIZE = 5
"""Where the embedded model or the user wants a fixed one: most of the saving is there, little of the damage."""

_START = 2
_EVIDENCE = 3  # whole batches of a size before it is judged, at the least; a round of the window, which is out anyway
_MOST_EVIDENCE = 64
_ROUND = 12  # of a wide window, this much is enough
_COARSE, _FINE = 0.2, 0.1  # how well a rate must be known to judge twice the size, and the next size
_PATIENCE = 3  # times the evidence before a close comparison is taken as it stands
_PROBE_EVERY = 12  # batches between two probes; doubles each time that nothing better was found
_PROBE_SELDOM = 384
_BETTER = 1.02  # a move must promise so much more
_MEMORY = 96.0  # batches after which an observation of a size has faded to 1/e
_ALARM, _TRIAL_ALARM = (
    math.log(5_000.0),
    math.log(200.0),
)  # evidence for "it fails now", against "as ever", at which a size is left at once
_LEAST_FAILURE = 0.03
_FAILING = 0.7  # of its batches, where a size is no use any more
_TRIAL_FAILURE = 0.25  # a larger size may fail so much more than the present one and still pay
_FAILURE_COST = 2.5  # calls more for a batch that brings nothing: its halves, and now and then theirs
_UNTIL_JUDGED = 1 << 30
_OPEN_SHARE = 0.05
_HISTORY = 200
_LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one call took, and gave.

    :ivar origin: the size that was aimed at when its records were first sent: re-asks and halves are charged to it.
    :ivar first: it is the first send of its records, and not a re-ask, a half or a retry.
    :ivar size: records asked in this call.
    :ivar failed: records that were given up.
    :ivar tokens: charged against tokens/min.
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


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What limits the run at present. None means no such limit.

    :ivar window: requests in flight at once.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    window: float = 1.0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the size, with its reason in words.

    :ivar binding: the limit that bound then: ``requests``, ``tokens``, ``window`` or ``cost``.
    """

    at_s: float
    old: int
    new: int
    reason: str
    binding: str


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What a size is worth: valid records per second (or per unit of cost), and the limit that binds.

    :ivar noise: standard error of the rate, as a share of it.
    """

    rate: float
    binding: str
    noise: float = 0.0


class BatchSize(Protocol):
    """Decides how many records the next new batch should hold."""

    def size(self) -> int:
        """Records that the next new batch should hold, at the most."""
        ...

    def note_sent(self, origin: int) -> None:
        """A new batch goes out that aims at so many records."""
        ...

    def observe(self, work: Work, *, allowed: Allowed, now: float) -> None:
        """A call has ended."""
        ...

    def cap(self, size: int | None, *, reason: str, now: float) -> None:
        """Labels suffer above this size (None: no cap known). It may be raised again by later evidence."""
        ...

    def hold(self, holds: bool) -> None:
        """While it holds, nothing larger is tried: it is not known yet what it would do to the labels."""
        ...

    @property
    def settled_size(self) -> int:
        """The size at present, trials apart."""
        ...

    @property
    def next_size(self) -> int:
        """The next larger size that would be tried; the present one where there is none."""
        ...

    @property
    def binding(self) -> str:
        """The limit that binds at the present size; "" if nobody looks."""
        ...

    @property
    def history(self) -> list[Move]:
        """The newest moves, oldest first."""
        ...


class FixedBatchSize:
    """Always the same number of records."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __repr__(self) -> str:
        return f"FixedBatchSize({self._size})"

    def size(self) -> int:
        """Records that the next new batch should hold, at the most."""
        return self._size

    def note_sent(self, origin: int) -> None:
        """Nothing follows."""

    def observe(self, work: Work, *, allowed: Allowed, now: float) -> None:
        """Nothing follows."""

    def cap(self, size: int | None, *, reason: str, now: float) -> None:
        """The user has decided."""

    def hold(self, holds: bool) -> None:
        """The user has decided."""

    @property
    def settled_size(self) -> int:
        """The size."""
        return self._size

    @property
    def next_size(self) -> int:
        """The size."""
        return self._size

    @property
    def binding(self) -> str:
        """Not looked at."""
        return ""

    @property
    def history(self) -> list[Move]:
        """No moves."""
        return []


_SUMS = (
    "batches", "requests", "asked", "accepted", "tokens", "slot_s", "cost", "first_asked", "first_accepted",
    "per_record", "per_record2",
)  # fmt: skip


class _Tried:
    """Fading sums of what came of one size."""

    def __init__(self) -> None:
        self.batches = self.requests = self.asked = self.accepted = self.tokens = self.slot_s = self.cost = 0.0
        self.first_asked = self.first_accepted = self.per_record = self.per_record2 = 0.0
        self.alarm = 0.0
        self.open = 0  # records whose first send was not enough and that have not ended yet

    def add(self, work: Work) -> None:
        if work.first:
            self._fade()
            self.batches += 1
            self.first_asked += work.size
            self.first_accepted += work.accepted
            self.per_record += work.slot_s / max(1, work.size)
            self.per_record2 += (work.slot_s / max(1, work.size)) ** 2
        self.open += (work.size if work.first else 0) - work.accepted - work.failed
        self.requests += 1
        self.asked += work.size
        self.accepted += work.accepted
        self.tokens += work.tokens
        self.slot_s += work.slot_s
        self.cost += work.cost

    def _fade(self) -> None:
        share = math.exp(-1 / _MEMORY)
        for name in _SUMS:
            setattr(self, name, getattr(self, name) * share)

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

    def scatter(self, *, timed: bool) -> float:
        """Variance of one batch's cost, as a share of its mean squared: from failures, and where time counts from
        latencies as well."""
        failing = self.failing
        extra = _FAILURE_COST / (1.0 + _FAILURE_COST * failing)
        scatter = failing * (1.0 - failing) * extra * extra
        if timed and self.batches >= 2:
            mean = self.per_record / self.batches
            scatter += max(0.0, self.per_record2 / self.batches / max(mean, 1e-12) ** 2 - 1.0)
        return scatter

    def _noise(self, *, timed: bool) -> float:
        """Standard error of a rate, as a share of it."""
        return math.sqrt(self.scatter(timed=timed) / self.batches) if self.batches >= 2 else 1.0

    def worth(self, allowed: Allowed, objective: Objective) -> Worth:
        valid, counted = max(self.accepted, 1e-9), self._noise(timed=False)
        if objective == "cost":
            return Worth(rate=valid / max(self.cost, 1e-12), binding="cost", noise=counted)
        timed = self._noise(timed=True)
        worths = [Worth(rate=allowed.window * valid / max(self.slot_s, 1e-9), binding="window", noise=timed)]
        for binding, per_minute, used in (
            ("requests", allowed.requests_per_minute, self.requests),
            ("tokens", allowed.tokens_per_minute, self.tokens),
        ):
            if per_minute is not None:
                rate = per_minute / 60.0 * valid / max(used, 1e-9)
                worths.append(Worth(rate=rate, binding=binding, noise=counted))
        return min(worths, key=lambda worth: worth.rate)


class _Probe:
    """A size that is being tried with a bounded number of batches."""

    def __init__(self, size: int, *, batches: int, enough: int, climbs: bool) -> None:
        """:param batches: to be sent; `enough` of them make a judgement."""
        self.size = size
        self.left = batches
        self.enough = enough
        self.extended = 0
        self.climbs = climbs


class AdaptiveBatchSize:
    """Climbs by doubling while each size proves worth more than the one before, then looks around now and then.

    Every other size is tried with a few batches before it is used for all: what is in flight while the first of them
    come back would else be lost with them. Pure: the caller brings outcomes and time.
    """

    def __init__(self, *, most: int, objective: Objective = "records-per-second", start: int = _START) -> None:
        """:param most: the largest size that may be chosen."""
        self._most = max(1, most)
        self._objective: Objective = objective
        self._size = min(max(1, start), self._most)
        self._tried: dict[int, _Tried] = {}
        self._climbing = True
        self._probe: _Probe | None = None
        self._since_probe = 0
        self._probe_every = _PROBE_EVERY
        self._probe_up = True
        self._cap: int | None = None
        self._holds = False
        self._binding = "cost" if objective == "cost" else "window"
        self._history: deque[Move] = deque(maxlen=_HISTORY)

    def __repr__(self) -> str:
        doing = f"trying {self._probe.size}" if self._probe else "climbing" if self._climbing else "settled"
        return f"AdaptiveBatchSize({self._size}, {doing}, cap={self._cap}, binding={self._binding})"

    @property
    def binding(self) -> str:
        """The limit that binds at the present size."""
        return self._binding

    @property
    def tried_size(self) -> int:
        """The size that is being tried, or the present one."""
        return self._size if self._probe is None else self._probe.size

    @property
    def settled_size(self) -> int:
        """The size at present, trials apart."""
        return self._size

    @property
    def history(self) -> list[Move]:
        """The newest moves, oldest first."""
        return list(self._history)

    @property
    def _limit(self) -> int:
        return self._most if self._cap is None else max(1, min(self._most, self._cap))

    def size(self) -> int:
        """Records that the next new batch should hold, at the most: while a size is tried, some get that."""
        return self._probe.size if self._probe is not None and self._probe.left > 0 else self._size

    def note_sent(self, origin: int) -> None:
        """A new batch goes out that aims at so many records."""
        if self._probe is not None and origin == self._probe.size:
            self._probe.left -= 1

    def cap(self, size: int | None, *, reason: str, now: float) -> None:
        """Labels suffer above this size (None: no cap known). It may be raised again by later evidence."""
        self._cap = size
        if self._probe is not None and self._probe.size > self._limit:
            self._end_probe()
        if self._size > self._limit:
            self._move(self._limit, reason, now)
            self._climbing, self._probe = False, None

    def hold(self, holds: bool) -> None:
        """While it holds, nothing larger is tried: it is not known yet what it would do to the labels."""
        self._holds = holds

    @property
    def next_size(self) -> int:
        """The next larger size that would be tried; the present one where there is none."""
        if self._climbing:
            return min(2 * self._size, self._limit)
        return min(next((size for size in _LADDER if size > self._size), 2 * self._size), self._limit)

    # -- learning ----------------------------------------------------------------------------------------------------

    def observe(self, work: Work, *, allowed: Allowed, now: float) -> None:
        """A call has ended: judge, and perhaps move."""
        tried = self._tried.setdefault(work.origin, _Tried())
        tried.add(work)
        if self._probe is not None and work.origin == self._probe.size:
            if work.first and tried.raise_alarm(work, self._failing_allowed, alarm=_TRIAL_ALARM):
                self._end_probe()
            else:
                self._judge(self._probe, allowed, now)
        elif work.origin == self._size and work.first:
            self._since_probe += 1
            self._binding = tried.worth(allowed, self._objective).binding
            if self._size > 1 and tried.raise_alarm(work, tried.failing):
                self._fall(now)
            elif self._probe is None and tried.batches >= self._needed(allowed):
                self._look_around(allowed)

    @property
    def _failing_allowed(self) -> float:
        here = self._tried.get(self._size)
        return max(_TRIAL_FAILURE, 0.0 if here is None else here.failing)

    def _needed(self, allowed: Allowed) -> float:
        """Faded sum of so many batches as make a judgement."""
        return _faded(self._evidence(allowed, _COARSE))

    def _evidence(self, allowed: Allowed, noise: float) -> int:
        """Batches until a rate is known to so much of itself. Where the window binds, a round of it is out anyway."""
        timed = self._binding == "window"
        here = self._tried.get(self._size)
        scatter = 0.0 if here is None else here.scatter(timed=timed)
        window = min(_ROUND, round(allowed.window)) if timed else 0
        return max(_EVIDENCE, window, min(_MOST_EVIDENCE, math.ceil(scatter / noise**2)))

    def _worth(self, size: int, allowed: Allowed) -> Worth | None:
        tried = self._tried.get(size)
        return None if tried is None or tried.batches < 1 else tried.worth(allowed, self._objective)

    # -- trying another size -------------------------------------------------------------------------------------------

    def _look_around(self, allowed: Allowed) -> None:
        """Try twice the size while climbing; later, now and then, the next size up or down in turn."""
        if self._climbing:
            larger = min(2 * self._size, self._limit)
            self._climbing = larger > self._size
            if self._climbing and not self._holds:
                self._try(larger, allowed, climbs=True)
            return
        if self._since_probe < self._probe_every:
            return
        sizes = [self._next(up=self._probe_up), self._next(up=not self._probe_up)]
        self._probe_up = not self._probe_up
        wanted = next((size for size in sizes if size is not None), None)
        if wanted is not None:
            self._try(wanted, allowed, climbs=False)

    def _try(self, size: int, allowed: Allowed, *, climbs: bool) -> None:
        self._since_probe = 0
        enough = self._evidence(allowed, _COARSE if climbs else _FINE)
        batches = _UNTIL_JUDGED if climbs else enough  # where requests bind, each at half the size is one lost
        self._probe = _Probe(size, batches=batches, enough=enough, climbs=climbs)
        self._tried[size] = _Tried()  # what it was worth long ago says little

    def _next(self, *, up: bool) -> int | None:
        if up:
            larger = min(next((size for size in _LADDER if size > self._size), 2 * self._size), self._limit)
            return larger if larger > self._size and not self._holds else None
        return next((size for size in reversed(_LADDER) if size < self._size), None)

    def _judge(self, probe: _Probe, allowed: Allowed, now: float) -> None:
        there, here = self._worth(probe.size, allowed), self._worth(self._size, allowed)
        tried = self._tried[probe.size]
        if there is None or here is None or tried.batches < _faded(probe.enough * (1 + probe.extended)):
            return
        probe.left = 0
        if tried.open > _OPEN_SHARE * tried.first_asked:  # what the failures cost is not known yet
            return
        ratio, noise = there.rate / here.rate, math.hypot(there.noise, here.noise)
        if probe.climbs:  # twice the size at no loss is taken: further up it may pay
            better, open_yet = ratio >= 1.0, ratio < 1.0 <= ratio * (1 + noise)
        else:
            better = ratio > _BETTER * (1 + noise)
            open_yet = not better and ratio > _BETTER
        larger = probe.size > self._size
        if open_yet and probe.extended < _PATIENCE:
            probe.extended += 1
            probe.left = probe.enough
        elif better:
            self._probe, self._probe_every = None, _PROBE_EVERY
            self._probe_up = self._climbing = larger  # go on in the direction that paid
            reason = f"{probe.size} gives {ratio:.2f} x the valid records of {self._size} for the same {there.binding}"
            self._move(probe.size, reason, now)
        else:
            self._end_probe()

    def _end_probe(self) -> None:
        """Nothing better was found: look less often."""
        if self._probe is not None and not self._probe.climbs:
            self._probe_every = min(_PROBE_SELDOM, 2 * self._probe_every)
        self._probe, self._climbing = None, False
        self._since_probe = 0

    def _fall(self, now: float) -> None:
        """Leave a size that fails now, and forget what larger ones were worth."""
        failed = self._size
        for size in [size for size in self._tried if size >= failed]:
            del self._tried[size]
        self._move(max(1, failed // 2), f"batches of {failed} fail now", now)
        self._climbing, self._probe, self._probe_every = False, None, _PROBE_EVERY

    def _move(self, new: int, reason: str, now: float) -> None:
        if new != self._size:
            self._history.append(Move(at_s=now, old=self._size, new=new, reason=reason, binding=self._binding))
            self._size = new
            self._since_probe = 0


def _faded(batches: int) -> float:
    """The faded sum of so many batches."""
    share = math.exp(-1 / _MEMORY)
    return (1.0 - share**batches) / (1.0 - share) - 1e-9


def make_batch_size(config: RunConfig) -> BatchSize:
    """The size that the user fixed, or one that adapts."""
    packing = config.packing
    if packing.batch_size is not None:
        return FixedBatchSize(packing.batch_size)
    return AdaptiveBatchSize(most=packing.max_batch_size, objective=config.objective)
