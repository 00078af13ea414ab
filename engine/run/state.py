"""All that changes while a pipeline runs, in one place; shared by feeding, dispatching and calls."""

from __future__ import annotations

import random
import time

import anyio

from engine.adapters.limits import Pacer
from engine.decide.batch_size import Allowed, BatchSize, make_batch_size
from engine.decide.brake import PROBES, Brake
from engine.decide.estimates import TokenEstimates
from engine.decide.latency_target import LatencyTarget
from engine.decide.quality import QualityGuard
from engine.decide.quality_evidence import can_be_judged
from engine.decide.rate import Dimension
from engine.report.metrics import Counters
from engine.run.audit import Auditor
from engine.run.budget import Budget
from engine.run.load import Load
from engine.run.plan import Plan
from engine.run.queue import WorkQueue
from engine.run.signal import Signal
from engine.vocabulary.config import RunConfig
from engine.vocabulary.values import Item


class RunState:
    """The state of one pipeline. Changed on the event loop only, never across an await that others could see half of.

    :ivar changed: notified whenever anything here changes that somebody may wait for.
    :ivar asking: how requests are asked at present; the fallback once the keyed form turned out to be ignored.
    :ivar load: the window and the rates that the endpoint bears.
    :ivar target: holds the latency of records, where the user wants that.
    :ivar held: records taken in and not yet given out.
    :ivar calls: calls whose results have not all been given out.
    :ivar followers: digest -> records with an identical input, waiting for the one that was asked.
    :ivar live: records are of callers who wait for them, one by one.
    :ivar pause_until_s: nobody sends before it (loop time).
    """

    def __init__(
        self, plan: Plan, config: RunConfig, *, counters: Counters, budget: Budget, worked_before: bool, live: bool
    ) -> None:
        self.plan = plan
        self.asking = plan.asking
        self.config = config
        self.counters = counters
        self.budget = budget
        self.live = live
        self.rng = random.Random(config.seed)
        self.queue = WorkQueue(max_wait_s=config.packing.max_wait_s)
        self.pacer = Pacer(config.limits)
        self.load = Load(config.limits)
        self.counters.window, self.counters.rate = self.load.window, self.load.rate
        self.batch_size: BatchSize = make_batch_size(config)
        self.target: LatencyTarget | None = None
        if config.target_p95_s is not None:
            self.target = LatencyTarget(config.target_p95_s, most=config.packing.max_batch_size)
        self.estimates = TokenEstimates(
            static_tokens=plan.asking.static_tokens, prior_output_tokens=plan.asking.output_tokens
        )
        most_records = config.packing.batch_size or config.packing.max_batch_size
        self.brake = Brake(config.recovery, needs_batch=most_records > 1, worked_before=worked_before)
        self.auditor = self._make_auditor()
        self.counters.batch_size = self.batch_size
        self.counters.auditor = self.auditor
        self.changed = Signal()
        self.followers: dict[bytes, list[Item]] = {}
        self.held = self.calls = 0
        self.unkeyed_replies = 0
        self.pause_until_s = 0.0
        self.input_ended = self.input_waits = False
        self.stopped: BaseException | None = None
        self.feeding = anyio.CancelScope()
        self.dispatching = anyio.CancelScope()
        self._wall_offset_s = time.time() - anyio.current_time()

    def __repr__(self) -> str:
        return (
            f"RunState(held={self.held}, calls={self.calls}, in_flight={self.counters.in_flight}, {self.queue!r}, "
            f"{self.brake!r}, {self.pacer!r}, {self.budget!r}, {self.estimates!r})"
        )

    def _make_auditor(self) -> Auditor | None:
        """The guard of the labels. Where the user fixed the size it only looks at what production brings."""
        config = self.config
        if not config.quality.guard:
            return None
        guard = QualityGuard(
            max_disagreement=config.quality.max_disagreement,
            judges=can_be_judged(self.plan.task),
            start=self.batch_size.settled_size,
        )
        return Auditor(
            guard,
            self.batch_size,
            task=self.plan.task,
            most=config.packing.max_batch_size,
            rng=random.Random(config.seed + 1),
            price=self.budget.price,
            asks=config.packing.batch_size is None and not self.live,
            records_total=lambda: self.counters.records_total,
        )

    @property
    def size(self) -> int:
        """Records that the next new batch should hold. A size that the user fixed is kept, whatever the target."""
        size = self.batch_size.size()
        if self.target is None or self.config.packing.batch_size is not None:
            return size
        return min(size, self.target.most_records)

    @property
    def window(self) -> int:
        """Requests that may be in flight at once; two until it is known that anything works."""
        most = self.most_in_flight
        return most if self.brake.is_open else min(PROBES, most)

    @property
    def most_in_flight(self) -> int:
        """Requests that may be in flight at once when all is well."""
        return self.load.window.size

    @property
    def is_paced(self) -> bool:
        """Whether requests or tokens a minute are limited, so that a request more costs more than a slot."""
        dimensions: tuple[Dimension, ...] = ("requests", "tokens")
        return self.config.limits.are_known or any(self.load.per_minute(name) is not None for name in dimensions)

    @property
    def allowed(self) -> Allowed:
        """What limits the run at present."""
        return Allowed(
            requests_per_minute=self.load.per_minute("requests"),
            tokens_per_minute=self.load.per_minute("tokens"),
            window=self.load.speed(self.window),
        )

    def stop(self, reason: BaseException) -> None:
        """Send nothing more; what is in flight is still answered. The first reason counts."""
        if self.stopped is None:
            self.stopped = reason
        self.feeding.cancel()
        self.dispatching.cancel()
        self.changed.notify()

    def pause_until(self, until_s: float) -> None:
        """Nobody sends before then; a pause is never made shorter."""
        self.pause_until_s = max(self.pause_until_s, until_s)

    def wall(self, now: float) -> float:
        """Wall time of a loop time."""
        return now + self._wall_offset_s
