"""Requests and tokens a minute that nobody has told us, found by asking. See docs/design/concurrency.md.

No pacing until something is refused again and again. A refusal then means that the endpoint's bucket is empty; so
between two refusals what was admitted is what flowed in, and that over the time between is the limit, however much the
bucket can hold. A lone refusal below a rate that was borne a moment ago is an accident.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.decide.rate_refusals import RateRefusals
from engine.decide.sent_log import SentLog

Dimension = Literal["requests", "tokens"]

_FIRST_CUT = 0.7  # of the measured rate, where the limit cannot be computed yet (botocore's adaptive retries)
_AGAIN_CUT = 0.5
_CUT = 0.9  # of the computed limit: what was over is paid back, and the next refusal is some twenty seconds away
_RECOVER_S = 10.0
_RECOVER_REQUESTS = 20.0  # where ten seconds are only a few requests, or every tenth of them would be refused
_MAX_RECOVER_S = 40.0
_LEAST_RECOVER_REQUESTS = 10.0  # or a limit of a few requests a minute is passed again before it can be computed
_REFUND = 0.7  # of a refused request, to the bucket that paces: the next goes after a third of a turn
_LEAST_S = 2.0  # between refusals, or the few requests between them say nothing
_LEAST_SENT = 4
_MEASURED_S = 5.0
_BURST_S = 0.5  # of the rate may go at once: providers enforce a minute's limit by the second
_TRIES = 3  # requests on their way; so many are sent only where something works
_NEAR = 0.95  # of the rate last believed in: from there on one refusal is enough
_FALLS = 3  # limits, each this much lower than the one before, and together so far: they do not explain the refusals
_LOWER, _FALLEN = 0.93, 0.61
_RISES = 2  # limits in a row that are not lower: that was no fall
_FULL = 0.9
_LOOKS = 2.0  # times as long as one request takes of the rate: more time without a look was idle
_LEAST_PROBE_S, _MOST_PROBE_S = 0.5, 4.0  # between requests while nothing is let in
_DRY_REFUSALS, _DRY_GAPS = 3, 4.0  # with so many refusals, and so many times as long as requests are apart
_DRY_S = 3.0  # refusals alone: no more cuts
_CLOSED_S = 5.0  # without anything let in: a limit on a window of time, or a bucket so slow that it does not matter
_MINUTE_SHARE = 0.5  # of what the last sixty seconds let in: no cut goes below it
_KNOWN = 0.98  # of a limit that headers name; the endpoint's clock is not ours
_HISTORY = 200


class RateTicket(msgspec.Struct, frozen=True, kw_only=True):
    """What a request keeps from when it was sent, for when it ends.

    :ivar number: of the request.
    :ivar at_s: when it was sent.
    :ivar tokens: that it was charged.
    :ivar episodes: cuts before it, of requests and of tokens.
    """

    number: int
    at_s: float
    tokens: int
    episodes: tuple[int, int]


class RateMove(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a rate, per minute; None is no pacing."""

    at_s: float
    dimension: Dimension
    old: float | None
    new: float | None
    reason: str


