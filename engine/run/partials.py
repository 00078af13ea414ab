"""What is valid of records that are asked again for the rest: it is kept over the end of a run. See stacking.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.adapters.store import BallotRow
from engine.decide.recovery import Verdict
from engine.vocabulary.values import Batch, Item


def partial_rows(batch: Batch, verdict: Verdict, *, size: int, form: str) -> list[BallotRow]:
    """Rows for the store, of the records that a reply answered in part, and more of them than was known.

    :param batch: that was asked; `size` records were in the request, and `form` is that of its answers.
    """
    before = {item.record.position: item.kept for item in batch.items}
    items = (item for child in verdict.children for item in child.items)
    return [
        BallotRow(
            key=item.record.key,
            digest=item.record.digest,
            round=_round(item),
            output=msgspec.json.encode(item.kept).decode(),
            calls=item.calls,
            batch_size=size,
            form=form,
        )
        for item in items
        if item.kept != before.get(item.record.position, {})
    ]


def with_partial(item: Item, rows: Sequence[BallotRow]) -> Item:
    """A record with what an earlier run kept of the round that is under way.

    :param item: with its whole answers of earlier rounds; of a round that has ended nothing is kept.
    """
    row = next((row for row in rows if row.round == _round(item)), None)
    if row is None:
        return item
    kept = msgspec.json.decode(row.output, type=dict[str, Any])
    return msgspec.structs.replace(item, kept=kept, calls=row.calls)


def _round(item: Item) -> int:
    return -1 - len(item.ballots)
