"""Parquet in: every value in a form that JSON has, or a broken record."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.adapters.files.parquet import read_parquet
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.values import RawRecord


def make_parquet(table: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def read(raw: bytes) -> list[RawRecord]:
    return list(read_parquet(io.BytesIO(raw), name="in.parquet"))


def one(value: Any, kind: Any = None) -> RawRecord:
    (record,) = read(make_parquet(pa.table({"x": pa.array([value], kind)})))
    return record


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("text", None, "text"),
        ("text", pa.dictionary(pa.int32(), pa.string()), "text"),
        (None, pa.string(), None),
        (True, None, True),
        (2**63, pa.uint64(), 2**63),
        (1.5, None, 1.5),
        (math.nan, None, None),
        ([1, None], None, [1, None]),
        ({"a": "b"}, None, {"a": "b"}),
        ([("k", 1)], pa.map_(pa.string(), pa.int64()), [["k", 1]]),
        (decimal.Decimal("1.50"), None, "1.50"),
        (dt.date(2024, 2, 29), None, "2024-02-29"),
        (dt.time(1, 2, 3), None, "01:02:03"),
        (dt.datetime.fromisoformat("2024-01-02T03:04:05"), pa.timestamp("ms"), "2024-01-02T03:04:05"),
        (dt.datetime(2024, 1, 2, tzinfo=dt.UTC), pa.timestamp("us", "UTC"), "2024-01-02T00:00:00+00:00"),
        (1_700_000_000_123_456_789, pa.timestamp("ns"), "2023-11-14T22:13:20.123456"),
        (dt.timedelta(seconds=90), pa.duration("ms"), 90.0),
    ],
)
def test_values(value: Any, kind: Any, expected: Any) -> None:
    """Dates become ISO text, decimals text, durations seconds, NaN null; everything else is as it was."""
    record = one(value, kind)
    assert (record.error, record.data) == (None, {"x": expected})


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (b"raw", None, "bytes, which JSON does not have (the column's type is binary)"),
        ([b"raw"], pa.list_(pa.binary()), "bytes, which JSON does not have (the column's type is list<"),
        ({"path": "a", "bytes": b"raw"}, None, "(the column's type is struct<"),
        (math.inf, None, "an infinite number, which JSON does not have (the column's type is double)"),
        (10**17, pa.timestamp("ms"), "(the column's type is timestamp[ms])"),
    ],
)
def test_values_without_a_json_form(value: Any, kind: Any, message: str) -> None:
    """Bytes, infinite numbers and dates beyond the calendar cost their own field, and not the record."""
    record = one(value, kind)
    assert (record.data, record.error) == ({}, None)
    assert message in record.unreadable["x"]


def test_a_column_without_a_json_form_costs_no_other() -> None:
    """Pictures beside texts: the texts and the ids are read as they are."""
    table = pa.table({"id": [1, 2], "text": ["a", "b"], "picture": pa.array([b"x", None])})
    first, second = read(make_parquet(table))
    assert (first.data, list(first.unreadable)) == ({"id": 1, "text": "a"}, ["picture"])
    assert (second.data, second.unreadable) == ({"id": 2, "text": "b", "picture": None}, {})


def with_damaged_column(table: Any, name: str) -> bytes:
    """A file in which one column cannot be unpacked."""
    raw = bytearray(make_parquet(table, compression="snappy", use_dictionary=False))
    chunk = pq.read_metadata(io.BytesIO(raw)).row_group(0).column(table.schema.names.index(name))
    end = chunk.data_page_offset + chunk.total_compressed_size
    raw[end - 20 : end] = b"\xff" * 20
    return bytes(raw)


def test_columns_that_are_not_chosen_are_not_read() -> None:
    """A picture beside the text costs nothing, even if it is damaged; all columns are there to choose from."""
    table = pa.table({"id": [1, 2], "picture": [b"picture" * 400, b"other" * 400], "text": ["a", "b"]})
    damaged, asked = with_damaged_column(table, "picture"), []
    with pytest.raises(InputError, match="damaged"):
        read(damaged)

    def choose(names: Sequence[str]) -> list[str]:
        asked.append(list(names))
        return ["id", "text"]

    records = list(read_parquet(io.BytesIO(damaged), name="in.parquet", choose=choose))
    assert [(record.data, record.unreadable) for record in records] == [
        ({"id": 1, "text": "a"}, {}),
        ({"id": 2, "text": "b"}, {}),
    ]
    assert asked == [["id", "picture", "text"]]


def test_a_bad_row_costs_no_other() -> None:
    """Text that is not UTF-8 costs its own row only."""
    good, bad = b"ok", b"\xff"
    column = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\3\0\0\0\5\0\0\0"), pa.py_buffer(good + bad + good)]
    )
    records = read(make_parquet(pa.table({"x": column})))
    assert [record.data for record in records] == [{"x": "ok"}, {}, {"x": "ok"}]
    assert [list(record.unreadable) for record in records] == [[], ["x"], []]
    assert [record.line for record in records] == [1, 2, 3]


def test_rows_across_batches_and_groups() -> None:
    """Positions and lines go on across batches and row groups, and the index of pandas is no field."""
    table = pa.table({"n": list(range(1000)), "__index_level_0__": list(range(1000))})
    records = read(make_parquet(table, row_group_size=300))
    assert [record.data for record in records] == [{"n": number} for number in range(1000)]
    assert [record.position for record in records] == list(range(1000))


def test_damaged_files() -> None:
    """A file that is no Parquet, or was cut off, is an InputError; so is damage in the middle."""
    raw = make_parquet(pa.table({"x": [f"text {number}" for number in range(5000)]}), compression="snappy")
    for broken in (b"", b"PAR1", b"id,text\n" * 100, raw[: len(raw) // 2], raw[:10] + b"\xff" * 5000 + raw[5010:]):
        with pytest.raises(InputError, match="not a Parquet file, or damaged"):
            read(broken)


def test_two_columns_of_one_name() -> None:
    """Two columns of one name are refused: a record could hold one of them only."""
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(ConfigError, match="two columns are named 'a'"):
        read(make_parquet(table))
