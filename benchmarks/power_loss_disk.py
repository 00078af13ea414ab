"""What a disk may hold after a loss of power, from the list of what was written to it and what was synced.

Pure: operations go in, a picture of a folder comes out. What a file's fsync or fdatasync covers is there: its contents
and its length. What was written since is a matter of luck, in pieces of a page or of a sector: each piece of each write
has reached the disk or has not, whatever became of the others, and the length is an old one or the new one; what lies
within the length and was never written is zeros. Names have two models:

- `strict`, all that POSIX gives: a change of a name (made, renamed, removed) is on the disk if its folder was synced
  after that; each that came since is or is not. A folder is itself a name in the folder above.
- `ordered`, as journalling file systems do it: names change on the disk in the order in which they were changed, and a
  sync of anything takes all names before it along.

A file that was mapped into memory and written there (SQLite's -shm) holds anything.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from random import Random
from typing import Literal

Names = Literal["strict", "ordered"]
PAGE, SECTOR = 4096, 512
ROOT = 0
"""The node of the folder that is looked at. It is there from the start."""


@dataclass(frozen=True)
class Made:
    """A file or folder came into being. `node` is the thing itself, whatever its names."""

    node: int
    path: str
    is_folder: bool = False


@dataclass(frozen=True)
class Wrote:
    node: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Resized:
    node: int
    size: int


@dataclass(frozen=True)
class Moved:
    """Renamed; what had the new name before has none now. Whole or not at all, as all file systems promise."""

    node: int
    path: str
    target: str


@dataclass(frozen=True)
class Removed:
    node: int
    path: str


@dataclass(frozen=True)
class Synced:
    """A sync has returned.

    :ivar covers: how many operations of the list had ended when it began.
    """

    node: int
    covers: int


@dataclass(frozen=True)
class Mapped:
    """Mapped into memory to be written: from here on the file holds anything."""

    node: int


@dataclass(frozen=True)
class Told:
    """Somebody outside has learned of something: it must outlive the power from here on."""

    what: str


Operation = Made | Wrote | Resized | Moved | Removed | Synced | Mapped | Told
Naming = Made | Moved | Removed


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How the power goes.

    :ivar cut: this many operations had begun.
    :ivar piece: bytes that reach the disk together: a page, or a sector of a torn one.
    :ivar luck: the share of what was not synced that reached the disk.
    :ivar seed: which of it.
    """

    cut: int
    names: Names = "strict"
    piece: int = PAGE
    luck: float = 0.5
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The folder after it: paths to contents, and the folders in it."""

    files: dict[str, bytes]
    folders: frozenset[str]


class Disk:
    """A folder, from the list of all that was done in it.

    :param root: its path.
    """

    def __init__(self, operations: Sequence[Operation], *, root: str) -> None:
        self.operations = operations
        self._root = root
        self._contents: defaultdict[int, list[tuple[int, Wrote | Resized]]] = defaultdict(list)
        self._namings: list[tuple[int, Naming]] = []
        self._folders: dict[str, int] = {}
        self._mapped: set[int] = set()
        for index, one in enumerate(operations):
            match one:
                case Wrote() | Resized():
                    self._contents[one.node].append((index, one))
                case Made() | Moved() | Removed():
                    self._namings.append((index, one))
                case Mapped():
                    self._mapped.add(one.node)
            if isinstance(one, Made) and one.is_folder:
                self._folders[one.path] = one.node

    def whole(self) -> Picture:
        """While the power is on: everything that was done."""
        return self.after(Loss(cut=len(self.operations), luck=1.0))

    def after(self, loss: Loss) -> Picture:
        """After a loss of power."""
        rng = Random(repr(loss))
        safe: defaultdict[int, int] = defaultdict(int)  # operations on a node before this one are on the disk
        for one in self.operations[: loss.cut]:
            if isinstance(one, Synced):
                safe[one.node] = max(safe[one.node], one.covers)
        names = self._names(loss, safe, rng)
        folders = frozenset(path for path, node in names.items() if self._folders.get(path) == node)
        files = {
            path: self._content(node, loss, safe[node], rng)
            for path, node in names.items()
            if path not in folders and self._is_reached(path, folders)
        }
        return Picture(files=files, folders=frozenset(path for path in folders if self._is_reached(path, folders)))

    def _is_reached(self, path: str, folders: frozenset[str]) -> bool:
        """Whether every folder on the way from the root has its name."""
        above = {str(folder) for folder in PurePosixPath(path).parents}
        return self._root in above and all(folder in folders for folder in above if folder in self._folders)

    def _names(self, loss: Loss, safe: dict[int, int], rng: Random) -> dict[str, int]:
        changes = [(index, one) for index, one in self._namings if index < loss.cut]
        if loss.names == "ordered":
            settled = sum(index < max(safe.values(), default=0) for index, _ in changes)
            more = len(changes) - settled
            taken = settled + (round(loss.luck) * more if loss.luck in (0.0, 1.0) else rng.randint(0, more))
            landed = [one for _, one in changes[:taken]]
        else:
            landed = [
                one for index, one in changes if index < safe.get(self._folder_of(one), 0) or rng.random() < loss.luck
            ]
        names: dict[str, int] = {}
        for one in landed:
            match one:
                case Made():
                    names[one.path] = one.node
                case Moved():
                    if names.get(one.path) == one.node:
                        del names[one.path]
                    names[one.target] = one.node
                case Removed() if names.get(one.path) == one.node:
                    del names[one.path]
        return names

    def _folder_of(self, one: Naming) -> int:
        return self._folders.get(str(PurePosixPath(one.path).parent), ROOT)

    def _content(self, node: int, loss: Loss, safe: int, rng: Random) -> bytes:
        content, lengths = bytearray(), list[int]()
        for index, one in self._contents[node]:
            if index >= loss.cut:
                break
            if index < safe:
                _apply(content, one)
                lengths = [len(content)]
                continue
            before = lengths[-1] if lengths else 0
            lengths = [*(lengths or [0]), _length(one, before)]
            for piece in _pieces(one, max(len(content), before), loss.piece):
                if rng.random() < loss.luck:
                    _apply(content, piece)
        final = _drawn(lengths or [0], loss.luck, rng)
        whole = bytes(content[:final]).ljust(final, b"\0")
        return rng.randbytes(final) if node in self._mapped else whole


def _drawn(lengths: Sequence[int], luck: float, rng: Random) -> int:
    """The synced length, the newest, or one between."""
    if luck in (0.0, 1.0):
        return lengths[-1 if luck else 0]
    return rng.choice((lengths[0], lengths[-1], rng.choice(lengths)))


def _length(one: Wrote | Resized, before: int) -> int:
    return one.size if isinstance(one, Resized) else max(before, one.offset + len(one.data))


def _apply(content: bytearray, one: Wrote | Resized) -> None:
    if isinstance(one, Resized):
        del content[one.size :]
        content.extend(bytes(one.size - len(content)))
        return
    content.extend(bytes(max(0, one.offset - len(content))))
    content[one.offset : one.offset + len(one.data)] = one.data


def _pieces(one: Wrote | Resized, length: int, size: int) -> list[Wrote]:
    """A write as the pieces that may reach the disk without each other; of a cut, what it turns into zeros.

    :param length: of the file as far as it may hold anything.
    """
    if isinstance(one, Resized):
        one = Wrote(one.node, one.size, bytes(max(0, length - one.size)))
    end = one.offset + len(one.data)
    edges = [one.offset, *range((one.offset // size + 1) * size, end, size), end]
    return [
        Wrote(one.node, start, one.data[start - one.offset : stop - one.offset])
        for start, stop in itertools.pairwise(edges)
        if stop > start
    ]
