"""CSV and TSV: values as they stand, and a broken row that costs no other."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.adapters.files.csv import read_csv
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.values import RawRecord

CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def read(raw: bytes, delimiter: str = ",", **options: Any) -> list[RawRecord]:
    return list(read_csv(io.BytesIO(raw), name="in.csv", delimiter=delimiter, **options))


def rows(raw: bytes, **options: Any) -> list[dict[str, Any] | str | None]:
    return [record.data if record.error is None else record.error for record in read(raw, **options)]


@given(st.lists(st.tuples(CELL, CELL), max_size=5), st.sampled_from([",", "\t"]), st.booleans())
@example([("a\rb", 'c"d,\t'), ("", "\u2028\x85")], ",", True)
def test_round_trip(cells: list[tuple[str, str]], delimiter: str, bom: bool) -> None:
    """What the csv module writes is read as it was: strings, with their line ends, quotes and spaces."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("a", "b"), *cells])
    records = read(text.getvalue().encode("utf-8-sig" if bom else "utf-8"), delimiter)
    assert [record.data for record in records] == [{"a": a, "b": b} for a, b in cells]
    assert [(record.position, record.line) for record in records] == [(n, n + 1) for n in range(len(cells))]


@given(st.binary(max_size=200))
def test_hostile_bytes(raw: bytes) -> None:
    """Any bytes give records with data or an error, and every string can be sent as UTF-8."""
    records = read(b"a,b\n" + raw)
    assert [record.line for record in records] == list(range(1, len(records) + 1))
    for record in records:
        assert record.data is not None or record.error is not None
        assert record.data is None or {*record.data, *record.unreadable} == ({"a"} if record.error else {"a", "b"})
        str(record.data).encode()


def test_a_row_of_another_length_keeps_its_first_cell() -> None:
    """Nothing stands before the first cell, so no stray comma can have moved it: an id there is kept."""
    short, long, torn = read(b"id,text\n1\n2,a,b\n\xff,a,b\n")
    assert (short.data, long.data, torn.data) == ({"id": "1"}, {"id": "2"}, None)


def test_a_cell_that_cannot_be_read_costs_its_own_field() -> None:
    """NUL or bytes that are not UTF-8 matter only where the task uses that column."""
    nul, torn = read(b"a,b\n1,\0\n2,\xe9\n")
    assert (nul.data, nul.unreadable) == ({"a": "1"}, {"b": "a NUL character (file line 2)"})
    assert (torn.data, torn.unreadable) == ({"a": "2"}, {"b": "what is not UTF-8 (file line 3)"})


def test_broken_rows() -> None:
    """A row with too few or too many cells or bad quotes is a broken record that names its line."""
    raw = b'a,b\n1\n1,2,3\n1,\0\n"1"x,2\n1,\xe9\n\n1,"2\n3"\n4,5\n6,"7'
    assert rows(raw) == [
        "1 cells where the header has 2 (file line 2)",
        "3 cells where the header has 2 (file line 3)",
        {"a": "1"},
        "a quote inside a quoted cell is not doubled (file line 5)",
        {"a": "1"},
        {"a": "1", "b": "2\n3"},
        {"a": "4", "b": "5"},
        "a quote that opens in this row is never closed, so the rest of the file is part of it (file line 11)",
    ]


def test_values_stay_strings() -> None:
    """Nothing is guessed: numbers, dates, nulls and spaces are the strings that stand there."""
    assert rows(b"a,b,c,d\n007, x ,NULL,\n") == [{"a": "007", "b": " x ", "c": "NULL", "d": ""}]


def test_long_lines_and_cells() -> None:
    """A line above the bound is a broken record; a long cell below it is read; the rows after both are read."""
    raw = b"a,b\n" + b"x" * 300 + b",1\n2,3\n" + b"x" * 150_000 + b",1\n"
    assert rows(raw, max_line_characters=200) == [
        "the line is longer than 200 characters (file line 2)",
        {"a": "2", "b": "3"},
        "the line is longer than 200 characters (file line 4)",
    ]
    assert [record.error for record in read(raw)] == [None, None, None]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b",text\n1,2", "column 1 has no name"),
        (b"a,b,a\n", "two columns are named 'a'"),
        (b"id;text\n1;2\n", "separated by ';'"),
        (b"id\ttext\n", "separated by '\\\\t'"),
        (b'"a', "header row cannot be read"),
        (b"caf\xe9,b\n", "column 1 is not UTF-8"),
        ("a,b\n".encode("utf-16"), "iconv"),
    ],
)
def test_headers_that_are_refused(raw: bytes, message: str) -> None:
    """A file without usable column names is refused as a whole."""
    with pytest.raises(ConfigError, match=rf"in\.csv: .*{message}"):
        read(raw)
