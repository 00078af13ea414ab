"""Gold where many requests are under way at once, and where there are few records. Virtual time, simulated.

The prompt is long, so that a lone ask takes half of what a batch of 16 takes: few are within their share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_gold import make_gold, run_with_gold, used

from engine.report.gold import GoldUse
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.config import Limits, Packing, Quality, Recovery, RunConfig
from support import Outcome, make_task

LONG = "Say which colour it is. " + " ".join(f"Rule {number}: it may be any of the colours." for number in range(60))

RUINED = BatchBehaviour(accuracy=0.95, redraw=Redraw(share={8: 0.0, 9: 1.0}, accuracy={1: 0.0}))
"""As alone up to eight records; above, nothing is right: no chance plays a part in whether that is found."""

HOLDS = BatchBehaviour(accuracy=0.95)


def run_windowed(
    records: int, *, behaviour: BatchBehaviour, window: int | None, gold: int = 400, batch_size: int | None = None,
    paced: bool = False, **more: Any,
) -> tuple[Outcome, GoldUse]:  # fmt: skip
    config = RunConfig(
        packing=Packing(max_batch_size=16, batch_size=batch_size),
        limits=Limits(max_concurrency=window, requests_per_minute=100_000 if paced else None),
        recovery=Recovery(max_failed=1.0),
        quality=Quality(guard=False),
        answer_form="compact",
    )
    simulator = SimulatorConfig(behaviour=behaviour, seed=3, delay_s=0.8)
    outcome, _ = run_with_gold(
        records, config, make_gold(gold), simulator=simulator, task=make_task(instructions=LONG), **more
    )
    assert outcome.stopped is None
    return outcome, used(outcome)


def pairs_at(use: GoldUse) -> dict[str, int]:
    return {loss.where: loss.pairs for loss in use.losses}


@pytest.mark.parametrize("window", [8, 64, None])
def test_a_size_that_ruins_all_is_left_however_many_requests_are_under_way(window: int | None) -> None:
    """A window that opens while B is 2 must not spend there what can be asked alone: of some 150 lone answers enough
    are left for the size that the run stays at."""
    outcome, use = run_windowed(6_000, behaviour=RUINED, window=window)
    assert [move.kept for move in use.moves] == [8]
    assert sum(result.batch_size > 8 for result in outcome.results) < 0.5 * 6_000


@pytest.mark.parametrize("window", [8, 64, None])
def test_pairs_are_of_the_size_in_use(window: int | None) -> None:
    """Where nothing is lost, the run stays at 16, and so do most of the records that are asked both ways; and they
    cost no more than was said."""
    outcome, use = run_windowed(9_000, behaviour=HOLDS, window=window)
    pairs = pairs_at(use)
    assert pairs["9-16"] >= 80
    assert pairs["9-16"] >= 0.6 * sum(pairs.values())
    assert sum(pairs.values()) >= 0.9 * use.alone
    counters = outcome.counters
    assert use.tokens <= 0.16 * (counters.tokens_input + counters.tokens_output)
    assert use.rides <= 0.055 * 9_000


@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("records", [20, 100, 300])
def test_a_small_run_asks_no_more_alone_than_a_tenth_of_its_requests(records: int, paced: bool) -> None:
    """One at the least, so that something is compared."""
    outcome, use = run_windowed(records, behaviour=HOLDS, window=8, paced=paced)
    assert use.alone <= (max(1.0, 0.1 * outcome.counters.requests) if paced else max(1.0, 0.2 * records / 2))
    assert use.alone < 0.1 * records


def test_a_fixed_size_that_loses_names_no_size_that_was_not_measured() -> None:
    """Of 20 half would be 16, which ruins all as well; and the loss is said with its interval."""
    outcome, use = run_windowed(6_000, behaviour=RUINED, window=8, batch_size=20)
    (move,) = use.moves
    assert "a smaller size (none was measured here), or auto, may avoid it" in move.sentence
    assert "--batch-size" not in move.sentence
    assert f"points, {move.pairs} asked both ways)" in move.sentence
    assert any(move.sentence == notice for notice in outcome.counters.notices)


def test_a_run_that_goes_on_says_that_gold_began_anew(tmp_path: Path) -> None:
    """What it showed before the stop is in no store: nobody should take what follows for all of it."""
    store = str(tmp_path / "run.sqlite")
    _, first = run_windowed(300, behaviour=HOLDS, window=8, store=store)
    assert "earlier start" not in first.sentence
    _, again = run_windowed(300, behaviour=HOLDS, window=8, store=store)
    assert again.sentence == (
        "gold: none of it was asked in a batch; an earlier start had answered 300 records, and its gold is not counted "
        "here"
    )
    assert msgspec.to_builtins(again)["rides"] == 0
