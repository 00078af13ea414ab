"""The text of records, read again from where a run read them: the store keeps answers, not inputs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from engine.adapters.files import FileSource
from engine.adapters.stored import StoredRun
from engine.decide.records import RecordReader
from engine.run.tasks import source_for
from engine.vocabulary.errors import EngineError
from engine.vocabulary.task import Task
from engine.vocabulary.values import Input, Record

RecordMark = tuple[str, bytes]
"""Key and digest of a record: the same id with another text is another record."""


class Reread(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of the records looked for, and why the rest, if any, was not."""

    inputs: dict[RecordMark, Input]
    missing: str = ""


def reread(run: StoredRun | None, store: Path, wanted: Collection[RecordMark]) -> Reread:
    """Look for records in the input that the run's note names, in one pass, until all are found.

    An input that moved together with its store is found beside it. A text counts only if its digest is the one that
    was answered, so a file that changed since gives no wrong text.
    """
    path = None if run is None else run.note.get("input")
    if run is None or not isinstance(path, str) or path == "-":
        return Reread(inputs={}, missing="not available: the run did not read it from a file")
    places = [place for place in (Path(path), store.absolute().parent / Path(path).name) if place.is_file()]
    if not places:
        return Reread(inputs={}, missing=f"not available: {path} is no longer there")
    try:
        found = _found(source_for(run.task, str(places[0])), run.task, set(wanted))
    except EngineError as error:
        return Reread(inputs={}, missing=f"not available: {error}")
    return Reread(inputs=found, missing=f"not in {places[0]} any more: the file changed since")


def _found(source: FileSource, task: Task, wanted: set[RecordMark]) -> dict[RecordMark, Input]:
    read = RecordReader(task).read
    found: dict[RecordMark, Input] = {}
    raws = iter(source)
    try:
        while len(found) < len(wanted):
            raw = next(raws, None)
            if raw is None:
                break
            record = read(raw)
            if isinstance(record, Record) and (record.key, record.digest) in wanted:
                found[record.key, record.digest] = record.input
    finally:
        raws.close()
    return found
