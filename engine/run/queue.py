"""What is waiting to be sent: children first, then new records from the look-ahead."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import overload

import msgspec

from engine.vocabulary.values import Batch, Item

Choose = Callable[[Sequence[int]], list[int]]
"""From the entry tokens of the waiting records, oldest first, to the indices of those that go next."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing can be sent before something changes, or before `until_s` (loop time), if that is set.

    :ivar is_held: all that could be sent has been sent before, and is held back until then after an error.
    """

    until_s: float | None = None
    is_held: bool = False


class WorkQueue:
    """Batches that come back and records that have not been sent yet. No await, no clock: `now` comes in.

    Children (re-asks, halves, retries) never go back into the bounded stream that new records come from: with every
    worker doing so it deadlocks. They go first, or the run ends in a long tail.
    """

    def __init__(self, *, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._fresh: list[Item] = []
        self._ready: deque[Batch] = deque()
        self._delayed: list[tuple[float, int, Batch]] = []
        self._order = count()

    def __repr__(self) -> str:
        return f"WorkQueue(fresh={len(self._fresh)}, ready={len(self._ready)}, delayed={len(self._delayed)})"

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._fresh or self._ready or self._delayed)

    @property
    def fresh(self) -> int:
        """New records waiting."""
        return len(self._fresh)

    def has_returned(self, now: float) -> bool:
        """Whether a batch that came back may be sent now."""
        return bool(self._ready) or bool(self._delayed and self._delayed[0][0] <= now)

    def add_record(self, item: Item) -> None:
        """A new record."""
        self._fresh.append(item)

    def add_child(self, batch: Batch, now: float) -> None:
        """A batch that came back."""
        if batch.not_before_s > now:
            heapq.heappush(self._delayed, (batch.not_before_s, next(self._order), batch))
        else:
            self._ready.append(batch)

    def take(
        self, now: float, *, choose: Choose, size: int, lone: bool, hurry: bool, fresh: bool = True,
        fresh_first: bool = False,
        distinct: Callable[[Item], str] | None = None, apart: Callable[[Item], bool] | None = None,
        apart_alone: bool = True,
    ) -> Batch | Wait:  # fmt: skip
        """The next batch to send, or how long nothing can be sent.

        :param size: records that make a full batch.
        :param lone: send the oldest new record alone.
        :param fresh: new records may be sent though batches are waiting to come back; `fresh_first`: and before them.
        :param distinct: records of a batch must differ in this; others stay for a later one.
        :param apart: tells records that are not put together with others; with each other, unless `apart_alone`.
        :param hurry: no more input will come before something is sent: do not wait for a fuller batch.
        """
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[2])
        if self._ready and not (fresh_first and self._fresh):
            return self._ready.popleft()
        due_s = self._delayed[0][0] if self._delayed else None
        if not self._fresh or (due_s is not None and not (fresh or fresh_first)):
            return Wait(until_s=due_s, is_held=due_s is not None)
        is_apart = apart is not None and apart(self._fresh[0])
        if lone or (is_apart and apart_alone):
            return Batch(items=(self._fresh.pop(0),))
        full_s = self._fresh[0].accepted_at_s + self._max_wait_s
        if not hurry and len(self._fresh) < size and now < full_s:
            return Wait(until_s=full_s if due_s is None else min(full_s, due_s))
        chosen = self._chosen(choose, apart, is_apart=is_apart, apart_alone=apart_alone)
        if distinct is not None:
            oldest = {distinct(self._fresh[index]): index for index in sorted(chosen, reverse=True)}
            kept = set(oldest.values())
            chosen = [index for index in chosen if index in kept]
        batch = Batch(items=tuple(self._fresh[index] for index in chosen))
        for index in sorted(chosen, reverse=True):
            del self._fresh[index]
        return batch

    def _chosen(
        self, choose: Choose, apart: Callable[[Item], bool] | None, *, is_apart: bool, apart_alone: bool
    ) -> list[int]:
        """Indices of new records that go together with the oldest."""
        if apart is None:
            return choose(_EntryTokens(self._fresh))
        if apart_alone:  # they are few: a look at those that were chosen costs less than one at all
            return [index for index in choose(_EntryTokens(self._fresh)) if not apart(self._fresh[index])]
        alike = [index for index, item in enumerate(self._fresh) if apart(item) == is_apart]
        return [alike[index] for index in choose(_EntryTokens([self._fresh[index] for index in alike]))]


class _EntryTokens(Sequence[int]):
    """Entry tokens of waiting records, without a list of them for every batch."""

    def __init__(self, items: list[Item]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [item.record.input_tokens for item in self._items[index]]
        return self._items[index].record.input_tokens
