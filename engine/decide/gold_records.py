"""Records whose right output is known: what is sent of them, and apart from it what is right."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from engine.decide.outputs import NotAnOutput, output_check
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.task import FieldType, Task
from engine.vocabulary.values import RawRecord

GOLD_FIELDS = ("label", "output", "gold")
ID_FIELD = "id"
_SHOWN = 3


class _NoField(ConfigError):
    """No record so far has a field that may hold the right output."""

    def __init__(self, message: str, *, lacks: str) -> None:
        super().__init__(message)
        self.lacks = lacks


class Gold(msgspec.Struct, frozen=True, kw_only=True):
    """In the order in which they are asked.

    :ivar records: what may be sent: never the right output, nor an id that could tell it.
    :ivar outputs: what is right, as the task spells it.
    :ivar field: where the file holds it.
    :ivar unusable: records that are left out; `problems` are the first of them, in words.
    :ivar lines: where they stand in the file.
    """

    records: list[dict[str, Any]]
    outputs: list[Any]
    field: str
    unusable: int
    problems: list[str]
    lines: list[int] = []


def read_gold(raws: Iterable[RawRecord], task: Task, *, name: str, field: str | None, seed: int) -> Gold:
    """Read a gold file, and shuffle it.

    A task with several variables finds them in an object in `field`, or each in a column of its own name.

    :param field: None: the first of `GOLD_FIELDS` that the first record with any of them has.
    :raises ConfigError: the field is not there. :raises InputError: no record can be used.
    """
    check = output_check(task)
    records: list[dict[str, Any]] = []
    outputs: list[Any] = []
    lines: list[int] = []
    problems: list[str] = []
    columns: list[str] | None = None
    lacking: _NoField | None = None
    for raw in raws:
        try:
            if raw.data is None or raw.error is not None:
                raise InputError(raw.error or "cannot be read")
            if columns is None:
                columns = _columns(raw.data, task, name=name, field=field)
            right = check(_gold(raw.data, columns, task))
            records.append(_sent(raw.data, task, columns, len(records)))
            outputs.append(right)  # after all that may go wrong: the two lists stand beside each other
            lines.append(raw.line)
        except _NoField as error:  # of the first records only: a later one may say which field it is
            lacking = lacking or error
            problems.append(f"line {raw.line}: it has {error.lacks}")
        except (InputError, NotAnOutput) as error:
            problems.append(f"line {raw.line}: {error}")
    if columns is None and lacking is not None:
        raise lacking
    if not records or columns is None:
        raise InputError(f"{name} holds no record that could be used{'; ' + problems[0] if problems else ''}")
    order = list(range(len(records)))
    random.Random(seed).shuffle(order)  # files are often sorted by label
    return Gold(
        records=[records[place] for place in order],
        outputs=[outputs[place] for place in order],
        field=", ".join(columns),
        unusable=len(problems),
        problems=problems[:_SHOWN],
        lines=[lines[place] for place in order],
    )


def _columns(data: Mapping[str, Any], task: Task, *, name: str, field: str | None) -> list[str]:
    sent = set(task.input or ())
    if field is None and task.is_object and all(key in data and key not in sent for key in task.fields):
        return list(task.fields)
    if field is None:
        field = next((known for known in GOLD_FIELDS if known in data and known not in sent), None)
    if field is None or field not in data:
        wanted = f"no field {field!r}" if field is not None else f"none of the fields {', '.join(GOLD_FIELDS)}"
        raise _NoField(
            f"{name} has {wanted}; name the one with the right output: --gold-field NAME "
            f"(there are: {', '.join(data)})",
            lacks=wanted,
        )
    if field in sent:
        raise ConfigError(f"the field {field!r} holds the right output and is one that the task sends ('input')")
    return [field]


def _gold(data: Mapping[str, Any], columns: list[str], task: Task) -> Any:
    missing = next((column for column in columns if data.get(column) is None), None)
    if missing is not None:
        raise InputError(f"it has no {missing!r}")
    if task.is_object:
        if len(columns) == 1 and columns[0] not in task.fields:
            return _decoded(data[columns[0]])
        return {key: _plain(data[key], task.fields[key].type) for key in columns}
    return _plain(data[columns[0]], task.variables[""].type)


def _plain(value: Any, kind: FieldType) -> Any:
    """A cell of CSV is a text; what should be something else stands in it as JSON. A label may look like a number."""
    if kind in (FieldType.LABEL, FieldType.STRING):
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if kind is FieldType.BOOLEAN and isinstance(value, str):
        value = value.strip().lower()  # True in CSV that Python wrote, TRUE in a spreadsheet's
    return _decoded(value)


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return value


def _sent(data: Mapping[str, Any], task: Task, columns: list[str], number: int) -> dict[str, Any]:
    """The fields that are sent, and a number for an id: the file's own may tell the answer."""
    own = task.id or ID_FIELD
    names = task.input if task.input is not None else [key for key in data if key not in {own, *columns}]
    missing = next((key for key in names if key not in data), None)
    if missing is not None:
        raise InputError(f"it has no field '{missing}', which the task sends")
    if not names:
        raise InputError("it has no field besides the id and the right output")
    sent = {key: data[key] for key in names}
    return sent if own in sent else {own: f"g{number}", **sent}
