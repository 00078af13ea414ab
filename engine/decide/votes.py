"""Several answers to one record: when they suffice, which wins, and how sure it is. See docs/design/votes.md.

After BatchPrompt (Lin et al., ICLR 2024, arXiv 2309.00384): a record is asked in up to `most` rounds, each time among
other records and at another place, and the answers are counted. Each categorical variable is voted on by itself.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from engine.decide.quality_evidence import CATEGORICAL, label_signature
from engine.vocabulary.config import RunConfig, VotesStop
from engine.vocabulary.task import Task
from engine.vocabulary.values import Ballot

_ARRANGEMENTS = 8


class Elected(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers to a record come to.

    :ivar confidence: from 0 to 1: the share of the votes that the winner has, of its least sure variable; None where
        there was one vote and no more is known.
    :ivar votes: that were cast, those for nobody included.
    :ivar tied: a variable had two answers with equally many votes; the earlier one won.
    """

    output: Any
    confidence: float | None
    votes: int
    tied: bool = False


def asks_alone(config: RunConfig) -> bool:
    """Whether each record of a run with votes is alone in its request, as the user fixed it."""
    return config.votes > 1 and (config.packing.batch_size or config.packing.max_batch_size) == 1


def why_in_vain(config: RunConfig, temperature: float | None) -> str | None:
    """Why votes would say nothing, for the user; None where they may.

    :param temperature: that is asked for; None where it is not known.
    """
    if not asks_alone(config) or temperature != 0:
        return None
    return (
        "votes would ask each record the same question again: it is alone in its request (--batch-size 1), at "
        "temperature 0, so its answers agree whether they are right or not. Let records share requests (a larger "
        "--batch-size, or none), or give a --temperature above 0, or leave --votes out"
    )


def why_in_doubt(config: RunConfig, temperature: float | None) -> str | None:
    """What the user should know of votes that may say nothing."""
    if not asks_alone(config) or temperature is not None:
        return None
    return (
        "each record is alone in its requests, so its votes differ only as far as the endpoint's own temperature lets "
        "them: where that is 0, a confidence of 1 says nothing"
    )


def is_repeat(ballots: Sequence[Ballot], *, form: str, temperature: float | None) -> bool:
    """Whether a record that is asked alone now, in this answer form, has been asked the very same before.

    Only at temperature 0; where it is not known, the answer may be another one.
    """
    return temperature == 0 and any(ballot.lone_form == form for ballot in ballots)


def suffices(ballots: Sequence[Ballot], task: Task, *, most: int, stop: VotesStop) -> bool:
    """Whether no further round is to be asked.

    :param most: rounds.
    :param stop: ``decided``: when no other answer can draw level in the rounds that are left; ``agreed``: also when the
        last two answers are the same (as BatchPrompt's early stop, without the model's word for its confidence);
        ``never``: after `most` rounds.
    """
    left = most - len(ballots)
    if left <= 0:
        return True
    if not ballots or stop == "never":
        return False
    said = [_signature(ballot, task) for ballot in ballots]
    if stop == "agreed" and len(said) > 1 and said[-1] == said[-2]:
        return True
    return all(_lead(column) > left for column in zip(*said, strict=True))


def _lead(column: Sequence[Hashable]) -> int:
    counts = [count for _, count in Counter(column).most_common(2)]
    return counts[0] - (counts[1] if len(counts) > 1 else 0)


def elect(ballots: Sequence[Ballot], task: Task, *, blanks: int = 0) -> Elected:
    """The winner of each variable: the answer with the most votes, of several such the one that came first.

    Free texts and numbers are not voted on: they come from the reply that agrees with the most winners. A vote that
    has a confidence of its own (by token probabilities) counts for so much of a vote.

    :param ballots: at least one, the first round first.
    :param blanks: rounds that brought no valid answer: votes for nobody.
    """
    said = [_signature(ballot, task) for ballot in ballots]
    winners, tied = [], False
    for column in zip(*said, strict=True):
        counts = Counter(column)
        (winner, count), *others = counts.most_common()
        winners.append(winner)
        tied |= any(other == count for _, other in others)
    agreeing = [sum(one == winner for one, winner in zip(row, winners, strict=True)) for row in said]
    best = agreeing.index(max(agreeing))
    votes = len(ballots) + blanks
    confidence = ballots[0].confidence
    if votes > 1:
        weights = [1.0 if ballot.confidence is None else ballot.confidence for ballot in ballots]
        shares = [
            sum(weight for row, weight in zip(said, weights, strict=True) if row[place] == winner) / votes
            for place, winner in enumerate(winners)
        ]
        confidence = min(shares, default=None)
    return Elected(output=_filled(ballots, said, winners, best, task), confidence=confidence, votes=votes, tied=tied)


def _filled(
    ballots: Sequence[Ballot], said: Sequence[tuple[Hashable, ...]], winners: Sequence[Hashable], best: int, task: Task
) -> Any:
    """The reply that agrees best, its voted variables as they won."""
    output = ballots[best].output
    if not task.is_object or list(said[best]) == list(winners):
        return output
    filled = dict(output)
    voted = [name for name, field in task.variables.items() if field.type in CATEGORICAL]
    for place, (name, winner) in enumerate(zip(voted, winners, strict=True)):
        filled[name] = next(one.output[name] for one, row in zip(ballots, said, strict=True) if row[place] == winner)
    return filled


def _signature(ballot: Ballot, task: Task) -> tuple[Hashable, ...]:
    signature = label_signature(ballot.output, task)
    return signature if isinstance(signature, tuple) else ()


# -- who sits beside whom, and where -----------------------------------------------------------------------------------


def separated(chosen: Sequence[int], last_calls: Sequence[int], entry_tokens: Sequence[int]) -> list[int]:
    """The chosen records, those exchanged that were in one request the last time, as far as others wait.

    Only for a record that takes no more tokens, so that what fitted fits. The oldest, index 0, stays.

    :param chosen: indices of waiting records.
    :param last_calls: of each waiting record, the number of the request that it was in; `entry_tokens` likewise.
    """
    result = list(chosen)
    inside = Counter(last_calls[index] for index in result)
    taken = set(result)
    waiting = [index for index in range(len(last_calls)) if index not in taken]
    for place, index in enumerate(result):
        mates = inside[last_calls[index]] - 1
        if index == 0 or not mates:
            continue
        fitting = (one for one in waiting if entry_tokens[one] <= entry_tokens[index])
        other = min(fitting, key=lambda one: inside[last_calls[one]], default=None)
        if other is None or inside[last_calls[other]] >= mates:
            continue
        waiting[waiting.index(other)] = index
        inside[last_calls[index]] -= 1
        inside[last_calls[other]] += 1
        result[place] = other
    return result


def reseated(places: Sequence[Sequence[float]], rng: random.Random) -> list[int]:
    """An order in which records stand far from where they stood before: the best of some at random and the reverse.

    :param places: of each record, the places that it had in earlier requests, from 0 (first) to 1 (last).
    :return: indices, in the order in which they are sent.
    """
    count = len(places)
    if count < 2:
        return list(range(count))
    tries = [sorted(range(count), key=lambda index: -(places[index][-1] if places[index] else 0.5))]
    for _ in range(_ARRANGEMENTS):
        tries.append(rng.sample(range(count), count))
    return min(tries, key=lambda order: _closeness(order, places))


def _closeness(order: Sequence[int], places: Sequence[Sequence[float]]) -> float:
    last = len(order) - 1
    return sum(
        max((1.0 - abs(new / last - old) for old in places[index]), default=0.0) ** 2 for new, index in enumerate(order)
    )
