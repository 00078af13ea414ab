"""Bounds that hold at every look, on coins whose chance is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.quality_stats import (
    Bet,
    binomial_below,
    gold_needed,
    least_share_above,
    loss_seen_by_gold,
    share_within,
)


@given(n=st.integers(1, 400), share=st.floats(0, 1), alpha=st.sampled_from([0.05, 0.003]), rare=st.booleans())
def test_the_interval_holds_the_share_seen(n: int, share: float, alpha: float, rare: bool) -> None:
    """Whatever was seen is possible; a smaller error is a wider interval."""
    hits = round(share * n)
    interval = share_within(hits, n, alpha, rare=rare)
    wider = share_within(hits, n, alpha / 10, rare=rare)
    assert wider.low <= interval.low <= hits / n <= interval.high <= wider.high


@pytest.mark.parametrize(
    ("hits", "n", "rare", "low", "high"),
    [
        (0, 0, True, 0.0, 1.0),
        (50, 100, False, 0.338, 0.662),
        (500, 1000, False, 0.442, 0.558),
        (5, 100, True, 0.009, 0.142),
        (0, 100, True, 0.0, 0.045),
        (100, 100, False, 0.943, 1.0),
    ],
)
def test_the_interval_is_as_narrow_as_the_formula_makes_it(
    hits: int, n: int, rare: bool, low: float, high: float
) -> None:
    """One that always says "anything" would miss nothing: numbers of this formula, at alpha = .05."""
    interval = share_within(hits, n, 0.05, rare=rare)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.001)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_interval_misses_at_any_look_less_often_than_it_says(share: float) -> None:
    """400 looks each in 200 runs at alpha = .1: a fixed-sample interval would miss in nearly half of them."""
    rng = random.Random(7)
    missed = 0
    for _ in range(200):
        hits = 0
        for n in range(1, 401):
            hits += rng.random() < share
            interval = share_within(hits, n, 0.1) if n % 10 == 0 else None
            if interval and not interval.low <= share <= interval.high:
                missed += 1
                break
    assert missed <= 30


def test_a_fair_bet_is_rarely_won_and_an_unfair_one_soon() -> None:
    """At alpha = .05 in 200 runs of 500 numbers: at most a tenth are won without reason, all with a mean of .3."""
    rng = random.Random(9)

    def won(mean: float, n: int) -> bool:
        bet = Bet(most=0.05)
        for _ in range(n):
            bet.add(1.0 if rng.random() < (1 + mean) / 2 else -1.0)
        return bet.won(0.05)

    assert sum(won(0.05, 500) for _ in range(200)) <= 20
    assert sum(won(0.4, 200) for _ in range(50)) >= 48


@given(most=st.floats(-1, 1), numbers=st.lists(st.floats(-1, 1), max_size=50))
def test_a_bet_never_loses_all(most: float, numbers: list[float]) -> None:
    """Its capital stays above nothing for any numbers in -1 to 1."""
    bet = Bet(most=most)
    for number in numbers:
        bet.add(number)
    assert not bet.won(1e-30)


def test_gold_needed_is_mcnemar_s_sample_size() -> None:
    """Known values: discordance .3 and a loss of .02 need some 4,630; gold that many sees that loss."""
    assert gold_needed(0.3, 0.02) == pytest.approx(4635, abs=10)
    assert loss_seen_by_gold(0.3, gold_needed(0.3, 0.02)) == pytest.approx(0.02, rel=0.02)
    assert gold_needed(0.0, 0.02) > 0
    assert loss_seen_by_gold(0.3, 0) == 1.0


@given(n=st.integers(1, 300), hits=st.integers(0, 300))
def test_the_least_share_above_leaves_one_case_in_five(n: int, hits: int) -> None:
    """At that share so few hits are seen once in five times."""
    if hits < n:
        assert binomial_below(hits, n, least_share_above(hits, n)) == pytest.approx(0.2, abs=0.01)
