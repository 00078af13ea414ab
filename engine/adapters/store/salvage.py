"""Save from a damaged store what can be read and is what was written, into a new one."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.store.first_page import readable
from engine.adapters.store.opening import open_store
from engine.adapters.store.rows import (
    ANSWER_COLUMNS,
    BALLOT_COLUMNS,
    UNREADABLE_TASK,
    is_readable_task,
    read_answer,
    read_ballot,
)
from engine.adapters.store.run_rows import seal_of_run, seal_of_settings
from engine.adapters.store.run_store import RunStore
from engine.adapters.store.translate import Broken, Damaged, damaged, translated
from engine.vocabulary.errors import StoreError

_KEY = ("settings_id", "key", "digest")
_COLUMNS = (
    *_KEY, "ok", "output", "error_kind", "error_message", "calls", "batch_size", "form", "run_id", "answered_at",
    "latency_s", "copied", "redo", "seal", "confidence", "votes",
)  # fmt: skip
"""Of the table of answers, in its own order."""

_UNREADABLE = (sqlite3.DatabaseError, OverflowError)
_AT_ONCE = 1000


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved.

    :ivar answers: to records, of any end.
    :ivar damaged: answers that could be read and were not what was written; they are left behind.
    :ivar calls: accounts of requests.
    :ivar tasks_unreadable: tasks of which only the key could be read; the same run notes what they say again.
    :ivar runs_unreadable: runs whose note (input, options) could not be read and is left empty, or that are left out.
    :ivar is_part: pages of answers, or of their index, are damaged; how many more answers were on them is not known.
    :ivar first_page_damaged: what the tables are, or where they begin, or whose store it is, had to be put right.
    """

    answers: int
    damaged: int
    calls: int
    tasks_unreadable: int = 0
    runs_unreadable: int = 0
    is_part: bool = False
    first_page_damaged: bool = False


