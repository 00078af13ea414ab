"""What was sent in the last minutes, for rates that nobody has told."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice

_MEMORY_S = 180.0
_EXACT, _TICK_S = 4_096, 0.05  # newest requests whose time is kept, and how exactly that of older ones


class SentLog:
    """Amounts sent and not refused, by time, for some minutes.

    Of a fast endpoint only the newest thousands have a time each; what lies before is kept by the twentieth of a
    second, so that memory is bounded whatever the rate.
    """

    def __init__(self) -> None:
        self._log: deque[tuple[float, int]] = deque()
        self._older: deque[tuple[int, int, int]] = deque()  # twentieth of a second, how many, how much
        self._newest_s = -math.inf

    def __len__(self) -> int:
        return len(self._log) + len(self._older)

    @property
    def complete_since_s(self) -> float:
        """From when on all that was sent is here; a rate must not be taken over a longer time."""
        return self._newest_s - _MEMORY_S

    def add(self, at_s: float, amount: int) -> None:
        self._newest_s = max(self._newest_s, at_s)
        self._log.append((at_s, amount))
        while len(self._log) > _EXACT:
            self._put_away(*self._log.popleft())
        while self._log and self._log[0][0] < at_s - _MEMORY_S:
            self._log.popleft()
        while self._older and self._older[0][0] < (at_s - _MEMORY_S) / _TICK_S:
            self._older.popleft()

    def _put_away(self, at_s: float, amount: int) -> None:
        tick, one = math.ceil(at_s / _TICK_S), 1 if amount > 0 else -1
        if self._older and self._older[-1][0] >= tick:  # what was refused is noted later, at the time it was sent
            last, count, much = self._older.pop()
            self._older.append((last, count + one, much + amount))
        else:
            self._older.append((tick, one, amount))

    @property
    def mean(self) -> float:
        """Of one request, over the last hundred or so."""
        last = [amount for _, amount in islice(reversed(self._log), 100) if amount > 0]
        return sum(last) / len(last) if last else 0.0

    def between(self, after_s: float, until_s: float) -> tuple[int, int]:
        """How many, and how much, in (after, until]."""
        inside = [amount for at_s, amount in self._log if after_s < at_s <= until_s]
        older = [(count, much) for tick, count, much in self._older if after_s < tick * _TICK_S <= until_s]
        count = sum(1 if amount > 0 else -1 for amount in inside) + sum(count for count, _ in older)
        return count, sum(inside) + sum(much for _, much in older)
