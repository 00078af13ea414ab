"""Fuzzing of input files, JSON Lines and CSV: what is damaged costs its own line, and no more.

In JSON Lines the lines that were not touched read as they were, with their numbers. In CSV a quote may swallow the rows
after it, so there the rows before the damage are held, and whatever is read is text that can be sent.
"""

from __future__ import annotations

import io
import json
from random import Random
from typing import Any

import msgspec

from benchmarks.fuzz_common import edited, packed, unpacked
from engine.adapters.files.csv import read_csv
from engine.adapters.files.jsonl import read_jsonl
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.values import RawRecord

VALUES = (
    "text",
    "",
    "é",
    "🙂",
    'a "quoted" one',
    "a,b",
    "two\nlines",
    7,
    1.5,
    None,
    True,
    [1, {"a": []}],
    {"id": "x"},
    "\u2028",
)


class Inputs:
    """See `benchmarks.fuzz_common.Target`."""

    def __init__(self) -> None:
        self.read = 0

    def make(self, rng: Random) -> dict[str, Any]:
        """A file of some lines, one of them damaged."""
        kind = rng.choice(("jsonl", "csv", "tsv"))
        count = rng.randrange(1, 8)
        if kind == "jsonl":
            rows: list[dict[str, Any]] = [
                {"id": n, "text": rng.choice(VALUES), "more": rng.choice(VALUES)} for n in range(count)
            ]
            lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows]
        else:
            mark = "," if kind == "csv" else "\t"
            rows = [{"id": str(n), "text": str(rng.choice(VALUES)), "more": f"m{n}"} for n in range(count)]
            lines = [mark.join(_quoted(cell) for cell in row.values()) for row in rows]
        at = rng.randrange(count)
        for _ in range(rng.randrange(1, 4)):
            lines[at] = edited(lines[at], rng.choice(lines), rng, huge=rng.random() < 0.0005)
        header = [] if kind == "jsonl" else [mark.join(("id", "text", "more"))]
        if header and rng.random() < 0.05:
            header = [edited(header[0], lines[0], rng)]
        end = rng.choice(("\n", "\r\n")) if kind != "jsonl" else "\n"
        start = rng.choice(("", "", "", "\ufeff"))
        text = start + end.join([*header, *lines]) + rng.choice(("", end))
        return {
            "kind": kind,
            "rows": rows,
            "at": at,
            "header": header[:1],
            "text": packed(text),
            "damaged": packed(lines[at]),
        }

    def check(self, case: dict[str, Any]) -> str | None:
        """Read it."""
        content = unpacked(case["text"]).encode("utf-8", "surrogatepass")
        try:
            records = list(_records(case["kind"], content))
        except (ConfigError, InputError):
            return None if case["kind"] != "jsonl" or case["at"] == 0 else "one line ends the reading of the whole file"
        self.read += len(records)
        for position, record in enumerate(records):
            if record.position != position:
                return f"position {record.position} where {position} was due"
            json.dumps(record.data, allow_nan=False)  # half a character stays, for the reader of fields to refuse
            msgspec.json.encode(record.error)
            if record.data is None and record.error is None:
                return "a record with neither data nor an error"
        return _changed(case, records)

    def figures(self) -> dict[str, Any]:
        """What is worth telling at the end."""
        return {"records": self.read}


def _records(kind: str, content: bytes) -> Any:
    stream = io.BytesIO(content)
    if kind == "jsonl":
        return read_jsonl(stream, name="f.jsonl", max_line_bytes=100_000)
    return read_csv(stream, name=f"f.{kind}", delimiter="," if kind == "csv" else "\t", max_line_characters=100_000)


def _changed(case: dict[str, Any], records: list[RawRecord]) -> str | None:
    """A line that was not touched and does not read as it was."""
    rows, at, damaged = case["rows"], case["at"], unpacked(case["damaged"])
    if case["kind"] != "jsonl":
        if case["header"] not in (["id,text,more"], ["id\ttext\tmore"]):
            return None
        before = [record.data for record in records[:at]]
        return None if before == rows[:at] else f"rows before the damage: {before!r:.200}, not {rows[:at]!r:.200}"
    extra = damaged.count("\n")
    by_line = {record.line: record for record in records}
    for number, row in enumerate(rows):
        if number == at:
            continue
        record = by_line.get(number + 1 + (extra if number > at else 0))
        if record is None or record.error is not None or record.data != row:
            return f"row {number} was not touched and reads {record!r:.200}"
    return None


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in '",\n\t\r') else cell
