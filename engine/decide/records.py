"""From a record as read to a record that can be asked about: choose its fields, find its id, take its digest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from engine.vocabulary.task import Task
from engine.vocabulary.values import BadRecord, Input, RawRecord, Record, RecordId

DEFAULT_ID = "id"
_CHOOSE = 'choose the fields to be sent without it: input = ["..."] in the task'
_HALF_CHARACTER = "half of a surrogate pair, which is no text; mend it"
_OTHER_ID = 'mend it, or name a field that identifies every record: id = "..." in the task'
_encode = msgspec.json.Encoder(order="sorted").encode


def used_fields(task: Task, names: Sequence[str]) -> Sequence[str]:
    """Those of a source's fields that a task looks at: what it sends, and the id.

    All of them where it does not choose, and where one that it names is missing: the message then lists what there is.
    """
    if task.input is None:
        return names
    named = {*task.input} if task.id is None else {*task.input, task.id}
    wanted = named | {task.id or DEFAULT_ID}
    return [name for name in names if name in wanted] if named.issubset(names) else names


class _Unusable(ValueError):
    """Why a record cannot be asked about."""


class RecordReader:
    """Turns raw records into records, for one task and one source.

    Whether records carry ids is decided by the first readable one when the task does not say: with an ``id`` field
    all must have it, without it all get their line number. A source that mixes both would give two records one id.
    """

    def __init__(self, task: Task, *, each_alone: bool = False) -> None:
        """:param each_alone: records come from different callers, so each has an id or has none, for itself."""
        self._each_alone = each_alone and task.id is None
        self._fields = task.input
        self._id_field = task.id
        self._decided = task.id is not None

    @property
    def id_field(self) -> str | None:
        """The field that holds ids; None while undecided, or when line numbers serve."""
        return self._id_field

    def read(self, raw: RawRecord) -> Record | BadRecord:
        """The record, or why it cannot be used."""
        if raw.data is None or raw.error is not None:
            message = raw.error or "cannot be read"
            return BadRecord(position=raw.position, line=raw.line, id=self._id_left(raw), message=message)
        if not self._decided or self._each_alone:
            self._decided = True
            self._id_field = DEFAULT_ID if DEFAULT_ID in raw.data or DEFAULT_ID in raw.unreadable else None
        id_: RecordId | None = None
        try:
            id_ = self._id(raw, raw.data)
            key = id_key(id_)
            input_ = self._input(raw, raw.data)
            digest = hashlib.blake2b(_encode(input_), digest_size=16).digest()
        except (_Unusable, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            return BadRecord(position=raw.position, line=raw.line, id=id_, message=str(error))
        return Record(position=raw.position, line=raw.line, id=id_, key=key, input=input_, digest=digest)

    def _id_left(self, raw: RawRecord) -> RecordId | None:
        """The id of a record that cannot be used, if that much of it can be trusted."""
        field = self._id_field if self._decided else DEFAULT_ID
        if field is None or raw.data is None or field not in raw.data:
            return None
        try:
            return _checked_id(raw.data[field], field)
        except _Unusable:
            return None

    def _id(self, raw: RawRecord, data: dict[str, Any]) -> RecordId:
        if self._id_field is None:
            return raw.line
        if self._id_field in raw.unreadable:
            raise _Unusable(f"the id in '{self._id_field}' holds {raw.unreadable[self._id_field]}; {_OTHER_ID}")
        if self._id_field not in data:
            raise _Unusable(_missing(f"id field '{self._id_field}'", self._id_field, data))
        return _checked_id(data[self._id_field], self._id_field)

    def _input(self, raw: RawRecord, data: dict[str, Any]) -> Input:
        names = self._fields
        if names is None:
            names = [name for name in (*data, *raw.unreadable) if name != self._id_field]
            if not names:
                raise _Unusable("it has no field besides the id, so there is nothing to ask about")
        for name in names:
            if name in raw.unreadable:
                raise _Unusable(f"field '{name}' holds {raw.unreadable[name]}; {_CHOOSE}")
            if name not in data:
                raise _Unusable(_missing(f"field '{name}'", name, data))
            if not _is_text(name) and len(names) > 1:  # the name of an only field is not sent
                raise _Unusable(f"the name of field '{_shown(name)}' holds {_HALF_CHARACTER}, or {_CHOOSE}")
            lacking = _not_in_json(data[name])
            if lacking is not None:
                raise _Unusable(f"field '{name}' holds {lacking}, or {_CHOOSE}")
        if len(names) > 1:
            return {name: data[name] for name in names}
        return _as_text(data[names[0]])


def _checked_id(id_: Any, field: str) -> RecordId:
    if isinstance(id_, bool) or not isinstance(id_, str | int | float):
        raise _Unusable(f"the id in '{field}' is neither a string nor a number")
    if isinstance(id_, str) and not id_.strip():
        raise _Unusable(f"the id in '{field}' is empty; {_OTHER_ID}")
    if isinstance(id_, str) and any("\ud800" <= char <= "\udfff" for char in id_):
        raise _Unusable(f"the id in '{field}' holds half of a surrogate pair, which is no text")
    if isinstance(id_, float) and not math.isfinite(id_):  # JSON has no word for it: it would be put out as null
        raise _Unusable(f"the id in '{field}' is {id_}, which is no number")
    return id_


def _not_in_json(value: Any) -> str | None:
    """What JSON has no word for, with the remedy: the encoder would make base64 of bytes and null of nan and inf."""
    if isinstance(value, str):
        return None if _is_text(value) else _HALF_CHARACTER
    if value is None or isinstance(value, int):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value}, which is no number to JSON; give None or a finite number"
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes, which JSON does not have; decode them to a text"
    if isinstance(value, dict):
        value = [*value, *value.values()]
    elif not isinstance(value, list | tuple | set | frozenset):
        return _not_encoded(value)
    return next((lacking for item in value if (lacking := _not_in_json(item)) is not None), None)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_encoded(value: Any) -> str | None:
    """Dates, decimals and others have a form in JSON; the rest should be told with its field."""
    try:
        _encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return f"a value of type {type(value).__name__}, which JSON does not have; make it a text or a number"
    return None


def _as_text(value: Any) -> str:
    """One field is sent as a plain string; what is not one is sent as its JSON text, null as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else _encode(value).decode()


def _missing(what: str, name: str, data: dict[str, Any]) -> str:
    folded = {field.casefold(): field for field in data}
    near = get_close_matches(name.casefold(), folded, n=1)
    hint = f"did you mean '{folded[near[0]]}'?" if near else f"it has: {', '.join(data) or 'nothing'}"
    return _shown(f"{what} is missing; {hint}")


def _shown(text: str) -> str:
    """A text that is shown and stored, which half of a surrogate pair cannot be."""
    return text if _is_text(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def id_key(id_: RecordId) -> str:
    """The id as JSON text, under which the store knows it."""
    return msgspec.json.encode(id_).decode()
