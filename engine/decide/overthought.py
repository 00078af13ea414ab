"""A reply that was cut before it had answered anything, all of it thought: it lacked room, and not a smaller batch.

To halve such a batch would ask the same thoughts again for each half, down to lone records. So it is sent again as it
is, with twice the room, while there is more to be had; where there is not, `recovery` judges it like any other cut
reply. See docs/design/reasoning.md.
"""

from __future__ import annotations

import msgspec

from engine.decide.answers import Reading
from engine.decide.recovery import Verdict
from engine.vocabulary.values import Batch, Completion

OVERTHOUGHT = "overthought"
"""Why nothing was accepted: the output limit was used up by reasoning."""

_SHARE = 0.8  # of the output, from which on it was the reasoning that was cut
_GROWS = 2.0


def is_overthought(reading: Reading, completion: Completion) -> bool:
    """Whether a reply is nothing but a thought that was cut off."""
    if completion.finish_reason != "length" or completion.refusal is not None or reading.found:
        return False
    usage = completion.usage
    return not completion.text.strip() or (
        usage is not None and usage.reasoning_tokens >= _SHARE * max(1, usage.output_tokens)
    )


def judge_overthought(batch: Batch, reading: Reading, completion: Completion, *, has_room: bool) -> Verdict | None:
    """The verdict on such a reply; None where it is to be judged like any other.

    :param has_room: the request was allowed less than a request may be.
    """
    if not (has_room and is_overthought(reading, completion)):
        return None
    again = msgspec.structs.replace(batch, output_scale=_GROWS * batch.output_scale)
    return Verdict(children=(again,), cause=OVERTHOUGHT, retry=True)
