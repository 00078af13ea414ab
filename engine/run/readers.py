"""Ways to take records in: from a blocking iterable by a thread, from an async one by a task. All bounded."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, Protocol

import anyio

from engine.run.journal import RunSync
from engine.vocabulary.values import BadRecord, RawRecord, Record

Prepared = Record | BadRecord
Prepare = Callable[[RawRecord], Prepared]

_LONG_CHUNK = 20_000  # characters whose tokens take long enough to count to be worth a thread


class Reader(Protocol):
    """A source of prepared records."""

    async def read(self, most: int) -> list[Prepared]:
        """At least one record and at most so many, as soon as there are any; none at the end of the input.

        Raises whatever the source raised, after everything before it has been read.
        """
        ...

    async def close(self) -> None:
        """Stop reading. What was read ahead is dropped."""
        ...


class ThreadReader:
    """Reads a blocking iterable in a thread of its own, some records ahead.

    The thread is a daemon: one that is stuck in a read of standard input must not keep the process alive.
    """

    def __init__(self, records: Iterable[RawRecord], prepare: Prepare, *, ahead: int) -> None:
        self._records = records
        self._prepare = prepare
        self._ahead = ahead
        self._buffer: deque[Prepared] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Event | None = None

    async def read(self, most: int) -> list[Prepared]:
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, args=(loop,), name="annotate-reader", daemon=True)
            self._thread.start()
        while True:
            with self._changed:
                taken = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
                if taken or self._ended:
                    self._changed.notify()
                    break
                self._waiter = waiter = asyncio.Event()
            await waiter.wait()
        if not taken and self._error is not None:
            raise self._error
        return taken

    async def close(self) -> None:
        with self._changed:
            self._closed = True
            self._buffer.clear()
            self._changed.notify()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for raw in self._records:
                if not self._put(self._prepare(raw), loop):
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised where the records are read
            self._error = error
        finally:
            close = getattr(self._records, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._ended = True
                self._wake(loop)

    def _put(self, record: Prepared, loop: asyncio.AbstractEventLoop) -> bool:
        with self._changed:
            while len(self._buffer) >= self._ahead and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._buffer.append(record)
            self._wake(loop)
        return True

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not loop.is_closed():
            loop.call_soon_threadsafe(waiter.set)


class InlineReader:
    """Reads an iterable that never blocks, on the event loop: for virtual time, which cannot wait for threads."""

    def __init__(self, records: Iterable[RawRecord], prepare: Prepare) -> None:
        self._records = iter(records)
        self._prepare = prepare
        self._error: BaseException | None = None

    async def read(self, most: int) -> list[Prepared]:
        await anyio.lowlevel.checkpoint()
        taken: list[Prepared] = []
        if self._error is None:
            try:
                while len(taken) < most:
                    taken.append(self._prepare(next(self._records)))
            except StopIteration:
                pass
            except Exception as error:  # noqa: BLE001 - raised when what came before it has been read
                self._error = error
        if not taken and self._error is not None:
            raise self._error
        return taken

    async def close(self) -> None:
        close = getattr(self._records, "close", None)
        if close is not None:
            close()


class AsyncReader:
    """Reads an async iterable. `pump` runs as a task beside the pipeline; it waits while enough is read ahead."""

    def __init__(
        self, records: AsyncIterable[Any], to_raw: Callable[[Any], RawRecord], prepare: Prepare, *, ahead: int,
        run_sync: RunSync,
    ) -> None:  # fmt: skip
        self._records = records
        self._to_raw = to_raw
        self._prepare = prepare
        self._run_sync = run_sync
        self._send, self._receive = anyio.create_memory_object_stream[RawRecord](ahead)
        self._error: BaseException | None = None
        self._scope = anyio.CancelScope()

    async def pump(self) -> None:
        """Read the source into the stream; the end of input is the closing of the stream."""
        iterator = self._records.__aiter__()
        try:
            with self._scope, self._send:
                async for record in iterator:
                    await self._send.send(self._to_raw(record))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        except Exception as error:  # noqa: BLE001 - it is raised where the records are read
            self._error = error
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()

    async def read(self, most: int) -> list[Prepared]:
        try:
            taken = [await self._receive.receive()]
        except anyio.EndOfStream:
            if self._error is not None:
                raise self._error from None
            return []
        while len(taken) < most:
            try:
                taken.append(self._receive.receive_nowait())
            except (anyio.WouldBlock, anyio.EndOfStream):
                break
        if sum(_length(raw) for raw in taken) > _LONG_CHUNK:
            prepared: list[Prepared] = await self._run_sync(lambda: [self._prepare(raw) for raw in taken])
            return prepared
        return [self._prepare(raw) for raw in taken]

    async def close(self) -> None:
        self._scope.cancel()
        self._send.close()
        self._receive.close()


def _length(raw: RawRecord) -> int:
    return sum(len(value) for value in (raw.data or {}).values() if isinstance(value, str))
