"""The async API: an `Engine` that annotates streams of records, and single live ones.

The task group lives in `Engine.__aenter__`. `annotate` returns an iterator object and never yields inside a task group
or a cancel scope (PEP 789: that breaks cancellation). See docs/design/pipeline.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sized
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

import anyio
import anyio.abc

from engine.report.metrics import Counters
from engine.run.compose import Run, Workbench, open_workbench, task_key
from engine.run.frames import frame_rows, is_frame
from engine.run.intake import Inputs
from engine.run.journal import RunSync, at_once, in_thread
from engine.run.live import Live
from engine.run.pipeline import Pipeline
from engine.run.readers import AsyncReader, InlineReader, Reader, ThreadReader
from engine.run.result_stream import Feed, ResultStream
from engine.run.traffic import Traffic
from engine.vocabulary.config import Endpoint, RunConfig
from engine.vocabulary.errors import ConfigError, EngineError, InputError, RunStopped, StoreError
from engine.vocabulary.ports import Transport
from engine.vocabulary.task import Task
from engine.vocabulary.values import RawRecord, Result

RecordLike = Mapping[str, Any] | str
"""A record: a mapping of fields, perhaps with an id, or the text itself."""

Records = Iterable[RecordLike] | AsyncIterable[RecordLike]

_TEXT_FIELD = "text"


class Engine:
    """Annotates records on one endpoint; an async context manager.

    ::

        async with Engine(Endpoint(base_url="http://localhost:8000/v1", model="qwen"), store="run.sqlite") as engine:
            async for result in engine.annotate(task, records):
                print(result.id, result.output, result.error)

    Without an endpoint the embedded model is used. Without a store nothing is kept when the engine is closed.
    """

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        config: RunConfig | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        model_path: str | None = None,
        allow_change: bool = False,
        transport: Transport | None = None,
        virtual_time: bool = False,
        traffic: Traffic | None = None,
    ) -> None:
        """
        :param endpoint: whom to ask; its key comes from ``ANNOTATE_API_KEY`` unless it has one.
        :param config: limits, packing, recovery.
        :param store: the run store's file; the same records again are then not asked again.
        :param model_path: a GGUF file for the embedded model.
        :param allow_change: use a store that holds answers of another task or model, keeping both.
        :param transport: in place of HTTP, for tests.
        :param virtual_time: no threads, for tests on a virtual clock.
        :param traffic: limits and window that several engines share; None: its own.
        """
        self._endpoint = endpoint
        self._config = config or RunConfig()
        self._store = store
        self._model_path = model_path
        self._allow_change = allow_change
        self._transport = transport
        self._run_sync: RunSync = at_once if virtual_time else in_thread
        self._virtual_time = virtual_time
        self._traffic = traffic
        self._stack = AsyncExitStack()
        self._bench: Workbench | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._feeds: set[Feed] = set()
        self._lives: dict[str, Live] = {}
        self._live_pipelines: dict[str, Pipeline] = {}

    async def __aenter__(self) -> Engine:
        """Open the store and the connection, and start the embedded model if there is no endpoint."""
        async with AsyncExitStack() as stack:
            self._bench = await stack.enter_async_context(
                open_workbench(
                    self._endpoint,
                    self._config,
                    store=self._store,
                    model_path=self._model_path,
                    allow_change=self._allow_change,
                    transport=self._transport,
                    run_sync=self._run_sync,
                    traffic=self._traffic,
                )
            )
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Stop sending, wait for the answers in flight (not after an error), and close everything."""
        for feed in list(self._feeds):
            feed.abandon(RunStopped("interrupted", "the engine was closed before all results were there"))
        for live in self._lives.values():
            live.send.close()
        if error is not None and self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        try:
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if error is None or group.split(lambda inner: inner is error)[1] is not None:
                raise
            return False  # the caller's own exception, which the task group has wrapped: it goes on as it was
        finally:
            self._bench = self._tasks = None
            for feed in list(self._feeds):  # whose task was cancelled before its first step
                feed.end()
            for live in self._lives.values():
                live.fail(None)

    # -- streams ------------------------------------------------------------------------------------------------

    def annotate(self, task: Task, records: Records, *, gold: Iterable[RecordLike] | None = None) -> ResultStream:
        """Annotate a stream of records.

        A blocking iterable is read in a thread of its own, an async one in a task; either is read only as far ahead
        as `look_ahead` allows, and not at all while the results are not taken.

        :param records: mappings, texts, or a data frame (anything with ``to_dicts`` or ``to_dict("records")``).
        :param gold: records with their right answers (``label``), which ride along to judge the batch size by.
        :return: an async iterator over results, in order of completion.
        """
        tasks, bench = self._opened()
        feed = Feed(Counters(records_total=len(records) if isinstance(records, Sized) else None))
        self._feeds.add(feed)
        tasks.start_soon(self._run_stream, bench, feed, task, records, gold)
        return ResultStream(feed)

    async def _run_stream(
        self, bench: Workbench, feed: Feed, task: Task, records: Records, gold: Iterable[RecordLike] | None
    ) -> None:
        run: Run | None = None
        status = "crashed"
        try:
            known = bench.gold(task, None if gold is None else _raw_records(gold, task))
            run = await bench.begin(task, note={"source": "api"}, gold=known)
            feed.pipeline = bench.pipeline(run, counters=feed.counters)
            if feed.is_abandoned:
                feed.abandon()
            async with anyio.create_task_group() as pumping:
                reader = self._reader(bench, task, records, pumping)
                await feed.pipeline.run(reader, feed.emit)
                pumping.cancel_scope.cancel()
            status = "done"
        except BaseExceptionGroup as group:
            feed.error = _only(group)
            status = _status(feed.error)
        except Exception as error:  # noqa: BLE001 - raised to the consumer of this stream, not to the others
            feed.error = error
            status = _status(error)
        finally:
            with anyio.CancelScope(shield=True):
                if run is not None:
                    not_noted = await _ended(bench, run, status, came=status != "crashed")
                    feed.error = feed.error or not_noted
            feed.end()
            self._feeds.discard(feed)

    def _reader(self, bench: Workbench, task: Task, records: Records, pumping: anyio.abc.TaskGroup) -> Reader:
        ahead, prepare = bench.config.packing.look_ahead, bench.prepare(task)
        if isinstance(records, AsyncIterable):
            counted = _Numbered(task)
            reader = AsyncReader(records, counted, prepare, ahead=ahead, run_sync=self._run_sync)
            pumping.start_soon(reader.pump)
            return reader
        raws = _raw_records(records, task)
        if self._virtual_time:
            return InlineReader(raws, prepare)
        return ThreadReader(raws, prepare, ahead=ahead)

    def _opened(self) -> tuple[anyio.abc.TaskGroup, Workbench]:
        if self._tasks is None or self._bench is None:
            raise EngineError("the engine is not open; use it inside `async with Engine(...) as engine:`")
        return self._tasks, self._bench

    # -- single records -----------------------------------------------------------------------------------------

    async def submit(self, record: RecordLike, *, task: Task) -> Result:
        """Annotate one live record. Records submitted within `max_wait_s` of each other share a request.

        Cancelling the caller does not take the record out of its batch; its answer is then not delivered.

        :return: the result; a record that failed has its `error` set.
        :raises RunStopped: the endpoint or the model cannot work; see its text.
        """
        tasks, bench = self._opened()
        live = self._live(task, tasks, bench)
        position, live.count = live.count, live.count + 1
        raw = _raw(record, position, task)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        live.waiting[position] = future
        try:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await live.send.send(raw)
            return await future  # which also says why, where the records are taken no more
        finally:
            live.waiting.pop(position, None)

    def _live(self, task: Task, tasks: anyio.abc.TaskGroup, bench: Workbench) -> Live:
        key = task_key(task)
        live = self._lives.get(key)
        if live is None or live.error is not None:
            live = self._lives[key] = Live(bench.config.packing.look_ahead)
            tasks.start_soon(self._run_live, bench, live, task)
        return live

    async def _run_live(self, bench: Workbench, live: Live, task: Task) -> None:
        run: Run | None = None
        error: BaseException | None = None
        try:
            run = await bench.begin(task, note={"source": "submit"})
            pipeline = bench.pipeline(run, inputs=Inputs.IGNORE, on_bad_record="fail-record")
            async with anyio.create_task_group() as pumping:
                prepare = bench.prepare(task, each_alone=True)
                reader = AsyncReader(live.receive, _as_it_is, prepare, ahead=1, run_sync=self._run_sync)
                pumping.start_soon(reader.pump)
                await pipeline.run(reader, live.emit)
                pumping.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = _only(group)
        except Exception as caught:  # noqa: BLE001 - raised to everybody who waits
            error = caught
        finally:
            live.fail(error)
            with anyio.CancelScope(shield=True):
                if run is not None:
                    await _ended(bench, run, "done" if error is None else "stopped")


