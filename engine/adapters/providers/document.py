"""JSON from an endpoint, in bounded memory. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

MAX_VALUES = 1_000_000
"""Values in one document: an empty object takes three bytes of a reply and 72 of ours, a small one 230."""
_SMALL_BYTES = 1024 * 1024  # cannot hold enough of them to matter


def read_json(body: bytes, *, lenient: bool = False) -> Any:
    """The value that a body is.

    :param lenient: take what the standard library takes beyond JSON: lone surrogates, raw control characters, NaN;
        and read bytes that are no UTF-8 as U+FFFD.
    :raises ValueError: it is none, it is nested too deeply, or it holds more than `MAX_VALUES`.
    """
    if len(body) > _SMALL_BYTES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        if not lenient:
            raise ValueError(str(error)) from None
    try:
        return json.loads(body.decode(errors="replace"), strict=False)
    except RecursionError as error:
        raise ValueError(str(error)) from None
