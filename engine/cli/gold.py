"""`annotate run --gold`: its options, the file of records with known answers, and the answers to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from engine.adapters.files import FileSource
from engine.adapters.files.atomic import replacing
from engine.adapters.files.sink import check_output_path
from engine.adapters.files.text import without_surrogates
from engine.report.metrics import Counters
from engine.run.compose import Workbench
from engine.run.gold import GoldAnswer, GoldInRun
from engine.run.gold_set import GoldSet
from engine.vocabulary.errors import ConfigError, EngineError
from engine.vocabulary.task import Task
from engine.vocabulary.values import RawRecord

_decode = msgspec.json.Decoder(GoldAnswer).decode


class GoldFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of gold. :ivar output: where the answers to it go; None: nowhere."""

    path: str
    field: str | None
    output: str | None


def gold_files(options: dict[str, Any]) -> GoldFiles | None:
    """The files, checked as far as they can be before anything is opened; None without ``--gold``.

    :raises click.UsageError: an option that only says something of gold, and no gold.
    :raises ConfigError: there is no such file, or the answers cannot be written.
    """
    path, output = options["gold"], options["gold_output"]
    if path is None:
        lone = next((name for name in ("gold_field", "gold_output") if options[name] is not None), None)
        if lone is not None:
            raise click.UsageError(f"--{lone.replace('_', '-')} needs --gold FILE")
        return None
    if path == "-":
        raise click.UsageError("--gold takes a file; standard input is for records")
    if not Path(path).is_file():
        raise ConfigError(f"--gold: there is no file {path}")
    if output is not None:
        if output == "-":
            raise click.UsageError("--gold-output takes a file; standard output is for the rows of --output")
        check_output_path(output, format="jsonl", source=path)
        _check_ours(Path(output))
    return GoldFiles(path=path, field=options["gold_field"], output=output)


def read_gold_files(bench: Workbench, task: Task, files: GoldFiles | None) -> GoldSet | None:
    """What may ride in the batches of a run; nothing has been sent yet.

    :raises ConfigError: the file has no such field, or gold cannot judge the task.
    :raises InputError: a record of the file is bad, with its line and what to do.
    """
    if files is None:
        return None
    with closing(iter(FileSource(files.path))) as raws:
        return bench.gold(
            task, map(_as_text, raws), name=files.path, field=files.field, keeps_answers=files.output is not None
        )


def write_gold_answers(files: GoldFiles | None, counters: Counters) -> None:
    """Add what was answered to gold to the file, one answer a line; a message where that cannot be.

    What is there stays: a run that goes on, or one that asks again, brings the answers of its own requests only.
    """
    gold = counters.gold
    if files is None or files.output is None or not isinstance(gold, GoldInRun):
        return
    path = Path(files.output)
    if not gold.answers and path.exists():
        return
    try:
        with replacing(path) as stream:
            _keep(path, stream)
            for line in _lines(gold):
                stream.write(line)
    except (EngineError, OSError) as error:
        click.echo(f"annotate: --gold-output {files.output} cannot be written: {error}", err=True)


def _keep(path: Path, stream: BinaryIO) -> None:
    if not path.is_file():
        return
    with path.open("rb") as earlier:
        shutil.copyfileobj(earlier, stream)
        if earlier.tell():
            earlier.seek(-1, 2)
            if earlier.read(1) != b"\n":
                stream.write(b"\n")


def _check_ours(path: Path) -> None:
    """A file that holds anything but answers to gold is somebody else's.

    :raises ConfigError: it does, or it cannot be read.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as earlier:
            for number, line in enumerate(earlier, start=1):
                if line.strip():
                    _check_line(path, number, line)
    except OSError as error:
        raise ConfigError(f"--gold-output {path} cannot be read: {error.strerror}") from None


def _check_line(path: Path, number: int, line: bytes) -> None:
    try:
        _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError(
            f"--gold-output {path}: line {number} is no answer to gold, so the file is not one that this option wrote; "
            "answers are added to what is there: give another name"
        ) from None


def _lines(gold: GoldInRun) -> Iterator[bytes]:
    for answer in gold.answers:
        yield msgspec.json.encode(answer) + b"\n"


def _as_text(raw: RawRecord) -> RawRecord:
    """Half a character can be neither sent nor compared."""
    if raw.error is None and raw.data is not None and without_surrogates(raw.data) != raw.data:
        return msgspec.structs.replace(raw, error="holds half of a surrogate pair, which is no text; mend it")
    return raw
