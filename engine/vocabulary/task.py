"""What is asked about every record: the task, as written in TASK.toml or built in Python.

`Task` only holds and checks; `decide.prompts` turns it into a prompt and `decide.outputs` checks answers against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from itertools import chain
from typing import Any

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.keywords import NamesKeywords
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


class Field(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One variable to be annotated.

    :ivar labels: the label set, for ``label`` and ``labels``: a list, or a table from label to its definition.
    :ivar description: what the variable means, for the model.
    """

    type: FieldType = FieldType.LABEL
    labels: list[str] | dict[str, str] = []
    description: str = ""


class Example(
    msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One solved example. `output` has the type of the task's answers.

    :ivar why: a reason in a few words, shown where the task asks for one (`reason`).
    """

    input: Input
    output: Any
    why: str = ""


class Task(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task: instructions, and either one label set (`labels`) or several variables (`fields`).

    :ivar labels: the label set of a task with one variable; a list, or a table from label to its definition.
    :ivar multiple: several labels may hold for a record; the output is then a list.
    :ivar fields: several variables, asked at once; the output is then an object with these keys.
    :ivar abstain: an extra answer that says "none of these / cannot be told", allowed for every variable.
    :ivar input: the fields of a record that are sent; None sends all but the id. One field is sent as a plain string.
    :ivar id: the field that holds the id; None means ``id`` where records have one, else the line number.
    :ivar examples: solved examples; they are re-ordered so that equal labels do not stand in runs, unless `alternate`
        is false: then they stand as they are given.
    :ivar examples_file: JSONL file of further examples, ``{"input": ..., "output": ...}`` a line.
    :ivar template: own wording of the static prompt, with the placeholders ``{instructions}``, ``{labels}``,
        ``{format}`` and ``{examples}``.
    :ivar reason: each answer begins with its reason in a few words, which is dropped. It costs output tokens.
    :ivar terse: the rules of the format in as few words as will do.
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
    reason: bool = False
    alternate: bool = True
    terse: bool = False

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
    tables = list(_tables(document))
    problem = next(chain(_unknown_keys(tables), _wrong_types(tables)), None)
    if problem:
        raise ConfigError(f"{where}: {problem}")
    task = msgspec.convert(document, Task)
    check_task(task, where=where)
    return task


def check_task(task: Task, *, where: str = "task") -> None:
    """Raise `ConfigError` unless the task makes sense as a whole."""
    problem = next(_problems(task), None)
    if problem:
        raise ConfigError(f"{where}: {problem}")


_Table = tuple[str, Any, type[msgspec.Struct]]


def _tables(document: Mapping[str, Any]) -> Iterator[_Table]:
    """The tables of a task file: where each stands, what it holds, what it should be. Inner ones before the whole."""
    fields, examples = document.get("fields"), document.get("examples")
    for name, field in fields.items() if isinstance(fields, Mapping) else ():
        yield f"fields.{name}", field, Field
    for number, example in enumerate(examples if isinstance(examples, list) else (), start=1):
        yield f"examples (number {number})", example, Example
    yield "", document, Task


def _unknown_keys(tables: list[_Table]) -> Iterator[str]:
    for place, table, kind in tables:
        known = kind.__struct_fields__
        for key in table if isinstance(table, Mapping) else ():
            if key not in known:
                yield f"unknown key '{_joined(place, key)}'; {_hint(key, known, inside=bool(place))}"


def _hint(key: str, known: tuple[str, ...], *, inside: bool) -> str:
    if inside and key in Task.__struct_fields__:  # TOML takes a key for part of the last table above it
        return f"known here: {', '.join(known)}; if it is for the whole task, put it above the first line in [brackets]"
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"


def _wrong_types(tables: list[_Table]) -> Iterator[str]:
    # One table at a time: msgspec says "[...]" for the name of a table, and counts lists from 0.
    for place, table, kind in tables:
        try:
            msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at `")
            yield _in_toml(text, _joined(place, path.rstrip("`").removeprefix("$").removeprefix(".")))


def _joined(place: str, key: str) -> str:
    if not (place and key):
        return place or key
    return f"{place}: {key}" if place.endswith(")") else f"{place}.{key}"


_TOML = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list in [brackets]",
    "object": "a table",
}


def _in_toml(message: str, key: str) -> str:
    """msgspec's message in the words of TOML: ``Expected `array`, got `str```: expected a list, got a string."""
    if message.startswith("Object missing"):
        return f"key '{_joined(key, message.split('`')[1])}' is missing"
    wrong = re.fullmatch(r"Invalid enum value '(.*)'", message, re.DOTALL)
    if wrong:
        kinds = [str(kind) for kind in FieldType]
        near = get_close_matches(wrong[1], kinds, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it is one of {', '.join(kinds)}"
        return f"key '{key}': there is no type '{wrong[1]}'; {hint}"
    key = re.sub(r"\[(\d+)\]", lambda found: f" (number {int(found[1]) + 1})", key).replace(
        "[...]", ", one of its values"
    )
    words = re.sub(r"`([^`]*)`", _kinds, message).replace("Expected", "expected")
    return f"key '{key}': {words}{'; write [[examples]], with two brackets' if key == 'examples' else ''}"


def _kinds(found: re.Match[str]) -> str:
    kinds = [_TOML.get(kind, kind) for kind in found[1].split(" | ") if kind != "null"]
    return " or ".join(reversed(kinds))


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
    if task.abstain is not None and not task.abstain.strip():
        yield "key 'abstain' is empty; give the word that says \"cannot be told\", or leave the key out"
    yield from _example_problems(task)
    if task.template is not None:
        yield from _template_problems(task, task.template)


def _example_problems(task: Task) -> Iterator[str]:
    """An example in another shape than the inputs that are asked about would teach the wrong one."""
    for number, example in enumerate(task.examples if task.input else (), start=1):
        names = task.input or []
        if len(names) == 1 and not isinstance(example.input, str):
            yield (
                f"example {number}: its input is a table, and 'input' of the task names one field, which is sent as a "
                'plain string; write just the text: input = "..."'
            )
        if len(names) > 1 and (isinstance(example.input, str) or set(example.input) != set(names)):
            wanted = ", ".join(f"{name} = ..." for name in names)
            yield f"example {number}: its input should have the fields that 'input' names: {{{wanted}}}"


def _template_problems(task: Task, template: str) -> Iterator[str]:
    for word in re.findall(r"\{\w+\}", template):
        near = get_close_matches(word, PLACEHOLDERS, n=1, cutoff=0.7)
        if near and word not in PLACEHOLDERS:
            yield f"key 'template': {word} is no placeholder; did you mean {near[0]}?"
    if "{format}" not in template:
        yield "key 'template' must contain {format}, or the model is never told how to answer"
    if "{instructions}" not in template:
        yield "key 'template' must contain {instructions}, or what stands in that key is never sent"
    if "{examples}" not in template and (task.examples or task.examples_file):
        yield "key 'template' must contain {examples}, or the examples are never sent"


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
