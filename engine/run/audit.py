"""Asks what the guard of the labels wants to know, beside production. See docs/design/quality.md."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from engine.decide.answer_form import AnswerForms
from engine.decide.batch_size import Allowed, BatchSize, Work, next_below
from engine.decide.gold_test import Shown
from engine.decide.gold_values import Ride
from engine.decide.quality import UNJUDGED_SIZE, QualityGuard
from engine.decide.quality_evidence import label_signature
from engine.decide.quality_values import AuditKind, AuditPlan, Spending
from engine.run.finished import Ask, Finished, Known
from engine.vocabulary.config import AnswerForm
from engine.vocabulary.task import Task
from engine.vocabulary.values import Batch, Item, Purpose, Usage

LEAST_RECORDS = 1_000
"""Of a corpus, below which a guard would cost more than it saves: the size then stays where it is modest anyway."""

_REFRESH_EVERY = 16  # production replies between two looks at the evidence
_PURPOSE: Mapping[str, Purpose] = {
    "anchored": "anchored",
    "reordered": "reordered",
    "lone": "audit-lone",
    "repeat": "repeat",
}

Price = Callable[[Usage], float]


class Auditor:
    """Runs the plans of a `QualityGuard`, and passes on what it allows to the batch size.

    Where the labels hold compact answers to small batches, it tries the keyed form, which has a guard of its own.
    """

    def __init__(
        self, guard: QualityGuard, batch_size: BatchSize, *, task: Task, most: int, rng: random.Random, price: Price,
        asks: bool, records_total: Callable[[], int | None], records_left: Callable[[], float | None] | None = None,
        most_fitting: Callable[[float], int] | None = None, forms: AnswerForms | None = None,
        keyed_guard: QualityGuard | None = None, allowed: Callable[[], Allowed] = Allowed,
    ) -> None:  # fmt: skip
        """
        :param most: records in a request that may ever be used.
        :param asks: whether it may send anything; else it only looks at what production brings.
        :param records_total: of the input, None while it is not known.
        :param records_left: of the input, those that are yet to be asked; without it, those that we have not seen.
        :param most_fitting: records that fit into a request, when one has so many entry tokens on average.
        :param forms: decides on the answer form; None: there is one only.
        :param keyed_guard: the guard of the other form, where there are two.
        :param allowed: what limits the run at present.
        """
        self.guard = guard
        self.asks = asks
        self._records_total = records_total
        self._records_left = records_left
        self._most_fitting = most_fitting
        self.forms = forms or AnswerForms(has_keyed=False)
        self._guards: dict[AnswerForm, QualityGuard] = {"compact": guard, "keyed": keyed_guard or guard}
        self._allowed = allowed
        self._compact_size = 1  # at which the labels held it, when the other form was taken
        self.requests = 0
        self.tokens_input = self.tokens_output = 0
        self.cost = self.cost_at_one = 0.0
        self._batch_size = batch_size
        self._task = task
        self._most = most
        self._price = price
        self._finished = Finished(rng)
        self._anchors_wanted = self._anchors_out = 0
        self._planned: deque[tuple[Batch, Ask]] = deque()
        self._out: dict[int, Ask] = {}
        self._number = 0
        self._extra_requests = self._extra_cost = 0.0
        self._all_requests = self._seen = self._replies = 0
        self._held_at = (0, 0)
        self._hold()

    def __repr__(self) -> str:
        return f"Auditor({self.guard!r}, anchors={len(self._finished.anchors)}, out={len(self._out)})"

    def form_of(self, batch: Batch) -> AnswerForm | None:
        """How a request is asked: lone answers, which all others are held against, compact; None where there is one
        form only."""
        if not self.forms.has_keyed:
            return None
        if batch.audit in self._out:
            return self._out[batch.audit].form
        return "compact" if batch.purpose in ("anchor", "gold") else self.forms.form

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
        plan, form = self._wanted()
        if plan is None:
            return
        if plan.kind == "anchors":
            self._anchors_wanted, self._anchors_out = plan.records, 0
            return
        if plan.kind == "anchored" and not self._finished.fresh(plan.size, form):
            self._guards[form].observe_unanswered(plan.size, plan.records)
        for ask in self._finished.asks(plan, form, in_use=self.forms.form):
            self._number += 1
            items = tuple(Item(record=one.record, accepted_at_s=now) for one in ask.known)
            batch = Batch(items=items, origin=len(items), purpose=_PURPOSE[plan.kind], audit=self._number)
            self._planned.append((batch, ask))

    def _wanted(self) -> tuple[AuditPlan | None, AnswerForm]:
        """What to ask next, and how. The other form is looked at as soon as it may be; new anchors are for it first."""
        tries = self._may_try_form
        trial = self._trial() if tries else None
        if trial is not None and trial.kind != "anchors":
            return trial, "keyed"
        plan = self.guard.wants_audit(
            size=self._batch_size.settled_size,
            most=self._reachable,
            records_seen=self._seen,
            anchors=len(self._finished.anchors),
            spending=self._spending(),
        )
        if tries and self.forms.may_try and (plan is None or plan.kind == "anchors"):
            return trial, self.forms.form
        return plan, self.forms.form

    @property
    def _may_try_form(self) -> bool:
        """Whether the labels hold the compact form back, and the other one is not known yet."""
        if not self.forms.may_try or not self.guard.trial_failed(self._reachable):
            return False
        size, cap = self._batch_size.settled_size, self.guard.allowed_size()
        return (cap is not None and size >= cap) or not self.guard.may_grow(size, self._batch_size.next_size)

    def _trial(self) -> AuditPlan | None:
        """What to ask of the keyed form, if anything is left to ask."""
        guard, most = self._guards["keyed"], self._reachable
        if guard.trial_failed(most):
            self.forms.observe_changes()
            return None
        return guard.wants_trial(most=most, anchors=len(self._finished.anchors), spending=self._spending())

    def _spending(self) -> Spending:
        """What is spent. The shares that are promised are of the whole run, so what is to come is counted as well, as
        many requests as it takes at the size in use: small batches that are sent until audits are a small share of them
        cost more than the audits (of 6,000 records, half of the time went by at B=2).
        """
        left = self._left()
        return Spending(
            audit_cost=self.cost + self._extra_cost,
            cost_at_one=self.cost_at_one * (1.0 + left / max(1, self._seen)),
            audit_requests=self.requests + self._extra_requests,
            requests=self._all_requests + int(left / max(1, self._batch_size.settled_size)),
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
        mean = self._finished.mean_tokens
        if self._most_fitting is not None and mean is not None:
            most = min(most, self._most_fitting(mean))
        return max(1, most)

    # -- what came ---------------------------------------------------------------------------------------------------

    def observe_audit(
        self, batch: Batch, outputs: Sequence[Any], usage: Usage, *, now: float, work: Work | None = None
    ) -> None:
        """The reply to a request of ours.

        :param outputs: of its items in their order; `MISSING` where there is none.
        :param work: what it took and gave.
        """
        ask = self._out.pop(batch.audit, Ask(known=[]))
        self._count(usage)
        guard, size = self._guards[ask.form], len(ask.known)
        if ask.form != self.forms.form and batch.purpose == "anchored" and work is not None:
            self.forms.observe_trial(work)
        for position, (one, output) in enumerate(zip(ask.known, outputs, strict=True), start=1):
            if output is MISSING:
                if one.record.digest in ask.anchors:
                    guard.observe_unanswered(size)
                continue
            self._compare(batch, ask, position, one, label_signature(output, self._task))
        self._pass_on(now)

    def _compare(self, batch: Batch, ask: Ask, position: int, one: Known, label: Hashable) -> None:
        """One answer of an audit beside the one that its record has."""
        guard, size = self._guards[ask.form], len(ask.known)
        if batch.purpose == "anchored":
            if one.record.digest in ask.anchors:
                self._finished.note_compared(one, size, ask.form)
                guard.observe_audit("lone", size, position, label, one.label)
        elif batch.purpose == "repeat":
            for each in {id(guard): guard for guard in self._guards.values()}.values():
                each.observe_audit("repeat", 1, 1, one.label, label)
        else:
            kind: AuditKind = "lone" if batch.purpose == "audit-lone" else "reordered"
            self._guards[one.form].observe_audit(kind, one.size, one.position, one.label, label)

    def observe_gold(
        self, size: int, rides: Sequence[Ride], *, form: AnswerForm, sweep: int, now: float
    ) -> Shown | None:
        """Records with known answers were answered in a production batch; what they show, if it is new."""
        guard = self._guard_of(form)
        shown = guard.observe_gold_batch(size, rides, sweep=sweep)
        self._pass_on(now)
        return shown

    def labelled_from(self, rung: int, form: AnswerForm) -> int:
        """Records that were labelled in batches of this rung and above."""
        return self._guard_of(form).records_from(rung)

    def _guard_of(self, form: AnswerForm) -> QualityGuard:
        return self._guards[form if self.forms.has_keyed else "compact"]

    def give_up(self, batch: Batch, usage: Usage, *, about_content: bool = False) -> None:
        """A request of ours brought nothing.

        :param about_content: because of what it asked; else its anchors are asked again.
        """
        ask = self._out.pop(batch.audit, Ask(known=[]))
        if about_content:
            self._guards[ask.form].observe_unanswered(len(ask.known), len(ask.anchors))
        else:
            self._finished.ask_again(ask)
        self._count(usage)

    def observe_reply(
        self, batch: Batch, outputs: Sequence[Any], usage: Usage, *, static_tokens: int, now: float,
        form: AnswerForm = "compact", members: int | None = None,
    ) -> None:  # fmt: skip
        """A production reply: its answers in the order in which its records were sent.

        :param form: in which they were asked, where there are two.
        :param members: of the batch, where gold was among them.
        """
        form = form if self.forms.has_keyed else "compact"
        labels = [None if output is MISSING else label_signature(output, self._task) for output in outputs]
        size = len(labels)
        self._all_requests += 1
        self._replies += 1
        self._seen += sum(label is not None for label in labels)
        self._add_cost_at_one(size, usage, static_tokens)
        if batch.first:
            self._guards[form].observe_batch(size if members is None else members, labels)
            self._finished.remember(batch, labels, form)
        if batch.purpose == "anchor":
            self._note_anchor(batch, labels[0], usage, static_tokens)
        step = self._batch_size.settled_size, self._batch_size.next_size
        if self._replies % _REFRESH_EVERY == 0 or step != self._held_at:
            self._pass_on(now)

    def _note_anchor(self, batch: Batch, label: Hashable | None, usage: Usage, static_tokens: int) -> None:
        beyond = 1.0 - 1.0 / max(1, self._batch_size.settled_size)
        self._extra_requests += beyond
        self._extra_cost += beyond * self._price(_static(usage, static_tokens))
        if label is not None:
            self._finished.remember_anchor(batch.items[0].record, label)
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
            self._choose_form(now)
            cap, silent = self.guard.allowed_size(), self.guard.silent_size()
            reason = "" if cap is None else f"labels: {self.guard.verdict(2 * cap).sentence}"
            if silent is not None and (cap is None or next_below(silent) < cap):
                cap, reason = next_below(silent), f"batches of {silent} were not answered when it was looked at them"
            self._batch_size.cap(cap, reason=reason, now=now)
        self._hold()

    def _choose_form(self, now: float) -> None:
        """Go over to the other answer form where the evidence says that it holds in larger batches, and pays."""
        if not self.forms.has_keyed or (self.forms.form == "compact" and not self._may_try_form):
            return
        allowed, keyed = self._allowed(), self._guards["keyed"]
        if self.forms.form == "compact":
            self._compact_size = self._batch_size.settled_size
        move = self.forms.decide(
            compact_size=self._compact_size,
            compact=self._batch_size.worth(allowed),
            keyed_size=keyed.held_size(self._most),
            allowed=allowed,
            now=now,
        )
        if move is not None:
            self.guard = self._guards[move.form]
            self._batch_size.restart()

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
