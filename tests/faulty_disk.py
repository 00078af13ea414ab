"""A disk of which any step can fail: what a store, an output or a report does to files in one folder, step by step.

A step is a statement of SQLite (of which COMMIT is one), or a call of the system that writes, syncs, makes, renames or
removes a file. The shim counts the steps, and lets one, or every one from there on, fail as a disk fails; or it tells
before each that it is about to come, so that the folder can be copied as a killed process would leave it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FULL, BROKEN, UNSYNCED = "full", "broken", "unsynced"
"""How a step fails: no room; input/output error; done, but not surely on disk: what fsync says when it fails."""

_CODES = {
    FULL: (sqlite3.SQLITE_FULL, "database or disk is full"),
    BROKEN: (sqlite3.SQLITE_IOERR_WRITE, "disk I/O error"),
    UNSYNCED: (sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error"),
}


class FaultyDisk:
    """Steps within one folder.

    :ivar steps: the name of each step so far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fails_at: int | None = None,
        how: str = BROKEN,
        for_good: bool = False,
        before_step: Callable[[int], None] | None = None,
    ) -> None:
        """
        :param fails_at: the number of the step that fails, from 0.
        :param for_good: every step after it fails too.
        :param before_step: called with the number of each step before it is done.
        """
        self.steps: list[str] = []
        self._folder = str(folder.resolve())
        self._fails_at = fails_at
        self._how = how
        self._for_good = for_good
        self._before_step = before_step

    def holds(self, path: Any) -> bool:
        """Whether a path is in the folder."""
        return isinstance(path, str | os.PathLike) and os.path.realpath(os.fspath(path)).startswith(self._folder)

    def step(self, name: str) -> bool:
        """Count a step; whether it is to fail."""
        number = len(self.steps)
        self.steps.append(name)
        if self._before_step is not None:
            self._before_step(number)
        fails_at = self._fails_at
        return fails_at is not None and (number == fails_at or (self._for_good and number > fails_at))

    def sql(self, name: str, function: Callable[[], Any]) -> Any:
        """A statement."""
        if not self.step(name):
            return function()
        if self._how == UNSYNCED:
            function()
        code, text = _CODES[self._how]
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        raise error

    def call(self, name: str, function: Callable[[], Any]) -> Any:
        """A call of the system."""
        if not self.step(name):
            return function()
        if self._how == UNSYNCED:
            function()
        raise OSError(errno.ENOSPC if self._how == FULL else errno.EIO, "made to fail")

    @contextlib.contextmanager
    def at_work(self) -> Iterator[FaultyDisk]:
        """The shim under everything in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", _connect(self, sqlite3.connect))
            for name in ("pwrite", "fsync"):
                patch.setattr(os, name, _by_descriptor(self, name, getattr(os, name)))
            for name in ("replace", "unlink"):
                patch.setattr(os, name, _by_path(self, name, getattr(os, name)))
            patch.setattr(os, "open", _open(self, os.open))
            patch.setattr(os, "fdopen", _fdopen(self, os.fdopen))
            yield self


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _connect(disk: FaultyDisk, real: Any) -> Any:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> Any:
            return disk.sql(_first_words(sql), lambda: super(Connection, self).execute(sql, *rest))

        def executemany(self, sql: str, rows: Any) -> Any:
            return disk.sql(_first_words(sql), lambda: super(Connection, self).executemany(sql, rows))

        def executescript(self, sql: str) -> Any:
            return disk.sql("script", lambda: super(Connection, self).executescript(sql))

    def connect(path: Any, *args: Any, **options: Any) -> Any:
        name = path[len("file:") :].partition("?")[0] if isinstance(path, str) and path.startswith("file:") else path
        if not name or not disk.holds(name):
            return real(path, *args, **options)
        return disk.sql("connect", lambda: real(path, *args, factory=Connection, **options))

    return connect


def _first_words(sql: str) -> str:
    return " ".join(sql.split()[:3])


def _by_descriptor(disk: FaultyDisk, name: str, real: Any) -> Any:
    def call(descriptor: int, *rest: Any) -> Any:
        if not disk.holds(_path_of(descriptor)):
            return real(descriptor, *rest)
        return disk.call(name, lambda: real(descriptor, *rest))

    return call


def _by_path(disk: FaultyDisk, name: str, real: Any) -> Any:
    def call(path: Any, *rest: Any, **options: Any) -> Any:
        if not disk.holds(path):
            return real(path, *rest, **options)
        return disk.call(f"{name} {Path(path).suffix}", lambda: real(path, *rest, **options))

    return call


def _open(disk: FaultyDisk, real: Any) -> Any:
    def call(path: Any, flags: int, *rest: Any, **options: Any) -> Any:
        if not flags & os.O_CREAT or not disk.holds(path):
            return real(path, flags, *rest, **options)
        return disk.call(f"open {Path(path).suffix}", lambda: real(path, flags, *rest, **options))

    return call


def _fdopen(disk: FaultyDisk, real: Any) -> Any:
    class File(io.FileIO):
        def write(self, content: Any) -> int:
            return int(disk.call("write", lambda: super(File, self).write(content)))

    def call(descriptor: int, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "wb" or not disk.holds(_path_of(descriptor)):
            return real(descriptor, mode, *rest, **options)
        return io.BufferedWriter(File(descriptor, mode))

    return call
