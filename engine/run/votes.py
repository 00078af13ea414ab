"""Rounds of votes in a run: what a reply settles, what is asked again, and beside whom. See docs/design/votes.md."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.adapters.store import BallotRow
from engine.decide.recovery import Failure, Verdict
from engine.decide.votes import Elected, elect, is_repeat, reseated, separated, suffices
from engine.report.votes import VoteLog
from engine.run.outcome import Settled, settle
from engine.run.partials import with_partial
from engine.run.plan import Asking
from engine.run.queue import Choose, WorkQueue
from engine.vocabulary.config import RunConfig
from engine.vocabulary.task import Task
from engine.vocabulary.values import Ballot, Batch, Item

NO_LOGPROBS = "the endpoint sent replies without the probabilities of their tokens, or with some that are not theirs"
LOGPROBS_REMEDY = "so nothing tells what goes to the second model: ask for votes, such as --votes 3"

_MANY = 256
"""Records that wait for a further round before some go, or as many as a batch has, squared: out of so many nobody need
sit beside the same records again. It is half of the usual look-ahead, which they are part of."""
_COMPANY_S = 5.0
"""That the first record of an input waits for the others to be read, where it has been asked alone in a run before."""


class Winner(msgspec.Struct, frozen=True, kw_only=True):
    """A record that has its answer."""

    item: Item
    elected: Elected


class Polled(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply comes to with the votes before it.

    :ivar verdict: on the reply; a record that keeps the answer of an earlier round is not among its failures.
    :ivar again: records whose answers do not suffice yet, to be asked in a further round.
    :ivar ballots: their new votes, to be stored with the call.
    """

    verdict: Verdict
    winners: tuple[Winner, ...]
    again: tuple[Item, ...] = ()
    ballots: tuple[BallotRow, ...] = ()


def elected(won: Winner, *, batch_size: int, form: str, now: float, wall_time: float) -> Settled:
    """The end of a record that has its answer."""
    chosen = won.elected
    return settle(
        won.item, output=chosen.output, batch_size=batch_size, form=form, now=now, wall_time=wall_time,
        confidence=chosen.confidence, votes=chosen.votes,
    )  # fmt: skip


class Voting:
    """Between replies, which it counts, and dispatch, which it gives the batches of further rounds."""

    def __init__(self, task: Task, config: RunConfig, *, log: VoteLog) -> None:
        self._task = task
        self._most = config.votes
        self._stop = config.votes_stop
        self._rng = random.Random(config.seed + 3)
        self._log = log
        self._waiting = _Waiting()
        self._released = 0  # of those that wait, how many may go though they are few
        log.watch(config.votes)

    def __repr__(self) -> str:
        return f"Voting(most={self._most}, {self._waiting!r})"

    # -- what came -------------------------------------------------------------------------------------------------

    def poll(self, batch: Batch, verdict: Verdict, *, size: int, asking: Asking, sure: Mapping[int, float]) -> Polled:
        """Count the answers of a reply.

        :param batch: that was asked, its items with the number of the call.
        :param size: records that were in the request.
        :param sure: position of a record in the input -> confidence of its answer by token probabilities.
        """
        places, form = _places(batch), asking.prompt.form
        if verdict.accepted and self.is_repeat(batch, asking):  # it was asked to find out who changes others' answers
            return Polled(verdict=verdict, winners=(self.repeated(verdict.accepted[0].item),))
        winners: list[Winner] = []
        again: list[Item] = []
        ballots: list[BallotRow] = []
        for answer in verdict.accepted:
            item, position = answer.item, answer.item.record.position
            if self._most == 1 and not item.ballots:  # what most runs do, for each record
                winners.append(self._only(item, answer.output, sure.get(position)))
                continue
            ballot = Ballot(
                output=answer.output, confidence=sure.get(position), call=item.calls[-1], place=places.get(position),
                lone_form=form if size == 1 else "",
            )  # fmt: skip
            voted = msgspec.structs.replace(item, ballots=(*item.ballots, ballot))
            if suffices(voted.ballots, self._task, most=self._most, stop=self._stop):
                winners.append(self._won(voted))
            else:
                again.append(_fresh(voted))
                ballots.append(_row(voted, size=size, form=form))
        failed: list[Failure] = []
        for failure in verdict.failed:
            if failure.item.ballots:
                winners.append(self._won(failure.item, blanks=1))
            else:
                failed.append(failure)
        if len(failed) < len(verdict.failed):
            verdict = msgspec.structs.replace(verdict, failed=tuple(failed))
        return Polled(verdict=verdict, winners=tuple(winners), again=tuple(again), ballots=tuple(ballots))

    def _only(self, item: Item, output: Any, confidence: float | None) -> Winner:
        self._log.add_settled(votes=1, confidence=confidence, tied=False, kept=False)
        return Winner(item=item, elected=Elected(output=output, confidence=confidence, votes=1))

    def _won(self, item: Item, *, blanks: int = 0) -> Winner:
        elected = elect(item.ballots, self._task, blanks=blanks)
        self._log.add_settled(votes=elected.votes, confidence=elected.confidence, tied=elected.tied, kept=bool(blanks))
        return Winner(item=item, elected=elected)

    def known(self, item: Item) -> Winner | None:
        """The end of a record whose votes of an earlier run suffice; None where it is to be asked."""
        if item.ballots and suffices(item.ballots, self._task, most=self._most, stop=self._stop):
            return self._won(item)
        return None

    def wants_company(self, asking: Asking) -> bool:
        """Whether a record that is asked alone has no vote more to hope for but among others."""
        return self._most > 1 and asking.temperature() == 0

    def is_repeat(self, batch: Batch, asking: Asking) -> bool:
        """Whether this is a record alone that has been asked the very same before, so that its answer would be too."""
        if len(batch.items) > 1 or not batch.items[0].ballots:
            return False
        return is_repeat(batch.items[0].ballots, form=asking.prompt.form, temperature=asking.temperature())

    def repeated(self, item: Item) -> Winner:
        """The end of a record by the votes that it has, since a further one would be the same question again.

        Where it was asked in this round, beside others, and not answered, that is a vote for nobody.
        """
        self._log.repeats += 1
        return self._won(item, blanks=int(bool(item.last_defect or item.lone_attempts)))

    def concluded(self, item: Item) -> Winner | None:
        """The end of a record that cannot be asked any more, by the votes that it has."""
        return self._won(item, blanks=1) if item.ballots else None

    # -- what goes -------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether no record waits for a further round."""
        return self._waiting.is_empty

    def add(self, items: Sequence[Item]) -> None:
        """Records to be asked in a further round."""
        for item in items:
            self._waiting.add_record(item)

    def is_due(self, size: int, *, fresh: int, calls: int, is_full: bool, asking: Asking) -> bool:
        """Whether a batch of a further round should go now.

        As soon as enough wait that nobody need sit beside the same records again; with fewer only when there is nothing
        else to send, and nothing under way that may bring more, or no room for it. While each record is asked alone, at
        temperature 0, many wait: batches may grow again, and alone they would hear the same question.
        """
        waiting = self._waiting.fresh
        if waiting and not (fresh or calls):
            self._released = waiting  # all of them, or they would go one batch after the other
        enough = _MANY if size == 1 and asking.temperature() == 0 else min(size * size, _MANY)
        if self._released or waiting >= enough:
            return bool(waiting)
        return is_full and not fresh and waiting >= size

    def waits_for_company_until_s(self, asking: Asking) -> float:
        """Until when a record that waits by itself waits for others to be read, where alone it would end by it."""
        oldest = self._waiting.first
        if oldest is None or self._waiting.fresh > 1 or not self.wants_company(asking):
            return -math.inf
        return oldest.accepted_at_s + _COMPANY_S

    def take(
        self, now: float, *, choose: Choose, size: int, lone: bool, distinct: Callable[[Item], str] | None,
        apart: Callable[[Item], bool] | None, apart_alone: bool, asking: Asking,
    ) -> Batch | None:  # fmt: skip
        """A batch of a further round; see `WorkQueue.take`."""
        if (lone or size == 1) and asking.temperature() == 0:
            # Of those that wait, one that has not been asked alone: another would end by it, and may yet have company.
            lone = self._waiting.puts_first(lambda item: not any(one.lone_form for one in item.ballots)) and lone
        step = self._waiting.take(
            now, choose=choose, size=1, lone=lone, hurry=True, distinct=distinct, apart=apart, apart_alone=apart_alone
        )
        if not isinstance(step, Batch):
            return None
        self._released = max(0, self._released - len(step.items))
        places = [[one.place for one in item.ballots if one.place is not None] for item in step.items]
        order = reseated(places, self._rng)
        return msgspec.structs.replace(step, items=tuple(step.items[index] for index in order))


