"""One visit of one cell: records through a fresh engine, and what its store then says of them.

Thin on purpose: what to measure is planned in `plan`, and what it came to is worked out in `figures`.
"""

from __future__ import annotations

import functools
import random
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from engine.adapters.store import read_store
from engine.bench.feed import Feed
from engine.bench.figures import Answered, Arrival, Seen
from engine.bench.plan import LIMIT_SHARE, PAUSE_S, Cell, OpenCell, arrivals
from engine.run.session import Engine
from engine.vocabulary.config import Endpoint, Limits, Packing, Quality, Recovery, RunConfig
from engine.vocabulary.errors import RunStopped
from engine.vocabulary.ports import HttpReply, Transport
from engine.vocabulary.task import Task

FATAL = frozenset({"auth", "quota", "model", "budget"})
"""Reasons for a stop that no other cell would escape."""

_GRACE_S = 1.0  # beside two latencies: for the last replies of a visit whose time is over

_CALLS = """
SELECT sent_at, sent_at + latency_s, size, accepted, status, outcome, input_tokens, cached_tokens, output_tokens,
    unconfirmed_input, unconfirmed_output FROM calls ORDER BY id
"""
_ANSWERS = "SELECT answered_at, latency_s, ok FROM answers"


class Tap:
    """A transport that counts what goes through it, and notes whether the endpoint says that it is simulated."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.posts = 0
        self.first_post_s = 0.0
        self.is_simulated = False

    def begin(self) -> None:
        """Count from 0."""
        self.posts = 0

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> HttpReply:
        """See `engine.vocabulary.ports.Transport`."""
        if not self.posts:
            self.first_post_s = anyio.current_time()
        self.posts += 1
        reply = await self._inner.post(
            url, body=body, headers=headers, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s
        )
        self.is_simulated = self.is_simulated or "x-simulated" in reply.headers
        return reply


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """What one visit left. Times are on the loop's clock.

    :ivar stopped: why it ended before its time; None if it did not.
    :ivar client_cpu_share: CPU seconds of this process / seconds.
    :ivar wall_s: how long it took, start and end of the engine included.
    """

    calls: list[Seen]
    records: list[Answered]
    stopped: RunStopped | None
    client_cpu_share: float
    wall_s: float


class OpenRaw(msgspec.Struct, frozen=True, kw_only=True):
    """The same of an arrival rate.

    :ivar primer_calls: the first so many calls are not of the schedule.
    :ivar started_s: of the schedule; `seconds` is its length.
    """

    raw: Raw
    arrivals: list[Arrival]
    primer_calls: int
    started_s: float
    seconds: float


class BudgetLeft(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit may spend, in dollars and in tokens; None is no budget."""

    usd: float | None = None
    tokens: int | None = None


class Stopper:
    """Ends the visit that is under way, and all that would follow."""

    def __init__(self) -> None:
        self.stopped = False
        self._scope: anyio.CancelScope | None = None

    def stop(self) -> None:
        """Send nothing more; what is in flight is still answered."""
        self.stopped = True
        if self._scope is not None:
            self._scope.cancel()

    def watch(self, scope: anyio.CancelScope) -> anyio.CancelScope:
        """From now on, this is what a stop cancels."""
        self._scope = scope
        if self.stopped:
            scope.cancel()
        return scope


