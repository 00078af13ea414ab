"""One stream of records through the engine: three kinds of task on one state.

One task feeds the queue, one dispatches in order (`dispatch`), and each call has its own (`call`). Decisions are made
in plain functions (`decide/`, `WorkQueue.take`); this room awaits. See docs/design/pipeline.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import anyio

from engine.adapters.store import BallotRow, RunStore
from engine.report.metrics import Counters
from engine.run.budget import Budget
from engine.run.call import Caller, Emit
from engine.run.dispatch import Dispatcher
from engine.run.intake import Inputs, Intake, bad_result, item_of
from engine.run.journal import Journal, RunSync, in_thread
from engine.run.log import RunLog
from engine.run.outcome import Settled, settle
from engine.run.plan import Plan
from engine.run.readers import Reader
from engine.run.state import RunState
from engine.run.traffic import Traffic
from engine.run.votes import elected, with_ballots
from engine.vocabulary.config import RunConfig
from engine.vocabulary.errors import RunStopped
from engine.vocabulary.values import BadRecord, Record, RecordError, Result

CHUNK = 256
"""Records that are looked up in the store together."""

_LOW_WATER = 0.75


class Pipeline:
    """Annotates one stream of records. Use `run` once."""

    def __init__(
        self, plan: Plan, config: RunConfig, store: RunStore, *, run_id: int, settings_id: int, budget: Budget,
        source_name: str = "input", inputs: Inputs = Inputs.NOTE, run_sync: RunSync = in_thread,
        counters: Counters | None = None, call_number: Callable[[], int] | None = None,
        worked_before: bool = False, log: RunLog | None = None, salt_offset: int | None = None,
        traffic: Traffic | None = None,
    ) -> None:  # fmt: skip
        self.counters = counters or Counters()
        self._config = config
        self._source_name = source_name
        self._state = RunState(
            plan,
            config,
            counters=self.counters,
            budget=budget,
            worked_before=worked_before,
            live=inputs is Inputs.IGNORE,
            log=log,
            traffic=traffic,
        )
        self._journal = Journal(store, run_id=run_id, settings_id=settings_id, run_sync=run_sync)
        self._intake = Intake(
            store, self.counters, run_id=run_id, settings_id=settings_id,
            retry_failed=config.retry_failed, deduplicate=config.packing.deduplicate, inputs=inputs,
            run_sync=run_sync,
        )  # fmt: skip
        self._dispatcher = Dispatcher(
            self._state, call_number=call_number or count(store.next_call_id()).__next__, salt_offset=salt_offset
        )
        self._caller = Caller(
            self._state, store=store, journal=self._journal, intake=self._intake, emit=self._emit, run_id=run_id
        )

    def __repr__(self) -> str:
        return f"Pipeline({self._state!r})"

    # -- the whole ----------------------------------------------------------------------------------------------

    async def run(self, reader: Reader, emit: Emit) -> None:
        """Annotate everything that the reader gives; `emit` gets every result, in order of completion.

        :raises RunStopped: the run ended before its input; what was answered is stored and has been emitted.
        :raises StoreError: an answer could not be stored.
        """
        self._emit_result = emit
        self._state.traffic.join(self._state.changed)
        try:
            async with anyio.create_task_group() as beside:
                if self._state.log.is_on:
                    beside.start_soon(self._state.log.keep_telling)
                await self._send(reader)
                beside.cancel_scope.cancel()
        except* Exception as group:  # noqa: BLE001 - unwrapped and raised: the task group is an inner matter
            self._state.log.broke(_first(group))
            raise _first(group) from None
        finally:
            self._state.traffic.leave(self._state.changed, self.counters.in_flight)
            if self._state.auditor is not None and (said := self._state.auditor.forms.sentence):
                self.counters.notice(said)
            for said in (*self._state.neighbours.guard.notices(), *self.counters.votes.notices()):
                self.counters.notice(said)
            with anyio.CancelScope(shield=True):
                await reader.close()
        if self._state.stopped is not None:
            raise self._state.stopped

    async def _send(self, reader: Reader) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._feed, reader)
            with self._state.dispatching:
                await self._dispatcher.run(
                    lambda sent: tasks.start_soon(self._caller.call, sent),
                    conclude=lambda item: tasks.start_soon(self._caller.conclude, item),
                )
            self._state.feeding.cancel()

    def stop(self, reason: BaseException) -> None:
        """Send nothing more; every request in flight is still answered, stored and emitted. Then `run` raises this."""
        self._state.stop(reason)

    # -- feeding ------------------------------------------------------------------------------------------------

    @property
    def _capacity(self) -> int:
        """Records that may be held at once: the look-ahead, and two rounds of full batches; fewer for a latency target.

        Who waits for a single answer decides alone how many wait.
        """
        state = self._state
        most = max(self._config.packing.look_ahead, 2 * state.size * state.most_in_flight)
        if state.target is None or state.live:
            return most
        return min(most, state.target.waiting(anyio.current_time(), in_flight=state.held - state.queue.fresh))

    @property
    def _low_water(self) -> float:
        """Records held, from which on more are read: with a latency target each batch counts."""
        capacity = self._capacity
        return capacity * _LOW_WATER if self._state.target is None else capacity - self._state.size

    async def _feed(self, reader: Reader) -> None:
        with self._state.feeding:
            try:
                while True:
                    await self._wait_for_room()
                    chunk = await reader.read(min(CHUNK, self._capacity - self._state.held))
                    if not chunk:
                        break
                    await self._take_in(chunk)
            except Exception as error:  # noqa: BLE001 - whatever the user's source raises ends the run, after the rest
                self.stop(error)
        self._state.input_ended = True
        self._state.changed.notify()

    async def _wait_for_room(self) -> None:
        """Return when a good part of the capacity is free: single records would each cost a look into the store."""
        if self._state.held < self._capacity:
            return
        while self._state.held > self._low_water:
            self._state.input_waits = True
            self._state.changed.notify()
            await self._state.changed.wait()
        self._state.input_waits = False

    async def _take_in(self, chunk: Sequence[Record | BadRecord]) -> None:
        if self._state.gold is not None:
            self._state.gold.check([record for record in chunk if isinstance(record, Record)], self.counters)
        self._state.held += len(chunk)
        try:
            admitted = await self._intake.admit(chunk)
        except BaseException:
            self._state.held -= len(chunk)
            raise
        if admitted.bad and self._config.on_bad_record == "stop":
            self._state.held -= len(chunk)
            raise _bad_input(self._source_name, admitted.bad[0])
        now = anyio.current_time()
        ended = [
            end
            for record in admitted.fresh
            if (end := self._enqueue(record, admitted.ballots.get(record.key, ()), now))
        ]
        self._state.changed.notify()
        if any(not end.row.ok for end in ended):
            self._state.log.refused([_told(end.result) for end in ended if not end.row.ok])
        rows = [*admitted.copied, *(end.row for end in ended)]
        if rows:
            await self._journal.write((), rows)
        ended += await self._caller.late_copies([end for end in ended if end.row.ok])
        for result in admitted.results:
            await self._emit(result)
        for end in ended:
            await self._emit(end.result)

    def _enqueue(self, record: Record, ballots: Sequence[BallotRow], now: float) -> Settled | None:
        """Queue a record, or attach it to an identical one that is on its way; or end it: too long, or enough votes.

        :param ballots: its answers of earlier rounds.
        """
        item = with_ballots(item_of(record, now), ballots)
        problem = self._cannot_fit(record)
        won = self._state.voting.concluded(item) if problem else self._state.voting.known(item)
        if won is not None:
            wall = self._state.wall(now)
            last = ballots[-1]
            if self._config.packing.deduplicate:
                self._state.followers.setdefault(record.digest, [])  # twins have its answer as soon as it is stored
            return elected(won, batch_size=last.batch_size, form=last.form, now=now, wall_time=wall)
        if problem is not None:
            error = RecordError(kind="too-long", message=problem)
            return settle(item, error=error, batch_size=0, form="", now=now, wall_time=self._state.wall(now))
        if self._config.packing.deduplicate:
            followers = self._state.followers.get(record.digest)
            if followers is not None:
                followers.append(item)
                return None
            self._state.followers[record.digest] = []
        if item.ballots:
            self._state.voting.add((item,))
        else:
            self._state.queue.add_record(item)
        return None

    def _cannot_fit(self, record: Record) -> str | None:
        estimates, config = self._state.estimates, self._config
        needed = estimates.input_tokens(record.input_tokens)
        most = config.packing.max_input_tokens
        if needed > most:
            return (
                f"needs about {needed:,} input tokens in a request of its own, and {most:,} are allowed; "
                "a larger max_input_tokens (--max-input-tokens) lets it through in the next run"
            )
        above = config.limits.exceeded(input_tokens=needed, output_tokens=estimates.output_tokens(1))
        if above is not None:
            return (
                f"needs about {above} in a request of its own; a larger {above.option} lets it through in the next run"
            )
        return None

    # -- out ----------------------------------------------------------------------------------------------------

    async def _emit(self, result: Result) -> None:
        """Give a result out. It is durable already, so a consumer that is gone loses nothing."""
        try:
            await self._emit_result(result)
            if result.ok:
                self.counters.records_ok += 1
            else:
                self.counters.records_failed += 1
            self.counters.records_stored += result.stored
            self.counters.last_result_s = anyio.current_time()
        finally:
            self._state.held -= 1
            self._state.changed.notify()


def _told(result: Result) -> tuple[Any, str, str]:
    kind, message = ("failed", "") if result.error is None else (result.error.kind, result.error.message)
    return result.id, kind, message


def _bad_input(source_name: str, bad: BadRecord) -> Exception:
    shown = bad_result(bad)
    message = shown.error.message if shown.error else ""
    return RunStopped(
        "input",
        f"{source_name}, {message}. Mend the record, or go on without it: "
        'on_bad_record="fail-record" (--on-bad-record fail-record)',
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
