"""What a reply says about which record. Matching is by id only; position never counts.

The reply of a model is hostile text: fenced, wrapped in prose, cut, broken, repeated, invented. The reader takes every
whole result object that it finds, wherever it stands, and repairs only inside one result, so that no repair can
move an output to another id. See docs/design/recovery.md.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

import msgspec

from engine.decide.outputs import Check, NotAnOutput

MAX_TEXT = 4_000_000
"""Characters of a reply that are looked at; no honest reply comes near."""

_MAX_REPAIR = 20_000
_FAILED_PARSES = 64


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one reply.

    :ivar answers: canonical outputs by request id; only ids that were asked, each unambiguous and valid.
    :ivar defects: for asked ids that got something else: what was wrong. Ids in neither got no answer at all.
    :ivar foreign: results for ids that were not asked.
    :ivar found: result objects found, of whatever worth. 0 means that the reply was not in the format at all.
    :ivar unkeyed: results of the keyed form that came without their key.
    """

    answers: Mapping[str, Any]
    defects: Mapping[str, str]
    foreign: int
    found: int
    unkeyed: int = 0


class _Twins(dict[str, Any]):
    """A JSON object in which a key occurred twice: which value is meant cannot be told."""


class _Result(msgspec.Struct):
    id: str
    output: Any
    starts: Any = None


class _Reply(msgspec.Struct):
    results: list[_Result]


_decode_reply = msgspec.json.Decoder(_Reply).decode


def read_answers(text: str, asked: Mapping[str, str], check: Check, *, keyed: bool = False) -> Reading:
    """Read a reply.

    :param text: the content of the model's message.
    :param asked: request id -> first words of its input (used by the keyed form only).
    :param check: from `decide.outputs`.
    """
    answers: dict[str, Any] = {}
    defects: dict[str, str] = {}
    foreign = found = unkeyed = 0
    for result in _results(text[:MAX_TEXT]):
        found += 1
        id_ = result.get("id")
        if not isinstance(id_, str) or id_ not in asked:
            foreign += 1
            continue
        try:
            if keyed:
                unkeyed += "starts" not in result
                _check_key(result.get("starts"), asked[id_], asked)
            output = _checked(result, check)
        except NotAnOutput as error:
            defects[id_] = str(error)
        else:
            if id_ in answers and answers[id_] != output:
                defects[id_] = "answered twice, differently"
            answers[id_] = output
    for id_ in defects:
        answers.pop(id_, None)
    return Reading(answers=answers, defects=defects, foreign=foreign, found=found, unkeyed=unkeyed)


def _checked(result: Mapping[str, Any], check: Check) -> Any:
    if isinstance(result, _Twins):
        raise NotAnOutput("a key stands twice in its result")
    return check(result["output"])


def _results(text: str) -> Iterator[Mapping[str, Any]]:
    """Every result object in the text: fast where the reply is as asked for, else by scanning."""
    try:
        reply = _decode_reply(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        yield from _scan(text)
        return
    count = len(reply.results)
    # msgspec lets the last of two equal keys win in silence; then the slow way, which sees them.
    if text.count('"id"') != count or text.count('"output"') != count or text.count('"results"') != 1:
        yield from _scan(text)
        return
    for result in reply.results:
        key = {} if result.starts is None else {"starts": result.starts}
        yield {"id": result.id, "output": result.output, **key}


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Twins(made)


# strict=False takes raw control characters inside strings, the commonest slip of small models.
_decoder = json.JSONDecoder(object_pairs_hook=_pairs, strict=False)


def _scan(text: str) -> Iterator[Mapping[str, Any]]:
    """Try to parse at every ``{``. A whole that does not parse is entered, so its whole parts are still found."""
    _, think, after = text.rpartition("</think>")
    text = after if think else text
    failures_left = _FAILED_PARSES + text.count('"id"') * 2
    at = text.find("{")
    while at >= 0 and failures_left:
        try:
            value, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            failures_left -= 1
            value, end = _repaired(text, at), at + 1
            if value is not None:
                end = _span_end(text, at)
        if value is not None:
            yield from _results_in(value)
        at = text.find("{", end)


def _results_in(value: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, dict):
        return
    if "id" in value and "output" in value:
        yield value
        return
    inside = value.get("results")
    for element in inside if isinstance(inside, list) else ():
        if isinstance(element, dict) and "id" in element and "output" in element:
            yield element


_COMMA_BEFORE_CLOSE = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
_KEY = re.compile(r"""["'](id|output)["']\s*:""")


def _repaired(text: str, at: int) -> Any | None:
    """One result object with a trailing comma or Python quotes, or None. Only within its own braces."""
    end = _span_end(text, at)
    span = text[at:end]
    if end < 0 or sorted(_KEY.findall(span)) != ["id", "output"]:
        return None
    without_commas = _COMMA_BEFORE_CLOSE.sub(lambda match: match.group(1) or "", span)
    try:
        return _decoder.raw_decode(without_commas)[0]
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(span)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _span_end(text: str, at: int) -> int:
    """Index after the brace that closes the one at `at`, strings respected; -1 if there is none nearby."""
    depth, quote = 0, ""
    index, stop = at, min(len(text), at + _MAX_REPAIR)
    while index < stop:
        char = text[index]
        if quote:
            if char == "\\":
                index += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return index + 1
        index += 1
    return -1


_NOT_WORD = re.compile(r"[\W_]+")


def _check_key(key: Any, expected: str, asked: Mapping[str, str]) -> None:
    if not isinstance(key, str):
        raise NotAnOutput("the key 'starts' is missing")
    # A near copy may be an exact copy of a neighbour that begins alike; then it is the neighbour's.
    if not key_fits(key, expected) or (key != expected and key in asked.values()):
        raise NotAnOutput(f"the key {key[:60]!r} does not fit its record")


def key_fits(key: str, expected: str) -> bool:
    """Whether a model's copy of the first words belongs to a record.

    Case, punctuation and spacing are ignored; one may be the beginning of the other (models copy four or six words
    for five); small slips of a copy are allowed, another record's words are not.
    """
    said, real = (" ".join(_NOT_WORD.sub(" ", text.casefold()).split()) for text in (key, expected))
    if said == real:
        return True
    if not said or not real:
        return not real and not expected.strip()  # nothing to repeat: whatever was said cannot be another's
    if min(len(said), len(real)) >= 8 and (said.startswith(real) or real.startswith(said)):
        return True
    return SequenceMatcher(None, said, real, autojunk=False).ratio() >= 0.85
