"""Pacing by requests and tokens per minute, on aiolimiter.

aiolimiter fills its bucket at the start and lets nearly twice the limit through in the first minute, serves the
smallest waiter first and gives nothing back. So a bucket here only spreads requests over the minute; beside it a
ledger of the last minute holds the bound, for requests of any size, and a lock keeps the order. Refused: a smaller
bucket that refills with what is left of the limit. It needs no ledger, but a request above the bucket's size breaks
its bound, and below some ten requests a minute it loses up to half of the limit.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque

import anyio
import msgspec
from aiolimiter import AsyncLimiter

from engine.vocabulary.config import Limits

_MINUTE_S = 60.0
WINDOW_S = _MINUTE_S + 1.0
"""The ledger's memory. The endpoint's clock sees requests up to a network's jitter closer together than ours."""
_REQUESTS_BURST_S = 1.0
_TOKENS_BURST_SHARE = 0.04
"""Of a minute's tokens: what may go at once, and the share of the limit that a request should stay under."""


class _Booking(msgspec.Struct):
    """What one request took of a limit; corrected when it is known what it used."""

    at_s: float
    amount: int
    in_window: bool = True


class _Limit:
    """So much a minute: in no window of `WINDOW_S` more is booked, whatever the sizes; first come, first served.

    What is larger than the whole limit goes alone: when the window is empty, and after the time that it takes.
    """

    def __init__(self, per_minute: float, *, burst: float) -> None:
        self._per_minute = per_minute
        self._bucket = AsyncLimiter(burst, _MINUTE_S * burst / per_minute)
        self._ledger: deque[_Booking] = deque()  # oldest first
        self._booked = 0
        self._credit = 0
        self._turn = anyio.Lock()
        self._eased = anyio.Event()

    def __repr__(self) -> str:
        return f"{self._booked} of {self._per_minute:g} a minute, credit {self._credit}"

    async def take(self, amount: int) -> _Booking:
        """Return when so much more may be used."""
        async with self._turn:
            await self._flow(amount)
            while (wait_s := self._wait_s(amount)) > 0:
                with anyio.move_on_after(wait_s):
                    await self._eased.wait()
            booking = _Booking(anyio.current_time(), amount)
            self._ledger.append(booking)
            self._booked += amount
            return booking

    async def _flow(self, amount: int) -> None:
        """More than the bucket holds is taken in portions: we wait until the sum has flowed in."""
        rest = float(amount - self._credit)
        self._credit = max(0, self._credit - amount)
        while rest > 0:
            portion = min(rest, self._bucket.max_rate)
            await self._bucket.acquire(portion)
            rest -= portion

    def _wait_s(self, amount: int) -> float:
        now = anyio.current_time()
        while self._ledger and self._ledger[0].at_s + WINDOW_S <= now:
            self._ledger[0].in_window = False
            self._booked -= self._ledger.popleft().amount
        excess = self._booked + amount - self._per_minute
        wait_s = 0.0
        for booking in self._ledger:
            if excess <= 0:
                break
            excess -= booking.amount
            wait_s = booking.at_s + WINDOW_S - now
        return wait_s

    def start(self) -> None:
        """What was booked last starts only now."""
        if self._ledger:
            self._ledger[-1].at_s = anyio.current_time()

    def correct(self, booking: _Booking, used: int) -> None:
        """Give back what was not used, or charge what was used beyond, up to a minute's worth."""
        difference = round(max(-self._per_minute, booking.amount - used))
        self._credit = round(max(-self._per_minute, min(self._per_minute, self._credit + difference)))
        booking.amount -= difference
        if booking.in_window:
            self._booked -= difference
            self._eased.set()
            self._eased = anyio.Event()


class Pacer:
    """Paces requests under both limits. One dispatcher calls both waits in turn for each request, then starts it."""

    def __init__(self, limits: Limits) -> None:
        rpm, tpm = limits.requests_per_minute, limits.tokens_per_minute
        self._tokens_burst = math.inf if tpm is None else max(1.0, tpm * _TOKENS_BURST_SHARE)
        self._requests = None if rpm is None else _Limit(rpm, burst=max(1.0, rpm * _REQUESTS_BURST_S / _MINUTE_S))
        self._tokens = None if tpm is None else _Limit(tpm, burst=self._tokens_burst)
        self._unsettled: defaultdict[int, deque[_Booking]] = defaultdict(deque)

    def __repr__(self) -> str:
        return f"Pacer(requests={self._requests!r}, tokens={self._tokens!r})"

    @property
    def comfortable_tokens(self) -> float:
        """Tokens that a request may take without its waiting costing too much of the limit."""
        return self._tokens_burst

    async def wait_for_request(self) -> None:
        """Return when one more request may start."""
        if self._requests is not None:
            await self._requests.take(1)

    async def wait_for_tokens(self, tokens: int) -> None:
        """Return when `tokens` more may be used, less what earlier requests reserved and did not use."""
        if self._tokens is not None:
            booking = await self._tokens.take(tokens)
            self._unsettled[tokens].append(booking)
        self.start()

    def start(self) -> None:
        """The request that was admitted last starts now: call it after waiting for something else."""
        for limit in (self._requests, self._tokens):
            if limit is not None:
                limit.start()

    def settle(self, *, reserved: int, used: int) -> None:
        """A request reserved so much and used so much: the difference is charged to, or taken off, the next ones.

        Requests that reserved the same are taken to end in the order of their start.
        """
        if self._tokens is None or reserved not in self._unsettled:
            return
        same = self._unsettled[reserved]
        self._tokens.correct(same.popleft(), max(0, used))
        if not same:
            del self._unsettled[reserved]
