"""Files that are replaced whole: a reader, or a crash, sees the old file or the new one and never a part.

The temporary file is in the folder of the target, because a rename is atomic within a file system only. It is synced
before the rename, and the folder after it: without the first a power cut could leave the new name on an empty file.
A process that is killed while it writes leaves its temporary file, as large as the output: the next one to write the
same file takes it away. A lock tells it from one that is being written.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become `path`, mode 0600, when the block ends without an exception; else nothing changes.

    A link is followed. A device or pipe, which cannot be replaced, is written to directly.

    :raises OSError: the file cannot be written.
    """
    target = path.resolve()
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        with target.open("wb") as device:
            yield device
        return
    prefix = f".{target.name[:100]}."
    _take_away_left_ones(target.parent, prefix)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=_SUFFIX)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _lock(descriptor)
            yield cast(BinaryIO, stream)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(name, target)  # noqa: PTH105  with the plain call a test can make it fail
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_folder(target.parent)


def make_folder(folder: Path) -> None:
    """Make `folder`, and every one above it that is missing, for the owner only, whatever the umask; one that is there
    stays as it is. `mkdir(parents=True, mode=...)` gives the mode to the last of them only.

    Each is synced in the one above it: else a loss of power may take it with all that was synced in it.

    :raises OSError: one cannot be made, or is a file.
    """
    for missing in reversed([folder, *folder.parents]):
        if not missing.is_dir():
            missing.mkdir(mode=0o700, exist_ok=True)
            sync_folder(missing.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename itself durable, where folders can be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_if_there(file: Path) -> None:
    """Put on the disk what others have written to a file.

    :raises OSError: that fails.
    """
    with suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _take_away_left_ones(folder: Path, prefix: str) -> None:
    """Remove what killed processes left. A file that cannot be locked, or not removed, is none of that."""
    with suppress(OSError), os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if entry.name.startswith(prefix) and _is_ours(entry.name, prefix)]
        for file in left:
            with suppress(OSError):
                _remove_unless_written(file)


def _is_ours(name: str, prefix: str) -> bool:
    """Whether `mkstemp` may have made the name: eight characters between what it was given."""
    return name.endswith(_SUFFIX) and len(name) == len(prefix) + 8 + len(_SUFFIX)


def _remove_unless_written(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    with suppress(OSError):  # a file system without locks: then nobody else takes one away either
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
