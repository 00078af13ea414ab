"""Data frames of pandas and polars as records, by stand-ins: neither is needed to test the engine."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

import pytest

from engine.run.frames import frame_rows, is_frame
from engine.vocabulary.errors import ConfigError


class PandasLike:
    """Rows by `iloc` and `to_dict("records")`."""

    def __init__(self, columns: list[Any], rows: list[list[Any]]) -> None:
        self.columns = columns
        self._rows = rows
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def iloc(self) -> PandasLike:
        return self

    def __getitem__(self, rows: slice) -> PandasLike:
        part = PandasLike(self.columns, self._rows[rows])
        part.asked = self.asked
        return part

    def to_dict(self, orient: str) -> list[dict[Any, Any]]:
        assert orient == "records"
        self.asked.append(len(self._rows))
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]


class PolarsLike:
    """Rows by `iter_rows(named=True)`."""

    def __init__(self, columns: list[str], rows: list[list[Any]]) -> None:
        self.columns = columns
        self._rows = rows

    def to_dict(self) -> dict[str, Any]:
        raise AssertionError("the whole frame at once")

    def iter_rows(self, *, named: bool) -> Iterator[dict[str, Any]]:
        assert named
        return (dict(zip(self.columns, row, strict=True)) for row in self._rows)


class LazyLike:
    """A plan: it has rows when it is collected, and warns when it is asked for its columns before."""

    def collect_schema(self) -> None: ...

    @property
    def columns(self) -> list[str]:
        raise AssertionError("the plan was asked for its columns")

    def collect(self) -> PolarsLike:
        return PolarsLike(["id", "text"], [[1, "a"]])


class NAType:
    """Not even equal to itself."""

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class Timestamp(dt.datetime):
    def to_pydatetime(self, warn: bool = True) -> dt.datetime:
        assert not warn, "nanoseconds that are cut are no warning of ours"
        return dt.datetime(*self.timetuple()[:6])  # noqa: DTZ001 - a time of a table has no zone


class Timedelta(dt.timedelta):
    def to_pytimedelta(self) -> dt.timedelta:
        return dt.timedelta(seconds=self.total_seconds())


class NumpyLike:
    """An array or a number of numpy."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def tolist(self) -> Any:
        return self._value


@pytest.mark.parametrize("kind", [PandasLike, PolarsLike])
def test_rows_are_records(kind: Any) -> None:
    """Of either kind, in their order; a table and not its columns."""
    frame = kind(["id", "text"], [[1, "a"], [2, "b"]])
    assert is_frame(frame)
    assert list(frame_rows(frame)) == [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]


@pytest.mark.parametrize(
    "records",
    [[], ["a"], {"columns": 1}, iter(()), "columns"],
    ids=["none", "list", "mapping", "iterator", "text"],
)
def test_other_records_are_no_frame(records: Any) -> None:
    """Lists, mappings, texts and iterators are taken as they are."""
    assert not is_frame(records)


def test_a_plan_is_carried_out() -> None:
    """A lazy frame of polars is what its plan gives."""
    assert is_frame(LazyLike())
    assert list(frame_rows(LazyLike())) == [{"id": 1, "text": "a"}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, None),
        (NAType(), None),
        (math.inf, math.inf),
        (Timestamp(2024, 1, 2, 3), dt.datetime(2024, 1, 2, 3)),  # noqa: DTZ001 - as above
        (Timedelta(hours=1), dt.timedelta(hours=1)),
        (NumpyLike(7), 7),
        (NumpyLike([1.5, math.nan]), [1.5, None]),
        ([NumpyLike(1), {"x": math.nan}], [1, {"x": None}]),
        (True, True),
        (b"x", b"x"),
    ],
    ids=["nan", "NA", "inf", "time", "span", "number", "array", "list", "boolean", "bytes"],
)
def test_values_are_those_of_python(value: Any, said: Any) -> None:
    """What is missing is None, as tables mean it; what JSON cannot say is left to be refused with its field."""
    ((row),) = frame_rows(PandasLike(["x"], [[value]]))
    assert row == {"x": said}
    assert type(row["x"]) is type(said)


def test_a_long_frame_is_not_copied_whole() -> None:
    """Rows are made some at a time, as they are read."""
    frame = PandasLike(["x"], [[number] for number in range(5_000)])
    rows = frame_rows(frame)
    assert next(rows) == {"x": 0}
    assert sum(frame.asked) < 2_000
    assert [row["x"] for row in rows] == list(range(1, 5_000))


def test_columns_are_names_and_each_once() -> None:
    """Numbers become text, as fields of a record are; a name that stands twice would lose a column without a word."""
    assert list(frame_rows(PandasLike([0, 1], [["a", "b"]]))) == [{"0": "a", "1": "b"}]
    with pytest.raises(ConfigError, match="two columns named 'x'; rename"):
        next(frame_rows(PandasLike(["x", "y", "x"], [["a", "b", "c"]])))
