"""Single records, each with a caller who waits for it."""

from __future__ import annotations

import asyncio

import anyio

from engine.vocabulary.errors import RunStopped
from engine.vocabulary.values import RawRecord, Result


class Live:
    """A pipeline for single records: each is asked with its neighbours and answered to its own caller."""

    def __init__(self, ahead: int) -> None:
        self.send, self.receive = anyio.create_memory_object_stream[RawRecord](ahead)
        self.waiting: dict[int, asyncio.Future[Result]] = {}
        self.count = 0
        self.error: BaseException | None = None

    async def emit(self, result: Result) -> None:
        """Answer the caller who waits for this record."""
        future = self.waiting.pop(result.position, None)
        if future is not None and not future.done():
            future.set_result(result)

    def fail(self, error: BaseException | None) -> None:
        """No more answers will come."""
        self.error = self.error or error or RunStopped("interrupted", "the engine was closed")
        self.send.close()
        self.receive.close()
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(self.error)
        self.waiting.clear()
