"""Whether one record of a batch changed the answers to the others, and what follows. See docs/design/neighbours.md.

A reply is judged before any of its answers is accepted. One that was disturbed gives nothing: its batch is halved, each
half is judged again, and a record alone has nobody to disturb. The batches that come of one batch are a *family*; when
all of its records have ended, it is known whether the alarm was right, and the guard learns from that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from engine.decide.neighbours_alike import AlikeBatches
from engine.decide.neighbours_canaries import Canary, CanaryPool, canaries_for, slack
from engine.decide.neighbours_evidence import LabelShares, Signs
from engine.decide.neighbours_family import Answers, Asked, Family
from engine.vocabulary.config import NeighbourGuardMode
from engine.vocabulary.values import RecordId

PRICE = 0.01
"""Requests that false alarms of the watch may add, as a share."""

_GRACE = 48  # requests, before the share is held to
_FOR_RIGHT = 20  # requests more for false alarms, for each alarm that was right
_TRUSTED = 2  # right alarms, from which on their share among batches is believed
_BY_HALVES = 0.5  # weight of full obedience among the orders found, below which more canaries are sent
_ORDERS, _ORDERS_OF = 1.0, 500.0  # records that disturb others, where canaries are wanted: one in 500 until it is known
_LOG_ALARM = math.log(0.3)  # odds on an order, from which on a batch is not accepted where a canary changed
_LOG_BELIEVED = math.log(0.2)  # the same for part of a disturbed batch
_TOO_MANY = 0.3  # of the batches alarm for nothing: the canaries say nothing of this model
_TOO_MANY_AFTER = 20
SCREEN_SHARE = 0.02
_SCREEN_AFTER = 400
_MOST_SUSPECTS = 1_000  # that are remembered by name


class NeighbourGuard:
    """Judges replies. Pure: what it says depends on what it was told.

    :ivar alarms: batches that were not accepted, halves of such ones included; `right` and `wrong`: families by end.
    :ivar unexamined: batches that looked disturbed and were accepted, as the price of looking was used up.
    :ivar screened: records that were asked apart because of what their text says.
    :ivar suspects: ids of records that seem to have disturbed others.
    """

    def __init__(self, mode: NeighbourGuardMode, *, can_compare: bool) -> None:
        """:param can_compare: whether answers to the task can be compared: it has more than free text and numbers."""
        self._mode = mode
        self._compares = can_compare and mode != "off"
        self.shares = LabelShares()
        self.canaries = CanaryPool()
        self.alike = AlikeBatches()
        self.alarms = self.right = self.wrong = self.unexamined = 0
        self.screened = self._seen = 0
        self.suspects: list[RecordId] = []
        self._requests = self._batches = self._records = self._guarded = self._wrong_canary = 0
        self._wrong_asks = 0
        self._families: dict[int, Family] = {}
        self._number = 0

    def __repr__(self) -> str:
        return f"NeighbourGuard({self._mode}, right={self.right}, wrong={self.wrong}, {self.shares!r})"

    # -- before a request ------------------------------------------------------------------------------------------

    @property
    def screens(self) -> bool:
        """Whether texts are looked at."""
        return self._mode != "off"

    @property
    def screens_alone(self) -> bool:
        """Whether records that the screen finds are asked alone; a corpus that is full of them asks them together."""
        return self._seen < _SCREEN_AFTER or self.screened <= SCREEN_SHARE * self._seen

    def note_screened(self, records: int, *, found: bool) -> None:
        """So many records go on their way, which the screen did or did not find."""
        self._seen += records
        self.screened += records if found else 0

    @property
    def uses_canaries(self) -> bool:
        """Whether batches carry canaries."""
        return self._mode == "canaries"

    @property
    def wants_alone(self) -> bool:
        """Whether the next record has to be asked alone: as long as there are no canaries, and for good where they say
        nothing; now and then where all have the same answer."""
        return self.uses_canaries and (self.is_powerless or not self.canaries.is_ready or self.canaries.is_due)

    @property
    def is_powerless(self) -> bool:
        """Whether canaries say nothing about this task on this model."""
        if not self._compares or self.canaries.is_hopeless:
            return True
        return self._guarded >= _TOO_MANY_AFTER and self._wrong_canary > _TOO_MANY * self._guarded

    def canaries_for(self, records: int) -> int:
        """How many canaries go with a batch of so many records."""
        more = self.right >= _TRUSTED and self.shares.obeyed_by_all < _BY_HALVES
        return canaries_for(records, more=more) if self.uses_canaries else 0

    # -- a reply ---------------------------------------------------------------------------------------------------

    def judge(self, asked: Asked, answers: Answers, said: Sequence[Hashable | None]) -> int:
        """The family of a batch that was disturbed, so that nothing of it is accepted; 0 to accept it.

        :param said: the answers of its canaries; None where there is none.
        """
        self._requests += 1
        family = self._families.get(asked.family)
        if family is not None:
            family.asks += 1
        answered = bool(answers) or any(label is not None for label in said)
        if not self._compares or len(asked.digests) < 2 or not answered:
            return 0
        if family is None:
            return self._judge_whole(asked, answers, said)
        if not self._is_disturbed_part(family, asked, answers, said):
            return 0
        family.note_disturbed(asked.digests)
        self.alarms += 1
        return asked.family

    def _is_disturbed_part(
        self, family: Family, asked: Asked, answers: Answers, said: Sequence[Hashable | None]
    ) -> bool:
        # Another record of the batch may have ordered another label than the one that was found.
        signs = self._signs(asked, answers, said, self._target(asked, answers, said))
        if _nobody_vouches(asked, said, signs) or _a_canary_may_have_ordered(asked, answers, said):
            return True
        if family.target is None or len(answers) < 2:
            return False
        signs = self._signs(asked, answers, said, family.target)
        return family.log_odds + self.shares.log_factor(signs, family.strengths) > _LOG_BELIEVED

    def _judge_whole(self, asked: Asked, answers: Answers, said: Sequence[Hashable | None]) -> int:
        self._batches += 1
        self._records += len(asked.digests)
        self._guarded += bool(asked.canaries)
        target = self._target(asked, answers, said)
        signs = self._signs(asked, answers, said, target)
        unvouched = _nobody_vouches(asked, said, signs) or _a_canary_may_have_ordered(asked, answers, said)
        log_odds = self._log_odds(asked, signs)
        looks_ordered = log_odds > (_LOG_ALARM if signs.turned else 0.0)
        if looks_ordered and not asked.canaries and not self._can_afford:
            self.unexamined += 1
            looks_ordered = False
        changed = [one for one, label in zip(asked.canaries, said, strict=True) if label != one.label]
        if not unvouched and not looks_ordered:
            if self._mode == "watch":
                self.alike.note(list(answers.values()))
            if asked.canaries:
                self.canaries.note(asked.canaries, changed, alarmed=False, disturbed=False)
            for index, canary in enumerate(asked.canaries):
                if canary not in changed:
                    canary.note_accepted(_others(answers, said, index))
            return 0
        self._number += 1
        self._families[self._number] = Family(
            asked,
            answers,
            target=target if looks_ordered or signs.turned else None,
            strengths=self.shares.strengths(signs),
            log_odds=log_odds,
            changed=changed,
            kept=[one for one in asked.canaries if one not in changed and one.label != target],
        )
        self.alarms += 1
        return self._number

    def _target(self, asked: Asked, answers: Answers, said: Sequence[Hashable | None]) -> Hashable:
        """What was ordered, if anything was: what the canaries turned to, else the commonest answer."""
        turned = [label for one, label in zip(asked.canaries, said, strict=True) if label not in (None, one.label)]
        spoken = turned or list(answers.values()) or [label for label in said if label is not None]
        return self.shares.commonest(spoken)

    def _signs(self, asked: Asked, answers: Answers, said: Sequence[Hashable | None], target: Hashable) -> Signs:
        pairs = list(zip(asked.canaries, said, strict=True))
        turned = sum(label == target != one.label for one, label in pairs)
        return Signs(
            labels=list(answers.values()),
            target=target,
            kinds=1 if turned else self.shares.kinds,
            turned=turned,
            kept=sum(
                label == one.label != target and not one.may_order(target, _others(answers, said, index))
                for index, (one, label) in enumerate(pairs)
            ),
            noise=self.canaries.noise,
        )

    def _log_odds(self, asked: Asked, signs: Signs) -> float:
        """Of an order in a batch.

        With canaries: from the share of records that disturbed others so far. Without: such that a false alarm, which
        takes 2 B - 1 requests at the most, adds no more than its price; where alarms were right before, their share.
        """
        if len(signs.labels) + signs.turned < 2:
            return -math.inf
        factor, size = self.shares.log_factor(signs), len(asked.digests)
        if asked.canaries:
            share = min(0.5, size * (self.right + _ORDERS) / (self._records + _ORDERS_OF))
            return factor + math.log(share / (1.0 - share))
        least = math.log((2 * size - 1) / PRICE)
        if self.right >= _TRUSTED:
            share = min(0.5, self.right / max(1, self._batches))
            least = min(least, math.log((1.0 - share) / share))
        return factor - least

    @property
    def _can_afford(self) -> bool:
        spent = self._wrong_asks + sum(family.price for family in self._families.values())
        return spent <= _GRACE + PRICE * self._requests + _FOR_RIGHT * self.right

    # -- what became of it -----------------------------------------------------------------------------------------

    def accepted(self, asked: Asked, answers: Answers) -> None:
        """A reply was accepted: what it answered is believed. In a family that is judged at its end."""
        if asked.family not in self._families and answers:
            self.shares.learn(answers.values())

    def ended(self, family_number: int, digest: bytes, label: Hashable | None, *, id_: RecordId, alone: bool) -> None:
        """A record of a disturbed batch has ended, alone or in a part of it; with no label if it failed."""
        family = self._families.get(family_number)
        if family is None:
            return
        family.note_ended(digest, label, id_=id_, alone=alone)
        if family.has_ended:
            del self._families[family_number]
            self._learn(family)

    def _learn(self, family: Family) -> None:
        right = family.was_right(self.canaries.noise)
        self.right += right
        self.wrong += not right
        if right:
            self.suspects += family.suspects()[: _MOST_SUSPECTS - len(self.suspects)]
            self.shares.learn_strength(family.strengths)
            self.shares.learn(family.last.values())
        else:
            self._wrong_asks += family.asks
            self._wrong_canary += bool(family.changed)
            # Alike by nature: that is what such batches look like with this model and corpus.
            self.shares.learn(family.first.values() if family.target is not None else family.last.values())
        if family.canaries:
            disturbed = family.has_changed(self.canaries.noise)
            if disturbed and family.changed:
                self.canaries.drop_unproven(family.kept)
            self.canaries.note(family.canaries, family.changed, alarmed=True, disturbed=disturbed)

    @property
    def is_quiet(self) -> bool:
        """Whether the records of every disturbed batch have ended."""
        return not self._families

    # -- what to say -----------------------------------------------------------------------------------------------

    def notices(self) -> list[str]:
        """What the user should know at the end of a run."""
        return [said for said in (self._found(), self._spared(), self._not_guarded(), self.alike.sentence) if said]

    def _found(self) -> str:
        found = len(self.suspects)
        if not found:
            return ""
        shown = ", ".join(str(id_)[:60] for id_ in self.suspects[:10])
        more = f" and {found - 10} more" if found > 10 else ""
        if found == 1:
            return f"1 record seems to have disturbed its batch and was labelled alone: {shown}"
        return f"{found} records seem to have disturbed their batches and were labelled alone: {shown}{more}"

    def _spared(self) -> str:
        if not self.screened:
            return ""
        one = self.screened == 1
        how = "alone" if self.screens_alone else "apart from the others"
        return (
            f"{self.screened} record{' speaks' if one else 's speak'} to the model about other items or its "
            f"instructions, and {'was' if one else 'were'} labelled {how}"
        )

    def _not_guarded(self) -> str:
        if self.uses_canaries and self.is_powerless and (self._batches or not self._compares):
            why = "change their answers by themselves" if self._compares else "cannot be compared in this task"
            return (
                f"canaries {why}, so no batch can be guarded and records were asked alone; "
                "--neighbour-guard watch goes back to batches, with less protection"
            )
        if self.uses_canaries and self.canaries.is_ready and self.canaries.is_alike:
            return "all canaries have the same answer: an order for just this answer goes unseen"
        if self.unexamined:
            return (
                f"{self.unexamined} batches came out improbably alike and were accepted, as looking into more of them "
                "would have cost too much; --neighbour-guard canaries looks into all"
            )
        return ""


def _others(answers: Answers, said: Sequence[Hashable | None], index: int) -> list[Hashable]:
    """What all but one canary of a batch said."""
    beside = (label for place, label in enumerate(said) if place != index)
    return [*answers.values(), *(label for label in beside if label is not None)]


def _nobody_vouches(asked: Asked, said: Sequence[Hashable | None], signs: Signs) -> bool:
    """Whether a model that obeys every order may have obeyed one: no canary kept an answer that is not the ordered one,
    or only such canaries as may have given the order.

    That holds however noisy canaries are, so such a model changes nobody. One that is missing vouches for nothing.
    """
    if not asked.canaries or signs.kept:
        return False
    return signs.turned > 0 or any(label is None for label in said) or _might_show(asked.canaries, signs)


def _a_canary_may_have_ordered(asked: Asked, answers: Answers, said: Sequence[Hashable | None]) -> bool:
    """Whether nearly all said one label, not every canary's own, and every canary that said another is unproven.

    Such a one may itself have ordered it. With two orders in a batch the label that a canary turned to need not be the
    one that won.
    """
    spoken = Counter([*answers.values(), *(label for label in said if label is not None)])
    pairs = list(zip(asked.canaries, said, strict=True))
    return any(
        spoken.total() - count <= slack(spoken.total())
        and any(one.label != label for one, _ in pairs)
        and all(one.may_order(label, ()) for one, told in pairs if told not in (None, label))
        for label, count in spoken.items()
    )


def _might_show(canaries: Sequence[Canary], signs: Signs) -> bool:
    """Whether a canary should have shown an order for the target, and said something else."""
    return any(one.label != signs.target for one in canaries)