# -- helpers ---------------------------------------------------------------------------------------------------


async def _ended(bench: Workbench, run: Run, status: str, *, came: bool = False) -> StoreError | None:
    """Note the end of a run; why not, where the store does not take it: then the next opening takes it for killed."""
    try:
        await bench.end(run, status, came=came)
    except StoreError as error:
        return error
    return None


class _Numbered:
    """Numbers the records of an async source."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._count = 0

    def __call__(self, record: RecordLike) -> RawRecord:
        position, self._count = self._count, self._count + 1
        return _raw(record, position, self._task)


def _raw_records(records: Iterable[RecordLike], task: Task) -> Iterator[RawRecord]:
    rows = _rows(records)
    for position, record in enumerate(rows):
        yield _raw(record, position, task)


def _rows(records: Any) -> Iterator[Any]:
    """Rows of a data frame (polars, pandas), or the records as they are."""
    if isinstance(records, str | Mapping):
        return iter((records,))
    rows: Iterator[Any] = frame_rows(records) if is_frame(records) else iter(records)
    return rows


def _raw(record: Any, position: int, task: Task) -> RawRecord:
    fields = _as_fields(record, task)
    if fields is None:
        error = f"it is {type(record).__name__}, neither a mapping nor a text"
        return RawRecord(position=position, line=position + 1, error=error)
    return RawRecord(position=position, line=position + 1, data=fields)


def _as_fields(record: Any, task: Task) -> dict[str, Any] | None:
    if isinstance(record, str):
        return {task.input[0] if task.input else _TEXT_FIELD: record}
    return dict(record) if isinstance(record, Mapping) else None


def _as_it_is(raw: RawRecord) -> RawRecord:
    return raw


def _status(error: BaseException) -> str:
    """How a run ended that ended with this: the store asks what a stopped one failed again, and not a crashed one."""
    if isinstance(error, StoreError):
        return "store"
    if isinstance(error, ConfigError | InputError):
        return "input"
    return error.kind if isinstance(error, RunStopped) else "crashed"


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _only(first) if isinstance(first, BaseExceptionGroup) else first


def annotate_sync(
    task: Task,
    records: Iterable[RecordLike],
    *,
    endpoint: Endpoint | None = None,
    config: RunConfig | None = None,
    store: str | os.PathLike[str] | None = None,
    model_path: str | None = None,
) -> list[Result]:
    """Annotate records and return the results in the order of the input; for scripts, notebooks and data frames.

    ``frame["label"] = [result.output for result in annotate_sync(task, frame, endpoint=...)]``

    :raises RunStopped: the run ended before its input; with a store, the same call goes on.
    """

    async def collect() -> list[Result]:
        async with Engine(endpoint, config, store=store, model_path=model_path) as engine:
            return [result async for result in engine.annotate(task, records)]

    if isinstance(records, AsyncIterable):
        raise ConfigError("annotate_sync takes a plain iterable; use Engine.annotate for an async one")
    return sorted(_run_anywhere(collect), key=lambda result: result.position)


def _run_anywhere(function: Any) -> list[Result]:
    """Run an async function to its end, in a thread of its own where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        here: list[Result] = anyio.run(function)
        return here
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - needed in notebooks only

    with ThreadPoolExecutor(1) as pool:
        there: list[Result] = pool.submit(anyio.run, function).result()
        return there
