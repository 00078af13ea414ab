"""What a record takes as a setting asks it: what its stores hold of calls, over the records that these answered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from engine.tuning.trial import Use
from engine.vocabulary.config import Prices


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Of one store: all its calls, and the records that they were for, whichever search asked about them."""

    use: Use
    records: int


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Of one setting: tokens are per record. Where variables are asked apart, there is a part for each group.

    :ivar latency_s: of a request, the median.
    """

    parts: Sequence[Part] = ()
    latency_s: float | None = None

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(part.use.requests for part in self.parts)

    @property
    def mean_size(self) -> float | None:
        """Records in the request of a record, on average; None before the first. (Of all requests it would be less: the
        first one goes alone.)"""
        asked = sum(part.use.asked for part in self.parts)
        return sum(part.use.squares for part in self.parts) / asked if asked else None

    @property
    def malformed(self) -> int:
        """Replies that left a record unanswered."""
        return sum(part.use.malformed for part in self.parts)

    @property
    def input(self) -> float:
        """Input tokens of a record."""
        return math.fsum(part.use.input / part.records for part in self.parts)

    @property
    def cached(self) -> float:
        """Those of them that came from a cache."""
        return math.fsum(part.use.cached / part.records for part in self.parts)

    @property
    def output(self) -> float:
        """Output tokens of a record."""
        return math.fsum(part.use.output / part.records for part in self.parts)

    @property
    def tokens(self) -> float:
        """Input and output."""
        return self.input + self.output

    def usd(self, prices: Prices) -> float:
        """Dollars for a record."""
        return math.fsum(part.use.usd(prices) / part.records for part in self.parts)

    def cost(self, prices: Prices | None) -> float:
        """In dollars, or in weighted tokens where there are no prices."""
        return math.fsum(part.use.cost(prices) / part.records for part in self.parts)


def expected(use: Use) -> Rate:
    """Of one record, before anything was sent."""
    return Rate(parts=[Part(use=use, records=1)])
