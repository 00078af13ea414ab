"""One process at a time: the lock, and beside it a note of who holds it.

The lock is the system's (flock), so that it is gone with its holder, however that dies. The note only tells a second
run whom it waits for: nobody decides anything by it, and one that a killed process left is replaced by the next.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import socket
import sys
from pathlib import Path

import filelock
import msgspec

from engine.vocabulary.errors import StoreError

_PATIENCE_S = 0.5
"""A reader that looks whether the store is held has the lock, shared, for an instant: that is not told as a run."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a store.

    :ivar since: wall time, in seconds.
    :ivar command: the program and its first words; options, which may hold secrets, are left out.
    """

    pid: int
    host: str
    since: float
    command: str


class Hold:
    """The store is this process's until `release`."""

    def __init__(self, lock: filelock.BaseFileLock, note: Path) -> None:
        self._lock = lock
        self._note = note

    def release(self) -> None:
        """Let others have it. May be called twice."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._note.unlink()
            self._lock.release()


def hold(file: Path, *, now: float) -> Hold:
    """Take a store for this process alone.

    :param file: without links in it, so that one store has one lock.
    :param now: wall time.
    :raises StoreError: another process has it, and which; or it cannot be locked.
    """
    lock = filelock.FileLock(f"{file}.lock", timeout=_PATIENCE_S, mode=0o600, thread_local=False)
    note = Path(f"{file}.holder")
    try:
        lock.acquire(poll_interval=_PATIENCE_S / 10)
    except filelock.Timeout:
        raise StoreError(f"{file} is in use by another run; {_who(_read(note))}") from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"the run store {file} cannot be locked: {reason} ({lock.lock_file}). Its folder must be writable and able "
            "to lock files; change that, or use another store (--store)"
        ) from error
    _write(note, Holder(pid=os.getpid(), host=socket.gethostname(), since=now, command=_command(sys.argv)))
    return Hold(lock, note)


def _write(note: Path, holder: Holder) -> None:
    """A note is a help and no more: where none can be written, the store works without."""
    new = note.with_name(f"{note.name}.new")
    with contextlib.suppress(OSError):
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(holder))
        os.replace(new, note)  # noqa: PTH105 - as in files/atomic: a test can make it fail


def _read(note: Path) -> Holder | None:
    """The note, unless it was left by a process that is gone: then the new holder has not written its own yet."""
    try:
        holder = msgspec.json.decode(note.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None
    return holder if holder.host != socket.gethostname() or _lives(holder.pid) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError, ValueError):
        return True  # another user's
    return True


def _who(holder: Holder | None) -> str:
    if holder is None:
        return "wait for it, or stop it"
    since = datetime.datetime.fromtimestamp(holder.since, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if holder.host == socket.gethostname() and holder.pid == os.getpid():
        return f"wait for it, or stop it: it is in this very process, since {since}"
    return (
        f"wait for it, or stop it: process {holder.pid} on {holder.host}, since {since}, started with "
        f"{shlex.quote(holder.command)}"
    )


def _command(argv: list[str]) -> str:
    """The program and its words up to the first option."""
    program = Path(argv[0]).name if argv and argv[0] else "python"
    words = argv[1:]
    options = [number for number, word in enumerate(words) if word.startswith("-")]
    shown = words[: options[0]] if options else words
    line = shlex.join([program, *shown]) + (" ..." if options else "")
    return line if len(line) <= 300 else f"{line[:297]}..."
