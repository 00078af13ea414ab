"""`annotate tune`: find the batch size, the examples and the form for a task, on records whose answer is known."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec

from engine.adapters.files import FileSource
from engine.adapters.files.atomic import make_folder, replacing
from engine.adapters.files.text import without_surrogates
from engine.adapters.local import LOCAL_MODEL_NAME, local_model
from engine.cli.console import one_line, pasteable
from engine.cli.exits import ALL_ANNOTATED, STOPPED
from engine.cli.interrupts import Interrupts, with_interrupts
from engine.cli.logs import LoggedCommand, logging_as, logging_refusals
from engine.cli.options import Settings, check_key, run_settings
from engine.cli.reasoning_option import reasoning_tokens
from engine.cli.run import run_command
from engine.cli.tune_store import trials_told
from engine.cli.tune_text import print_tuned
from engine.decide.racing import Rule
from engine.decide.scores import METRICS, Metric, metric_of, own_metric
from engine.report import words
from engine.run.compose import fitted, with_environment_key
from engine.run.log import log_error
from engine.run.tasks import load_task
from engine.tuning import tune_sentences as sentences
from engine.tuning.gold import Gold, check_gold, left_out, read_gold
from engine.tuning.grouping import parts_of
from engine.tuning.page.tune_html import write_tuned
from engine.tuning.space import Space, load_space, task_of
from engine.tuning.trial import Means
from engine.tuning.tune import Aim, Progress, Search
from engine.tuning.tune_document import Tuned
from engine.tuning.tune_task import task_toml
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.task import Task
from engine.vocabulary.values import RawRecord

_SHARED = frozenset({
    "base_url", "provider", "model", "model_path", "rpm", "tpm", "itpm", "otpm", "max_concurrency", "neighbour_guard",
    "max_input_tokens", "max_output_tokens", "prices", "price_input", "price_output", "price_cached",
    "price_cache_write", "timeout_s", "attempts", "limit", "temperature", "extra_body", "headers", "key_file",
    "log_json", "log_level", "seed", "reasoning_effort", "on_bad_record", "votes", "votes_stop",
})  # fmt: skip
"""Options that mean the same as in `run`."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line comes to, checked as far as it can be before anything is opened."""

    task: Task
    gold: Gold
    aim: Aim
    settings: Settings
    work: Path
    output: Path
    report: Path | None
    dry_run: bool


