"""Statistics that may be looked at after every answer. See docs/design/quality.md.

Nothing here has a fixed sample size: the bounds hold at all times at once, so that stopping when the answer is clear
does not inflate the error. That is Ville's inequality (1939): a nonnegative martingale that starts at 1 ever passes
1/alpha with a chance of alpha at the most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import msgspec

_BISECTIONS = 30
_STAKES = (0.05, 0.1, 0.2, 0.4, 0.8)
_ONE_SIDED = NormalDist().inv_cdf(0.95)
_POWER = NormalDist().inv_cdf(0.80)


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a share (0 to 1) or of a difference of shares (-1 to 1)."""

    low: float
    high: float

    def minus(self, other: Interval) -> Interval:
        """The bounds of the difference; errors of both add up."""
        return Interval(low=self.low - other.high, high=self.high - other.low)


class Count(msgspec.Struct, kw_only=True):
    """How often something was so, of `n` looks."""

    hits: int = 0
    n: int = 0

    def add(self, hit: bool) -> None:
        """One look more."""
        self.hits += hit
        self.n += 1

    @property
    def share(self) -> float:
        """The share of hits; 0 where nothing was looked at."""
        return self.hits / self.n if self.n else 0.0

    def within(self, alpha: float, *, rare: bool = True) -> Interval:
        """See `share_within`."""
        return share_within(self.hits, self.n, alpha, rare=rare)


@lru_cache(maxsize=4096)
def share_within(hits: int, n: int, alpha: float, *, rare: bool = True) -> Interval:
    """A confidence sequence for a share: right for all n at once with probability 1 - alpha.

    The shares p at which the mixture likelihood ratio Beta(a + s, b + n - s) / Beta(a, b) / (p^s (1-p)^(n-s)) is below
    1/alpha, s of n being hits: Robbins 1970, "Statistical methods related to the law of the iterated logarithm", Ann.
    Math. Stat. 41; Howard, Ramdas, McAuliffe and Sekhon 2021, Ann. Stat. 49. It is wider than a Clopper-Pearson
    interval, which is the price of looking always.

    :param rare: puts the weight on small shares (a, b = 1/2, 9/2 in place of 1/2, 1/2): narrower there, right anyway.
    """
    if n == 0:
        return Interval(low=0.0, high=1.0)
    a, b = (0.5, 4.5) if rare else (0.5, 0.5)
    least = math.log(alpha) + _log_beta(a + hits, b + n - hits) - _log_beta(a, b)

    def excluded(p: float) -> bool:
        return hits * math.log(p) + (n - hits) * math.log1p(-p) <= least

    share = hits / n
    return Interval(
        low=_edge(excluded, outside=0.0, inside=share) if hits else 0.0,
        high=_edge(excluded, outside=1.0, inside=share) if hits < n else 1.0,
    )


def _edge(excluded: Callable[[float], bool], *, outside: float, inside: float) -> float:
    for _ in range(_BISECTIONS):
        middle = (outside + inside) / 2.0
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


class Bet:
    """Evidence that the mean of numbers in -1 to 1 is above `most`, by betting on it.

    Each stake g multiplies its capital by 1 + g (x - most) with every number; where the mean given the past is not
    above `most`, no such game gains on average, so the mean capital of all stakes is a nonnegative supermartingale.
    Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS B 86.
    """

    def __init__(self, *, most: float) -> None:
        """
        :param most: -1 to 1. Stakes shrink with it, so that the largest never loses more than 0.8 of its capital.
        """
        self._most = most
        self._stakes = [stake / (1.0 + abs(most)) for stake in _STAKES]
        self._logs = [0.0] * len(_STAKES)
        self._peak = 0.0
        self.n = 0
        self.total = 0.0

    def __repr__(self) -> str:
        return f"Bet(mean={self.mean:.3f} of {self.n}, most={self._most}, peak={self._peak:.2f})"

    @property
    def mean(self) -> float:
        """The mean of the numbers so far; 0 where there are none."""
        return self.total / self.n if self.n else 0.0

    def add(self, x: float) -> None:
        """One number more, -1 to 1."""
        self.n += 1
        self.total += x
        gain = x - self._most
        self._logs = [log + math.log1p(stake * gain) for log, stake in zip(self._logs, self._stakes, strict=True)]
        top = max(self._logs)
        capital = top + math.log(sum(math.exp(log - top) for log in self._logs) / len(_STAKES))
        self._peak = max(self._peak, capital)

    def won(self, alpha: float) -> bool:
        """Whether the mean was ever shown to be above `most`, at this level; once won is won."""
        return self._peak >= -math.log(alpha)


def gold_needed(discordant: float, loss: float) -> int:
    """Records with gold, asked both ways, that show a loss of accuracy (one-sided 5 %, power 80 %).

    n = (z_a sqrt(d) + z_b sqrt(d - loss^2))^2 / loss^2, the sample size of McNemar's paired test: Connor 1987,
    Biometrics 43, equation 3.

    :param discordant: share of records that are right in one way and wrong in the other.
    :param loss: difference of the two accuracies, above 0.
    """
    discordant = max(discordant, loss)  # a loss needs at least so many discordant pairs
    spread = _ONE_SIDED * math.sqrt(discordant) + _POWER * math.sqrt(max(0.0, discordant - loss * loss))
    return math.ceil(spread * spread / (loss * loss))


def loss_seen_by_gold(discordant: float, n: int) -> float:
    """The loss that n pairs would show with power 80 %; `gold_needed`, solved for the loss (nearly: without loss^2)."""
    return min(1.0, (_ONE_SIDED + _POWER) * math.sqrt(max(discordant, 1.0 / n) / n)) if n else 1.0


def least_share_above(hits: int, n: int) -> float:
    """The smallest share at which `hits` or fewer of n are seen in one case of five at the most (Clopper-Pearson)."""
    if hits >= n:
        return 1.0

    def frequent(p: float) -> bool:
        return binomial_below(hits, n, p) > 0.2

    low, high = hits / n, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if frequent(middle) else (low, middle)
    return high


def binomial_below(hits: int, n: int, p: float) -> float:
    """P(X <= hits) of n draws with chance p, 0 < p < 1."""
    log_p, log_q = math.log(p), math.log1p(-p)
    terms = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_p + (n - k) * log_q
        for k in range(hits + 1)
    )
    return math.fsum(math.exp(term) for term in terms)
