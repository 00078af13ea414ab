"""Which record with a known answer goes next, and where. See docs/design/gold.md."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
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
GRACE = 16
"""Lone asks before their share is held to, where nobody knows how much will come: a start needs some."""

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
    test may take them as they come. Those whose lone answer is known go first: only they make a pair. At the largest
    size that the run will use others may ride before they were asked alone, as many as can still be asked: a wide
    window would else have sent most of the run before the first lone answers are there. Who rides where and who is
    asked next follows from numbers and from the order of the file, never from an answer.
    """

    def __init__(self, entries: Sequence[GoldEntry], *, rate: float, rng: random.Random) -> None:
        """:param rate: gold records among the records that are sent, in the first pass."""
        self._entries = list(entries)
        self._rng = rng
        self._rate = rate
        self._credit = self._trickle = 0.0
        self._paired: list[GoldEntry] = []  # of this pass, not yet ridden, the lone answer known; the last goes next
        self._unpaired: list[GoldEntry] = []
        self._owed: dict[int, tuple[int, GoldEntry]] = {}  # line -> rung; those that ride ahead of their lone answer
        self._lone: set[int] = set()  # lines whose lone answer is known
        self._lone_out: set[int] = set()
        self._asked: set[int] = set()  # lines that will not be asked alone again
        self._lone_asks = 0
        self._lone_left = self._lone_ever = len(self._entries)  # asks that may follow: at present, and in all
        self.lone_most = 0
        """Of the lone asks that the run has paid for so far, and may pay for at present."""
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

    def candidates(self, size: int, *, ahead: float = 0.0, is_largest: bool = False) -> list[GoldEntry]:
        """Those that would go with the next new batch of so many records; none of them is taken yet.

        :param ahead: so many may ride before their time, as this size must be known soon; later ones are fewer for it.
        :param is_largest: nothing larger will be used: what can be asked alone may be spent on this size, in advance.
        """
        due = int(self._credit + self.rate * size)
        hurries = ahead > 0.0 and self._credit > -ahead and self.passes == 1
        if self._credit < 0.0 and not hurries:
            due = int(self._trickle + _TRICKLE * self.rate * size)
        most = max(1, size // _SHARE_OF_BATCH)
        places = min(max(due, _HURRY if hurries else 0), most)
        if size < 2 or places < 1 or not self._entries:
            return []
        if not self.left:
            self._refill()
        others = self._paired[::-1]
        if is_largest and len(others) < places:
            others.extend(islice(self._to_be_paired(), places - len(others)))
        # Without a lone answer a ride tells of one size only. What can still be asked alone waits for that.
        waits = (hurries and self._lone_left > 0) or (not is_largest and (self.waits_for_lone or bool(self._owed)))
        spare = 0 if waits else len(self._unpaired) - self._lone_ever
        places = places if len(others) >= places or spare <= 0 else min(max(due, len(others)), most)
        if len(others) < places and spare > 0:
            here = {one.line for one in others}
            rest = (one for one in reversed(self._unpaired) if one.line not in here)
            others.extend(islice(rest, min(spare, places - len(others))))
        return others[:places]

    def _to_be_paired(self) -> Iterator[GoldEntry]:
        """Those of which a lone answer is on its way, and then as many as can still be asked."""
        if self._lone_out - self._owed.keys():
            yield from (one for one in reversed(self._unpaired) if one.line in self._lone_out)
        fresh = (one for one in reversed(self._unpaired) if one.line not in self._asked and one.line not in self._owed)
        yield from islice(fresh, max(0, self._lone_left - self._promised))

    def ride(
        self, candidates: Iterable[GoldEntry], *, records: int, fits: Fits, rung: int = 0, is_largest: bool = False
    ) -> list[GoldEntry]:
        """Those of the candidates that go with a batch of so many records.

        :param rung: of its size. :param is_largest: as for the candidates.
        """
        riders = [one for one in candidates if fits(one)]
        self._credit = min(4.0, self._credit + self.rate * records - len(riders))
        self._trickle = min(1.0, max(0.0, self._trickle + _TRICKLE * self.rate * records - len(riders)))
        for one in riders if is_largest else ():
            if one.line in self._lone_out or (one.line not in self._asked and self._promised < self._lone_left):
                self._owed[one.line] = (rung, one)
        if riders:
            gone = {one.line for one in riders}
            self._paired = [one for one in self._paired if one.line not in gone]
            self._unpaired = [one for one in self._unpaired if one.line not in gone]
        return riders

    def give_back(self, entries: Iterable[GoldEntry], *, sweep: int | None = None) -> None:
        """These rode and were not answered: they ride again, after the others.

        :param sweep: the pass in which they rode; None: the present one. In a later one they have a place already.
        """
        for one in entries:
            self._owed.pop(one.line, None)
            if sweep is None or sweep == self.passes:
                (self._paired if one.line in self._lone else self._unpaired).insert(0, one)

    # -- lone asks ---------------------------------------------------------------------------------------------------

    @property
    def waits_for_lone(self) -> bool:
        """Whether lone answers are on their way, which riders should have."""
        return bool(self._lone_out)

    def awaits(self, line: int) -> bool:
        """Whether one that rode will have its lone answer."""
        return line in self._lone_out or (line in self._owed and line not in self._asked and self._lone_left > 0)

    @property
    def _promised(self) -> int:
        """Riders that are still to be asked alone."""
        return sum(line not in self._asked for line in self._owed)

    def next_lone(
        self, *, requests: float, size: int, in_all: float | None = None, is_largest: bool = False, grace: int = GRACE
    ) -> GoldEntry | None:
        """The next to be asked alone; None where all were, where enough of the requests went to that, or where others
        have their lone answers and wait for a ride.

        Those go first that ride without a lone answer, at the largest sizes first.

        :param requests: of the run, those that are sure to come included, in lone asks: how many of these take what the
            requests take of that which limits the run.
        :param size: of the batches at present. Of single records none rides, and lone answers are all there is.
        :param in_all: the same as `requests`, at the most that it may become; None: as many.
        :param is_largest: nothing larger will be used. Then all that can be asked belongs to those that ride.
        :param grace: so many may be asked, whatever their share.
        """
        share = self._rate * (_LONE_SHARE if size > 1 else 1.0)
        self.lone_most = int(max(grace, share * requests))
        left = len(self._entries) - len(self._asked)
        self._lone_left = min(left, max(0, self.lone_most - self._lone_asks))
        ever = max(self.lone_most, int(share * (in_all or 0.0))) - self._lone_asks
        self._lone_ever = min(left, max(0, ever))
        if not self._lone_left:
            return None
        chosen = self._next_owed()
        if chosen is None and size > 1 and (is_largest or len(self._paired) + len(self._lone_out) >= _STOCK):
            return None
        if chosen is None:
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

    def _next_owed(self) -> GoldEntry | None:
        """Of those at the largest size the first that rode."""
        waiting = [found for line, found in self._owed.items() if line not in self._asked]
        return max(waiting, key=lambda found: found[0])[1] if waiting else None

    def lone_answered(self, entry: GoldEntry, *, answered: bool) -> None:
        """A lone ask has come back."""
        self._lone_out.discard(entry.line)
        self._owed.pop(entry.line, None)
        if answered and entry.line not in self._lone:
            self._lone.add(entry.line)
            if entry in self._unpaired:
                self._unpaired.remove(entry)
                self._paired.insert(0, entry)

    def ask_again(self, entry: GoldEntry) -> None:
        """A lone ask was lost on its way."""
        self._lone_out.discard(entry.line)
        self._asked.discard(entry.line)
