"""Answers to gold in batches, until the same records have been answered alone. See docs/design/gold.md.

A batch is one number of the test, so it is given as a whole: when the lone answers to all its records are there that
will come. What the answers say decides nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from engine.decide.gold_values import Ride
from engine.vocabulary.config import AnswerForm


class GoldBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The gold of one answered batch.

    :ivar size: of the request, gold included. :ivar sweep: which pass through the gold.
    :ivar right: line of the gold file -> how right the answer in the batch is, 0 to 1.
    """

    size: int
    form: AnswerForm
    sweep: int
    right: Mapping[int, float]

    def rides(self, alone: Mapping[int, float]) -> list[Ride]:
        """Beside the lone answers that there are."""
        return [Ride(right=right, alone=alone.get(line)) for line, right in self.right.items()]


class OpenBatches:
    """Batches with gold whose lone answers are not all there; each comes out once."""

    def __init__(self) -> None:
        self._open: list[GoldBatch] = []

    def __repr__(self) -> str:
        return f"OpenBatches({len(self._open)})"

    def add(self, batch: GoldBatch) -> None:
        """One was answered."""
        self._open.append(batch)

    def complete(self, awaits: Callable[[int], bool]) -> list[GoldBatch]:
        """Those that wait for nothing more, in the order in which they were answered.

        :param awaits: whether the lone answer of a line is still to come.
        """
        done = [batch for batch in self._open if not any(map(awaits, batch.right))]
        if done:
            self._open = [batch for batch in self._open if batch not in done]
        return done
