"""A second model, for records of which the first is unsure or that it failed. See docs/design/votes.md.

Both models have a pipeline. What the first settles with too little confidence, or as failed, goes to the second, as the
record that it was read as, and what the second says is given out in its place. Nothing is read twice, so a stream will
do; what waits is bounded, and a second model that is slower holds the first one back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from engine.adapters.providers.known import KEY_VARIABLE
from engine.decide.escalation import goes_on
from engine.report.escalation import EscalationLog
from engine.run.call import Emit
from engine.run.pipeline import Pipeline
from engine.run.readers import Prepared, Reader
from engine.run.second import SECOND_KEY_VARIABLE
from engine.vocabulary.errors import RunStopped, StoreError
from engine.vocabulary.values import BadRecord, Record, Result

_AHEAD = 64


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """The second model's part of a run.

    :ivar end: notes in the store how it ended.
    """

    pipeline: Pipeline
    log: EscalationLog
    first_model: str
    end: Callable[[str], Awaitable[None]]


OpenSecond = Callable[[], Second]


class EscalatingPipeline(Pipeline):
    """The pipeline of the first model, with the second behind it."""

    def __init__(self, *args: Any, open_second: OpenSecond, **more: Any) -> None:
        """As `Pipeline`.

        :param open_second: makes the second model's part; called once, when this one begins.
        """
        super().__init__(*args, **more)
        self._open_second = open_second
        self._second: Second | None = None
        self._records: dict[int, Record] = {}  # by position, of those that the first model has not settled
        self._unsure: dict[int, Result] = {}  # the first model's, of those that are with the second
        self._handed_over: MemoryObjectSendStream[Record] | None = None

    async def run(self, reader: Reader, emit: Emit) -> None:
        """As `Pipeline.run`; a reason to stop of either model stops both."""
        self._emit_to_user = emit
        try:
            self._second = second = self._open_second()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await reader.close()
            raise
        self.counters.escalation = second.log
        if self._state.stopped is not None:
            second.pipeline.stop(self._state.stopped)
        problems: list[BaseException] = []
        status = "crashed"
        self._handed_over, received = anyio.create_memory_object_stream[Record](_AHEAD)
        try:
            with self._handed_over, received:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._run_second, second, received, problems)
                    try:
                        await super().run(reader, self._pass_on)
                    except Exception as error:  # noqa: BLE001 - raised below, when the second model has ended
                        problems.insert(0, error)
                        second.pipeline.stop(error)
                    self._handed_over.close()
            for result in list(self._unsure.values()):  # the second was stopped before it had answered them
                await self._give(result, second.first_model)
            status = _status(problems[0]) if problems else "done"
        finally:
            with anyio.CancelScope(shield=True):
                await second.end(status)
        if problems:
            raise problems[0]

    async def _run_second(
        self, second: Second, received: MemoryObjectReceiveStream[Record], problems: list[BaseException]
    ) -> None:
        try:
            await second.pipeline.run(_HandOver(received), self._take_back)
        except Exception as error:  # noqa: BLE001 - raised by `run`
            own = error is not self._state.stopped and isinstance(error, RunStopped)
            problem = _of_second(error, second.log.model) if own and isinstance(error, RunStopped) else error
            problems.append(problem)
            super().stop(problem)
        finally:
            received.close()  # whoever wants to hand over more gives its first answer out

    def stop(self, reason: BaseException) -> None:
        """Send nothing more, of either model."""
        super().stop(reason)
        if self._second is not None:
            self._second.pipeline.stop(reason)

    # -- from the first to the second ------------------------------------------------------------------------------

    async def _take_in(self, chunk: Sequence[Record | BadRecord]) -> None:
        self._records |= {record.position: record for record in chunk if isinstance(record, Record)}
        await super()._take_in(chunk)

    async def _pass_on(self, result: Result) -> None:
        """A result of the first model: give it out, or ask the second."""
        record = self._records.pop(result.position, None)
        second = self._second
        if second is None or self._handed_over is None or record is None:
            await self._emit_to_user(result)
            return
        log = second.log
        log.unknown += result.ok and result.confidence is None and log.below is not None
        if not goes_on(result, below=log.below, failures=log.failures):
            await self._give(result, second.first_model)
            return
        self._unsure[result.position] = result
        log.records += 1
        log.failed += not result.ok
        # Of a corpus of unknown length the guard of labels would take it for large, and pay for audits of a dear model.
        second.pipeline.counters.records_total = log.records
        try:
            await self._handed_over.send(record)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):  # it was stopped; `run` gives it out
            log.records -= 1
            log.failed -= not result.ok

    async def _take_back(self, result: Result) -> None:
        """A result of the second model; where it failed, the first one's stands."""
        first = self._unsure.pop(result.position, None)
        second = self._second
        if first is None or second is None:
            return
        log = second.log
        if result.error is not None:
            if first.error is not None:
                first = msgspec.structs.replace(first, error=first.error.beside(result.error, log.model))
            await self._give(first, second.first_model)
            return
        log.answered += 1
        if first.error is not None:
            log.rescued += 1
            self.counters.records_failed -= 1  # as which it was counted when the first model had done with it
            self.counters.records_ok += 1
        else:
            log.changed += result.output != first.output
        await self._give(result, log.model)

    async def _give(self, result: Result, model: str) -> None:
        """Give a result out, with the model that answered; of a failure nobody did."""
        await self._emit_to_user(msgspec.structs.replace(result, model=model) if result.ok else result)


class _HandOver:
    """Reads what the first model is unsure of; the end of the input is the end of its run."""

    def __init__(self, receive: MemoryObjectReceiveStream[Record]) -> None:
        self._receive = receive

    async def read(self, most: int) -> list[Prepared]:
        """At least one record, and at most so many."""
        taken: list[Prepared] = []
        with contextlib.suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.WouldBlock):
            taken.append(await self._receive.receive())
            while len(taken) < most:
                taken.append(self._receive.receive_nowait())
        return taken

    async def close(self) -> None:
        """Take no more."""
        self._receive.close()


_OWN_WORDS = (
    ("(--base-url)", "(--escalate-base-url)"),
    ("(--model)", "(--escalate-model)"),
    (f"in {KEY_VARIABLE}", f"in {SECOND_KEY_VARIABLE} ({KEY_VARIABLE} where both models are on one host)"),
)


def _of_second(stop: RunStopped, model: str) -> RunStopped:
    """The reason of the second model's pipeline, in words that name its own options."""
    if stop.kind == "budget":
        return stop
    told = str(stop)
    for of_first, of_second in _OWN_WORDS:
        told = told.replace(of_first, of_second)
    return RunStopped(stop.kind, f"the second model ({model}): {told}", by_second=True)


def _status(error: BaseException) -> str:
    if isinstance(error, StoreError):
        return "store"
    return error.kind if isinstance(error, RunStopped) else "crashed"
