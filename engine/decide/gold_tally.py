"""Counts answers to records with known answers, by batch size and by place in the batch. See docs/design/gold.md."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import msgspec

from engine.decide.gold_values import GoldLoss, GoldRow
from engine.decide.scores import macro_f1, mean_within
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import LABELLED, FieldType, Task

CONFIDENCE = 0.95

_JUDGED = (*LABELLED, FieldType.BOOLEAN, FieldType.INTEGER, FieldType.NUMBER)
_LAST = (1, 2, 5, 10, 20)
POSITIONS = ("1", "2", "3-5", "6-10", "11-20", "21+")


def judged_variables(task: Task) -> list[str]:
    """The variables of which gold says what is right: not free text, which has many right wordings.

    :raises ConfigError: there are none.
    """
    names = [name for name, field in task.variables.items() if field.type in _JUDGED]
    if not names:
        raise ConfigError(
            "gold can judge labels, booleans and numbers, and the task has free text only; leave --gold out, or give "
            "the task a variable that can be right or wrong"
        )
    return names


def sizes_named(rung: int) -> str:
    """The batch sizes of a rung (see `quality.rung_of`)."""
    return str(rung) if rung <= 2 else f"{rung // 2 + 1}-{rung}"


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An answer beside what is right, by variable: both as JSON text."""

    cells: Mapping[str, tuple[str, str]]

    @property
    def right(self) -> float:
        """The share of the variables that are right."""
        return sum(gold == answer for gold, answer in self.cells.values()) / len(self.cells)


class _Seen:
    """What was answered at one place."""

    def __init__(self) -> None:
        self.cells: Counter[tuple[str, str]] = Counter()
        self.records: dict[int, list[int]] = {}  # line -> answers, right ones

    def add(self, line: int, cell: tuple[str, str]) -> None:
        self.cells[cell] += 1
        counts = self.records.setdefault(line, [0, 0])
        counts[0] += 1
        counts[1] += cell[0] == cell[1]

    def row(self, variable: str, where: str, *, has_labels: bool) -> GoldRow:
        shares = [right / answers for answers, right in self.records.values()]
        within = mean_within(shares, CONFIDENCE)
        answers = self.cells.total()
        return GoldRow(
            variable=variable,
            where=where,
            answers=answers,
            records=len(shares),
            accuracy=sum(n for (gold, answer), n in self.cells.items() if gold == answer) / answers,
            low=max(0.0, within.low),
            high=min(1.0, within.high),
            macro_f1=macro_f1(self.cells) if has_labels else None,
        )


class GoldTally:
    """All answers to gold. Lone answers are of size 1 and stand in no place."""

    def __init__(self, task: Task) -> None:
        """:raises ConfigError: gold cannot judge the task."""
        self._variables = judged_variables(task)
        self._is_object = task.is_object
        self._labelled = {name for name, field in task.variables.items() if field.type in LABELLED}
        self._by_size: dict[tuple[str, int], _Seen] = defaultdict(_Seen)
        self._by_position: dict[tuple[str, int], _Seen] = defaultdict(_Seen)
        self._differences: dict[int, list[float]] = defaultdict(list)

    def judged(self, output: Any, gold: Any) -> Judged:
        """An answer beside the right one."""
        return Judged(
            cells={
                name: (_text(gold[name]), _text(output[name])) if self._is_object else (_text(gold), _text(output))
                for name in self._variables
            }
        )

    def add(self, judged: Judged, *, line: int, rung: int, position: int | None = None) -> None:
        """An answer, in a batch of this rung, at a position from 1; None for a lone one."""
        for name, cell in judged.cells.items():
            self._by_size[name, rung].add(line, cell)
            if position is not None:
                self._by_position[name, bisect_left(_LAST, position)].add(line, cell)

    def add_pair(self, rung: int, *, alone: float, right: float) -> None:
        """A record that was asked alone and in a batch, for the first time."""
        self._differences[rung].append(alone - right)

    def pairs(self, rung: int) -> int:
        """Records that were asked alone and at this rung."""
        return len(self._differences[rung]) if rung in self._differences else 0

    def by_size(self) -> list[GoldRow]:
        """Smallest first, variable by variable."""
        return [
            self._by_size[name, rung].row(name, sizes_named(rung), has_labels=name in self._labelled)
            for name, rung in sorted(self._by_size, key=lambda key: (self._variables.index(key[0]), key[1]))
        ]

    def by_position(self) -> list[GoldRow]:
        """First places first, variable by variable."""
        return [
            self._by_position[name, place].row(name, POSITIONS[place], has_labels=name in self._labelled)
            for name, place in sorted(self._by_position, key=lambda key: (self._variables.index(key[0]), key[1]))
        ]

    def losses(self) -> list[GoldLoss]:
        """Smallest size first."""
        return [loss_of(sizes_named(rung), self._differences[rung]) for rung in sorted(self._differences)]


def loss_of(where: str, differences: Sequence[float]) -> GoldLoss:
    """Right alone less right in a batch, record by record.

    With the interval of Agresti and Min 2005, Stat. Med. 24: the normal one, half an observation added to each of
    the four cells of the paired table. Where no answer changed it is not of length 0."""
    n, total = len(differences), math.fsum(differences)
    padded = n + 2.0
    middle = total / padded
    variance = (math.fsum(one * one for one in differences) + 1.0) / padded - middle * middle
    half = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0) * math.sqrt(variance / padded)
    return GoldLoss(
        where=where,
        pairs=n,
        lost=math.fsum(one for one in differences if one > 0.0) / n,
        gained=math.fsum(-one for one in differences if one < 0.0) / n,
        loss=total / n,
        low=max(-1.0, middle - half),
        high=min(1.0, middle + half),
    )


def _text(value: Any) -> str:
    # Lists of labels are sets: their order says nothing.
    if isinstance(value, list):
        value = sorted(value, key=str)
    return msgspec.json.encode(value, order="sorted").decode()
