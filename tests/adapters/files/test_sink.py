"""Sinks: whole files or none, in every format, with columns that a person would expect."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import stat
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.adapters.files import FileSource, OutputRow, check_output_path, write_rows
from engine.vocabulary.errors import ConfigError, EngineError, MissingExtra
from engine.vocabulary.values import RecordError

FAILED = RecordError(kind="reply", message="no answer")
LABELS = [OutputRow(id=1, output="pos"), OutputRow(id=2, error=FAILED), OutputRow(id=3, output="neg")]
OBJECTS = [
    OutputRow(id="a", output={"topic": "x", "tags": ["p", "q"], "n": 1, "ok": True, "id": "own"}),
    OutputRow(id="b", error=FAILED),
    OutputRow(id="c", output={"topic": None, "tags": [], "n": 2.5, "ok": None, "id": None}),
]


def parquet(path: Path) -> Any:
    return pq.read_table(path)


def cells(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_jsonl(tmp_path: Path, suffix: str) -> None:
    """JSONL is one line a row in the form of the contract, compressed as the name says."""
    path = str(tmp_path / f"out.jsonl{suffix}")
    assert write_rows(path, iter(LABELS)) == 3
    assert [record.data for record in FileSource(path)] == [
        {"id": 1, "output": "pos", "error": None},
        {"id": 2, "output": None, "error": {"kind": "reply", "message": "no answer"}},
        {"id": 3, "output": "neg", "error": None},
    ]


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    """A compressed file holds neither its name nor the time."""
    one, two = tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz"
    write_rows(str(one), LABELS)
    write_rows(str(two), LABELS)
    assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress(one.read_bytes()).startswith(b'{"id":1,"output":"pos","error":null}\n')


def test_csv(tmp_path: Path) -> None:
    """CSV has one column a field; null is empty, lists are JSON, and a field named like a fixed column is prefixed."""
    path = tmp_path / "out.csv"
    write_rows(str(path), iter(OBJECTS))
    assert cells(path) == [
        ["id", "topic", "tags", "n", "ok", "output.id", "error_kind", "error_message"],
        ["a", "x", '["p","q"]', "1", "true", "own", "", ""],
        ["b", "", "", "", "", "", "reply", "no answer"],
        ["c", "", "[]", "2.5", "", "", "", ""],
    ]


def test_tsv_of_labels(tmp_path: Path) -> None:
    """A label task has the one column ``output``."""
    path = tmp_path / "out.tsv"
    write_rows(str(path), LABELS)
    assert path.read_bytes().splitlines()[:2] == [b"id\toutput\terror_kind\terror_message", b"1\tpos\t\t"]


def test_parquet_of_labels(tmp_path: Path) -> None:
    """Integer ids make an integer column; output and errors are string columns."""
    path = tmp_path / "out.parquet"
    assert write_rows(str(path), iter(LABELS)) == 3
    table = parquet(path)
    assert table.schema.names == ["id", "output", "error_kind", "error_message"]
    assert table.schema.types == [pa.int64(), pa.string(), pa.string(), pa.string()]
    assert table.to_pylist()[1] == {"id": 2, "output": None, "error_kind": "reply", "error_message": "no answer"}


def test_parquet_of_objects(tmp_path: Path) -> None:
    """Each field of an object has its own typed column."""
    path = tmp_path / "out.parquet"
    write_rows(str(path), iter(OBJECTS))
    table = parquet(path)
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    assert types["id"] == types["topic"] == types["output.id"] == pa.string()
    assert (types["n"], types["ok"], types["tags"]) == (pa.float64(), pa.bool_(), pa.list_(pa.string()))
    assert table["tags"].to_pylist() == [["p", "q"], None, []]


def test_parquet_of_nothing_known(tmp_path: Path) -> None:
    """Columns of nulls only are string columns, and the fields that were asked for have their columns in any case."""
    path = tmp_path / "out.parquet"
    for rows in ([], [OutputRow(id=None, error=FAILED)]):
        write_rows(str(path), rows, fields=["topic", "tone"])
        schema = parquet(path).schema
        assert schema.names == ["id", "topic", "tone", "error_kind", "error_message"]
        assert set(schema.types) == {pa.string()}
    write_rows(str(path), [])
    assert parquet(path).schema.names == ["id", "output", "error_kind", "error_message"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, None, -(2**63)], [1, None, -(2**63)]),
        ([1, 2**63], ["1", "9223372036854775808"]),
        ([1, "x"], ["1", "x"]),
        ([1, 1.5], ["1", "1.5"]),
    ],
)
def test_parquet_ids(tmp_path: Path, ids: list[Any], expected: list[Any]) -> None:
    """Ids are integers if all are and fit, else strings."""
    path = tmp_path / "out.parquet"
    write_rows(str(path), (OutputRow(id=one, output="x") for one in ids))
    assert parquet(path)["id"].to_pylist() == expected


# NUL cannot be in a column name that our own reader takes.
NAME = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(NAME, max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers() | st.text(), VALUE), max_size=6), st.sampled_from(["parquet", "csv", "jsonl"]))
def test_any_output_is_written(tmp_path: Path, rows: list[tuple[Any, Any]], suffix: str) -> None:
    """Whatever the answers are, and however their types differ, every row is written, in its order."""
    path = str(tmp_path / f"out.{suffix}")
    assert write_rows(path, (OutputRow(id=one, output=value) for one, value in rows)) == len(rows)
    records = list(FileSource(path))
    assert len(records) == len(rows)
    if suffix == "jsonl":
        assert [(record.data or {})["output"] for record in records] == [value for _, value in rows]


def test_mixed_columns_are_json_text(tmp_path: Path) -> None:
    """A column whose values have no one type holds JSON text; integers that a float would round are not rounded."""
    path = tmp_path / "out.parquet"
    write_rows(str(path), [OutputRow(id=1, output={"x": "a", "y": 2**60}), OutputRow(id=2, output={"x": 1, "y": 0.5})])
    assert parquet(path).select(["x", "y"]).to_pydict() == {"x": ['"a"', "1"], "y": [str(2**60), "0.5"]}


def test_several_row_groups(tmp_path: Path) -> None:
    """Parquet is written in row groups, and the rows stay in their order."""
    path = tmp_path / "out.parquet"
    assert write_rows(str(path), (OutputRow(id=number, output="x") for number in range(25_000))) == 25_000
    assert pq.ParquetFile(path).num_row_groups == 3
    assert parquet(path)["id"].to_pylist() == list(range(25_000))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    """Writing 50,000 rows takes no more memory than writing a few."""
    tracemalloc.start()
    write_rows(str(tmp_path / f"o.{suffix}"), (OutputRow(id=number, output="label") for number in range(50_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def broken_rows() -> Iterator[OutputRow]:
    yield from LABELS
    raise RuntimeError("the source of rows broke")


@pytest.mark.parametrize("name", ["o.jsonl", "o.jsonl.gz", "o.csv", "o.parquet", "o.jsonl.zst"])
@pytest.mark.parametrize("fault", ["rows", "fsync", "replace"])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    """When rows, disk or rename fail, the old file is untouched and no other file is left."""
    path = tmp_path / name
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if fault != "rows":
        monkeypatch.setattr(os, fault, fail)
    expected: type[Exception] = RuntimeError if fault == "rows" else EngineError
    with pytest.raises(expected, match=r"broke|No space left on device.*as it was before"):
        write_rows(str(path), broken_rows() if fault == "rows" else LABELS)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """Until the last row is written a reader sees the old file; then the new one, readable by its owner only."""
    path = tmp_path / "o.jsonl"
    path.write_text("old")

    def watching() -> Iterator[OutputRow]:
        for row in LABELS:
            assert path.read_text() == "old"
            yield row

    write_rows(str(path), watching())
    assert len(path.read_text().splitlines()) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_followed(tmp_path: Path) -> None:
    """Writing to a link replaces what it points to and keeps the link."""
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(real)
    write_rows(str(link), LABELS)
    assert link.is_symlink()
    assert len(real.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv"])
def test_devices(form: str) -> None:
    """A device is written to and never replaced; a full one is an error for the user."""
    write_rows("/dev/null", LABELS, format=form)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(EngineError, match="No space left"):
        write_rows("/dev/full", LABELS, format=form)


def test_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is JSONL on standard output, which stays open; CSV if asked for; Parquet needs a file."""
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    assert write_rows("-", LABELS) == 3
    buffer = stdout.buffer
    assert isinstance(buffer, io.BytesIO)
    assert json.loads(buffer.getvalue().splitlines()[2]) == {"id": 3, "output": "neg", "error": None}
    other = io.BytesIO()
    write_rows("-", LABELS, format="csv", stdout=other)
    assert other.getvalue().startswith(b"id,output,")
    with pytest.raises(ConfigError, match="give a file"):
        write_rows("-", LABELS, format="parquet")


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would fail at the end of a run is told before it: folder, format, package, or the input itself."""
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"{}")
    (tmp_path / "d.jsonl").mkdir()
    for path, message in {
        "": "has no name",
        str(tmp_path / "no" / "o.jsonl"): r"the folder .*no does not exist; make it with: mkdir -p",
        str(tmp_path / "d.jsonl"): "is a folder",
        str(tmp_path / "o.xlsx"): "does not say what format",
        str(source): "is the input",
    }.items():
        with pytest.raises(ConfigError, match=message):
            check_output_path(path, source=str(source))
    check_output_path(str(tmp_path / "o.parquet"), source="-")
    monkeypatch.setitem(sys.modules, "engine.adapters.files.parquet", None)
    with pytest.raises(MissingExtra):
        check_output_path(str(tmp_path / "o.parquet"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="not writable"):
        check_output_path(str(tmp_path / "o.jsonl"))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_confidence_and_model_are_the_last_columns_where_any_row_has_them(tmp_path: Path, suffix: str) -> None:
    """A field of the task that has such a name makes way, and only then."""
    sure = OutputRow(id=1, output={"confidence": "high", "topic": "x"}, confidence=0.5, model="m")
    failed = OutputRow(id=2, error=RecordError(kind="reply", message="no answer"))
    path = tmp_path / f"out.{suffix}"
    write_rows(str(path), [sure, failed], fields=["confidence", "topic"])
    names = ["id", "topic", "output.confidence", "error_kind", "error_message", "confidence", "model"]
    write_rows(str(tmp_path / f"plain.{suffix}"), [OutputRow(id=1, output={"confidence": "high"})])
    if suffix == "parquet":
        table = parquet(path)
        assert sorted(table.schema.names) == sorted(names)
        assert table.schema.names[-2:] == ["confidence", "model"]
        assert [(row["confidence"], row["model"]) for row in table.to_pylist()] == [(0.5, "m"), (None, None)]
        assert parquet(tmp_path / "plain.parquet").schema.names == ["id", "confidence", "error_kind", "error_message"]
        return
    mark = "," if suffix == "csv" else "\t"
    header, first, second = path.read_text().splitlines()
    assert sorted(header.split(mark)) == sorted(names)
    assert header.split(mark)[-2:] == ["confidence", "model"]
    assert first.split(mark)[-2:] == ["0.5", "m"]
    assert second.split(mark)[-2:] == ["", ""]
    assert (tmp_path / f"plain.{suffix}").read_text().splitlines()[0].split(mark)[1] == "confidence"


def test_jsonl_has_confidence_and_model_only_where_there_are_some(tmp_path: Path) -> None:
    """The three keys of the contract come first and always; the others where something makes them."""
    path = tmp_path / "out.jsonl"
    write_rows(str(path), [OutputRow(id=1, output="x", confidence=0.5, model="m"), OutputRow(id=2, output="x")])
    assert path.read_text().splitlines() == [
        '{"id":1,"output":"x","error":null,"confidence":0.5,"model":"m"}',
        '{"id":2,"output":"x","error":null}',
    ]
