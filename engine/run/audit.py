"""Asks what the guard of the labels wants to know, beside production. See docs/design/quality.md."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec

from engine.decide.batch_size import BatchSize, next_below
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


class _Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request that only compares.

    :ivar known: its records in the order in which they are sent.
    :ivar anchors: digests of those whose answers are compared with their lone ones; the rest fills up.
    """

    known: list[_Known]
    anchors: frozenset[bytes] = frozenset()


class Auditor:
    """Runs the plans of a `QualityGuard`, and passes on what it allows to the batch size.

    It remembers some hundred records; the store keeps no texts.
    """

    def __init__(
        self, guard: QualityGuard, batch_size: BatchSize, *, task: Task, most: int, rng: random.Random, price: Price,
        asks: bool, records_total: Callable[[], int | None], records_left: Callable[[], float | None] | None = None,
        most_fitting: Callable[[float], int] | None = None,
    ) -> None:  # fmt: skip
        """
        :param most: records in a request that may ever be used.
        :param asks: whether it may send anything; else it only looks at what production brings.
        :param records_total: of the input, None while it is not known.
        :param records_left: of the input, those that are yet to be asked; without it, those that we have not seen.
        :param most_fitting: records that fit into a request, when one has so many entry tokens on average.
        """
        self.guard = guard
        self.asks = asks
        self._records_total = records_total
        self._records_left = records_left
        self._most_fitting = most_fitting
        self.requests = 0
        self.tokens_input = self.tokens_output = 0
        self.cost = self.cost_at_one = 0.0
        self._batch_size = batch_size
        self._task = task
        self._most = most
        self._rng = rng
        self._price = price
        self._anchors: list[_Known] = []
        self._asked_at: dict[int, set[bytes]] = {}  # by size, answered or not
        self._compared_at: dict[int, set[bytes]] = {}  # by rung
        self._recent: deque[_Known] = deque(maxlen=_RECENT)
        self._anchors_wanted = self._anchors_out = 0
        self._planned: deque[tuple[Batch, _Ask]] = deque()
        self._out: dict[int, _Ask] = {}
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
        batch, ask = self._planned.popleft()
        self._out[batch.audit] = ask
        return batch

    @property
    def _is_worth_it(self) -> bool:
        """Whether the corpus is large enough; one of unknown length is taken to be."""
        total = self._records_total()
        return total is None or total >= LEAST_RECORDS

    def _plan(self, now: float) -> None:
        plan = self.guard.wants_audit(
            size=self._batch_size.settled_size,
            most=self._reachable,
            records_seen=self._seen,
            anchors=len(self._anchors),
            spending=self._spending(),
        )
        if plan is None:
            return
        if plan.kind == "anchors":
            self._anchors_wanted, self._anchors_out = plan.records, 0
            return
        for ask in self._anchored(plan) if plan.kind == "anchored" else self._groups(plan):
            self._number += 1
            items = tuple(Item(record=one.record, accepted_at_s=now) for one in ask.known)
            batch = Batch(items=items, origin=len(items), purpose=_PURPOSE[plan.kind], audit=self._number)
            self._planned.append((batch, ask))

    def _spending(self) -> Spending:
        """What is spent. The shares that are promised are of the whole run, so what is sure to come is counted as well:

        waiting until a tenth of the requests *so far* are enough to compare with took 400 requests at B=2.
        """
        left = self._left()
        return Spending(
            audit_cost=self.cost + self._extra_cost,
            cost_at_one=self.cost_at_one * (1.0 + left / max(1, self._seen)),
            audit_requests=self.requests + self._extra_requests,
            requests=self._all_requests + int(left / self._most),
        )

    def _left(self) -> float:
        """Records that are sure to be asked yet; none where the length of the input is not known."""
        if self._records_left is not None:
            return self._records_left() or 0.0
        return max(0, (self._records_total() or 0) - self._seen)

    @property
    def _reachable(self) -> int:
        """The largest size that a request can hold and that is not known to go unanswered."""
        most, silent = self._most, self.guard.silent_size()
        if silent is not None:
            most = min(most, next_below(silent))
        if self._most_fitting is not None and self._recent:
            mean = sum(one.record.input_tokens for one in self._recent) / len(self._recent)
            most = min(most, self._most_fitting(mean))
        return max(1, most)

    def _groups(self, plan: AuditPlan) -> list[_Ask]:
        """The requests of a plan that asks alone or in another order."""
        if plan.kind == "repeat":
            chosen = self._rng.sample(self._anchors, min(plan.records, len(self._anchors)))
            return [_Ask(known=[one]) for one in chosen]
        rung = rung_of(plan.size)
        answered = [one for one in self._recent if one.size > 1 and rung_of(one.size) == rung]
        chosen = self._rng.sample(answered, min(plan.records, len(answered)))
        if plan.kind == "lone":
            return [_Ask(known=[one]) for one in chosen]
        return [_Ask(known=chosen[start : start + plan.size]) for start in range(0, len(chosen), plan.size)]

    def _anchored(self, plan: AuditPlan) -> list[_Ask]:
        """Anchors once more, spread over full batches, among finished records."""
        asked = self._asked_at.setdefault(plan.size, set())
        used = asked | self._compared_at.get(rung_of(plan.size), set())
        fresh = [one for one in self._anchors if one.record.digest not in used][: plan.records]
        if not fresh:
            self.guard.observe_unanswered(plan.size, plan.records)
        others = list(self._recent)
        asks: list[_Ask] = []
        for number in range(plan.requests):
            mine = fresh[number :: plan.requests]
            taken = {one.record.digest for one in mine}
            filling = [one for one in others if one.record.digest not in taken]
            if not mine or len(mine) + len(filling) < plan.size:
                continue
            group = [*mine, *self._rng.sample(filling, plan.size - len(mine))]
            self._rng.shuffle(group)
            asked.update(taken)
            asks.append(_Ask(known=group, anchors=frozenset(taken)))
        return asks

    # -- what came ---------------------------------------------------------------------------------------------------

    def observe_audit(self, batch: Batch, outputs: Sequence[Any], usage: Usage, *, now: float) -> None:
        """The reply to a request of ours.

        :param outputs: of its items in their order; `MISSING` where there is none.
        """
        ask = self._out.pop(batch.audit, _Ask(known=[]))
        self._count(usage)
        size = len(ask.known)
        for position, (one, output) in enumerate(zip(ask.known, outputs, strict=True), start=1):
            is_anchor = one.record.digest in ask.anchors
            if output is MISSING:
                if is_anchor:
                    self.guard.observe_unanswered(size)
                continue
            label = label_signature(output, self._task)
            if batch.purpose == "anchored":
                if is_anchor:
                    self._compared_at.setdefault(rung_of(size), set()).add(one.record.digest)
                    self.guard.observe_audit("lone", size, position, label, one.label)
            elif batch.purpose == "repeat":
                self.guard.observe_audit("repeat", 1, 1, one.label, label)
            else:
                kind: AuditKind = "lone" if batch.purpose == "audit-lone" else "reordered"
                self.guard.observe_audit(kind, one.size, one.position, one.label, label)
        self._pass_on(now)

    def give_up(self, batch: Batch, usage: Usage, *, about_content: bool = False) -> None:
        """A request of ours brought nothing.

        :param about_content: because of what it asked; else its anchors are asked again.
        """
        ask = self._out.pop(batch.audit, _Ask(known=[]))
        if about_content:
            self.guard.observe_unanswered(len(ask.known), len(ask.anchors))
        else:
            self._asked_at.get(len(ask.known), set()).difference_update(ask.anchors)
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
        """Hold the size to what the labels bear, and to what was answered when it was looked at."""
        if self.asks:
            cap, silent = self.guard.allowed_size(), self.guard.silent_size()
            reason = "" if cap is None else f"labels: {self.guard.verdict(2 * cap).sentence}"
            if silent is not None and (cap is None or next_below(silent) < cap):
                cap, reason = next_below(silent), f"batches of {silent} were not answered when it was looked at them"
            self._batch_size.cap(cap, reason=reason, now=now)
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
