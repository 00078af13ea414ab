"""Which records go into the next request. See docs/design/packing.md."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may hold besides its static part.

    :ivar items: records.
    :ivar input_tokens: of all entries together.
    :ivar output_tokens: expected, of all records together.
    """

    items: int
    input_tokens: int
    output_tokens: float


def pack(entry_tokens: Sequence[int], *, room: Room, output_per_record: float, rng: random.Random) -> list[int]:
    """Indices of the waiting records that make up the next request, in the order in which they are sent.

    The oldest record always goes, alone if need be, so none waits for ever. The others are drawn at random from the
    look-ahead: a sorted corpus must not make runs of one label. What does not fit is left for a later request.

    :param entry_tokens: of the waiting records, the oldest first.
    """
    if not entry_tokens:
        return []
    most = max(1, min(room.items, int(room.output_tokens // max(output_per_record, 1e-9))))
    chosen = [0]
    left = room.input_tokens - entry_tokens[0]
    others = len(entry_tokens) - 1
    # A full look at a long look-ahead would cost more than the last gap is worth.
    for index in rng.sample(range(1, others + 1), min(others, 4 * most)):
        if len(chosen) >= most:
            break
        if entry_tokens[index] <= left:
            chosen.append(index)
            left -= entry_tokens[index]
    rng.shuffle(chosen)
    return chosen