@click.command("tune", cls=LoggedCommand, params=[option for option in run_command.params if option.name in _SHARED])
@click.argument("task")
@click.argument("gold")
@click.option(
    "--gold-field",
    metavar="NAME",
    help="The field with the right output; it is never sent.  [default: label, output or gold]",
)
@click.option(
    "--space",
    metavar="FILE.toml",
    help="The settings to search over, in place of sizes 1 to 20, "
    "no, 5, 20 and all examples, and both forms; see docs/design/tune.md.",
)
@click.option(
    "--metric",
    default="accuracy",
    show_default=True,
    metavar="NAME",
    help=f"{', '.join(METRICS)}, or module:function of your own: (gold, answer) -> 0 to 1.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.03,
    show_default=True,
    metavar="SHARE",
    help="By which the choice may be worse than the best.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="With which that is to be shown.",
)
@click.option(
    "--budget-usd",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Stop before all trials together have cost more, over all runs of this command.",
)
@click.option("--budget-tokens", type=click.IntRange(min=1), metavar="N", help="The same in tokens.")
@click.option(
    "--reasoning-tokens",
    callback=reasoning_tokens,
    metavar="N[,M]",
    help="Tokens that the model thinks with before it answers: N a request, and M a record. For what is said before "
    "anything is measured.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the answers are kept, so that none is paid for twice.  [default: OUTPUT.trials]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="TUNED.toml",
    help="The task file to write.  [default: TASK.tuned.toml]",
)
@click.option("--report", type=click.Path(path_type=Path), metavar="DIR", help="Write tune.json and tune.html there.")
@click.option("--dry-run", is_flag=True, help="Say what may be spent and send nothing.")
def tune_command(task: str, gold: str, **options: Any) -> int:
    """Search for the cheapest setting that is not worse than the best.

    GOLD is JSONL, CSV or Parquet: the fields that the task sends, and the right output in another one. Settings are
    compared record by record, a block at a time, and stopped as soon as it is clear that they need not go on. The
    chosen one is written as a task file, with the options that go with it. The same command again goes on where it
    stopped. 300 gold records are few; 700 tell apart what differs by 3 points.
    """
    with logging_refusals(options, task, gold, options["space"], _path(options["output"])):
        asked = _asked(task, gold, options)
    with logging_as(asked.settings.log, endpoint=asked.settings.endpoint):
        try:
            with trials_told():
                return anyio.run(with_interrupts, partial(_tuned, asked))
        except Exception as error:
            log_error(error)
            raise


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _asked(task: str, gold: str, options: dict[str, Any]) -> Asked:
    own = ["gold_field", "space", "metric", "margin", "confidence", "work", "output", "report", "dry_run",
           "reasoning_tokens"]  # fmt: skip
    space = load_space(options["space"]) if options["space"] else Space()
    own += ["budget_usd"] if space.model else []  # the search looks for the prices of these models
    defaults = run_command.make_context("run", ["task", "input"]).params
    settings = run_settings(defaults | {name: value for name, value in options.items() if name not in own})
    check_key(settings)
    loaded = load_task(task)
    output = options["output"] or Path(task).with_suffix(".tuned.toml")
    if output.exists() and output.resolve() == Path(task).resolve():
        raise ConfigError(f"--output: {output} is the task itself; name another file")
    if options["report"] is not None and options["report"].exists() and not options["report"].is_dir():
        raise ConfigError(f"--report: {options['report']} is a file; name a folder")
    aim = Aim(
        space=space,
        rule=Rule(margin=options["margin"], confidence=options["confidence"]),
        metric=_metric(options["metric"], loaded),
        metric_name=options["metric"],
        task_name=task,
        gold_name=gold,
        budget_usd=options["budget_usd"],
        budget_tokens=options["budget_tokens"],
        reasoning=options["reasoning_tokens"] or (0.0, 0.0),
    )
    with closing(iter(FileSource(gold))) as raws:
        read = read_gold(
            islice(map(_as_text, raws), options["limit"]),
            loaded,
            name=gold,
            field=options["gold_field"],
            seed=options["seed"],
        )
    check_gold(read, name=gold, on_bad_record=options["on_bad_record"])
    return Asked(
        task=loaded,
        gold=read,
        aim=aim,
        settings=settings,
        work=options["work"] or output.with_name(f"{output.name}.trials"),
        output=output,
        report=options["report"],
        dry_run=options["dry_run"],
    )


def _metric(name: str, task: Task) -> Metric:
    if name in METRICS:
        return metric_of(name, task)
    module, _, function = name.partition(":")
    if not function:
        raise ConfigError(f"--metric: there is no {name!r}; known: {', '.join(METRICS)}, or module:function")
    sys.path.insert(0, "")  # as `python -m` does: the module may stand beside the data
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--metric: {name} cannot be imported: {error}") from None
    finally:
        sys.path.remove("")
    if not callable(found):
        raise ConfigError(f"--metric: {name} is not a function")
    return own_metric(found, name)


@asynccontextmanager
async def _means(asked: Asked) -> AsyncIterator[Means]:
    """The endpoint; or the embedded model, started once for all trials, as `run` would ask it."""
    settings = asked.settings
    if settings.endpoint is not None:
        endpoint = with_environment_key(settings.endpoint)
        yield Means(
            endpoint=endpoint, model=endpoint.model, is_embedded=False, config=settings.config, folder=asked.work,
            own_prices=settings.own_prices,
        )  # fmt: skip
        return
    async with local_model(settings.model_path) as local:
        yield Means(
            endpoint=msgspec.structs.replace(
                settings.embedded, base_url=local.base_url, model=LOCAL_MODEL_NAME, exact_count=True
            ),
            model=local.name,
            is_embedded=True,
            config=fitted(settings.config, slots=local.slots, context_tokens=local.context_tokens),
            folder=asked.work,
        )


async def _tuned(asked: Asked, interrupts: Interrupts) -> int:
    with anyio.CancelScope() as everything:
        interrupts.call(everything.cancel)
        async with _means(asked) as means:
            search = Search(asked.task, asked.gold, asked.aim, means)
            _tell_plan(search, asked)
            if asked.dry_run:
                return ALL_ANNOTATED
            _make_folder(asked.work)
            reacted = False

            def react() -> None:
                nonlocal reacted
                if reacted:
                    everything.cancel()
                    return
                reacted = True
                click.echo("\nstopping: waiting for answers in flight; once more stops at once", err=True)
                search.stop()

            interrupts.call(react)
            try:
                tuned = await search.run(_tell)
            except RunStopped as stop:
                if stop.kind != "interrupted":
                    raise
            else:
                return _ended(asked, tuned)
    click.echo("annotate: interrupted; the answers so far are kept, and the same command goes on", err=True)
    return STOPPED


