"""Text that cannot be sent: lone surrogates, and files in an encoding other than UTF-8."""

from __future__ import annotations

import re
from typing import Any

from engine.vocabulary.errors import ConfigError

BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_SURROGATE = re.compile("[\ud800-\udfff]")


def reject_utf16(head: bytes, name: str) -> None:
    """Raise `ConfigError` when a file begins as UTF-16 or UTF-32 does: each line of it would be an error of its own."""
    if head.startswith(_UTF16_BOMS):
        raise ConfigError(f"{name}: is UTF-16, not UTF-8; convert it with: iconv -f utf-16 -t utf-8 IN > OUT")


def has_surrogate(text: str) -> bool:
    """Whether `text` has a code point that UTF-8 has no bytes for."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def without_surrogates(value: Any) -> Any:
    """A copy of a JSON value with U+FFFD for every lone surrogate, in keys too."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    return value
