"""`annotate init`: a task file to start from."""

from __future__ import annotations

from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import click

from engine.adapters.files import FileSource
from engine.adapters.files.atomic import replacing
from engine.cli.console import pasteable
from engine.cli.exits import ALL_ANNOTATED
from engine.decide.starter import starter_task
from engine.vocabulary.errors import ConfigError, InputError

_SAMPLE = 200


@click.command("init")
@click.argument("data")
@click.option("--output", "-o", default="task.toml", show_default=True, metavar="TASK.toml")
@click.option("--force", is_flag=True, help="Replace a file of that name.")
def init_command(data: str, output: str, force: bool) -> int:
    """Write a commented task file for the records of DATA, guessed from the first of them."""
    target = Path(output)
    if target.exists() and not force:
        raise ConfigError(f"{output} is there already; give another name with --output, or replace it with --force")
    rows = _sample(FileSource(data))
    _write(target, starter_task(rows, source_name="standard input" if data == "-" else PurePath(data).name))
    read = f"the first {len(rows)} records" if rows else "no records, there are none"
    click.echo(f"Wrote {output} from {read} of {data}. Look through it, then see what would be sent:")
    click.echo(f"  {pasteable(['run', output, data, '--show-prompt'])}")
    click.echo("and label a few:")
    click.echo(f"  {pasteable(['run', output, data, '--limit', '20', '--output', _labels_name(data)])}")
    return ALL_ANNOTATED


def _sample(source: FileSource) -> list[dict[str, Any]]:
    """The first records that can be read."""
    records = iter(source)
    try:
        sample = list(islice(records, _SAMPLE))
    finally:
        records.close()
    rows = [record.data for record in sample if record.data is not None and record.error is None]
    if sample and not rows:
        raise InputError(f"{source.name}, line {sample[0].line}: {sample[0].error}; no record of it can be read")
    return rows


def _write(target: Path, text: str) -> None:
    try:
        with replacing(target) as stream:  # it quotes the data, and is for its owner only
            stream.write(text.encode())
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from None


def _labels_name(data: str) -> str:
    return "labels.jsonl" if data == "-" else f"{PurePath(data).name.partition('.')[0] or 'data'}.labels.jsonl"
