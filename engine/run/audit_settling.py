"""What the auditor and the gold are told of a call: of one that is only compared, and of every other one."""

from __future__ import annotations

import msgspec

from engine.decide.answers import Reading
from engine.decide.batch_size import Work
from engine.decide.overthought import OVERTHOUGHT
from engine.run.audit import MISSING
from engine.run.dispatch import Sent
from engine.run.state import RunState
from engine.run.votes import is_later_round
from engine.vocabulary.values import Usage


class AuditSettling:
    """Tells them. Nothing of a call that is only compared is an answer; one that is lost is not asked again here."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    # -- calls that are only compared ------------------------------------------------------------------------------

    def lost(self, sent: Sent, usage: Usage, *, about_content: bool) -> None:
        """It brought nothing.

        :param about_content: because of what it asked.
        """
        gold, auditor = self._state.gold, self._state.auditor
        if gold is not None and sent.batch.purpose == "gold":
            gold.lone_lost(sent.batch, about_content=about_content)
            gold.count(usage, alone=True)
        elif auditor is not None:
            auditor.give_up(sent.batch, usage, about_content=about_content)

    def answered(self, sent: Sent, reading: Reading, usage: Usage, *, cause: str, work: Work, now: float) -> None:
        """Its reply came.

        :param cause: why not all of it was answered, or "".
        :param work: what it took and gave.
        """
        gold, auditor = self._state.gold, self._state.auditor
        if cause == OVERTHOUGHT:
            self.lost(sent, usage, about_content=False)
        elif gold is not None and sent.batch.purpose == "gold":
            said = gold.observe_lone(sent.batch, _outputs(sent, reading), MISSING, now=now)
            self._state.counters.notices += said
            gold.count(usage, alone=True)
        elif auditor is not None:
            auditor.observe_audit(sent.batch, _outputs(sent, reading), usage, now=now, work=work)

    # -- calls for answers -----------------------------------------------------------------------------------------

    def unread(self, sent: Sent) -> None:
        """A request for answers ended without a reply."""
        gold, auditor = self._state.gold, self._state.auditor
        if gold is not None:
            gold.give_back(sent.gold)
        if sent.batch.purpose == "anchor" and auditor is not None:
            auditor.anchor_ended()

    def weigh_gold(self, sent: Sent, reading: Reading | None, usage: Usage, *, now: float) -> None:
        """A reply with records with gold among the others.

        :param reading: None where it is not believed.
        """
        if self._state.gold is not None and sent.gold:
            self._state.counters.notices += self._state.gold.weigh(sent, reading, usage, now=now)

    def observe_reply(self, sent: Sent, own: Reading | None, usage: Usage, *, now: float) -> None:
        """A reply with answers.

        :param own: what it says of its own records; None where its canaries say that it is not to be believed.
        """
        if self._state.auditor is None:
            return
        outputs: list[object] = [MISSING] * len(sent.ids)
        if own is not None and not self._state.neighbours.speaks(sent.batch.items[0]):
            outputs = _produced(sent, own)
        self._state.auditor.observe_reply(
            msgspec.structs.replace(sent.batch, first=sent.batch.first and not is_later_round(sent.batch)),
            outputs,
            usage,
            static_tokens=sent.static_tokens,
            now=now,
            form=sent.asking.prompt.form,
            members=sent.members,
        )


def _produced(sent: Sent, own: Reading) -> list[object]:
    """Answers of this very request: not such as an earlier run, in other company, had answered in part."""
    whole = _outputs(sent, own)
    if not sent.batch.first:
        return whole
    return [MISSING if item.kept else output for item, output in zip(sent.ids.values(), whole, strict=True)]


def _outputs(sent: Sent, reading: Reading) -> list[object]:
    """The accepted answers in the order in which the records were sent."""
    return [reading.answers.get(id_, MISSING) for id_ in sent.ids]
