"""`annotate run` on a disk that is full, broken or closed: one message with what to do, an exit code, no trace."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import command, ended, make_files, rows_of, served, start_command, wait_until

from engine.testing.simulator.answers import stable_label
from faulty_disk import BROKEN, FULL, UNSYNCED, FaultyDisk

LABELS = ["red", "green", "blue"]
REMEDIES = ("Make room", "does not work", "cannot be locked", "as it was before", "is as it was", "cannot be written")


def words_for(folder: Path, files: list[str], url: str, *more: str | Path) -> list[str | Path]:
    """A command whose store, output and report are in one folder, its input elsewhere."""
    words: list[str | Path] = ["run", *files, "--base-url", url, "--model", "m", "--output", folder / "out.jsonl"]
    return [*words, "--report", folder / "report", "--batch-size", "4", "--max-concurrency", "2", *more]


def assert_all_right(output: Path, count: int) -> None:
    """Every record once, in order, with its own label."""
    rows = rows_of(output)
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(count)]
    assert [row["output"] for row in rows] == [stable_label(f"text number {n}", LABELS) for n in range(count)]


def count_steps(folder: Path, files: list[str], url: str) -> list[str]:
    """The names of the steps of a run that nothing disturbs."""
    folder.mkdir()
    disk = FaultyDisk(folder)
    with disk.at_work():
        assert command(*words_for(folder, files, url)).exit_code == 0
    return disk.steps


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the shim asks /proc which file is meant")
@pytest.mark.parametrize("part", [0, pytest.param(-1, marks=pytest.mark.slow)])
def test_whatever_fails_is_told_in_words(tmp_path: Path, part: int) -> None:
    """Whichever step of store, output or report fails, once or for good: exit code 2 before anything was sent, 4 after
    it, and 0 where it does no harm; one error with its remedy and no trace; an earlier output is whole or replaced
    whole; and the same command then ends everything, nothing stored being asked again."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    files = make_files(inputs, 8)
    with served() as (url, endpoint):
        steps = count_steps(tmp_path / "undisturbed", files, url)
        assert {"write", "fsync", "replace .tmp", "COMMIT", "pwrite"} <= set(steps)
        chosen = range(len(steps)) if part < 0 else range(part, len(steps), 7)
        for number in chosen:
            place = tmp_path / str(number)
            place.mkdir()
            how, for_good = (BROKEN, FULL, UNSYNCED)[number % 3], number % 2 == 1
            with FaultyDisk(place, fails_at=number, how=how, for_good=for_good).at_work():
                result = command(*words_for(place, files, url))
            said = f"step {number} ({steps[min(number, len(steps) - 1)]}), {how}: {result.output}"
            assert result.exit_code in (0, 2, 4), said
            assert "Traceback" not in result.output, said
            assert "bug" not in result.output, said
            assert result.exit_code == 0 or any(remedy in result.output for remedy in REMEDIES), said
            before = endpoint.ledger.requests
            again = command(*words_for(place, files, url))
            assert again.exit_code == 0, said + again.output
            assert_all_right(place / "out.jsonl", 8)
            if result.exit_code == 0:
                assert endpoint.ledger.requests == before, said


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are set on Linux only")
@pytest.mark.parametrize("more", [0, 40_000])
def test_files_may_not_grow_any_more(tmp_path: Path, more: int) -> None:
    """The system refuses a real process to let any file grow beyond some size (RLIMIT_FSIZE), as a quota does, in the
    middle of answers. One error with its remedy, no trace; without the limit, the same command asks for the rest."""
    with served(delay_s=0.02) as (url, endpoint):
        words = words_for(tmp_path, make_files(tmp_path, 150), url)
        process = start_command(*words)
        wait_until(lambda: endpoint.ledger.requests >= 4)
        size = (tmp_path / "out.jsonl.store.sqlite-wal").stat().st_size + more
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
        code, out, err = ended(process)
        assert code == 4, err
        assert "Traceback" not in out + err
        assert "refuses to let a file grow" in err
        assert ended(start_command(*words))[0] == 0
        # What was in flight when the store failed was paid for and could not be kept; nothing else is asked twice.
        assert sum(count > 1 for count in endpoint.ledger.sends.values()) <= 2 * 4
    assert_all_right(tmp_path / "out.jsonl", 150)


