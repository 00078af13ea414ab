"""What the last lines say of gold: a loss that is likely is not called none. `report.gold`."""

from __future__ import annotations

import pytest

from engine.decide.gold_values import GoldLoss, Ride
from engine.decide.quality import QualityGuard
from engine.report.gold import GoldMove, gold_sentence, too_little


def make_loss(where: str, loss: float, pairs: int, low: float = -0.1) -> GoldLoss:
    return GoldLoss(where=where, pairs=pairs, lost=max(0.0, loss), gained=0.0, loss=loss, low=low, high=0.5)


def make_move(*, capped: bool) -> GoldMove:
    return GoldMove(
        at_s=1.0, size=16, kept=8, pairs=60, loss=0.2, late=False, capped=capped, labelled=0, sentence="gold: capped"
    )  # fmt: skip


def test_a_loss_that_is_likely_is_said_of_the_size_in_use() -> None:
    """And not that of a smaller size on the way, of which there is more gold."""
    losses = [make_loss("2", 0.0, 300), make_loss("9-16", 0.334, 46)]
    said = gold_sentence([], losses, rides=400, in_use="9-16")
    assert "in batches of 9-16 a loss of 33.4 points is likely, not shown yet (46 pairs" in said
    assert "no loss is shown" not in said
    assert "no loss is shown" in gold_sentence([], losses, rides=400, in_use="2")


@pytest.mark.parametrize(("loss", "pairs", "likely"), [(0.02, 24, True), (0.019, 300, False), (0.5, 23, False)])
def test_a_loss_is_likely_from_two_points_and_more_than_a_few_pairs(loss: float, pairs: int, likely: bool) -> None:
    """Two points are what would be acted on; a handful of pairs is no estimate, and said to be none."""
    said = gold_sentence([], [make_loss("8", loss, pairs)], rides=400, in_use="8")
    assert ("is likely, not shown yet" in said) is likely
    assert ("can hardly show one" in said) is (pairs < 24)


def test_what_is_left_after_a_cap_is_said_besides() -> None:
    """The size that the run went on with may lose as well; one that was fixed has been said to."""
    losses = [make_loss("5-8", 0.05, 80)]
    assert gold_sentence([make_move(capped=True)], losses, rides=99, in_use="5-8") == (
        "gold: capped; in batches of 5-8 a loss of 5.0 points is likely, not shown yet (80 pairs; "
        "-10.0 to +50.0 points)"
    )
    assert gold_sentence([make_move(capped=False)], losses, rides=99, in_use="5-8") == "gold: capped"


def test_the_guard_says_so_too() -> None:
    """Whether or not the size was looked at; and nothing of it where gold shows no loss."""
    guard, looked = QualityGuard(), QualityGuard()
    for _ in range(64):
        looked.observe_audit("lone", 16, 1, 0, 0)
    for number in range(44):
        for each in (guard, looked):
            each.observe_gold_batch(16, [Ride(right=float(number % 22 > 0), alone=1.0)])
    said = "a loss of 4.5 points is likely by gold, not shown yet (44 pairs)."
    assert guard.verdict(16).sentence == f"B=16: {said}"
    assert looked.verdict(16).sentence.endswith(f" would not have been seen; {said}")
    assert "likely" not in guard.verdict(2).sentence


@pytest.mark.parametrize(
    ("given", "records", "said"),
    [
        (400, 3_000, None),
        (400, None, None),
        (400, 980, "at --gold-rate 0.05 some 49 go"),
        (49, 100_000, "the file has 49"),
        (49, None, "the file has 49"),
    ],
)
def test_gold_that_can_show_nothing_is_told(given: int, records: int | None, said: str | None) -> None:
    """By what will ride: a share of the input, and no more than there are."""
    found = too_little(given, rate=0.05, records=records)
    assert found is None if said is None else (found is not None and said in found)
