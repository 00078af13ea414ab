"""From SQLite's exceptions to ours: what failed, of which file, and what to do."""

from __future__ import annotations

import contextlib
import errno
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from engine.vocabulary.errors import StoreError

NOT_OURS = "no run store of annotation-engine; it was left as it is. Use another store (--output or --store)"

_KEPT = "then run the same command again: what was answered before is kept"
_NO_ROOM = f"Make room on its disk, {_KEPT}"
_BROKEN_DISK = f"Its disk does not work, or refuses to let a file grow (a quota, a limit); mend that, {_KEPT}"
_NOT_WRITABLE = (
    "The file, a file beside it or its folder may not be written to: change that (chmod u+w), or use another store "
    "(--store)"
)
_LOCKED = f"Another program has the file open and locked; close it, {_KEPT}"

_BY_SQLITE = {
    sqlite3.SQLITE_FULL: _NO_ROOM,
    sqlite3.SQLITE_IOERR: _BROKEN_DISK,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
}
_BY_ERRNO = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.EIO: _BROKEN_DISK,
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
    errno.ENAMETOOLONG: "Give it a shorter name (--store)",
}


_OF_SCHEMA = (
    "no such column", "no such table", "no such index", "has no column named", "duplicate column name",
    "malformed database schema", "unsupported file format", "must use the same text encoding",
)  # fmt: skip
"""What SQLite says where names, or the format, in the first page are not what was written."""


class Conflict(StoreError):
    """A row is there already."""


class Damaged(StoreError):
    """What is stored is not what was written."""


class NotByRun(StoreError):
    """The same command does not get over it: its text names what to do first."""


class Broken(Damaged, NotByRun):
    """The file as a whole is not what was written: a copy, or `annotate salvage`."""

    def __init__(self, what: str, message: str, path: Path | None) -> None:
        super().__init__(message)
        self.what = what
        self.path = path


@contextlib.contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """Raise what SQLite and the file system raise as our own errors, with the store's name and the remedy."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Conflict(f"the run store {path or '(temporary)'} failed: {error}") from error
    except (OverflowError, UnicodeDecodeError) as error:  # what no run stores, read from a damaged file
        raise damaged(path, str(error)) from error
    except (sqlite3.DatabaseError, OSError) as error:
        raise _told(path, error) from error


def damaged(path: Path | None, what: str) -> Broken:
    """The error for a file that does not hold what was written to it."""
    return Broken(
        what,
        f"the run store {path or '(temporary)'} is damaged ({what}); it was left as it is. Put a copy of it back, or "
        f"save what can be read of it: annotate salvage {shlex.quote(str(path))} NEW, and then go on with --store NEW",
        path,
    )


def _is_of_schema(error: Exception) -> bool:
    """Whether it says that the tables are not those that we made. Every name that we ask for is one of theirs."""
    return isinstance(error, sqlite3.OperationalError) and any(words in str(error) for words in _OF_SCHEMA)


def _told(path: Path | None, error: sqlite3.DatabaseError | OSError) -> StoreError:
    primary = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if primary == sqlite3.SQLITE_NOTADB:
        return NotByRun(f"{path} is {NOT_OURS}. If it was one: annotate salvage {shlex.quote(str(path))} NEW")
    if primary == sqlite3.SQLITE_CORRUPT or "Could not decode" in str(error) or _is_of_schema(error):
        return damaged(path, str(error))
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE:  # the file for readers found no room
        primary = sqlite3.SQLITE_FULL
    remedy = _BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else _BY_SQLITE.get(primary)
    return StoreError(f"the run store {path or '(temporary)'} failed: {error}" + (f". {remedy}" if remedy else ""))
