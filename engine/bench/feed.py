"""The records that a bench sends: those of the input, round and round, each request another one."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from engine.run.readers import Prepare
from engine.vocabulary.errors import InputError
from engine.vocabulary.task import Task
from engine.vocabulary.values import BadRecord, RawRecord, Record

ID_FIELD = "bench id"
_TEXT_FIELD = "text"
MOST_RECORDS = 10_000
"""Of the input that are kept and sent round and round: enough that no two requests are alike, and bounded memory."""


class Feed:
    """Hands out records, shuffled once, and begins again when they are used up.

    Ids in requests are salted anew for every request and stand before the text, so that a text that comes round again
    finds nothing of its first request in a prefix cache but the static prompt, as in a real run.
    """

    def __init__(self, records: Sequence[Record], *, seed: int, skipped: int = 0) -> None:
        """:param skipped: records of the input that cannot be asked about."""
        self._records = list(records)
        random.Random(f"{seed} feed").shuffle(self._records)
        self._next = 0
        self.skipped = skipped

    def __len__(self) -> int:
        """Different records."""
        return len(self._records)

    @property
    def entry_tokens(self) -> float:
        """Mean tokens of a record's entry in a request."""
        return sum(record.input_tokens for record in self._records) / len(self._records)

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next so many, with ids of their own."""
        taken = [self._at(self._next + offset) for offset in range(count)]
        self._next = (self._next + count) % len(self._records)
        return taken

    def _at(self, number: int) -> dict[str, Any]:
        input_ = self._records[number % len(self._records)].input
        fields = input_ if isinstance(input_, dict) else {_TEXT_FIELD: input_}
        return {ID_FIELD: number, **fields}


def make_feed(raws: Iterable[RawRecord], prepare: Prepare, *, seed: int, limit: int | None, name: str) -> Feed:
    """The first records of a source that can be asked about.

    :raises InputError: there are none.
    """
    usable: list[Record] = []
    bad: list[BadRecord] = []
    for raw in islice(raws, limit or MOST_RECORDS):
        record = prepare(raw)
        if isinstance(record, Record):
            usable.append(record)
        else:
            bad.append(record)
    if not usable:
        why = f"; line {bad[0].line}: {bad[0].message}" if bad else ""
        raise InputError(f"{name} holds no record that could be sent{why}")
    return Feed(usable, seed=seed, skipped=len(bad))


def bench_task(task: Task) -> Task:
    """The same task for what a feed hands out: the fields are chosen already."""
    return msgspec.structs.replace(task, input=None, id=ID_FIELD)
