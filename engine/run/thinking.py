"""What a pipeline does about replies that were cut while the model was still thinking."""

from __future__ import annotations

from engine.decide.answers import Reading
from engine.decide.efforts import against_long_thoughts
from engine.decide.overthought import OVERTHOUGHT, is_overthought, judge_overthought
from engine.decide.recovery import Verdict
from engine.run.dispatch import Sent
from engine.run.state import RunState
from engine.vocabulary.values import Batch, Completion


class Thinking:
    """Gives such a request more room, while there is more to be had, and says so where there is not."""

    def __init__(self, state: RunState) -> None:
        self._state = state

    def judged(self, sent: Sent, batch: Batch, reading: Reading, completion: Completion) -> Verdict | None:
        """The verdict on such a reply; None for any other."""
        return judge_overthought(batch, reading, completion, has_room=self._has_room(sent))

    def cause(self, sent: Sent, reading: Reading, completion: Completion) -> str:
        """Why a reply that is only compared brought nothing; "" where it was not that."""
        return OVERTHOUGHT if is_overthought(reading, completion) and self._has_room(sent) else ""

    def note(self, sent: Sent, reading: Reading, completion: Completion) -> None:
        """Learn from a reply that says nothing of what it took, and tell the user what would help."""
        if not is_overthought(reading, completion):
            return
        state = self._state
        if completion.usage is None:
            state.estimates_of(sent.asking).observe_unsaid(sent.asked, sent.max_output_tokens)
        if not self._has_room(sent):
            state.counters.notice(
                f"the model was still reasoning when its output was cut at {sent.max_output_tokens:,} tokens; "
                f"{against_long_thoughts(sent.asking.reasoning_effort)}"
            )

    def _has_room(self, sent: Sent) -> bool:
        return sent.max_output_tokens < self._state.config.packing.max_output_tokens
