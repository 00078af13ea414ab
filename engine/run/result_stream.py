"""What a caller iterates: the results of one run, in order of completion."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from types import TracebackType

import anyio

from engine.report.metrics import Counters
from engine.run.pipeline import Pipeline
from engine.vocabulary.errors import RunStopped
from engine.vocabulary.values import Result


class ResultStream(AsyncIterator[Result]):
    """Results in order of completion. Iterate it, and close it if you leave early (``async with`` does both).

    Leaving early stops the sending. Requests in flight are still answered, and stored where there is a store; a
    stream that is dropped without being closed stops too, when it is collected.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        # Not __del__: in a cycle of garbage the feed's own streams could be collected first, unclosed.
        weakref.finalize(self, feed.abandon_from_anywhere).atexit = False

    @property
    def counters(self) -> Counters:
        """What has happened so far: records, requests, tokens."""
        return self._feed.counters

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> Result:
        """The next result.

        :raises RunStopped: the run ended before its input; everything answered has been given out.
        """
        try:
            return await self._feed.receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._feed.receive.close()
            error, self._feed.error, self._feed.cut = self._feed.error or self._feed.cut, None, None
            if error is not None:
                raise error from None
            raise StopAsyncIteration from None

    async def __aenter__(self) -> ResultStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop sending, and wait until the answers in flight are stored."""
        self._feed.abandon()
        await self._feed.ended.wait()


class Feed:
    """The far end of a `ResultStream`: what the pipeline's task and the stream share."""

    def __init__(self, counters: Counters) -> None:
        self.send, self.receive = anyio.create_memory_object_stream[Result](64)
        self.ended = anyio.Event()
        self.error: BaseException | None = None
        self.cut: RunStopped | None = None  # the engine was closed; a stream must not end as if it were whole
        self.counters = counters
        self.pipeline: Pipeline | None = None
        self._loop = asyncio.get_running_loop()
        self._abandoned = False

    async def emit(self, result: Result) -> None:
        """Give a result to the consumer; one that is gone has its results in the store."""
        if not self._abandoned:
            try:
                await self.send.send(result)
            except anyio.BrokenResourceError:
                self._abandoned = True

    def end(self) -> None:
        """No more results will come."""
        self.send.close()
        self.ended.set()

    def abandon(self, cut: RunStopped | None = None) -> None:
        """The consumer wants no more, or can have no more."""
        self.cut = self.cut or cut
        self._abandoned = True
        self.receive.close()
        if self.pipeline is not None:
            self.pipeline.stop(RunStopped("interrupted", "the results were not wanted any more"))

    def abandon_from_anywhere(self) -> None:
        """The same from the garbage collector, which may run in any thread and after the loop has ended."""
        if self.ended.is_set() or self._loop.is_closed():
            self.receive.close()
        else:
            self._loop.call_soon_threadsafe(self.abandon)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody reads any more."""
        return self._abandoned
