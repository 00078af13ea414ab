"""Pacing by requests and tokens per minute, on aiolimiter.

aiolimiter fills its bucket at the start and lets nearly twice the limit through in the first minute, serves the
smallest waiter first and gives nothing back. So a bucket here only spreads requests over the minute; beside it a
ledger of the last minute holds the bound, for requests of any size, and a lock keeps the order. Refused: a smaller
bucket that refills with what is left of the limit. It needs no ledger, but a request above the bucket's size breaks
its bound, and below some ten requests a minute it loses up to half of the limit.
"""

from __future__ import annotations

import math
from collections import deque

import anyio
import msgspec
from aiolimiter import AsyncLimiter

from engine.vocabulary.config import Limits

_MINUTE_S = 60.0
WINDOW_S = _MINUTE_S + 1.0
"""The ledger's memory. The endpoint's clock sees requests up to a network's jitter closer together than ours."""
_REQUESTS_BURST_S = 1.0
_TOKENS_BURST_S = 0.5
"""Seconds' worth that may go at once: endpoints are known to enforce a limit a minute by the second."""
"""Of a minute's tokens: what a request should stay under."""


class _Booking(msgspec.Struct, eq=False):
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
        """More than the bucket holds is taken in portions: we wait until the sum has flowed in, or was given back."""
        rest = float(amount)
        while (rest := self._less_credit(rest)) > 0:
            portion = min(rest, self._bucket.max_rate)
            await self._bucket.acquire(portion)
            rest -= portion

    def _less_credit(self, amount: float) -> float:
        """Take what was given back off an amount; a debt is added to it."""
        used = min(float(self._credit), amount)
        self._credit -= math.floor(used)
        return amount - math.floor(used)

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

    def start(self, booking: _Booking) -> None:
        """What was booked starts only now. The ledger is in order of time: it then comes last."""
        if booking.in_window:
            if self._ledger[-1] is not booking:
                self._ledger.remove(booking)
                self._ledger.append(booking)
            booking.at_s = anyio.current_time()

    def correct(self, booking: _Booking, used: int) -> None:
        """Give back what was not used, or charge what was used beyond, up to a minute's worth.

        More credit than a bucket would go out at once, as a burst that the endpoint refuses.
        """
        difference = round(max(-self._per_minute, booking.amount - used))
        most = max(self._bucket.max_rate, booking.amount)
        self._credit = round(max(-self._per_minute, min(most, self._credit + difference)))
        booking.amount -= difference
        if booking.in_window:
            self._booked -= difference
            self._eased.set()
            self._eased = anyio.Event()


class _Bound(msgspec.Struct, frozen=True):
    """One limit of the endpoint's, and how much of it a request takes.

    :ivar gives_back: output that was reserved and not used. Where input and output count together, providers charge
        input + max_tokens up front and give nothing back (OpenAI, Azure).
    """

    limit: _Limit
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    gives_back: bool = True

    def amount(self, input_tokens: int, output_tokens: int) -> int:
        return self.requests + self.input_tokens * input_tokens + self.output_tokens * output_tokens


class Reservation:
    """What one request took of every limit, until it is known what it used.

    :ivar requests_s: how long it waited for requests a minute; `tokens_s` for tokens a minute.
    """

    def __init__(self, most_output: int = 0) -> None:
        """:param most_output: tokens that it may put out."""
        self.requests_s = self.tokens_s = 0.0
        self._most_output = most_output
        self._bookings: list[tuple[_Bound, _Booking]] = []

    def __repr__(self) -> str:
        return f"Reservation({[booking for _, booking in self._bookings]})"

    def note(self, bound: _Bound, booking: _Booking, waited_s: float) -> None:
        """One limit more lets it go."""
        self._bookings.append((bound, booking))
        if bound.requests:
            self.requests_s += waited_s
        else:
            self.tokens_s += waited_s

    def start(self) -> None:
        """The request starts only now. Only the last one reserved may still be moved."""
        for bound, booking in self._bookings:
            bound.limit.start(booking)

    def settle(self, *, input_tokens: int, output_tokens: int) -> None:
        """It used so much: the difference is charged to, or taken off, the next ones. Only the first time counts."""
        for bound, booking in self._bookings:
            if not bound.requests:
                kept = 0 if bound.gives_back else self._most_output
                bound.limit.correct(booking, bound.amount(max(0, input_tokens), max(kept, output_tokens)))
        self._bookings.clear()

    def give_back(self) -> None:
        """It never reached the endpoint: nothing was used."""
        for bound, booking in self._bookings:
            bound.limit.correct(booking, 0)
        self._bookings.clear()


class Pacer:
    """Paces requests under all limits. One dispatcher reserves for one request after the other, and starts each.

    :ivar waits_for: what a request is kept by at present, ``rpm`` or ``tpm``.
    """

    def __init__(self, limits: Limits) -> None:
        rpm = limits.requests_per_minute
        self._bounds: list[_Bound] = []
        self.waits_for: str | None = None
        if rpm is not None:
            burst = max(1.0, rpm * _REQUESTS_BURST_S / _MINUTE_S)
            self._bounds.append(_Bound(_Limit(rpm, burst=burst), requests=1))
        for per_minute, of_input, of_output in (
            (limits.tokens_per_minute, 1, 1),
            (limits.input_tokens_per_minute, 1, 0),
            (limits.output_tokens_per_minute, 0, 1),
        ):
            if per_minute is not None:
                limit = _Limit(per_minute, burst=max(1.0, per_minute * _TOKENS_BURST_S / _MINUTE_S))
                apart = not (of_input and of_output)
                self._bounds.append(_Bound(limit, input_tokens=of_input, output_tokens=of_output, gives_back=apart))

    def __repr__(self) -> str:
        return f"Pacer({[bound.limit for bound in self._bounds]})"

    async def reserve(self, *, input_tokens: int, output_tokens: int) -> Reservation:
        """Return when one more request of this size may start, less what earlier ones reserved and did not use."""
        reservation = Reservation(output_tokens)
        for bound in self._bounds:
            since_s = anyio.current_time()
            self.waits_for = "rpm" if bound.requests else "tpm"
            try:
                booking = await bound.limit.take(bound.amount(input_tokens, output_tokens))
            finally:
                self.waits_for = None
            reservation.note(bound, booking, anyio.current_time() - since_s)
        reservation.start()
        return reservation
