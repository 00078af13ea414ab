"""The output of an earlier run: what would be lost if it were written over."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from engine.adapters.files import FileSource
from engine.vocabulary.errors import ConfigError, EngineError


def holds_more(output: str, rows: int) -> bool:
    """Whether an output has more than so many rows. What cannot be read is none of ours."""
    try:
        return sum(1 for _ in islice(FileSource(output), rows + 1)) > rows
    except EngineError:
        return False


def has_rows(output: str) -> bool:
    """Whether there is such a file with any row."""
    return Path(output).is_file() and holds_more(output, 0)


def without_any(source_name: str, output: str) -> ConfigError:
    """The refusal to write nothing over rows: a program that fails leaves an empty file, or an empty stream, behind."""
    return ConfigError(
        f"{source_name} holds no record that can be used, and {output} would be written without any of its rows; give "
        "the whole input, or another --output (or take that file away, if nothing of it is to stay)"
    )
