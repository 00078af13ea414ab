"""Records with known answers in a run: in its batches, and alone. See docs/design/gold.md.

Nothing of them is an answer: they have no row in the store, no result, and are not among the records of a batch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from engine.decide.answers import Reading
from engine.decide.batch_size import BatchSize
from engine.decide.gold_pool import GoldEntry, GoldPool
from engine.decide.gold_tally import GoldTally, Judged, sizes_named
from engine.decide.gold_test import Shown
from engine.decide.gold_values import Ride
from engine.decide.packing import Room
from engine.decide.prompts import first_words
from engine.decide.quality import rung_of
from engine.decide.quality_judge import Judge
from engine.report import words
from engine.report.gold import GoldMove, GoldUse, gold_sentence, too_little
from engine.report.metrics import Counters
from engine.run.audit import Auditor, Price
from engine.run.gold_set import GoldSet, check_fields, shape
from engine.run.plan import Asking, Plan
from engine.vocabulary.config import AnswerForm, RunConfig
from engine.vocabulary.task import Task
from engine.vocabulary.values import Batch, Item, Record, Usage

_FEW = 4  # requests of a kind before it is known what one takes
_LEAST_WEIGHT = 0.1
_SOON = 100  # pairs of a size until it is known well enough for gold to ride at its usual rate
_MOST_AHEAD = 400.0


class Rider(msgspec.Struct, frozen=True, kw_only=True):
    """A record with gold in a request.

    :ivar position: among all that the request asks, from 1.
    :ivar sweep: the pass through the gold in which it rode.
    """

    entry: GoldEntry
    position: int
    sweep: int

    @property
    def record(self) -> Record:
        """What is sent."""
        return self.entry.record


class GoldAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to gold. :ivar line: of the gold file. :ivar position: in its batch; 1 alone."""

    line: int
    gold: Any
    output: Any
    right: bool
    batch_size: int
    position: int
    sweep: int


class Carrying(Protocol):
    """A request with gold in it, as `dispatch.Sent` is one."""

    @property
    def gold(self) -> Mapping[str, Rider]:
        """Request id -> gold."""
        ...

    @property
    def asking(self) -> Asking:
        """How it was asked."""
        ...

    @property
    def counted_input(self) -> int:
        """Input tokens by our own count."""
        ...

    @property
    def members(self) -> int:
        """Records and gold."""
        ...

    @property
    def asked(self) -> int:
        """All that it asked."""
        ...