class _Quota:
    """One limit: what is believed of it, and a bucket that paces by that."""

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        self.episode = 0
        self._sent = SentLog()
        self._refusals = RateRefusals()
        self.named = False
        self._is_computed = False
        self._falls = self._rises = 0
        self._before_falls: float | None = None
        self._known: float | None = None  # per second, as all rates here
        self._top: float | None = None
        self._cut_to = _CUT
        self._used_s = 0.0
        self._recover_s = _RECOVER_S
        self._has_let_in = False
        self._not_refused = 0  # of all sent, perhaps not answered yet
        self._emptied_s: float | None = None
        self._opened_s: float | None = None  # first let in after a time in which nothing was
        self._dry_since_s: float | None = None  # first refused of those since which nothing was let in
        self._dry_refusals = 0
        self._probe_s = 0.0  # between requests while nothing is admitted; 0 while something is
        self._next_probe_s = -math.inf
        self._first_s = math.inf
        self._level = 0.0
        self._at_s: float | None = None

    def __repr__(self) -> str:
        rate, known = self.rate, self._known
        shown = "unpaced" if rate is None else f"{60 * rate:.4g} a minute, level {self._level:.4g}"
        return f"{self.dimension}: {shown}" + ("" if known is None else f", limit {60 * known:.4g} by headers")

    @property
    def rate(self) -> float | None:
        """A second, or None while nothing limits."""
        found = None
        if self._top is not None:
            # CUBIC: steep back to the last good rate, flat near it, steep again beyond; scale-free in the rate.
            found = self._top * (1 - (1 - self._cut_to) * (1 - self._used_s / self._recover_s) ** 3)
        known = None if self._known is None else self._known * _KNOWN
        both = [rate for rate in (found, known) if rate is not None]
        return min(both) if both else None

    def delay_s(self, now: float, amount: int) -> float:
        rate = self._refill(now)
        if rate is None:
            return 0.0
        # What is larger than the bucket goes when that is nearly full, into debt, and whoever comes after pays. A full
        # one we would run after until it holds the request: it grows with the rate while we wait.
        paced_s = max(0.0, (min(amount, _FULL * self._burst(rate)) - self._level) / rate)
        return max(self._next_probe_s - now, 0.0) if self._probe_s else paced_s

    def spend(self, now: float, amount: int) -> None:
        rate = self._refill(now)
        self._first_s = min(self._first_s, now)
        self._not_refused += 1
        self._sent.add(now, amount)
        self._refusals.note_sent(calm=self._is_calm)
        if self._probe_s:
            self._next_probe_s = now + self._probe_s
        elif rate is not None:
            self._level -= amount

    @property
    def top(self) -> float | None:
        """The limit a second that is believed in, without the way up to it and past it; None for none."""
        known = [rate for rate in (self._top, self._known) if rate is not None]
        return min(known) if known else None

    @property
    def _is_calm(self) -> bool:
        """Whether the rate is well below one that was borne a moment ago, so that it is no reason for a refusal."""
        rate, top = self.rate, self.top
        return self._is_computed and rate is not None and top is not None and rate < _NEAR * top

    def refuse(self, ticket_at_s: float, amount: int, now: float) -> bool:
        """A request that was sent since the last cut was refused: believe less, where that shows a limit."""
        self._refill(now)
        self._sent.add(ticket_at_s, -amount)
        self._not_refused -= 1
        if not self._has_let_in and self._not_refused < _TRIES:
            return False  # nothing was let in yet, so there is nothing to take a rate from: pauses must do
        near = self._is_computed and not self._is_calm
        measured = self._is_measured(ticket_at_s)
        shows = self._refusals.show_limit(paced=self.rate is not None, near=near, calm=self._is_calm, measured=measured)
        self._dry_since_s = ticket_at_s if self._dry_since_s is None else self._dry_since_s
        self._dry_refusals += 1
        if self._top is not None and now - self._dry_since_s >= _DRY_S:
            # Nothing comes through, so another cut would be about the same limit. Ask now and then when that ends.
            self._probe_s = min(_MOST_PROBE_S, 2 * self._probe_s or _LEAST_PROBE_S)
            self._next_probe_s = now + self._probe_s
            return False
        if not shows:
            return False
        share = self._refusals.share
        self._refusals.restart()
        self.episode += 1
        before = self._top
        top, self._cut_to = self._estimate(ticket_at_s, now)
        # Where a limit is on any sixty seconds, what one clump of requests left free says little of the next minute.
        _, minute = self._sent.between(ticket_at_s - 60.0, ticket_at_s)
        self._top = max(top, _MINUTE_SHARE * minute / 60.0)
        self._is_computed = measured
        self._note_fall(before, share)
        mean = max(1.0, self._sent.mean)
        wanted_s = max(_RECOVER_S, _RECOVER_REQUESTS * mean / self._top)
        self._recover_s = min(wanted_s, max(_MAX_RECOVER_S, _LEAST_RECOVER_REQUESTS * mean / self._top))
        if self._opened_s is not None:  # too much would close a whole window of time again
            self._recover_s = _MAX_RECOVER_S
        self._emptied_s = ticket_at_s
        self._used_s = 0.0
        # Where requests are far apart, what was refused a little too soon will be let in a little later: a bucket that
        # holds one request runs over while a whole turn is waited, and what it lets in looks like a lower limit.
        refund = _REFUND * amount if near and measured and wanted_s > _MAX_RECOVER_S else 0.0
        self._level = min(self._level, 0.0) + refund
        return True

    def accept(self, ticket_at_s: float) -> str | None:
        """A request was let in; why the rate has changed, if it has."""
        self._has_let_in = True
        if self._dry_since_s is None or ticket_at_s <= self._dry_since_s:
            return None
        dry_s, dry_since_s = ticket_at_s - self._dry_since_s, self._dry_since_s
        refusals, self._dry_refusals = self._dry_refusals, 0
        self._probe_s, self._dry_since_s = 0.0, None
        usual_s = max(1.0, self._sent.mean) / (self.rate or math.inf)  # between two requests
        if self._top is None or refusals < _DRY_REFUSALS or dry_s < max(_CLOSED_S, _DRY_GAPS * usual_s):
            return None
        # A limit on a window of time lets nothing in until the window has passed: what it let in before, over the time
        # from the last opening to this one, is the limit. The cuts meanwhile were about nothing.
        began_s = max(self._first_s if self._opened_s is None else self._opened_s, self._sent.complete_since_s)
        _, amount = self._sent.between(began_s - 1e-9, dry_since_s)
        self._top, self._cut_to, self._is_computed = max(amount, 1) / (ticket_at_s - began_s), _CUT, True
        self._opened_s = self._emptied_s = ticket_at_s
        self._falls, self._before_falls = 0, None
        self._used_s, self._level, self._recover_s = 0.0, 0.0, _MAX_RECOVER_S
        if self.dimension == "tokens" and not self.named:
            self._top = None  # nobody has named tokens: what requests allow is enough to know, and batches may grow
        return f"nothing was let in for {dry_s:.0f} s"

    def _note_fall(self, before: float | None, share: float) -> None:
        """A limit that was computed is right. Where the next ones are lower and lower, refusals have another reason."""
        top = self._top
        if top is None:
            return
        lower = before is not None and top < _LOWER * before
        self._rises = 0 if lower else self._rises + 1
        if self._before_falls is None or self._rises >= _RISES or top >= self._before_falls:
            self._falls, self._before_falls = 0, top if self._is_computed else None
            return
        self._falls += lower
        if self._falls >= _FALLS and top < _FALLEN * self._before_falls:
            self._refusals.take_for_usual(share)
            self._top, self._falls = self._before_falls, 0

    def forget(self, ticket_at_s: float, amount: int) -> None:
        """A request from before the last cut was refused as well: it did not count."""
        self._not_refused -= 1
        self._sent.add(ticket_at_s, -amount)

    def _estimate(self, at_s: float, now: float) -> tuple[float, float]:
        if self._emptied_s is not None and self._is_measured(at_s):
            since_s = max(self._emptied_s, self._sent.complete_since_s)
            _, amount = self._sent.between(since_s, at_s)
            return amount / (at_s - since_s), _CUT
        paced = self.rate
        if paced is not None and self._top is not None:
            return paced, _AGAIN_CUT  # refused again at once: far above the limit, and the curve must not lead back
        _, amount = self._sent.between(now - _MEASURED_S, now)
        # At least one request: where all of the last seconds was refused, the rate of tokens would be next to nothing.
        return max(amount, self._sent.mean, 1) / min(_MEASURED_S, max(now - self._first_s, 1.0)), _FIRST_CUT

    def _is_measured(self, at_s: float) -> bool:
        """Whether enough was sent since the bucket was empty to compute the limit."""
        if self._emptied_s is None or at_s - self._emptied_s < _LEAST_S:
            return False
        count, amount = self._sent.between(self._emptied_s, at_s)
        return count >= _LEAST_SENT and amount > 0

    def learn(self, per_second: float) -> bool:
        """The endpoint has said its limit; whether that is news."""
        if self._known is not None and abs(per_second / self._known - 1) < 0.01:
            return False
        if self._known is not None and per_second > self._known:
            self._top = None  # what refusals taught was about the smaller limit
        self._known = per_second
        self.named = True
        return True

    def sync(self, level: float, now: float) -> None:
        """The endpoint has so much left: never raise our level to it, it may be shared."""
        if self._refill(now) is not None:
            self._level = min(self._level, level)

    def _burst(self, rate: float) -> float:
        return max(1.0, rate * _BURST_S)

    def _refill(self, now: float) -> float | None:
        rate = self.rate
        if self._at_s is not None and rate is not None and now > self._at_s:
            passed_s = now - self._at_s
            full = self._level >= self._burst(rate)
            self._level = min(self._burst(rate), self._level + rate * passed_s)
            if not full:  # the curve stands still while the rate is not used; nobody looks between two slow requests
                self._used_s += min(passed_s, max(1.0, _LOOKS * max(1.0, self._sent.mean) / rate))
        self._at_s = now if self._at_s is None else max(self._at_s, now)
        return self.rate


