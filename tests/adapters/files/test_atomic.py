"""Files that are replaced whole, and what killed processes leave beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.adapters.files.atomic import make_folder, replacing
from faulty_disk import FaultyDisk

WRITE = """
import sys
from pathlib import Path
from engine.adapters.files.atomic import make_folder, replacing
with replacing(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    print(1, flush=True)
    sys.stdin.readline()
"""


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_what_a_killed_writer_left_is_taken_away(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing leaves the old file, and a part beside it; the next writer takes the part away,
    but not one that somebody is writing, nor any other file."""
    target = tmp_path / "out.jsonl"
    target.write_bytes(b"old")
    others = {"out.jsonl.tmp", ".out.jsonl.tmp", ".out.jsonl.12345678.txt", ".other.jsonl.12345678.tmp"}
    for name in others:
        (tmp_path / name).touch()
    line = [sys.executable, "-c", WRITE, str(target)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        writer.stdout.readline()
        with replacing(target) as stream:
            stream.write(b"new")
        assert len(names(tmp_path)) == 2 + len(others), "what is being written stays"
        writer.send_signal(signal.SIGKILL)
    assert target.read_bytes() == b"new"
    with replacing(target) as stream:
        stream.write(b"newer")
    assert names(tmp_path) == {"out.jsonl"} | others
    assert target.read_bytes() == b"newer"


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    """The old file stays, and no part of the new one."""
    target = tmp_path / "out.jsonl"
    target.write_bytes(b"old")

    def write() -> None:
        with replacing(target) as stream:
            stream.write(b"half")
            raise KeyError("mine")

    with pytest.raises(KeyError):
        write()
    assert names(tmp_path) == {"out.jsonl"}
    assert target.read_bytes() == b"old"


def test_the_order_of_its_steps(tmp_path: Path) -> None:
    """The content is on disk before it has the name, and the name after that: else a loss of power could leave the new
    name on an empty file."""
    disk = FaultyDisk(tmp_path)
    with disk.at_work(), replacing(tmp_path / "out.jsonl") as stream:
        stream.write(b"new")
    assert disk.steps == ["open .tmp", "write", "fsync", "replace .tmp", "fsync"]


def test_a_folder_that_is_made_is_synced_in_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or what is synced in it later, a run store for one, goes with it when the power goes."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2
