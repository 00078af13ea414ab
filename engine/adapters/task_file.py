"""TASK.toml, and the file of examples that it may name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Example, Task, check_task, make_task

CheckTask = Callable[[Task], None]


def load_task(path: str, *, check: CheckTask | None = None) -> Task:
    """The task in a TOML file, its examples file read in.

    :param check: raises `ConfigError` for an example that the task does not allow. It gets the task with the examples
        of the TOML file, and with each of the other file alone, so that the error can name its line.
    :raises ConfigError: naming the file, the line or key, and what to do.
    """
    file = Path(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"there is no task file {path}; `annotate init DATA` writes one to start from") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a task file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}, {_line_of(error)}: not UTF-8; save the file in that encoding") from None
    except OSError as error:
        raise ConfigError(f"the task file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # tomllib's own errors are ValueErrors, and name the line
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    task = make_task(document, where=path)
    if check is not None:
        _check(task, check, path)
    if task.examples_file is None:
        return task
    more = _examples(file.parent / task.examples_file, task, check)
    return msgspec.structs.replace(task, examples=[*task.examples, *more], examples_file=None)


_LONE = "example 1: "  # how the checks name the only example of a task


def _check(task: Task, check: CheckTask, place: str) -> None:
    try:
        check(task)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _check_alone(task: Task, check: CheckTask | None, place: str) -> None:
    """Check a task with the example of a line."""
    try:
        check_task(task, where="task")
        if check is not None:
            check(task)
    except ConfigError as error:
        raise ConfigError(f"{place}: {str(error).removeprefix('task: ').removeprefix(_LONE)}") from None


def _examples(path: Path, task: Task, check: CheckTask | None) -> list[Example]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}, {_line_of(error)}: not UTF-8; save the file in that encoding") from None
    except OSError as error:
        raise ConfigError(f"the examples file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in its name
        shown = str(path).replace("\0", "\\0")
        raise ConfigError(f"the examples file {shown} cannot be read: {error}") from None
    examples = []
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() would split inside a text, at U+2028
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            example = msgspec.json.decode(line, type=Example)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ConfigError(f'{place}: {error}; a line holds {{"input": ..., "output": ...}}') from None
        _check_alone(msgspec.structs.replace(task, examples=[example]), check, place)
        examples.append(example)
    return examples


def _line_of(error: UnicodeDecodeError) -> str:
    number = error.object.count(b"\n", 0, error.start) + 1
    return f"line {number}"
