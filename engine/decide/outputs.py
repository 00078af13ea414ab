"""What counts as an output of a task: the check of a value, and the JSON schema that asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import LABELLED, Field, FieldType, Task

MAX_ENUM_LABELS = 400
"""Larger label sets are not put into the schema: providers refuse or choke on the compiled grammar
(anthropic-sdk-python #1185); the check of the value holds all the same."""

Check = Callable[[Any], Any]


class NotAnOutput(ValueError):
    """A value that the task does not allow; the text says why, without the record."""


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """An object of which some variables are valid.

    :ivar valid: canonical values by variable. :ivar wrong: why each of the others is not. Together they are all
        variables of the task, each in one of the two.
    :ivar names: all variables, in the order in which an output has them.
    """

    valid: Mapping[str, Any]
    wrong: Mapping[str, str]
    names: tuple[str, ...]


class PartlyAnOutput(NotAnOutput):
    """An object of which some variables are valid: `partial` says which."""

    def __init__(self, partial: Partial) -> None:
        """Its text names what is wrong."""
        super().__init__("; ".join(partial.wrong.values()))
        self.partial = partial


def output_check(task: Task) -> Check:
    """A function from a JSON value to the canonical output, raising `NotAnOutput`.

    Where some variables of several are valid and others not, it raises `PartlyAnOutput`. Labels are matched exactly
    first, then without regard to case and outer spaces where that is unambiguous; the output is always the label as the
    task spells it. Unknown keys of an object are dropped.
    """
    checks = {name: _field_check(field, task.abstain) for name, field in task.variables.items()}
    if not task.is_object:
        return checks[""]

    def check_object(value: Any) -> Any:
        if not isinstance(value, dict):
            raise NotAnOutput(f"output is {_kind(value)}, not an object of {', '.join(checks)}")
        valid: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for name, check in checks.items():
            try:
                valid[name] = _checked_field(name, check, value)
            except NotAnOutput as error:
                wrong[name] = str(error)
        if not wrong:
            return valid
        if not valid:
            raise NotAnOutput("; ".join(wrong.values()))
        raise PartlyAnOutput(Partial(valid=valid, wrong=wrong, names=tuple(checks)))

    return check_object


def _checked_field(name: str, check: Check, value: Mapping[str, Any]) -> Any:
    if name not in value:
        raise NotAnOutput(f"field '{name}' is missing")
    try:
        return check(value[name])
    except NotAnOutput as error:
        raise NotAnOutput(f"field '{name}': {error}") from None


def _field_check(field: Field, abstain: str | None) -> Check:
    if field.type is FieldType.LABEL:
        return _label_check([*field.labels, *([abstain] if abstain is not None else [])])
    if field.type is FieldType.LABELS:
        return _labels_check(list(field.labels), abstain)
    plain = _PLAIN_CHECKS[field.type]
    if abstain is None:
        return plain
    return lambda value: value if value == abstain else plain(value)


def _label_check(labels: list[str]) -> Check:
    exact = {label: label for label in labels}
    folded: dict[str, str | None] = {}
    for label in labels:
        key = label.strip().casefold()
        folded[key] = None if key in folded else label

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise NotAnOutput(f"output is {_kind(value)}, not a label")
        label = exact.get(value) or folded.get(value.strip().casefold())
        if label is None:
            raise NotAnOutput(f"{_short(value)} is not one of the labels")
        return label

    return check


def _labels_check(labels: list[str], abstain: str | None) -> Check:
    one = _label_check([*labels, *([abstain] if abstain is not None else [])])
    order = {label: rank for rank, label in enumerate(labels)}

    def check(value: Any) -> list[str]:
        if not isinstance(value, list):
            raise NotAnOutput(f"output is {_kind(value)}, not a list of labels")
        chosen = {one(element) for element in value}
        if abstain in chosen and len(chosen) > 1:
            raise NotAnOutput(f"{abstain!r} stands beside other labels")
        return sorted(chosen, key=lambda label: order.get(label, -1))

    return check


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise NotAnOutput(f"output is {_kind(value)}, not a string")
    # JSON may spell half of a surrogate pair; it is no text, and neither UTF-8 nor SQLite can hold it.
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise NotAnOutput(f"output is {_kind(value)}, not a list of strings")
    return [_string(element) for element in value]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise NotAnOutput(f"output is {_kind(value)}, not true or false")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():  # 3.0 is an integer to JSON Schema
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotAnOutput(f"output is {_kind(value)}, not an integer")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAnOutput(f"output is {_kind(value)}, not a number")
    if isinstance(value, float) and not math.isfinite(value):  # an integer may be too large to be asked this
        raise NotAnOutput("output is not a finite number")
    return value


_PLAIN_CHECKS: dict[FieldType, Check] = {
    FieldType.STRING: _string,
    FieldType.STRINGS: _strings,
    FieldType.BOOLEAN: _boolean,
    FieldType.INTEGER: _integer,
    FieldType.NUMBER: _number,
}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _short(value: str) -> str:
    return repr(value if len(value) <= 40 else value[:37] + "...")


def check_examples(task: Task) -> None:
    """Raise `ConfigError` for an example whose output the task itself does not allow: it would teach errors."""
    check = output_check(task)
    for number, example in enumerate(task.examples, start=1):
        try:
            check(example.output)
        except NotAnOutput as error:
            raise ConfigError(f"example {number}: {error}; mend the example, or what the task allows") from None


def output_schema(task: Task) -> dict[str, Any]:
    """JSON schema of one output, in the subset that strict modes take: every key required, nothing additional."""
    schemas = {name: _field_schema(field, task.abstain) for name, field in task.variables.items()}
    if not task.is_object:
        return schemas[""]
    return {"type": "object", "properties": schemas, "required": list(schemas), "additionalProperties": False}


def _field_schema(field: Field, abstain: str | None) -> dict[str, Any]:
    if field.type in LABELLED:
        labels = [*field.labels, *([abstain] if abstain is not None else [])]
        label: dict[str, Any] = {"type": "string"}
        if len(labels) <= MAX_ENUM_LABELS:
            label["enum"] = labels
        return label if field.type is FieldType.LABEL else {"type": "array", "items": label}
    plain_schemas: dict[FieldType, dict[str, Any]] = {
        FieldType.STRING: {"type": "string"},
        FieldType.STRINGS: {"type": "array", "items": {"type": "string"}},
        FieldType.BOOLEAN: {"type": "boolean"},
        FieldType.INTEGER: {"type": "integer"},
        FieldType.NUMBER: {"type": "number"},
    }
    plain = plain_schemas[field.type]
    if abstain is None or field.type is FieldType.STRING:
        return plain
    return {"anyOf": [plain, {"type": "string", "enum": [abstain]}]}
