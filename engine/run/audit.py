"""Asks what the guard of the labels wants to know, beside production. See docs/design/quality.md."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec

from engine.decide.batch_size import BatchSize
from engine.decide.quality import UNJUDGED_SIZE, QualityGuard, rung_of
from engine.decide.quality_evidence import label_signature
from engine.decide.quality_values import AuditKind, AuditPlan, Spending
from engine.vocabulary.task import Task
from engine.vocabulary.values import Batch, Item, Purpose, Record, Usage

LEAST_RECORDS = 1_000
"""Of a corpus, below which a guard would cost more than it saves: the size then stays where it is modest anyway."""

_RECENT = 512
_REFRESH_EVERY = 16  # production replies between two looks at the evidence
_PURPOSE: Mapping[str, Purpose] = {
    "anchored": "anchored",
    "reordered": "reordered",
    "lone": "audit-lone",
    "repeat": "repeat",
}

Price = Callable[[Usage], float]


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was answered in production, and how."""

    record: Record
    label: Hashable
    size: int
    position: int


class Auditor:
    """Runs the plans of a `QualityGuard`, and passes on what it allows to the batch size.

    It remembers some hundred records; the store keeps no texts.
    """

    def __init__(
        self, guard: QualityGuard, batch_size: BatchSize, *, task: Task, most: int, rng: random.Random, price: Price,
        asks: bool, records_total: Callable[[], int | None],
    ) -> None:  # fmt: skip
        """
        :param most: records in a request that may ever be used.
        :param asks: whether it may send anything; else it only looks at what production brings.
        :param records_total: of the input, None while it is not known.
        """
        self.guard = guard
        self.asks = asks
        self._records_total = records_total
        self.requests = 0
        self.tokens_input = self.tokens_output = 0
        self.cost = self.cost_at_one = 0.0
        self._batch_size = batch_size
        self._task = task
        self._most = most
        self._rng = rng
        self._price = price
        self._anchors: list[_Known] = []
        self._asked_at: dict[int, set[bytes]] = {}
        self._recent: deque[_Known] = deque(maxlen=_RECENT)
        self._anchors_wanted = self._anchors_out = 0
        self._planned: deque[tuple[Batch, list[_Known]]] = deque()
        self._out: dict[int, list[_Known]] = {}
        self._number = 0
        self._extra_requests = self._extra_cost = 0.0
        self._all_requests = self._seen = self._replies = 0
        self._held_at = (0, 0)
        self._hold()

    def __repr__(self) -> str:
        return f"Auditor({self.guard!r}, anchors={len(self._anchors)}, out={len(self._out)})"

    # -- what to send ------------------------------------------------------------------------------------------------

    @property
    def wants_anchor(self) -> bool:
        """Whether the next new record should be asked alone, so that its lone answer is known."""
        return self._anchors_out < self._anchors_wanted

    def anchor_sent(self) -> None:
        """A new record was sent alone."""
        self._anchors_out += 1

    def next_batch(self, now: float) -> Batch | None:
        """A request that only compares, if one is wanted now."""
        if not self.asks or not self._is_worth_it:
            return None
        if not self._planned and not self._out and not self.wants_anchor and not self._anchors_out:
            self._plan(now)
        if not self._planned:
            return None
        batch, known = self._planned.popleft()
        self._out[batch.audit] = known
        return batch

    @property
    def _is_worth_it(self) -> bool:
        """Whether the corpus is large enough; one of unknown length is taken to be."""
        total = self._records_total()
        return total is None or total >= LEAST_RECORDS

    def _plan(self, now: float) -> None:
        spending = Spending(
            audit_cost=self.cost + self._extra_cost,
            cost_at_one=self.cost_at_one,
            audit_requests=self.requests + self._extra_requests,
            requests=self._all_requests,
        )
        plan = self.guard.wants_audit(
            size=self._batch_size.settled_size,
            most=self._most,
            records_seen=self._seen,
            anchors=len(self._anchors),
            spending=spending,
        )
        if plan is None:
            return
        if plan.kind == "anchors":
            self._anchors_wanted, self._anchors_out = plan.records, 0
            return
        for known in self._groups(plan):
            self._number += 1
            items = tuple(Item(record=one.record, accepted_at_s=now) for one in known)
            batch = Batch(items=items, origin=len(items), purpose=_PURPOSE[plan.kind], audit=self._number)
            self._planned.append((batch, known))

    def _groups(self, plan: AuditPlan) -> list[list[_Known]]:
        """The records of each request of a plan, in the order in which they are sent."""
        if plan.kind == "anchored":
            return self._anchored(plan)
        if plan.kind == "repeat":
            chosen = self._rng.sample(self._anchors, min(plan.records, len(self._anchors)))
            return [[one] for one in chosen]
        rung = rung_of(plan.size)
        answered = [one for one in self._recent if one.size > 1 and rung_of(one.size) == rung]
        chosen = self._rng.sample(answered, min(plan.records, len(answered)))
        if plan.kind == "lone":
            return [[one] for one in chosen]
        return [chosen[start : start + plan.size] for start in range(0, len(chosen), plan.size)]

    def _anchored(self, plan: AuditPlan) -> list[list[_Known]]:
        asked = self._asked_at.setdefault(rung_of(plan.size), set())
        fresh = [one for one in self._anchors if one.record.digest not in asked][: plan.records]
        others = list(self._recent)
        groups: list[list[_Known]] = []
        for number in range(plan.requests):
            mine = fresh[number :: plan.requests]
            taken = {one.record.digest for one in mine}
            filling = [one for one in others if one.record.digest not in taken]
            if not mine or len(mine) + len(filling) < plan.size:
                continue
            group = [*mine, *self._rng.sample(filling, plan.size - len(mine))]
            self._rng.shuffle(group)
            asked.update(taken)
            groups.append(group)
        return groups

    # -- what came ---------------------------------------------------------------------------------------------------

    def observe_audit(self, batch: Batch, outputs: Sequence[Any], usage: Usage, *, now: float) -> None:
        """The reply to a request of ours.

        :param outputs: of its items in their order; `MISSING` where there is none.
        """
        known = self._out.pop(batch.audit, [])
        self._count(usage)
        anchors = {one.record.digest for one in self._anchors} if batch.purpose == "anchored" else set()
        size = len(known)
        for position, (one, output) in enumerate(zip(known, outputs, strict=True), start=1):
            if output is MISSING:
                continue
            label = label_signature(output, self._task)
            if batch.purpose == "anchored":
                if one.record.digest in anchors and one.size == 1:
                    self.guard.observe_audit("lone", size, position, label, one.label)
            elif batch.purpose == "repeat":
                self.guard.observe_audit("repeat", 1, 1, one.label, label)
            else:
                kind: AuditKind = "lone" if batch.purpose == "audit-lone" else "reordered"
                self.guard.observe_audit(kind, one.size, one.position, one.label, label)
        self._pass_on(now)

    def give_up(self, batch: Batch, usage: Usage) -> None:
        """A request of ours brought nothing."""
        self._out.pop(batch.audit, None)
        self._count(usage)

    def observe_reply(
        self, batch: Batch, outputs: Sequence[Any], usage: Usage, *, static_tokens: int, now: float
    ) -> None:
        """A production reply: its answers in the order in which its records were sent."""
        labels = [None if output is MISSING else label_signature(output, self._task) for output in outputs]
        size = len(labels)
        self._all_requests += 1
        self._replies += 1
        self._seen += sum(label is not None for label in labels)
        self._add_cost_at_one(size, usage, static_tokens)
        if batch.first:
            self.guard.observe_batch(size, labels)
            self._remember(batch, labels)
        if batch.purpose == "anchor":
            self._note_anchor(batch, labels[0], usage, static_tokens)
        step = self._batch_size.settled_size, self._batch_size.next_size
        if self._replies % _REFRESH_EVERY == 0 or step != self._held_at:
            self._pass_on(now)

    def _remember(self, batch: Batch, labels: Sequence[Hashable | None]) -> None:
        for position, (item, label) in enumerate(zip(batch.items, labels, strict=True), start=1):
            if label is not None:
                known = _Known(record=item.record, label=label, size=len(labels), position=position)
                self._recent.append(known)

    def _note_anchor(self, batch: Batch, label: Hashable | None, usage: Usage, static_tokens: int) -> None:
        beyond = 1.0 - 1.0 / max(1, self._batch_size.settled_size)
        self._extra_requests += beyond
        self._extra_cost += beyond * self._price(_static(usage, static_tokens))
        if label is not None:
            self._anchors.append(_Known(record=batch.items[0].record, label=label, size=1, position=1))
        self.anchor_ended()

    def anchor_ended(self) -> None:
        """A record that was sent alone has an answer, or none."""
        self._anchors_wanted -= 1
        self._anchors_out -= 1

    def _add_cost_at_one(self, size: int, usage: Usage, static_tokens: int) -> None:
        static = _static(usage, static_tokens)
        shared = Usage(
            input_tokens=max(0, usage.input_tokens - static.input_tokens),
            output_tokens=usage.output_tokens,
            cached_tokens=max(0, usage.cached_tokens - static.cached_tokens),
        )
        self.cost_at_one += size * self._price(static) + self._price(shared)

    def _count(self, usage: Usage) -> None:
        self.requests += 1
        self._all_requests += 1
        self.tokens_input += usage.input_tokens
        self.tokens_output += usage.output_tokens
        self.cost += self._price(usage)

    # -- what follows ------------------------------------------------------------------------------------------------

    def _pass_on(self, now: float) -> None:
        """Hold the size to what the labels bear."""
        if self.asks:
            cap = self.guard.allowed_size()
            reason = "" if cap is None else self.guard.verdict(2 * cap).sentence
            self._batch_size.cap(cap, reason=f"labels: {reason}", now=now)
        self._hold()

    def _hold(self) -> None:
        size = self._batch_size
        self._held_at = size.settled_size, size.next_size
        if self.asks and self._is_worth_it:
            size.hold(not self.guard.may_grow(size.settled_size, size.next_size))
        else:
            size.hold(size.next_size > UNJUDGED_SIZE)


class _Missing:
    """There is no answer (None may be one)."""


MISSING = _Missing()


def _static(usage: Usage, static_tokens: int) -> Usage:
    """The part of a request that every request repeats."""
    static = min(static_tokens, usage.input_tokens)
    return Usage(input_tokens=static, output_tokens=0, cached_tokens=min(usage.cached_tokens, static))
