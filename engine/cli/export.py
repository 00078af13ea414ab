"""`annotate export`: write what is done so far, also while a run writes to the store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from engine.adapters.files import check_output_path
from engine.adapters.store import read_store
from engine.adapters.stored import noted_inputs, store_path
from engine.cli.exits import ALL_ANNOTATED
from engine.run.export import write_newest
from engine.vocabulary.errors import ConfigError


@click.command("export")
@click.argument("store_or_output")
@click.option("--output", "-o", required=True, metavar="FILE", help="JSONL, CSV or Parquet by its suffix; - is stdout.")
@click.option("--csv-safe", is_flag=True, help="In CSV and TSV, mark cells that a spreadsheet would run as a formula.")
def export_command(store_or_output: str, output: str, csv_safe: bool) -> int:
    """Write what is done so far, as `run` would: done and failed records in the order of the input.

    STORE_OR_OUTPUT is a run store, or the output file that it lies beside. The newest run whose input is known counts.
    """
    path = store_path(store_or_output)
    if output != "-" and Path(output).resolve() == path.resolve():
        raise ConfigError(f"{output}: is the run store; give the output another name")
    with closing(read_store(path)) as store:
        check_output_path(output)
        for source in noted_inputs(store):
            check_output_path(output, source=source)
        count = write_newest(store, output, csv_safe=csv_safe, tell=_tell)
    click.echo(f"{count:,} records written to {'standard output' if output == '-' else output}", err=True)
    return ALL_ANNOTATED


def _tell(said: str) -> None:
    click.echo(f"annotate: {said}", err=True)
