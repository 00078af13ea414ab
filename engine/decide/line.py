"""What a call takes of something, as a line over the records that it asks for, learned from calls of all sizes.

Seconds of a slot (`size_worth.SlotTimes`) and reasoning tokens (`reasoning.Reasoning`) scatter by a tenth and more from
call to call where two sizes differ by some hundredths: no mean of one size by itself tells them apart.
"""

from __future__ import annotations

import math

MEMORY = 96.0
"""Calls after which what is known of the scatter has faded to 1/e."""

_FADE = math.exp(-1 / MEMORY)
_LINE_MEMORY = 400.0  # calls
_BASE = 2.0  # a call takes as much as so many records, on top of its own: 1 to 4, measured and of hosted endpoints
_UNSURE = 0.5  # of that, standard deviation as a share
_SCATTER, _SCATTER_WEIGHT = 0.2, 8.0  # before it is known
_WILD = 4.0  # times what was expected: what is more counts as this


class Line:
    """``base + each * records``, from fading sums over calls.

    Least squares of relative errors, with a weak belief what the base is worth, so that calls of one size only (which
    cannot tell base from records) are not taken for either. Both stay >= 0.
    """

    def __init__(self, *, scatter: float = _SCATTER, worth: float = _BASE) -> None:
        """
        :param scatter: standard deviation of a call, as a share of what is expected, before it is known.
        :param worth: records that the base is believed to be worth.
        """
        self._worth = worth
        self._weight = self._records = self._records2 = self._amount = self._records_amount = 0.0
        self._squares, self._calls = _SCATTER_WEIGHT * scatter**2, _SCATTER_WEIGHT
        self.base = self.each = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base:.3f} + {self.each:.3f} * records, scatter {self.scatter:.2f})"

    def expected(self, calls: float, records: float) -> float:
        """Of so many calls with so many records together."""
        return self.base * calls + self.each * records

    @property
    def scatter(self) -> float:
        """Standard deviation of a call, as a share of what is expected of it."""
        return math.sqrt(self._squares / self._calls)

    def observe(self, size: int, amount: float) -> None:
        """A call of so many records took so much."""
        expected = self.expected(1.0, size)
        if expected > 0.0:
            amount = min(amount, _WILD * expected)
            self._squares = self._squares * _FADE + (amount / expected - 1.0) ** 2
            self._calls = self._calls * _FADE + 1.0
        shape = 1.0 / (self._worth + size) ** 2  # so that errors count by their share
        sums = (1.0, size, size * size, amount, size * amount)
        old = (self._weight, self._records, self._records2, self._amount, self._records_amount)
        fade = math.exp(-1 / _LINE_MEMORY)
        new = [before * fade + shape * part for before, part in zip(old, sums, strict=True)]
        self._weight, self._records, self._records2, self._amount, self._records_amount = new
        self._fit()

    def _fit(self) -> None:
        worth = self._worth
        belief = (self.scatter / _UNSURE) ** 2 / (2.0 * worth) ** 2  # beside squared errors of so much scatter
        a, b, d = self._weight + belief, self._records - belief * worth, self._records2 + belief * worth**2
        determinant = a * d - b * b
        base = (self._amount * d - self._records_amount * b) / determinant
        each = (self._records_amount * a - self._amount * b) / determinant
        if base < 0.0:
            base, each = 0.0, self._records_amount / d
        elif each < 0.0:
            base, each = self._amount / a, 0.0
        self.base, self.each = base, each
