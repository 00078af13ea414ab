"""How a model's answers change with the batch that they stand in: the part that no format check can see.

Off by default. Numbers fitted to measurements are in `.measured`, made-up ones in `.made_up`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import log2
from random import Random
from struct import Struct
from typing import Any, Literal, Protocol

from .request import Record

Other = Callable[[int, str], Any]
"""``(index, salt) -> another valid output than the truth of that record``, stable."""

WRONG = "wrong"
"""The salt of a record's second choice: what a wrong answer to it says, alone and in every batch."""


class Behaviour(Protocol):
    """What becomes of the right answers."""

    def answer(
        self,
        records: Sequence[Record],
        truths: Sequence[Any],
        *,
        other: Other,
        favourite: Any,
        keyed: bool,
        rng: Random,
    ) -> list[Any]:
        """One output for each record, in their order.

        :param favourite: the output that a model falls into where it gives up judging.
        :param keyed: whether each result repeats words of its input before its output.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyTable:
    """Probability that an answer merely repeats the one before it, by batch size and position.

    :ivar rows: for each measured batch size, pairs (first position, probability), positions counting from 1.
        Between two batch sizes the probability is interpolated on log2 B; beyond the last row it stays.
    """

    rows: Mapping[int, Sequence[tuple[int, float]]]

    def __call__(self, position: int, batch_size: int) -> float:
        return interpolated({size: _at(row, position) for size, row in self.rows.items()}, batch_size)


def _at(row: Sequence[tuple[int, float]], position: int) -> float:
    index = bisect_right(row, position, key=lambda entry: entry[0]) - 1
    return row[index][1] if index >= 0 else 0.0


def interpolated(table: Mapping[int, float], batch_size: int) -> float:
    """A value between the measured batch sizes, linear in log2 B, constant outside them."""
    sizes = sorted(table)
    above = bisect_right(sizes, batch_size)
    if above == 0 or above == len(sizes):
        return table[sizes[max(above - 1, 0)]]
    low, high = sizes[above - 1], sizes[above]
    share = (log2(batch_size) - log2(low)) / (log2(high) - log2(low))
    return table[low] + share * (table[high] - table[low])


@dataclass(frozen=True, kw_only=True, slots=True)
class Redraw:
    """Answers that change with their batch mates. All three by batch size.

    :ivar favourite: share of the answers that are the favourite output, whatever the input.
    :ivar share: share of the others that are drawn anew.
    :ivar accuracy: share of right ones among those drawn anew.
    """

    favourite: Mapping[int, float] = field(default_factory=lambda: {1: 0.0})
    share: Mapping[int, float] = field(default_factory=lambda: {1: 0.0})
    accuracy: Mapping[int, float] = field(default_factory=lambda: {1: 1.0})


@dataclass(frozen=True, slots=True)
class _AtSize:
    """The tables of a behaviour at one batch size; copying by position, from 0."""

    copying: Sequence[float]
    favourite: float
    redrawn: float
    again: float

    @property
    def changes(self) -> bool:
        """Whether the batch does anything to the answers; if not, nothing need be drawn for it."""
        return self.favourite > 0 or self.redrawn > 0 or any(self.copying)


_UNTOUCHED = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchBehaviour:
    """Each record has a fixed lone answer; batches change it, by copying, by falling into one label and by redrawing.

    The same request gets the same answers again, but for the noise: what a batch does to an answer is drawn from the
    texts in the batch and their order, not from a generator.

    :ivar accuracy: share of records whose lone answer is right.
    :ivar noise: probability that an answer is replaced by another one at each ask: an exact repeat at temperature 0
        agreed in .905 to .995 of the cases.
    :ivar copying: probability of repeating the answer before, by position (from 1) and batch size.
    :ivar keyed: the behaviour with keyed answers; None: the same.
    :ivar seed: which records are answered wrongly, and what a batch does to them, is another draw for each seed.
    """

    accuracy: float = 1.0
    noise: float = 0.0
    redraw: Redraw = Redraw()
    copying: Callable[[int, int], float] | None = None
    keyed: BatchBehaviour | None = None
    seed: int = 0
    _sizes: dict[int, _AtSize] = field(default_factory=dict, init=False, repr=False, compare=False)

    def seeded(self, seed: int) -> BatchBehaviour:
        """The same behaviour, drawn anew."""
        return replace(self, seed=seed, keyed=self.keyed and self.keyed.seeded(seed))

    def answer(
        self,
        records: Sequence[Record],
        truths: Sequence[Any],
        *,
        other: Other,
        favourite: Any,
        keyed: bool,
        rng: Random,
    ) -> list[Any]:
        """See `Behaviour`."""
        if keyed and self.keyed is not None:
            return self.keyed.answer(records, truths, other=other, favourite=favourite, keyed=False, rng=rng)
        at = self._at(len(records))
        batch = _batch_salt(records, self.seed)
        outputs: list[Any] = []
        changes = at.changes
        for index, record in enumerate(records):
            copied, fallen, redrawn, again = _draws(record, batch) if changes else _UNTOUCHED
            if outputs and copied < at.copying[index]:
                outputs.append(outputs[-1])
            elif fallen < at.favourite:
                outputs.append(favourite)
            elif self.noise > 0.0 and rng.random() < self.noise:
                outputs.append(other(index, f"noise{rng.random()}"))
            else:
                right = again < at.again if redrawn < at.redrawn else self.is_right_alone(record)
                outputs.append(truths[index] if right else other(index, WRONG))
        return outputs

    def is_right_alone(self, record: Record, *, keyed: bool = False) -> bool:
        """Whether the lone answer to a record is right, without the noise."""
        if keyed and self.keyed is not None:
            return self.keyed.is_right_alone(record)
        return _draws(record, b"lone%d" % self.seed)[0] < self.accuracy

    def _at(self, size: int) -> _AtSize:
        if size not in self._sizes:
            redraw, copying = self.redraw, self.copying
            self._sizes[size] = _AtSize(
                copying=[copying(position, size) if copying else 0.0 for position in range(1, size + 1)],
                favourite=interpolated(redraw.favourite, size),
                redrawn=interpolated(redraw.share, size),
                again=interpolated(redraw.accuracy, size),
            )
        return self._sizes[size]


_KEY, _SHARES, _SPAN = Struct(">Q"), Struct(">4I"), float(2**32)


def _batch_salt(records: Sequence[Record], seed: int) -> bytes:
    """Differs with the texts, their order and the seed."""
    keys = tuple(record.key for record in records)
    return b"%d/%d" % (hash(keys), seed)  # hashes of integers are the same in every run


def _draws(record: Record, salt: bytes) -> tuple[float, float, float, float]:
    """Four numbers in [0, 1) that depend on nothing but the record's text and the salt: one hash, as it is the cost."""
    one, two, three, four = _SHARES.unpack(blake2b(_KEY.pack(record.key) + salt, digest_size=16).digest())
    return one / _SPAN, two / _SPAN, three / _SPAN, four / _SPAN


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """A model that is another one later, as hosted ones become behind their name.

    :ivar steps: pairs (from when on, behaviour), in order; the first counts from the beginning.
    :ivar by: whether "when" is seconds since the first request, or requests received.
    """

    steps: Sequence[tuple[float, BatchBehaviour]]
    by: Literal["seconds", "requests"] = "seconds"

    def at(self, elapsed_s: float, requests: int) -> BatchBehaviour:
        """The behaviour in force."""
        when = elapsed_s if self.by == "seconds" else requests
        index = bisect_right(self.steps, when, key=lambda step: step[0]) - 1
        return self.steps[max(index, 0)][1]

    def seeded(self, seed: int) -> Drift:
        """The same, drawn anew."""
        return replace(self, steps=[(start, behaviour.seeded(seed)) for start, behaviour in self.steps])
