"""Open a run store: for one process alone, for reading, or for this process only."""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import time
from pathlib import Path

from engine.adapters.files.atomic import sync_folder
from engine.adapters.store.holder import hold
from engine.adapters.store.in_flight import InFlightFile, left_over
from engine.adapters.store.rows import INSERT_KILLED, CallRow, call_values
from engine.adapters.store.run_rows import SEALED_OF_RUN, check_runs
from engine.adapters.store.run_store import RunStore
from engine.adapters.store.schema import bring_up_to_date, check_readable, check_whole, create
from engine.adapters.store.translate import damaged, translated
from engine.vocabulary.errors import StoreError


def open_store(path: str | os.PathLike[str]) -> RunStore:
    """Open or create a run store, for this process alone. A new file is readable by its owner only.

    :raises StoreError: another process has it, it is no run store, a newer version made it, or it is damaged.
    """
    named = Path(path)
    with translated(named):
        _check_place(named)
    file = named.resolve()  # one store has one lock, one log and one note of what is in flight, however it is named
    with contextlib.ExitStack() as opened:
        holder = hold(file, now=time.time())
        opened.callback(holder.release)
        with translated(named):
            if _is_there(file):
                _check_size(file)
            else:
                _create(file)
            db = _connect(file)
            opened.callback(db.close)
            bring_up_to_date(db, named)
            check_whole(db, named)
            check_runs(db.execute(f"SELECT {SEALED_OF_RUN} FROM runs"), named)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            # We hold the lock, so a run without an end is one that was killed.
            db.execute("UPDATE runs SET status = 'killed' WHERE status IS NULL")
            in_flight = opened.enter_context(contextlib.closing(_in_flight(db, file)))
        opened.pop_all()
    return RunStore(db, named, holder, in_flight)


def _check_place(named: Path) -> None:
    if "\0" in str(named):
        raise StoreError("the name of the run store has a NUL character in it; give another (--store)")
    if not named.parent.is_dir():
        raise StoreError(
            f"the folder of the run store does not exist: {named.parent}. Create it, or use another store (--store)"
        )
    if named.is_dir():
        raise StoreError(f"the run store {named} is a folder; name a file (--store)")


def _is_there(file: Path) -> bool:
    """Whether there is a store to go on with; a new one is never begun over what is left of an old one.

    SQLite would take an empty file for a new database, and the log beside a missing one for its own.
    """
    if file.exists():
        if file.is_file() and not file.stat().st_size:
            raise StoreError(
                f"{file} is empty. No run leaves such a file: it was cut off, or something else made it. Put a copy of "
                f"the store back; or begin anew, everything asked again, with: rm {_beside(file, '')}"
            )
        if file.stat().st_nlink > 1:  # SQLite, and our lock, go by the name
            raise StoreError(
                f"{file} has a second name (a hard link), and two runs could write to it and not know of each other. "
                f"Make it a file of its own: cp {_beside(file, '', '.copy')} && mv {_beside(file, '.copy', '')}"
            )
        return True
    logs = [suffix for suffix in ("-wal", "-journal") if _size(Path(f"{file}{suffix}"))]
    if logs:
        raise StoreError(
            f"{file} is missing, but {file.name}{logs[0]}, which holds its newest answers, is there. Put the store "
            f"back beside it; or begin anew, everything asked again, with: rm {_beside(file, *logs)}"
        )
    return False


def _check_size(file: Path) -> None:
    """A database is whole pages; SQLite would read what is cut off the last one as zeros.

    With a log beside it, it may have been left half way through a page, which the log then holds.
    """
    with file.open("rb") as stream:
        header = stream.read(100)
    if len(header) == 100 and header.startswith(b"SQLite format 3\0") and not _size(Path(f"{file}-wal")):
        page = int.from_bytes(header[16:18], "big")
        if _size(file) % (65_536 if page == 1 else max(page, 512)):
            raise damaged(file, "it ends within a page: it was cut off")


def _beside(file: Path, *suffixes: str) -> str:
    return shlex.join(f"{file}{suffix}" for suffix in suffixes)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _create(file: Path) -> None:
    """Make an empty store under another name, and give it its own when it is whole and on disk.

    We hold the lock, so what stands under the other name was left by a process that was killed.

    It is in WAL mode before it has its name: the switch is a transaction with a rollback journal, whose removal no sync
    follows, and one that a loss of power brings back beside the store is in the way of whoever only reads.
    """
    new = Path(f"{file}.new")
    for left in ("", "-journal", "-wal", "-shm"):
        Path(f"{new}{left}").unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
    with contextlib.closing(_connect(new)) as db:
        db.execute("PRAGMA synchronous = FULL")
        create(db)
        db.execute("PRAGMA journal_mode = WAL")
    Path(f"{file}-shm").unlink(missing_ok=True)
    os.replace(new, file)  # noqa: PTH105 - as in files/atomic: a test can make it fail
    sync_folder(file.parent)


def _in_flight(db: sqlite3.Connection, file: Path) -> InFlightFile:
    """A new file for requests in flight, those that the last process left noted as calls that were killed."""
    path = Path(f"{file}.in-flight")
    runs = {run_id for (run_id,) in db.execute("SELECT id FROM runs")}  # the store may be a new one of an old name
    rows = [
        call_values(
            sent.run_id,
            CallRow(
                id=sent.call_id, sent_at=sent.sent_at, latency_s=0.0, size=sent.size, accepted=0, status=0,
                outcome="killed", message="in flight when the process ended; whether it was answered is not known",
                unconfirmed_input=sent.input_tokens, unconfirmed_output=sent.output_tokens,
            ),
        )
        for sent in left_over(path)
        if sent.run_id in runs
    ]  # fmt: skip
    db.execute("BEGIN IMMEDIATE")
    db.executemany(INSERT_KILLED, rows)
    db.execute("COMMIT")
    return InFlightFile(path)


def read_store(path: str | os.PathLike[str]) -> RunStore:
    """Open an existing store for reading, also while a run writes to it.

    :raises StoreError: there is none, or it is not a run store.
    """
    file = Path(path)
    with translated(file):
        if not file.is_file():
            raise StoreError(f"there is no run store at {file}")
        _check_size(file)
        try:
            return _read(file, "mode=ro")
        except sqlite3.OperationalError as error:
            # In a folder that may not be written to, SQLite cannot make the file by which readers and a writer agree.
            # Without a log there is no writer to agree with. A disk that is mounted so says CANTOPEN, a folder without
            # the permission READONLY.
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            if _size(Path(f"{file}-wal")):
                raise StoreError(
                    f"the newest answers of {file} are in {file.name}-wal, and cannot be read there: its folder may "
                    f"not be written to. Copy both into one that may: cp {_beside(file, '', '-wal')} FOLDER"
                ) from error
            return _read(file, "mode=ro&immutable=1")


def _read(file: Path, how: str) -> RunStore:
    with contextlib.ExitStack() as opened:
        db = sqlite3.connect(
            f"{file.absolute().as_uri()}?{how}", uri=True, check_same_thread=False, isolation_level=None
        )
        opened.callback(db.close)
        check_readable(db, file)
        opened.pop_all()
    return RunStore(db, file, None)


def temporary_store() -> RunStore:
    """A store for one process, on disk so that memory stays flat, gone when it is closed."""
    db = _connect("")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA journal_mode = MEMORY")
    create(db)
    return RunStore(db, None, None)


def _connect(path: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30.0)
