"""Parquet, by pyarrow. Imported only through `extras.parquet_module`, so that pyarrow stays optional."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from engine.adapters.files.row import Choose
from engine.adapters.files.table import Table, Type
from engine.adapters.files.text import without_surrogates
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.values import RawRecord

# Small enough that rows with long documents stay cheap to hold, large enough that the cost per batch disappears.
_BATCH_ROWS = 256
_READ_BUFFER_BYTES = 1 << 20
_ROW_GROUP_ROWS = 10_000
# How pandas stores its index: no column that a person would know of.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


class _NoJson(ValueError):
    """A value that has no JSON form."""


def read_parquet(stream: BinaryIO, *, name: str, choose: Choose | None = None) -> Iterator[RawRecord]:
    """The rows of `stream`, numbered from 1.

    Dates and times become ISO 8601 text, decimals and UUIDs text, durations seconds, NaN null (as pandas means it);
    bytes and infinite numbers have no JSON form: such a field is unreadable, which matters if the task uses it.

    :param name: of the file, for messages.
    :param choose: the columns to read, of those that there are; the others cost nothing, and may be damaged. None
        reads all.
    :raises ConfigError: two columns that are read have one name.
    :raises InputError: not a Parquet file, or a damaged one.
    """
    position = 0
    try:
        with pq.ParquetFile(stream, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False) as file:
            columns = _columns(file.schema_arrow, name, choose)
            types = {field.name: str(field.type) for field in file.schema_arrow}
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                for row in _rows(batch):
                    yield _record(row, types, position)
                    position += 1
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{name}: not a Parquet file, or damaged after row {position} ({reason})") from error


def write_parquet(stream: BinaryIO, table: Table) -> int:
    """Write `table` in row groups of 10,000; the number of rows. A column of nulls only is a string column."""
    types, names = table.types, table.names
    schema = pa.schema([pa.field(name, _ARROW[kind]) for name, kind in zip(names, types, strict=True)])
    count = 0
    with pq.ParquetWriter(stream, schema) as writer:
        rows = iter(table)
        while group := [table.cells(row) for row in islice(rows, _ROW_GROUP_ROWS)]:
            arrays = [
                pa.array(cells, field.type) for cells, field in zip(zip(*group, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(group)
    return count


_ARROW: dict[Type, Any] = {
    Type.STRING: pa.string(),
    Type.STRINGS: pa.list_(pa.string()),
    Type.BOOLEAN: pa.bool_(),
    Type.INTEGER: pa.int64(),
    Type.NUMBER: pa.float64(),
    Type.JSON: pa.string(),
}


def _columns(schema: Any, name: str, choose: Choose | None) -> list[str]:
    names = [column for column in schema.names if not _PANDAS_INDEX.fullmatch(column)]
    names = names if choose is None else list(choose(names))
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise ConfigError(f"{name}: two columns are named '{twice}'; rename one of them")
    return names


class _Unreadable:
    """Stands for a value that Python cannot hold."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of `batch`; what Python cannot hold (a year above 9999, bytes that are not UTF-8) is marked."""
    batch = _in_microseconds(batch)
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError, LookupError):
        rows = [_lone_row(batch, index) for index in range(batch.num_rows)]
    yield from rows


def _lone_row(batch: Any, index: int) -> dict[str, Any]:
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[index].as_py()
        except (ValueError, OverflowError, LookupError) as error:
            row[name] = _Unreadable(f"what cannot be read ({error})")
    return row


def _in_microseconds(batch: Any) -> Any:
    """Nanoseconds cut to microseconds, the finest that Python's datetime has: pyarrow refuses the others."""
    for index, field in enumerate(batch.schema):
        kind = field.type
        if not pa.types.is_temporal(kind) or getattr(kind, "unit", None) != "ns":
            continue
        finer: Any
        if pa.types.is_timestamp(kind):
            finer = pa.timestamp("us", kind.tz)
        else:
            finer = pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")
        batch = batch.set_column(index, field.name, batch.column(index).cast(finer, safe=False))
    return batch


def _record(row: dict[str, Any], types: dict[str, str], position: int) -> RawRecord:
    data: dict[str, Any] = {}
    unreadable: dict[str, str] = {}
    for column, value in row.items():
        try:
            data[column] = _value(value)
        except _NoJson as error:
            unreadable[column] = f"{error} (the column's type is {types[column]})"
    return RawRecord(position=position, line=position + 1, data=data, unreadable=unreadable)


def _value(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, _Unreadable):
        raise _NoJson(value.reason)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {without_surrogates(str(key)): _value(item) for key, item in value.items()}
    for kind, convert in _CONVERTED.items():
        if isinstance(value, kind):
            return convert(value)
    what = "bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"
    raise _NoJson(f"{what}, which JSON does not have")


def _number(value: float) -> float | None:
    if math.isinf(value):
        raise _NoJson("an infinite number, which JSON does not have")
    return None if math.isnan(value) else value


_CONVERTED: dict[type, Callable[[Any], Any]] = {
    dt.datetime: dt.datetime.isoformat,
    dt.date: dt.date.isoformat,
    dt.time: dt.time.isoformat,
    dt.timedelta: dt.timedelta.total_seconds,
    decimal.Decimal: str,
    uuid.UUID: str,
}
