"""Sources: every format and compression, what is refused before reading, and what a damaged file does."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from engine.adapters.files import FileSource
from engine.adapters.files.format import Format, format_of
from engine.vocabulary.errors import ConfigError, InputError, MissingExtra

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda raw: zstandard.ZstdCompressor().compress(raw),
}
# Residues look random: lines that do not compress to nothing, so that a cut is in the middle of the data.
LINES = b"".join(b'{"id":%d,"n":%d}\n' % (number, pow(3, number, 10**40)) for number in range(6_000))


def make_file(folder: Path, name: str, raw: bytes) -> str:
    path = folder / name
    path.write_bytes(raw)
    return str(path)


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files(tmp_path: Path, suffix: str) -> None:
    """A compressed file gives the records of the plain one, in several passes, and in several frames joined."""
    whole = make_file(tmp_path, f"in.jsonl.{suffix}", PACK[suffix](LINES))
    source = FileSource(whole)
    assert source.rereadable
    first, second = ([record.data for record in source] for _ in range(2))
    assert first == second == [record.data for record in FileSource(make_file(tmp_path, "in.jsonl", LINES))]
    half = len(LINES) // 2
    joined = make_file(tmp_path, f"two.ndjson.{suffix}", PACK[suffix](LINES[:half]) + PACK[suffix](LINES[half:]))
    assert sum(1 for _ in FileSource(joined)) == 6_000


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("share", [0.6, 0.9999])
def test_a_file_that_was_cut_off(tmp_path: Path, suffix: str, share: float) -> None:
    """The end of a truncated file is an InputError that names file and line, after the records before it."""
    packed = PACK[suffix](LINES)
    path = make_file(tmp_path, f"in.jsonl.{suffix}", packed[: int(len(packed) * share)])
    lines = [0]
    with pytest.raises(InputError, match=r"in\.jsonl\.\w+: damaged or cut off .*copy or download it again") as caught:
        lines.extend(record.line for record in FileSource(path))
    place = f"after line {lines[-1]} " if lines[-1] else "before its first record"
    assert place in str(caught.value)
    assert lines == list(range(len(lines)))


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, suffix: str) -> None:
    """Plain text under the name of a compressed file is an InputError."""
    path = make_file(tmp_path, f"in.jsonl.{suffix}", LINES[:1000])
    with pytest.raises(InputError, match="before its first record"):
        list(FileSource(path))


@pytest.mark.parametrize("suffix", PACK)
def test_damage_in_the_middle(tmp_path: Path, suffix: str) -> None:
    """Changed bytes end in an InputError, never in another exception or a quiet end."""
    packed = bytearray(PACK[suffix](LINES))
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(byte ^ 0x55 for byte in packed[middle : middle + 64])
    path = make_file(tmp_path, f"in.jsonl.{suffix}", bytes(packed))
    try:
        records = list(FileSource(path))
    except InputError:
        return
    assert suffix == "zst", "zstd frames carry no checksum by default; all others do"
    assert [record.line for record in records] != []


def test_empty_compressed_files(tmp_path: Path) -> None:
    """Compressed nothing is no records."""
    for suffix, pack in PACK.items():
        assert list(FileSource(make_file(tmp_path, f"in.jsonl.{suffix}", pack(b"")))) == []


@pytest.mark.parametrize(
    ("path", "override", "expected"),
    [
        ("a.jsonl", None, Format(kind="jsonl")),
        ("a.JSON.GZ", None, Format(kind="jsonl", compression="gzip")),
        ("b/a.b.ndjson.bz2", None, Format(kind="jsonl", compression="bzip2")),
        ("a.csv.xz", None, Format(kind="csv", compression="xz")),
        ("a.tsv.zst", None, Format(kind="tsv", compression="zstd")),
        ("a.parquet", None, Format(kind="parquet")),
        ("a.txt", "csv", Format(kind="csv")),
        ("a.txt.gz", "jsonl", Format(kind="jsonl", compression="gzip")),
        ("-", "CSV.gz", Format(kind="csv", compression="gzip")),
    ],
)
def test_formats(path: str, override: str | None, expected: Format) -> None:
    """The suffix tells the format, in any case, after the suffix of a compression; a named format wins."""
    assert format_of(path, override) == expected


@pytest.mark.parametrize(
    ("path", "override", "message"),
    [
        ("a.txt", None, r"a\.txt: .* \.jsonl, .*\.parquet, then perhaps \.gz"),
        ("a", None, "does not say what format"),
        ("a.gz", None, "does not say what format"),
        ("a.csv", "xlsx", "unknown format 'xlsx'; known: jsonl"),
        ("a.parquet.gz", None, "compresses its columns itself"),
    ],
)
def test_unknown_formats(path: str, override: str | None, message: str) -> None:
    """An unknown suffix or format is told with the known ones."""
    with pytest.raises(ConfigError, match=message):
        format_of(path, override)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, no name, or a name that no file can have is told before anything is read."""
    (tmp_path / "x.jsonl").mkdir()
    for path, message in {
        "": "has no name",
        str(tmp_path / "no.jsonl"): "no such file",
        str(tmp_path / "x.jsonl"): "is a directory",
        str(tmp_path / "x.jsonl" / "y" / "z.jsonl"): "no such file",
        "a\0b.jsonl": "null",
        "x" * 5000 + ".jsonl": "too long",
    }.items():
        with pytest.raises(ConfigError, match=message):
            FileSource(path)


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is told with the remedy."""
    path = make_file(tmp_path, "in.jsonl", LINES)
    monkeypatch.setattr(os, "access", lambda *_: False)  # a chmod does not stop root, who runs tests in containers
    with pytest.raises(ConfigError, match=r"permission denied.*chmod u\+r"):
        FileSource(path)


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format whose package is not installed is told with the one command that installs it."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "engine.adapters.files.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install zstandard$"):
        FileSource(make_file(tmp_path, "in.jsonl.zst", b""))
    with pytest.raises(MissingExtra, match=r"pip install pyarrow$"):
        FileSource(make_file(tmp_path, "in.parquet", b""))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is JSONL from standard input, which is read once only and left open."""
    stdin = io.TextIOWrapper(io.BytesIO(b'{"a":1}\n{"a":2}\n'))
    monkeypatch.setattr(sys, "stdin", stdin)
    source = FileSource("-")
    assert (source.name, source.rereadable) == ("standard input", False)
    assert [record.data for record in source] == [{"a": 1}, {"a": 2}]
    assert not stdin.buffer.closed
    with pytest.raises(ConfigError, match="only once"):
        iter(source)


