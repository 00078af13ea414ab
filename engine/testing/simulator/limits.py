"""Rate limits as providers enforce them: buckets that refill all the time, charged up front, never given back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


class Bucket:
    """One limit.

    :param per_minute: the refill.
    :param window_s: how many seconds of refill it holds; 60 lets a whole minute's quota through at once after a
        pause, 1 enforces a limit of 60 a minute as one a second.
    """

    def __init__(self, per_minute: float, window_s: float) -> None:
        self._full_per_minute = per_minute
        self._window_s = window_s
        self._factor = 1.0
        self._level = self.capacity
        self._at: float | None = None

    @property
    def per_minute(self) -> float:
        """The limit in force."""
        return self._full_per_minute * self._factor

    @property
    def capacity(self) -> float:
        """The most that can be taken at once; one request always fits a bucket of requests."""
        return max(self.per_minute * self._window_s / 60, 1.0)

    def refill(self, now: float, factor: float) -> None:
        """Bring the level to a time, and the limit to a share of the full one."""
        if self._at is not None:
            self._level += (now - self._at) * self.per_minute / 60
        self._at = now
        self._factor = factor
        self._level = min(self._level, self.capacity)

    def wait_s(self, amount: float) -> float:
        """Seconds until so much is there; infinite for more than it ever holds."""
        if amount > self.capacity:
            return float("inf")
        return max(0.0, (amount - self._level) * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        """Charge; a negative amount is given back."""
        self._level = min(self._level - amount, self.capacity)

    @property
    def remaining(self) -> int:
        """What can be taken now."""
        return int(self._level)

    @property
    def reset_s(self) -> float:
        """Seconds until it is full."""
        return (self.capacity - self._level) * 60 / self.per_minute


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is not admitted.

    :ivar limit: ``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``.
    :ivar retry_after_s: infinite if it will never be.
    :ivar allowed: the limit in force, in the unit of time that `per` names.
    """

    limit: str
    retry_after_s: float
    allowed: float
    per: str = "min"


@dataclass(frozen=True, slots=True)
class _Limit:
    """One bucket, what it counts, and whether its state stands in the headers (only that of minutes does)."""

    counts: str
    per: str
    bucket: Bucket

    def denial(self, amount: float) -> Denial | None:
        bucket = self.bucket
        wait_s = bucket.wait_s(amount)
        if wait_s <= 0:
            return None
        allowed = bucket.per_minute if self.per == "min" else bucket.per_minute / 60
        return Denial(self.counts, wait_s, allowed, self.per)


_APART = {"input_tokens": "input-tokens", "output_tokens": "output-tokens"}


class RateLimits:
    """Requests and tokens a minute, and a second; None is no limit.

    :param itpm: input tokens a minute, apart, as Anthropic counts them.
    :param otpm: output tokens a minute, apart: charged with the most that a request may put out, and given back what
        it did not (`settle`), as Anthropic has described it.
    :param window_s: of the limits a minute, see `Bucket`. Those a second hold one second.
    :param schedule: pairs (seconds since the first request, share of the limits from then on), in order.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        rps: float | None = None,
        tps: float | None = None,
        itpm: float | None = None,
        otpm: float | None = None,
        window_s: float = 60.0,
        schedule: Sequence[tuple[float, float]] = (),
    ) -> None:
        minutes = [("requests", rpm), ("tokens", tpm), ("input_tokens", itpm), ("output_tokens", otpm)]
        seconds = [("requests", rps), ("tokens", tps)]
        self._limits = [_Limit(name, "min", Bucket(limit, window_s)) for name, limit in minutes if limit is not None]
        self._limits += [_Limit(name, "s", Bucket(limit * 60, 1.0)) for name, limit in seconds if limit is not None]
        self._schedule = tuple(schedule)
        self._first_at: float | None = None

    def admit(self, tokens: int, now: float, *, output: int = 0) -> Denial | None:
        """Charge one request with so many tokens (input and the most it may put out), or say why not.

        :param output: of these tokens, the most that it may put out.
        """
        if not self._limits:
            return None
        factor = self._factor(now)
        amounts = {"requests": 1, "tokens": tokens, "input_tokens": tokens - output, "output_tokens": output}
        for limit in self._limits:
            limit.bucket.refill(now, factor)
        for limit in self._limits:
            denial = limit.denial(amounts[limit.counts])
            if denial is not None:
                return denial
        for limit in self._limits:
            limit.bucket.take(amounts[limit.counts])
        return None

    def settle(self, unused_output: int) -> None:
        """A request has ended, and put out so much less than it might have."""
        for limit in self._limits:
            if limit.counts == "output_tokens":
                limit.bucket.take(-unused_output)

    def headers(self) -> dict[str, str]:
        """``x-ratelimit-*`` as of the last request; of input and output apart ``anthropic-ratelimit-*``.

        Those are without the time of the reset: it is a wall-clock time there, and there is no such clock here.
        """
        made = {}
        for limit in self._limits:
            if limit.counts in _APART:
                name = f"anthropic-ratelimit-{_APART[limit.counts]}"
                made[f"{name}-limit"] = str(int(limit.bucket.per_minute))
                made[f"{name}-remaining"] = str(max(limit.bucket.remaining, 0))
            elif limit.per == "min":
                made[f"x-ratelimit-limit-{limit.counts}"] = str(int(limit.bucket.per_minute))
                made[f"x-ratelimit-remaining-{limit.counts}"] = str(max(limit.bucket.remaining, 0))
                made[f"x-ratelimit-reset-{limit.counts}"] = duration(limit.bucket.reset_s)
        return made

    def _factor(self, now: float) -> float:
        if self._first_at is None:
            self._first_at = now
        past = [factor for start_s, factor in self._schedule if now - self._first_at >= start_s]
        return past[-1] if past else 1.0


def duration(seconds: float) -> str:
    """A span as OpenAI's headers spell it: ``12ms``, ``7.66s``, ``6m0s``."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
