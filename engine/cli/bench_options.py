"""The options of `annotate bench`, and what they come to."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from engine.adapters.files import FileSource
from engine.bench.feed import MOST_RECORDS
from engine.bench.plan import FULL, QUICK, Caps, Grid
from engine.cli.options import Settings, check_key, run_settings
from engine.cli.run import run_command
from engine.run.tasks import load_task, source_for
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Task

_SHARED = (
    "base_url", "provider", "model", "model_path", "rpm", "tpm", "max_input_tokens", "max_output_tokens",
    "prices", "price_input", "price_output", "price_cached", "price_cache_write", "key_file", "timeout_s",
    "temperature", "extra_body",
    "reasoning_effort", "headers", "answer_form", "log_json", "log_level",
)  # fmt: skip
"""Options that mean the same as in `run`."""

_NAMED_ALIKE = ("budget_usd", "budget_tokens")
"""Options of `run` that are worded anew here."""

_FULL_MINUTES, _QUICK_MINUTES = 30.0, 9.75  # quick ends within ten, its start and its last words included
_FULL_VISIT_S, _QUICK_VISIT_S = 20.0, 12.0


def numbers_of(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Whole numbers from 1 up, in order, each once."""
    try:
        numbers = sorted({int(word) for word in (value or "").split(",") if word.strip()})
    except ValueError:
        numbers = [0]
    if numbers and numbers[0] < 1:
        raise click.BadParameter(f"{value!r} is not a list of numbers from 1 up, such as 1,4,16")
    return tuple(numbers)


def _finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Neither nan nor inf, which pass every comparison or none."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def _rates(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...]:
    try:
        rates = sorted({float(word) for word in (value or "").split(",") if word.strip()})
    except ValueError:
        rates = [0.0]
    if any(not (rate > 0 and math.isfinite(rate)) for rate in rates):
        raise click.BadParameter(f"{value!r} is not a list of records a second above 0, such as 5,10,20")
    return tuple(rates)


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--output", "-o", default="bench.json", show_default=True, metavar="FILE",
                 help="Every figure, drawn in the .html beside it; earlier ones are kept."),
    click.option("--batch-sizes", callback=numbers_of, metavar="N,N,...",
                 help="Inputs in one request.  [default: 1,4,16]"),
    click.option("--concurrency", callback=numbers_of, metavar="N,N,...",
                 help="Requests in flight at once.  [default: 1,2,4,8,16,32; with --quick 1,4,16]"),
    click.option("--rates", callback=_rates, metavar="X,X,...",
                 help="Arrivals in records a second.  [default: shares of the best throughput found]"),
    click.option("--no-open-loop", is_flag=True, help="Only the closed loop: no arrival rates."),
    click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
                 help="Of every cell, in another order each time."),
    click.option("--budget-usd", type=click.FloatRange(min=0, min_open=True), callback=_finite, metavar="X",
                 help="Stop before more is spent, over all cells; needs prices."),
    click.option("--budget-tokens", type=click.IntRange(min=1), metavar="N",
                 help="The same in tokens, input and output together."),
    click.option("--target-p95-s", type=click.FloatRange(min=0, min_open=True), callback=_finite, metavar="X",
                 help="The latency target: goodput counts what is valid and within it."),
    click.option("--quick", is_flag=True, help="Fewer cells, and done within 10 minutes."),
    click.option("--minutes", type=click.FloatRange(min=0.2), callback=_finite, metavar="X",
                 help="The sweep plans itself to end within.  [default: 30]"),
    click.option("--requests", type=click.IntRange(min=3), metavar="N",
                 help="At most, each time a cell is measured.  [default: by its concurrency]"),
    click.option("--limit", type=click.IntRange(min=1), metavar="N",
                 help=f"Send only the first N records, round and round.  [default: {MOST_RECORDS}]"),
    click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of orders and arrival times."),
    click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing."),
]  # fmt: skip


def bench_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that only `bench` has."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def shared_options() -> list[click.Parameter]:
    """The options of `run` that mean the same here."""
    return [option for option in run_command.params if option.name in _SHARED]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says, checked."""

    task: Task
    task_name: str
    source: FileSource
    settings: Settings
    grid: Grid
    caps: Caps
    time_s: float
    target_p95_s: float | None
    limit: int | None
    output: Path
    dry_run: bool
    seed: int


def asked_of(task: str, input: str, options: dict[str, Any]) -> Asked:
    """What the command line says.

    :raises ConfigError: a file is missing or not writable.
    """
    loaded = load_task(task)
    source = source_for(loaded, input)
    given = {name: options[name] for name in (*_SHARED, *_NAMED_ALIKE)}
    settings = run_settings(_run_defaults() | given)
    if not options["dry_run"]:
        check_key(settings)
    quick = options["quick"]
    base = QUICK if quick else FULL
    grid = Grid(
        batch_sizes=options["batch_sizes"] or base.batch_sizes,
        concurrencies=options["concurrency"] or base.concurrencies,
        rate_shares=() if options["no_open_loop"] or options["rates"] else base.rate_shares,
        rates=() if options["no_open_loop"] else options["rates"],
        repeats=options["repeats"],
    )
    minutes = options["minutes"] or (_QUICK_MINUTES if quick else _FULL_MINUTES)
    caps = Caps(visit_s=_QUICK_VISIT_S if quick else _FULL_VISIT_S, requests=options["requests"], quick=quick)
    output = Path(options["output"])
    _check_output(output)
    return Asked(
        task=loaded,
        task_name=task,
        source=source,
        settings=settings,
        grid=grid,
        caps=caps,
        time_s=60 * (min(minutes, _QUICK_MINUTES) if quick else minutes),
        target_p95_s=options["target_p95_s"],
        limit=options["limit"],
        output=output,
        dry_run=options["dry_run"],
        seed=options["seed"],
    )


def _run_defaults() -> dict[str, Any]:
    """Every option of `run` as it is when nobody gives it, so that both commands mean the same by their shared ones."""
    return run_command.make_context("run", ["task", "input"]).params


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise ConfigError(f"--output: {output} is a folder; name a file")
    if output.suffix.lower() == ".html":
        raise ConfigError(f"--output: {output} is where the page goes; name the file of figures: {output.stem}.json")
    if not output.parent.is_dir():
        raise ConfigError(f"--output: the folder {output.parent} does not exist; make it, or name another file")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--output: the folder {output.parent} is not writable")
