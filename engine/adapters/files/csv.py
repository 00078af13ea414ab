"""CSV and TSV with a header row. Values are strings as they stand: no guessing of types, nulls or dates."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TextIO

import msgspec

from engine.adapters.files.table import Table
from engine.adapters.files.text import has_surrogate, reject_utf16
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.values import RawRecord

_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠'")
"""What begins a formula in a spreadsheet (OWASP, "CSV Injection"), full-width forms included; and the mark itself, so
that to take one mark off gives every text back."""

MAX_LINE_CHARACTERS = 64 << 20
_SKIP_CHARACTERS = 1 << 20


def read_csv(
    stream: BinaryIO, *, name: str, delimiter: str, max_line_characters: int = MAX_LINE_CHARACTERS
) -> Iterator[RawRecord]:
    """The data rows of `stream`, numbered from 1 without the header; empty lines are no rows.

    :param name: of the file, for messages.
    :param max_line_characters: a longer line, or field, makes a broken record, and is never held whole.
    :raises ConfigError: no header, or one with empty or repeated names.
    """
    # Process-wide in the csv module, and too small for documents; only ever raised, so that nobody else is surprised.
    csv.field_size_limit(max(csv.field_size_limit(), max_line_characters))
    with _decoded(stream) as text:
        lines = _Lines(text, max_line_characters)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header = _header(rows, name, delimiter)
        position = 0
        while True:
            start = lines.number + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield _broken(position, f"{_plain(error)} (file line {start})")
            else:
                if not cells:
                    continue
                yield _record(cells, header, position, f"(file line {start})")
            position += 1


@contextmanager
def _decoded(stream: BinaryIO) -> Iterator[TextIO]:
    # Bytes that are not UTF-8 become surrogates, so that they cost their row and not the rest of the file.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield text
    finally:
        text.detach()  # whoever opened the stream closes it


class _Lines:
    """Lines of bounded length; an iterator object, because a generator would end at its first exception."""

    def __init__(self, text: TextIO, limit: int) -> None:
        self._text = text
        self._limit = limit
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > self._limit and not line.endswith(("\n", "\r")):
            while (piece := self._text.readline(_SKIP_CHARACTERS)) and not piece.endswith(("\n", "\r")):
                pass
            raise csv.Error(f"the line is longer than {self._limit:,} characters")
        return line


def _header(rows: Iterator[list[str]], name: str, delimiter: str) -> list[str]:
    try:
        header = next((row for row in rows if row), None)
    except csv.Error as error:
        raise ConfigError(f"{name}: the header row cannot be read: {_plain(error)}") from None
    if header is None:
        raise ConfigError(f"{name}: is empty; the first row must name the columns")
    reject_utf16("".join(header[:1]).encode("utf-8", "surrogateescape"), name)
    if len(header) == 1:
        _check_delimiter(header[0], name, delimiter)
    for number, column in enumerate(header, start=1):
        if not column.strip():
            raise ConfigError(f"{name}: column {number} has no name; the first row must name every column")
        if has_surrogate(column) or "\0" in column:
            raise ConfigError(f"{name}: the name of column {number} is not UTF-8 text; save the file as UTF-8")
        if column in header[: number - 1]:
            raise ConfigError(f"{name}: two columns are named '{column}'; rename one of them")
    return header


def _check_delimiter(header: str, name: str, delimiter: str) -> None:
    other = next((mark for mark in ("\t", ";", ",") if mark in header and mark != delimiter), None)
    if other:
        raise ConfigError(
            f"{name}: its columns seem to be separated by {other!r}, and {delimiter!r} was expected; "
            "name a file with tabs .tsv (or use that format), and one with commas .csv"
        )


def _record(cells: list[str], header: list[str], position: int, place: str) -> RawRecord:
    if len(cells) != len(header):
        problem = f"{len(cells)} cells where the header has {len(header)} {place}"
        return _broken(position, problem, first=_first_cell(cells, header))
    problems = {column: _problem(cell) for column, cell in zip(header, cells, strict=True)}
    unreadable = {column: f"{problem} {place}" for column, problem in problems.items() if problem}
    data = {column: cell for column, cell in zip(header, cells, strict=True) if column not in unreadable}
    return RawRecord(position=position, line=position + 1, data=data, unreadable=unreadable)


def _problem(cell: str) -> str | None:
    if "\0" in cell:
        return "a NUL character"
    return "what is not UTF-8" if has_surrogate(cell) else None


def _plain(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quote that opens in this row is never closed, so the rest of the file is part of it"
    if "expected after" in text:
        return "a quote inside a quoted cell is not doubled"
    if "field larger" in text:
        return "a cell is too long; perhaps a quote is never closed"
    return text


def _broken(position: int, error: str, *, first: dict[str, Any] | None = None) -> RawRecord:
    return RawRecord(position=position, line=position + 1, data=first, error=error)


def _first_cell(cells: list[str], header: list[str]) -> dict[str, Any] | None:
    """What can be trusted of a row with too many or too few cells: an unquoted comma moves all that come after it, but
    nothing stands before the first. Where ids are in that column, as they mostly are, the record keeps its own."""
    return {header[0]: cells[0]} if _problem(cells[0]) is None else None


def write_csv(stream: BinaryIO, table: Table, *, delimiter: str, safe: bool = False) -> int:
    """Write a header and a line a row; the number of rows.

    Null is an empty cell, a list is JSON text, true and false are written as in JSON.

    :param safe: for spreadsheets: a text that would begin a formula gets an apostrophe before it, as does one that
        begins with an apostrophe. Numbers are numbers.
    """
    as_text = _guarded if safe else _text
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        # With \r\n as line end the writer quotes cells with either of the two; with \n it leaves a bare \r as it is.
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
        writer.writerow([as_text(name) for name in table.names])
        count = 0
        for row in table:
            cells = table.cells(row)
            # In a column with texts a number is one as well, and still begins no formula.
            first = cells[0] if isinstance(row.id, int | float) else as_text(cells[0])
            writer.writerow([first, *(as_text(cell) for cell in cells[1:])])
            count += 1
        text.flush()
    finally:
        text.detach()
    return count


def _text(cell: Any) -> Any:
    return msgspec.json.encode(cell).decode() if isinstance(cell, bool | list) else cell


def _guarded(cell: Any) -> Any:
    text = _text(cell)
    return f"'{text}" if isinstance(text, str) and text.startswith(_FORMULA_STARTS) else text
