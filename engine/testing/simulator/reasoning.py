"""What a model thinks before it answers: tokens that are billed as output and that nobody reads. All of it is made up.

That a request costs a constant and each record some more is what makes batches save reasoning; how much of each a real
model takes was not measured here (arXiv 2511.04108 says that batches take 76 % less).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log, sqrt
from random import Random
from typing import Literal

Told = Literal["details", "text", "nothing"]
"""``details``: counted in ``usage.completion_tokens_details``; ``text``: the text itself in ``reasoning_content``, and
no count of its own; ``nothing``: hidden, and only part of ``completion_tokens``."""

EFFORTS: Mapping[str, float] = {"none": 0.0, "minimal": 0.1, "low": 0.3, "medium": 1.0, "high": 2.5}
"""Of ``reasoning_effort``: the share of the usual reasoning. Made up."""

DEFAULT_MOST = 32_768
"""Tokens at which it stops thinking where a request sets no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """Reasoning tokens of a request: ``(call_tokens + record_tokens * records) * effort``, with jitter.

    :ivar variation: standard deviation over the mean, log-normal.
    :ivar efforts: what ``reasoning_effort`` it takes, each with its share; any other is refused.
    """

    call_tokens: float
    record_tokens: float = 0.0
    variation: float = 0.3
    told: Told = "details"
    efforts: Mapping[str, float] = field(default_factory=lambda: dict(EFFORTS))

    def tokens(self, records: int, effort: str | None, rng: Random) -> int:
        """Of one request."""
        mean = (self.call_tokens + self.record_tokens * records) * self.efforts.get(effort or "medium", 1.0)
        sigma = sqrt(log(1 + self.variation**2))
        return round(mean * rng.lognormvariate(-sigma * sigma / 2, sigma))


def thought(tokens: int) -> str:
    """A text of so many tokens, by the endpoint's own count."""
    return "\n" * tokens
