"""A task as a TOML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from engine.vocabulary.task import Task

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def task_toml(task: Task, *, comment: Sequence[str] = ()) -> str:
    """The file's text; `load_task` reads the same task from it. Defaults are left out.

    :param comment: lines that stand above it.
    """
    lines = [f"# {_one_line(line)}".rstrip() for line in comment] + ([""] if comment else [])
    lines += _lines(task)
    return "\n".join(lines) + "\n"


def _lines(task: Task) -> Iterator[str]:
    plain = Task(instructions="")
    for name in Task.__struct_fields__:
        value = getattr(task, name)
        if name not in ("fields", "examples") and value != getattr(plain, name) and not isinstance(value, Mapping):
            yield f"{name} = {_value(value)}"
    if isinstance(task.labels, Mapping):
        yield from _table("labels", task.labels)
    for name, field in task.fields.items():
        yield from _table(f"fields.{_key(name)}", msgspec.to_builtins(field))
    for example in task.examples:
        yield from ("", "[[examples]]", f"input = {_value(example.input)}", f"output = {_value(example.output)}")
        if example.why:
            yield f"why = {_value(example.why)}"


def _table(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"[{name}]")
    yield from (f"{_key(key)} = {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return _text(value)
    return msgspec.json.encode(value).decode()  # numbers, true and false are the same in JSON


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """A string of JSON is one of TOML, but for the character that only TOML forbids; long texts keep their lines."""
    if text.count("\n") > 1 and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text):
        body = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"""\n{body}"""'
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)
