"""How likely it is that the labels of one reply came from its texts, and how likely that one of them ordered the rest.

All in logarithms. See docs/design/neighbours.md for what is done with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

import msgspec

STRENGTHS = (0.25, 0.5, 0.98)
"""Shares of the neighbours that an order changes, each as likely as the others before anything is known."""

Weights = tuple[float, ...]
"""Of `STRENGTHS`; they add up to 1."""

_LEAST = 1e-9

_RECENT = 0.9  # what is left of a batch's weight after the next one: some ten batches are remembered
_MOST_LABELS = 1_000  # distinct ones that are counted: a task of many fields may have any number
_RESCALED_AT = 1e100
_CLUMPS, _CLUMPS_OF = 0.01, 100.0  # batches alike by nature: one in ten thousand, worth a hundred batches of evidence


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply shows of an order.

    :ivar labels: the answers to its records.
    :ivar target: the label that was ordered, if any was.
    :ivar kinds: how many labels that might have been; 1 where it is known.
    :ivar turned: canaries that gave this label in place of their own. `kept`: those with another label that kept it.
    :ivar noise: how often a canary gives another answer by itself.
    """

    labels: Sequence[Hashable]
    target: Hashable
    kinds: int = 1
    turned: int = 0
    kept: int = 0
    noise: float = 0.01


class LabelShares:
    """The label distribution of a run, learned from accepted answers: of all batches, of the last ones, and of batches
    that are alike by nature (a sorted corpus, a clump of near copies, a model that copies the label before)."""

    def __init__(self) -> None:
        self._all: Counter[Hashable] = Counter()
        self._recent: dict[Hashable, float] = {}
        self._total = self._recent_total = 0.0
        self._weight = 1.0
        self._batches, self._clumped = _CLUMPS_OF, _CLUMPS
        self._strengths: Weights = (1.0 / len(STRENGTHS),) * len(STRENGTHS)
        self._orders = 0

    def __repr__(self) -> str:
        return f"LabelShares(labels={len(self._all)}, answers={self._total:.0f}, clumps={self.clumps:.5f})"

    @property
    def clumps(self) -> float:
        """Share of the batches that are alike by nature."""
        return self._clumped / self._batches

    def commonest(self, labels: Sequence[Hashable]) -> Hashable:
        """The only label that an order may have asked for, if it was obeyed."""
        counts = Counter(labels)
        return max(counts, key=lambda label: (counts[label], str(label)))

    @property
    def kinds(self) -> int:
        """Different labels that were seen, at least two."""
        return max(2, len(self._all))

    def log_factor(self, signs: Signs, strengths: Weights | None = None) -> float:
        """Natural logarithm of the Bayes factor, an order against none.

        Without an order, it is above log(x) in one batch of x at the most (Markov's inequality), as far as the learned
        shares are right.

        :param strengths: how strong the order is, if it is one that was obeyed before; None: as orders were so far.
        """
        counts = Counter(signs.labels)
        ordered = _log_sum(*self._logs_obeyed(signs, counts, strengths or self._strengths))
        by_itself = signs.turned * math.log(signs.noise / (self.kinds - 1)) + signs.kept * math.log1p(-signs.noise)
        return ordered - self._log_plain(counts) - by_itself - math.log(signs.kinds)

    def strengths(self, signs: Signs) -> Weights:
        """How strong an order seems to be, if it is one: a weight for each of `STRENGTHS`."""
        logs = self._logs_obeyed(signs, Counter(signs.labels), self._strengths)
        total = _log_sum(*logs)
        return tuple(math.exp(log - total) for log in logs)

    @property
    def obeyed_by_all(self) -> float:
        """Weight of the greatest strength, by the orders that were found."""
        return self._strengths[-1]

    def learn_strength(self, strengths: Weights) -> None:
        """An order was obeyed so strongly: the model will do so again."""
        self._orders += 1
        share = 1.0 / (self._orders + 1)
        self._strengths = tuple(
            (1.0 - share) * old + share * new for old, new in zip(self._strengths, strengths, strict=True)
        )

    def learn(self, labels: Iterable[Hashable]) -> None:
        """A batch whose answers are believed."""
        counts = Counter(labels)
        if not counts:
            return
        if counts.total() > 1:
            clump = math.log(self.clumps) + _log_rising(counts, {}, 0.0, self._kinds(counts))
            self._clumped += math.exp(min(0.0, clump - self._log_plain(counts)))
        self._batches += 1
        for label, count in counts.items():
            if label in self._all or len(self._all) < _MOST_LABELS:
                self._all[label] += count
                self._recent[label] = self._recent.get(label, 0.0) + count * self._weight
        self._total += counts.total()
        self._recent_total += counts.total() * self._weight
        self._weight /= _RECENT
        if self._weight > _RESCALED_AT:
            self._recent = {label: weight / self._weight for label, weight in self._recent.items()}
            self._recent_total /= self._weight
            self._weight = 1.0

    # -- likelihoods ---------------------------------------------------------------------------------------------

    def _kinds(self, counts: Counter[Hashable]) -> int:
        return max(2, len(self._all), len(self._all.keys() | counts.keys()))

    def _log_plain(self, counts: Counter[Hashable]) -> float:
        """Of the answers without an order: four ways in which they may have come about."""
        kinds, scale = self._kinds(counts), self._weight
        recent = {label: self._recent.get(label, 0.0) / scale for label in counts}
        usual = _log_sum(
            _log_rising(counts, self._all, self._total, kinds),
            _log_rising(counts, recent, self._recent_total / scale, kinds),
            # Where there are many labels the first batches hold new ones: with one answer's worth of prior they would
            # seem to come from anywhere but the run.
            _log_rising(counts, self._all, self._total, kinds, weight=float(kinds)),
        ) - math.log(3.0)
        clump = _log_rising(counts, {}, 0.0, kinds)
        return _log_sum(math.log1p(-self.clumps) + usual, math.log(self.clumps) + clump)

    def _logs_obeyed(self, signs: Signs, counts: Counter[Hashable], strengths: Weights) -> list[float]:
        """Of the signs with an order, for each of its strengths, weighed."""
        kinds = self._kinds(counts)
        shares = {label: (self._all[label] + 1.0 / kinds) / (self._total + 1.0) for label in counts}
        return [
            math.log(max(weight, _LEAST))
            + signs.turned * math.log(strength)
            + signs.kept * math.log1p(-strength)
            + math.fsum(
                count * math.log((1.0 - strength) * shares[label] + strength * (label == signs.target))
                for label, count in counts.items()
            )
            for strength, weight in zip(STRENGTHS, strengths, strict=True)
        ]


def _log_rising(
    counts: Counter[Hashable], seen: Mapping[Hashable, float], total: float, kinds: int, *, weight: float = 1.0
) -> float:
    """Of a sequence of labels, one after the other, each learned from: Dirichlet-multinomial with a prior worth so many
    answers, spread over all labels."""
    prior = weight / kinds
    logs = math.lgamma(total + weight) - math.lgamma(total + weight + counts.total())
    for label, count in counts.items():
        base = seen.get(label, 0.0) + prior
        logs += math.lgamma(base + count) - math.lgamma(base)
    return logs


def _log_sum(*logs: float) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(log - top) for log in logs))
