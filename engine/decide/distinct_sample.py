"""Of a corpus of any size: how many different inputs it holds, and a fair sample of them, in bounded memory.

Source: Gibbons, "Distinct sampling for highly-accurate answers to distinct values queries", VLDB 2001. An input is kept
if its digest ends in enough zero bits; whenever there are too many, one bit more is asked for. Which are kept depends
on nothing but their content, so every different input counts once, however often it stands there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


class DistinctSample:
    """Different inputs with their sizes. Exact until `most` of them is passed; then a fair sample.

    :ivar records: that were offered.
    """

    def __init__(self, *, most: int) -> None:
        """:param most: different inputs kept."""
        if most < 1:
            raise ValueError("a sample of nothing says nothing")
        self._most = most
        self._level = 0
        self._sizes: dict[int, int] = {}
        self._copies: dict[int, int] = {}
        self.records = 0

    def __repr__(self) -> str:
        return f"DistinctSample({len(self._sizes)} kept of some {self.distinct})"

    @property
    def sizes(self) -> Sequence[int]:
        """Of the kept ones."""
        return list(self._sizes.values())

    @property
    def is_exact(self) -> bool:
        """Whether every different input is kept."""
        return self._level == 0

    @property
    def distinct(self) -> int:
        """Different inputs: records over the copies that a kept one has on average.

        Every record is counted, so where none has a copy this is exact in a sample as well.
        """
        copies = sum(self._copies.values())
        return round(self.records * len(self._copies) / copies) if copies else 0

    def wants(self, digest: bytes) -> bool:
        """Whether a record is the first of an input that is to be kept: only then its size need be found out.

        Ask once for each record.

        :param digest: at least 8 bytes that look random, the same for the same input.
        """
        self.records += 1
        key = _key(digest)
        if key in self._copies:
            self._copies[key] += 1
            return False
        return self._fits(key)

    def add(self, digest: bytes, size: int) -> None:
        """Keep one that `wants` has asked for."""
        key = _key(digest)
        self._sizes[key], self._copies[key] = size, 1
        while len(self._sizes) > self._most:
            self._level += 1
            self._sizes = {key: size for key, size in self._sizes.items() if self._fits(key)}
            self._copies = {key: copies for key, copies in self._copies.items() if self._fits(key)}

    def total_deviation(self) -> float:
        """Standard deviation of `distinct` times the mean size, as an estimate of the sum over all different inputs.

        That of a mean of a simple sample without replacement; what `distinct` does at random is left out.
        """
        kept, distinct = len(self._sizes), self.distinct
        if self.is_exact or kept < 2:
            return 0.0
        return distinct * statistics.stdev(self._sizes.values()) * math.sqrt(max(0.0, 1 / kept - 1 / distinct))

    def _fits(self, key: int) -> bool:
        return not key & ((1 << self._level) - 1)


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
