"""What was seen of the labels at one batch size. See docs/design/quality.md."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

from engine.decide.quality_stats import Bet, Count
from engine.vocabulary.task import FieldType, Task

Labels = Sequence[Hashable | None]
"""The answers of one reply in the order in which its records were sent; None where there is none."""

CATEGORICAL = (FieldType.LABEL, FieldType.LABELS, FieldType.BOOLEAN, FieldType.INTEGER)

POSITIONS = ("2", "3-5", "6-10", "11-20", "21+")
_LAST = (2, 5, 10, 20)
_MOST_LABELS = 1000  # distinct ones that are counted by size: a task of many fields may have any number
MAX_LOSS = 0.02
"""Of accuracy, with gold: what is called worse."""
_MOST_OPEN = 400
_CLEAR = 0.05  # share of pairs that are equal without a reason: below it is drift of the corpus, and costs little


def can_be_judged(task: Task) -> bool:
    """Whether answers to the task can be compared: it has more to fill in than free text and measures."""
    return any(field.type in CATEGORICAL for field in task.variables.values())


def label_signature(output: Any, task: Task) -> Hashable | None:
    """What of an output is compared: its label, labels (in any order), boolean and integer variables.

    :param output: as the check of the task gives it.
    :returns: equal for equal answers; None where the task has free text and numbers only, and nothing can be compared.
    """
    names = [name for name, field in task.variables.items() if field.type in CATEGORICAL]
    if not names:
        return None
    return tuple(_hashable(output[name] if task.is_object else output) for name in names)


def _hashable(value: Any) -> Hashable:
    # True and 1 are equal to Python, and different answers to nobody who mixes them; the type keeps them apart.
    return tuple(sorted(value)) if isinstance(value, list) else (type(value).__name__, value)


class Changes:
    """Records asked twice, whose answers may differ; bets that they do so more often than the noise and `most`.

    Each is set against one record whose lone answer was asked for twice: the difference of the two, -1 to 1, has a mean
    above `most` only where the batch matters. One game on the difference needs a third of the answers that two bounds
    do, subtracted from each other.
    """

    def __init__(self, most: float) -> None:
        self.count = Count()  # hits: another answer
        self._bet = Bet(most=most)
        self._open: list[bool] = []  # not yet set against a repeat; the first ones only, see `_MOST_OPEN`
        self._used = 0

    def __repr__(self) -> str:
        return f"Changes({self.count}, {self._bet})"

    def add(self, differs: bool) -> None:
        """One record more."""
        self.count.add(differs)
        if len(self._open) < _MOST_OPEN:
            self._open.append(differs)

    def beyond(self, repeats: Sequence[bool], alpha: float) -> bool:
        """Whether more differ than allowed, given which lone answers differed when asked for twice."""
        while self._open and self._used < len(repeats):
            self._bet.add(float(self._open.pop(0)) - float(repeats[self._used]))
            self._used += 1
        return self._bet.won(alpha)


class Evidence:
    """Everything seen at the batch sizes of one rung (see `quality.rung_of`). All state is named here."""

    def __init__(self, *, most: float) -> None:
        self.batches = self.records = 0
        self.alone = Changes(most)  # against the lone answer
        self.held = False  # it was shown at some look that no more than `most` change
        self.reordered = Changes(most)  # against another order or company
        self.gold = Count()  # hits: right
        self.lost = Count()  # gold with both ways asked; hits: right alone, wrong in the batch
        self.gained = Count()  # the reverse
        self.no_worse = Bet(most=-MAX_LOSS)  # right in the batch less right alone, of the same records
        self.copying = Bet(most=_CLEAR)  # equal pairs within batches, beyond those across two
        self.collapse = Bet(most=_CLEAR)  # equal pairs of answers, beyond those of the lone answers to the same records
        self.labels: Counter[Hashable] = Counter()
        self.same_as_before = {name: Count() for name in POSITIONS}
        self._batch: list[Hashable] | None = None
        self._pair: tuple[Hashable, Hashable] | None = None

    def __repr__(self) -> str:
        return f"Evidence(alone={self.alone}, reordered={self.reordered}, copying={self.copying})"

    def add_batch(self, labels: Labels) -> None:
        """The answers of a reply."""
        self.batches += 1
        self.records += len(labels)
        for position, (before, label) in enumerate(pairwise(labels), start=2):
            if label is not None and before is not None:
                self.same_as_before[POSITIONS[bisect_left(_LAST, position)]].add(label == before)
        present = [label for label in labels if label is not None]
        for label in present:
            if label in self.labels or len(self.labels) < _MOST_LABELS:
                self.labels[label] += 1
        if len(present) > 1:
            self._add_pairs(present)

    def _add_pairs(self, present: list[Hashable]) -> None:
        """Two batches that follow each other: pairs within each against pairs across.

        Records are shuffled before they are packed, so that which of the two batches a record came to is chance: then
        both kinds of pair are equal equally often, in any corpus, sorted or skewed. Batches are used in twos, once
        each, so that the numbers bet on are fresh.
        """
        if self._batch is None:
            self._batch = present
            return
        first, self._batch = self._batch, None
        within = (equal_pairs(first) + equal_pairs(present)) / 2.0
        self.copying.add(within - equal_across(first, present))

    def add_alone(self, alone: Hashable, label: Hashable) -> None:
        """A record's answer alone, and in a batch."""
        self.alone.add(alone != label)
        if self._pair is None:
            self._pair = (alone, label)
            return
        other_alone, other = self._pair
        self._pair = None
        self.collapse.add(float(other == label) - float(other_alone == alone))

    def add_gold(self, correct: bool, alone: bool | None) -> None:
        """Whether a record with gold was right; `alone`: whether its lone answer was, where it has one."""
        self.gold.add(correct)
        if alone is not None:
            self.lost.add(alone and not correct)
            self.gained.add(correct and not alone)
            self.no_worse.add(float(correct) - float(alone))

    @property
    def discordant(self) -> float:
        """Share of gold records that were right in one way only."""
        return self.lost.share + self.gained.share

    @property
    def commonest_share(self) -> float:
        """Share of the commonest answer among all."""
        total = self.labels.total()
        return max(self.labels.values()) / total if total else 0.0


def equal_pairs(labels: Sequence[Hashable]) -> float:
    """Share of all pairs within the sequence that are equal; at least two labels."""
    n = len(labels)
    return sum(count * (count - 1) for count in Counter(labels).values()) / (n * (n - 1))


def equal_across(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Share of pairs of one label from each sequence that are equal."""
    other = Counter(second)
    return sum(count * other[label] for label, count in Counter(first).items()) / (len(first) * len(second))
