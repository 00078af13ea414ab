"""What the judge of the labels says of what it has seen: its figures, counted and bounded as they are said to be."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.gold_values import Ride
from engine.decide.quality_judge import Judge
from engine.decide.quality_stats import share_within

LOOKS = st.lists(st.booleans(), max_size=40)
"""Of each look, whether the answer was another one."""


def compared(
    *, lone: Sequence[bool] = (), reordered: Sequence[bool] = (), repeats: Sequence[bool] = (), size: int = 4
) -> Judge:
    judge = Judge()
    for differs in lone:
        judge.observe_audit("lone", size, 1, 0, int(differs))
    for differs in reordered:
        judge.observe_audit("reordered", size, 1, 0, int(differs))
    for differs in repeats:
        judge.observe_audit("repeat", 1, 1, 0, int(differs))
    return judge


@given(lone=LOOKS, reordered=LOOKS, repeats=LOOKS, right=LOOKS)
def test_a_row_of_the_curve_gives_a_figure_of_what_was_looked_at_and_of_nothing_else(
    lone: list[bool], reordered: list[bool], repeats: list[bool], right: list[bool]
) -> None:
    """Shares of all looks of their kind, or None; and how many looks there were."""
    judge = compared(lone=lone, reordered=reordered, repeats=repeats)
    judge.observe_batch(3, [0, 1, 2])
    for correct in right:
        judge.observe_gold(4, 1, correct)
    (row,) = judge.curve()
    verdict, cost = row.verdict, judge.cost()
    assert verdict.agreement == (pytest.approx(1 - fmean(lone)) if lone else None)
    assert row.reordered_agreement == (pytest.approx(1 - fmean(reordered)) if reordered else None)
    assert verdict.noise == (pytest.approx(fmean(repeats)) if repeats else None)
    assert row.accuracy == (pytest.approx(fmean(right)) if right else None)
    assert row.accuracy_low <= (fmean(right) if right else 0.5) <= row.accuracy_high
    assert (verdict.compared, verdict.reordered, verdict.repeats) == (len(lone), len(reordered), len(repeats))
    assert (cost.lone, cost.reordered, cost.repeats) == (len(lone), len(reordered), len(repeats))
    assert verdict.gold == cost.gold == len(right)
    assert (row.records, verdict.batches, verdict.size) == (3, 1, 4)


@given(lone=LOOKS, reordered=LOOKS, repeats=LOOKS)
def test_the_bounds_of_a_verdict_are_those_that_are_promised(
    lone: list[bool], reordered: list[bool], repeats: list[bool]
) -> None:
    """Of the agreement with 95 %. The excess has an error of 5 % in all, of its two parts together: so that neither is
    narrower than it would be alone. And it holds the estimate, of lone and re-ordered asks the worse."""
    verdict = compared(lone=lone, reordered=reordered, repeats=repeats).verdict(4)
    changed = share_within(sum(lone), len(lone), 0.05)
    mixed = share_within(sum(reordered), len(reordered), 0.05)
    noise = share_within(sum(repeats), len(repeats), 0.05)
    assert (verdict.low, verdict.high) == (1 - changed.high, 1 - changed.low)
    assert verdict.excess_high >= min(1.0, changed.high - noise.low)
    assert 0.0 <= verdict.excess_low <= max(0.0, changed.low - noise.high, mixed.low - noise.high)
    worst = max((fmean(looks) for looks in (lone, reordered) if looks), default=0.0)
    assert verdict.excess == pytest.approx(max(0.0, worst - (fmean(repeats) if repeats else 0.0)))
    assert verdict.excess_low <= verdict.excess


@given(st.lists(st.integers(1, 64), max_size=12))
def test_records_are_counted_by_the_size_of_their_batch(sizes: list[int]) -> None:
    """From a rung on: it and all above."""
    judge = Judge()
    for size in sizes:
        judge.observe_batch(size, [None] * size)
    for rung in (1, 2, 4, 8, 16, 32, 64):
        assert judge.records_from(rung) == sum(size for size in sizes if size > rung // 2)


def test_only_what_gold_decided_is_said_to_be_decided_by_it() -> None:
    """A report calls the witness by its name."""
    copying = Judge()
    for number in range(40):
        copying.observe_batch(4, [number % 3] * 4)
    others = {
        "unknown": Judge(),
        "changes": compared(lone=[True] * 60, repeats=[False] * 60),
        "holds": compared(lone=[False] * 80),
        "collapsing": copying,
    }
    for kind, judge in others.items():
        verdict = judge.verdict(4)
        assert (verdict.kind, verdict.by_gold) == (kind, False)
    judge = Judge(judges=False)
    judge.observe_batch(4, [0, 0, 0, 0])
    assert (judge.verdict(4).kind, judge.verdict(4).by_gold) == ("unknown", False)
    for alone, kind in ((0.0, "holds"), (1.0, "worse")):
        judge = Judge()
        for _ in range(60):
            judge.observe_gold_batch(4, [Ride(right=1.0 - alone, alone=alone)])
        assert (judge.verdict(4).kind, judge.verdict(4).by_gold) == (kind, True)


RIDES = st.lists(
    st.builds(
        lambda right, alone: Ride(right=right, alone=alone),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from([None, 0.0, 0.5, 1.0]),
    ),
    max_size=6,
)


@given(first=st.lists(RIDES, max_size=6), later=st.lists(RIDES, max_size=3))
def test_gold_counts_by_record_once_and_in_pairs_where_it_was_asked_alone(
    first: list[list[Ride]], later: list[list[Ride]]
) -> None:
    """A record is right when all of its variables are. Without a lone answer it says how right, and nothing of a loss;
    later passes through the same records are pairs for the test of a loss, and no new records."""
    judge = Judge()
    judge.observe_batch(4, [0])
    for rides in first:
        judge.observe_gold_batch(4, rides)
    for rides in later:
        judge.observe_gold_batch(4, rides, sweep=2)
    answers = [ride for rides in first for ride in rides]
    (row,) = judge.curve()
    assert row.verdict.gold == len(answers)
    assert row.accuracy == (pytest.approx(fmean(ride.right == 1.0 for ride in answers)) if answers else None)
    pairs = [ride for ride in answers if ride.alone is not None]
    assert judge.gold.pairs == len(pairs) + sum(ride.alone is not None for rides in later for ride in rides)


@pytest.mark.parametrize("looks", [0, 10])
def test_a_loss_that_is_likely_by_gold_is_said_and_not_denied_beside_it(looks: int) -> None:
    """One that is not shown yet: beside what was compared, and alone where nothing was, as "no loss is shown" would be
    the opposite to a reader. It is what was lost less what was gained; a few pairs are no reason to say so."""
    judge = compared(lone=[False] * looks)
    for number in range(30):
        assert "likely" not in judge.verdict(4).sentence or number >= 24
        judge.observe_gold(4, 1, number % 15 != 0, alone=True)
    sentence = judge.verdict(4).sentence
    assert sentence.startswith("B=4: ")
    assert "a loss of 6.7 points is likely by gold, not shown yet (30 pairs)." in sentence
    assert ("not shown to hold" in sentence) == (looks > 0)
    assert "no loss is shown" not in sentence
    for _ in range(2):  # as many are gained: nothing is lost on the whole
        judge.observe_gold(4, 1, True, alone=False)
    assert "likely" not in judge.verdict(4).sentence


def test_a_size_that_is_not_known_is_told_by_what_was_compared() -> None:
    """That nothing was; or how many were, and the bounds that follow."""
    assert Judge().verdict(4).sentence == "B=4: nothing was compared."
    verdict = compared(lone=[False] * 9 + [True]).verdict(4)
    assert verdict.kind == "unknown"
    assert "(10 compared; allowed beyond noise: 10%)" in verdict.sentence
    assert f"{1 - verdict.high:.0%} to {1 - verdict.low:.0%} of the answers" in verdict.sentence
