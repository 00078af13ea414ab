"""JSON Lines: one object a line.

Reading never stops at a bad line, it says what is wrong with it. msgspec decodes the normal line; what it refuses goes
to the standard library, which either reads it after all (lone surrogates, which some scrapers write, and which cost
the record that is asked about them) or says where the error is. With a key that occurs twice both let the last one win;
that loses data in silence, so it is an error here.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NoReturn

import msgspec

from engine.adapters.files.row import OutputRow
from engine.adapters.files.text import BOM, has_surrogate, reject_utf16, without_surrogates
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.values import RawRecord

MAX_LINE_BYTES = 64 << 20
# Far below the interpreter's recursion limit, so that whatever is read here can also be hashed and sent later.
MAX_DEPTH = 100

_SKIP_BYTES = 1 << 20
# More than any id has, fewer than an interpreter may refuse to read (sys.int_info.str_digits_check_threshold is 640),
# and a float can hold it.
_ID_DIGITS = 300
_KEY_END = re.compile(rb'"[ \t\r]*:')
_DECODER = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()


class _BadLine(ValueError):
    """Why a line cannot be used, for a person."""


def read_jsonl(stream: BinaryIO, *, name: str, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[RawRecord]:
    """The records of `stream`; blank lines are skipped but counted.

    :param name: of the file, for messages.
    :param max_line_bytes: a longer line is a broken record, and is never held whole.
    :raises ConfigError: the file is UTF-16, or a ``.json`` file with one document instead of one object a line.
    """
    position = line = 0
    limit = max_line_bytes + 1
    while raw := stream.readline(limit):
        line += 1
        is_cut = len(raw) >= limit and not raw.endswith(b"\n")
        if line == 1:
            reject_utf16(raw, name)
            raw = raw.removeprefix(BOM)
        if is_cut:
            _skip_line(stream)
            error = f"the line is longer than {max_line_bytes:,} bytes"
            yield RawRecord(position=position, line=line, error=error)
        elif not raw or raw.isspace():
            continue
        else:
            if position == 0:
                _reject_document(raw, name)
            yield _record(raw, position, line)
        position += 1


def write_jsonl(stream: BinaryIO, rows: Iterable[OutputRow]) -> int:
    """Write one line a row, ``{"id","output","error"}``; the number of rows."""
    count = 0
    for row in rows:
        stream.write(encode_row(row))
        count += 1
    return count


def encode_row(row: OutputRow) -> bytes:
    """One line of output, with its line end."""
    try:
        return _ENCODER.encode(row) + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, perhaps in the excerpt of a raw reply
        return _ENCODER.encode(without_surrogates(msgspec.to_builtins(row))) + b"\n"


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(_SKIP_BYTES)) and not piece.endswith(b"\n"):
        pass


def _reject_document(raw: bytes, name: str) -> None:
    """A pretty-printed document or an array would be one error for every line of it, so it is told once."""
    text = raw.strip()
    if name.lower().endswith(".json") and (text.startswith(b"[") or text == b"{"):
        raise ConfigError(
            f"{name}: holds one JSON document, and not one object a line; for a list of objects, convert it with: "
            f"jq -c '.[]' {name} > records.jsonl"
        )


def _record(raw: bytes, position: int, line: int) -> RawRecord:
    try:
        return RawRecord(position=position, line=line, data=_parse(raw))
    except _BadLine as error:
        return RawRecord(position=position, line=line, data=_trusted(raw), error=str(error))


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        data = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _parse_slowly(raw)
    # Every pair has a colon, so as many colons as keys at the top leave no room for a second pair of a key, nor for
    # nested keys. Brackets bound the depth in the same way. This proves nearly all lines at the cost of three counts.
    if raw.count(b":") != len(data) and not _has_distinct_keys(raw, data):
        _parse_slowly(raw)
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(data)
    return data


def _has_distinct_keys(raw: bytes, data: dict[str, Any]) -> bool:
    """Whether it is sure that no object in the line has a key twice; False when it is not known."""
    keys = _key_count(data)
    # The quote that ends a key is followed by a colon or by white space. Inside strings the same can occur, after an
    # escaped quote, so both of these are upper bounds of the pairs, and the second is the closer one.
    ends = raw.count(b'":') + raw.count(b'" ') + raw.count(b'"\t') + raw.count(b'"\r')
    return keys == ends or keys == len(_KEY_END.findall(raw))


def _key_count(data: dict[str, Any]) -> int:
    """Keys of all objects in `data`, without recursion."""
    count = 0
    stack: list[Any] = [data]
    while stack:
        item = stack.pop()
        if type(item) is dict:
            count += len(item)
            item = item.values()
        for child in item:
            if type(child) is dict or type(child) is list:
                stack.append(child)
    return count


def _check_depth(data: Any) -> None:
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _BadLine(_TOO_DEEP)
        children = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for group in children for child in group if isinstance(child, dict | list)]


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _parse_slowly(raw: bytes) -> dict[str, Any]:
    """The same by the standard library, which knows columns.

    :raises _BadLine: with what is wrong, and where.
    """
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError as error:
        raise _BadLine(f"not UTF-8 at byte {error.start + 1}") from None
    try:
        data = _STRICT.decode(text)
    except RecursionError:
        raise _BadLine(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise _BadLine(_malformed(error)) from None
    except _BadLine:
        raise
    except ValueError:  # int() refuses more digits than sys.get_int_max_str_digits()
        raise _BadLine("a number has too many digits") from None
    if not isinstance(data, dict):
        raise _BadLine(f"not a JSON object but {_KINDS[type(data)]}")
    _check_depth(data)
    # Half a character in a field is for whoever knows which fields are asked about: there it fails its record by name.
    return data


def _malformed(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc):
        return "not JSON: the line ends too early"
    return f"not JSON: {error.msg[0].lower()}{error.msg[1:]}, column {error.colno}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: set[str] = set()
    for key, _ in pairs:
        # The cleaned key decides: two keys that differ only in what cannot be sent would become one.
        name = without_surrogates(key)
        if name in names:
            raise _BadLine(f"the key {json.dumps(name[:100], ensure_ascii=False)} occurs twice in one object")
        names.add(name)
    return dict(pairs)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _BadLine(f"the number {text[:40]} is out of range")
    return value


def _constant(text: str) -> NoReturn:
    raise _BadLine(f"{text} is not JSON; use null")


def _trusted(raw: bytes) -> dict[str, Any] | None:
    """What can be trusted of a line that is an object and cannot be used all the same, so that the record keeps its id:
    the texts and numbers at its top. None if there are none."""
    try:
        data = _LENIENT.decode(raw.decode(errors="surrogateescape").strip())
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    return {key: value for key, value in data.items() if _is_plain(key) and _is_plain(value)} or None


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not has_surrogate(value)
    return isinstance(value, int | float) and math.isfinite(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs whose key is there once: of two values nobody knows which was meant."""
    count = Counter(key for key, _ in pairs)
    return {key: value for key, value in pairs if count[key] == 1}


def _short_int(text: str) -> int | None:
    return int(text) if len(text) <= _ID_DIGITS else None


_STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
_LENIENT = json.JSONDecoder(object_pairs_hook=_once, parse_int=_short_int, parse_constant=lambda _: None)
_KINDS: dict[type, str] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
