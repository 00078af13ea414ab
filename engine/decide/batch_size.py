"""How many records a request should hold: a hill climb on predicted throughput. See docs/design/batch-size.md.

What a size is worth is in `size_worth`. Of sizes that are worth nearly the same, the one that takes fewer tokens wins.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import msgspec

from engine.decide.size_worth import Allowed, SlotTimes, Tried, Work, Worth, faded
from engine.vocabulary.config import Objective, RunConfig

__all__ = [
    "DEFAULT_BATCH_SIZE", "AdaptiveBatchSize", "Allowed", "BatchSize", "FixedBatchSize", "Move", "Work",
    "make_batch_size", "next_below",
]  # fmt: skip

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
_TIE = 0.98  # of the worth is enough for a size that takes fewer tokens; all such moves together give up no more
_SAVES = 0.99  # of the tokens is fewer
_TIE_NOISE = 0.04  # how well the worth of such a size must be known
_TRIAL_ALARM = math.log(200.0)  # evidence for "it fails now", against "as ever", at which a trial is ended at once
_TRIAL_FAILURE = 0.25  # a larger size may fail so much more than the present one and still pay
_UNTIL_JUDGED = 1 << 30
_OPEN_SHARE = 0.05
_OTHER_LOAD = 1.4  # times a wider or narrower window: what calls took then says nothing of now
_HISTORY = 200
_LADDER = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256)


def next_below(size: int) -> int:
    """The next smaller size that would be tried; 1 where there is none."""
    return next((smaller for smaller in reversed(_LADDER) if smaller < size), 1)


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the size, with its reason in words.

    :ivar binding: the limit that bound then: ``requests``, ``tokens``, ``window`` or ``cost``.
    """

    at_s: float
    old: int
    new: int
    reason: str
    binding: str


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

    def restart(self) -> None:
        """Records are asked otherwise from now on: what was learned of sizes is of the past."""
        ...

    def worth(self, allowed: Allowed) -> Worth | None:
        """What the present size is worth; None if nobody knows."""
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

    def restart(self) -> None:
        """Nothing was learned."""

    def worth(self, allowed: Allowed) -> Worth | None:
        """Not looked at."""
        return None

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
        self._tried: dict[int, Tried] = {}
        self._times = SlotTimes()
        self._load = 0.0  # the window at which times are taken
        self._load_since_s = 0.0
        self._given_up = 1.0  # what ties have cost together, as a share of the worth
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

    def restart(self) -> None:
        """Records are asked otherwise from now on: climb again from the present size."""
        self._tried, self._times, self._load = {}, SlotTimes(), 0.0
        self._climbing, self._probe, self._given_up = True, None, 1.0

    def worth(self, allowed: Allowed) -> Worth | None:
        """What the present size is worth; None if nobody knows."""
        return self._worth(self._size, allowed)

    @property
    def next_size(self) -> int:
        """The next larger size that would be tried; the present one where there is none."""
        if self._climbing:
            return min(2 * self._size, self._limit)
        return self._step_up

    # -- learning ----------------------------------------------------------------------------------------------------

    def observe(self, work: Work, *, allowed: Allowed, now: float) -> None:
        """A call has ended: judge, and perhaps move."""
        tried = self._tried.setdefault(work.origin, Tried())
        tried.add(work, timed=self._take_time(work, allowed.window, now))
        if self._probe is not None and work.origin == self._probe.size:
            if work.first and tried.raise_alarm(work, self._failing_allowed, alarm=_TRIAL_ALARM):
                self._end_probe()
            else:
                self._judge(self._probe, allowed, now)
        elif work.origin == self._size and work.first:
            self._since_probe += 1
            self._binding = tried.worth(allowed, self._objective, self._times).binding
            if self._size > 1 and tried.raise_alarm(work, tried.failing):
                self._fall(now)
            elif self._probe is None and self._seen(tried) >= faded(self._evidence(allowed, _COARSE)):
                self._look_around(allowed)

    def _take_time(self, work: Work, window: float, now: float) -> bool:
        """Learn from the time of a call, unless it was sent when the window was another."""
        if not self._load / _OTHER_LOAD <= window <= self._load * _OTHER_LOAD:
            self._load, self._load_since_s, self._times = window, now, SlotTimes()
            for tried in self._tried.values():
                tried.forget_times()
        timed = now - work.slot_s >= self._load_since_s
        if timed and 2 * work.accepted >= work.size:  # what failed may have taken any time
            self._times.observe(work.size, work.slot_s)
        return timed

    def _seen(self, tried: Tried) -> float:
        """Batches of a size that say what it is worth."""
        return tried.timed_batches if self._binding == "window" else tried.batches

    @property
    def _failing_allowed(self) -> float:
        here = self._tried.get(self._size)
        return max(_TRIAL_FAILURE, 0.0 if here is None else here.failing)

    def _evidence(self, allowed: Allowed, noise: float) -> int:
        """Batches until a rate is known to so much of itself. Where the window binds, a round of it is out anyway."""
        timed = self._binding == "window"
        here = self._tried.get(self._size)
        scatter = 0.0 if here is None else here.scatter(self._times if timed else None)
        window = min(_ROUND, round(allowed.window)) if timed else 0
        return max(_EVIDENCE, window, min(_MOST_EVIDENCE, math.ceil(scatter / noise**2)))

    def _worth(self, size: int, allowed: Allowed) -> Worth | None:
        tried = self._tried.get(size)
        return None if tried is None or tried.batches < 1 else tried.worth(allowed, self._objective, self._times)

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
        sizes = [self._remembered(allowed), self._next(up=self._probe_up), self._next(up=not self._probe_up)]
        self._probe_up = not self._probe_up
        wanted = next((size for size in sizes if size is not None), None)
        if wanted is not None:
            self._try(wanted, allowed, climbs=False)

    def _remembered(self, allowed: Allowed) -> int | None:
        """The size that was worth most when it was left, if that is more than the present one is worth now.

        Several steps of a climb that each looked right may together be wrong.
        """
        here = self._worth(self._size, allowed)
        most = self._size if self._holds else self._limit
        worths = {size: self._worth(size, allowed) for size in self._tried if size <= most}
        best = max(worths, key=lambda size: worth.rate if (worth := worths[size]) else 0.0, default=self._size)
        there = worths.get(best)
        if here is None or there is None or best == self._size:
            return None
        return best if there.rate > _BETTER * (1.0 + here.noise) * here.rate else None

    def _try(self, size: int, allowed: Allowed, *, climbs: bool) -> None:
        enough = self._evidence(allowed, _COARSE if climbs else _FINE)
        batches = _UNTIL_JUDGED if climbs else enough  # where requests bind, each at half the size is one lost
        self._probe = _Probe(size, batches=batches, enough=enough, climbs=climbs)
        self._tried[size] = Tried()  # what it was worth long ago says little

    @property
    def _step_up(self) -> int:
        """The next size of the ladder, and twice the size beyond it, as far as the limit."""
        return min(next((size for size in _LADDER if size > self._size), 2 * self._size), self._limit)

    def _next(self, *, up: bool) -> int | None:
        if up:
            larger = self._step_up
            return larger if larger > self._size and not self._holds else None
        return next((size for size in reversed(_LADDER) if size < self._size), None)

    def _judge(self, probe: _Probe, allowed: Allowed, now: float) -> None:
        there, here = self._worth(probe.size, allowed), self._worth(self._size, allowed)
        tried = self._tried[probe.size]
        if there is None or here is None or self._seen(tried) < faded(probe.enough * (1 + probe.extended)):
            return
        probe.left = 0
        if tried.open > _OPEN_SHARE * tried.first_asked:  # what the failures cost is not known yet
            return
        ratio, noise = there.rate / here.rate, math.hypot(there.noise, here.noise)
        saves = self._objective != "cost" and there.tokens < _SAVES * here.tokens
        tied = saves and ratio * self._given_up >= _TIE
        if probe.climbs:  # twice the size at no loss is taken: further up it may pay
            better, open_yet = ratio >= 1.0 or tied, ratio < 1.0 <= ratio * (1 + noise)
        else:
            better = ratio > _BETTER * (1 + noise) or (tied and noise <= _TIE_NOISE)
            open_yet = not better and (ratio > _BETTER or tied)
        if better:
            self._take(probe, there, ratio, now)
        elif open_yet and probe.extended < _PATIENCE:
            probe.extended += 1
            probe.left = probe.enough
        else:
            self._end_probe()

    def _take(self, probe: _Probe, there: Worth, ratio: float, now: float) -> None:
        """Go to the size that was tried."""
        larger = probe.size > self._size
        self._given_up = min(1.0, self._given_up * ratio)
        self._probe, self._probe_every = None, _PROBE_EVERY
        self._probe_up = self._climbing = larger  # go on in the direction that paid
        reason = f"{probe.size} gives {ratio:.2f} x the valid records of {self._size} for the same {there.binding}"
        self._move(probe.size, reason if ratio > 1.0 else f"{reason}, and takes fewer tokens", now)

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


def make_batch_size(config: RunConfig) -> BatchSize:
    """The size that the user fixed, or one that adapts."""
    packing = config.packing
    if packing.batch_size is not None:
        return FixedBatchSize(packing.batch_size)
    return AdaptiveBatchSize(most=packing.max_batch_size, objective=config.objective)
