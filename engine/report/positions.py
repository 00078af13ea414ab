"""Where in a request records go without an answer: a small table, for any number of replies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.report.series import PositionRow

PLACES = 64
"""Places told apart; what stands beyond is counted with the last."""


class _Class(msgspec.Struct):
    """Requests of sizes from one power of two to the next."""

    asked: list[int]
    missed: list[int]


class PositionLog:
    """Counts by place, for classes of sizes: 1, 2 to 3, 4 to 7, 8 to 15 and so on."""

    def __init__(self) -> None:
        self._classes: dict[int, _Class] = {}

    def __repr__(self) -> str:
        return f"PositionLog({self.rows()})"

    def add(self, answered: Sequence[bool]) -> None:
        """A model has replied: for each record, in the order in which it was sent, whether its answer could be used."""
        counted = self._classes.setdefault(len(answered).bit_length(), _Class(asked=[], missed=[]))
        grow = min(len(answered), PLACES) - len(counted.asked)
        counted.asked.extend([0] * grow)
        counted.missed.extend([0] * grow)
        for place, is_answered in enumerate(answered):
            counted.asked[min(place, PLACES - 1)] += 1
            counted.missed[min(place, PLACES - 1)] += not is_answered

    def rows(self) -> list[PositionRow]:
        """By size, the smallest first."""
        return [
            PositionRow(
                smallest=1 << bits >> 1, largest=(1 << bits) - 1, asked=list(counted.asked), missed=list(counted.missed)
            )
            for bits, counted in sorted(self._classes.items())
        ]
