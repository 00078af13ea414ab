"""All that changes while a pipeline runs, in one place; shared by feeding, dispatching and calls."""

from __future__ import annotations

import random
import time

import anyio
import msgspec

from engine.decide.answer_form import AnswerForms
from engine.decide.batch_size import Allowed, BatchSize, make_batch_size
from engine.decide.brake import PROBES, Brake
from engine.decide.estimates import TokenEstimates
from engine.decide.latency_target import LatencyTarget
from engine.decide.neighbours_canaries import MOST
from engine.decide.packing import Room
from engine.decide.quality import QualityGuard
from engine.decide.quality_evidence import can_be_judged
from engine.decide.rate import Dimension
from engine.decide.room import request_room
from engine.decide.votes import why_in_doubt
from engine.decide.warmup import WarmUp, why_warm
from engine.report.metrics import Counters
from engine.run.audit import Auditor
from engine.run.budget import Budget
from engine.run.gold import gold_in_run
from engine.run.log import RunLog
from engine.run.neighbours import Neighbours
from engine.run.plan import Asking, Plan
from engine.run.queue import WorkQueue
from engine.run.signal import Signal
from engine.run.traffic import Traffic
from engine.run.votes import Voting
from engine.vocabulary.config import RunConfig
from engine.vocabulary.values import Batch, Item