class GoldInRun:
    """Between dispatch, which asks it who rides, and calls, which tell it what was answered."""

    def __init__(
        self, gold: GoldSet, *, task: Task, rate: float, rng: random.Random, batch_size: BatchSize,
        auditor: Auditor | None, price: Price, is_priced: bool, is_fixed: bool, counts_requests: bool,
    ) -> None:  # fmt: skip
        """
        :param rate: gold records among the records that are sent.
        :param auditor: the guard of the labels, which is told; without one, gold alone caps the batch size.
        :param is_fixed: the user gave the batch size, so nothing is capped.
        :param counts_requests: requests are limited, so that a small one costs as much as a large one.
        """
        self.answers: list[GoldAnswer] = []
        self._gold = gold
        self._pool = GoldPool(gold.entries, rate=rate, rng=rng)
        self._tally = GoldTally(task)
        self._rng = rng
        self._batch_size = batch_size
        self._auditor = auditor
        self._judge = Judge(judges=False)
        self._price = price
        self._is_priced = is_priced
        self._is_fixed = is_fixed
        self._counts_requests = counts_requests
        self._lone: dict[int, Judged] = {}
        self._ridden: set[int] = set()
        self._checked = False
        self._rides = self._unanswered = self._alone = self._requests = self._tokens = 0
        self._cost = self._lone_cost = 0.0
        self._moves: list[GoldMove] = []

    def __repr__(self) -> str:
        return f"GoldInRun({self._pool!r}, rides={self._rides}, alone={self._alone})"

    def check(self, records: Sequence[Record], counters: Counters) -> None:
        """See `gold_set.check_fields`; of the first records of the input. Says as well where gold is too little."""
        if self._checked or not records:
            return
        self._checked = True
        check_fields(self._gold, records)
        said = too_little(len(self._gold.entries), rate=self._pool.rate, records=counters.records_total)
        if said is not None:
            counters.notice(said)

    # -- what to send --------------------------------------------------------------------------------------------

    def next_lone(self, now: float, counters: Counters, *, size: int) -> Batch | None:
        """A record with gold that is asked alone, if one is wanted now."""
        left = 0 if counters.records_total is None else counters.records_total - counters.records_done
        requests = counters.requests - self._requests + left / max(1, size)
        entry = self._pool.next_lone(requests=requests / self._weight(counters), size=size)
        if entry is None:
            return None
        return Batch(items=(Item(record=entry.record, accepted_at_s=now),), origin=1, purpose="gold")

    def _weight(self, counters: Counters) -> float:
        """What a lone ask takes of that which limits the run, as a share of what other requests take."""
        others = counters.requests - self._requests
        if self._counts_requests or self._batch_size.binding == "requests" or min(others, self._requests) < _FEW:
            return 1.0
        all_ = self._price(
            Usage(
                input_tokens=counters.tokens_input,
                output_tokens=counters.tokens_output,
                cached_tokens=counters.tokens_cached,
            )
        )
        lone, other = self._lone_cost / self._requests, (all_ - self._lone_cost) / others
        return min(1.0, max(_LEAST_WEIGHT, lone / other)) if other > 0.0 else 1.0

    def candidates(self, size: int, counters: Counters) -> list[GoldEntry]:
        """Those that would ride in the next new batch, and take a place each.

        A size of which little is known gets more of them at once: what it does is found out on fewer records.
        """
        ahead = 0.0
        if not self._is_fixed and self._tally.pairs(rung_of(size)) < _SOON:
            left = None if counters.records_total is None else counters.records_total - counters.records_done
            ahead = _MOST_AHEAD if left is None else min(_MOST_AHEAD, 0.75 * self._pool.rate * left)
        return self._pool.candidates(size, ahead=ahead)

    def ride(self, items: Sequence[Item], candidates: Sequence[GoldEntry], *, room: Room, keyed: bool) -> list[Rider]:
        """Those of the candidates that go with a batch: what a reader could not tell from the others."""
        taken = {item.record.digest for item in items}
        words = {first_words(item.record.input) for item in items} if keyed else set()
        shapes = {shape(item.record.input) for item in items}
        left = room.input_tokens - sum(item.record.input_tokens for item in items)

        def fits(entry: GoldEntry) -> bool:
            nonlocal left
            record = entry.record
            word = first_words(record.input) if keyed else None
            if record.digest in taken or word in words or shape(record.input) not in shapes:
                return False
            if record.input_tokens > left:
                return False
            left -= record.input_tokens
            taken.add(record.digest)
            words.add(word) if word is not None else None
            return True

        sweep = self._pool.passes
        riders = self._pool.ride(candidates, records=len(items), fits=fits)
        return [Rider(entry=entry, position=0, sweep=sweep) for entry in riders]

    def mixed(self, others: Sequence[Any], riders: Sequence[Rider]) -> list[Any]:
        """All that a request asks, in the order in which it is sent: gold at random places."""
        mixed = list(others)
        for rider in riders:
            mixed.insert(self._rng.randint(0, len(mixed)), rider)
        return mixed

    def unseat(self, riders: Sequence[Rider]) -> None:
        """The batch goes without them."""
        self._pool.give_back(rider.entry for rider in riders)

    # -- what came -----------------------------------------------------------------------------------------------

    def give_back(self, riders: Mapping[str, Rider]) -> None:
        """A request brought nothing, or nothing that is believed: they ride again."""
        self._pool.give_back(rider.entry for rider in riders.values())

    def weigh(self, sent: Carrying, reading: Reading | None, usage: Usage, *, now: float) -> list[str]:
        """The answers to the gold of a reply; what the user should read, if they show a loss that was not known.

        :param reading: None where the reply is not believed.
        """
        entries = sum(rider.record.input_tokens for rider in sent.gold.values())
        self.count(usage, share_input=entries / sent.counted_input, share_output=len(sent.gold) / sent.asked)
        if reading is None:
            self.give_back(sent.gold)
            return []
        said = self._observe(sent.gold, reading, size=sent.members, form=sent.asking.prompt.form, now=now)
        return [] if said is None else [said]

    def _observe(
        self, riders: Mapping[str, Rider], reading: Reading, *, size: int, form: AnswerForm, now: float
    ) -> str | None:
        """:param size: of the request, gold included."""
        rides: list[Ride] = []
        sweep = max(rider.sweep for rider in riders.values())
        for id_, rider in riders.items():
            self._rides += 1
            self._ridden.add(rider.entry.line)
            if id_ not in reading.answers:
                self._unanswered += 1  # as production, which asks again for what is missing
                self._pool.give_back([rider.entry])
                continue
            judged = self._note(rider.entry, reading.answers[id_], size, rider.position, rider.sweep)
            self._tally.add(judged, line=rider.entry.line, rung=rung_of(size), position=rider.position)
            lone = self._lone.get(rider.entry.line)
            rides.append(Ride(right=judged.right, alone=None if lone is None else lone.right))
            if lone is not None and rider.sweep == 1:
                self._tally.add_pair(rung_of(size), alone=lone.right, right=judged.right)
        return self._tell(self._judged(size, rides, form, sweep, now), form, now)

    def _judged(self, size: int, rides: list[Ride], form: AnswerForm, sweep: int, now: float) -> Shown | None:
        if self._auditor is not None:
            return self._auditor.observe_gold(size, rides, form=form, sweep=sweep, now=now)
        shown = self._judge.observe_gold_batch(size, rides, sweep=sweep)
        if shown is not None:
            cap = self._judge.allowed_size()
            self._batch_size.cap(cap, reason=self._judge.verdict(shown.size).sentence, now=now)
        return shown

    def observe_lone(self, batch: Batch, outputs: Sequence[Any], missing: object) -> None:
        """The answer to a lone ask. :param missing: stands for none."""
        entry = self._entry_of(batch)
        self._alone += 1
        answered = outputs[0] is not missing
        if answered:
            judged = self._note(entry, outputs[0], 1, 1, self._pool.passes)
            self._lone.setdefault(entry.line, judged)
            self._tally.add(judged, line=entry.line, rung=1)
        self._pool.lone_answered(entry, answered=answered)

    def lone_lost(self, batch: Batch, *, about_content: bool) -> None:
        """A lone ask brought nothing; it is sent again unless its content was to blame."""
        entry = self._entry_of(batch)
        if about_content:
            self._pool.lone_answered(entry, answered=False)
        else:
            self._pool.ask_again(entry)

    def _entry_of(self, batch: Batch) -> GoldEntry:
        digest = batch.items[0].record.digest
        return next(entry for entry in self._gold.entries if entry.record.digest == digest)

    def _note(self, entry: GoldEntry, output: Any, size: int, position: int, sweep: int) -> Judged:
        judged = self._tally.judged(output, entry.output)
        if self._gold.keeps_answers:
            self.answers.append(
                GoldAnswer(
                    line=entry.line,
                    gold=entry.output,
                    output=output,
                    right=judged.right == 1.0,
                    batch_size=size,
                    position=position,
                    sweep=sweep,
                )
            )
        return judged

    def count(self, usage: Usage, *, share_input: float = 1.0, share_output: float = 1.0, alone: bool = False) -> None:
        """What an attempt took for gold: all of it, or the share of the request that was gold."""
        part = Usage(
            input_tokens=math.ceil(usage.input_tokens * share_input),
            output_tokens=math.ceil(usage.output_tokens * share_output),
            cached_tokens=0 if not alone else usage.cached_tokens,
        )
        self._requests += alone
        self._tokens += part.input_tokens + part.output_tokens
        cost = self._price(part)
        self._cost += cost
        self._lone_cost += cost if alone else 0.0

    # -- what it shows -------------------------------------------------------------------------------------------

    def _tell(self, shown: Shown | None, form: AnswerForm, now: float) -> str | None:
        if shown is None:
            return None
        kept = max(1, shown.size // 2)
        since = "lately, batches" if shown.late else "batches"
        sentence = (
            f"gold: {since} of {shown.size // 2 + 1} records or more have {100 * shown.loss:.0f} points less "
            f"accuracy than the same records asked alone ({shown.pairs} asked both ways)"
        )
        if self._is_fixed:
            sentence += f"; the batch size was given and is kept: --batch-size {kept}, or auto, avoids it"
        else:
            sentence += f"; from there on the run went on with {kept} at the most"
        labelled = 0 if self._auditor is None else self._auditor.labelled_from(shown.size, form)
        if labelled and not self._is_fixed:
            again = f"annotate retry --batch-size-above {kept} asks them again"
            sentence += f" ({words.plural(labelled, 'record')} had been labelled in larger ones: {again})"
        self._moves.append(
            GoldMove(
                at_s=now,
                size=shown.size,
                kept=kept,
                pairs=shown.pairs,
                loss=round(shown.loss, 6),
                late=shown.late,
                capped=not self._is_fixed,
                labelled=labelled,
                sentence=sentence,
            )
        )
        return sentence

    def use(self, *, began_s: float) -> GoldUse:
        """See `report.gold.Gilded`."""
        losses, by_size = self._tally.losses(), self._tally.by_size()
        return GoldUse(
            given=len(self._gold.entries),
            unusable=self._gold.unusable,
            asked=len(self._ridden),
            rides=self._rides,
            unanswered=self._unanswered,
            alone=self._alone,
            passes=self._pool.passes,
            requests=self._requests,
            tokens=self._tokens,
            usd=self._cost if self._is_priced else None,
            by_size=by_size,
            by_position=self._tally.by_position(),
            losses=losses,
            moves=[msgspec.structs.replace(move, at_s=round(max(0.0, move.at_s - began_s), 3)) for move in self._moves],
            sentence=gold_sentence(
                self._moves, losses, rides=self._rides, in_use=sizes_named(rung_of(self._batch_size.settled_size))
            ),
        )


def gold_in_run(
    plan: Plan, config: RunConfig, *, batch_size: BatchSize, auditor: Auditor | None, price: Price
) -> GoldInRun | None:
    """What a run does with its gold; None without any."""
    if plan.gold is None:
        return None
    return GoldInRun(
        plan.gold,
        task=plan.task,
        rate=config.quality.gold_rate,
        rng=random.Random(config.seed + 3),
        batch_size=batch_size,
        auditor=auditor,
        price=price,
        is_priced=config.prices is not None,
        is_fixed=config.packing.batch_size is not None,
        counts_requests=config.limits.requests_per_minute is not None,
    )


def beside(room: Room, riders: Sequence[GoldEntry], output_per_record: float) -> Room:
    """The room that gold leaves to the records of a batch."""
    if not riders:
        return room
    return msgspec.structs.replace(
        room,
        items=max(1, room.items - len(riders)),
        input_tokens=room.input_tokens - sum(entry.record.input_tokens for entry in riders),
        output_tokens=room.output_tokens - len(riders) * output_per_record,
    )


def seated(ids: Mapping[str, object]) -> dict[str, Rider]:
    """The gold of a request, with its places. :param ids: all that it asks, in order."""
    return {
        id_: msgspec.structs.replace(one, position=position)
        for position, (id_, one) in enumerate(ids.items(), start=1)
        if isinstance(one, Rider)
    }
