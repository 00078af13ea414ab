"""Records with known answers in a run: in its batches, and alone. See docs/design/gold.md.

Nothing of them is an answer: they have no row in the store, no result, and are not among the records of a batch.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from engine.decide.answers import Reading
from engine.decide.batch_size import BatchSize
from engine.decide.gold_pairs import GoldBatch, OpenBatches
from engine.decide.gold_pool import GRACE, GoldEntry, GoldPool
from engine.decide.gold_share import LEAST_WEIGHT, Spent, lone_asks_worth
from engine.decide.gold_tally import GoldTally, Judged, loss_of, sizes_named
from engine.decide.gold_test import Shown
from engine.decide.gold_values import Ride
from engine.decide.packing import Room
from engine.decide.prompts import first_words
from engine.decide.quality import rung_of
from engine.decide.quality_judge import Judge
from engine.report.gold import GoldMove, GoldUse, gold_sentence, instead, shown_sentence, too_little
from engine.report.metrics import Counters
from engine.run.audit import Auditor, Price
from engine.run.gold_riders import Rider
from engine.run.gold_set import GoldSet, check_fields, shape
from engine.run.plan import Asking, Plan
from engine.vocabulary.config import AnswerForm, RunConfig
from engine.vocabulary.task import Task
from engine.vocabulary.values import Batch, Item, Record, Usage

_FEW = 4  # requests of a kind before it is known what one takes
_SOON = 100  # rides at a size until it is known well enough for gold to ride at its usual rate
_SOON_ON_THE_WAY = 8  # at a size that the run will hardly stay at; or, where more can be asked alone, this part of it:
_PART_ON_THE_WAY = 6
_MOST_AHEAD = 400.0


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
        most: int,
    ) -> None:  # fmt: skip
        """
        :param most: the largest batch that the run may use.
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
        self._most = most
        self._lone: dict[int, float] = {}  # line -> how right its lone answer is
        self._open = OpenBatches()
        self._sent: Counter[int] = Counter()  # by rung, in the first pass: rides under way or answered
        self._differences: list[tuple[int, float]] = []  # rung, right alone less right there, as they came
        self._ridden: set[int] = set()
        self._checked = self._aims_at_largest = False
        self._counters: Counters | None = None
        self._rides = self._unanswered = self._alone = self._requests = self._tokens = self._lone_output = 0
        self._mean_input = math.ceil(statistics.fmean(entry.record.input_tokens for entry in gold.entries))
        self._cost = self._lone_cost = 0.0
        self._moves: list[GoldMove] = []

    def __repr__(self) -> str:
        return f"GoldInRun({self._pool!r}, rides={self._rides}, alone={self._alone})"

    def check(self, records: Sequence[Record], counters: Counters) -> None:
        """See `gold_set.check_fields`; of the first records of the input. Says as well where gold is too little."""
        if self._checked or not records:
            return
        self._checked, self._counters = True, counters
        check_fields(self._gold, records)
        said = too_little(len(self._gold.entries), rate=self._pool.rate, records=counters.records_total)
        if said is not None:
            counters.notice(said)

    # -- what to send --------------------------------------------------------------------------------------------

    def next_lone(self, now: float, counters: Counters, *, size: int) -> Batch | None:
        """A record with gold that is asked alone, if one is wanted now."""
        total, is_largest = counters.records_total, self._is_largest(size)
        left = 0 if total is None else total - counters.records_done
        spent = self._spent(counters)
        requests = in_all = lone_asks_worth(spent, records_left=left, size=size)
        if not is_largest:  # half of what the run would pay for at its largest size is kept for that
            requests = lone_asks_worth(spent, records_left=0.5 * left, size=max(size, self._most))
            in_all /= 1.0 if spent.lone is None else LEAST_WEIGHT
        entry = self._pool.next_lone(
            requests=requests,
            in_all=in_all,
            size=size,
            is_largest=is_largest,
            grace=GRACE if total is None else min(1, int(self._pool.rate * total)),
        )
        if entry is None:
            return None
        return Batch(items=(Item(record=entry.record, accepted_at_s=now),), origin=1, purpose="gold")

    def _is_largest(self, size: int) -> bool:
        """Whether the run will use no larger batches than these: it does not climb any more, or cannot."""
        return size >= self._most or self._batch_size.next_size < 2 * self._batch_size.settled_size

    def _spent(self, counters: Counters) -> Spent:
        """What a lone ask takes of that which limits the run, and what the others took."""
        others = counters.requests - self._requests
        counts = self._counts_requests or self._batch_size.binding == "requests"
        if counts or min(others, self._requests) < _FEW:
            return Spent(requests=others, cost=0.0, lone=None, entry=0.0)
        all_ = self._price(
            Usage(
                input_tokens=counters.tokens_input,
                output_tokens=counters.tokens_output,
                cached_tokens=counters.tokens_cached,
                written_tokens=counters.tokens_written,
            )
        )
        entry = Usage(input_tokens=self._mean_input, output_tokens=self._lone_output // self._requests)
        return Spent(
            requests=others,
            cost=all_ - self._lone_cost,
            lone=self._lone_cost / self._requests,
            entry=self._price(entry),
        )

    def candidates(self, size: int, counters: Counters) -> list[GoldEntry]:
        """Those that would ride in the next new batch, and take a place each.

        A size of which little is known gets more of them at once: what it does is found out on fewer records. A size on
        the way to a larger one gets few of them: the lone answers would be used up there.
        """
        ahead, is_largest = 0.0, self._is_largest(size)
        self._aims_at_largest = is_largest
        enough = _SOON if is_largest else max(_SOON_ON_THE_WAY, min(_SOON, self._pool.lone_most // _PART_ON_THE_WAY))
        if not self._is_fixed and self._sent[rung_of(size)] < enough:
            left = None if counters.records_total is None else counters.records_total - counters.records_done
            ahead = _MOST_AHEAD if left is None else min(_MOST_AHEAD, 0.75 * self._pool.rate * left)
        return self._pool.candidates(size, ahead=ahead, is_largest=is_largest)

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
        rung = rung_of(len(items) + len(candidates))
        riders = self._pool.ride(candidates, records=len(items), fits=fits, rung=rung, is_largest=self._aims_at_largest)
        self._sent[rung] += len(riders) if sweep == 1 else 0
        return [Rider(entry=entry, position=0, sweep=sweep, rung=rung) for entry in riders]

    def mixed(self, others: Sequence[Any], riders: Sequence[Rider]) -> list[Any]:
        """All that a request asks, in the order in which it is sent: gold at random places."""
        mixed = list(others)
        for rider in riders:
            mixed.insert(self._rng.randint(0, len(mixed)), rider)
        return mixed

    def unseat(self, riders: Sequence[Rider]) -> None:
        """The batch goes without them."""
        for rider in riders:
            self._back(rider)

    def _back(self, rider: Rider) -> None:
        self._pool.give_back([rider.entry], sweep=rider.sweep)
        self._sent[rider.rung] -= rider.sweep == 1

    # -- what came -----------------------------------------------------------------------------------------------

    def give_back(self, riders: Mapping[str, Rider]) -> None:
        """A request brought nothing, or nothing that is believed: they ride again."""
        self.unseat(list(riders.values()))

    def weigh(self, sent: Carrying, reading: Reading | None, usage: Usage, *, now: float) -> list[str]:
        """The answers to the gold of a reply; what the user should read, if they show a loss that was not known.

        :param reading: None where the reply is not believed.
        """
        entries = sum(rider.record.input_tokens for rider in sent.gold.values())
        self.count(usage, share_input=entries / sent.counted_input, share_output=len(sent.gold) / sent.asked)
        if reading is None:
            self.give_back(sent.gold)
            return []
        self._observe(sent.gold, reading, size=sent.members, form=sent.asking.prompt.form)
        return self._judge_complete(now)

    def _observe(self, riders: Mapping[str, Rider], reading: Reading, *, size: int, form: AnswerForm) -> None:
        """:param size: of the request, gold included."""
        right: dict[int, float] = {}
        for id_, rider in riders.items():
            self._rides += 1
            self._ridden.add(rider.entry.line)
            if id_ not in reading.answers:
                self._unanswered += 1  # as production, which asks again for what is missing
                self._back(rider)
                continue
            judged = self._note(rider.entry, reading.answers[id_], size, rider.position, rider.sweep)
            self._tally.add(judged, line=rider.entry.line, rung=rung_of(size), position=rider.position)
            right[rider.entry.line] = judged.right
        sweep = max(rider.sweep for rider in riders.values())
        if right:
            self._open.add(GoldBatch(size=size, form=form, sweep=sweep, right=right))

    def _judge_complete(self, now: float) -> list[str]:
        """What batches show whose records were all asked alone as well, as far as they are going to be."""
        said: list[str] = []
        for batch in self._open.complete(self._pool.awaits):
            rides, rung = batch.rides(self._lone), rung_of(batch.size)
            pairs = [(ride.alone, ride.right) for ride in rides if ride.alone is not None]
            self._differences += [(rung, alone - right) for alone, right in pairs]
            for alone, right in pairs if batch.sweep == 1 else []:
                self._tally.add_pair(rung, alone=alone, right=right)
            shown = self._tell(self._judged(batch.size, rides, batch.form, batch.sweep, now), batch.form, now)
            said += [] if shown is None else [shown]
        return said

    def _judged(self, size: int, rides: list[Ride], form: AnswerForm, sweep: int, now: float) -> Shown | None:
        if self._auditor is not None:
            return self._auditor.observe_gold(size, rides, form=form, sweep=sweep, now=now)
        shown = self._judge.observe_gold_batch(size, rides, sweep=sweep)
        if shown is not None:
            cap = self._judge.allowed_size()
            self._batch_size.cap(cap, reason=self._judge.verdict(shown.size).sentence, now=now)
        return shown

    def observe_lone(self, batch: Batch, outputs: Sequence[Any], missing: object, *, now: float) -> list[str]:
        """The answer to a lone ask; what the user should read, as of a reply. :param missing: stands for none."""
        entry = self._entry_of(batch)
        self._alone += 1
        answered = outputs[0] is not missing
        if answered:
            judged = self._note(entry, outputs[0], 1, 1, self._pool.passes)
            self._lone.setdefault(entry.line, judged.right)
            self._tally.add(judged, line=entry.line, rung=1)
        self._pool.lone_answered(entry, answered=answered)
        return self._judge_complete(now)

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
        self._lone_output += part.output_tokens if alone else 0
        self._tokens += part.input_tokens + part.output_tokens
        cost = self._price(part)
        self._cost += cost
        self._lone_cost += cost if alone else 0.0

    # -- what it shows -------------------------------------------------------------------------------------------

    def _tell(self, shown: Shown | None, form: AnswerForm, now: float) -> str | None:
        if shown is None:
            return None
        kept = max(1, shown.size // 2)
        if not self._is_fixed:
            self._most = min(self._most, kept)
        there = [difference for rung, difference in self._differences if rung >= shown.size]
        labelled = 0 if self._auditor is None else self._auditor.labelled_from(shown.size, form)
        sentence = shown_sentence(
            loss_of("", there[-shown.pairs :]),
            shown,
            instead=instead(self._tally.losses(), below=shown.size) if self._is_fixed else None,
            labelled=labelled,
        )
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
                self._moves,
                losses,
                rides=self._rides,
                in_use=sizes_named(rung_of(self._batch_size.settled_size)),
                stored=0 if self._counters is None else self._counters.records_stored,
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
        most=config.packing.batch_size or config.packing.max_batch_size,
    )
