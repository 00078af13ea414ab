"""Save from a damaged store what can be read and is what was written, into a new one."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.store.opening import open_store
from engine.adapters.store.rows import (
    ANSWER_COLUMNS,
    BALLOT_COLUMNS,
    UNREADABLE_TASK,
    is_readable_task,
    read_answer,
    read_ballot,
)
from engine.adapters.store.run_store import RunStore
from engine.adapters.store.schema import check_readable
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
_PAGE_SIZES = [512 << n for n in range(8)]


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved.

    :ivar answers: to records, of any end.
    :ivar damaged: answers that could be read and were not what was written; they are left behind.
    :ivar calls: accounts of requests.
    :ivar tasks_unreadable: tasks of which only the key could be read; the same run notes what they say again.
    :ivar runs_unreadable: runs whose note (input, options) could not be read and is left empty, or that are left out.
    """

    answers: int
    damaged: int
    calls: int
    tasks_unreadable: int = 0
    runs_unreadable: int = 0


def salvage(path: str | os.PathLike[str], into: str | os.PathLike[str]) -> Saved:
    """Copy every answer that can be read into a new store. The damaged one stays as it is.

    A page that cannot be read takes some dozen answers with it. A table is read from both its ends, and then, for what
    lies between two such pages, one row at a time, by the keys of the newest input. A file that was cut off is read
    from a copy, beside the new store, that has its old length.

    :raises StoreError: `into` is there already, or no answer can be saved; nothing new is left then.
    """
    file, new_file = Path(path), Path(into)
    if new_file.exists():
        raise StoreError(f"{into} is there already; name a new file")
    if not file.is_file():
        raise StoreError(f"there is no run store at {file}")
    try:
        with translated(file), _at_its_length(file, new_file) as whole, contextlib.closing(_opened(whole)) as old:
            settings = _Checked(_setting)
            tasks = list(settings.rows(_read(old, "SELECT * FROM settings", ["id"])))
            if not tasks:
                raise damaged(file, "of which task its answers are cannot be read any more, so they cannot be used")
            return _saved(file, old, new_file, tasks, settings)
    except Broken as error:  # its remedy is this very command
        raise StoreError(
            f"nothing of the run store {file} can be saved ({error.what}); it was left as it is. Put a copy of it "
            "back, or begin anew, everything asked again, with another store (--store)"
        ) from error


def _saved(file: Path, old: sqlite3.Connection, into: Path, tasks: list[Any], settings: _Checked) -> Saved:
    runs = _Checked(_run)
    try:
        with contextlib.closing(open_store(into)) as new:
            new.put_back("settings", tasks)
            for some in _some(runs.rows(_read(old, "SELECT * FROM runs", ["id"]))):
                new.put_back("runs", some)
            calls = sum(new.put_back("calls", some) for some in _some(_read(old, "SELECT * FROM calls", ["id"])))
            answers, broken = _answers(old, new)
            ballots = sum(new.put_back("ballots", some) for some in _some(_ballots(old)))
        if not (answers or ballots):  # an empty store would be taken for a remedy, and the damaged one thrown away
            raise damaged(file, "none of its answers can be read as it was written")
    except BaseException:
        for suffix in ("", "-wal", "-shm", ".in-flight"):  # half a store would stand in the way of the next try
            Path(f"{into}{suffix}").unlink(missing_ok=True)
        raise
    return Saved(
        answers=answers, damaged=broken, calls=calls, tasks_unreadable=len(settings.unreadable),
        runs_unreadable=len(runs.unreadable),
    )  # fmt: skip


@contextlib.contextmanager
def _at_its_length(file: Path, into: Path) -> Iterator[Path]:
    """The file; or, where pages were cut off its end, a copy with zeros for them: SQLite reads nothing of a short one.

    The header says how long it was: the size of a page at offset 16, their number at 28
    (https://www.sqlite.org/fileformat.html).
    """
    with file.open("rb") as stream:
        header = stream.read(100)
    named, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    page_size = 65_536 if named == 1 else named
    whole = header.startswith(b"SQLite format 3\0") and page_size in _PAGE_SIZES
    if not whole or file.stat().st_size >= page_size * pages:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix=".salvage-", dir=into.absolute().parent) as folder:
        copy = Path(folder) / "store"
        shutil.copyfile(file, copy)
        if Path(f"{file}-wal").exists():
            shutil.copyfile(f"{file}-wal", f"{copy}-wal")
        os.truncate(copy, page_size * pages)  # what is added takes no room
        yield copy


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
    id_, key, model, task = row
    if not (isinstance(id_, int) and isinstance(key, str) and isinstance(model, str)):
        return None
    return (id_, key, model, task if is_readable_task(task) else UNREADABLE_TASK)


def _run(row: Sequence[Any]) -> Sequence[Any] | None:
    id_, settings_id, started_at, ended_at, status, config, first_run, below = row
    if not (isinstance(id_, int) and isinstance(settings_id, int)):
        return None
    return (
        id_,
        settings_id,
        started_at if isinstance(started_at, float | int) else 0.0,
        ended_at if isinstance(ended_at, float | int | None) else None,
        status if isinstance(status, str | None) else "killed",
        config if _is_note(config) else "{}",
        first_run if isinstance(first_run, int | None) else None,
        below if isinstance(below, float | None) else None,
    )


def _is_note(config: object) -> bool:
    try:
        # A letter that could not be read is not part of a name of a file or an option.
        return isinstance(config, str) and "\ufffd" not in config and isinstance(msgspec.json.decode(config), dict)
    except (msgspec.MsgspecError, UnicodeError):
        return False


def _opened(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    # Letters that are none are a row that is not what was written, and not the end of its table.
    db.text_factory = lambda content: content.decode(errors="replace")
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


def _ballots(old: sqlite3.Connection) -> Iterator[Any]:
    """Votes on records that have not ended, as far as they can be read and are what was written."""
    ask = f"SELECT {BALLOT_COLUMNS} FROM ballots"
    with contextlib.suppress(*_UNREADABLE):
        for row in _read(old, ask, (*_KEY, "round")):
            with contextlib.suppress(Damaged):
                read_ballot(row)
                yield row


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
