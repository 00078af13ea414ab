"""Rows out to a file, which appears whole or not at all, or to standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from engine.adapters.files.atomic import replacing
from engine.adapters.files.compression import compressed, require_compression
from engine.adapters.files.csv import write_csv
from engine.adapters.files.extras import parquet_module
from engine.adapters.files.format import STANDARD_STREAM, Format, format_of
from engine.adapters.files.jsonl import write_jsonl
from engine.adapters.files.row import OutputRow
from engine.adapters.files.table import spooled
from engine.vocabulary.errors import ConfigError, EngineError


def check_output_path(path: str, *, format: str | None = None, source: str | None = None) -> None:
    """Say now what would otherwise fail after hours.

    :param path: as for `write_rows`.
    :param source: the input file, which the output must not replace.
    :raises ConfigError: the folder is missing or not writable, `path` is a folder, has no known format, or is `source`.
    :raises MissingExtra: an optional package is needed that is not installed.
    """
    if not path:
        raise ConfigError("the output has no name; give a file, or - for standard output")
    kind = _format(path, format)
    require_compression(kind.compression)
    if kind.kind == "parquet":
        parquet_module()
    if path == STANDARD_STREAM:
        if kind.kind == "parquet":
            raise ConfigError("Parquet cannot be written to standard output; give a file")
        if sys.stdout is None:
            raise ConfigError("standard output is closed; give a file")
        return
    target = Path(path)
    _check_place(target)
    if source not in (None, "", STANDARD_STREAM) and _same_file(target, Path(str(source))):
        raise ConfigError(f"{path}: is the input; give the output another name")


def write_rows(
    path: str,
    rows: Iterable[OutputRow],
    *,
    format: str | None = None,
    fields: Sequence[str] = (),
    csv_safe: bool = False,
    stdout: BinaryIO | None = None,
) -> int:
    """Write `rows` as they come, in their order, and return their number.

    JSONL has one line a row, ``{"id","output","error"}``. CSV, TSV and Parquet have the columns ``id``, then
    ``output`` or one column for each field of object outputs, then ``error_kind`` and ``error_message`` (see
    `table.Table`); they need two passes, by way of a spool on disk. Memory does not grow with the rows, and `path` is
    replaced at the end, in one step; if anything fails, it is as before.

    :param path: ``-`` is standard output; else the suffix tells format and compression.
    :param format: wins over the suffix.
    :param fields: names of the task's variables, so that each has its column, in this order, whatever was answered.
    :param csv_safe: in CSV and TSV, texts that a spreadsheet would take for a formula are marked (see `write_csv`).
    :param stdout: written to instead of the process's own standard output; left open.
    :raises ConfigError: as `check_output_path`.
    :raises EngineError: the file could not be written, for example because the disk is full.
    :raises BrokenPipeError: nobody reads standard output any more.
    """
    check_output_path(path, format=format)
    kind = _format(path, format)
    if path == STANDARD_STREAM:
        stream = stdout or sys.stdout.buffer
        try:
            count = _write(stream, kind, rows, fields, folder=None, csv_safe=csv_safe)
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise EngineError(f"standard output cannot be written: {error.strerror or error}") from error
        return count
    target = Path(path)
    try:
        with replacing(target) as stream:
            return _write(stream, kind, rows, fields, folder=target.resolve().parent, csv_safe=csv_safe)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EngineError(f"{path}: cannot be written ({reason}); a file of that name is as it was before") from error


def _write(
    stream: BinaryIO, kind: Format, rows: Iterable[OutputRow], fields: Sequence[str], *, folder: Path | None,
    csv_safe: bool,
) -> int:  # fmt: skip
    with compressed(stream, kind.compression) as packed:
        if kind.kind == "jsonl":
            return write_jsonl(packed, rows)
        with spooled(rows, folder=folder, fields=fields) as table:
            match kind.kind:
                case "csv":
                    return write_csv(packed, table, delimiter=",", safe=csv_safe)
                case "tsv":
                    return write_csv(packed, table, delimiter="\t", safe=csv_safe)
                case "parquet":
                    count: int = parquet_module().write_parquet(packed, table)
                    return count


def _format(path: str, format: str | None) -> Format:
    is_stream = path == STANDARD_STREAM or (Path(path).exists() and not Path(path).is_file())
    return format_of(path, format, default="jsonl" if is_stream else None)


def _check_place(target: Path) -> None:
    folder = target.resolve().parent
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; give a file in it")
    if not folder.is_dir():
        raise ConfigError(f"{target}: the folder {folder} does not exist; make it with: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{target}: the folder {folder} is not writable")


def _same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other) and one.is_file()