class DiscoveredRate:
    """Paces by limits that it finds. Not thread-safe; owned by the dispatcher.

    For each request in turn: wait `delay_s`, then `spend`; `observe_rate_limited` if it is refused. Tokens may be
    counted in any way that is always the same: what is found is in the same unit. All times
    `now` are seconds of one clock.
    """

    def __init__(self) -> None:
        self._quotas: dict[Dimension, _Quota] = {"requests": _Quota("requests"), "tokens": _Quota("tokens")}
        self._number = 0
        self._moves: deque[RateMove] = deque(maxlen=_HISTORY)

    def __repr__(self) -> str:
        return f"DiscoveredRate({', '.join(map(repr, self._quotas.values()))})"

    @property
    def history(self) -> Sequence[RateMove]:
        """The last moves, oldest first; the way up between them is a curve, and not listed."""
        return tuple(self._moves)

    def per_minute(self, dimension: Dimension) -> float | None:
        """What is sent a minute at the most, or None while nothing limits."""
        rate = self._quotas[dimension].rate
        return None if rate is None else 60 * rate

    def believed(self, dimension: Dimension) -> float | None:
        """The limit a minute, or None where there is none, or none that was ever named.

        A refusal that names no limit is counted for requests: a larger batch is the way round that one, and costs
        little if it was the other.
        """
        quota = self._quotas[dimension]
        if quota.top is None or not (quota.named or dimension == "requests"):
            return None
        return 60 * quota.top

    def is_named(self, dimension: Dimension) -> bool:
        """Whether a refusal or a header has said that there is such a limit."""
        return self._quotas[dimension].named

    def binding(self, now: float, tokens: int) -> Dimension:
        """The limit that the next request waits for longest; requests, where no refusal has named tokens."""
        amounts: dict[Dimension, int] = {"requests": 1, "tokens": tokens}
        if not self._quotas["tokens"].named:
            return "requests"
        return max(amounts, key=lambda name: self._quotas[name].delay_s(now, amounts[name]))

    def delay_s(self, now: float, tokens: int) -> float:
        """Seconds that the next request should wait; 0 is go. Ask again then: a refusal may have come meanwhile."""
        return max(self._quotas["requests"].delay_s(now, 1), self._quotas["tokens"].delay_s(now, tokens))

    def spend(self, now: float, tokens: int) -> RateTicket:
        """A request with so many tokens (input and what is reserved for output) is sent."""
        requests, of_tokens = self._quotas["requests"], self._quotas["tokens"]
        requests.spend(now, 1)
        of_tokens.spend(now, tokens)
        self._number += 1
        return RateTicket(number=self._number, at_s=now, tokens=tokens, episodes=(requests.episode, of_tokens.episode))

    def observe_rate_limited(self, ticket: RateTicket, now: float, *, dimension: Dimension | None = None) -> None:
        """A request was refused with 429.

        :param dimension: the limit that it named. None: both are taken for it, and the one that it was not recovers.
        """
        for quota, episode in zip(self._quotas.values(), ticket.episodes, strict=True):
            if dimension not in (None, quota.dimension):
                continue
            amount = 1 if quota.dimension == "requests" else ticket.tokens
            if episode != quota.episode:
                quota.forget(ticket.at_s, amount)
                continue
            old = quota.rate
            if not quota.refuse(ticket.at_s, amount, now):
                continue
            quota.named = dimension is not None
            self._note(now, quota, old, "refused (429)" + ("" if dimension else ", which limit was not said"))

    def observe_accepted(self, ticket: RateTicket, now: float) -> None:
        """A request was not refused."""
        for quota in self._quotas.values():
            old = quota.rate
            reason = quota.accept(ticket.at_s)
            if reason is not None:
                self._note(now, quota, old, reason)

    def learn_limit(self, dimension: Dimension, per_minute: float, now: float) -> None:
        """`x-ratelimit-limit-*` has said a limit: taken at once. Nonsense (not a positive number) is ignored."""
        if not (math.isfinite(per_minute) and per_minute > 0):
            return
        quota = self._quotas[dimension]
        old = quota.rate
        if quota.learn(per_minute / 60):
            self._note(now, quota, old, "the endpoint's headers name the limit")

    def sync(self, dimension: Dimension, now: float, *, remaining: float, sent_after: float) -> None:
        """`x-ratelimit-remaining-*` has come.

        :param sent_after: requests or tokens sent after the response was, as far as that is known: what was sent after
            the request and is not in `remaining` yet.
        """
        if math.isfinite(remaining):
            self._quotas[dimension].sync(remaining - sent_after, now)

    def _note(self, now: float, quota: _Quota, old: float | None, reason: str) -> None:
        new = quota.rate
        self._moves.append(
            RateMove(
                at_s=now,
                dimension=quota.dimension,
                old=None if old is None else 60 * old,
                new=None if new is None else 60 * new,
                reason=reason,
            )
        )
