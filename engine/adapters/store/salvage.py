"""Save from a damaged store what can be read and is what was written, into a new one."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.store.opening import open_store
from engine.adapters.store.rows import ANSWER_COLUMNS, read_answer
from engine.adapters.store.run_store import RunStore
from engine.adapters.store.schema import check_readable
from engine.adapters.store.translate import Damaged, damaged, translated
from engine.vocabulary.errors import StoreError

_KEY = ("settings_id", "key", "digest")
_COLUMNS = (
    *_KEY, "ok", "output", "error_kind", "error_message", "calls", "batch_size", "form", "run_id", "answered_at",
    "latency_s", "copied", "redo", "seal",
)  # fmt: skip
"""Of the table of answers, in its own order."""

_UNREADABLE = (sqlite3.DatabaseError, OverflowError)
_AT_ONCE = 1000


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved.

    :ivar answers: to records, of any end.
    :ivar damaged: answers that could be read and were not what was written; they are left behind.
    :ivar calls: accounts of requests.
    """

    answers: int
    damaged: int
    calls: int


def salvage(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> Saved:
    """Copy every answer that can be read into a new store. The damaged one stays as it is.

    A page that cannot be read takes some dozen answers with it. A table is read from both its ends, and then, for what
    lies between two such pages, one row at a time, by the keys of the newest input.

    :raises StoreError: `into` is there already, or nothing can be read.
    """
    file = Path(path)
    if Path(into).exists():
        raise StoreError(f"{into} is there already; name a new file")
    with translated(file), contextlib.closing(_opened(file)) as old, contextlib.closing(open_store(into)) as new:
        tasks = _copy(old, new, "settings", "id")
        if not tasks:
            raise damaged(file, "of which task its answers are cannot be read any more, so they cannot be used")
        _copy(old, new, "runs", "id")
        calls = _copy(old, new, "calls", "id")
        answers, broken = _answers(old, new)
    return Saved(answers=answers, damaged=broken, calls=calls)


def _opened(file: Path) -> sqlite3.Connection:
    if not file.is_file():
        raise StoreError(f"there is no run store at {file}")
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        check_readable(db, file)
    except BaseException:
        db.close()
        raise
    return db


def _read(db: sqlite3.Connection, sql: str, order: Sequence[str], values: Sequence[Any] = ()) -> Iterator[Any]:
    """Rows from the first on, and from the last on, as far as they can be read. Those between may come twice."""
    for direction in ("", " DESC"):
        by = ", ".join(f"{name}{direction}" for name in order)
        try:
            yield from db.execute(f"{sql} ORDER BY {by}", values)
        except _UNREADABLE:
            continue
        return


def _copy(old: sqlite3.Connection, new: RunStore, table: str, key: str) -> int:
    """A table without seals; the number of rows."""
    rows = _read(old, f"SELECT * FROM {table}", [key])
    return sum(new.put_back(table, some) for some in _some(rows))


def _answers(old: sqlite3.Connection, new: RunStore) -> tuple[int, int]:
    """All answers that are what was written, and the number of those that are not."""
    broken = set[tuple[Any, ...]]()

    def whole() -> Iterator[Any]:
        for row in _answer_rows(old):
            by_name = dict(zip(_COLUMNS, row, strict=True))
            try:
                read_answer([by_name[name.strip()] for name in ANSWER_COLUMNS.split(",")])
            except Damaged:
                broken.add(tuple(row[:3]))
            else:
                yield row

    return sum(new.put_back("answers", some) for some in _some(whole())), len(broken)


def _some(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while some := list(itertools.islice(rows, _AT_ONCE)):
        yield some


def _answer_rows(old: sqlite3.Connection) -> Iterator[Any]:
    """Rows of the table of answers. One may come several times."""
    ask = f"SELECT {', '.join(_COLUMNS)} FROM answers"
    yield from _read(old, ask, _KEY)
    with contextlib.suppress(*_UNREADABLE):
        if old.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
            return  # all of them have come
    for key in _keys(old):
        with contextlib.suppress(*_UNREADABLE):
            yield from old.execute(f"{ask} WHERE settings_id = ? AND key = ? AND digest = ?", key).fetchall()


def _keys(old: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Keys that answers may have, from the lists of inputs. (The index on answers is not read without its table.)"""
    for (settings_id,) in _read(old, "SELECT id FROM settings", ["id"]):
        listed = "SELECT ?, key, digest FROM inputs WHERE key IS NOT NULL"
        yield from _read(old, listed, ["run_id", "position"], (settings_id,))
