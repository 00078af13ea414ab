"""What a reply says about which record. Matching is by id only; position never counts.

The reply of a model is hostile text: fenced, wrapped in prose, cut, broken, repeated, invented. The reader takes every
whole result object that it finds, wherever it stands, and repairs only inside one result, so that no repair can
move an output to another id. See docs/design/recovery.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

import msgspec

from engine.decide.outputs import Check, NotAnOutput, Partial, PartlyAnOutput

MAX_TEXT = 1_000_000
"""Characters of a reply that are looked at; no honest reply comes near."""

_MAX_REPAIR = 20_000
_MAX_KEY = 400
_MAX_WORK = 8 * MAX_TEXT
_FAILURE_WORK = 5_000


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one reply.

    :ivar answers: canonical outputs by request id; only ids that were asked, each unambiguous and valid.
    :ivar defects: for asked ids that got something else: what was wrong. Ids in neither got no answer at all.
    :ivar foreign: results for ids that were not asked.
    :ivar found: result objects found, of whatever worth. 0 means that the reply was not in the format at all.
    :ivar unkeyed: results of the keyed form that came without their key.
    :ivar partial: of the ids in `defects`, those with some valid variables, and nothing else said about them.
    """

    answers: Mapping[str, Any]
    defects: Mapping[str, str]
    foreign: int
    found: int
    unkeyed: int = 0
    partial: Mapping[str, Partial] = {}


class _Twins(dict[str, Any]):
    """A JSON object in which a key occurred twice: which value is meant cannot be told."""


def read_answers(text: str, asked: Mapping[str, str], check: Check, *, keyed: bool = False) -> Reading:
    """Read a reply.

    :param text: the content of the model's message.
    :param asked: request id -> first words of its input (used by the keyed form only).
    :param check: from `decide.outputs`.
    """
    answers: dict[str, Any] = {}
    defects: dict[str, str] = {}
    partial: dict[str, Partial] = {}
    spoiled: set[str] = set()  # more than one thing was said of them, or one that cannot be trusted in any part
    foreign = found = unkeyed = 0
    for result in _results(_spoken(text[:MAX_TEXT])):
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
        except PartlyAnOutput as error:
            if partial.setdefault(id_, error.partial) != error.partial:
                spoiled.add(id_)
            defects[id_] = str(error)
        except NotAnOutput as error:
            spoiled.add(id_)
            defects[id_] = str(error)
        else:
            if id_ in answers and answers[id_] != output:
                defects[id_] = "answered twice, differently"
            answers[id_] = output
    for id_ in defects:
        if answers.pop(id_, None) is not None or id_ in spoiled:
            partial.pop(id_, None)
    return Reading(answers=answers, defects=defects, foreign=foreign, found=found, unkeyed=unkeyed, partial=partial)


def _checked(result: Mapping[str, Any], check: Check) -> Any:
    output = result["output"]
    if isinstance(result, _Twins) or isinstance(output, _Twins):
        raise NotAnOutput("a key stands twice in its result")
    return check(output)


def _spoken(text: str) -> str:
    """The reply without what a model thought aloud before it: drafts are no answers."""
    if text.lstrip()[:1] in ("{", "[", "`"):
        return text
    thought, closed, after = text.partition("</think>")
    if closed:
        return after
    return thought.partition("<think>")[0]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Twins(made)


# strict=False takes raw control characters inside strings, the commonest slip of small models.
_decoder = json.JSONDecoder(object_pairs_hook=_pairs, strict=False)


def _results(text: str) -> Iterator[Mapping[str, Any]]:
    """Try to parse at every ``{``. A whole that does not parse is entered, so its whole parts are still found.

    Work is counted in characters read in vain, so that no text, however hostile, takes more than a second or two.
    """
    work_left = _MAX_WORK
    at = text.find("{")
    while at >= 0 and work_left > 0:
        try:
            value, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            work_left -= _FAILURE_WORK + getattr(error, "pos", len(text)) - at
            value, end = _repaired(text, at) or (None, at + 1)
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


_STRINGS = r"""[^{}"']++|"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+'"""
_OBJECT = re.compile(rf"\{{(?:{_STRINGS}|\{{(?:{_STRINGS})*+\}})*+\}}", re.DOTALL)
_KEY = re.compile(r"""["'](id|output)["']\s*:""")
_SLIP = re.compile(
    r"""(?P<json>"(?:[^"\\]|\\.)*")|'(?P<python>(?:[^'\\]|\\.)*)'|(?P<lost>[\[{:,]\s*,)|,(?=\s*[}\]])|\b(?P<name>True|False|None)\b""",
    re.DOTALL,
)
_NAMES = {"True": "true", "False": "false", "None": "null"}


def _repaired(text: str, at: int) -> tuple[Any, int] | None:
    """One result object with trailing commas or Python's spelling, and its end. Only within its own braces."""
    braced = _OBJECT.match(text, at, at + _MAX_REPAIR)
    if braced is None or sorted(_KEY.findall(braced[0])) != ["id", "output"]:
        return None
    try:
        return _decoder.decode(_SLIP.sub(_mended, braced[0])), braced.end()
    except (ValueError, RecursionError):
        return None


def _mended(slip: re.Match[str]) -> str:
    if slip["json"] is not None:
        return slip["json"]
    if slip["python"] is not None:
        return f'"{re.sub(_QUOTES, _quote, slip["python"])}"'
    if slip["lost"] is not None:  # no trailing comma: a value is gone from before it, and nobody knows which
        return slip["lost"]
    return _NAMES.get(slip["name"], "")


_QUOTES = re.compile(r"""\\.|\"""", re.DOTALL)


def _quote(found: re.Match[str]) -> str:
    return {"\\'": "'", '"': '\\"'}.get(found[0], found[0])


_NOT_WORD = re.compile(r"[\W_]+")
_MIN_BYTES = 8  # of a beginning that tells something: two short words, or three Chinese characters
_BEGINNING = 0.95
_FITS = 0.85


def _check_key(key: Any, expected: str, asked: Mapping[str, str]) -> None:
    if not isinstance(key, str):
        raise NotAnOutput("the key 'starts' is missing")
    if key == expected:
        return
    fit = _fit(key, expected)
    # A near copy may be a better copy of a neighbour that begins alike; then it is the neighbour's.
    if fit < _FITS or any(key == other or _fit(key, other) > fit for other in asked.values()):
        raise NotAnOutput(f"the key {key[:60]!r} does not fit its record")


def key_fits(key: str, expected: str) -> bool:
    """Whether a model's copy of the first words belongs to a record.

    Case, punctuation and spacing are ignored; one may be the beginning of the other (models copy four or six words
    for five); small slips of a copy are allowed, another record's words are not.
    """
    return _fit(key, expected) >= _FITS


def _fit(key: str, expected: str) -> float:
    """How well a key fits, from 0 to 1: 1 for a copy."""
    said, real = _words(key), _words(expected)
    if said == real:
        return 1.0
    if not real:
        return _FITS  # nothing to repeat: whatever was said speaks for no other, unless it is a copy of another
    shorter = min(said, real, key=len)
    if len(shorter.encode(errors="replace")) >= _MIN_BYTES and (said.startswith(real) or real.startswith(said)):
        return _BEGINNING
    return SequenceMatcher(None, said, real, autojunk=False).ratio()


def _words(text: str) -> str:
    """`text` without case, punctuation and spacing; as it is where nothing else is in it, such as one emoji."""
    text = text[:_MAX_KEY].casefold()
    return " ".join(_NOT_WORD.sub(" ", text).split()) or text.strip()
