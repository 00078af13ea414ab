"""`annotate show`: what a store holds, why a record failed, and a sample for a person to check."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click
import msgspec

from engine.adapters.store import RunStore, read_store
from engine.adapters.stored import (
    StoredRecord,
    StoredRun,
    failed_by_second,
    failed_records,
    newest_input,
    records_with_id,
    runs,
    store_path,
)
from engine.cli import show_text as text
from engine.cli.console import pasteable
from engine.cli.exits import ALL_ANNOTATED
from engine.run.inspection import Overview, RecordStory, Sampled, overview, sampled, tell
from engine.vocabulary.errors import ConfigError

_FAILED_SHOWN = 20


class _Opened(msgspec.Struct, frozen=True):
    """A store to be read, and the run that its inputs are of: the newest one with a list of them."""

    store: RunStore
    path: Path
    listed: StoredRun | None
    newest: StoredRun

    @property
    def settings_id(self) -> int:
        return (self.listed or self.newest).settings_id


@click.command("show")
@click.argument("store_or_output")
@click.argument("record_id", metavar="[ID]", required=False)
@click.option("--failed", is_flag=True, help="The failed records, with their reasons.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="N done records with their input, to check.")
@click.option("--seed", type=int, metavar="N", help="Draw the same sample again.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=_FAILED_SHOWN, show_default=True, metavar="N", help="Of --failed."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line, for programs.")
def show_command(
    store_or_output: str,
    record_id: str | None,
    failed: bool,
    sample: int | None,
    seed: int | None,
    limit: int,
    as_json: bool,
) -> int:
    """Show what a run store holds; with ID, all that is known of one record.

    STORE_OR_OUTPUT is a run store, or the output file that it lies beside. Also while a run writes to it.
    """
    if (record_id is not None) + failed + (sample is not None) > 1:
        raise click.UsageError("give one of ID, --failed and --sample")
    path = store_path(store_or_output)
    with closing(read_store(path)) as store:
        newest = next(iter(runs(store, newest=1)), None)
        if newest is None:
            raise ConfigError(f"{path} holds no run yet")
        opened = _Opened(store, path, newest_input(store), newest)
        if record_id is not None:
            _show_record(opened, record_id, as_json=as_json)
        elif failed:
            _show_failed(opened, limit, as_json=as_json)
        elif sample is not None:
            _show_sample(opened, sample, seed, as_json=as_json)
        else:
            _show_overview(opened, as_json=as_json)
    return ALL_ANNOTATED


def _show_overview(opened: _Opened, *, as_json: bool) -> None:
    view: Overview = overview(opened.store, opened.path, opened.listed, opened.newest)
    _say(view) if as_json else click.echo(text.overview(view))


def _show_record(opened: _Opened, record_id: str, *, as_json: bool) -> None:
    found = records_with_id(opened.store, opened.listed, opened.settings_id, record_id)
    if not found:
        raise ConfigError(f"{opened.path} knows no record {record_id!r}; ids are compared whole, case included")
    for number, story in enumerate(_stories(opened, found)):
        if as_json:
            _say(story)
        else:
            click.echo(("\n" if number else "") + text.story(story))


def _stories(opened: _Opened, found: list[StoredRecord]) -> list[RecordStory]:
    return tell(opened.store, opened.path, opened.listed, found)


def _show_failed(opened: _Opened, limit: int, *, as_json: bool) -> None:
    found = failed_records(opened.store, opened.listed, opened.settings_id, most=limit + 1)
    of_second = failed_by_second(opened.store, opened.listed, most=limit + 1)
    stands = [False] * len(found) + [True] * len(of_second)
    found += of_second
    for record, first_stands in list(zip(found, stands, strict=True))[:limit]:
        if as_json:
            _say(text.failed_row(record) | ({"first_stands": True} if first_stands else {}))
        else:
            click.echo(text.failed_line(record, stands=first_stands))
    if as_json:
        return
    if not found:
        click.echo("no record failed")
    elif len(found) > limit:
        click.echo(f"... and more; see them with --limit {limit * 10}")
    else:
        click.echo(f"{len(found)} in all; see one with: {pasteable(['show', str(opened.path), 'ID'])}")


def _show_sample(opened: _Opened, count: int, seed: int | None, *, as_json: bool) -> None:
    if opened.listed is None:
        raise ConfigError(f"{opened.path} has no list of inputs to draw from")
    drawn: list[Sampled] = sampled(opened.store, opened.path, opened.listed, count=count, seed=seed)
    if as_json:
        for record in drawn:
            _say(record)
    elif drawn:
        text.print_sample(drawn)
    else:
        click.echo("no record is done yet")


def _say(document: Any) -> None:
    """One line of JSON."""
    click.echo(msgspec.json.encode(document).decode())
