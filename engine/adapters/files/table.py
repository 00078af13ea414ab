"""Rows as a table: which columns there are and of what type is known only after the last row.

So the rows are spooled to a nameless file on disk while their columns are learned, and read back for writing: two
passes over any iterable, with memory for one row. The spool is in the folder of the output, where there must be room
for about as much anyway, and not in /tmp, which is often memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import msgspec

from engine.adapters.files.jsonl import encode_row
from engine.adapters.files.row import OutputRow

FIXED = ("id", "error_kind", "error_message")


class Type(StrEnum):
    """What a column holds, besides nulls. `JSON` is text: anything that has no one type of its own."""

    STRING = "string"
    STRINGS = "strings"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    JSON = "json"


OPTIONAL = {"confidence": Type.NUMBER, "model": Type.STRING}
"""Columns after all others, where any row has them."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column between ``id`` and ``error_kind``.

    :ivar key: the field of the output that it shows; None for the output as a whole.
    """

    name: str
    key: str | None
    type: Type


class Table:
    """Spooled rows and their columns: ``id``, then `columns`, then ``error_kind`` and ``error_message``, then `last`.

    An output that is not an object is in one column, ``output``. An object has a column for each of its fields, named
    as the field is, or ``output.NAME`` where that name is taken or blank.

    :ivar last: those of ``confidence`` and ``model`` that any row has.
    :ivar id_type: `INTEGER` if all ids are integers that fit 64 bits, else `STRING`.
    """

    def __init__(self, spool: IO[bytes], columns: Sequence[Column], id_type: Type, last: Sequence[str] = ()) -> None:
        self._spool = spool
        self.columns = columns
        self.last = last
        self.id_type = id_type

    def __iter__(self) -> Iterator[OutputRow]:
        self._spool.seek(0)
        for line in self._spool:
            yield _DECODER.decode(line)

    def cells(self, row: OutputRow) -> list[Any]:
        """The cells of `row` in the order of the columns; None where there is nothing."""
        error = row.error
        middle = [_cell(row.output, column) for column in self.columns]
        last = [None if (value := getattr(row, name)) is msgspec.UNSET else value for name in self.last]
        return [self._id(row), *middle, error and error.kind, error and error.message, *last]

    @property
    def types(self) -> list[Type]:
        """Of all columns, in their order."""
        return [self.id_type, *(column.type for column in self.columns), Type.STRING, Type.STRING] + [
            OPTIONAL[name] for name in self.last
        ]

    @property
    def names(self) -> list[str]:
        """Of all columns, in their order."""
        return ["id", *(column.name for column in self.columns), "error_kind", "error_message", *self.last]

    def _id(self, row: OutputRow) -> Any:
        if row.id is None or self.id_type is Type.INTEGER or isinstance(row.id, str):
            return row.id
        return _json(row.id)


@contextmanager
def spooled(rows: Iterable[OutputRow], *, folder: Path | None, fields: Sequence[str] = ()) -> Iterator[Table]:
    """A table of `rows`.

    :param folder: where the spool is; None for the system's folder of temporary files.
    :param fields: fields of object outputs that get a column even if no row has them, in this order.
    """
    with tempfile.TemporaryFile(dir=folder) as spool:
        facts = _Facts(fields)
        for row in rows:
            facts.see(row)
            spool.write(encode_row(row))
        yield Table(spool, facts.columns(), facts.id_type(), facts.last())


_DECODER = msgspec.json.Decoder(OutputRow)


class _Facts:
    """What was seen so far: the kinds of the ids, of plain outputs, and of each field."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._ids: set[str] = set()
        self._plain: set[str] = set()
        self._fields: dict[str, set[str]] = {name: set() for name in fields}
        self._last: set[str] = set()

    def see(self, row: OutputRow) -> None:
        self._ids.add(_kind(row.id))
        self._last.update(name for name in OPTIONAL if getattr(row, name) is not msgspec.UNSET)
        if isinstance(row.output, dict):
            for name, value in row.output.items():
                self._fields.setdefault(name, set()).add(_kind(value))
        elif row.output is not None:
            self._plain.add(_kind(row.output))

    def last(self) -> list[str]:
        return [name for name in OPTIONAL if name in self._last]

    def id_type(self) -> Type:
        return Type.INTEGER if _type(self._ids) is Type.INTEGER else Type.STRING

    def columns(self) -> list[Column]:
        taken = {*FIXED, *self._last}
        columns = []
        if self._plain or not self._fields:
            columns.append(Column(name="output", key=None, type=_type(self._plain)))
            taken.add("output")
        # Names that need no prefix first, so that a field called "output.id" cannot be pushed aside by "id".
        names = {name: name for name in self._fields if name.strip() and name not in taken}
        taken |= names.keys()
        for name in self._fields:
            if name not in names:
                names[name] = _free(f"output.{name}", taken)
                taken.add(names[name])
        columns += [Column(name=names[name], key=name, type=_type(kinds)) for name, kinds in self._fields.items()]
        return columns


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


_TYPES: dict[frozenset[str], Type] = {
    frozenset(): Type.STRING,
    frozenset({"string"}): Type.STRING,
    frozenset({"strings"}): Type.STRINGS,
    frozenset({"boolean"}): Type.BOOLEAN,
    frozenset({"exact"}): Type.INTEGER,
    frozenset({"long"}): Type.INTEGER,
    frozenset({"exact", "long"}): Type.INTEGER,
    frozenset({"float"}): Type.NUMBER,
    frozenset({"exact", "float"}): Type.NUMBER,
}


def _type(kinds: set[str]) -> Type:
    return _TYPES.get(frozenset(kinds - {"null"}), Type.JSON)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "strings" if all(isinstance(item, str) for item in value) else "other"
    if type(value) is int:
        return _integer_kind(value)
    return _KINDS.get(type(value), "other")


def _integer_kind(value: int) -> str:
    """`exact` ones survive as a float, `long` ones as a 64-bit integer only."""
    if abs(value) <= 1 << 53:
        return "exact"
    return "long" if -(1 << 63) <= value < 1 << 63 else "other"


_KINDS: dict[type, str] = {type(None): "null", bool: "boolean", str: "string", float: "float"}


def _cell(output: Any, column: Column) -> Any:
    if column.key is None:
        value = None if isinstance(output, dict) else output
    else:
        value = output.get(column.key) if isinstance(output, dict) else None
    return _json(value) if column.type is Type.JSON and value is not None else value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
