"""Open a run store: for one process alone, for reading, or for this process only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import filelock

from engine.adapters.store.in_flight import InFlightFile, left_over
from engine.adapters.store.rows import INSERT_KILLED, CallRow, call_values
from engine.adapters.store.run_store import RunStore
from engine.adapters.store.schema import check_readable, prepare
from engine.adapters.store.translate import translated
from engine.vocabulary.errors import StoreError


def open_store(path: str | os.PathLike[str]) -> RunStore:
    """Open or create a run store, for this process alone. A new file is readable by its owner only.

    :raises StoreError: another process has it, it is no run store, or a newer version made it.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise StoreError(
            f"the folder of the run store does not exist: {file.parent}. Create it, or use another store (--store)"
        )
    if file.is_dir():
        raise StoreError(f"the run store {file} is a folder; name a file (--store)")
    with contextlib.ExitStack() as opened:
        lock = _locked(file)
        opened.callback(lock.release)
        with translated(file):
            if not file.exists():
                os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
            db = _connect(file)
            opened.callback(db.close)
            prepare(db, file)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            # We hold the lock, so a run without an end is one that was killed.
            db.execute("UPDATE runs SET status = 'killed' WHERE status IS NULL")
            in_flight = opened.enter_context(contextlib.closing(_in_flight(db, file)))
        opened.pop_all()
    return RunStore(db, file, lock, in_flight)


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
    if not file.is_file():
        raise StoreError(f"there is no run store at {file}")
    with contextlib.ExitStack() as opened, translated(file):
        db = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
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
    prepare(db, Path("temporary"))
    return RunStore(db, None, None)


def _connect(path: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30.0)


def _locked(file: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(f"{file.resolve()}.lock", timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(f"{file} is in use by another run; wait for it, or stop it") from None
    except OSError as error:
        raise StoreError(f"the run store {file} cannot be locked: {error}") from error
    return lock
