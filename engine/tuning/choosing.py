"""Which of a task's examples are shown: chosen once for a task, so that the prefix of every request is the same."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from engine.decide.prompts import input_text
from engine.vocabulary.task import Example

Choice = Literal["balanced", "first", "diverse"]
"""balanced: one of each output before a second of any, each in the task's own order. first: as the task has them.
diverse: balanced, and of each output those first whose words are least like those before."""

CHOICES: tuple[str, ...] = get_args(Choice)

_MOST_COMPARED = 300  # of one output: each is compared with all before it
_WORD = re.compile(r"\w+")


def chosen_examples(examples: Sequence[Example], count: int, choice: Choice = "balanced") -> list[Example]:
    """So many of the examples. A smaller choice is part of a larger one."""
    if choice == "first":
        return list(examples[:count])
    groups: dict[bytes, list[Example]] = {}
    for example in examples:
        groups.setdefault(msgspec.json.encode(example.output, order="sorted"), []).append(example)
    columns = [_spread(group) if choice == "diverse" else group for group in groups.values()]
    rounds = itertools.zip_longest(*columns)
    return [example for one_round in rounds for example in one_round if example is not None][:count]


def _spread(examples: Sequence[Example]) -> list[Example]:
    """Each as far as can be from those before it, the first one first.

    Farthest-first traversal (Gonzalez 1985, Theor. Comput. Sci. 38) under the Jaccard distance of the sets of words.
    """
    words = [frozenset(_WORD.findall(input_text(example.input).casefold())) for example in examples[:_MOST_COMPARED]]
    left = list(range(len(words)))
    nearest = [2.0] * len(words)
    order: list[int] = []
    while left:
        last = max(left, key=lambda index: (nearest[index], -index))
        left.remove(last)
        order.append(last)
        for index in left:
            nearest[index] = min(nearest[index], _distance(words[last], words[index]))
    return [*(examples[index] for index in order), *examples[_MOST_COMPARED:]]


def _distance(one: frozenset[str], other: frozenset[str]) -> float:
    either = len(one | other)
    return 1.0 - len(one & other) / either if either else 0.0