@contextlib.contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of so many kilobytes; skips the test where none can be mounted."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here; the limit on file sizes above stands for it")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root mounts a disk")
@pytest.mark.parametrize("kilobytes", [64, 128, 224])
def test_a_full_disk(tmp_path: Path, kilobytes: int) -> None:
    """The same on a disk that is really full, store, output and report on it. When there is room, it goes on."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    with served() as (url, endpoint), small_disk(tmp_path / "disk", kilobytes) as place:
        words = words_for(place, make_files(inputs, 150), url)
        code, out, err = ended(start_command(*words))
        assert code in (2, 4), err
        assert "Traceback" not in out + err
        assert any(remedy in err for remedy in ("Make room on its disk", "No space left on device")), err
        subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
        assert ended(start_command(*words))[0] == 0
        assert sum(count > 1 for count in endpoint.ledger.sends.values()) <= 2 * 4
        assert_all_right(place / "out.jsonl", 150)


# -- places that may not be written to -----------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    """A folder, or a file, that may not be written to; also for root, for whom no permissions count."""
    if os.geteuid() != 0:
        mode = place.stat().st_mode
        place.chmod(0o555 if place.is_dir() else 0o444)
        yield
        place.chmod(mode)
        return
    mounted = subprocess.run(["mount", "--bind", place, place], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("root may write everywhere, and nothing may be mounted here")
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("closed", ["folder", "store"])
def test_a_place_that_may_not_be_written_to(tmp_path: Path, closed: str) -> None:
    """A read-only folder or store: refused with the remedy before anything is sent; `show` and `export` still read."""
    place = tmp_path / "place"
    place.mkdir()
    with served() as (url, endpoint):
        store, files = place / "run.sqlite", make_files(tmp_path)
        words = ["run", *files, "--base-url", url, "--model", "m", "--store", store, "--output"]
        assert command(*words, tmp_path / "out.jsonl").exit_code == 0
        sent = endpoint.ledger.requests
        with read_only(place if closed == "folder" else store):
            result = command(*words, tmp_path / "other.jsonl")
            assert (result.exit_code, endpoint.ledger.requests) == (2, sent), result.output
            assert "Traceback" not in result.output
            assert "must be writable" in result.output or "may not be written to" in result.output
            assert "--store" in result.output
            assert command("show", store).exit_code == 0
            result = command("export", store, "--output", tmp_path / "exported.jsonl")
            assert result.exit_code == 0, result.output
    assert_all_right(tmp_path / "exported.jsonl", 12)


def unprivileged(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process that permissions hold for, whoever runs the tests."""
    line = [sys.executable, "-m", "engine.cli.main", *map(str, words)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("permissions do not hold for root, and there is no setpriv to give its rights up")
        line = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", *line]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("log", ["no log", "an empty log", "a log with answers"])
def test_a_store_in_a_folder_without_permission_is_read(tmp_path: Path, log: str) -> None:
    """As it is for whoever gets a colleague's results: `show` and `export` read it; where its newest answers are in a
    log, which cannot be read there, they say what to copy, and the copy is read."""
    place, copied = tmp_path / "place", tmp_path / "copied"
    place.mkdir()
    copied.mkdir()
    store = place / "run.sqlite"
    with served() as (url, _):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--store", store]
        assert command(*words, "--output", tmp_path / "out.jsonl").exit_code == 0
    if log == "a log with answers":
        with contextlib.closing(sqlite3.connect(store)) as other:
            other.execute("UPDATE runs SET ended_at = 5")
            other.commit()
            kept = Path(f"{store}-wal").read_bytes(), store.read_bytes()
        Path(f"{store}-wal").write_bytes(kept[0])
        store.write_bytes(kept[1])
    elif log == "an empty log":
        Path(f"{store}-wal").touch()
    export = ["--output", tmp_path / "exported.jsonl"]
    place.chmod(0o555)
    try:
        shown, exported = unprivileged("show", store), unprivileged("export", store, *export)
        if log == "a log with answers":
            assert (shown.returncode, exported.returncode) == (2, 2), shown.stderr + exported.stderr
            assert f"cp {store} {store}-wal FOLDER" in exported.stderr
            shutil.copy(store, copied)
            shutil.copy(f"{store}-wal", copied)
            exported = unprivileged("export", copied / "run.sqlite", *export)
        else:
            assert shown.returncode == 0, shown.stderr
    finally:
        place.chmod(0o755)
    assert exported.returncode == 0, exported.stderr
    assert_all_right(tmp_path / "exported.jsonl", 12)


def test_a_store_that_a_killed_run_left_on_a_read_only_disk_is_told_apart(tmp_path: Path) -> None:
    """Its newest answers are in its log, which cannot be read in a folder that is closed: an error, not fewer rows."""
    place = tmp_path / "place"
    place.mkdir()
    with served() as (url, _):
        store = place / "run.sqlite"
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--store", store]
        assert command(*words, "--output", tmp_path / "out.jsonl").exit_code == 0
    with contextlib.closing(sqlite3.connect(store)) as other:  # a log, as a killed process leaves it
        other.execute("UPDATE runs SET ended_at = 5")
        other.commit()
        kept = {file.name: file.read_bytes() for file in place.iterdir()}
    for name, content in kept.items():
        if not name.endswith("-shm"):
            (place / name).write_bytes(content)
    with read_only(place):
        result = command("export", store, "--output", tmp_path / "exported.jsonl")
    assert result.exit_code in (0, 2), result.output
    if result.exit_code == 2:
        assert "may not be written to" in result.output
    else:
        assert_all_right(tmp_path / "exported.jsonl", 12)


def test_a_damaged_store_and_the_way_on(tmp_path: Path) -> None:
    """A page of the store is lost: the run is refused with the command that saves the rest, that command works as it
    stands, and with the new store only what was lost is asked."""
    with served() as (url, endpoint):
        out, new = tmp_path / "out.jsonl", tmp_path / "new store.sqlite"
        words = ["run", *make_files(tmp_path, 600), "--base-url", url, "--model", "m", "--output", out]
        assert command(*words).exit_code == 0
        store = tmp_path / "out.jsonl.store.sqlite"
        with contextlib.closing(sqlite3.connect(store)) as db:
            (place,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'answers'").fetchone()
        content = store.read_bytes()
        page = content.rindex(b'"r300"', 0, len(content)) // 4096
        assert page != place - 1, "a leaf, not the root"
        store.write_bytes(content[: page * 4096] + bytes(4096) + content[(page + 1) * 4096 :])
        refused = command(*words)
        assert refused.exit_code == 2
        said = f"annotate salvage {shlex.quote(str(store))} NEW, and then go on with --store NEW"
        assert said in refused.output
        saved = command("salvage", store, new)
        assert saved.exit_code == 0, saved.output
        sent = sum(endpoint.ledger.sends.values())
        assert command(*words, "--store", new).exit_code == 0
        assert sum(endpoint.ledger.sends.values()) - sent < 200
    assert_all_right(out, 600)


def test_an_export_that_would_lack_rows_is_refused(tmp_path: Path) -> None:
    """A byte that says how many rows a page has is turned: SQLite reads fewer without a word, so the pages are checked
    before an export, and no output is written."""
    with served() as (url, _):
        out = tmp_path / "out.jsonl"
        assert command("run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", out).exit_code == 0
    store = tmp_path / "out.jsonl.store.sqlite"
    with contextlib.closing(sqlite3.connect(store)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'inputs'").fetchone()
    content = bytearray(store.read_bytes())
    count = (page - 1) * 4096 + 4
    assert content[count] == 12
    content[count] = 7
    store.write_bytes(content)
    with contextlib.closing(sqlite3.connect(store)) as db:
        assert len(db.execute("SELECT * FROM inputs NOT INDEXED").fetchall()) == 7, "SQLite says nothing"
    result = command("export", store, "--output", tmp_path / "exported.jsonl")
    assert result.exit_code == 2
    assert "is damaged" in result.output
    assert not (tmp_path / "exported.jsonl").exists()


def test_an_output_that_was_not_written_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary has no row for a file that is not there, and the way to the answers is told."""

    out, replace = tmp_path / "out.jsonl", os.replace

    def full(source: str, target: Path) -> None:
        if Path(target) == out:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with served() as (url, _):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", out]
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            result = command(*words)
    assert result.exit_code == 4
    assert "write them elsewhere with" in result.output
    assert "\n  store " in result.output
    assert "\n  output " not in result.output


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the shim asks /proc which file is meant")
def test_a_run_that_a_full_disk_ended_is_not_called_a_crash(tmp_path: Path) -> None:
    """`show` says of it what the run said: its store could not be written."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    files = make_files(inputs, 8)
    told = 0
    with served() as (url, _):
        steps = count_steps(tmp_path / "undisturbed", files, url)
        for number in [place for place, name in enumerate(steps) if name == "COMMIT"]:
            place = tmp_path / str(number)
            place.mkdir()
            with FaultyDisk(place, fails_at=number, how=FULL).at_work():
                result = command(*words_for(place, files, url))
            if "stopped (store)" in result.output:
                shown = command("show", place / "out.jsonl").output
                assert "crashed" not in shown
                told += "stopped: the run store could not be written" in shown
    assert told
