"""The guard of neighbours at work: texts screened, canaries sent along, replies judged before they are accepted."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.decide.answers import Reading
from engine.decide.neighbours import NeighbourGuard
from engine.decide.neighbours_canaries import Canary
from engine.decide.neighbours_family import UNSAID, Asked
from engine.decide.neighbours_screen import speaks_of_others
from engine.decide.prompts import first_words
from engine.decide.quality_evidence import can_be_judged, label_signature
from engine.decide.recovery import Verdict, judge_disturbed
from engine.vocabulary.config import NeighbourGuardMode
from engine.vocabulary.task import Task
from engine.vocabulary.values import ASKS, Batch, Item

_REMEMBERED = 4_096  # texts that were screened: of a look-ahead, and some

Company = Sequence[Canary]


class Neighbours:
    """Between dispatch, which asks it who goes with whom, and calls, which ask it what a reply is worth."""

    def __init__(self, mode: NeighbourGuardMode, *, task: Task, rng: random.Random) -> None:
        self.guard = NeighbourGuard(mode, can_compare=can_be_judged(task))
        self._task = task
        self._rng = rng
        self._screened: dict[bytes, bool] = {}

    def __repr__(self) -> str:
        return f"Neighbours({self.guard!r}, {self.guard.canaries!r})"

    # -- before a request ----------------------------------------------------------------------------------------

    @property
    def apart(self) -> Callable[[Item], bool] | None:
        """Tells records that are kept apart from the others; None where none are."""
        return self.speaks if self.guard.screens else None

    def speaks(self, item: Item) -> bool:
        """Whether a record's text speaks to the model about others."""
        record = item.record
        known = self._screened.get(record.digest)
        if known is None:
            if len(self._screened) >= _REMEMBERED:
                del self._screened[next(iter(self._screened))]  # the oldest
            known = self._screened[record.digest] = speaks_of_others(record.input)
        return known

    def note_taken(self, batch: Batch) -> None:
        """New records go on their way. A batch holds such as speak, or such as do not."""
        if self.guard.screens:
            new = sum(not item.ballots for item in batch.items)  # of a further round of votes they are known
            self.guard.note_screened(new, found=self.speaks(batch.items[0]))
        if len(batch.items) == 1:
            self.guard.canaries.note_asked()

    def company(self, batch: Batch, *, keyed: bool) -> Company | None:
        """The canaries that go with a batch; none with a record alone; None where the batch must not go as it is.

        :param keyed: canaries must then differ from the records in their first words.
        """
        count = self.guard.canaries_for(len(batch.items))
        if not count or batch.purpose not in ASKS:
            return ()
        if self.guard.is_powerless:
            return None
        key = (lambda record: first_words(record.input)) if keyed else (lambda record: record.digest)
        taken = {key(item.record) for item in batch.items}
        return self.guard.canaries.draw(count, taken=taken, key=key, rng=self._rng) or None

    def mixed(self, items: Sequence[Item], company: Company) -> list[Item | Canary]:
        """Records and canaries in the order in which they are sent: the canaries at random places."""
        mixed: list[Item | Canary] = list(items)
        for canary in company:
            mixed.insert(self._rng.randint(0, len(mixed)), canary)
        return mixed

    # -- a reply -------------------------------------------------------------------------------------------------

    def judged(
        self, batch: Batch, ids: Mapping[str, Item], company: Mapping[str, Canary], reading: Reading
    ) -> Verdict | None:
        """The verdict on a reply that was disturbed; None for one that may be accepted.

        :param ids: request id -> item; `company`: request id -> canary.
        """
        said = [self._label(reading, id_) for id_ in company]
        family = self.guard.judge(_asked(batch, tuple(company.values())), self._answers(ids, reading), said)
        return judge_disturbed(batch, family) if family else None

    def settled(self, batch: Batch, ids: Mapping[str, Item], reading: Reading, verdict: Verdict) -> None:
        """A reply was accepted, as the verdict says; or a call failed, and took records with it."""
        answers, alone = self._answers(ids, reading), len(batch.items) == 1
        self.guard.accepted(_asked(batch), answers)
        for item in (*(one.item for one in verdict.accepted), *(one.item for one in verdict.failed)):
            record = item.record
            label = answers.get(record.digest)
            if batch.family:
                self.guard.ended(batch.family, record.digest, label, id_=record.id, alone=alone)
            elif alone and label is not None and self.guard.uses_canaries and not (self.speaks(item) or item.kept):
                self.guard.canaries.offer(record, label)

    def _answers(self, ids: Mapping[str, Item], reading: Reading) -> dict[bytes, Any]:
        labels = ((item.record.digest, self._said(reading, id_)) for id_, item in ids.items())
        return {digest: label for digest, label in labels if label is not None}

    def _said(self, reading: Reading, id_: str) -> Any:
        """Of a record, what is valid of an answer to some of its variables as well: it is kept, so it is judged."""
        if id_ not in reading.partial:
            return self._label(reading, id_)
        valid = reading.partial[id_].valid
        label: Any = label_signature({name: valid.get(name) for name in self._task.variables}, self._task)
        return None if label is None or all(part == UNSAID for part in label) else label

    def _label(self, reading: Reading, id_: str) -> Any:
        return label_signature(reading.answers[id_], self._task) if id_ in reading.answers else None


NOTHING_READ = Reading(answers={}, defects={}, foreign=0, found=0)
"""Of a call that brought no reply."""


def without(reading: Reading, company: Mapping[str, object]) -> Reading:
    """What a reply says of the records that are to be answered."""
    if not company:
        return reading
    return msgspec.structs.replace(
        reading,
        answers={id_: output for id_, output in reading.answers.items() if id_ not in company},
        defects={id_: why for id_, why in reading.defects.items() if id_ not in company},
        partial={id_: partial for id_, partial in reading.partial.items() if id_ not in company},
    )


def _asked(batch: Batch, canaries: Company = ()) -> Asked:
    return Asked(digests=[item.record.digest for item in batch.items], family=batch.family, canaries=canaries)
