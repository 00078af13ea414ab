"""What a loss of power leaves: the model of the disk, and the reader of what strace saw. No process is started here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import power_loss
from benchmarks.power_loss_disk import (
    PAGE,
    ROOT,
    SECTOR,
    Disk,
    Loss,
    Made,
    Mapped,
    Moved,
    Operation,
    Picture,
    Removed,
    Resized,
    Synced,
    Told,
    Wrote,
)
from benchmarks.power_loss_trace import NotUnderstoodError, Reader

OLD, NEW = b"o" * 6000, b"n" * 9000


def losses(operations: list[Operation], *, first: int = 0) -> Iterator[tuple[Loss, Picture]]:
    """The power goes after each operation, with much luck, little and none, on both kinds of disk."""
    disk = Disk(operations, root="/d")
    for cut, names, piece in product(range(first, len(operations) + 1), ("strict", "ordered"), (PAGE, SECTOR)):
        for luck, seed in ((0.0, 0), (1.0, 0), *((0.5, seed) for seed in range(8))):
            loss = Loss(cut=cut, names=names, piece=piece, luck=luck, seed=seed)  # type: ignore[arg-type]
            yield loss, disk.after(loss)


def settled(content: bytes) -> list[Operation]:
    """A file /d/f that is on the disk."""
    return [Made(1, "/d/f"), Wrote(1, 0, content), Synced(1, 2), Synced(ROOT, 3)]


# -- the disk ----------------------------------------------------------------------------------------------------

writes = st.lists(
    st.one_of(
        st.builds(
            lambda offset, data: Wrote(1, offset, data), st.integers(0, 3000), st.binary(min_size=1, max_size=1500)
        ),
        st.builds(lambda size: Resized(1, size), st.integers(0, 4000)),
    ),
    max_size=6,
)


def written(done: list[Wrote | Resized]) -> bytes:
    """What a file holds after it, written down byte by byte."""
    content: dict[int, int] = {}
    length = 0
    for one in done:
        if isinstance(one, Resized):
            content = {place: byte for place, byte in content.items() if place < one.size}
            length = one.size
        else:
            content |= {one.offset + index: byte for index, byte in enumerate(one.data)}
            length = max(length, one.offset + len(one.data))
    return bytes(content.get(place, 0) for place in range(length))


@given(
    before=writes,
    since=writes,
    piece=st.sampled_from((PAGE, SECTOR)),
    luck=st.sampled_from((0.0, 0.5, 1.0)),
    seed=st.integers(0, 99),
)
def test_what_is_on_the_disk_was_written(
    before: list[Wrote | Resized], since: list[Wrote | Resized], piece: int, luck: float, seed: int
) -> None:
    """Each byte is the synced one, one that was written there since, or a zero; and the length is one that there was.

    With no luck it is what was synced, with all luck what was written.
    """
    start: list[Operation] = [Made(1, "/d/f"), Synced(ROOT, 1), *before]
    operations = [*start, Synced(1, len(start)), *since]
    disk = Disk(operations, root="/d")
    ever = [written(before)]
    for end in range(len(since)):
        ever.append(written([*before, *since[: end + 1]]))
    lengths = {len(one) for one in ever}
    content = disk.after(Loss(cut=len(operations), piece=piece, luck=luck, seed=seed)).files["/d/f"]
    assert len(content) in lengths
    for place, byte in enumerate(content):
        assert byte in {0, *(one[place] for one in ever if place < len(one))}
    if luck == 0.0:
        assert content == ever[0]
    if luck == 1.0:
        assert content == ever[-1]


def test_pieces_are_lost_alone() -> None:
    """Of a write over four sectors that nothing has synced, any of them may be there without the others."""
    operations = [*settled(bytes(2048)), Wrote(1, 0, b"x" * 2048)]
    found = {
        tuple(picture.files["/d/f"][start : start + SECTOR] == b"x" * SECTOR for start in range(0, 2048, SECTOR))
        for seed in range(200)
        for picture in [Disk(operations, root="/d").after(Loss(cut=5, piece=SECTOR, seed=seed))]
    }
    assert len(found) == 16


def test_a_name_is_kept_by_the_sync_of_its_folder() -> None:
    """A synced file whose folder was not synced may have no name, by POSIX; on a journalling file system it has it."""
    operations: list[Operation] = [Made(1, "/d/f"), Wrote(1, 0, NEW), Synced(1, 2)]
    ends = [(loss, picture.files) for loss, picture in losses(operations, first=3)]
    assert any("/d/f" not in files for loss, files in ends if loss.names == "strict")
    assert all(files == {"/d/f": NEW} for loss, files in ends if loss.names == "ordered")
    kept = [*operations, Synced(ROOT, 3)]
    assert all(picture.files == {"/d/f": NEW} for _, picture in losses(kept, first=4))


def test_a_file_in_a_folder_that_is_not_kept_is_lost() -> None:
    """A folder is a name, too: until the folder above it is synced, everything in it may be gone."""
    operations: list[Operation] = [
        Made(1, "/d/sub", is_folder=True), Made(2, "/d/sub/f"), Wrote(2, 0, NEW), Synced(2, 3), Synced(1, 4),
    ]  # fmt: skip
    ends = list(losses(operations, first=5))
    assert any(not picture.files and not picture.folders for loss, picture in ends if loss.names == "strict")
    kept = [*operations, Synced(ROOT, 5)]
    assert all(picture.files == {"/d/sub/f": NEW} for _, picture in losses(kept, first=6))


def test_a_removed_file_may_come_back() -> None:
    """Until its folder is synced; and the one that has taken its name is not mixed up with it."""
    operations = [*settled(OLD), Removed(1, "/d/f"), Made(2, "/d/f"), Wrote(2, 0, NEW), Synced(2, 7)]
    found = {picture.files.get("/d/f") for loss, picture in losses(operations, first=8) if loss.names == "strict"}
    assert found == {OLD, NEW, None}
    assert {picture.files.get("/d/f") for _, picture in losses([*operations, Synced(ROOT, 8)], first=9)} == {NEW}


def test_what_was_mapped_is_worth_nothing() -> None:
    """A file that was written through memory holds anything, synced or not."""
    operations = [*settled(OLD), Mapped(1), Synced(1, 5)]
    assert all(picture.files["/d/f"] != OLD for _, picture in losses(operations, first=6))


def test_a_sync_covers_what_had_ended_when_it_began() -> None:
    """A write that was under way meanwhile may be lost after it."""
    operations = [*settled(OLD), Wrote(1, 0, NEW), Synced(1, 4)]
    assert any(picture.files["/d/f"] != NEW for _, picture in losses(operations, first=6))


# -- protocols: the check must be able to fail -------------------------------------------------------------------


def replaced(*, sync: bool, folder: bool) -> list[Operation]:
    """How an output is replaced: aside, synced, renamed, the folder synced, somebody told; or without a step."""
    made = [*settled(OLD), Made(2, "/d/f.tmp"), Wrote(2, 0, NEW[:5000]), Wrote(2, 5000, NEW[5000:])]
    made += [Synced(2, len(made))] if sync else []
    made += [Moved(2, "/d/f.tmp", "/d/f")]
    made += [Synced(ROOT, len(made))] if folder else []
    return [*made, Told("the new one is there")]


def faults(operations: list[Operation]) -> set[str]:
    """What may be found of /d/f after a loss of power."""
    found = set()
    for loss, picture in losses(operations, first=4):
        content = picture.files.get("/d/f")
        if content not in (OLD, NEW):
            found.add("torn")
        if content != NEW and loss.cut == len(operations):
            found.add("old after it was told")
    return found


def test_a_replacement_with_all_its_syncs_loses_nothing() -> None:
    """Old or new, whole; and new once it was told."""
    assert faults(replaced(sync=True, folder=True)) == set()


def test_a_replacement_without_fsync_is_found_to_lose() -> None:
    """The new name may stand on a file of which nothing, or some pages, had been written."""
    assert "torn" in faults(replaced(sync=False, folder=True))


def test_a_replacement_without_the_folders_fsync_is_found_to_lose() -> None:
    """It is never torn, but may be the old one though its user was told of the new."""
    assert faults(replaced(sync=True, folder=False)) == {"old after it was told"}


@pytest.mark.parametrize("is_synced", [True, False])
def test_a_log_without_fsync_is_found_to_lose(is_synced: bool) -> None:
    """What was told after it was written and before it was synced is found missing; after the sync, never."""
    operations: list[Operation] = settled(b"")
    for number in range(3):
        operations.append(Wrote(1, 100 * number, b"%d" % number * 100))
        if is_synced:
            operations.append(Synced(1, len(operations)))
        operations.append(Told(str(number)))
    lost = any(
        picture.files["/d/f"][100 * int(one.what) :][:100] != one.what.encode() * 100
        for loss, picture in losses(operations, first=4)
        for one in operations[: loss.cut]
        if isinstance(one, Told)
    )
    assert lost is not is_synced


# -- the reader --------------------------------------------------------------------------------------------------


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def call(text: str) -> str:
    """A line of strace, of the text with its paths and strings in quotes or angles turned as -xx turns them."""
    parts = text.replace("<...", "\1").replace("<unfinished", "\2").split("'")
    turned = "".join(hexed(part) if number % 2 else part for number, part in enumerate(parts))
    return turned.replace("\1", "<...").replace("\2", "<unfinished") + "\n"


def read(*lines: str, there: dict[str, bytes | None] | None = None) -> list[Operation]:
    reader = Reader("/d", "told")
    for path, content in (there or {}).items():
        reader.there(path, content)
    before = len(reader.operations)
    reader.read(call(line) for line in lines)
    return reader.operations[before:]


OPEN = "7 openat(AT_FDCWD<'/x'>, \"'/d/f'\", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3<'/d/f'>"


def test_calls_become_operations() -> None:
    """What is made, written in both ways, cut, synced, renamed and removed, in its order; the rest is none of ours."""
    assert read(
        "7 openat(AT_FDCWD<'/x'>, \"'/etc/passwd'\", O_RDONLY|O_CLOEXEC) = 3<'/etc/passwd'>",
        "7 close(3<'/etc/passwd'>) = 0",
        "7 openat(AT_FDCWD<'/x'>, \"'/d/no'\", O_RDONLY) = -1 ENOENT (No such file or directory)",
        OPEN,
        "7 pwrite64(3<'/d/f'>, \"'abc'\", 3, 4096) = 3",
        "7 write(3<'/d/f'>, \"'hello, '\", 7) = 7",
        "7 write(3<'/d/f'>, \"'you'\", 3) = 3",
        "7 lseek(3<'/d/f'>, 2, SEEK_SET) = 2",
        "7 write(3<'/d/f'>, \"'x'\", 1) = 1",
        "7 ftruncate(3<'/d/f'>, 5) = 0",
        "7 fdatasync(3<'/d/f'>) = 0",
        "7 rename(\"'/d/f'\", \"'/d/g'\") = 0",
        "7 openat(AT_FDCWD<'/d'>, \"'/d'\", O_RDONLY|O_CLOEXEC) = 4<'/d'>",
        "7 fsync(4<'/d'>) = 0",
        "7 mmap(NULL, 32768, PROT_READ|PROT_WRITE, MAP_SHARED, 3<'/d/g'>, 0) = 0x7f00",
        "7 unlink(\"'/d/g'\") = 0",
        "7 unlink(\"'/d/g'\") = -1 ENOENT (No such file or directory)",
        "7 write(3<'/d/g'>(deleted), \"'y'\", 1) = 1",
        "7 mkdir(\"'/d/sub'\", 0700) = 0",
        "7 close(3<'/d/g'>(deleted)) = 0",
        "7 write(3<'pipe:[77]'>, \"'z'\", 1) = 1",
        "7 +++ exited with 0 +++",
    ) == [
        Made(1, "/d/f"), Wrote(1, 4096, b"abc"), Wrote(1, 0, b"hello, "), Wrote(1, 7, b"you"), Wrote(1, 2, b"x"),
        Resized(1, 5), Synced(1, 6), Moved(1, "/d/f", "/d/g"), Synced(ROOT, 8), Mapped(1), Removed(1, "/d/g"),
        Wrote(1, 3, b"y"), Made(2, "/d/sub", is_folder=True),
    ]  # fmt: skip


def test_a_write_that_was_under_way_is_not_covered() -> None:
    """A sync in one thread covers what the others had finished when it began, and stands where it has returned."""
    assert read(
        OPEN,
        "8 pwrite64(3<'/d/f'>, \"'abc'\", 3, 0 <unfinished ...>",
        "7 fsync(3<'/d/f'> <unfinished ...>",
        "8 <... pwrite64 resumed>) = 3",
        "8 pwrite64(3<'/d/f'>, \"'def'\", 3, 3) = 3",
        "7 <... fsync resumed>) = 0",
    ) == [Made(1, "/d/f"), Wrote(1, 0, b"abc"), Wrote(1, 3, b"def"), Synced(1, 1)]


def test_a_sync_that_failed_or_never_returned_covers_nothing() -> None:
    """The process was killed in it, or the disk has said no."""
    assert read(
        OPEN,
        "7 fsync(3<'/d/f'>) = -1 EIO (Input/output error)",
        "7 fsync(3<'/d/f'> <unfinished ...>",
        "7 <... fsync resumed>) = ?",
        "7 +++ killed by SIGKILL +++",
    ) == [Made(1, "/d/f")]


def test_what_a_consumer_notes_is_told_and_not_on_the_disk() -> None:
    """Lines that it writes into its own file say by when it had learned of what."""
    lines = [
        "7 openat(AT_FDCWD<'/x'>, \"'/d/told'\", O_WRONLY|O_CREAT|O_APPEND, 0600) = 5<'/d/told'>",
        "7 write(5<'/d/told'>, \"'[1]\n'\", 4) = 4",
    ]
    assert read(*lines) == [Made(1, "/d/told"), Told("[1]")]


def test_an_appending_file_is_written_at_its_end() -> None:
    """Wherever its position is; and what was there before the trace is known to be there."""
    lines = [
        "7 openat(AT_FDCWD<'/x'>, \"'/d/f'\", O_WRONLY|O_APPEND) = 5<'/d/f'>",
        "7 write(5<'/d/f'>, \"'ab'\", 2) = 2",
        "7 openat(AT_FDCWD<'/x'>, \"'/d/f'\", O_WRONLY|O_TRUNC) = 6<'/d/f'>",
    ]
    assert read(*lines, there={"/d/f": b"1234"}) == [Wrote(1, 4, b"ab"), Resized(1, 0)]


@pytest.mark.parametrize(
    "line",
    [
        "7 openat(AT_FDCWD<'/x'>, \"'/d/new'\", O_RDWR) = 4<'/d/new'>",
        "7 pwrite64(9<'/d/f'>, \"'abc'\", 3, 0) = 3",
        "7 copy_file_range(5<'/etc/passwd'>, NULL, 3<'/d/f'>, NULL, 10, 0) = 10",
        "7 link(\"'/d/f'\", \"'/d/g'\") = 0",
        "7 sync() = 0",
        "7 pwrite64(3<'/d/f'>, \"'abc'\"..., 3000000, 0) = 3000000",
        "7 pwrite64(3<'/d/f'>, \"'abc'\", 3, 0) = 2",
        "7 rename(\"'/d/f'\", \"'/e/f'\") = 0",
        "7 rename(\"'/d/what'\", \"'/d/g'\") = 0",
        "7 close(3<'/d/g'>) = 0",
        "what is this",
    ],
)
def test_what_would_be_read_wrong_is_refused(line: str) -> None:
    """A call that is not known, a file that came from nowhere, a text cut short: an error and not a wrong disk."""
    with pytest.raises(NotUnderstoodError):
        read(OPEN, line)


def may_trace() -> bool:
    """Whether strace is there and allowed to look at a process: in many containers it is not."""
    words = ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "true"]
    return (
        shutil.which("strace") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.slow
def test_a_real_run_loses_nothing_and_one_without_fsync_is_found_to_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hundred losses of power, of a run as it is and of one whose store does not sync."""
    if not may_trace():
        pytest.skip("needs strace")
    monkeypatch.chdir(tmp_path)
    for without, is_safe in ((None, True), ("sync", False)):
        words = ["power_loss", "--disks", "150", "--second", "1", "--histories", "plain"]
        monkeypatch.setattr("sys.argv", [*words, *(["--without", without] if without else [])])
        monkeypatch.setenv("PYTHONPATH", str(Path(power_loss.__file__).parents[1]))
        power_loss.main()
        figures = json.loads((tmp_path / "out/benchmarks/power_loss.json").read_text())
        assert (figures["rows"][0]["problems"] == {}) is is_safe
