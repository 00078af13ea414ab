"""What a process did to a folder, out of what strace saw of it.

Pure: text in, operations out (`power_loss_disk`). The text is of `strace -f -y -xx -s 1000000` with the calls in
`TRACED`, of one process with all its threads. A call that strace shows in two parts began where the first stands and
ended where the second does. What would be read wrong (a call that is not known here, a file that came from nowhere) is
an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from benchmarks.power_loss_disk import (
    ROOT,
    Made,
    Mapped,
    Moved,
    Operation,
    Removed,
    Resized,
    Synced,
    Told,
    Wrote,
)

READ = (
    "openat", "write", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "mkdir", "mkdirat", "mmap", "close",
)  # fmt: skip
"""Calls that are understood."""
REFUSED = (
    "open", "creat", "writev", "pwritev", "pwritev2", "truncate", "fallocate", "sync", "syncfs", "sync_file_range",
    "msync", "link", "linkat", "symlink", "symlinkat", "rmdir", "dup", "dup2", "dup3", "sendfile", "copy_file_range",
)  # fmt: skip
"""Calls that would change the folder in a way that is not: met in it, they are an error."""
TRACED = ",".join((*READ, *REFUSED))

_LINE = re.compile(r"^(\d+) +(.*)$")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\w+)(?:<(.*?)>)?(?:\(deleted\))?(?: .*)?$")
_BEGUN = re.compile(r"^(\w+)\((.*?),? <unfinished \.\.\.>$")
_FILE = re.compile(r"^(-?\w+)<(.*)>(\(deleted\))?$")


class NotUnderstoodError(Exception):
    """The text holds something that this reader would read wrong."""


@dataclass
class _Open:
    """An open file: what it is, and where the next plain write goes."""

    node: int
    position: int = 0
    appends: bool = False


@dataclass
class _Call:
    """A call that has begun. `first` is the number of operations before its own; `did`: it has one."""

    name: str
    words: list[str]
    first: int
    did: bool = False
    node: int = -1
    covers: int = 0


@dataclass
class Reader:
    """Reads one text after the other, each of a process that began when the one before had ended.

    :ivar root: the folder that is looked at, without links in its path.
    :ivar told: the name in it of the file that a consumer notes in what it was given, a line each.
    """

    root: str
    told: str = ""
    operations: list[Operation] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _newest: int = ROOT

    def __post_init__(self) -> None:
        self._names[self.root] = ROOT

    def there(self, path: str, content: bytes | None) -> None:
        """A file (or folder: None) that is on the disk before anything begins."""
        node = self._make(path, is_folder=content is None)
        if content:
            self._write(node, 0, content)
        self.operations.append(Synced(node, len(self.operations)))
        self.operations.append(Synced(self._folder(path), len(self.operations)))

    def tell(self, what: str) -> None:
        """Somebody learned of something when the last process had ended."""
        self.operations.append(Told(what))

    def read(self, text: Iterator[str]) -> None:
        """:raises NotUnderstoodError: it holds something that would be read wrong."""
        files: dict[int, _Open] = {}
        begun: dict[str, _Call] = {}
        for line in text:
            match = _LINE.match(line.rstrip("\n"))
            if match is None:
                raise NotUnderstoodError(line[:200])
            thread, rest = match.groups()
            if rest.startswith(("+++", "---")):
                continue
            if again := _RESUMED.match(rest):
                if thread in begun:
                    call = begun.pop(thread)
                    whole = _CALL.match(f"{call.name}({again[2]}")
                    if whole:
                        self._end(call, whole[3], files)
                continue
            if half := _BEGUN.match(rest):
                begun[thread] = self._begin(half[1], half[2], files, begun)
                continue
            whole = _CALL.match(rest)
            if whole is None:
                raise NotUnderstoodError(rest[:200])
            self._end(self._begin(whole[1], whole[2], files, begun), whole[3], files)

    # -- one call ------------------------------------------------------------------------------------------------

    def _begin(self, name: str, arguments: str, files: dict[int, _Open], begun: dict[str, _Call]) -> _Call:
        words = arguments.split(", ")  # texts are written in hexadecimal, so no comma is in one
        call = _Call(name, words, len(self.operations))
        if name in REFUSED:
            self._refuse(call)
        elif name in ("rename", "renameat", "renameat2"):
            old, new = self._two_paths(call)
            if old in self._names:
                self._move(old, new)
            elif self._is_in(old) or self._is_in(new):
                raise NotUnderstoodError(f"{old} is renamed to {new}, and came from nowhere")
        elif name in ("unlink", "unlinkat"):
            path = self._one_path(call)
            if path in self._names:
                self.operations.append(Removed(self._names.pop(path), path))
        elif name in ("write", "pwrite64", "ftruncate", "fsync", "fdatasync", "lseek", "close"):
            self._begin_on_file(call, files, begun)
        call.did = len(self.operations) > call.first
        return call

    def _begin_on_file(self, call: _Call, files: dict[int, _Open], begun: dict[str, _Call]) -> None:
        number, file = self._file(call.words[0], files)
        if file is None:
            return
        call.node = file.node
        if call.name == "write":
            offset = self._sizes.get(file.node, 0) if file.appends else file.position
            self._write(file.node, offset, _bytes(call.words[1]))
        elif call.name == "pwrite64":
            self._write(file.node, int(call.words[3]), _bytes(call.words[1]))
        elif call.name == "ftruncate":
            self._resize(file.node, int(call.words[1]))
        elif call.name in ("fsync", "fdatasync"):
            same = [other.first for other in begun.values() if other.node == file.node]
            call.covers = min([len(self.operations), *same])
        elif call.name == "close":
            del files[number]

    def _end(self, call: _Call, result: str, files: dict[int, _Open]) -> None:
        if result in ("-1", "?"):
            if result == "-1" and call.did:
                raise NotUnderstoodError(f"{call.name} failed: {call.words}")
            return
        if call.name == "openat":
            self._opened(call, int(result), files)
        elif call.name in ("mkdir", "mkdirat"):
            path = self._one_path(call)
            if self._is_in(path):
                self._make(path, is_folder=True)
        elif call.name in ("fsync", "fdatasync") and call.node >= 0:
            self.operations.append(Synced(call.node, call.covers))
        elif call.name == "mmap" and "MAP_SHARED" in call.words[3] and "PROT_WRITE" in call.words[2]:
            _, file = self._file(call.words[4], files)
            if file is not None:
                self.operations.append(Mapped(file.node))
        elif call.name in ("write", "lseek") and call.node >= 0:
            _, file = self._file(call.words[0], files)
            if file is not None:
                file.position = int(result) + (file.position if call.name == "write" else 0)
        if call.name in ("write", "pwrite64") and call.node >= 0 and int(result) != len(_bytes(call.words[1])):
            raise NotUnderstoodError(
                f"a write that was cut short: {result} bytes of {call.words[2:]} to {call.words[0]}"
            )

    def _opened(self, call: _Call, number: int, files: dict[int, _Open]) -> None:
        path, flags = self._one_path(call), call.words[2].split("|")
        if not self._is_in(path):
            files.pop(number, None)
            return
        if path not in self._names:
            if "O_CREAT" not in flags:
                raise NotUnderstoodError(f"{path} is opened, and came from nowhere")
            self._make(path, is_folder=False)
        node = self._names[path]
        if "O_TRUNC" in flags and self._sizes.get(node):
            self._resize(node, 0)
        files[number] = _Open(node, appends="O_APPEND" in flags)

    def _refuse(self, call: _Call) -> None:
        named = [_text(found) for word in call.words for found in re.findall(r'[<"]((?:\\x[0-9a-f]{2})+)[>"]', word)]
        if any(self._is_in(name) or not name.startswith("/") for name in named) or call.name == "sync":
            raise NotUnderstoodError(f"{call.name} on {named}")

    # -- what the folder holds while the power is on -------------------------------------------------------------

    def _make(self, path: str, *, is_folder: bool) -> int:
        self._newest += 1
        self._names[path] = self._newest
        self.operations.append(Made(self._newest, path, is_folder))
        return self._newest

    def _move(self, old: str, new: str) -> None:
        if PurePosixPath(old).parent != PurePosixPath(new).parent:
            raise NotUnderstoodError(f"{old} is renamed into another folder: {new}")
        node = self._names.pop(old)
        self._names[new] = node
        self.operations.append(Moved(node, old, new))

    def _write(self, node: int, offset: int, data: bytes) -> None:
        self._sizes[node] = max(self._sizes.get(node, 0), offset + len(data))
        if node == self._names.get(f"{self.root}/{self.told}"):
            self.operations.extend(Told(line) for line in data.decode().splitlines())
        else:
            self.operations.append(Wrote(node, offset, data))

    def _resize(self, node: int, size: int) -> None:
        self._sizes[node] = size
        self.operations.append(Resized(node, size))

    # -- words ---------------------------------------------------------------------------------------------------

    def _is_in(self, path: str) -> bool:
        return path == self.root or path.startswith(f"{self.root}/")

    def _folder(self, path: str) -> int:
        return self._names.get(str(PurePosixPath(path).parent), ROOT)

    def _file(self, word: str, files: dict[int, _Open]) -> tuple[int, _Open | None]:
        """The open file that is meant. Its path, where strace could tell it, must be one that it has by our books."""
        match = _FILE.match(word)
        if match is None:
            return -1, None
        number, path, deleted = int(match[1]), _text(match[2]), match[3]
        file = files.get(number)
        if file is None and self._is_in(path):
            raise NotUnderstoodError(f"{path} is used and was never opened")
        if file is not None and not deleted and self._names.get(path, ROOT) != file.node:
            raise NotUnderstoodError(f"{path} is not the file that was opened as {number}")
        return number, file

    def _one_path(self, call: _Call) -> str:
        at = call.name.endswith("at")
        return _joined(call.words[0] if at else None, call.words[1 if at else 0])

    def _two_paths(self, call: _Call) -> tuple[str, str]:
        if call.name == "rename":
            return _joined(None, call.words[0]), _joined(None, call.words[1])
        return _joined(call.words[0], call.words[1]), _joined(call.words[2], call.words[3])


def _joined(folder: str | None, word: str) -> str:
    path = _text(word.strip('"'))
    if path.startswith("/"):
        return path
    match = _FILE.match(folder or "")
    if match is None:
        if folder is None and not path.startswith("/"):
            raise NotUnderstoodError(f"a path without its folder: {path}")
        return path
    return f"{_text(match[2])}/{path}"


def _text(word: str) -> str:
    return _bytes(word).decode(errors="surrogateescape")


def _bytes(word: str) -> bytes:
    if word.endswith("..."):
        raise NotUnderstoodError("a text that strace has cut short (-s)")
    return bytes.fromhex(word.strip('"').replace("\\x", ""))
