"""Which record with a known answer goes next, and where. See docs/design/gold.md."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from engine.vocabulary.values import Record

DEFAULT_GOLD_RATE = 0.05
"""Of the records that are sent: a twentieth more input for what nothing else can tell."""

MOST_TOKENS = 4_000
"""Of a gold record: a longer one would push the records that it rides with out of their request."""

_SHARE_OF_BATCH = 4  # one place in so many, at the most: gold is a guest
_LONE_SHARE = 2.0  # times the rate may go to lone asks, of what limits the run: requests, or tokens
_GRACE = 16  # lone asks before their share of the requests is held to: a start needs some
_STOCK = 24  # of those with a lone answer that wait for a ride: a run that ends early has not paid for many more
_LEAST_RATE = 0.005
_HURRY = 2  # in a batch of a size that must be known soon: more than these in one say little more (see `gold_test`)
_TRICKLE = 0.25  # of the rate, while what rode before its time is made up for: a late fall should be seen all the same


class GoldEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its right answer.

    :ivar record: what is sent of it.
    :ivar output: what is right, as the task spells it.
    :ivar line: in its file.
    """

    record: Record
    output: Any
    line: int


Fits = Callable[[GoldEntry], bool]


class GoldPool:
    """Each entry rides once in a pass through all; the next pass rides at half the rate.

    Within a pass every answer is of another record, so they are as independent as the records of a corpus are, and a
    test may take them as they come. Those whose lone answer is known go first: only they make a pair.
    """

    def __init__(self, entries: Sequence[GoldEntry], *, rate: float, rng: random.Random) -> None:
        """:param rate: gold records among the records that are sent, in the first pass."""
        self._entries = list(entries)
        self._rng = rng
        self._rate = rate
        self._credit = self._trickle = 0.0
        self._paired: list[GoldEntry] = []  # of this pass, not yet ridden, the lone answer known; the last goes next
        self._unpaired: list[GoldEntry] = []
        self._lone: set[int] = set()  # lines whose lone answer is known
        self._lone_out: set[int] = set()
        self._asked: set[int] = set()  # lines that will not be asked alone again
        self._lone_asks = 0
        self._lone_left = len(self._entries)
        self.passes = 0
        self._refill()

    def __repr__(self) -> str:
        return f"GoldPool({len(self._entries)}, pass={self.passes}, left={self.left})"

    def _refill(self) -> None:
        self.passes += 1
        order = self._rng.sample(self._entries, len(self._entries))
        self._paired = [one for one in order if one.line in self._lone]
        self._unpaired = [one for one in order if one.line not in self._lone]

    @property
    def left(self) -> int:
        """Entries that have not ridden in this pass."""
        return len(self._paired) + len(self._unpaired)

    @property
    def rate(self) -> float:
        """At present: what has been asked again and again tells less and less."""
        return max(min(self._rate, _LEAST_RATE), self._rate / 2.0 ** (self.passes - 1))

    # -- rides -------------------------------------------------------------------------------------------------------

    def candidates(self, size: int, *, ahead: float = 0.0) -> list[GoldEntry]:
        """Those that would go with the next new batch of so many records; none of them is taken yet.

        :param ahead: so many may ride before their time, as this size must be known soon; later ones are fewer for it.
        """
        due = int(self._credit + self.rate * size)
        hurries = ahead > 0.0 and self._credit > -ahead and self.passes == 1
        if hurries:
            due = max(due, _HURRY)
        elif self._credit < 0.0:
            due = int(self._trickle + _TRICKLE * self.rate * size)
        places = min(due, max(1, size // _SHARE_OF_BATCH))
        if size < 2 or places < 1 or not self._entries:
            return []
        if not self.left:
            self._refill()
        others = self._paired[::-1]
        # Without a lone answer a ride tells of one size only. What can still be asked alone waits for that.
        waits = self.waits_for_lone or (hurries and self._lone_left > 0)
        spare = 0 if waits else len(self._unpaired) - self._lone_left
        if len(others) < places and spare > 0:
            others.extend(islice(reversed(self._unpaired), min(spare, places)))
        return others[:places]

    def ride(self, candidates: Iterable[GoldEntry], *, records: int, fits: Fits) -> list[GoldEntry]:
        """Those of the candidates that go with a batch of so many records."""
        riders = [one for one in candidates if fits(one)]
        self._credit = min(4.0, self._credit + self.rate * records - len(riders))
        self._trickle = min(1.0, max(0.0, self._trickle + _TRICKLE * self.rate * records - len(riders)))
        if riders:
            gone = {one.line for one in riders}
            self._paired = [one for one in self._paired if one.line not in gone]
            self._unpaired = [one for one in self._unpaired if one.line not in gone]
        return riders

    def give_back(self, entries: Iterable[GoldEntry]) -> None:
        """These rode and were not answered: they ride again, after the others."""
        for one in entries:
            (self._paired if one.line in self._lone else self._unpaired).insert(0, one)

    # -- lone asks ---------------------------------------------------------------------------------------------------

    @property
    def waits_for_lone(self) -> bool:
        """Whether lone answers are on their way, which riders should have."""
        return bool(self._lone_out)

    def next_lone(self, *, requests: float, size: int) -> GoldEntry | None:
        """The next to be asked alone; None where all were, where enough of the requests went to that, or where others
        have their lone answers and wait for a ride.

        :param requests: of the run, those that are sure to come included, in lone asks: how many of these take what the
            requests take of that which limits the run.
        :param size: of the batches at present. Of single records none rides, and lone answers are all there is.
        """
        share = self._rate * (_LONE_SHARE if size > 1 else 1.0)
        self._lone_left = max(0, int(max(_GRACE, share * requests)) - self._lone_asks)
        if len(self._asked) == len(self._entries):
            self._lone_left = 0
        if not self._lone_left or (size > 1 and len(self._paired) + len(self._lone_out) >= _STOCK):
            return None
        chosen = next((one for one in reversed(self._unpaired) if one.line not in self._asked), None)
        if chosen is None:
            chosen = next((one for one in self._entries if one.line not in self._asked), None)
        if chosen is None:
            self._lone_left = 0
            return None
        self._lone_asks += 1
        self._asked.add(chosen.line)
        self._lone_out.add(chosen.line)
        return chosen

    def lone_answered(self, entry: GoldEntry, *, answered: bool) -> None:
        """A lone ask has come back."""
        self._lone_out.discard(entry.line)
        if answered and entry.line not in self._lone:
            self._lone.add(entry.line)
            if entry in self._unpaired:
                self._unpaired.remove(entry)
                self._paired.insert(0, entry)

    def ask_again(self, entry: GoldEntry) -> None:
        """A lone ask was lost on its way."""
        self._lone_out.discard(entry.line)
        self._asked.discard(entry.line)
