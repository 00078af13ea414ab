"""JSON Lines: what is read, what is said of a line that cannot be read, and what is written."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.adapters.files.jsonl import MAX_DEPTH, read_jsonl, write_jsonl
from engine.adapters.files.row import OutputRow
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.values import RawRecord, RecordError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
OBJECT = st.dictionaries(st.text(), JSON, max_size=5)


def read(raw: bytes, **options: Any) -> list[RawRecord]:
    return list(read_jsonl(io.BytesIO(raw), name="in.jsonl", **options))


def error_of(line: bytes) -> str:
    """The error of a bad line, which must not hurt the good one after it."""
    bad, good = read(line + b'\n{"id":2}\n')
    assert (bad.line, good.data, good.error, good.line, good.position) == (1, {"id": 2}, None, 2, 1)
    assert bad.error is not None
    return bad.error


class Endless(io.RawIOBase):
    """A stream made of pieces on demand, so that a test of a large file needs none."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


@given(st.lists(OBJECT, max_size=5), st.booleans(), st.booleans())
def test_round_trip(objects: list[dict[str, Any]], ascii_only: bool, spaced: bool) -> None:
    """Whatever the standard library writes as an object is read back as it was, with its type and big integers."""
    separators = (", ", " : ") if spaced else (",", ":")
    lines = [json.dumps(item, ensure_ascii=ascii_only, separators=separators) for item in objects]
    records = read("\n".join(lines).encode())
    assert [record.error for record in records] == [None] * len(objects)
    assert [record.data for record in records] == objects
    assert repr([record.data for record in records]) == repr(json.loads(f"[{','.join(lines)}]"))


@given(st.lists(st.binary(max_size=60).filter(lambda line: b"\n" not in line), max_size=8))
@example([b'{"a":1}', b"\xff\xfe", b'{"a":', b"[1]", b"[" * 5000, b"\x00"])
@example([b'{"a":"\\ud800"}', b'{"a":1e999}', b'{"a":NaN}', b'{"":{"a":1,"a":2}}'])
def test_hostile_lines(lines: list[bytes]) -> None:
    """Any bytes give one record for each line that is not blank, with data or an error, and no exception."""
    lines = [b'{"first":1}', *lines]  # bytes that begin as UTF-16 are told once, for the whole file
    records = read(b"\n".join(lines))
    present = [number for number, line in enumerate(lines, start=1) if line.strip()]
    assert [record.line for record in records] == present
    assert [record.position for record in records] == list(range(len(present)))
    for record in records:
        assert record.data is not None or record.error is not None
        json.dumps(record.data, allow_nan=False)
        if record.error is not None:  # beside an error there are plain values or nothing
            assert all(isinstance(value, str | int | float) for value in (record.data or {"": 0}).values())


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", 'a"', "a:", '":', "\\"]), st.sampled_from([1, ":", '" :', '":', {"a": 1}]))
    )
)
def test_repeated_keys(pairs: list[tuple[str, Any]]) -> None:
    """A line is an error exactly if an object in it has a key twice, whatever colons and quotes its strings hold."""
    body = ", ".join(f"{json.dumps(key)} : {json.dumps(value)}" for key, value in pairs)
    (record,) = read(f'{{"outer": {{{body}}}}}'.encode())
    keys = [key for key, _ in pairs]
    assert (record.error is not None) == (len(set(keys)) < len(keys))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a":1,"a":2}', 'the key "a" occurs twice in one object'),
        (b'{"a":1} x', "not JSON: extra data, column 9"),
        (b'{"a":tru}', "not JSON: expecting value, column 6"),
        (b'{"a":1', "not JSON: the line ends too early"),
        (b'{"a":"\x01"}', "not JSON: invalid control character at, column 7"),
        (b'{"a":"caf\xe9"}', "not UTF-8 at byte 10"),
        (b'{"a":NaN}', "NaN is not JSON; use null"),
        (b'{"a":-Infinity}', "-Infinity is not JSON; use null"),
        (b'{"a":1e999}', "the number 1e999 is out of range"),
        (b'{"a":' + b"1" * 5000 + b"}", "a number has too many digits"),
        (b"[1]", "not a JSON object but an array"),
        (b"null", "not a JSON object but null"),
        (b'"a"', "not a JSON object but a string"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", f"nested deeper than {MAX_DEPTH} levels"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", f"nested deeper than {MAX_DEPTH} levels"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not JSON: expecting value, column 1"),
    ],
)
def test_errors_say_what_and_where(line: bytes, message: str) -> None:
    """The error of a bad line says in a few words what is wrong, with the column or byte where that is known."""
    assert error_of(line) == message