class _Waiting(WorkQueue):
    """Records that wait for a further round. Who goes together was not in one request the last time, if possible."""

    def __init__(self) -> None:
        super().__init__(max_wait_s=0.0)

    @property
    def first(self) -> Item | None:
        """The record that has waited longest."""
        return self._fresh[0] if self._fresh else None

    def puts_first(self, wanted: Callable[[Item], bool]) -> bool:
        """Whether there is such a record; the oldest of them is then the first."""
        index = next((index for index, item in enumerate(self._fresh) if wanted(item)), None)
        if index is not None:
            self._fresh.insert(0, self._fresh.pop(index))
        return index is not None

    def _chosen(
        self, choose: Choose, apart: Callable[[Item], bool] | None, *, is_apart: bool, apart_alone: bool
    ) -> list[int]:
        alike = [index for index, item in enumerate(self._fresh) if apart is None or apart(item) == is_apart]
        tokens = [self._fresh[index].record.input_tokens for index in alike]
        calls = [self._fresh[index].ballots[-1].call for index in alike]
        return [alike[index] for index in separated(choose(tokens), calls, tokens)]


def is_later_round(batch: Batch) -> bool:
    """Whether a batch asks for further votes: all of its records have some."""
    return bool(batch.items[0].ballots)


def _places(batch: Batch) -> dict[int, float]:
    last = len(batch.items) - 1
    return {item.record.position: place / last for place, item in enumerate(batch.items)} if last else {}


def _fresh(item: Item) -> Item:
    """A record at the start of its next round: what went wrong in the last one is forgotten."""
    return msgspec.structs.replace(item, lone_attempts=0, last_defect="", kept={})


def _row(item: Item, *, size: int, form: str) -> BallotRow:
    ballot = item.ballots[-1]
    return BallotRow(
        key=item.record.key,
        digest=item.record.digest,
        round=len(item.ballots),
        output=msgspec.json.encode(ballot.output).decode(),
        calls=item.calls,
        batch_size=size,
        form=form,
        confidence=ballot.confidence,
    )


def with_ballots(item: Item, rows: Sequence[BallotRow]) -> Item:
    """A record with its votes of an earlier run, and with what is valid of the next one."""
    if not rows:
        return item
    whole = [row for row in rows if row.round > 0]
    ballots = tuple(
        Ballot(
            output=msgspec.json.decode(row.output),
            confidence=row.confidence,
            call=row.calls[-1] if row.calls else 0,
            lone_form=row.form if row.batch_size == 1 else "",
        )
        for row in whole
    )
    voted = msgspec.structs.replace(item, ballots=ballots, calls=whole[-1].calls if whole else ())
    return with_partial(voted, rows)
