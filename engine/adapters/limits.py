"""Pacing by requests and tokens per minute, on aiolimiter.

aiolimiter fills its bucket at the start and lets nearly twice the limit through in the first minute, serves the
smallest waiter first and gives nothing back; each is met here (docs/design/limits.md has the measurements).
"""

from __future__ import annotations

import math

import anyio
from aiolimiter import AsyncLimiter

from engine.vocabulary.config import Limits

_WINDOW_S = 60.0
_BURST_SHARE = 0.04
"""Of a minute's tokens: the bucket's size, and the share of the limit that a request should stay under."""


def _limiter(limit: float, burst: float) -> AsyncLimiter:
    """A bucket that never lets more than `limit` through in any 60 s: burst plus refill make the limit together."""
    burst = min(burst, limit / 2)
    return AsyncLimiter(burst, _WINDOW_S * burst / (limit - burst))


class Pacer:
    """Paces requests under both limits. Called by the one dispatcher only, so that waiters are served in order."""

    def __init__(self, limits: Limits) -> None:
        rpm, tpm = limits.requests_per_minute, limits.tokens_per_minute
        self._requests_burst = 0.0 if rpm is None else min(max(1.0, rpm * 0.02), max(rpm / 2, 0.5))
        self._requests = None if rpm is None else _limiter(rpm, self._requests_burst)
        self._tokens_burst = 0.0 if tpm is None else max(1.0, tpm * _BURST_SHARE)
        self._tokens = None if tpm is None else _limiter(tpm, self._tokens_burst)
        self._credit = 0.0

    def __repr__(self) -> str:
        return f"Pacer(requests={self._requests!r}, tokens={self._tokens!r}, credit={self._credit:.0f})"

    @property
    def comfortable_tokens(self) -> float:
        """Tokens that a request may take without its waiting costing too much of the limit."""
        return self._tokens_burst if self._tokens else math.inf

    async def wait_for_request(self) -> None:
        """Return when one more request may start."""
        if self._requests is not None:
            await self._take(self._requests, self._requests_burst, 1.0)

    async def wait_for_tokens(self, tokens: int) -> None:
        """Return when `tokens` more may be used, less what earlier requests reserved and did not use."""
        if self._tokens is None:
            return
        charge = tokens - self._credit
        self._credit = max(0.0, -charge)
        if charge > 0:
            await self._take(self._tokens, self._tokens_burst, charge)

    def settle(self, *, reserved: int, used: int) -> None:
        """A request reserved so much and used so much: the difference is charged to, or taken off, the next ones."""
        if self._tokens is not None:
            self._credit += reserved - used

    @staticmethod
    async def _take(limiter: AsyncLimiter, burst: float, amount: float) -> None:
        """More than the bucket holds is taken in portions: the dispatcher waits until the sum has flowed in."""
        size = limiter.max_rate
        while amount > 1e-9:
            portion = min(amount, size)
            await limiter.acquire(portion)
            amount -= portion
        await anyio.lowlevel.checkpoint_if_cancelled()