class Runner:
    """Runs visits on one endpoint, one at a time."""

    def __init__(
        self, *, endpoint: Endpoint, config: RunConfig, task: Task, feed: Feed, transport: Transport,
        stopper: Stopper, folder: str | None = None, virtual_time: bool = False,
    ) -> None:  # fmt: skip
        """
        :param config: limits as the user gave them, token budgets, prices, answer form.
        :param task: as `feed.bench_task` makes it.
        :param transport: shared by all visits, so that no cell pays for the connections of all.
        :param folder: where the stores lie while their visits last; None: where temporary files do.
        """
        self._endpoint = endpoint
        self._config = config
        self._task = task
        self._feed = feed
        self.tap = Tap(transport)
        self._stopper = stopper
        self._folder = folder
        self._virtual_time = virtual_time

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is to be sent."""
        return self._stopper.stopped

    @property
    def pause_s(self) -> float:
        """Seconds to leave between two visits."""
        limits = self._config.limits
        return 0.0 if (limits.requests_per_minute, limits.tokens_per_minute) == (None, None) else PAUSE_S

    def _settings(self, cell: Cell | OpenCell, budget: BudgetLeft, seed: int) -> RunConfig:
        """A fixed batch size without a guard: nothing is sent that was not asked for, and nothing is answered twice."""
        limits, packing = self._config.limits, self._config.packing
        return msgspec.structs.replace(
            self._config,
            limits=Limits(
                requests_per_minute=_less(limits.requests_per_minute),
                tokens_per_minute=_less(limits.tokens_per_minute),
                max_concurrency=cell.concurrency,
            ),
            packing=Packing(
                batch_size=cell.batch_size,
                max_batch_size=max(cell.batch_size, packing.max_batch_size),
                max_input_tokens=packing.max_input_tokens,
                max_output_tokens=packing.max_output_tokens,
                look_ahead=2 * cell.batch_size * cell.concurrency,
                deduplicate=False,
            ),
            quality=Quality(guard=False),
            recovery=Recovery(max_failed=1.0),
            on_bad_record="fail-record",
            budget_usd=budget.usd,
            budget_tokens=budget.tokens,
            seed=seed,
        )

    # -- closed loop ---------------------------------------------------------------------------------------------

    async def closed(
        self, cell: Cell, *, requests: int, seconds: float, latency_s: float, budget: BudgetLeft, seed: int
    ) -> Raw:
        """Keep `concurrency` requests in flight, for so many requests or so many seconds, whichever ends first.

        :param latency_s: what a request takes, as far as it is known: sending stops early enough for the last replies.
        """
        records = self._feed.take(requests * cell.batch_size)
        stopped: RunStopped | None = None
        send_s = max(seconds / 2, seconds - 1.5 * latency_s)
        async with self._visit(cell, seconds + _GRACE_S, budget, seed) as visit:
            stream = visit.engine.annotate(self._task, records)
            with self._stopper.watch(anyio.move_on_after(send_s)):
                try:
                    async for _ in stream:
                        pass
                except RunStopped as error:
                    stopped = error
            await stream.aclose()
        return visit.raw(stopped)

    # -- open loop -----------------------------------------------------------------------------------------------

    async def open(
        self, cell: OpenCell, *, records: int, seconds: float, latency_s: float, budget: BudgetLeft, seed: int
    ) -> OpenRaw:
        """Hand records over at Poisson times, whether or not earlier ones are answered.

        Before the schedule starts, a lone record and a batch are answered, as the engine wants before it opens up.
        """
        send_s = max(seconds / 2, seconds - 3 * latency_s)
        stopped: RunStopped | None = None
        schedule: list[float] = []
        arrived: dict[int, Arrival] = {}
        starts = primer_calls = 0
        started = 0.0
        async with self._visit(cell, seconds + _GRACE_S, budget, seed) as visit:
            try:
                await self._primed(visit.engine, cell)
                primer_calls = self.tap.posts
                started = anyio.current_time()
                left_s = max(send_s / 2, send_s - (started - visit.started_s))
                rng = random.Random(f"{seed} arrivals")
                schedule = arrivals(cell.records_per_s, seconds=left_s, most=records, rng=rng)
                send_s = min(left_s, schedule[-1] if len(schedule) == records else left_s)
                starts = await self._arrive(visit.engine, schedule, arrived, started, visit.ends_s - _GRACE_S)
            except* RunStopped as group:
                stopped = _first(group)
            visit.give_up()
        now_s = anyio.current_time() - started
        for number, at_s in enumerate(schedule[:starts]):
            if number not in arrived:
                age_s = max(0.0, now_s - at_s)
                arrived[number] = Arrival(scheduled_s=at_s, late_s=0.0, latency_s=age_s, answered=False, ok=False)
        return OpenRaw(
            raw=visit.raw(stopped),
            arrivals=[arrived[number] for number in sorted(arrived)],
            primer_calls=primer_calls,
            started_s=started,
            seconds=send_s,
        )

    async def _primed(self, engine: Engine, cell: OpenCell) -> None:
        async with anyio.create_task_group() as tasks:
            for record in self._feed.take(1 + cell.batch_size):
                tasks.start_soon(functools.partial(engine.submit, record, task=self._task))

    async def _arrive(
        self, engine: Engine, schedule: list[float], arrived: dict[int, Arrival], started: float, until: float
    ) -> int:
        """Submit at the scheduled times and wait for the answers until `until` (loop time); how many were submitted."""
        records = self._feed.take(len(schedule))
        starts = 0

        async def one(number: int) -> None:
            late_s = anyio.current_time() - started - schedule[number]
            result = await engine.submit(records[number], task=self._task)
            latency_s = anyio.current_time() - started - schedule[number]
            arrived[number] = Arrival(
                scheduled_s=schedule[number], late_s=late_s, latency_s=latency_s, answered=True, ok=result.ok
            )

        with self._stopper.watch(anyio.CancelScope(deadline=until)):
            async with anyio.create_task_group() as tasks:
                for number, at_s in enumerate(schedule):
                    await anyio.sleep_until(started + at_s)
                    tasks.start_soon(one, number)
                    starts = number + 1
        return starts

    # -- both ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _visit(
        self, cell: Cell | OpenCell, hard_s: float, budget: BudgetLeft, seed: int
    ) -> AsyncIterator[_Visit]:
        """A fresh engine on a store of its own; after `hard_s` whatever is still in flight is given up."""
        with tempfile.TemporaryDirectory(prefix="annotate-bench-", dir=self._folder) as folder:
            store = Path(folder) / "store.sqlite"
            engine = Engine(
                self._endpoint,
                self._settings(cell, budget, seed),
                store=store,
                transport=self.tap,
                virtual_time=self._virtual_time,
            )
            self.tap.begin()
            visit = _Visit(engine, hard_s=hard_s)
            with visit.scope:
                async with engine:
                    yield visit
            visit.read(store, first_post_s=self.tap.first_post_s)


class _Visit:
    """A visit under way."""

    def __init__(self, engine: Engine, *, hard_s: float) -> None:
        self.engine = engine
        self.started_s = anyio.current_time()
        self.ends_s = self.started_s + hard_s
        self.scope = anyio.CancelScope(deadline=self.ends_s)
        self._cpu_s = time.process_time()
        self._calls: list[Seen] = []
        self._records: list[Answered] = []

    def give_up(self) -> None:
        """Do not wait for what is queued in the engine."""
        self.scope.cancel()

    def read(self, store: Path, *, first_post_s: float) -> None:
        """What the store says, once the engine has closed it; its wall times are put on the loop's clock."""
        self._wall_s = anyio.current_time() - self.started_s
        self._cpu_s = time.process_time() - self._cpu_s
        opened = read_store(store)
        try:
            rows = opened.query(_CALLS)
            shift_s = first_post_s - rows[0][0] if rows else 0.0
            self._calls = [_seen(row, shift_s) for row in rows]
            self._records = [
                Answered(at_s=at_s + shift_s, latency_s=latency_s, ok=bool(ok))
                for at_s, latency_s, ok in opened.query(_ANSWERS)
            ]
        finally:
            opened.close()

    def raw(self, stopped: RunStopped | None) -> Raw:
        """What the visit left."""
        return Raw(
            calls=self._calls,
            records=self._records,
            stopped=stopped,
            client_cpu_share=self._cpu_s / self._wall_s if self._wall_s > 0 else 0.0,
            wall_s=self._wall_s,
        )


def _seen(row: tuple[Any, ...], shift_s: float) -> Seen:
    sent_s, ended_s, size, accepted, status, outcome, input_, cached, output, maybe_input, maybe_output = row
    return Seen(
        sent_s=sent_s + shift_s, ended_s=ended_s + shift_s, size=size, accepted=accepted,
        status=status, outcome=outcome,
        input_tokens=input_, cached_tokens=cached, output_tokens=output,
        unconfirmed_input=maybe_input, unconfirmed_output=maybe_output,
    )  # fmt: skip


def _less(limit: float | None) -> float | None:
    return None if limit is None else max(1.0, LIMIT_SHARE * limit)


def _first(group: BaseExceptionGroup[RunStopped]) -> RunStopped:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
