r"""Finds pieces of a key in a text: its beginning, its halves, or all of it with something invisible inside. Pure.

A text is read as a person would read it: escapes (``\u002d``, ``%2D``, ``&#45;``) stand for what they mean, marks that
nobody sees are not there, dashes and full-width letters are the plain ones, and the case of letters does not matter.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable

from engine.vocabulary.secrets import HIDDEN

_IN_JSON = r"\\{1,4}u00[2-7][0-9A-Fa-f]"
_ESCAPES = rf"{_IN_JSON}|\\{{1,4}}u[0-9A-Fa-f]{{4}}|\\{{1,4}}[/\\\"nrt]|%[0-9A-Fa-f]{{2}}"
_ENTITIES = r"&\#0{0,4}\d{1,6};|&\#[xX]0{0,4}[0-9A-Fa-f]{1,5};"
_INVISIBLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
)
_DASHES = r"\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_WIDE = r"\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff3f"  # no commas and stops: those are common in Chinese
_LOOK = f"[{_INVISIBLE}{_DASHES}{_WIDE}]"
_ODD = re.compile(rf"{_ESCAPES}|{_ENTITIES}|{_LOOK}|\s+")
_ESCAPED = re.compile(rf"{_ESCAPES}|{_ENTITIES}")
_UNSEEN, _DASH = re.compile(rf"[{_INVISIBLE}]|\s+"), re.compile(f"[{_DASHES}]")
_LOWER = {ord(letter): ord(letter.lower()) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}  # one for one, unlike str.lower


class Fragments:
    """Takes runs of so many characters of any secret out of texts."""

    def __init__(self, secrets: Iterable[str], *, least: int, in_answers: bool = False) -> None:
        """:param least: characters of a run, an even number.

        :param in_answers: a quick look has to do, which takes letters beyond ASCII for none at all.
        """
        plain = [secret.translate(_LOWER) for secret in secrets]
        self._least = least
        self._runs = frozenset(_windows(plain, least))
        self._blocks = frozenset(_windows(plain, least // 2))
        self._block = re.compile(rf"(?s).{{{least // 2}}}")
        self._in_answers = in_answers

    def hide(self, text: str) -> str:
        """The text without them."""
        if not self._runs:
            return text
        if not self._may_hold(self._seen(text)):
            return text
        return self._without(text, *_as_seen(text))

    def _seen(self, text: str) -> str:
        """About what a reader sees. Answers, of which there are many, are looked at quickly."""
        if not self._in_answers:
            return _lowered(_ODD.sub(_meant_by, text))
        if "\\" in text or "%" in text or "&#" in text:
            text = _ESCAPED.sub(_meant_by, text)
        return "".join((text if text.isascii() else text.encode("ascii", "ignore").decode()).split()).lower()

    def _may_hold(self, seen: str) -> bool:
        """A run covers a block of half its length, wherever it begins: a look at every such block rules it out."""
        return not self._blocks.isdisjoint(self._block.findall(seen))

    def _without(self, text: str, seen: str, places: list[tuple[int, int]]) -> str:
        kept: list[str] = []
        least, runs, at, done = self._least, self._runs, 0, 0
        while at <= len(seen) - least:
            if seen[at : at + least] not in runs:
                at += 1
                continue
            first = at
            while seen[at + 1 : at + 1 + least] in runs:
                at += 1
            at += least
            kept += (text[done : places[first][0]], HIDDEN)
            done = places[at - 1][1]
        return "".join([*kept, text[done:]]) if kept else text


def _windows(texts: Iterable[str], length: int) -> Iterable[str]:
    return (text[at : at + length] for text in texts for at in range(len(text) - length + 1))


def _as_seen(text: str) -> tuple[str, list[tuple[int, int]]]:
    """What a reader sees, one character after the other, and where each stands in the text: from and to."""
    seen: list[str] = []
    places: list[tuple[int, int]] = []
    done = 0
    for found in _ODD.finditer(text):
        begin, end = found.span()
        seen.append(text[done:begin])
        places += zip(range(done, begin), range(done + 1, begin + 1), strict=True)
        meant = _meant(found.group())
        seen.append(meant)
        places += [(begin, end)] * len(meant)
        done = end
    seen.append(text[done:])
    places += zip(range(done, len(text)), range(done + 1, len(text) + 1), strict=True)
    return _lowered("".join(seen)), places


def _lowered(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_LOWER)


def _meant_by(found: re.Match[str]) -> str:
    return _meant(found.group())


def _meant(odd: str) -> str:
    """The character that an escape, or an odd one, stands for; nothing for one that is not seen."""
    meant = _unescaped(odd)
    if _UNSEEN.match(meant):
        return ""
    return "-" if _DASH.match(meant) else unicodedata.normalize("NFKC", meant)


def _unescaped(odd: str) -> str:
    if odd.startswith("\\"):
        last = odd.lstrip("\\")
        if last in ("n", "r", "t"):
            return " "
        return chr(int(last[1:], 16)) if len(last) > 1 else last or "\\"
    if odd.startswith("&#"):
        digits = odd[2:-1]
        number = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
        return chr(number) if number <= sys.maxunicode else "?"
    return chr(int(odd[1:], 16)) if odd.startswith("%") else odd
