"""The form in which results are asked for: by the schema of the request, else by its words.

A key is whatever a result shall hold before its ``output``, by any name; its value, a string, repeats the first words
of the input. In a prompt it is found in the document that shows the form, or in an example of a reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from json import JSONDecoder
from typing import Any

import msgspec

from .answers import Answer, answer_of, first_words
from .request import Record

STARTS = "starts"
"""The name of a key that the words of a prompt ask for without showing a document with it."""

KEY_WORDS = 5
"""Words in a key, where the prompt does not say how many."""


@dataclass(frozen=True, slots=True)
class ReplyShape:
    """What the results of one request look like.

    :ivar keys: properties of a result besides ``id`` and ``output``, in their order, before ``output``; a string
        property (answer None) repeats the first words of the input.
    :ivar output: the schema of an output, or None where the request has none.
    :ivar answer: what makes outputs of that schema.
    :ivar kind: ``response_format.type``: ``text``, ``json_object`` or ``json_schema``.
    :ivar whole: for a schema that is not one of results: the maker of a whole reply.
    :ivar exact: whether the schema holds the number of results.
    :ivar key_words: how many words a key repeats.
    """

    keys: tuple[tuple[str, Answer | None], ...] = ()
    output: Mapping[str, Any] | None = None
    answer: Answer | None = None
    kind: str = "text"
    whole: Answer | None = None
    exact: bool = False
    key_words: int = KEY_WORDS

    @property
    def keyed(self) -> bool:
        """Whether a result repeats words of its input before its output."""
        return any(answer is None for _, answer in self.keys)

    def result(self, record: Record, output: Any) -> dict[str, Any]:
        """One result with this output."""
        made = {"id": record.id}
        for name, answer in self.keys:
            made[name] = (
                first_words(record.input, self.key_words) if answer is None else answer(record.text, f"/{name}")
            )
        made["output"] = output
        return made


_PLAIN = ReplyShape()


@lru_cache(maxsize=256)
def shape_of_format(response_format: bytes) -> ReplyShape:
    """The shape asked for by a ``response_format``, which is the same in every request of a run.

    :raises msgspec.MsgspecError: if it is not one.
    """
    try:
        return _shape(msgspec.json.decode(response_format, type=dict[str, Any] | None) or {})
    except (AttributeError, TypeError) as error:  # a list or number where an object should be
        raise msgspec.ValidationError(f"not a JSON schema: {error}") from None


def _shape(document: Mapping[str, Any]) -> ReplyShape:
    kind = str(document.get("type", "text"))
    if kind != "json_schema":
        return ReplyShape(kind=kind)
    schema = document.get("json_schema", {}).get("schema", {})
    results = schema.get("properties", {}).get("results", {})
    result = results.get("items", {}).get("properties")
    if not result or "output" not in result:
        return ReplyShape(kind=kind, whole=answer_of(schema))
    keys = tuple(
        (name, None if part.get("type") == "string" and "enum" not in part else answer_of(part))
        for name, part in result.items()
        if name not in ("id", "output")
    )
    least, most = results.get("minItems"), results.get("maxItems")
    return ReplyShape(
        keys=keys,
        output=result["output"],
        answer=answer_of(result["output"]),
        kind=kind,
        exact=least is not None and least == most,
    )


_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_FIRST_WORDS = re.compile(r"first (\w+) words")
_RESULTS = re.compile(r'\{\s*"results"\s*:')
_decode_at = JSONDecoder().raw_decode


@lru_cache(maxsize=256)
def shape_of_words(words: str) -> ReplyShape:
    """The shape asked for by the words of the prompt alone."""
    names = next((names for names in map(_keys_shown, _documents(words)) if names is not None), ())
    if not names and f'"{STARTS}"' in words:
        names = (STARTS,)
    if not names:
        return _PLAIN
    return ReplyShape(keys=tuple((name, None) for name in names), key_words=_key_words(words))


def _documents(words: str) -> Iterator[Any]:
    """Documents of results that stand in a prompt: the form, examples of replies."""
    for found in _RESULTS.finditer(words):
        try:
            yield _decode_at(words, found.start())[0]
        except (ValueError, RecursionError):
            continue


def _keys_shown(document: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the strings between ``id`` and ``output`` of the first result; None if there is no such result."""
    results = document["results"]
    result = results[0] if isinstance(results, list) and results else None
    if not isinstance(result, dict) or "output" not in result:
        return None
    names = list(result)
    before = names[: names.index("output")]
    return tuple(name for name in before if name != "id" and isinstance(result[name], str))


def _key_words(words: str) -> int:
    found = _FIRST_WORDS.search(words)
    number = found[1].lower() if found else ""
    return int(number) if number.isdecimal() else _NUMBERS.get(number, KEY_WORDS)
