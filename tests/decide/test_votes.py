"""Votes: when they suffice, who wins, how sure that is, and who sits beside whom in the next round."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.votes import elect, reseated, separated, suffices
from engine.vocabulary.config import VotesStop
from engine.vocabulary.task import Field, FieldType, Task
from engine.vocabulary.values import Ballot

LABELS = ["red", "green", "blue"]
TASK = Task(instructions="Which colour?", labels=LABELS)
BOTH = Task(
    instructions="Read it.",
    fields={
        "topic": Field(labels=["sport", "art"]),
        "loud": Field(type=FieldType.BOOLEAN),
        "why": Field(type=FieldType.STRING),
    },
)
labels = st.sampled_from(LABELS)
objects = st.fixed_dictionaries(
    {"topic": st.sampled_from(["sport", "art"]), "loud": st.booleans(), "why": st.text(max_size=3)}
)


def cast(*outputs: Any) -> list[Ballot]:
    return [Ballot(output=output) for output in outputs]


@given(st.lists(labels, min_size=1, max_size=6), st.integers(1, 7))
def test_decided_means_that_no_other_answer_can_draw_level(said: list[str], most: int) -> None:
    """Votes suffice exactly when, whatever the rounds that are left bring, the winner is the only one with most votes;
    or when no round is left."""
    left = most - len(said)
    counts = Counter(said)
    winner = elect(cast(*said), TASK).output
    can_be_caught = any(counts[other] + left >= counts[winner] for other in LABELS if other != winner)
    assert suffices(cast(*said), TASK, most=most, stop="decided") == (left <= 0 or not can_be_caught)


@given(st.lists(labels, min_size=1, max_size=5), st.integers(1, 6), st.lists(labels, max_size=6))
def test_what_was_decided_stays_so(said: list[str], most: int, later: list[str]) -> None:
    """Rounds that were saved by an early stop would not have changed the answer."""
    if suffices(cast(*said), TASK, most=most, stop="decided") and len(said) < most:
        all_rounds = [*said, *later][:most]
        assert elect(cast(*all_rounds), TASK).output == elect(cast(*said), TASK).output


@pytest.mark.parametrize(
    ("said", "stop", "enough"),
    [
        (["red"], "agreed", False),
        (["red", "red"], "agreed", True),
        (["red", "green", "green"], "agreed", True),
        (["red", "green"], "agreed", False),
        (["red", "red"], "decided", False),
        (["red", "red", "red"], "decided", True),
        (["red"] * 4, "never", False),
        (["red"] * 5, "never", True),
        ([], "never", False),
    ],
)
def test_the_rules_of_stopping(said: list[str], stop: VotesStop, enough: bool) -> None:
    """Of five rounds: two equal answers in a row where `agreed`, three equal ones where `decided`, else all."""
    assert suffices(cast(*said), TASK, most=5, stop=stop) is enough


def test_each_variable_is_voted_on_by_itself() -> None:
    """The majority of one variable may be in other replies than that of another; a variable that is open keeps the
    record open."""
    first = {"topic": "sport", "loud": True, "why": "a"}
    second = {"topic": "art", "loud": False, "why": "b"}
    third = {"topic": "sport", "loud": False, "why": "c"}
    assert not suffices(cast(first, second), BOTH, most=3, stop="decided")
    assert not suffices(cast(first, third), BOTH, most=3, stop="decided")  # the topic is decided, the other is not
    won = elect(cast(first, second, third), BOTH)
    assert won.output == {"topic": "sport", "loud": False, "why": "c"}  # of the reply that has both winners
    assert (won.confidence, won.votes, won.tied) == (pytest.approx(2 / 3), 3, False)


def test_text_comes_from_the_reply_that_agrees_most() -> None:
    """No reply has all winners: the text is of the earliest that has most of them, the labels are the winners."""
    task = Task(
        instructions="Read it.",
        fields={name: Field(labels=["x", "y"]) for name in "abc"} | {"why": Field(type=FieldType.STRING)},
    )
    one = {"a": "x", "b": "x", "c": "y", "why": "one"}
    two = {"a": "x", "b": "y", "c": "x", "why": "two"}
    three = {"a": "y", "b": "x", "c": "x", "why": "three"}
    assert elect(cast(one, two, three), task).output == {"a": "x", "b": "x", "c": "x", "why": "one"}


@given(st.lists(labels, min_size=1, max_size=7))
def test_a_tie_goes_to_the_answer_that_came_first(said: list[str]) -> None:
    """Of the answers with most votes, and only of them, it is the earliest, and it is told that there was a tie."""
    won = elect(cast(*said), TASK)
    counts = Counter(said)
    leading = [label for label in said if counts[label] == max(counts.values())]
    assert won.output == leading[0]
    assert won.tied == (len(set(leading)) > 1)


@given(st.lists(objects, min_size=1, max_size=6), st.integers(0, 2))
def test_a_confidence_is_a_share_of_the_votes(outputs: list[dict[str, Any]], blanks: int) -> None:
    """Between 0 and 1, the least sure variable's; an ask that brought nothing counts as a vote for nobody; one vote
    alone says nothing of how sure it is."""
    won = elect(cast(*outputs), BOTH, blanks=blanks)
    votes = len(outputs) + blanks
    assert won.votes == votes
    if votes == 1:
        assert won.confidence is None
        return
    shares = [max(Counter(str(one[name]) for one in outputs).values()) / votes for name in ("topic", "loud")]
    assert won.confidence == pytest.approx(min(shares))


def test_a_vote_counts_for_as_much_as_it_is_sure() -> None:
    """Where token probabilities are known they weigh the votes, and of one vote they are the confidence; who wins they
    do not change."""
    ballots = [
        Ballot(output="red", confidence=0.5),
        Ballot(output="red", confidence=0.75),
        Ballot(output="green", confidence=1.0),
    ]
    won = elect(ballots, TASK)
    assert (won.output, won.confidence) == ("red", pytest.approx(1.25 / 3))
    assert elect(ballots[:1], TASK).confidence == 0.5


def pairs(inside: Counter[int]) -> int:
    """Pairs of records that were in one request."""
    return sum(number * (number - 1) // 2 for number in inside.values())


@given(st.data())
def test_who_sat_together_is_separated_as_far_as_others_wait(data: st.DataObject) -> None:
    """As many records as before, each once, the oldest among them, with no more tokens and no more pairs that were in
    one request; and where all take as many tokens, with as few pairs as there can be."""
    count = data.draw(st.integers(1, 20))
    calls = data.draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    tokens = data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    others = data.draw(st.sets(st.integers(0, count - 1)))
    chosen = data.draw(st.permutations(sorted({0, *others})))
    result = separated(chosen, calls, tokens)
    assert len(result) == len(chosen) == len(set(result))
    assert 0 in result
    assert set(result) <= set(range(count))
    assert sum(tokens[index] for index in result) <= sum(tokens[index] for index in chosen)
    inside = Counter(calls[index] for index in result)
    assert pairs(inside) <= pairs(Counter(calls[index] for index in chosen))
    if len(set(tokens)) == 1:
        all_of = Counter(calls)
        spread: Counter[int] = Counter({calls[0]: 1})
        while spread.total() < len(result):  # one more from the request that has the fewest so far
            spread[min((call for call in all_of if spread[call] < all_of[call]), key=lambda call: spread[call])] += 1
        assert pairs(inside) == pairs(spread)


@given(st.integers(2, 16), st.integers(0, 100))
def test_places_differ_from_the_last_round(count: int, seed: int) -> None:
    """After one round the places are at least as far from the last ones as in the reverse order (by the squares of what
    is lacking to the whole length, so that nobody stays where it was for the others' sake)."""
    places = [[index / (count - 1)] for index in range(count)]

    def closeness(order: list[int]) -> float:
        return sum((1 - abs(place / (count - 1) - places[index][0])) ** 2 for place, index in enumerate(order))

    order = reseated(places, random.Random(seed))
    assert sorted(order) == list(range(count))
    assert closeness(order) <= closeness(list(reversed(range(count))))
    assert order != list(range(count))


@given(st.integers(1, 10), st.integers(0, 10))
def test_an_order_is_found_where_no_place_is_known(count: int, seed: int) -> None:
    """Votes of an earlier process have no places."""
    assert sorted(reseated([[] for _ in range(count)], random.Random(seed))) == list(range(count))
