"""One plot before it is drawn: what it says of this run, and how it is drawn. Needs no plotting library."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, HALF, NARROW = 940, 380, 340
"""Widths in CSS pixels: of a plot as wide as the page, of two beside each other, and of one on a telephone."""

Draw = Callable[["Figure", bool], None]
"""Draws on a figure; True where it is narrow."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A numbered move that a plot shows: what, and why."""

    number: int
    at_s: float
    what: str
    why: str


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """A plot that this run has something to show in.

    :ivar title: what it is of, in a few words.
    :ivar heading: one sentence: what it shows for this run.
    :ivar note: how to read it.
    :ivar heights: in CSS pixels, wide and narrow; a plot of half a page has one for both.
    :ivar steps: moves that it numbers, the newest last.
    """

    title: str
    heading: str
    note: str
    draw: Draw
    heights: tuple[int, ...]
    steps: list[Step] = []

    @property
    def is_wide(self) -> bool:
        """Whether it takes the whole width of the page."""
        return len(self.heights) > 1


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A plot that would be empty, and why."""

    title: str
    reason: str
