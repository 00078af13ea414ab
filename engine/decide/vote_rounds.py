"""In how many rounds a record is asked, before anybody has asked: from how often two answers to it are the same.

A record is taken for one with two answers, each round drawing the better one with the same probability; what two draws
agree by then says all. Real records differ, and have more answers: in simulated runs of models whose answers hang on
the batch the rounds came out within 4 % of it. See docs/design/plan.md.
"""

from __future__ import annotations

import math

import msgspec

from engine.vocabulary.config import VotesStop

ASSUMED_AGREEMENT = 0.8
"""Of two answers to a record in two rounds, where nobody knows: .54 and .64 in simulated models whose answers hang on
the batch, 1 in one whose do not (docs/design/votes.md). The count goes with it; the range does not."""

_COIN = 0.5  # two answers agree no less often than that


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """Asks of a record.

    :ivar least: where all its answers agree; `most` where they do not. `expected`: on average.
    """

    least: int
    expected: float
    most: int


ONE = Rounds(least=1, expected=1.0, most=1)


def rounds_of(votes: int, stop: VotesStop, *, agreement: float) -> Rounds:
    """For so many rounds at the most.

    :param agreement: the share of records whose answers in two rounds are the same.
    """
    if votes == 1:
        return ONE
    least = _least(votes, stop)
    return Rounds(least=least, expected=_expected(votes, stop, agreement), most=votes)


def _least(votes: int, stop: VotesStop) -> int:
    if stop == "never":
        return votes
    return min(votes, 2 if stop == "agreed" else votes // 2 + 1)


def _expected(votes: int, stop: VotesStop, agreement: float) -> float:
    """Below what a coin has, records have more answers than two: there it goes on to all rounds in a straight line."""
    if stop == "never":
        return float(votes)
    if agreement < _COIN:
        return votes + (_expected(votes, stop, _COIN) - votes) * max(0.0, agreement) / _COIN
    better = (1 + math.sqrt(2 * min(1.0, agreement) - 1)) / 2
    # (votes for the better answer, for the other, the last one was the better) -> how likely
    open_: dict[tuple[int, int, bool], float] = {(0, 0, True): 1.0}
    expected = 0.0
    for asked in range(1, votes + 1):
        expected += sum(open_.values())
        after: dict[tuple[int, int, bool], float] = {}
        for (good, bad, was_good), chance in open_.items():
            for is_good, share in ((True, better), (False, 1 - better)):
                state = (good + is_good, bad + (not is_good), is_good)
                agrees = stop == "agreed" and asked > 1 and is_good == was_good
                if not agrees and abs(state[0] - state[1]) <= votes - asked:
                    after[state] = after.get(state, 0.0) + chance * share
        open_ = after
    return expected


def agreement_of(rounds: float, *, votes: int, stop: VotesStop) -> float | None:
    """The agreement that makes so many rounds on average; None where they say nothing of it.

    :param rounds: asks of a record in an earlier run.
    """
    if stop == "never" or votes <= 2:
        return None
    low, high = 0.0, 1.0  # the more they agree, the fewer rounds
    for _ in range(50):
        middle = (low + high) / 2
        if _expected(votes, stop, middle) > rounds:
            low = middle
        else:
            high = middle
    return (low + high) / 2
