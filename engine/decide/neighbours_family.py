"""A disturbed batch and what became of its records. See docs/design/neighbours.md."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import msgspec

from engine.decide.neighbours_canaries import Canary
from engine.decide.neighbours_evidence import Weights
from engine.vocabulary.values import RecordId

_NOISY = 2.0  # times what changes by itself
_PER_HALVING = 4.0  # requests that an alarm takes for each halving; expected while its end is not known

Answers = Mapping[bytes, Hashable]
"""Digest of a record -> its label; records without an answer, or without one that can be compared, are not in it."""

UNSAID: Hashable = ("NoneType", None)
"""In a label of several parts, a variable without a valid answer: `quality_evidence.label_signature` of None."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was asked.

    :ivar digests: of its records, in order.
    :ivar family: the number of the disturbed batch that it is part of; 0 for none.
    :ivar canaries: sent along.
    """

    digests: Sequence[bytes]
    family: int = 0
    canaries: Sequence[Canary] = ()


class Family:
    """A disturbed batch, followed until all of its records have ended.

    :ivar first: the answers that were not accepted; `last`: those that were, later.
    :ivar target: the label that seems to have been ordered; None where a canary was only left out.
    :ivar log_odds: that there is an order, when the alarm was raised, and at most even.
    :ivar changed: canaries that gave another answer, or none; `kept`: those that kept one that was not ordered.
    :ivar asks: requests that its records have taken since.
    """

    def __init__(
        self, asked: Asked, answers: Answers, *, target: Hashable | None, strengths: Weights, log_odds: float,
        changed: Sequence[Canary], kept: Sequence[Canary] = (),
    ) -> None:  # fmt: skip
        middle = (len(asked.digests) + 1) // 2
        self._halves = frozenset(asked.digests[:middle]), frozenset(asked.digests[middle:])
        self._disturbed = [False, False]
        self._left = set(asked.digests)
        self._alone: dict[bytes, RecordId] = {}
        self._size = len(asked.digests)
        self.first = dict(answers)
        self.last: dict[bytes, Hashable] = {}
        self.target, self.strengths = target, strengths
        self.log_odds = min(0.0, log_odds)
        self.canaries, self.changed, self.kept = asked.canaries, changed, kept
        self.asks = 0

    def __repr__(self) -> str:
        return f"Family({self._size} records, {len(self._left)} left, target={self.target!r}, asks={self.asks})"

    @property
    def price(self) -> float:
        """Requests that it has taken, or will."""
        return max(self.asks, _PER_HALVING * math.log2(max(2, self._size)))

    @property
    def has_ended(self) -> bool:
        """Whether all of its records have ended."""
        return not self._left

    def note_disturbed(self, digests: Sequence[bytes]) -> None:
        """Part of it was disturbed as well."""
        for number, half in enumerate(self._halves):
            self._disturbed[number] |= half.issuperset(digests)

    def note_ended(self, digest: bytes, label: Hashable | None, *, id_: RecordId, alone: bool) -> None:
        """A record has ended; with no label if it failed."""
        self._left.discard(digest)
        if label is not None:
            self.last[digest] = label
        if alone:
            self._alone[digest] = id_

    def has_changed(self, noise: float) -> bool:
        """Whether its records got other answers when they were asked apart, more of them than change by themselves.

        :param noise: how often an answer changes by itself.
        """
        changed = sum(_differ(self.first.get(digest, label), label) for digest, label in self.last.items())
        return changed > _NOISY * noise * self._size

    def was_right(self, noise: float) -> bool:
        """Whether one record seems to have changed others: one half went on as before, and the other did not.

        Where both did, it is the model or the corpus that makes answers alike; where neither, the size of the batch,
        or a canary.
        """
        if not self.has_changed(noise):
            return False
        could_not_show = min(map(len, self._halves)) <= 1  # a record alone is never disturbed
        return sum(self._disturbed) == 1 or (could_not_show and not any(self._disturbed))

    def suspects(self) -> list[RecordId]:
        """Records that ended alone with the answer that they had: those that they disturbed have another one now."""
        same = [
            id_ for digest, id_ in self._alone.items() if not _differ(self.last.get(digest), self.first.get(digest))
        ]
        return same or list(self._alone.values())


def _differ(first: Hashable, last: Hashable) -> bool:
    """Whether two labels are not the same, as far as both say anything."""
    if isinstance(first, tuple) and isinstance(last, tuple) and len(first) == len(last):
        return any(one != other and UNSAID not in (one, other) for one, other in zip(first, last, strict=True))
    return first != last
