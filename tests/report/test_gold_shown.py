"""What a run says of a loss that gold has shown. `report.gold`."""

from __future__ import annotations

import pytest

from engine.decide.gold_tally import loss_of
from engine.decide.gold_test import Shown
from engine.decide.gold_values import GoldLoss
from engine.report.gold import instead, shown_sentence


def make_loss(where: str, loss: float, pairs: int) -> GoldLoss:
    return GoldLoss(where=where, pairs=pairs, lost=loss, gained=0.0, loss=loss, low=-0.01, high=0.02)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([], "a smaller size (none was measured here)"),
        ([make_loss("17-32", 0.15, 90)], "a smaller size (none was measured here)"),
        ([make_loss("9-16", 0.0, 23), make_loss("17-32", 0.15, 90)], "a smaller size (none was measured here)"),
        ([make_loss("9-16", 0.02, 90), make_loss("17-32", 0.15, 90)], "a smaller size (none was measured here)"),
        (
            [make_loss("3-4", 0.0, 90), make_loss("5-8", 0.0, 24), make_loss("9-16", 0.15, 90)],
            "--batch-size 8 (-1.0 to +2.0 points lost there, 24 pairs)",
        ),
    ],
    ids=["nothing", "itself", "too few", "loses too", "measured"],
)
def test_a_size_is_named_only_where_it_was_measured_and_holds(losses: list[GoldLoss], said: str) -> None:
    """Half of what loses may lose as well: nobody should be sent there on a guess."""
    assert instead(losses, below=32) == said


def test_a_loss_is_said_with_its_interval() -> None:
    """The estimate at the moment at which a test stops is rather too large: 25 points by 48 pairs are 11.5 to 36.5."""
    shown = Shown(size=16, pairs=48, loss=0.25, late=False)
    loss = loss_of("", [1.0] * 12 + [0.0] * 36)
    said = shown_sentence(loss, shown, instead=None, labelled=300)
    assert (
        "25 points less accuracy than the same records asked alone (+11.5 to +36.5 points, 48 asked both ways)" in said
    )
    assert said.endswith(
        "; from there on the run went on with 8 at the most (300 records had been labelled in larger ones: annotate "
        "retry --batch-size-above 8 asks them again)"
    )
    kept = shown_sentence(loss, shown, instead="a smaller size (none was measured here)", labelled=300)
    assert kept.endswith("is kept: a smaller size (none was measured here), or auto, may avoid it")
