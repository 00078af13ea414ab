"""What records with known answers showed of a run. See docs/design/gold.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.decide.gold_test import LEAST_LOSS, Shown
from engine.decide.gold_values import GoldLoss, GoldRow
from engine.report import words

_FEW_PAIRS = 24
"""Records asked both ways, below which an estimate of a loss is no more than a hunch."""

_TOO_FEW = 50
"""Pairs that a loss of 15 points takes in half of the runs, at the best (docs/design/gold.md)."""


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


def too_little(given: int, *, rate: float, records: int | None) -> str | None:
    """What to say, before anything is sent, of gold that is too little to show a loss; None where it is enough.

    :param given: records with known answers that can be used. :param rate: of them among the records that are sent.
    :param records: of the input; None where nobody knows.
    """
    asked = given if records is None else min(given, round(rate * records))
    if asked >= _TOO_FEW:
        return None
    why = f"the file has {given:,}" if asked == given else f"at --gold-rate {rate:g} some {asked:,} go with the input"
    return (
        f"gold: {why}, and with fewer than {_TOO_FEW} asked in batches not even a loss of 15 points is likely to be "
        "shown: the batch size is hardly guarded by it"
    )


def instead(losses: Sequence[GoldLoss], *, below: int) -> str:
    """What to use in place of batches that lose: a size is named only where it was measured.

    :param below: the rung that loses.
    """
    sound = [
        loss for loss in losses
        if _largest(loss) < below and loss.pairs >= _FEW_PAIRS and loss.loss < LEAST_LOSS
    ]  # fmt: skip
    if not sound:
        return "a smaller size (none was measured here)"
    best = max(sound, key=_largest)
    return f"--batch-size {_largest(best)} ({_bounds(best)} points lost there, {best.pairs} pairs)"


def _largest(loss: GoldLoss) -> int:
    return int(loss.where.rpartition("-")[2])


def shown_sentence(loss: GoldLoss, shown: Shown, *, instead: str | None, labelled: int) -> str:
    """What a run says when a loss is shown.

    :param loss: of the pairs that show it. The test stops when it is sure, so the estimate is rather too large: the
        interval is said with it.
    :param instead: what to use in place of it, where the user fixed the size; None: the run went on with half of it.
    :param labelled: records of the input that had been labelled in such batches.
    """
    kept = max(1, shown.size // 2)
    since = "lately, batches" if shown.late else "batches"
    said = (
        f"gold: {since} of {shown.size // 2 + 1} records or more have {100 * shown.loss:.0f} points less accuracy than "
        f"the same records asked alone ({_bounds(loss)} points, {shown.pairs} asked both ways)"
    )
    if instead is not None:
        return f"{said}; the batch size was given and is kept: {instead}, or auto, may avoid it"
    said += f"; from there on the run went on with {kept} at the most"
    if not labelled:
        return said
    again = f"annotate retry --batch-size-above {kept} asks them again"
    return f"{said} ({words.plural(labelled, 'record')} had been labelled in larger ones: {again})"


def gold_sentence(
    moves: Sequence[GoldMove], losses: Sequence[GoldLoss], *, rides: int, in_use: str, stored: int = 0
) -> str:
    """What gold showed of the sizes that were used.

    :param in_use: the sizes that the run ended at, as in `losses`.
    :param stored: records that an earlier start of the run had answered: what gold showed then is not kept.
    """
    said = _of_this_start(moves, losses, rides=rides, in_use=in_use)
    if not stored:
        return said
    return f"{said}; an earlier start had answered {words.plural(stored, 'record')}, and its gold is not counted here"


def _of_this_start(moves: Sequence[GoldMove], losses: Sequence[GoldLoss], *, rides: int, in_use: str) -> str:
    used = next((loss for loss in losses if loss.where == in_use), None)
    if moves:
        likely = used is not None and moves[-1].capped and _is_likely(used)
        return moves[-1].sentence + (f"; {_likely(used)}" if likely and used is not None else "")
    if not rides:
        return "gold: none of it was asked in a batch"
    if not losses:
        return f"gold: {rides:,} asked in batches, none of them alone as well; no loss can be told"
    most = used if used is not None else max(losses, key=lambda loss: loss.pairs)
    if _is_likely(most):
        return f"gold: {_likely(most)}"
    shown = "no loss is shown" if most.low <= 0.0 else "a loss is likely, and not shown for sure"
    if most.pairs < _FEW_PAIRS:
        shown = f"no loss is shown, and {words.plural(most.pairs, 'pair')} can hardly show one"
    return (
        f"gold: {shown}; in batches of {most.where} accuracy is {_points(100 * most.loss)} what it is alone "
        f"({_bounds(most)} points lost, {most.pairs} asked both ways)"
    )


def _is_likely(loss: GoldLoss) -> bool:
    """Not shown, and large enough by estimate to be acted on if it were."""
    return loss.loss >= LEAST_LOSS and loss.pairs >= _FEW_PAIRS


def _likely(loss: GoldLoss) -> str:
    return (
        f"in batches of {loss.where} a loss of {100 * loss.loss:.1f} points is likely, not shown yet "
        f"({loss.pairs} pairs; {_bounds(loss)} points)"
    )


def _bounds(loss: GoldLoss) -> str:
    return f"{100 * loss.low:+.1f} to {100 * loss.high:+.1f}"


def _points(loss: float) -> str:
    if abs(loss) < 0.05:
        return "just"
    return f"{abs(loss):.1f} points {'below' if loss > 0 else 'above'}"


def gold_values(gold: GoldUse) -> list[str]:
    """The end of a run in a few words: what gold showed, and its price."""
    said = gold.sentence.removeprefix("gold: ")
    asked = f"{words.number(gold.rides)} asked in batches, {words.number(gold.alone)} alone"
    price = f"{words.number(gold.tokens)} tokens" + ("" if gold.usd is None else f", {words.usd(gold.usd)}")
    return [words.visible(said), asked, price]
