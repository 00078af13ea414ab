"""Records with known answers, sent along to see whether a batch was disturbed. See docs/design/neighbours.md."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence

from engine.vocabulary.values import Record

FEWEST, MOST = 2, 5
"""Canaries in a batch. With two that have different answers, whatever label is ordered is wrong for one of them."""

_LARGE = 10  # records: from here on one canary more is a small part of the price, and an order does more harm

_MORE = 2
_POOL = 16
_ENOUGH = 6
_MOST_ASKED = 24  # lone answers after which a pool in which all are alike is used as it is
_LOOK_EVERY = 25  # batches, while all canaries have the same answer
_MOST_TOKENS = 400  # of a canary, or it would cost more than the records that it guards
_NOISE, _NOISE_OF = 0.01, 50.0
_NOISY = 0.2
_NOISY_AFTER = 8
_BAD_COMPANY, _DEVIATIONS = 3, 3.0  # alarms with a canary, and how far beyond those without it
_MOST_DROPPED = 16
_MANY = 7  # answers in a batch, from which on one more has to differ


def canaries_for(records: int, *, more: bool = False) -> int:
    """How many go with a batch of so many records; none with one alone, which has nobody to disturb.

    :param more: orders were found, and the model obeys them by halves: then two canaries often keep their answers.
    """
    if records < FEWEST:
        return 0
    return FEWEST + (records >= _LARGE) + (_MORE if more and records >= _LARGE else more)


class Canary:
    """A record that was answered alone.

    :ivar seen: batches in which it stood and whose end is known. `noise`: of those that nobody disturbed, how many in
        which its answer was another. `alarmed`: those that were not accepted.
    :ivar is_cleared: whether it is known to order nothing. Until then it may be a record that gives orders, and such a
        one keeps its own answer: that says nothing of the others.
    """

    def __init__(self, record: Record, label: Hashable) -> None:
        self.record = record
        self.label = label
        self.seen = self.noise = self.alarmed = 0
        self.is_cleared = False
        self._heard: Hashable | None = None  # what all others said in batches in which all said the same

    def may_order(self, label: Hashable, others: Sequence[Hashable]) -> bool:
        """Whether it may have ordered a label in a batch.

        :param others: what all others of the batch said. A model that obeys every order says one thing to all of them.
        """
        return not self.is_cleared and self._heard in (None, label) and not _differ(others)

    def note_accepted(self, others: Sequence[Hashable]) -> None:
        """A batch in which it kept its answer was accepted. It may go on ordering only what all the others said."""
        if _differ(others):
            self.is_cleared = True
        elif others and len(set(others)) == 1:
            self.is_cleared |= self._heard not in (None, others[0])
            self._heard = others[0]

    def __repr__(self) -> str:
        return f"Canary({self.record.key}, {self.label!r}, seen={self.seen}, noise={self.noise})"


class CanaryPool:
    """Those that are used at present. A record of the corpus may itself order things: such a one is found by what
    happens to the batches in which it stands, and dropped."""

    def __init__(self) -> None:
        self.pool: list[Canary] = []
        self._asked = self._dropped = self._looked_at = 0
        self._batches = self._alarmed = self._seen = self._noise = 0

    def __repr__(self) -> str:
        return f"CanaryPool({len(self.pool)}, asked={self._asked}, dropped={self._dropped})"

    @property
    def is_ready(self) -> bool:
        """Whether batches can be guarded: until then records are asked alone, which makes canaries."""
        if len(self.pool) < FEWEST:
            return False
        return self._asked >= _MOST_ASKED or (len(self.pool) >= _ENOUGH and not self.is_alike)

    @property
    def is_alike(self) -> bool:
        """Whether all have the same answer, so that an order for just this one goes unseen."""
        return len({canary.label for canary in self.pool}) < FEWEST

    @property
    def is_hopeless(self) -> bool:
        """Whether so many did not keep their answers that none can be trusted."""
        return self._dropped >= _MOST_DROPPED

    @property
    def noise(self) -> float:
        """How often a canary gives another answer though nobody disturbs it; one in a hundred before it is known."""
        return min(0.5, (self._noise + _NOISE * _NOISE_OF) / (self._seen + _NOISE_OF))

    @property
    def tokens(self) -> int:
        """Entry tokens that the canaries of a batch take at the most."""
        largest = sorted(canary.record.input_tokens for canary in self.pool)[-MOST:]
        return sum(largest)

    @property
    def is_due(self) -> bool:
        """Whether a record should be asked alone, to find a canary with another answer than all the others."""
        return self.is_alike and self._batches >= self._looked_at + _LOOK_EVERY

    def note_asked(self) -> None:
        """A record was sent alone; its answer may take a while."""
        self._looked_at = self._batches

    def offer(self, record: Record, label: Hashable) -> None:
        """A record was answered alone."""
        self._asked += 1
        if record.input_tokens > _MOST_TOKENS or any(one.record.digest == record.digest for one in self.pool):
            return
        if len(self.pool) < _POOL:
            self.pool.append(Canary(record, label))
        elif self.is_alike and label != self.pool[0].label:
            self.pool[0] = Canary(record, label)

    def draw(
        self, count: int, *, taken: Collection[Hashable], key: Callable[[Record], Hashable], rng: random.Random
    ) -> list[Canary]:
        """Canaries for a batch, with as many different answers as there are; none where fewer than two fit.

        :param key: what all records of a request must differ in; `taken` are those of the batch.
        """
        fit = {key(canary.record): canary for canary in rng.sample(self.pool, len(self.pool))}
        left = [canary for found, canary in fit.items() if found not in taken]
        drawn: list[Canary] = []
        labels: Counter[Hashable] = Counter()
        while left and len(drawn) < count:
            canary = min(left, key=lambda one: labels[one.label])
            left.remove(canary)
            drawn.append(canary)
            labels[canary.label] += 1
        return drawn if len(drawn) >= FEWEST else []

    def drop_unproven(self, kept: Collection[Canary]) -> None:
        """These kept their answers in a disturbed batch where another one did not: they may be who disturbed it."""
        self.pool = [canary for canary in self.pool if canary.is_cleared or canary not in kept]

    def note(self, pair: Collection[Canary], changed: Collection[Canary], *, alarmed: bool, disturbed: bool) -> None:
        """What became of a batch with these canaries.

        :param changed: those whose answer was another one, or missing.
        :param alarmed: whether the batch was not accepted.
        :param disturbed: whether its records got other answers when they were asked apart.
        """
        self._batches += 1
        self._alarmed += alarmed
        for canary in pair:
            noisy = canary in changed and not disturbed
            canary.seen += 1
            canary.noise += noisy
            canary.alarmed += alarmed
            self._seen += 1
            self._noise += noisy
        for canary in [canary for canary in self.pool if self._is_bad(canary)]:
            self.pool.remove(canary)
            self._dropped += 1

    def _is_bad(self, canary: Canary) -> bool:
        if canary.seen >= _NOISY_AFTER and canary.noise > _NOISY * canary.seen:
            return True
        usual = (self._alarmed - canary.alarmed + 1.0) / (self._batches - canary.seen + 2.0)
        spread = math.sqrt(usual * (1.0 - usual) / max(1, canary.seen))
        return canary.alarmed >= _BAD_COMPANY and canary.alarmed / canary.seen > usual + _DEVIATIONS * spread


def slack(said: int) -> int:
    """How many of so many answers may differ from the others though all obey one order: the one that gives it, and in
    large batches another one, as records that give orders may keep their own answers."""
    return 2 if said >= _MANY else 1


def _differ(others: Sequence[Hashable]) -> bool:
    """Whether too many say something else than the commonest for all of them to have obeyed one order."""
    return len(others) - max(Counter(others).values(), default=0) >= slack(len(others) + 1)
