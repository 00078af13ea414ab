"""A line over the size of a call, ``base + each * size``, from some twenty calls that are mostly of one size.

A run's first calls are one of a single record and nineteen of a batch: by plain least squares the one call says what a
request takes by itself, however far off it was. So a belief about the base has the weight of what the calls scatter by:
calls that agree overrule it, and calls of one size leave it. `line.Line` learns the same while a run goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

_UNSURE = 0.5  # of the base that is believed in, standard deviation as a share
_DEGREES = 2


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A line, and what calls scatter around it by.

    :ivar squares: sum of the squares of the relative errors, for as many `calls`.
    """

    base: float
    each: float
    squares: float
    calls: int

    def of(self, size: float) -> float:
        """What a call of that size takes."""
        return self.base + self.each * size

    def scatter(self, *, before: float = 0.0, weight: float = 0.0) -> float:
        """Standard deviation as a share, where one of `before` was believed with the weight of so many calls."""
        free = max(1, self.calls - _DEGREES)
        mean = self.squares / free
        return math.sqrt((weight * before**2 + self.calls * mean) / (weight + self.calls))


def fit_line(points: Sequence[tuple[float, float]], *, worth: float) -> Fitted:
    """Least squares of relative errors; neither the base nor each becomes less than zero.

    :param points: sizes and amounts; one or more, sizes above zero.
    :param worth: the size that the base is believed to be worth.
    """
    return _fit(points, worth, _fit(points, worth, 0.0).scatter())


def _fit(points: Sequence[tuple[float, float]], worth: float, scatter: float) -> Fitted:
    """With a belief that ``base = worth * each``, give or take `_UNSURE` of it, beside errors of so much scatter."""
    weights = [1.0 / (worth + size) ** 2 for size, _ in points]
    # Never zero: calls of one size only cannot tell, however well they agree.
    belief = max((scatter / _UNSURE) ** 2, 1e-9) / worth**2
    a = sum(weights) + belief
    b = sum(weight * size for weight, (size, _) in zip(weights, points, strict=True)) - belief * worth
    d = sum(weight * size * size for weight, (size, _) in zip(weights, points, strict=True)) + belief * worth**2
    amount = sum(weight * value for weight, (_, value) in zip(weights, points, strict=True))
    sized = sum(weight * size * value for weight, (size, value) in zip(weights, points, strict=True))
    determinant = a * d - b * b
    base, each = (amount * d - sized * b) / determinant, (sized * a - amount * b) / determinant
    if base < 0.0:
        base, each = 0.0, sized / (d - belief * worth**2)
    elif each < 0.0:
        base, each = amount / (a - belief), 0.0
    squares = sum((value / max(1e-9, base + each * size) - 1) ** 2 for size, value in points)
    return Fitted(base=base, each=each, squares=squares, calls=len(points))
