"""`annotate salvage`: save the answers of a damaged store."""

from __future__ import annotations

import click

from engine.adapters.store import salvage
from engine.cli.exits import ALL_ANNOTATED


@click.command("salvage")
@click.argument("store")
@click.argument("new_store")
def salvage_command(store: str, new_store: str) -> int:
    """Save what can be read of a damaged STORE into NEW_STORE, which must not be there yet.

    Only answers that are what was written are taken; STORE stays as it is. Go on with --store NEW_STORE: what could not
    be saved is asked again.
    """
    saved = salvage(store, new_store)
    left = f"; {saved.damaged:,} more were damaged themselves and are left behind" if saved.damaged else ""
    click.echo(f"{saved.answers:,} answers saved in {new_store}{left}", err=True)
    if saved.is_part:
        click.echo("Pages of answers, or of their index, are damaged: what else was on them is asked again", err=True)
    if saved.first_page_damaged:
        click.echo("The store's first page was damaged; its tables were read all the same", err=True)
    if saved.tasks_unreadable:
        click.echo("What the task said could not be read; the same `annotate run` notes it again", err=True)
    if saved.runs_unreadable:
        click.echo(
            f"Of {saved.runs_unreadable:,} earlier runs, input and options could not be read and are not kept", err=True
        )
    click.echo(f"Go on with the same `annotate run` and --store {new_store}: only what is not in it is asked", err=True)
    return ALL_ANNOTATED