def salvage(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> Saved:
    """Copy every answer that can be read into a new store. The damaged one stays as it is.

    A page that cannot be read takes some dozen answers with it. A table is read from both its ends, and then, for what
    lies between two such pages, one row at a time, by the keys of the newest input. A file that was cut off, or whose
    first page is damaged, is read from a copy, beside the new store, that has a first page of ours.

    :raises StoreError: `into` is there already, or no answer can be saved; nothing new is left then.
    """
    file, new_file = Path(path), Path(into)
    if new_file.exists():
        raise StoreError(f"{into} is there already; name a new file")
    if not file.is_file():
        raise StoreError(f"there is no run store at {file}")
    try:
        with translated(file), readable(file, new_file) as (db, mended):
            old, settings = _Old(db), _Checked(_setting)
            tasks = list(settings.rows(old.rows("settings", "*", ["id"])))
            if not tasks:
                raise damaged(file, "of which task its answers are cannot be read any more, so they cannot be used")
            return msgspec.structs.replace(_saved(file, old, new_file, tasks, settings), first_page_damaged=mended)
    except Broken as error:  # its remedy is this very command
        raise StoreError(
            f"nothing of the run store {file} can be saved ({error.what}); it was left as it is. Put a copy of it "
            "back, or begin anew, everything asked again, with another store (--store)"
        ) from error


def _saved(file: Path, old: _Old, into: Path, tasks: list[Any], settings: _Checked) -> Saved:
    runs = _Checked(_run)
    try:
        with contextlib.closing(open_store(into)) as new:
            new.put_back("settings", tasks)
            for some in _some(runs.rows(old.rows("runs", "*", ["id"]))):
                new.put_back("runs", some)
            calls = sum(new.put_back("calls", some) for some in _some(old.rows("calls", "*", ["id"])))
            answers, broken = _answers(old, new)
            ballots = sum(new.put_back("ballots", some) for some in _some(_ballots(old)))
        some_left = bool(broken) or "answers" in old.unreadable
        if not answers and (some_left or not ballots):
            # Such a store would be taken for a remedy, and the damaged one thrown away.
            raise damaged(file, "none of its answers can be read as it was written")
    except BaseException:
        for suffix in ("", "-wal", "-shm", ".in-flight"):  # half a store would stand in the way of the next try
            Path(f"{into}{suffix}").unlink(missing_ok=True)
        raise
    return Saved(
        answers=answers, damaged=broken, calls=calls, tasks_unreadable=len(settings.unreadable),
        runs_unreadable=len(runs.unreadable), is_part="answers" in old.unreadable,
    )  # fmt: skip


class _Old:
    """The damaged store.

    :ivar unreadable: tables of which something could not be read.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.unreadable = set[str]()

    def rows(self, table: str, columns: str, order: Sequence[str], *, where: str = "") -> Iterator[Any]:
        """From the first on, and from the last on, as far as they can be read. Those between may come twice."""
        for direction in ("", " DESC"):
            by = ", ".join(f"{name}{direction}" for name in order)
            try:
                yield from self.db.execute(f"SELECT {columns} FROM {table} {where} ORDER BY {by}")
            except _UNREADABLE:
                self.unreadable.add(table)
                continue
            return


class _Checked:
    """Rows without seals: those that can be used, as far as that can be told, mended where they say nothing needed."""

    def __init__(self, check: Callable[[Sequence[Any]], Sequence[Any] | None]) -> None:
        self._check = check
        self.unreadable = set[Any]()

    def rows(self, found: Iterator[Any]) -> Iterator[Any]:
        for row in found:
            usable = self._check(row)
            if usable is None or tuple(usable) != tuple(row):
                self.unreadable.add(row[0])
            if usable is not None:
                yield usable


def _setting(row: Sequence[Any]) -> Sequence[Any] | None:
    id_, key, model, task, _ = row
    if not (isinstance(id_, int) and isinstance(key, str) and isinstance(model, str)):
        return None
    if is_readable_task(task):
        return tuple(row)  # and its seal as it is: by that the next run knows its own, and mends it
    return (id_, key, model, UNREADABLE_TASK, seal_of_settings(id_, key, model, UNREADABLE_TASK))


def _run(row: Sequence[Any]) -> Sequence[Any] | None:
    id_, settings_id, started_at, ended_at, status, config, first_run, below = row[:8]
    if not (isinstance(id_, int) and isinstance(settings_id, int)):
        return None
    mended = (
        id_,
        settings_id,
        started_at if isinstance(started_at, float | int) else 0.0,
        ended_at if isinstance(ended_at, float | int | None) else None,
        status if isinstance(status, str | None) else "killed",
        config if _is_note(config) else "{}",
        first_run if isinstance(first_run, int | None) else None,
        below if isinstance(below, float | None) else None,
    )
    inputs = None  # its list is left behind
    return (*mended, inputs, seal_of_run(id_, settings_id, *mended[6:], inputs, mended[5]))


def _is_note(config: object) -> bool:
    try:
        # A letter that could not be read is not part of a name of a file or an option.
        return isinstance(config, str) and "\ufffd" not in config and isinstance(msgspec.json.decode(config), dict)
    except (msgspec.MsgspecError, UnicodeError):
        return False


def _answers(old: _Old, new: RunStore) -> tuple[int, int]:
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


def _ballots(old: _Old) -> Iterator[Any]:
    """Votes on records that have not ended, as far as they can be read and are what was written."""
    for row in old.rows("ballots", BALLOT_COLUMNS, (*_KEY, "round")):
        with contextlib.suppress(Damaged):
            read_ballot(row)
            yield row


def _some(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while some := list(itertools.islice(rows, _AT_ONCE)):
        yield some


def _answer_rows(old: _Old) -> Iterator[Any]:
    """Rows of the table of answers. One may come several times."""
    columns = ", ".join(_COLUMNS)
    yield from old.rows("answers", columns, _KEY)
    with contextlib.suppress(*_UNREADABLE):
        if old.db.execute("PRAGMA quick_check(answers)").fetchone() == ("ok",):
            return  # all of them have come
    old.unreadable.add("answers")
    for key in _keys(old):
        with contextlib.suppress(*_UNREADABLE):
            ask = f"SELECT {columns} FROM answers WHERE settings_id = ? AND key = ? AND digest = ?"
            yield from old.db.execute(ask, key).fetchall()


def _keys(old: _Old) -> Iterator[tuple[Any, ...]]:
    """Keys that answers may have, from the lists of inputs. (The index on answers is not read without its table.)"""
    for (settings_id,) in old.rows("settings", "id", ["id"]):
        listed = old.rows("inputs", "key, digest", ["run_id", "position"], where="WHERE key IS NOT NULL")
        for key, digest in listed:
            yield (settings_id, key, digest)
