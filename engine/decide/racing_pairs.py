"""Settings compared record by record: both answered the same ones, so what is hard about a record falls out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

import msgspec

_LEAST_VARIANCE = 1e-9


class Difference(msgspec.Struct, frozen=True):
    """By how much one mean score is above another, with its standard error, from `n` records that both answered."""

    mean: float
    error: float
    n: int

    def high(self, z: float) -> float:
        """The upper confidence bound."""
        return self.mean + z * self.error

    def low(self, z: float) -> float:
        """The lower one."""
        return self.mean - z * self.error


class Pairs:
    """Scores of settings on the first so many records of one order.

    Mean and error of the paired differences have half a record added that only the one setting got right, half a one
    that only the other did, and one more: Agresti and Min 2005, "Simple improved confidence intervals for comparing
    matched proportions", Stat. Med. 24. Without them a setting that has not erred yet would be certain never to err.
    For scores between 0 and 1 the same formula is the usual one with a prior of two records.
    """

    def __init__(self, settings: int) -> None:
        self._scores: list[Sequence[float]] = [()] * settings
        self._sums: dict[tuple[int, int], tuple[float, float]] = {}
        self._products: dict[tuple[int, int, int], float] = {}

    def update(self, scores: Sequence[Sequence[float]]) -> None:
        """Take the scores of all settings, each longer than before or as it was.

        Sums are kept where earlier records have the scores that they had; with macro-F1, whose parts change with the
        whole, they are made anew.
        """
        changed = {k for k, (old, new) in enumerate(zip(self._scores, scores, strict=True)) if new[: len(old)] != old}
        self._scores = [list(each) for each in scores]
        if changed:
            self._sums = {key: value for key, value in self._sums.items() if key[0] not in changed}
            self._products = {
                key: value for key, value in self._products.items() if not (key[0] in changed or key[1] in changed)
            }

    def records(self, setting: int) -> int:
        """How many records it has answered."""
        return len(self._scores[setting])

    def mean(self, setting: int) -> float:
        """Its mean score; 0 before the first record."""
        n = self.records(setting)
        return self._moments(setting, n)[0] / n if n else 0.0

    def difference(self, one: int, other: int) -> Difference:
        """By how much `one` is above `other`, on the records that both have answered."""
        n = min(self.records(one), self.records(other))
        (sum_one, square_one), (sum_other, square_other) = self._moments(one, n), self._moments(other, n)
        mean = (sum_one - sum_other) / (n + 2)
        square = square_one + square_other - 2 * self._product(one, other, n)
        variance = max(_LEAST_VARIANCE, (square + 1) / (n + 2) - mean * mean)
        return Difference(mean, math.sqrt(variance / (n + 2)), n)

    def discordance(self, one: int, other: int) -> float:
        """Mean square of the differences: for right and wrong, the share of records that only one got right."""
        n = min(self.records(one), self.records(other))
        square = self._moments(one, n)[1] + self._moments(other, n)[1] - 2 * self._product(one, other, n)
        return max(0.0, square) / n if n else 0.0

    def _moments(self, setting: int, n: int) -> tuple[float, float]:
        key = (setting, n)
        if key not in self._sums:
            scores = self._scores[setting][:n]
            self._sums[key] = (math.fsum(scores), math.fsum(map(mul, scores, scores)))
        return self._sums[key]

    def _product(self, one: int, other: int, n: int) -> float:
        key = (min(one, other), max(one, other), n)
        if key not in self._products:
            self._products[key] = sum(map(mul, self._scores[one][:n], self._scores[other][:n]))
        return self._products[key]
