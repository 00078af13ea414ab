"""How many requests should be in flight, found by measuring. See docs/design/concurrency.md.

Two things bound the window. Refusals give a *ceiling* that is cut once an episode and recovers on a cubic curve. For
servers that queue instead of refusing, the *throughput* at each level of load is measured in work a second, and the
window stays at the smallest level that has nearly all of it. Latency itself is no signal: a bigger batch takes longer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

import msgspec

from engine.decide.concurrency_sums import MEMORY, LoadSums
from engine.decide.refusals import Ceiling, Refusals
from engine.decide.work_model import WorkModel

DEFAULT_CAP = 256
_FIRST = 4
_STEP = 2.0
_GAIN = 0.04
"""Of throughput, for a doubling of the load: less is none. Measured: +12 % from 8 to 16, -0.5 % from 32 to 64."""
_MISSES = 2  # doublings without a gain before the climb ends: throughput has dents, and one round is noisy
_LONG_S = 10.0  # a second look beyond the knee is not worth rounds that take longer, nor a round twice as many replies
_SHARE = 0.983  # of the best throughput, less its standard error, that the chosen window must have; 95 % is promised
_USED = 0.8  # of the window, in flight at the time of sending, or the reply says nothing about this window
_APART = 1.4  # levels nearer than this are not compared: the difference would be noise
_ENOUGH = 500
_PRECISE = 0.01  # standard error of a level's pace; more replies than that are not waited for
_PROBE_STEP = 1.3
_TRUSTED = 60.0  # replies that a far level keeps at least
_PROBE_S = 20.0
_MAX_PROBE_S = 80.0
_ROUND_S = 30.0  # a round ends after that, however little it has seen: with one reply in two seconds, 150 take minutes
_KIND = 1.4  # times more or less work in a request: other requests than the ones that were measured
_HYSTERESIS = 1.12
_CHANGED = 1.3  # times slower or faster for two rounds: another server than the one that was measured
_FAILURES = 16  # of the last 40 ends: a few per cent of errors at random are no overload
_ENDS = 40
_HISTORY = 200


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What a request keeps from its admission, for when it ends.

    :ivar size: the window then.
    :ivar episode: cuts before it. A request from before the last cut says nothing about what the cut has left.
    :ivar in_flight: requests in flight when it was sent, itself included.
    :ivar paced: it had waited for a rate limit, so the window was not what held it.
    """

    size: int
    episode: int
    in_flight: int
    paced: bool


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the window, with the reason in words."""

    at_s: float
    old: int
    new: int
    reason: str


class _Phase(StrEnum):
    CLIMB = "climbing"
    DOWN = "looking below"
    HOLD = "holding"
    PROBE = "probing"


class Window:
    """The number of requests that may be in flight. Not thread-safe; owned by the pipeline.

    `admitted` gives a ticket for each request sent; when it ends, exactly one of the observations takes it back.
    All times `now` are seconds of one clock.
    """

    def __init__(
        self, *, cap: int = DEFAULT_CAP, first: int = _FIRST, seeks: bool = True, most_s: float = math.inf
    ) -> None:
        """
        :param cap: never more than this.
        :param first: where the slow start begins.
        :param seeks: False for a number that was given: it stays at the cap, but where so many are refused.
        :param most_s: that a request may take on average, or the window is not made larger.
        """
        self._most_s = most_s
        self._cap = max(1, cap)
        self._seeks = seeks
        self._wanted = self._size = min(max(1, first), self._cap) if seeks else self._cap
        self._refusals = Refusals()
        self._ceiling = Ceiling()
        self._model = WorkModel()
        self._phase = _Phase.CLIMB
        self._levels: dict[int, LoadSums] = {}
        self._round = LoadSums()
        self._failed: deque[bool] = deque(maxlen=_ENDS)
        self._misses = self._episode = self._odd_rounds = 0
        self._round_since_s = 0.0
        self._kind = 0.0
        self._home = self._size
        self._probes = 0
        self._probe_every_s = _PROBE_S
        self._settled_at_s = 0.0
        self._seen_s: float | None = None
        self._moves: deque[Move] = deque(maxlen=_HISTORY)

    def __repr__(self) -> str:
        return (
            f"Window({self._size} of {self._cap}, {self._phase}, ceiling={self._ceiling.size:.1f}, "
            f"episode={self._episode}, levels={self._speeds()}, {self._model!r})"
        )

    @property
    def size(self) -> int:
        """Requests that may be in flight now."""
        return self._size

    @property
    def history(self) -> Sequence[Move]:
        """The last moves, oldest first."""
        return tuple(self._moves)

    @property
    def settled(self) -> bool:
        """Whether the best window has been found, as far as it is known."""
        return self._phase in (_Phase.HOLD, _Phase.PROBE)

    def slowdown(self, in_flight: int) -> float:
        """How many times longer the same work takes with so many in flight than at the lowest load seen; 1 if unknown.

        What a request took, over this, can be compared with what others took at another load.
        """
        levels = sorted((sums.in_flight / sums.weight, self._pace(sums)) for sums in self._levels.values())
        if not levels:
            return 1.0
        points = [(math.log(load), pace / levels[0][1]) for load, pace in levels]
        return max(0.1, _between(points, math.log(max(1, in_flight))))

    # -- what happens -------------------------------------------------------------------------------------------

    def admitted(self, now: float, *, in_flight: int, paced: bool = False) -> Ticket:
        """A request is sent.

        :param in_flight: with it.
        :param paced: it waited for a rate limit before, so the window was not what bound.
        """
        return Ticket(size=self._size, episode=self._episode, in_flight=in_flight, paced=paced)

    def observe_success(
        self, ticket: Ticket, now: float, *, latency_s: float, uncached_input_tokens: int, output_tokens: int
    ) -> None:
        """A reply came, whatever it is worth as an answer."""
        self._failed.append(False)
        self._refusals.note_accepted(ticket.in_flight)
        used = not ticket.paced and ticket.in_flight >= _USED * ticket.size
        self._recover(now, used=used and ticket.episode == self._episode)
        if not self._seeks or not used or abs(ticket.size - self._size) > 0.1 * self._size or latency_s <= 0:
            return
        self._take_in(now, ticket.in_flight, latency_s, uncached_input_tokens, output_tokens)
        least = 0.0 if self._round.latency_s > _LONG_S * self._round.weight else 8.0
        if self._round.weight >= max(least, 0.9 * min(self._size, MEMORY / 2)):
            self._model.fit()
            self._decide(now)

    def observe_rate_limited(self, ticket: Ticket, now: float) -> None:
        """A request was refused with 429 for its number in flight, or for a reason that is not known.

        Refusals with a `Retry-After` are no different: that paces requests, and says nothing about the window.
        """
        # Below a full window it was a rate that refused: cutting here as well would starve the rate of its latency.
        if ticket.episode != self._episode or ticket.in_flight < _USED * ticket.size:
            return
        if self._refusals.show_limit(ticket.in_flight):
            self._cut(now, "refused (429)")

    def observe_failure(self, ticket: Ticket, now: float) -> None:
        """A timeout or an error of the server's. A few are life; many at once are an overload."""
        self._failed.append(True)
        if ticket.episode != self._episode:
            return
        count = sum(self._failed)
        if count >= _FAILURES:
            self._cut(now, f"{count} of the last {len(self._failed)} requests ended in timeouts or server errors")
            self._failed.clear()

    # -- refusals -----------------------------------------------------------------------------------------------

    def _cut(self, now: float, reason: str) -> None:
        self._ceiling.cut(self._size)
        self._episode += 1
        if self._phase is _Phase.PROBE:
            self._phase, self._wanted = _Phase.HOLD, self._home
        self._apply(now, reason)
        self._new_round()

    def _recover(self, now: float, *, used: bool) -> None:
        if used and self._seen_s is not None:
            self._ceiling.grow(min(now - self._seen_s, 1.0))
        self._seen_s = now
        self._apply(now, "growing back after refusals")

    # -- throughput ---------------------------------------------------------------------------------------------

    def _take_in(self, now: float, in_flight: int, latency_s: float, input_tokens: int, output_tokens: int) -> None:
        known = self._levels.get(_bin(self._size)) or self._round
        off = 0.0
        if known.weight >= 8:
            work = latency_s / self._pace(known)
            off = work / self._model.work(1, input_tokens, output_tokens) - 1
            self._model.observe(input_tokens, output_tokens, work)
        if not self._round.weight:
            self._round_since_s = now
        self._round.add(latency_s, in_flight, input_tokens, output_tokens, off)

    def _pace(self, sums: LoadSums) -> float:
        """Seconds of latency for one unit of work."""
        return sums.latency_s / self._model.work(sums.weight, sums.input_tokens, sums.output_tokens)

    def _speed(self, sums: LoadSums) -> float:
        """Work a second of all requests in flight together, by Little's law."""
        return sums.in_flight / sums.weight / self._pace(sums)

    def _speeds(self) -> dict[int, float]:
        return {round(s.in_flight / s.weight): round(self._speed(s), 1) for _, s in sorted(self._levels.items())}

    def _decide(self, now: float) -> None:
        self._note_kind()
        if self._phase is _Phase.CLIMB:
            self._climb(now)
        elif self._phase is _Phase.HOLD:
            self._hold(now)
        elif self._is_enough(now, self._size) or self._is_clearly_worse():
            if self._is_odd():
                self._levels.pop(_bin(self._size))
            self._store_round()
            self._settle(now)

    def _is_enough(self, now: float, least: float) -> bool:
        if now - self._round_since_s >= _ROUND_S:
            return True
        weight = self._round.weight
        return weight >= min(least, MEMORY / 2) and (weight >= _ENOUGH or self._round.error <= _PRECISE)

    def _is_clearly_worse(self) -> bool:
        """Whether a look below need not go on: with a small window it costs a third of the throughput."""
        home = self._levels.get(_bin(self._home))
        if self._phase is not _Phase.PROBE or self._size >= self._home or home is None or self._round.weight < 16:
            return False
        doubt = 3 * math.hypot(self._round.error, home.error)
        return self._speed(self._round) < (_SHARE - doubt) * self._speed(home)

    def _climb(self, now: float) -> None:
        below = [s for s in self._levels.values() if s.in_flight / s.weight * _APART <= self._size]
        if below:
            best = max(below, key=self._speed)
            gain = self._speed(self._round) / self._speed(best) - 1
            doubt = 2 * math.hypot(self._round.error, best.error)
            if abs(gain - _GAIN) < doubt and not self._is_enough(now, 1.5 * self._size):
                return
            self._misses = 0 if gain >= _GAIN else self._misses + 1
        mean_s = self._round.latency_s / self._round.weight
        self._store_round()
        slow = self._misses and mean_s > _LONG_S
        if self._misses >= _MISSES or slow or self._size >= self._cap or mean_s > self._most_s:
            self._settle(now)
            return
        if self._wanted <= self._size:
            self._wanted = min(self._cap, math.ceil(self._size * _STEP))
        self._apply(now, "throughput grows with the window" if below else "slow start")

    def _hold(self, now: float) -> None:
        if self._is_odd():
            self._odd_rounds += 1
            if self._odd_rounds >= 2:
                self._start_anew(now)
            return
        self._odd_rounds = 0
        self._store_round()
        if now - self._settled_at_s >= self._probe_every_s:
            self._probe(now)

    def _is_odd(self) -> bool:
        """Whether this round's pace is not that of its level; a round of another kind of requests is no evidence."""
        level = self._levels.get(_bin(self._size))
        if level is None:
            return False
        off = abs(math.log(self._pace(self._round) / self._pace(level)))
        doubt = 3 * math.hypot(self._round.error, level.error)
        return off > max(math.log(_CHANGED), doubt)

    def _note_kind(self) -> None:
        """Trust the levels less when requests become larger or smaller: no model of work is exact."""
        if self._round.weight < 16:
            return
        sums = self._round
        kind = self._model.work(sums.weight, sums.input_tokens, sums.output_tokens) / sums.weight
        if not self._kind:
            self._kind = kind
        elif not 1 / _KIND < kind / self._kind < _KIND:
            self._kind = kind
            self._probe_every_s = _PROBE_S
            for level in self._levels.values():
                level.fade(0.05)

    def _start_anew(self, now: float) -> None:
        """The server has become another one: what was measured of it does not hold."""
        slower = self._pace(self._round) > self._pace(self._levels[_bin(self._size)])
        self._levels.clear()
        self._store_round()
        self._odd_rounds = self._misses = 0
        self._probe_every_s = _PROBE_S
        self._phase = _Phase.DOWN if slower else _Phase.CLIMB
        self._wanted = max(1, self._size // 2) if slower else min(self._cap, math.ceil(self._size * _STEP))
        self._apply(now, f"the server has become {'slower' if slower else 'faster'}: measuring anew")

    def _probe(self, now: float) -> None:
        up = self._probes % 3 != 0  # more often above: what has come back shows nowhere else
        self._probes += 1
        wanted = self._above() if up else min(round(self._size / _PROBE_STEP), self._size - 1)
        wanted = max(1, min(self._cap, wanted))
        self._settled_at_s = now
        if wanted == self._size or wanted > self._ceiling.size:
            return
        self._home, self._wanted, self._phase = self._size, wanted, _Phase.PROBE
        self._apply(now, "looking above" if up else "looking below")

    def _store_round(self) -> None:
        """Merge the round into its level."""
        key = _bin(self._size)
        level = self._levels.get(key)
        if level is None:
            self._levels[key] = self._round
        else:
            level.merge(self._round)
        self._new_round()

    def _new_round(self) -> None:
        self._round = LoadSums()

    def _settle(self, now: float) -> None:
        """Go to the smallest window with nearly all of the best throughput, or look further where that is open."""
        knee, lowest = self._knee()
        if knee <= lowest and lowest > 1 and self._phase is not _Phase.PROBE:
            self._phase, self._wanted = _Phase.DOWN, max(1, lowest // 2)
            self._apply(now, "as fast with fewer: looking below")
            return
        self._settled_at_s = now
        if self._phase is not _Phase.PROBE:
            self._probes, self._settled_at_s = 0, -math.inf  # octaves are coarse: look a little below at once
        else:
            near = 1 / _HYSTERESIS < knee / self._home < _HYSTERESIS
            self._probe_every_s = min(2 * self._probe_every_s, _MAX_PROBE_S) if near else _PROBE_S
            if near:
                knee = self._home
            elif (knee > self._home) == (self._size > self._home):
                self._probes -= 1  # once more in the same direction, and soon
                self._settled_at_s = -math.inf
        self._phase, self._wanted = _Phase.HOLD, knee
        self._apply(now, "the smallest window with nearly all of the throughput")

    def _knee(self) -> tuple[int, int]:
        """The smallest window with `_SHARE` of the best throughput, and the smallest one measured."""
        points = sorted((s.in_flight / s.weight, self._pace(s)) for s in self._levels.values())
        lowest, highest = max(1, round(points[0][0])), max(1, round(points[-1][0]))
        highest = self._cap if highest >= 0.95 * self._cap else highest
        sizes = sorted({*(round(lowest * 1.04**k) for k in range(400) if lowest * 1.04**k < highest), lowest, highest})
        speeds = {size: size / _between(points, size) for size in sizes}
        # Less its error: the best of several noisy levels was partly lucky, and far levels are the noisiest.
        best = max(self._speed(s) * (1 - s.error) for s in self._levels.values())
        best = min(_SHARE * best, max(speeds.values()))
        knee = next(size for size in sizes if speeds[size] >= best)
        return (highest if knee >= 0.9 * highest else knee), lowest

    def _above(self) -> int:
        """The next level above; or the best of all, on which the choice rests, since it may have been lucky."""
        further = max(round(self._size * _PROBE_STEP), self._size + 1)
        best = max(self._levels.values(), key=self._speed)
        size = round(best.in_flight / best.weight)
        if size > _STEP * self._size:
            best.fade(
                min(1.0, max(0.5, _TRUSTED / best.weight))
            )  # too far for another look: its latency would be felt. It is trusted less instead.
            return further
        here = self._levels.get(_bin(self._size))
        lucky = here is not None and self._speed(best) > 1.02 * self._speed(here)
        return max(further, size) if lucky else further

    def _apply(self, now: float, reason: str) -> None:
        size = max(1, min(self._cap, self._wanted, math.floor(min(self._ceiling.size, self._cap) + 1e-9)))
        if size == self._size:
            return
        old, self._size = self._size, size
        last = self._moves[-1] if self._moves else None
        if last is not None and last.reason == reason and reason.startswith("growing"):
            old = self._moves.pop().old  # one entry for a recovery, not one for each step
        self._moves.append(Move(at_s=now, old=old, new=size, reason=reason))
        if abs(size - old) > 0.1 * old:
            self._new_round()


def _bin(size: int) -> int:
    """Levels are kept a fourth of an octave apart."""
    return round(4 * math.log2(size))


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    """Linear in between, constant beyond."""
    for (low, low_value), (high, high_value) in pairwise(points):
        if low <= at <= high and high > low:
            return low_value + (at - low) / (high - low) * (high_value - low_value)
    return points[0][1] if at <= points[0][0] else points[-1][1]
