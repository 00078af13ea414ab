"""A file, or standard input, as a source of records that can be read as a stream and, if it is a file, again."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from engine.adapters.files.compression import DAMAGE, decompressed, require_compression
from engine.adapters.files.csv import read_csv
from engine.adapters.files.extras import parquet_module
from engine.adapters.files.format import STANDARD_STREAM, format_of
from engine.adapters.files.jsonl import read_jsonl
from engine.adapters.files.row import Choose
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.values import RawRecord


class FileSource:
    """Records of one file. Every iteration is a fresh pass, and holds no more than a few records at a time.

    A broken record is a `RawRecord` with an `error`, and reading goes on; a broken file ends it with `InputError`.
    The file is open during an iteration only; ``close()`` of the iterator closes it at once.

    :ivar name: of the file, for messages.
    :ivar rereadable: whether it can be iterated again: False for standard input and for pipes.
    """

    def __init__(
        self, path: str, format: str | None = None, *, stdin: BinaryIO | None = None, choose: Choose | None = None
    ) -> None:
        """Check that `path` can be read, without reading it.

        :param path: a file, or ``-`` for standard input.
        :param format: ``jsonl``, ``csv``, ``tsv`` or ``parquet``, perhaps with a compression (``csv.gz``); by default
            the suffix tells. Standard input and pipes without a known suffix are JSONL.
        :param stdin: read instead of the process's own standard input; left open.
        :param choose: the fields that are used; where the format keeps fields apart, the others are not read.
        :raises ConfigError: no such file, a directory, not readable, or of an unknown format.
        :raises MissingExtra: an optional package is needed that is not installed.
        """
        self.name = "standard input" if path == STANDARD_STREAM else path
        self._path = path
        self._stdin = stdin
        self._choose = choose
        is_file = path != STANDARD_STREAM and _is_file(path)
        self.rereadable = is_file
        self._format = format_of(path, format, default=None if is_file else "jsonl")
        self._read_once = False
        self._check_packages()

    def __iter__(self) -> Generator[RawRecord, None, None]:
        """One pass.

        :raises ConfigError: the file as a whole is not what it should be: no header, another encoding.
        :raises InputError: the file breaks off or is damaged; the text says after which line.
        """
        if self._read_once:
            raise ConfigError(f"{self.name} can be read only once")
        self._read_once = not self.rereadable
        return self._pass()

    def _pass(self) -> Generator[RawRecord, None, None]:
        line = 0
        with ExitStack() as stack:
            try:
                for record in self._records(stack):
                    line = record.line
                    yield record
            except DAMAGE as error:
                raise InputError(_damaged(self.name, line, error)) from error

    def _records(self, stack: ExitStack) -> Iterator[RawRecord]:
        stream = stack.enter_context(decompressed(self._opened(stack), self._format.compression))
        match self._format.kind:
            case "jsonl":
                return read_jsonl(stream, name=self.name)
            case "csv":
                return read_csv(stream, name=self.name, delimiter=",")
            case "tsv":
                return read_csv(stream, name=self.name, delimiter="\t")
            case "parquet":
                rows: Iterator[RawRecord] = parquet_module().read_parquet(stream, name=self.name, choose=self._choose)
                return rows

    def _opened(self, stack: ExitStack) -> BinaryIO:
        if self._path == STANDARD_STREAM:
            return self._stdin or _standard_input()
        return stack.enter_context(_open(self._path))

    def _check_packages(self) -> None:
        require_compression(self._format.compression)
        if self._format.kind == "parquet":
            parquet_module()
            if not self.rereadable:
                raise ConfigError(f"{self.name}: Parquet is read from its end, so it must be a file and not a pipe")

    def __repr__(self) -> str:
        return f"FileSource({self._path!r}, {self._format.kind}, rereadable={self.rereadable})"


def _standard_input() -> BinaryIO:
    """Standard input through a buffer of our own.

    A thread that waits for a silent producer holds the lock of the buffer that it reads. With the interpreter's own one
    the process could not end while it waits ("Fatal Python error: _enter_buffered_busy").
    """
    try:
        descriptor = sys.stdin.buffer.fileno()
    except OSError:  # something in its place that is no file
        return sys.stdin.buffer
    return open(descriptor, "rb", closefd=False)


def _is_file(path: str) -> bool:
    """Whether `path` is a regular file (True) or a pipe or device (False); `ConfigError` if it cannot be read."""
    if not path:
        raise ConfigError("the input has no name; give a file, or - for standard input")
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; check the name, or give - for standard input") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from None
    if stat.S_ISDIR(mode):
        raise ConfigError(f"{path}: is a directory; give one file in it")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{path}: permission denied; make it readable, for example: chmod u+r {path}")
    return stat.S_ISREG(mode)


def _open(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb", buffering=1 << 17)
    except OSError as error:
        raise ConfigError(f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _damaged(name: str, line: int, error: BaseException) -> str:
    place = f"after line {line}" if line else "before its first record"
    return f"{name}: damaged or cut off {place} ({_reason(cast(Exception, error))}); copy or download it again"