def _as_text(raw: RawRecord) -> RawRecord:
    """A record with half a character in it can be neither sent nor be an example."""
    if raw.error is None and raw.data is not None and without_surrogates(raw.data) != raw.data:
        return msgspec.structs.replace(raw, error="holds half of a surrogate pair, which is no text; mend it")
    return raw


def _make_folder(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise ConfigError(f"--work: the folder {folder} cannot be made: {error.strerror}") from None


def _tell_plan(search: Search, asked: Asked) -> None:
    click.echo(
        f"{len(search.settings)} settings, {len(search.gold.records):,} gold records (right output in "
        f"{one_line(search.gold.field)}): about {search.most_tokens:,} tokens{_usd(search.most_usd)}at the most, "
        f"{search.spent:,} of them spent by earlier runs",
        err=True,
    )
    if asked.aim.budget_tokens is None and asked.aim.budget_usd is None:
        click.echo(_no_bound(asked.aim), err=True)
    for line in (left_out(search.gold), *search.notices, search.left_out):
        if line is not None:
            click.echo(one_line(line, most=900), err=True)


def _usd(usd: float | None) -> str:
    return " " if usd is None else f" ({words.usd(usd)}) "


def _no_bound(aim: Aim) -> str:
    """Endpoints count otherwise, and ask what went wrong again."""
    thought = "" if any(aim.reasoning) else "; what a model thinks comes on top (--reasoning-tokens N,M)"
    return (
        f"that is by our own count of prompts and answers, and no bound{thought}: --budget-tokens or --budget-usd sets "
        "one"
    )


def _tell(progress: Progress) -> None:
    click.echo(
        f"{progress.spent_tokens:>12,} tokens  {progress.running:>3} left  to record {progress.upto:>5,}: "
        f"{one_line(sentences.in_full(progress.setting))}",
        err=True,
    )


def _ended(asked: Asked, tuned: Tuned) -> int:
    """Tell, and write what is to be kept. Who broke it off wants no task file of half a search."""
    print_tuned(tuned)
    if tuned.stop_kind in (None, "budget"):
        _write_all(asked, tuned)
    else:
        click.echo(f"{asked.output} is not written")
    if asked.report is not None:
        click.echo(f"drawn: {write_tuned(asked.report, tuned)}")
    return ALL_ANNOTATED if tuned.stopped is None else STOPPED


def _write_all(asked: Asked, tuned: Tuned) -> None:
    """The task file of the choice; one for each group of variables, where they are asked apart."""
    setting = tuned.choice.setting
    tasks = parts_of(task_of(setting, asked.task, asked.aim.space), setting.variables)
    if len(tasks) == 1:
        _write(asked, tuned, tasks[0], asked.output, "LABELS.jsonl", "")
        return
    apart = (
        f"The choice asks the variables apart: it takes {len(tasks)} runs. Their outputs hold the same records in the "
        "same order, to be joined line by line or by id."
    )
    for task in tasks:
        names = "+".join(re.sub(r"[^\w-]", "_", name) for name in task.fields)
        path = asked.output.with_name(f"{asked.output.stem}.{names}{asked.output.suffix}")
        _write(asked, tuned, task, path, f"LABELS.{names}.jsonl", apart)
    click.echo(apart)


def _write(asked: Asked, tuned: Tuned, task: Task, path: Path, labels: str, apart: str) -> None:
    again = ["run", str(path), "INPUT", "--output", labels, *tuned.options]
    comment = [
        f"Written by annotate tune from {asked.aim.task_name} and {asked.aim.gold_name}.",
        sentences.headline(tuned),
        *sentences.why(tuned),
        *([apart] if apart else []),
        f"Use it with: {pasteable(again)}",
    ]
    try:
        with replacing(path) as stream:
            stream.write(task_toml(task, comment=comment).encode())
    except OSError as error:
        raise ConfigError(f"--output: {path} cannot be written: {error.strerror}") from None
    click.echo(f"written: {path}; use it with: {pasteable(again)} and your endpoint's options")
