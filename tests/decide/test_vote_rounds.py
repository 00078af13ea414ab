"""In how many rounds a record will be asked."""

from __future__ import annotations

import random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.vote_rounds import agreement_of, rounds_of
from engine.decide.votes import suffices
from engine.vocabulary.config import VotesStop
from engine.vocabulary.values import Ballot
from support import make_task

STOPS: list[VotesStop] = list(get_args(VotesStop))
TASK = make_task(labels=["a", "b"])


def asked(votes: int, stop: VotesStop, better: float, rng: random.Random) -> int:
    """Rounds that a run asks, by its own rule."""
    ballots: list[Ballot] = []
    while not suffices(ballots, TASK, most=votes, stop=stop):
        ballots.append(Ballot(output="a" if rng.random() < better else "b", confidence=None, call=0, place=None))
    return len(ballots)


@pytest.mark.parametrize("votes", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("stop", STOPS)
def test_as_many_as_the_rule_of_a_run_asks(votes: int, stop: VotesStop) -> None:
    """Two answers, drawn at random: least, most and mean of what the run's own rule comes to."""
    better = 0.8
    rng = random.Random(votes)
    found = [asked(votes, stop, better, rng) for _ in range(4_000)]
    made = rounds_of(votes, stop, agreement=better**2 + (1 - better) ** 2)
    assert made.least <= min(found)
    assert max(found) <= made.most == votes
    assert made.expected == pytest.approx(sum(found) / len(found), rel=0.02)
    assert asked(votes, stop, 1.0, rng) == made.least == rounds_of(votes, stop, agreement=1.0).expected


@pytest.mark.parametrize(
    ("agreement", "votes", "stop", "measured"),
    [
        (0.64, 3, "decided", 2.36), (0.64, 5, "decided", 3.75), (0.64, 5, "agreed", 2.60),
        (0.54, 5, "decided", 3.94), (0.54, 5, "agreed", 2.89), (1.0, 5, "decided", 3.01),
    ],
)  # fmt: skip
def test_what_was_measured(agreement: float, votes: int, stop: VotesStop, measured: float) -> None:
    """The simulated runs of docs/design/votes.md: agreement is that of two rounds there, asks are those counted."""
    assert rounds_of(votes, stop, agreement=agreement).expected == pytest.approx(measured, rel=0.05)


@given(st.integers(3, 12), st.sampled_from([stop for stop in STOPS if stop != "never"]), st.floats(0.0, 1.0))
def test_an_agreement_is_found_again_from_its_rounds(votes: int, stop: VotesStop, agreement: float) -> None:
    """What a run's rounds say, makes as many rounds."""
    expected = rounds_of(votes, stop, agreement=agreement).expected
    found = agreement_of(expected, votes=votes, stop=stop)
    assert found is not None
    assert rounds_of(votes, stop, agreement=found).expected == pytest.approx(expected, rel=1e-3)


@given(st.integers(1, 20), st.sampled_from(STOPS), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_rounds_lie_in_their_range_and_fall_with_agreement(votes: int, stop: VotesStop, one: float, two: float) -> None:
    """From two rounds at least, where there are votes."""
    less, more = (rounds_of(votes, stop, agreement=agreement) for agreement in sorted((one, two)))
    assert less.expected >= more.expected - 1e-9
    for made in (less, more):
        assert min(votes, 2) <= made.least <= made.expected + 1e-9
        assert made.expected <= made.most + 1e-9
    assert agreement_of(2.0, votes=2, stop="decided") is None
