"""A task file, read and checked as a whole, and the input as a task looks at it."""

from __future__ import annotations

from functools import partial

from engine.adapters import task_file
from engine.adapters.files import FileSource
from engine.decide.outputs import check_examples
from engine.decide.records import used_fields
from engine.vocabulary.task import Task


def load_task(path: str) -> Task:
    """The task in a TOML file, its examples file read in; every example is one that the task allows.

    :raises ConfigError: naming the file, the line or key, and what to do.
    """
    return task_file.load_task(path, check=check_examples)


def source_for(task: Task, path: str) -> FileSource:
    """A file, or ``-``, of which nothing is read that the task does not use.

    :raises ConfigError: as `FileSource`.
    """
    return FileSource(path, choose=partial(used_fields, task))