class RunState:
    """The state of one pipeline. Changed on the event loop only, never across an await that others could see half of.

    :ivar changed: notified whenever anything here changes that somebody may wait for.
    :ivar fell_back: the keyed form, which the user chose, turned out to be ignored.
    :ivar traffic: what it shares with the other streams of the engine; `pacer`, `load` and `pause_until_s` are its.
    :ivar neighbours: guards records against what stands in others of their batch.
    :ivar voting: counts the answers of records that are asked several times.
    :ivar target: holds the latency of records, where the user wants that.
    :ivar held: records taken in and not yet given out.
    :ivar calls: calls whose results have not all been given out.
    :ivar followers: digest -> records with an identical input, waiting for the one that was asked.
    :ivar live: records are of callers who wait for them, one by one.
    """

    def __init__(
        self, plan: Plan, config: RunConfig, *, counters: Counters, budget: Budget, worked_before: bool, live: bool,
        log: RunLog | None = None, traffic: Traffic | None = None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.fell_back = False
        self.auditor: Auditor | None = None
        self.config = config
        self.counters = counters
        counters.variables.watch(plan.task)
        self.log = log or RunLog()
        self.log.watch(counters)
        self.budget = budget
        self.live = live
        self.rng = random.Random(config.seed)
        self.queue = WorkQueue(max_wait_s=config.packing.max_wait_s)
        self.traffic = traffic or Traffic(config.limits, target_s=config.target_p95_s)
        self.pacer, self.load = self.traffic.pacer, self.traffic.load
        self.counters.window, self.counters.rate = self.load.window, self.load.rate
        self.batch_size: BatchSize = make_batch_size(config)
        self.target: LatencyTarget | None = None
        if config.target_p95_s is not None:
            self.target = LatencyTarget(config.target_p95_s, most=config.packing.max_batch_size)
        self.counters.target = self.target
        self._estimates: dict[str, TokenEstimates] = {}
        most_records = config.packing.batch_size or config.packing.max_batch_size
        self.brake = Brake(config.recovery, needs_batch=most_records > 1, worked_before=worked_before)
        self.auditor = self._make_auditor()
        self.gold = gold_in_run(plan, config, batch_size=self.batch_size, auditor=self.auditor, price=budget.price)
        self.counters.gold = self.gold
        self.neighbours = Neighbours(config.quality.neighbours, task=plan.task, rng=random.Random(config.seed + 2))
        self.voting = Voting(plan.task, config, log=counters.votes)
        if doubt := why_in_doubt(config, plan.asking.temperature()):
            counters.notice(doubt)
        why = why_warm(
            config, static_tokens=self.estimates.static_tokens, has_read_cache=budget.has_read_cache, live=live
        )
        self.warm_up = self.counters.warm_up = WarmUp(why)
        self.counters.batch_size = self.batch_size
        self.counters.auditor = self.auditor
        self.changed = Signal()
        self.followers: dict[bytes, list[Item]] = {}
        self.held = self.calls = 0
        self.unkeyed_replies = 0
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
        forms = AnswerForms(has_keyed=self.plan.keyed is not None, objective=config.objective)
        keyed_guard = QualityGuard(
            max_disagreement=config.quality.max_disagreement,
            judges=can_be_judged(self.plan.task),
            start=1,
            on_trial=True,
        )
        return Auditor(
            guard,
            self.batch_size,
            task=self.plan.task,
            most=config.packing.max_batch_size,
            rng=random.Random(config.seed + 1),
            price=self.budget.price,
            asks=config.packing.batch_size is None,
            records_total=lambda: self.counters.records_total,
            records_left=self._records_left,
            most_fitting=self._most_fitting,
            forms=forms,
            keyed_guard=keyed_guard if forms.has_keyed else None,
            allowed=lambda: self.allowed,
        )

    def _records_left(self) -> float | None:
        """Records that are sure to be asked yet; those with an identical input are asked once."""
        counters = self.counters
        if counters.records_total is None:
            return None
        ended = counters.records_done - counters.records_stored
        asked_share = 1.0 - counters.records_copied / max(1, ended)
        return max(0.0, (counters.records_total - counters.records_done) * asked_share)

    def _most_fitting(self, entry_tokens: float) -> int:
        """Records of so many entry tokens that a request holds."""
        most = self.config.packing.max_batch_size if self.target is None else self.target.most_records
        room = self.room(most)
        by_output = room.output_tokens / max(1.0, self.estimates.output_per_record)
        return max(1, int(min(room.input_tokens / max(1.0, entry_tokens), by_output, most)))

    def room(self, items: int) -> Room:
        """What a request with so many records at the most may hold besides its static part."""
        limits, found = self.config.limits, self.load.per_minute("tokens")
        if found is not None and limits.tokens_per_minute is None:
            limits = msgspec.structs.replace(limits, tokens_per_minute=found)
        room = request_room(self.estimates, self.config.packing, limits, items=items)
        guard = self.neighbours.guard
        if not guard.uses_canaries:
            return room
        return msgspec.structs.replace(
            room,
            input_tokens=room.input_tokens - guard.canaries.tokens,
            output_tokens=room.output_tokens - MOST * self.estimates.output_per_record,
        )

    @property
    def asking(self) -> Asking:
        """How production asks at present."""
        if self.auditor is not None and self.auditor.forms.form == "keyed" and self.plan.keyed is not None:
            return self.plan.keyed
        return self.plan.fallback if self.fell_back and self.plan.fallback is not None else self.plan.asking

    def asking_of(self, batch: Batch) -> Asking:
        """How a batch is asked: what is only compared has its own form."""
        form = None if self.auditor is None else self.auditor.form_of(batch)
        if form is None or self.plan.keyed is None:
            return self.asking
        return self.plan.keyed if form == "keyed" else self.plan.asking

    @property
    def estimates(self) -> TokenEstimates:
        """Of what production asks."""
        return self.estimates_of(self.asking)

    def estimates_of(self, asking: Asking) -> TokenEstimates:
        """Learned for each answer form apart."""
        form = asking.prompt.form
        if form not in self._estimates:
            self._estimates[form] = TokenEstimates(
                static_tokens=asking.static_tokens, prior_output_tokens=asking.output_tokens
            )
        return self._estimates[form]

    @property
    def size(self) -> int:
        """Records that the next new batch should hold. A size that the user fixed is kept, whatever the target."""
        size = 1 if self.neighbours.guard.wants_alone else self.batch_size.size()
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
            input_tokens_per_minute=self.config.limits.input_tokens_per_minute,
            output_tokens_per_minute=self.config.limits.output_tokens_per_minute,
            window=self.load.speed(self.window),
        )

    def stop(self, reason: BaseException) -> None:
        """Send nothing more; what is in flight is still answered. The first reason counts."""
        if self.stopped is None:
            self.stopped = reason
            self.log.stopping(reason)
        self.feeding.cancel()
        self.dispatching.cancel()
        self.changed.notify()

    def pause_until(self, until_s: float) -> None:
        """Nobody sends before then; a pause is never made shorter."""
        self.traffic.pause_until(until_s)
        self.counters.paused_until_s = self.traffic.pause_until_s

    @property
    def pause_until_s(self) -> float:
        """Nobody sends before it (loop time)."""
        return self.traffic.pause_until_s

    @property
    def is_full(self) -> bool:
        """Whether the window lets nothing more out: this stream's, or the one that all of them share."""
        few = self.warm_up.most(anyio.current_time())
        if few is not None and self.counters.in_flight >= few:
            return True
        return self.counters.in_flight >= self.window or self.traffic.is_full

    def sent(self) -> None:
        """A request is in flight."""
        self.calls += 1
        self.counters.in_flight += 1
        self.counters.peak_in_flight = max(self.counters.peak_in_flight, self.counters.in_flight)
        self.traffic.sent(self.changed)
        self.warm_up.note_sent(anyio.current_time(), records=self._records_left())

    def landed(self) -> None:
        """A request is not in flight any more: its answers are stored, or it was given up."""
        self.counters.in_flight -= 1
        self.traffic.ended()
        self.warm_up.note_ended(anyio.current_time(), is_warm=self.counters.tokens_cached > 0)
        self.changed.notify()

    def wall(self, now: float) -> float:
        """Wall time of a loop time."""
        return now + self._wall_offset_s
