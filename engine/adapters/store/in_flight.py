"""Which requests are in flight, so that a killed process leaves word of what it may have paid for.

A row of the store would cost a commit before every send. This file costs one `pwrite` of a few dozen bytes: what the
system has taken survives the process, and after a loss of power a torn or missing note only makes the account of the
crash less exact. It has a place for each request in flight, used again and again, so it never grows beyond the window.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

_ROW = struct.Struct("<QQdIQQ")
_CHECK = struct.Struct("<I")
_PLACE = _ROW.size + _CHECK.size
_MOST_BYTES = 1 << 24


class SentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it goes out.

    :ivar sent_at: wall time.
    :ivar size: records in it.
    :ivar input_tokens: expected.
    :ivar output_tokens: the most that it may put out.
    """

    run_id: int
    call_id: int
    sent_at: float
    size: int
    input_tokens: int
    output_tokens: int


class InFlightFile:
    """Notes requests in flight. Its owner holds the store's lock; used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """:raises OSError: the file cannot be made."""
        self._path = path
        self._file: int | None = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
        self._places: dict[int, int] = {}  # call -> place
        self._free: list[int] = []

    def __repr__(self) -> str:
        return f"InFlightFile({str(self._path)!r}, in_flight={len(self._places)})"

    def note(self, sent: SentRow) -> None:
        """:raises OSError: the disk is full, or broken."""
        place = heapq.heappop(self._free) if self._free else len(self._places)
        if self._file is None:
            raise OSError("the store is closed")
        row = _ROW.pack(sent.run_id, sent.call_id, sent.sent_at, sent.size, sent.input_tokens, sent.output_tokens)
        self._places[sent.call_id] = place
        if os.pwrite(self._file, row + _CHECK.pack(zlib.crc32(row)), place * _PLACE) < _PLACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the rest would have said so

    def forget(self, call_id: int) -> None:
        """The request is accounted for in the store: its place may be used again, and its note does no harm."""
        place = self._places.pop(call_id, None)
        if place is not None:
            heapq.heappush(self._free, place)

    def close(self) -> None:
        """Close it; it stays only where something is not accounted for."""
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        if not self._places:
            with contextlib.suppress(OSError):
                self._path.unlink()


def left_over(path: Path) -> Iterator[SentRow]:
    """The requests that a file names, torn notes left out. Some of them may have been stored since."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return
    for start in range(0, len(content) - _PLACE + 1, _PLACE):
        row, check = content[start : start + _ROW.size], content[start + _ROW.size : start + _PLACE]
        if zlib.crc32(row) != _CHECK.unpack(check)[0] or not any(row):
            continue
        run_id, call_id, sent_at, size, input_tokens, output_tokens = _ROW.unpack(row)
        yield SentRow(
            run_id=run_id, call_id=call_id, sent_at=sent_at, size=size, input_tokens=input_tokens,
            output_tokens=output_tokens,
        )  # fmt: skip
