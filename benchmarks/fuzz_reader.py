"""A second reader of replies, lenient and slow, written for the fuzzer only: what does a text state?"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.decide.outputs import Check, NotAnOutput

_TOKEN = re.compile(r"""\s+|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|[{}\[\],:]|[^\s{}\[\],:"']+""", re.DOTALL)
_NAMES = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_MOST_TOKENS = 3_000
_TWIN = "\0twin"
"""Stands in an object that had a key twice: it states nothing, and what holds it may."""


class _Unreadable(Exception):
    """Not a value."""


def stated(text: str, check: Check) -> set[tuple[str, bytes]]:
    """Every pair of an id and an output that the text states in one object, wherever that stands."""
    found = set()
    at = text.find("{")
    while at >= 0:
        try:
            value, _ = _Scan(text, at).value()
        except _Unreadable:
            value = None
        if _is_result(value):
            with contextlib.suppress(NotAnOutput, ValueError):
                found.add((value["id"], canonical(check(value["output"]))))
        at = text.find("{", at + 1)
    return found


def _is_result(value: Any) -> bool:
    if not isinstance(value, Mapping) or not {"id", "output"} <= value.keys() or _TWIN in value:
        return False
    output = value["output"]
    return isinstance(value["id"], str) and not (isinstance(output, Mapping) and _TWIN in output)


def canonical(output: Any) -> bytes:
    """An output as bytes that are equal where it is."""
    return msgspec.json.encode(output, order="deterministic")


class _Scan:
    """A lenient reader of one value, by hand: commas too many, either quote, Python's names; no key twice."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self._at = at
        self._left = _MOST_TOKENS

    def _next(self) -> re.Match[str]:
        while True:
            token = _TOKEN.match(self._text, self._at)
            self._left -= 1
            if token is None or self._left < 0:
                raise _Unreadable
            self._at = token.end()
            if not token[0].isspace():
                return token

    def value(self, token: re.Match[str] | None = None, depth: int = 0) -> tuple[Any, int]:
        token = token or self._next()
        if depth > 200:
            raise _Unreadable
        word = token[0]
        if word[0] in "\"'":
            return _string(token), self._at
        if word == "{":
            return self._object(depth), self._at
        if word == "[":
            return self._array(depth), self._at
        return _scalar(word), self._at

    def _object(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        token = self._next()
        while token[0] != "}":
            if token[0][0] not in "\"'":
                raise _Unreadable
            key = _string(token)
            if self._next()[0] != ":":
                raise _Unreadable
            if key in made:
                made[_TWIN] = True
            made[key] = self.value(depth=depth + 1)[0]
            token = self._next()
            if token[0] == ",":
                token = self._next()
            elif token[0] != "}":
                raise _Unreadable
        return made

    def _array(self, depth: int) -> list[Any]:
        made = []
        token = self._next()
        while token[0] != "]":
            made.append(self.value(token, depth + 1)[0])
            token = self._next()
            if token[0] == ",":
                token = self._next()
            elif token[0] != "]":
                raise _Unreadable
        return made


def _scalar(word: str) -> Any:
    if word in _NAMES:
        return _NAMES[word]
    try:
        return json.loads(word)
    except ValueError:
        raise _Unreadable from None


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def _string(token: re.Match[str]) -> str:
    inside = token[1] if token[1] is not None else token[2]
    if "\\" not in inside:
        return inside
    try:
        raw = re.sub(r"\\u([0-9a-fA-F]{4})|\\(.)", _unescaped, inside, flags=re.DOTALL)
        return raw.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    except UnicodeDecodeError:
        return inside


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else _ESCAPES.get(found[2], found[2])
