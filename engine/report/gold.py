"""What records with known answers showed of a run. See docs/design/gold.md."""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.decide.gold_values import GoldLoss, GoldRow
from engine.report import words


class GoldMove(msgspec.Struct, frozen=True, kw_only=True):
    """A loss that was shown while the run went on.

    :ivar at_s: after the first send.
    :ivar size: batches of more than half as many records lose, as far as can be told; `kept` is what is left.
    :ivar pairs: records asked alone and in such batches. :ivar loss: of accuracy, by estimate.
    :ivar late: it began while the run went on: the corpus or the model changed.
    :ivar labelled: records of the input that had been labelled in such batches; 0 where nobody counted (no guard).
    :ivar capped: batches were held to `kept`; else the user had fixed their size.
    """

    at_s: float
    size: int
    kept: int
    pairs: int
    loss: float
    late: bool
    capped: bool
    labelled: int
    sentence: str


class GoldUse(msgspec.Struct, frozen=True, kw_only=True):
    """Records with known answers that rode in the run's batches. None of them is in any other count of records.

    :ivar given: records in the file that could be used; `unusable` are the others.
    :ivar asked: of `given`, those that rode at least once.
    :ivar rides: asks in batches, answered or not; `unanswered` of them.
    :ivar alone: asks of a record by itself, to compare with.
    :ivar passes: through the file, the one that went on at the end included.
    :ivar requests: that only asked gold. :ivar tokens: input and output of all asks for gold, by their share of it.
    :ivar usd: what that cost; None without prices.
    :ivar by_size: accuracy and macro-F1 by batch size, by variable; `by_position`: by place in the batch.
    :ivar losses: against lone asks of the same records, by batch size.
    :ivar moves: losses that were shown, oldest first.
    """

    given: int
    unusable: int
    asked: int
    rides: int
    unanswered: int
    alone: int
    passes: int
    requests: int
    tokens: int
    usd: float | None
    by_size: list[GoldRow]
    by_position: list[GoldRow]
    losses: list[GoldLoss]
    moves: list[GoldMove]
    sentence: str


class Gilded(Protocol):
    """Gold in a run, as far as a report looks at it."""

    def use(self, *, began_s: float) -> GoldUse:
        """What it showed. :param began_s: of the first send, loop time."""
        ...


def gold_values(gold: GoldUse) -> list[str]:
    """The end of a run in a few words: what gold showed, and its price."""
    said = gold.sentence.removeprefix("gold: ")
    asked = f"{words.number(gold.rides)} asked in batches, {words.number(gold.alone)} alone"
    price = f"{words.number(gold.tokens)} tokens" + ("" if gold.usd is None else f", {words.usd(gold.usd)}")
    return [words.visible(said), asked, price]
