"""How sure a model was of each label in a reply, by the probabilities of the tokens that it wrote. Pure.

The probability of a label is that of its own tokens, one after the other: the product of all that overlap its letters.
The frame around it (braces, ids, quotes) is as good as certain and says nothing. A record with several variables is as
sure as the least sure of those that are compared. Where a reply is not plain JSON, or its tokens are not its text,
nothing is said: a confidence is never guessed. See docs/design/votes.md.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

import msgspec

from engine.decide.quality_evidence import CATEGORICAL
from engine.vocabulary.task import Task
from engine.vocabulary.values import Token

_MAX_DEPTH = 8
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null")


class _Span(msgspec.Struct, frozen=True, kw_only=True):
    """A value in a text: where it begins and ends, and what is in it."""

    start: int
    end: int
    value: Any


def confidences(text: str, tokens: Sequence[Token], ids: Collection[str], task: Task) -> dict[str, float]:
    """How sure the model was, by request id; ids that nothing can be said of are left out.

    :param text: of the reply, as it was read.
    :param tokens: that the endpoint says it consists of.
    """
    places = _places(text, tokens)
    if places is None:
        return {}
    starts, logprobs = places
    said = _results(text)
    count = Counter(id_ for id_, _ in said)
    found = {}
    for id_, output in said:
        spans = _voted(output, task) if id_ in ids and count[id_] == 1 else []
        if spans:
            found[id_] = min(math.exp(_sum(span, text, starts, logprobs)) for span in spans)
    return found


def _sum(span: _Span, text: str, starts: Sequence[int], logprobs: Sequence[float]) -> float:
    """Log-probability of the tokens that a value's letters are in, its quotes left out."""
    inner = int(text[span.start] == '"' and span.end - span.start > 2)
    first = bisect_right(starts, _bytes(text, span.start + inner)) - 1
    last = bisect_left(starts, _bytes(text, span.end - inner))
    return min(0.0, math.fsum(logprobs[first:last]))  # of these alone: another's -3.4e38 would swallow them


def _voted(output: _Span, task: Task) -> list[_Span]:
    """Of an output, the values that are compared."""
    if not task.is_object:
        field = next(iter(task.variables.values()))
        return [output] if field.type in CATEGORICAL else []
    if not isinstance(output.value, Mapping):
        return []
    voted = (name for name, field in task.variables.items() if field.type in CATEGORICAL)
    return [output.value[name] for name in voted if name in output.value]


# -- which token stands where ------------------------------------------------------------------------------------------


def _places(text: str, tokens: Sequence[Token]) -> tuple[list[int], list[float]] | None:
    """At which byte of the text each token begins, and its log-probability; None where they are not its tokens.

    They may have more before and after it, such as spaces and marks of the end.
    """
    whole = b"".join(token.content for token in tokens)
    begin = whole.find(text.encode(errors="replace")) if text else -1
    if begin < 0:
        return None
    starts, at = [], -begin
    for token in tokens:
        starts.append(at)
        at += len(token.content)
    return starts, [token.logprob for token in tokens]


def _bytes(text: str, characters: int) -> int:
    """Bytes of so many characters: a token may end within a letter."""
    return characters if text.isascii() else len(text[:characters].encode(errors="replace"))


# -- where in the text each value stands -------------------------------------------------------------------------------


def _results(text: str) -> list[tuple[str, _Span]]:
    """The results of a reply in plain JSON, with the places of their outputs; none where it is anything else."""
    begin = next((at for at, letter in enumerate(text) if letter in "{["), None)
    if begin is None:
        return []
    try:
        whole = _value(text, begin, 0).value
        results = whole["results"].value if isinstance(whole, dict) and "results" in whole else whole
    except (ValueError, IndexError, KeyError):
        return []
    found = []
    for one in results if isinstance(results, list) else [_Span(start=0, end=0, value=results)]:
        result = one.value
        if isinstance(result, dict) and "id" in result and "output" in result and isinstance(result["id"].value, str):
            found.append((result["id"].value, result["output"]))
    return found


def _value(text: str, at: int, depth: int) -> _Span:
    """The JSON value that begins here.

    :raises ValueError: there is none; IndexError: it ends too early.
    """
    if depth > _MAX_DEPTH:
        raise ValueError
    letter = text[at]
    if letter == '"':
        string, end = scanstring(text, at + 1, False)
        return _Span(start=at, end=end, value=string)
    if letter == "{":
        return _object(text, at, depth)
    if letter == "[":
        return _array(text, at, depth)
    scalar = _SCALAR.match(text, at)
    if scalar is None:
        raise ValueError
    return _Span(start=at, end=scalar.end(), value=None)


def _object(text: str, start: int, depth: int) -> _Span:
    inside: dict[str, _Span] = {}
    at = _after_space(text, start + 1)
    while text[at] != "}":
        if text[at] != '"':
            raise ValueError
        name, at = scanstring(text, at + 1, False)
        at = _after_space(text, at)
        if text[at] != ":" or name in inside:
            raise ValueError
        inside[name] = value = _value(text, _after_space(text, at + 1), depth + 1)
        at = _next(text, value.end, "}")
    return _Span(start=start, end=at + 1, value=inside)


def _array(text: str, start: int, depth: int) -> _Span:
    inside: list[_Span] = []
    at = _after_space(text, start + 1)
    while text[at] != "]":
        inside.append(_value(text, at, depth + 1))
        at = _next(text, inside[-1].end, "]")
    return _Span(start=start, end=at + 1, value=inside)


def _next(text: str, at: int, closing: str) -> int:
    """Where the next element begins, or the closing mark stands."""
    at = _after_space(text, at)
    if text[at] == closing:
        return at
    if text[at] != ",":
        raise ValueError
    at = _after_space(text, at + 1)
    if text[at] == closing:  # a comma too many: a value may be gone
        raise ValueError
    return at


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
