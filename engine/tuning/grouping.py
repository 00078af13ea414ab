"""How many variables go together: all in one request, or some at a time, each group in requests of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Example, Task

Together = Literal["together", "one-by-one"] | int
"""How many variables a request asks for; a number for so many at the most."""


def groups_of(task: Task, together: Together) -> list[tuple[str, ...]]:
    """Names of the variables that are asked at once, in the task's order.

    :raises ConfigError: the task has one variable, and nothing to take apart.
    """
    if together == "together":
        return [tuple(task.variables)]
    if not task.is_object:
        raise ConfigError("the dimension 'variables' needs a task with several: [fields.NAME] in the task file")
    names, most = tuple(task.fields), 1 if together == "one-by-one" else int(together)
    return [names[start : start + most] for start in range(0, len(names), most)]


def parts_of(task: Task, together: Together) -> list[Task]:
    """The task, or one for each group of variables: the same but for the variables, in the examples as well."""
    groups = groups_of(task, together)
    return [task] if len(groups) == 1 else [_part(task, names) for names in groups]


def _part(task: Task, names: Sequence[str]) -> Task:
    fields = {name: task.fields[name] for name in names}
    examples = [msgspec.structs.replace(example, output=_restricted(example, names)) for example in task.examples]
    return msgspec.structs.replace(task, fields=fields, examples=examples)


def _restricted(example: Example, names: Sequence[str]) -> Any:
    output = example.output
    return {name: output[name] for name in names if name in output} if isinstance(output, dict) else output
