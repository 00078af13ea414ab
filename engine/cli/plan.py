"""`annotate plan`: what a corpus will take, before any money is spent."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from engine.cli.bench_options import numbers_of
from engine.cli.exits import ALL_ANNOTATED
from engine.cli.options import run_settings
from engine.cli.plan_text import print_plan
from engine.cli.reasoning_option import reasoning_tokens
from engine.cli.run import run_command
from engine.run.tasks import load_task, source_for
from engine.tuning.page.html import write_plan
from engine.tuning.planning import Wishes, make_plan
from engine.vocabulary.errors import ConfigError

_SHARED = frozenset({
    "base_url", "provider", "model", "rpm", "tpm", "itpm", "otpm", "max_concurrency", "max_input_tokens",
    "max_output_tokens", "price_input", "price_output", "price_cached", "price_cache_write", "prices",
    "no_dedup", "limit", "seed", "votes", "votes_stop", "temperature",
})  # fmt: skip
"""Options that mean the same as in `run`."""


@click.command("plan", params=[option for option in run_command.params if option.name in _SHARED])
@click.argument("task")
@click.argument("input")
@click.option(
    "--batch-sizes",
    callback=numbers_of,
    default="1,2,5,10,20,32",
    show_default=True,
    metavar="N,N,...",
    help="Inputs in one request.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=100),
    default=50_000,
    show_default=True,
    metavar="N",
    help="Different inputs whose tokens are counted at the most; the whole input is read.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The run store of a first, small run: its calls say how this endpoint counts, and how fast it is.",
)
@click.option(
    "--reasoning-tokens",
    callback=reasoning_tokens,
    metavar="N[,M]",
    help="Tokens that the model thinks with before it answers: N a request, and M a record.  [default: as the store's "
    "calls say]",
)
@click.option(
    "--vote-agreement",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Of two answers to a record in two rounds of votes, how often they are the same.  [default: as the store's "
    "run says, else 0.8]",
)
@click.option("--keyed", is_flag=True, help="For --answer-form keyed.")
@click.option("--report", type=click.Path(path_type=Path), metavar="DIR", help="Write plan.json and plan.html there.")
def plan_command(
    task: str, input: str, batch_sizes: tuple[int, ...], sample: int, store: Path | None, keyed: bool,
    reasoning_tokens: tuple[float, float] | None, vote_agreement: float | None, report: Path | None, **options: Any,
) -> int:  # fmt: skip
    """Say what labelling INPUT as TASK says will take, for each batch size: requests, tokens, cost and time.

    Nothing is sent and no key is needed. The whole input is read, its tokens counted, and packed as a run would pack
    them. Cost needs prices; time needs the limits that you have (--rpm, --tpm, ...) or a store.
    """
    settings = run_settings(_run_defaults() | options)
    loaded = load_task(task)
    wishes = Wishes(
        batch_sizes=batch_sizes,
        form="keyed" if keyed else "compact",
        sample=sample,
        limit=options["limit"],
        store=store,
        model=settings.endpoint.model if settings.endpoint else None,
        reasoning=reasoning_tokens,
        temperature=options["temperature"],
        agreement=vote_agreement,
    )
    if report is not None and report.exists() and not report.is_dir():
        raise ConfigError(f"--report: {report} is a file; name a folder")
    with closing(iter(source_for(loaded, input))) as raws:
        plan = make_plan(loaded, raws, settings.config, wishes, task_name=task, input_name=input)
    page = None if report is None else write_plan(report, plan)  # before anything is said: nobody may be reading
    print_plan(plan)
    if page is not None:
        click.echo(page)
    return ALL_ANNOTATED


def _run_defaults() -> dict[str, Any]:
    """Every option of `run` as it is when nobody gives it."""
    return run_command.make_context("run", ["task", "input"]).params
