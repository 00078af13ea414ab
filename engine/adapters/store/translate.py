"""From SQLite's exceptions to ours."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from engine.adapters.store.schema import NOT_OURS
from engine.vocabulary.errors import StoreError


class Conflict(StoreError):
    """A row is there already."""


@contextlib.contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """Raise what SQLite and the file system raise as our own errors, with the store's name."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Conflict(f"the run store {path or '(temporary)'} failed: {error}") from error
    except (sqlite3.DatabaseError, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise StoreError(f"{path} is {NOT_OURS}") from error
        raise StoreError(f"the run store {path or '(temporary)'} failed: {error}") from error
