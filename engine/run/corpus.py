"""A file from end to end: validate, annotate, and write the output at every stop. What the command line runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import msgspec

from engine.adapters.files import FileSource, write_rows
from engine.adapters.files.row import OutputRow
from engine.adapters.store import AnswerRow, Duplicate, RunStore
from engine.adapters.stored_again import has_inputs, left_behind
from engine.decide.records import RecordReader
from engine.report.metrics import Counters
from engine.run.compose import Run, Workbench
from engine.run.gold_set import GoldSet, check_fields
from engine.run.intake import Inputs, input_row
from engine.run.journal import at_once
from engine.run.pipeline import Pipeline
from engine.run.readers import InlineReader, Prepared, ThreadReader
from engine.vocabulary.errors import ConfigError, InputError, RunStopped, StoreError
from engine.vocabulary.task import Task
from engine.vocabulary.values import BadRecord, RawRecord, Record, RecordError, Result

_VALIDATED_AT_ONCE = 4096
_SHOWN_PROBLEMS = 10


WhenNoted = Callable[[RunStore, Run], bool]


class CorpusRun:
    """One run over one file.

    :ivar left_behind: of a stream that has ended: records of the input before, done, that did not come again. They
        leave the output; the input of a file is noted before anything is sent, so `when_noted` can count them.
    :ivar is_empty: a stream has ended, or was stopped, without a single record that can be used, as of the words of a
        program that failed. The list of the input before it is kept.
    """

    def __init__(
        self,
        bench: Workbench,
        task: Task,
        source: FileSource,
        *,
        limit: int | None = None,
        when_noted: WhenNoted | None = None,
        gold: GoldSet | None = None,
    ) -> None:
        """Take what `annotate` needs.

        :param when_noted: called when the input is noted in the store (a stream: before it is read) and nothing is
            sent yet; whether to go on. What it raises comes out of `annotate`, and the run is taken back.
        """
        self._when_noted = when_noted
        self._gold = gold
        self._bench = bench
        self._task = task
        self._source = source
        self._limit = limit
        self._pipeline: Pipeline | None = None
        self._stopping: RunStopped | None = None
        self.counters = Counters()
        self.run: Run | None = None
        self.left_behind = 0
        self.is_empty = False

    async def annotate(self, *, note: Mapping[str, Any]) -> RunStopped | None:
        """Annotate everything that is not done yet; the reason, when the run stopped before its end.

        :raises InputError: the validating pass found something, and nothing was spent.
        """
        registered = self._source.rereadable
        how = {} if registered else {"streamed": True}
        self.run = run = await self._bench.begin(self._task, note={**note, **how}, gold=self._gold)
        if registered:
            await self._validate(run)
        if not await self._goes_on(run):
            self.counters.records_total = 0
            return None
        if registered:
            await self._bench.run_sync(lambda: self._bench.store.complete_inputs(run.run_id))
        status = "crashed"
        try:
            stopped = await self._label(run, registered=registered)
            status = stopped.kind if stopped else "done"
        except anyio.get_cancelled_exc_class():
            status = "interrupted"
            raise
        except StoreError:
            status = "store"
            raise
        except (ConfigError, InputError):
            status = "input"
            raise
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    if not registered:
                        await self._bench.run_sync(lambda: self._leave_earlier_inputs(run))
                finally:
                    await self._bench.end(run, status)
        return stopped

    def _leave_earlier_inputs(self, run: Run) -> None:
        """What came in a stream is known when it has ended: until then the list of the input before it is kept."""
        self.is_empty = not has_inputs(self._bench.store, run.run_id, usable=True)
        if self.is_empty:
            return
        self.left_behind = left_behind(self._bench.store, run.run_id)
        self._bench.store.complete_inputs(run.run_id)

    def stop(self, reason: RunStopped) -> None:
        """Send nothing more; what is in flight is still answered and stored."""
        self._stopping = reason
        if self._pipeline is not None:
            self._pipeline.stop(reason)

    async def _label(self, run: Run, *, registered: bool) -> RunStopped | None:
        self._pipeline = self._bench.pipeline(
            run,
            source_name=self._source.name,
            inputs=Inputs.NOTED if registered else Inputs.NOTE,
            counters=self.counters,
        )
        if self._stopping is not None:
            self._pipeline.stop(self._stopping)
        ahead = self._bench.config.packing.look_ahead
        records, prepare = self._records(), self._bench.prepare(self._task)
        # Virtual time cannot wait for a thread.
        inline = self._bench.run_sync is at_once
        reader = InlineReader(records, prepare) if inline else ThreadReader(records, prepare, ahead=ahead)
        try:
            await self._pipeline.run(reader, _nobody)
        except RunStopped as stopped:
            return stopped
        except InputError as error:  # a file that breaks off, a stream that breaks
            return RunStopped("input", str(error))
        return None

    def _records(self) -> Iterator[RawRecord]:
        """A generator, so that leaving it early closes the file."""
        records = iter(self._source)
        try:
            yield from itertools.islice(records, self._limit)
        finally:
            records.close()

    async def _goes_on(self, run: Run) -> bool:
        """Ask the caller; a run that it calls off is taken back, so that the one before stays the newest."""
        ask, goes_on = self._when_noted, False
        try:
            goes_on = ask is None or await self._bench.run_sync(lambda: ask(self._bench.store, run))
        finally:
            if not goes_on:
                with anyio.CancelScope(shield=True):
                    await self._bench.run_sync(lambda: self._bench.store.forget_run(run.run_id))
        return goes_on

    # -- the validating pass -------------------------------------------------------------------------------------

    async def _validate(self, run: Run) -> None:
        """Note the whole input in the store: broken lines and duplicated ids are found before anything is spent."""
        read = RecordReader(self._task).read
        records = self._records()
        problems: list[str] = []
        total = 0
        try:
            while True:
                chunk, duplicates = await self._bench.run_sync(lambda: _note(records, read, self._bench.store, run))
                if not chunk:
                    break
                if self._gold is not None and not total:
                    check_fields(self._gold, [record for record in chunk if isinstance(record, Record)])
                total += len(chunk)
                problems += _problems(chunk, duplicates)
                if self._stopping is not None:
                    raise self._stopping
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._bench.run_sync(lambda: self._bench.store.forget_run(run.run_id))
            raise
        finally:
            await self._bench.run_sync(records.close)  # type: ignore[attr-defined]
        if problems and self._bench.config.on_bad_record == "stop":
            await self._bench.run_sync(lambda: self._bench.store.forget_run(run.run_id))
            raise InputError(_listed(self._source.name, problems))
        self.counters.records_total = total

    # -- the output ----------------------------------------------------------------------------------------------

    def write_output(self, path: str, *, csv_safe: bool = False) -> int:
        """Write what is done and failed so far, in input order; the number of rows. Blocks."""
        if self.run is None:
            return 0
        rows = output_rows(self._bench.store, self.run.run_id, self.run.settings_id)
        return write_rows(path, rows, fields=list(self._task.fields), csv_safe=csv_safe)


async def _nobody(result: Result) -> None:
    """The store has every result; the output is made from it."""


def _note(records: Iterator[RawRecord], read: Any, store: RunStore, run: Run) -> tuple[list[Prepared], list[Duplicate]]:
    chunk: list[Prepared] = [read(raw) for raw in itertools.islice(records, _VALIDATED_AT_ONCE)]
    duplicates = store.add_inputs(run.run_id, [input_row(record) for record in chunk]) if chunk else []
    return chunk, duplicates


def _problems(chunk: list[Prepared], duplicates: list[Duplicate]) -> list[str]:
    bad = [(record.line, record.message) for record in chunk if isinstance(record, BadRecord)]
    twice = [(twin.line, f"the id {twin.id} stands in line {twin.first_line} already") for twin in duplicates]
    return [f"line {line}: {message}" for line, message in sorted(bad + twice)]


def _listed(name: str, problems: list[str]) -> str:
    shown = "\n  ".join(problems[:_SHOWN_PROBLEMS])
    more = f"\n  and {len(problems) - _SHOWN_PROBLEMS:,} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return (
        f"{name} has {len(problems):,} bad {'record' if len(problems) == 1 else 'records'}; nothing was sent.\n"
        f"  {shown}{more}\nMend the file, or go on without them: "
        'on_bad_record="fail-record" (--on-bad-record fail-record)'
    )


def output_rows(store: RunStore, run_id: int, settings_id: int) -> Iterator[OutputRow]:
    """Rows of the output, for the records that have ended, in the order of the input.

    Where a second model was asked, each row says which of the two it is from.
    """
    second = store.second_run(run_id)
    for row in store.outputs(run_id, settings_id, second=second):
        id_ = msgspec.json.decode(row.record.id)
        if row.record.error is not None:
            message = f"line {row.record.line}: {row.record.error}"
            yield OutputRow(id=id_, error=RecordError(kind="bad-record", message=message))
        elif row.answer is not None:
            answer, model = row.answer, None
            if second is not None:
                answer, model = second.chosen(answer, row.second)
            yield answer_row(id_, answer, model=model)


def answer_row(id_: Any, answer: AnswerRow, *, model: str | None = None) -> OutputRow:
    """An answer as a row of the output.

    :param model: that gave it, where a second one was asked.
    """
    by = msgspec.UNSET if model is None else model
    if answer.ok and answer.output is not None:
        confidence = msgspec.UNSET if answer.confidence is None else answer.confidence
        return OutputRow(id=id_, output=msgspec.json.decode(answer.output), confidence=confidence, model=by)
    error = RecordError(kind=answer.error_kind or "failed", message=answer.error_message or "")
    return OutputRow(id=id_, error=error, model=by)
