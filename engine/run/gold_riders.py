"""Records with known answers in a request: who they are and which places they take. See docs/design/gold.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.decide.gold_pool import GoldEntry
from engine.decide.packing import Room
from engine.vocabulary.values import Record


class Rider(msgspec.Struct, frozen=True, kw_only=True):
    """A record with gold in a request.

    :ivar position: among all that the request asks, from 1.
    :ivar sweep: the pass through the gold in which it rode. :ivar rung: of the size that its batch was to have.
    """

    entry: GoldEntry
    position: int
    sweep: int
    rung: int

    @property
    def record(self) -> Record:
        """What is sent."""
        return self.entry.record


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
