"""What is asked about every record: the task, as written in TASK.toml or built in Python.

`Task` only holds and checks; `decide.prompts` turns it into a prompt and `decide.outputs` checks answers against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.values import Input


class FieldType(StrEnum):
    """The types that a variable may have. `label` is one of a set, `labels` any number of a set."""

    LABEL = "label"
    LABELS = "labels"
    STRING = "string"
    STRINGS = "strings"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"


LABELLED = (FieldType.LABEL, FieldType.LABELS)


class Field(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One variable to be annotated.

    :ivar labels: the label set, for ``label`` and ``labels``: a list, or a table from label to its definition.
    :ivar description: what the variable means, for the model.
    """

    type: FieldType = FieldType.LABEL
    labels: list[str] | dict[str, str] = []
    description: str = ""


class Example(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One solved example. `output` has the type of the task's answers."""

    input: Input
    output: Any


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task: instructions, and either one label set (`labels`) or several variables (`fields`).

    :ivar labels: the label set of a task with one variable; a list, or a table from label to its definition.
    :ivar multiple: several labels may hold for a record; the output is then a list.
    :ivar fields: several variables, asked at once; the output is then an object with these keys.
    :ivar abstain: an extra answer that says "none of these / cannot be told", allowed for every variable.
    :ivar input: the fields of a record that are sent; None sends all but the id. One field is sent as a plain string.
    :ivar id: the field that holds the id; None means ``id`` where records have one, else the line number.
    :ivar examples: solved examples; they are re-ordered so that equal labels do not stand in runs.
    :ivar examples_file: JSONL file of further examples, ``{"input": ..., "output": ...}`` a line.
    :ivar template: own wording of the static prompt, with the placeholders ``{instructions}``, ``{labels}``,
        ``{format}`` and ``{examples}``.
    """

    instructions: str
    labels: list[str] | dict[str, str] = []
    multiple: bool = False
    fields: dict[str, Field] = {}
    abstain: str | None = None
    input: list[str] | None = None
    id: str | None = None
    examples: list[Example] = []
    examples_file: str | None = None
    template: str | None = None

    @property
    def variables(self) -> Mapping[str, Field]:
        """The variables by name; a task with one label set has one, named ``""``."""
        if self.fields:
            return self.fields
        kind = FieldType.LABELS if self.multiple else FieldType.LABEL
        return {"": Field(type=kind, labels=self.labels)}

    @property
    def is_object(self) -> bool:
        """Whether an answer is an object of fields rather than one label or list."""
        return bool(self.fields)


PLACEHOLDERS = ("{instructions}", "{labels}", "{format}", "{examples}")


def make_task(document: Mapping[str, Any], *, where: str) -> Task:
    """A checked task from a parsed TOML document.

    :param where: the name of the file, for messages.
    :raises ConfigError: naming the key, what is wrong, and the nearest right one.
    """
    problem = next(_unknown_keys(document), None)
    if problem:
        raise ConfigError(f"{where}: {problem}")
    try:
        task = msgspec.convert(document, Task)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_plain(str(error))}") from None
    check_task(task, where=where)
    return task


def check_task(task: Task, *, where: str = "task") -> None:
    """Raise `ConfigError` unless the task makes sense as a whole."""
    problem = next(_problems(task), None)
    if problem:
        raise ConfigError(f"{where}: {problem}")


def _plain(message: str) -> str:
    """msgspec's message with its JSON path turned into a TOML key: ``$.fields[...].type`` -> ``fields.*.type``."""
    text, _, path = message.partition(" - at `")
    key = path.rstrip("`").removeprefix("$").lstrip(".").replace("[...]", ".*")
    return f"key '{key}': {text}" if key else text


def _unknown_keys(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown(document, Task.__struct_fields__, "")
    fields = document.get("fields")
    for name, field in fields.items() if isinstance(fields, Mapping) else ():
        if isinstance(field, Mapping):
            yield from _unknown(field, Field.__struct_fields__, f"fields.{name}.")
    examples = document.get("examples")
    for number, example in enumerate(examples if isinstance(examples, list) else (), start=1):
        if isinstance(example, Mapping):
            yield from _unknown(example, Example.__struct_fields__, f"examples (number {number}): ")


def _unknown(table: Mapping[str, Any], known: tuple[str, ...], prefix: str) -> Iterator[str]:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            yield f"unknown key '{prefix}{key}'; {hint}"


def _problems(task: Task) -> Iterator[str]:
    if not task.instructions.strip():
        yield "key 'instructions' is empty; say in it what is to be decided about each input"
    if task.labels and task.fields:
        yield "both 'labels' and '[fields.*]' are given; use 'labels' for one variable, '[fields.NAME]' for several"
    if not task.labels and not task.fields:
        yield "neither 'labels' nor '[fields.NAME]' is given; one of them says what may be answered"
    if task.multiple and task.fields:
        yield "'multiple' goes with 'labels'; in [fields.NAME] use type = \"labels\" instead"
    for name, field in task.variables.items():
        yield from _field_problems(name, field, task.abstain)
    if task.input is not None and (not task.input or len(set(task.input)) != len(task.input)):
        yield "key 'input' must name at least one field, and each once"
    if task.template is not None and "{format}" not in task.template:
        yield "key 'template' must contain {format}, or the model is never told how to answer"


def _field_problems(name: str, field: Field, abstain: str | None) -> Iterator[str]:
    key = f"fields.{name}.labels" if name else "labels"
    labels = list(field.labels)
    if field.type in LABELLED:
        if not labels:
            yield f"key '{key}' is missing or empty, and type \"{field.type}\" needs a label set"
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            yield f"key '{key}' holds {twice[0]!r} twice"
        if "" in labels:
            yield f"key '{key}' holds an empty label"
        if abstain is not None and abstain in labels:
            yield f"key 'abstain' ({abstain!r}) is also one of '{key}'; take it out of one of them"
    elif labels:
        yield f'key \'{key}\' does nothing for type "{field.type}"; leave it out, or use type = "label"'
