"""What the fuzzers share: a case, where a found one is written, and edits of text that every format suffers."""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

FOUND = Path("out/fuzz")
"""Where a case that broke something is written; look at it, mend, and move it into tests/fuzz/corpus."""


class Target(Protocol):
    """One thing that is fuzzed."""

    def make(self, rng: Random) -> dict[str, Any]:
        """A case: JSON values only, so that it can be kept as a file."""

    def check(self, case: dict[str, Any]) -> str | None:
        """What is wrong with how the case is treated; None if nothing. Whatever it raises is a crash."""


def keep(name: str, case: dict[str, Any], why: str) -> Path:
    """Write a case down, with the reason."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.iterdir())):04}.json"
    path.write_text(json.dumps({"why": why, **case}, indent=1), encoding="ascii")
    return path


def packed(text: str) -> list[Any]:
    """A text as pieces, a long repetition as ``[what, times]``, so that huge cases stay small files."""
    pieces: list[Any] = []
    start = at = 0
    while at < len(text):
        unit, times = _repetition(text, at)
        if len(unit) * times > 200:
            pieces += [text[start:at], [unit, times]] if start < at else [[unit, times]]
            start = at = at + len(unit) * times
        else:
            at += 1
    return [*pieces, text[start:]]


def _repetition(text: str, at: int) -> tuple[str, int]:
    """The shortest unit that is repeated at a place, and how often."""
    for size in range(1, 9):
        unit = text[at : at + size]
        end = at + size
        while text.startswith(unit, end) and end < len(text):
            end += size
        if end - at > 200:
            return unit, (end - at) // size
    return "", 0


def unpacked(pieces: str | Sequence[Any]) -> str:
    """The text of `packed`."""
    if isinstance(pieces, str):
        return pieces
    return "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in pieces)


ODD = (
    "\u0000", "\u001b", "\u2028", "\u202e", "\u200b", "\ufeff", "\ud800", "\udfff", "\\ud83d", "\\u0000", "\\",
    "\\\\", '"', "'", "“", "”", "＂", "｛", "：", "{", "}", "[", "]", ",", ":", "{}", "[]", '":"', "',", "\n", "\r\n",
    "\t", "```", "null", "None", "True", "NaN", "-Infinity", "1e999", "-0", "0x10", "1_000", "9" * 30, "9" * 5000,
    "1e308", "//", "/*", "#", "<think>", "</think>", "<|im_end|>", '{"results":[', "]}", "İ", "ß", "ﬁ", "é", "é",
    "&quot;", "%22",
)  # fmt: skip
"""What goes astray in texts, and what tells one reader from another."""

HUGE = (
    "[",
    "{",
    '{"a":',
    "[[",
    '"',
    "\\",
    "'",
    "{'",
    "9",
    "a",
    " ",
    "<think>",
    '{"id":"',
    "é",
    ",",
    "{'a':\"",
    '{"x":1,}',
)


def edited(text: str, other: str, rng: Random, *, huge: bool = False) -> str:  # noqa: PLR0912 - a list of edits
    """One edit of a text.

    :param other: another text of its kind, for splices.
    """
    size = len(text)
    one, two = sorted((int(rng.random() * (size + 1)), int(rng.random() * (size + 1))))
    near = min(size, one + 1 + int(rng.random() * 12))
    if huge:
        unit = rng.choice(HUGE)
        return text[:one] + unit * (int(10 ** rng.uniform(2, 6.2)) // len(unit)) + text[near:]
    match int(rng.random() * 14):
        case 0:  # cut
            return text[:two]
        case 1:
            return text[one:]
        case 2:  # a piece lost
            return text[:one] + text[near:]
        case 3:
            return text[:one] + text[two:]
        case 4:  # a piece twice
            return text[:two] + text[one:]
        case 5 | 6:  # splice
            at = int(rng.random() * (len(other) + 1))
            return text[:one] + other[at:]
        case 7:
            at = int(rng.random() * (len(other) + 1))
            return text[:one] + other[at : at + int(rng.random() * 80)] + text[near:]
        case 8:  # two pieces change places
            middle = (one + two) // 2
            return text[:one] + text[middle:two] + text[one:middle] + text[two:]
        case 9:
            return text.replace('"', "'") if rng.random() < 0.5 else text[:one] + text[one:].replace('"', "'")
        case 10:
            return text[:one] + text[one:two].replace('"', '\\"') + text[two:]
        case 11:
            depth = 1 + int(rng.random() * 60)
            return text[:one] + rng.choice("[{") * depth + text[one:]
        case _:
            return text[:one] + rng.choice(ODD) + text[one if rng.random() < 0.5 else near :]


def most_memory_mib() -> float:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
