"""Compressed streams, for reading and for writing.

Damage shows as one of `DAMAGE`, and never as an early but orderly end of the file: records that were cut off must not
pass for records that were never there.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO

from engine.adapters.files.format import Compression
from engine.vocabulary.errors import MissingExtra

DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)

_BUFFER_BYTES = 1 << 17
# A block of zstd can be 4 bytes that stand for 128 KiB, so this many bytes never unpack to more than 32 MiB at once.
_ZSTD_INPUT_BYTES = 1 << 10


@contextmanager
def decompressed(stream: BinaryIO, compression: Compression | None) -> Iterator[BinaryIO]:
    """A buffered stream of the unpacked bytes. `stream` itself stays open.

    :raises MissingExtra: zstandard is not installed.
    """
    if compression is None:
        yield stream
        return
    # The buffer is for speed: readline() of the stdlib's decompressors is Python code, of BufferedReader it is C.
    with _unpacker(stream, compression) as raw, io.BufferedReader(raw, _BUFFER_BYTES) as buffered:
        yield buffered


@contextmanager
def compressed(stream: BinaryIO, compression: Compression | None) -> Iterator[BinaryIO]:
    """A stream that packs what is written into `stream`, which stays open.

    :raises MissingExtra: zstandard is not installed.
    """
    if compression is None:
        yield stream
        return
    with _packer(stream, compression) as packer:
        yield packer


def require_compression(compression: Compression | None) -> None:
    """Raise `MissingExtra` if the package for `compression` is not installed."""
    if compression == "zstd":
        _zstandard()


def _unpacker(stream: BinaryIO, compression: Compression) -> Any:
    match compression:
        case "gzip":
            return gzip.GzipFile(fileobj=stream, mode="rb")
        case "bzip2":
            return bz2.BZ2File(stream, "rb")
        case "xz":
            return lzma.LZMAFile(stream, "rb")
        case "zstd":
            return _ZstdReader(stream)


def _packer(stream: BinaryIO, compression: Compression) -> Any:
    match compression:
        case "gzip":
            # Neither name nor time in the header: the same rows make the same bytes.
            return gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0)
        case "bzip2":
            return bz2.BZ2File(stream, "wb")
        case "xz":
            return lzma.LZMAFile(stream, "wb")
        case "zstd":
            return _zstandard().ZstdCompressor().stream_writer(stream, closefd=False)


def _zstandard() -> ModuleType:
    try:
        import zstandard  # noqa: PLC0415  an optional package
    except ImportError:
        raise MissingExtra("reading or writing .zst needs one more package: pip install zstandard") from None
    return zstandard


class _ZstdReader(io.RawIOBase):
    """Unpacks frame by frame. zstandard's own stream_reader ends a truncated file quietly, this one raises."""

    def __init__(self, stream: BinaryIO) -> None:
        self._zstd = _zstandard()
        self._stream = stream
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._fill():
                return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _fill(self) -> bool:
        """Unpack one more piece; False at the end of the file."""
        packed = self._packed or self._stream.read(_ZSTD_INPUT_BYTES)
        if not packed:
            if self._frame is not None:
                raise EOFError("the last zstd frame is not complete")
            return False
        if self._frame is None:
            # 2 GiB is the largest window that the format's own tool makes (--ultra --long=31).
            self._frame = self._zstd.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(packed))
        except self._zstd.ZstdError as error:
            raise OSError(str(error)) from error
        self._packed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
        return True
