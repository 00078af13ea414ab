"""One stream of records through the engine: feeding, dispatching, and the life of every call.

Decisions are made in plain functions (`decide/`, `WorkQueue.take`); this module awaits. Three kinds of task: one feeds
the queue, one dispatches in order, and each call has its own. See docs/design/pipeline.md.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import anyio
import anyio.abc
import msgspec

from engine.adapters.limits import Pacer
from engine.adapters.store import CallRow, RunStore
from engine.decide.answers import Reading, read_answers
from engine.decide.batch_size import DEFAULT_BATCH_SIZE, FixedBatchSize
from engine.decide.brake import PROBES, Brake, Stop
from engine.decide.estimates import TokenEstimates
from engine.decide.packing import Room, pack
from engine.decide.pricing import cost_usd
from engine.decide.prompts import first_words, request_ids, request_salt, user_message
from engine.decide.recovery import Verdict, judge_fault, judge_reply
from engine.report.metrics import Counters
from engine.run.intake import Inputs, Intake, bad_result, item_of
from engine.run.journal import Journal, RunSync, in_thread
from engine.run.outcome import Settled, copies, settle
from engine.run.plan import Asking, Plan
from engine.run.queue import Wait, WorkQueue
from engine.run.readers import Reader
from engine.vocabulary.config import RunConfig
from engine.vocabulary.errors import RunStopped
from engine.vocabulary.values import (
    BadRecord,
    Batch,
    Completion,
    Fault,
    Item,
    Record,
    RecordError,
    Result,
    Usage,
    Waits,
)

CHUNK = 256
"""Records that are looked up in the store together."""

_LOW_WATER = 0.75
_UNKEYED_REPLIES = 2

Emit = Callable[[Result], Awaitable[None]]


class Signal:
    """Wakes whoever waits for any change; cheaper than a condition, and never missed between two looks."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = anyio.Event()

    async def wait(self, until_s: float | None = None) -> None:
        """Return at the next change, or at `until_s` (loop time)."""
        event = self._event
        if until_s is None:
            await event.wait()
            return
        with anyio.move_on_after(max(0.0, until_s - anyio.current_time())):
            await event.wait()


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way: what it asked, how, and what was reserved for it."""

    number: int
    batch: Batch
    asking: Asking
    ids: dict[str, Item]
    user: str
    counted_input: int
    expected_input: int
    max_output_tokens: int
    reserved_tokens: int
    reserved_usd: float
    sent_at_s: float


class Pipeline:
    """Annotates one stream of records. Use `run` once."""

    def __init__(
        self, plan: Plan, config: RunConfig, store: RunStore, *, run_id: int, settings_id: int,
        source_name: str = "input", inputs: Inputs = Inputs.NOTE, run_sync: RunSync = in_thread,
        counters: Counters | None = None, call_number: Callable[[], int] | None = None,
        worked_before: bool = False,
    ) -> None:  # fmt: skip
        self.counters = counters or Counters()
        self._plan = plan
        self._asking = plan.asking
        self._config = config
        self._source_name = source_name
        self._rng = random.Random(config.seed)
        self._salt_offset = random.SystemRandom().randrange(1 << 30)
        self._call_number = call_number or count(store.next_call_id()).__next__
        self._wall_offset = time.time() - anyio.current_time()
        self._journal = Journal(store, run_id=run_id, settings_id=settings_id, run_sync=run_sync)
        self._intake = Intake(
            store, self._journal, self.counters, run_id=run_id, settings_id=settings_id,
            retry_failed=config.retry_failed, deduplicate=config.packing.deduplicate, inputs=inputs,
            run_sync=run_sync,
        )  # fmt: skip
        self._queue = WorkQueue(max_wait_s=config.packing.max_wait_s)
        self._pacer = Pacer(config.limits)
        self._batch_size = FixedBatchSize(config.packing.batch_size or DEFAULT_BATCH_SIZE)
        self._estimates = TokenEstimates(
            static_tokens=plan.asking.static_tokens, prior_output_tokens=plan.asking.output_tokens
        )
        self._brake = Brake(config.recovery, needs_batch=self._batch_size.size() > 1, worked_before=worked_before)
        self._changed = Signal()
        self._followers: dict[bytes, list[Item]] = {}
        self._held = self._calls = 0
        self._unkeyed_replies = 0
        self._pause_until_s = 0.0
        self._reserved_usd = 0.0
        self._input_ended = self._input_waits = False
        self._lone_probe_out = False
        self._stopped: BaseException | None = None
        self._feeding = anyio.CancelScope()
        self._dispatching = anyio.CancelScope()

    def __repr__(self) -> str:
        return (
            f"Pipeline(held={self._held}, calls={self._calls}, in_flight={self.counters.in_flight}, {self._queue!r}, "
            f"{self._brake!r}, {self._estimates!r})"
        )

    # -- the whole ----------------------------------------------------------------------------------------------

    async def run(self, reader: Reader, emit: Emit) -> None:
        """Annotate everything that the reader gives; `emit` gets every result, in order of completion.

        :raises RunStopped: the run ended before its input; what was answered is stored and has been emitted.
        :raises StoreError: an answer could not be stored.
        """
        self._emit_result = emit
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._feed, reader)
                with self._dispatching:
                    await self._dispatch(tasks)
                self._feeding.cancel()
        except* Exception as group:  # noqa: BLE001 - unwrapped and raised: the task group is an inner matter
            raise _first(group) from None
        finally:
            with anyio.CancelScope(shield=True):
                await reader.close()
        if self._stopped is not None:
            raise self._stopped

    def stop(self, reason: BaseException) -> None:
        """Send nothing more; every request in flight is still answered, stored and emitted. Then `run` raises this."""
        if self._stopped is None:
            self._stopped = reason
        self._feeding.cancel()
        self._dispatching.cancel()
        self._changed.notify()

    # -- feeding ------------------------------------------------------------------------------------------------

    @property
    def _capacity(self) -> int:
        """Records that may be held at once: the look-ahead, and two rounds of full batches."""
        packing = self._config.packing
        return max(packing.look_ahead, 2 * self._batch_size.size() * self._config.limits.max_concurrency)

    async def _feed(self, reader: Reader) -> None:
        with self._feeding:
            try:
                while True:
                    await self._wait_for_room()
                    chunk = await reader.read(min(CHUNK, self._capacity - self._held))
                    if not chunk:
                        break
                    await self._take_in(chunk)
            except Exception as error:  # noqa: BLE001 - whatever the user's source raises ends the run, after the rest
                self.stop(error)
        self._input_ended = True
        self._changed.notify()

    async def _wait_for_room(self) -> None:
        """Return when a good part of the capacity is free: single records would each cost a look into the store."""
        if self._held < self._capacity:
            return
        while self._held > self._capacity * _LOW_WATER:
            self._input_waits = True
            self._changed.notify()
            await self._changed.wait()
        self._input_waits = False

    async def _take_in(self, chunk: Sequence[Record | BadRecord]) -> None:
        self._held += len(chunk)
        try:
            admitted = await self._intake.admit(chunk)
        except BaseException:
            self._held -= len(chunk)
            raise
        if admitted.bad and self._config.on_bad_record == "stop":
            self._held -= len(chunk)
            raise _bad_input(self._source_name, admitted.bad[0])
        now = anyio.current_time()
        refused = [failure for record in admitted.fresh if (failure := self._enqueue(record, now))]
        self._changed.notify()
        if refused:
            await self._journal.write((), [settled.row for settled in refused])
        for result in admitted.results:
            self.counters.records_stored += result.stored
            await self._emit(result)
        for settled in refused:
            await self._emit(settled.result)

    def _enqueue(self, record: Record, now: float) -> Settled | None:
        """Queue a record, or attach it to an identical one that is on its way, or refuse what can never fit."""
        item = item_of(record, now)
        problem = self._cannot_fit(record)
        if problem is not None:
            error = RecordError(kind="too-long", message=problem)
            return settle(item, error=error, batch_size=0, form="", now=now, wall_time=self._wall(now))
        if self._config.packing.deduplicate:
            followers = self._followers.get(record.digest)
            if followers is not None:
                followers.append(item)
                return None
            self._followers[record.digest] = []
        self._queue.add_record(item)
        return None

    def _cannot_fit(self, record: Record) -> str | None:
        needed = self._estimates.input_tokens(record.input_tokens)
        most = self._config.packing.max_input_tokens
        if needed > most:
            return f"needs about {needed:,} input tokens in a request of its own, and {most:,} are allowed"
        tpm = self._config.limits.tokens_per_minute
        if tpm is not None and needed + self._estimates.output_tokens(1) > tpm:
            return f"needs about {needed:,} input tokens, more than the limit of {tpm:,.0f} tokens a minute"
        return None

    # -- dispatching --------------------------------------------------------------------------------------------

    async def _dispatch(self, tasks: anyio.abc.TaskGroup) -> None:
        """Send what is next, one after the other, when the window, the pause and the limits allow it."""
        while True:
            waiting_since = anyio.current_time()
            await self._wait_for_window()
            window_s = anyio.current_time() - waiting_since
            step = self._next_step(anyio.current_time())
            if step is None:
                return
            if isinstance(step, Wait):
                await self._changed.wait(step.until_s)
                continue
            sent = await self._admitted(step, window_s)
            if sent is None or self._stopped is not None:  # a cancelled scope is left at the next wait, not before
                return
            self._calls += 1
            self.counters.in_flight += 1
            self.counters.peak_in_flight = max(self.counters.peak_in_flight, self.counters.in_flight)
            tasks.start_soon(self._call, sent)

    @property
    def _window(self) -> int:
        most = self._config.limits.max_concurrency
        return most if self._brake.is_open else min(PROBES, most)

    async def _wait_for_window(self) -> None:
        # Calls whose reply is there but not yet stored and taken by the consumer are bounded as well.
        while self.counters.in_flight >= self._window or self._calls >= 2 * self._window + PROBES:
            await self._changed.wait()

    def _next_step(self, now: float) -> Batch | Wait | None:
        """What to send now, or how long to wait, or None when everything has ended."""
        if self._pause_until_s > now:
            return Wait(until_s=self._pause_until_s)
        lone = self._brake.wants_lone and not self._lone_probe_out
        step = self._queue.take(
            now,
            choose=self._choose,
            size=self._batch_size.size(),
            lone=lone,
            # While nothing but errors comes, what is known to be waiting is enough to find out when that ends.
            fresh=not self._brake.is_silent,
            hurry=self._input_ended or self._input_waits,
        )
        if isinstance(step, Wait) and self._input_ended and not self._calls and self._queue.is_empty:
            return None
        if isinstance(step, Batch):
            self._lone_probe_out |= len(step.items) == 1
        return step

    def _choose(self, entry_tokens: Sequence[int]) -> list[int]:
        packing, estimates = self._config.packing, self._estimates
        per_record = estimates.output_per_record
        most_input = packing.max_input_tokens - estimates.static_tokens
        # A request that takes much of a minute's tokens waits long for them: stay small where that is possible. Where
        # the static prompt is most of it, smaller batches would only pay for it more often.
        comfortable = self._pacer.comfortable_tokens - estimates.static_tokens - estimates.call_overhead
        comfortable = max(comfortable, estimates.static_tokens)
        room = Room(
            items=self._batch_size.size(),
            input_tokens=int(max(0.0, min(most_input, comfortable)) / estimates.input_ratio),
            output_tokens=packing.max_output_tokens - estimates.call_overhead,
        )
        return pack(entry_tokens, room=room, output_per_record=per_record, rng=self._rng)

    async def _admitted(self, batch: Batch, window_s: float) -> Sent | None:
        """Wait until the limits let this batch go; None when the budget does not."""
        sent = self._prepared(batch)
        if not await self._within_budget(sent):
            return None
        started = anyio.current_time()
        await self._pacer.wait_for_request()
        after_requests = anyio.current_time()
        await self._pacer.wait_for_tokens(sent.reserved_tokens)
        after_tokens = anyio.current_time()
        await self._pause_over()
        self._pacer.start()
        now = anyio.current_time()
        self.counters.add_waits(
            Waits(
                window_s=window_s,
                requests_s=after_requests - started,
                tokens_s=after_tokens - after_requests,
                pause_s=now - after_tokens,
            )
        )
        self._reserved_usd += sent.reserved_usd
        if self.counters.first_sent_s is None:
            self.counters.first_sent_s = now
        return msgspec.structs.replace(sent, sent_at_s=now)

    async def _pause_over(self) -> None:
        """A 429 may have come while this request waited for its turn, and another during the pause."""
        while (until_s := self._pause_until_s) > anyio.current_time():
            await self._changed.wait(until_s)

    def _prepared(self, batch: Batch) -> Sent:
        number = self._call_number()
        salt = request_salt(self._salt_offset, number)
        entries = sum(item.record.input_tokens for item in batch.items)
        expected_input = self._estimates.input_tokens(entries)
        reserved = expected_input + self._estimates.output_tokens(len(batch.items))
        ids = dict(zip(request_ids(salt, len(batch.items)), batch.items, strict=True))
        most_output = self._estimates.max_output_tokens(
            len(batch.items), batch.output_scale, self._config.packing.max_output_tokens
        )
        return Sent(
            number=number,
            batch=batch,
            asking=self._asking,
            ids=ids,
            user=user_message((id_, item.record.input) for id_, item in ids.items()),
            counted_input=self._estimates.counted_input(entries),
            expected_input=expected_input,
            max_output_tokens=most_output,
            reserved_tokens=reserved,
            reserved_usd=self._usd(expected_input, 0, most_output),
            sent_at_s=0.0,
        )

    def _usd(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        prices = self._config.prices
        if prices is None:
            return 0.0
        return cost_usd(prices, input_tokens=input_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens)

    async def _within_budget(self, sent: Sent) -> bool:
        budget = self._config.budget_usd
        if budget is None:
            return True
        while True:
            counters = self.counters
            spent = self._usd(counters.tokens_input, counters.tokens_cached, counters.tokens_output)
            # What brought no usage may be billed all the same: a budget takes the worst case.
            spent += self._usd(counters.unconfirmed_input, 0, counters.unconfirmed_output)
            if spent + self._reserved_usd + sent.reserved_usd <= budget:
                return True
            if not counters.in_flight:
                self.stop(
                    RunStopped(
                        "budget",
                        f"this run's budget of ${budget:g} is spent but for ${budget - spent:.4f}, "
                        f"and the next request may cost ${sent.reserved_usd:.4f}",
                    )
                )
                return False
            await self._changed.wait()

    # -- one call -----------------------------------------------------------------------------------------------

    async def _call(self, sent: Sent) -> None:
        try:
            settled = await self._answered(sent)
            for end in settled:
                await self._emit(end.result)
        finally:
            self._calls -= 1
            self._changed.notify()

    async def _answered(self, sent: Sent) -> list[Settled]:
        """Send, and store what comes back. The slot covers just this: neither a back-off nor a slow consumer holds it.

        It is not given back before the answers are durable: whatever a crash makes us send again was in flight.
        """
        settled: list[Settled] = []
        try:
            outcome = await sent.asking.provider.complete(
                user=sent.user, max_output_tokens=sent.max_output_tokens, items=len(sent.ids)
            )
            with anyio.CancelScope(shield=True):  # from here on the reply is paid for
                settled += await self._settle_call(sent, outcome)
            return settled
        except anyio.get_cancelled_exc_class():
            if not settled:
                with anyio.CancelScope(shield=True):
                    await self._note_abandoned(sent)
            raise
        finally:
            self.counters.in_flight -= 1
            self._reserved_usd -= sent.reserved_usd
            self._changed.notify()

    async def _note_abandoned(self, sent: Sent) -> None:
        """A request was given up by a stop at once. It was sent, so the endpoint may bill it."""
        now = anyio.current_time()
        self.counters.requests += 1
        self.counters.abandoned += 1
        self.counters.causes["abandoned"] += 1
        self._note_unconfirmed(sent)
        row = CallRow(
            id=sent.number,
            sent_at=self._wall(sent.sent_at_s),
            latency_s=now - sent.sent_at_s,
            size=len(sent.ids),
            accepted=0,
            status=0,
            outcome="abandoned",
            message="given up by a stop at once",
        )
        await self._journal.write([row], ())

    def _note_unconfirmed(self, sent: Sent) -> None:
        self.counters.unconfirmed_input += sent.expected_input
        self.counters.unconfirmed_output += sent.max_output_tokens

    async def _settle_call(self, sent: Sent, outcome: Completion | Fault) -> list[Settled]:
        now = anyio.current_time()
        batch = msgspec.structs.replace(
            sent.batch,
            items=tuple(msgspec.structs.replace(item, calls=(*item.calls, sent.number)) for item in sent.batch.items),
        )
        ids = dict(zip(sent.ids, batch.items, strict=True))
        if isinstance(outcome, Completion):
            reading = self._read(sent, outcome)
            verdict = judge_reply(batch, ids, reading, outcome, self._config.recovery)
            self._after_reply(sent, outcome, reading, verdict)
        else:
            verdict = judge_fault(batch, outcome, self._config.recovery, now=now, rng=self._rng)
            self._after_fault(sent, outcome, verdict, now)
        usage = self._usage(sent, outcome)
        if _is_unconfirmed(outcome):
            self._note_unconfirmed(sent)
        self._pacer.settle(reserved=sent.reserved_tokens, used=self._charged(sent, outcome, usage))
        self._count(verdict, usage)
        settled = self._ends(sent, verdict, now)
        self._maybe_stop(verdict, outcome, now)  # before anything is awaited, or more would be sent meanwhile
        await self._journal.write([self._call_row(sent, outcome, verdict, usage, now)], [end.row for end in settled])
        settled += await self._late_copies(settled)
        for child in verdict.children:
            self._queue.add_child(child, now)
        return settled

    async def _late_copies(self, settled: list[Settled]) -> list[Settled]:
        """The ends of identical records that came while the answer was on its way into the store.

        From here on a twin finds the answer there: no await stands between the look-up of its digest and this.
        """
        late: list[Settled] = []
        for end in settled:
            self._intake.note_settled(end.row)
            followers = self._followers.pop(end.row.digest, ())
            late += copies(end, followers, now=anyio.current_time())
        if late:
            self.counters.records_copied += len(late)
            await self._journal.write((), [end.row for end in late])
        return late

    def _read(self, sent: Sent, completion: Completion) -> Reading:
        keyed = sent.asking.keyed
        asked = {id_: first_words(item.record.input) if keyed else "" for id_, item in sent.ids.items()}
        return read_answers(completion.text, asked, sent.asking.check, keyed=keyed)

    def _after_reply(self, sent: Sent, completion: Completion, reading: Reading, verdict: Verdict) -> None:
        accepted, size = len(verdict.accepted), len(sent.batch.items)
        self.counters.malformed += accepted < size
        self.counters.foreign_ids += reading.foreign
        if completion.usage is not None and sent.asking is self._asking:
            self._estimates.observe(
                counted_input=sent.counted_input,
                usage=completion.usage,
                answered=reading.found,
                cut=completion.finish_reason == "length",
            )
        self._brake.observe_reply(
            size=size, accepted=accepted, cause=verdict.cause, excerpt=completion.refusal or completion.text
        )
        if sent.asking.keyed and reading.found and reading.unkeyed == reading.found:
            self._note_unkeyed()

    def _note_unkeyed(self) -> None:
        """An endpoint that ignores the keyed form sends the run back to the compact one, before the brake ends it."""
        self._unkeyed_replies += 1
        if self._plan.fallback is not None and self._unkeyed_replies >= _UNKEYED_REPLIES:
            self._asking = self._plan.fallback
            self.counters.notice("the model ignores the keyed answer form; the run went on with the compact one")

    def _after_fault(self, sent: Sent, fault: Fault, verdict: Verdict, now: float) -> None:
        self.counters.http_429 += fault.status == 429
        self._brake.observe_fault(fault.kind, size=len(sent.batch.items), message=_fault_text(fault), now=now)
        if verdict.pause_s:
            self._pause_until_s = max(self._pause_until_s, now + verdict.pause_s)

    def _usage(self, sent: Sent, outcome: Completion | Fault) -> Usage:
        """The endpoint's own figures; for a reply without any, our estimate; for no reply, nothing is known."""
        if outcome.usage is not None:
            return outcome.usage
        if isinstance(outcome, Fault):
            return Usage(input_tokens=0, output_tokens=0)
        return Usage(
            input_tokens=sent.reserved_tokens - self._estimates.output_tokens(len(sent.ids)),
            output_tokens=max(1, len(outcome.text) // 4),
            estimated=True,
        )

    @staticmethod
    def _charged(sent: Sent, outcome: Completion | Fault, usage: Usage) -> int:
        """Tokens that the endpoint has counted against its limit: of a request that failed, what was reserved."""
        if isinstance(outcome, Fault) and outcome.usage is None:
            return sent.reserved_tokens
        return usage.input_tokens + usage.output_tokens

    def _count(self, verdict: Verdict, usage: Usage) -> None:
        counters = self.counters
        counters.requests += 1
        counters.retried += verdict.retry
        counters.splits += verdict.split
        if verdict.cause:
            counters.causes[verdict.cause] += 1
        counters.add_usage(usage, accepted=len(verdict.accepted))
        self._brake.observe_failed(len(verdict.failed))

    def _ends(self, sent: Sent, verdict: Verdict, now: float) -> list[Settled]:
        """Every record that this call ended, and the identical ones that waited for it."""
        size, form, wall = len(sent.ids), sent.asking.prompt.form, self._wall(now)
        pairs = [
            (
                answer.item,
                settle(answer.item, output=answer.output, batch_size=size, form=form, now=now, wall_time=wall),
            )
            for answer in verdict.accepted
        ] + [
            (
                failure.item,
                settle(failure.item, error=failure.error, batch_size=size, form=form, now=now, wall_time=wall),
            )
            for failure in verdict.failed
        ]
        ends: list[Settled] = []
        for item, end in pairs:
            followers = self._followers.get(item.record.digest, [])
            same = copies(end, followers, now=now)
            followers.clear()
            self.counters.records_copied += len(same)
            ends += [end, *same]
        return ends

    def _call_row(self, sent: Sent, outcome: Completion | Fault, verdict: Verdict, usage: Usage, now: float) -> CallRow:
        fault = outcome if isinstance(outcome, Fault) else None
        raw = None
        if verdict.cause:
            raw = outcome.excerpt if isinstance(outcome, Fault) else (outcome.refusal or outcome.text)
        return CallRow(
            id=sent.number,
            sent_at=self._wall(sent.sent_at_s),
            latency_s=now - sent.sent_at_s,
            size=len(sent.ids),
            accepted=len(verdict.accepted),
            status=fault.status if fault else 200,
            outcome=verdict.cause or "ok",
            finish_reason="" if isinstance(outcome, Fault) else outcome.finish_reason,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            estimated=usage.estimated,
            message=fault.message if fault else None,
            raw=raw,
        )

    def _maybe_stop(self, verdict: Verdict, outcome: Completion | Fault, now: float) -> None:
        stop = self._brake.stop(now)
        if verdict.fatal and isinstance(outcome, Fault):
            stop = Stop(kind=outcome.kind, message=_fault_text(outcome))
        if stop is not None:
            self.stop(RunStopped(stop.kind, stop.message))

    # -- out ----------------------------------------------------------------------------------------------------

    async def _emit(self, result: Result) -> None:
        """Give a result out. It is durable already, so a consumer that is gone loses nothing."""
        if result.ok:
            self.counters.records_ok += 1
        else:
            self.counters.records_failed += 1
        self.counters.last_result_s = anyio.current_time()
        try:
            await self._emit_result(result)
        finally:
            self._held -= 1
            self._changed.notify()

    def _wall(self, now: float) -> float:
        return now + self._wall_offset


def _bad_input(source_name: str, bad: BadRecord) -> Exception:
    shown = bad_result(bad)
    message = shown.error.message if shown.error else ""
    return RunStopped("input", f"{source_name}, {message}. Mend the record, or use --on-bad-record fail-record")


def _is_unconfirmed(outcome: Completion | Fault) -> bool:
    """Whether a request reached the endpoint, or may have, and brought neither an answer nor an error of its own."""
    return isinstance(outcome, Fault) and outcome.usage is None and outcome.sent and outcome.status in (0, 200)


def _fault_text(fault: Fault) -> str:
    return f"HTTP {fault.status}: {fault.message}" if fault.status else fault.message


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
