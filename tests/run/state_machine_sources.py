"""Sources of records for the state machine: how they come, and how far they were read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import anyio


class Reading(Protocol):
    """Counts what was read of a source."""

    pulled: int


def source_of(kind: str, records: list[Any], read: Reading) -> Any:
    """The records as a list, or as an iterable whose reading is counted."""

    def counted() -> Iterator[Any]:
        for record in records:
            read.pulled += 1
            yield record
        if kind == "broken":
            raise LookupError("the source broke")

    async def slowly(pause_s: float) -> AsyncIterator[Any]:
        for record in counted():
            yield record
            await anyio.sleep(pause_s)

    if kind == "list":
        read.pulled = 0
        return records
    if kind in ("async", "slow"):
        return slowly(0.0 if kind == "async" else 3.0)
    return counted()
