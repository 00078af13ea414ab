"""What a fault does to the results and to the text of a reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import msgspec

Result = dict[str, Any]

OFF_LABEL = "None Of The Above ☂"
WRONG_VALUES: tuple[Any, ...] = (None, {"unexpected": "shape"}, [[]])
"""Values that no schema of a task allows, whatever its type."""

BEFORE = ("Sure! Here are the results:\n", "Let me judge each item {by itself}.\n\n", "<think>\nHm.\n</think>\n")
AFTER = ("", "\n\nLet me know if you need anything else!", "\nNote: item 1 was [hard] to judge.")
GARBAGE = '{"results":[{"id":"\ufffd\ufffd\ufffd\ufffd'

encode = msgspec.json.Encoder().encode


def join(parts: Iterable[bytes]) -> str:
    """A reply from its encoded results."""
    return (b'{"results":[' + b",".join(parts) + b"]}").decode()


def spoiled(output: Any, rng: Random, *, labels: bool) -> Any:
    """An output of the wrong type or outside the labels; one field of it, if it has fields.

    :param labels: whether outputs are labels, so that another string is wrong too.
    """
    if isinstance(output, dict) and output and rng.random() < 0.7:
        name = rng.choice(list(output))
        return {**output, name: spoiled(output[name], rng, labels=False)}
    if labels and rng.random() < 0.5:
        return OFF_LABEL
    return rng.choice(WRONG_VALUES)


def swap_ids(results: Sequence[Result], rng: Random) -> bool:
    """Exchange the ids of two results with different outputs; whatever else stands in a result goes with the output."""
    order = rng.sample(range(len(results)), len(results))
    for first, second in pairwise(order):
        one, two = results[first], results[second]
        if one["output"] != two["output"]:
            one["id"], two["id"] = two["id"], one["id"]
            return True
    return False


def reordered(results: list[Result], rng: Random) -> list[Result]:
    """Reversed, or in any order."""
    if rng.random() < 0.5:
        return results[::-1]
    return rng.sample(results, len(results))


def slightly_broken(parts: Sequence[bytes], rng: Random) -> str:
    """JSON as models break it: a comma too many, a bracket too few, Python's quotes."""
    kind = rng.randrange(4)
    if kind == 0:
        return join(parts).removesuffix("]}") + ",]}"
    if kind == 1:
        return join(part.removesuffix(b"}") + b",}" for part in parts)
    if kind == 2:
        return join(parts).removesuffix("]}")
    return join(repr(msgspec.json.decode(part)).encode() for part in parts)


def fenced(text: str) -> str:
    """Inside a Markdown code block."""
    return f"```json\n{text}\n```"


def wrapped(text: str, rng: Random) -> str:
    """With prose around it."""
    return rng.choice(BEFORE) + text + rng.choice(AFTER)


def cut(text: str, rng: Random) -> str:
    """Ending in the middle."""
    return text[: int(len(text) * rng.uniform(0.1, 0.95))]


def foreign_id(asked: Iterable[str | int], earlier: Sequence[Sequence[str | int]], rng: Random) -> str | int | None:
    """An id that was not asked: one of an earlier request, of the examples, or a plain number."""
    taken = set(asked)
    pool = [*(rng.choice(earlier) if earlier else ()), "ex-1", "ex-2", "1", f"{rng.randrange(36**3):x}-1"]
    return next((id_ for id_ in rng.sample(pool, len(pool)) if id_ not in taken), None)