def test_standard_input_in_other_formats() -> None:
    """A named format holds for standard input too; Parquet needs a file."""
    stdin = io.BytesIO(gzip.compress(b"a\n1\n"))
    assert [record.data for record in FileSource("-", "csv.gz", stdin=stdin)] == [{"a": "1"}]
    assert not stdin.closed
    with pytest.raises(ConfigError, match="not a pipe"):
        FileSource("-", "parquet")


def test_a_live_stream_is_not_held_back() -> None:
    """A record of a pipe is there as soon as its line is."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin, os.fdopen(writing, "wb", buffering=0) as pipe:
        records = iter(FileSource("-", stdin=stdin))
        for number in range(3):
            pipe.write(b'{"a":%d}\n' % number)
            assert next(records).data == {"a": number}
        records.close()


def test_a_named_pipe(tmp_path: Path) -> None:
    """A pipe with a name is like standard input: JSONL, once."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b'{"a":1}\n',))
    writer.start()
    source = FileSource(str(path))
    assert not source.rereadable
    assert [record.data for record in source] == [{"a": 1}]
    writer.join()


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.jsonl.zst", "in.csv", "in.parquet"])
def test_files_are_closed(tmp_path: Path, name: str) -> None:
    """Closing the iterator in mid-stream closes the file at once."""
    path = make_any(tmp_path, name)
    before = open_files()
    records = iter(FileSource(path))
    assert [record.data for record in itertools.islice(records, 1)] == [{"a": "1"}]
    assert open_files() == before + 1
    records.close()
    assert open_files() == before


def make_any(folder: Path, name: str) -> str:
    if name.endswith("parquet"):
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.table({"a": ["1", "2"]}), folder / name)
        return str(folder / name)
    raw = b"a\n1\n2\n" if ".csv" in name else b'{"a":"1"}\n{"a":"2"}\n'
    return make_file(folder, name, PACK.get(name.rpartition(".")[2], bytes)(raw))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