@pytest.mark.parametrize(
    ("line", "id_"),
    [
        (b'{"id":"a","x":1,"x":2}', "a"),
        (b'{"x":NaN,"id":"a"}', "a"),
        (b'{"x":[1e999],"id":7}', 7),
        (b'{"id":7.5,"x":' + b"1" * 5000 + b"}", 7.5),
        (b'{"id":"a","x":' + b"[" * 100 + b"]" * 100 + b"}", "a"),
        (b'{"id":"a","x":"caf\xe9"}', "a"),
        (b'{"id":"a","id":"b"}', None),  # nobody knows which
        (b'{"id":"caf\xe9","x":1}', None),
        (b'{"id":"\\ud800","x":NaN}', None),
        (b'{"id":NaN}', None),
        (b'{"id":' + b"1" * 5000 + b"}", None),
        (b'{"id":["a"],"x":NaN}', None),
        (b'{"id":"a","x":', None),
        (b'["id","a"]', None),
    ],
)
def test_a_line_that_cannot_be_used_keeps_its_id(line: bytes, id_: Any) -> None:
    """An object with something unusable in it still says which record it was, unless that is what cannot be read."""
    (record,) = read(line)
    assert record.error is not None
    assert (record.data or {}).get("id") == id_


def test_depth_is_bounded_not_refused() -> None:
    """Nesting up to the bound is data."""
    nested = b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    assert read(b'{"a":' + nested + b"}")[0].error is None


def test_brackets_in_text_are_no_depth() -> None:
    """Only nesting counts as depth, not brackets in a string."""
    assert read(b'{"a":"' + b"[" * 1000 + b'"}')[0].error is None


def test_lines_are_counted_as_an_editor_does() -> None:
    """Blank lines count as lines and are no records; CRLF, a BOM and a missing last line end are accepted."""
    records = read(b'\xef\xbb\xbf\r\n{"a":1}\r\n  \t\n\n{"a":2}')
    assert [(record.position, record.line, record.data) for record in records] == [(0, 2, {"a": 1}), (1, 5, {"a": 2})]


def test_empty_input() -> None:
    """No bytes, or a BOM alone, are no records."""
    assert read(b"") == read(b"\xef\xbb\xbf") == []


def test_lone_surrogates() -> None:
    """Half a character stays in a value and in the name of a field, so that it fails its record where that is sent; a
    whole pair is its character."""
    (record,) = read(rb'{"a":"x\ud800y","b\udc00":["\ud83d\ude00",{"c":"\udfff"}]}')
    assert record.data == {"a": "x\ud800y", "b\udc00": ["\U0001f600", {"c": "\udfff"}]}
    assert "twice" in error_of(rb'{"\ud800":1,"\ud801":2}')


def test_utf16_is_told_once() -> None:
    """A file in UTF-16 is refused as a whole, with the command that converts it."""
    with pytest.raises(ConfigError, match="iconv -f utf-16"):
        read('{"a":1}\n'.encode("utf-16"))


@pytest.mark.parametrize("text", [b'[{"a":1}]', b'{\n"a":1}'])
def test_a_document_in_a_json_file_is_told_once(text: bytes) -> None:
    """A .json file with one document, rather than lines, is refused with the command that converts it."""
    with pytest.raises(ConfigError, match="jq -c"):
        list(read_jsonl(io.BytesIO(text), name="in.json"))


def test_a_long_line_is_an_error_and_not_held() -> None:
    """A line above the bound is a broken record, memory stays near the bound, and the line after it is read."""

    def pieces() -> Iterator[bytes]:
        yield b'{"a":"'
        for _ in range(400):
            yield b"x" * 100_000
        yield b'"}\n{"a":1}\n'

    tracemalloc.start()
    with io.BufferedReader(Endless(pieces())) as stream:
        long, short = read_jsonl(stream, name="in", max_line_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert long.error == "the line is longer than 1,048,576 bytes"
    assert (short.data, short.line) == ({"a": 1}, 2)
    assert peak < 8 << 20


def test_the_bound_is_exact() -> None:
    """A line of exactly the bound is read."""
    assert [r.error is None for r in read(b'{"a":1}\n{"a":12}\n{"a":1}', max_line_bytes=7)] == [True, False, True]


def test_memory_does_not_grow_with_the_file() -> None:
    """Reading 50,000 lines takes no more memory than reading a few."""
    lines = (b'{"id":%d,"text":"some words"}\n' % number for number in range(50_000))
    tracemalloc.start()
    with io.BufferedReader(Endless(lines)) as stream:
        count = sum(1 for _ in read_jsonl(stream, name="in"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 1 << 20


IDS = st.none() | st.text() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)


@given(IDS, JSON, st.none() | st.tuples(st.text(), st.text()))
def test_output_lines(record_id: Any, output: Any, error: tuple[str, str] | None) -> None:
    """An output line has the keys id, output, error in that order, and the id keeps its JSON type."""
    stream = io.BytesIO()
    fault = RecordError(kind=error[0], message=error[1]) if error else None
    assert write_jsonl(stream, [OutputRow(id=record_id, output=output, error=fault)]) == 1
    line = json.loads(stream.getvalue())
    assert list(line) == ["id", "output", "error"]
    assert (type(line["id"]), line["id"]) == (type(record_id), record_id)
    assert line["output"] == output
    assert line["error"] == (None if error is None else {"kind": error[0], "message": error[1]})


def test_output_of_what_cannot_be_utf8() -> None:
    """A lone surrogate in a message, and a number that is none, do not stop the output."""
    stream = io.BytesIO()
    error = RecordError(kind="reply", message="got \ud800")
    write_jsonl(stream, [OutputRow(id=1, error=error), OutputRow(id=2, output={"x": math.nan})])
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0]["error"]["message"] == "got \ufffd"
    assert lines[1]["output"] == {"x": None}
