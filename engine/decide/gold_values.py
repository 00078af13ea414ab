"""What came of records with known answers. See docs/design/gold.md."""

from __future__ import annotations

import msgspec


class Ride(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a record with gold, in a batch.

    :ivar right: the share of its variables that are right, 0 to 1.
    :ivar alone: the same of its lone answer; None where it was not asked alone.
    """

    right: float
    alone: float | None


class GoldRow(msgspec.Struct, frozen=True, kw_only=True):
    """How right the answers to gold were: of one variable, at one batch size or at one place in the batch.

    :ivar variable: "" where the task has one.
    :ivar where: a batch size ("1", "2", "3-4", "5-8", ...), or places in a batch ("1", "2", "3-5", ...).
    :ivar answers: of so many `records`; one that was asked again counts for each answer.
    :ivar low: of accuracy, with `high` its 95 % interval over the records (an answer more to the same is not one more).
    :ivar macro_f1: the mean of F1 over the labels; None for a variable without labels.
    """

    variable: str
    where: str
    answers: int
    records: int
    accuracy: float
    low: float
    high: float
    macro_f1: float | None


class GoldLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Accuracy that a batch size costs, by records that were asked alone as well.

    :ivar where: batch sizes. :ivar pairs: records asked both ways.
    :ivar lost: right alone and wrong in the batch, as a share; `gained`: the reverse. Of all variables together, the
        mean over them.
    :ivar loss: the difference, with its 95 % interval.
    """

    where: str
    pairs: int
    lost: float
    gained: float
    loss: float
    low: float
    high: float
