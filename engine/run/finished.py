"""Finished records that audits ask once more: which, and put together how. See docs/design/quality.md."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable, Sequence

import msgspec

from engine.decide.prompts import first_words
from engine.decide.quality import rung_of
from engine.decide.quality_values import AuditPlan
from engine.vocabulary.config import AnswerForm
from engine.vocabulary.values import Batch, Record

_RECENT = 512


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was answered in production, and how."""

    record: Record
    label: Hashable
    size: int
    position: int
    form: AnswerForm = "compact"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request that only compares.

    :ivar known: its records in the order in which they are sent.
    :ivar anchors: digests of those whose answers are compared with their lone ones; the rest fills up.
    :ivar form: how it is asked.
    """

    known: list[Known]
    anchors: frozenset[bytes] = frozenset()
    form: AnswerForm = "compact"


class Finished:
    """Remembers some hundred records with their answers, since the store keeps no texts.

    :ivar anchors: those that were asked alone to be compared with.
    """

    def __init__(self, rng: random.Random) -> None:
        self.anchors: list[Known] = []
        self._rng = rng
        self._recent: deque[Known] = deque(maxlen=_RECENT)
        self._asked_at: dict[tuple[AnswerForm, int], set[bytes]] = {}  # by form and size, answered or not
        self._compared_at: dict[tuple[AnswerForm, int], set[bytes]] = {}  # by form and rung

    def __repr__(self) -> str:
        return f"Finished(anchors={len(self.anchors)}, recent={len(self._recent)})"

    # -- what came -----------------------------------------------------------------------------------------------

    def remember(self, batch: Batch, labels: Sequence[Hashable | None], form: AnswerForm) -> None:
        """A production reply; None where there is no answer."""
        for position, (item, label) in enumerate(zip(batch.items, labels, strict=True), start=1):
            if label is not None:
                known = Known(record=item.record, label=label, size=len(labels), position=position, form=form)
                self._recent.append(known)

    def remember_anchor(self, record: Record, label: Hashable) -> None:
        """A record that was asked alone to be compared with."""
        self.anchors.append(Known(record=record, label=label, size=1, position=1))

    def note_compared(self, known: Known, size: int, form: AnswerForm) -> None:
        """An anchor was answered in a batch of so many."""
        self._compared_at.setdefault((form, rung_of(size)), set()).add(known.record.digest)

    def ask_again(self, ask: Ask) -> None:
        """A request was lost on the way: its anchors were not asked."""
        self._asked_at.get((ask.form, len(ask.known)), set()).difference_update(ask.anchors)

    # -- what to ask ---------------------------------------------------------------------------------------------

    @property
    def mean_tokens(self) -> float | None:
        """Entry tokens of a record; None where nothing is known."""
        tokens = [known.record.input_tokens for known in self._recent]
        return sum(tokens) / len(tokens) if tokens else None

    def fresh(self, size: int, form: AnswerForm) -> list[Known]:
        """Anchors that were not asked in a batch of so many yet, nor answered in one of its rung."""
        used = self._asked_at.get((form, size), set()) | self._compared_at.get((form, rung_of(size)), set())
        return [one for one in self.anchors if one.record.digest not in used]

    def asks(self, plan: AuditPlan, form: AnswerForm, *, in_use: AnswerForm) -> list[Ask]:
        """The requests of a plan.

        :param form: in which anchors are asked in batches; lone asks are compact, what all others are held against.
        :param in_use: the form in which production asks.
        """
        if plan.kind == "anchored":
            return self._anchored(plan, form)
        if plan.kind == "repeat":
            chosen = self._rng.sample(self.anchors, min(plan.records, len(self.anchors)))
            return [Ask(known=[one]) for one in chosen]
        rung = rung_of(plan.size)
        answered = [one for one in self._recent if one.size > 1 and rung_of(one.size) == rung and one.form == in_use]
        chosen = self._rng.sample(answered, min(plan.records, len(answered)))
        if plan.kind == "lone":
            return [Ask(known=[one]) for one in chosen]
        chosen = _distinct(chosen, in_use)
        groups = [chosen[start : start + plan.size] for start in range(0, len(chosen), plan.size)]
        return [Ask(known=group, form=in_use) for group in groups]

    def _anchored(self, plan: AuditPlan, form: AnswerForm) -> list[Ask]:
        """Anchors once more, spread over full batches, among finished records."""
        fresh = self.fresh(plan.size, form)[: plan.records]
        others = list(self._recent)
        asks: list[Ask] = []
        for number in range(plan.requests):
            mine = _distinct(fresh[number :: plan.requests], form)
            taken = {one.record.digest for one in mine}
            self._rng.shuffle(others)
            group = [*mine, *(one for one in others if one.record.digest not in taken)]
            group = _distinct(group, form)[: plan.size]
            if not mine or len(group) < plan.size:
                continue
            self._rng.shuffle(group)
            self._asked_at.setdefault((form, plan.size), set()).update(taken)
            asks.append(Ask(known=group, anchors=frozenset(taken), form=form))
        return asks


def _distinct(known: list[Known], form: AnswerForm) -> list[Known]:
    """In the keyed form, which tells records by their first words, those with other ones than the records before."""
    if form != "keyed":
        return known
    return list({first_words(one.record.input): one for one in reversed(known)}.values())[::-1]
