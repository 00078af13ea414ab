"""Figures in words, the same on a terminal, in a final table and in the report."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

_FULL = 0.9  # of a batch: retries and the last one of a file make it a little less
_LEVELS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k"))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # a part of words in Persian, and of emoji


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,.0f}"


def batch_size(most: int, mean: float | None) -> str:
    """Records a request; where they were clearly fewer than they might have been, how many on average as well.

    :param mean: None where nobody knows.
    """
    return f"{most}" if mean is None or mean >= _FULL * most else f"{most} (mean {three_digits(mean)})"


def short_number(value: float) -> str:
    """A large count in about four characters: ``9,999``, ``12.3k``, ``4.56M``."""
    for unit, letter in _LEVELS:
        if value >= unit:
            scaled = value / (1e3 if letter == "k" else unit)
            digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
            return f"{scaled:.{digits}f}{letter}"
    return number(value)


def plural(count: float, noun: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def share(part: float, whole: float) -> str:
    """A percentage that never rounds something to 0 % nor less than everything to 100 %."""
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    digits = 0 if percent >= 99.95 or percent == 0 else 1
    return f"{percent:.{digits}f} %"


def three_digits(value: float) -> str:
    """A measured value, no more exact than it is read: ``1,234``, ``12.3``, ``0.0123``."""
    if value >= 99.95:
        return number(value)
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.9995 or not value else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """A latency or a short time, in the unit that fits: ``85 ms``, ``4.2 s``, ``3 min 20 s``."""
    if value is None:
        return "–"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms" if value >= 0.01 or not value else f"{value * 1000:.1f} ms"
    if value < 9.95:
        return f"{value:.2f} s"
    return f"{value:.1f} s" if value < 59.95 else duration(value)


def duration(value: float) -> str:
    """A long time: ``45 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24} h"


def clock(value: float) -> str:
    """A time left, as narrow as it goes: ``0:42``, ``1:02:03``."""
    minutes, rest = divmod(max(0, round(value)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def usd(value: float) -> str:
    """Dollars; small amounts keep three digits that mean something."""
    if value == 0 or abs(value) >= 1:
        return f"${value:,.2f}"
    return f"${value:.4f}" if abs(value) >= 0.01 else f"${value:.3g}" if abs(value) >= 1e-4 else f"${value:.7f}"


def price(value: float) -> str:
    """Dollars as somebody gave them."""
    return f"${value:g}"


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """A text cut into what can be shown as it is (False) and names of what cannot (True).

    Model replies and records hold whatever somebody put there: escape sequences that repaint a terminal, marks that
    turn the reading direction, characters that no font shows. Each of them becomes a visible name.
    """
    plain: list[str] = []
    for character in text:
        if character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
            plain.append(character)
            continue
        if plain:
            yield "".join(plain), False
            plain.clear()
        yield _name(character), True
    if plain:
        yield "".join(plain), False


def visible(text: str) -> str:
    """A text with every control and direction mark shown by its name: safe to print."""
    return "".join(piece for piece, _ in pieces(text))


def _name(character: str) -> str:
    """As in a string of Python or JSON: short, and in every font."""
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
