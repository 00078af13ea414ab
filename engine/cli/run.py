"""`annotate run`: label a file."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio
import click
import msgspec

from engine.adapters.files import FileSource, check_output_path
from engine.adapters.task_file import load_task
from engine.cli.exits import ALL_ANNOTATED, SOME_FAILED, STOPPED
from engine.cli.progress import make_progress
from engine.run.compose import open_workbench
from engine.run.corpus import CorpusRun
from engine.vocabulary.config import Endpoint, Limits, Packing, Prices, Recovery, RunConfig
from engine.vocabulary.errors import ConfigError, RunStopped


def _json_object(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        return msgspec.json.decode(value, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise click.BadParameter(f"not a JSON object: {error}") from None


def _headers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for value in values:
        name, separator, content = value.partition("=")
        if not separator or not name.strip():
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE")
        headers[name.strip()] = content
    return headers


def _batch_size(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    try:
        size = int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor auto") from None
    if size < 1:
        raise click.BadParameter("must be at least 1")
    return size


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--output", "-o", metavar="FILE", help="JSONL, CSV or Parquet by its suffix; - is standard output."),
    click.option("--base-url", metavar="URL", help="An OpenAI-compatible endpoint, like http://localhost:8000/v1."),
    click.option("--model", metavar="NAME", help="The model's name at the endpoint."),
    click.option("--model-path", metavar="FILE", help="A GGUF file for the embedded model."),
    click.option("--rpm", type=click.FloatRange(min=1), metavar="N", help="Requests a minute that are allowed."),
    click.option("--tpm", type=click.FloatRange(min=1), metavar="N", help="Tokens a minute that are allowed."),
    click.option("--max-concurrency", type=click.IntRange(min=1), default=16, show_default=True, metavar="N"),
    click.option("--batch-size", callback=_batch_size, default="auto", show_default=True, metavar="N|auto",
                 help="Inputs in one request."),
    click.option("--max-batch-size", type=click.IntRange(min=1), default=32, show_default=True, metavar="N"),
    click.option("--max-input-tokens", type=click.IntRange(min=1), default=16_000, show_default=True, metavar="N",
                 help="Of one request."),
    click.option("--max-output-tokens", type=click.IntRange(min=1), default=4_000, show_default=True, metavar="N",
                 help="Of one request."),
    click.option("--look-ahead", type=click.IntRange(min=1), default=512, show_default=True, metavar="N",
                 help="Inputs held while requests are formed."),
    click.option("--store", metavar="FILE", help="The run store.  [default: OUTPUT.store.sqlite]"),
    click.option("--report", metavar="DIR", help="Write report.json and report.html there."),
    click.option("--budget-usd", type=float, metavar="X", help="Stop before spending more; needs prices."),
    click.option("--price-input", type=float, metavar="X", help="US dollars per million input tokens."),
    click.option("--price-output", type=float, metavar="X", help="US dollars per million output tokens."),
    click.option("--price-cached", type=float, metavar="X", help="... per million input tokens read from a cache."),
    click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True,
                 metavar="X", help="For one HTTP attempt."),
    click.option("--retry-failed", is_flag=True, help="Ask again for records that failed in an earlier run."),
    click.option("--max-failed", type=click.FloatRange(0, 1), default=0.2, show_default=True, metavar="SHARE",
                 help="Stop when more of the records fail."),
    click.option("--attempts", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
                 help="Asks of a record by itself before it is failed."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N records."),
    click.option("--temperature", type=float, default=0.0, show_default=True, metavar="X"),
    click.option("--extra-body", callback=_json_object, metavar="JSON", help="Merged into every request body."),
    click.option("--header", "headers", multiple=True, callback=_headers, metavar="K=V", help="May be repeated."),
    click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the shuffled look-ahead."),
    click.option("--answer-form", type=click.Choice(["compact", "keyed"]), default="compact", show_default=True,
                 help="keyed: each result repeats the first words of its input."),
    click.option("--on-bad-record", type=click.Choice(["stop", "fail-record"]), default="stop", show_default=True),
    click.option("--no-dedup", is_flag=True, help="Ask identical inputs each for itself."),
    click.option("--allow-change", is_flag=True, help="Use a store that holds answers of another task or model."),
]  # fmt: skip


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `run` and `retry` share."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("run")
@click.argument("task")
@click.argument("input")
@run_options
@click.option("--show-prompt", is_flag=True, help="Print the first request and send nothing.")
def run_command(task: str, input: str, show_prompt: bool, **options: Any) -> int:
    """Annotate the records of INPUT as TASK says.

    INPUT is JSONL, CSV or Parquet, compressed or not; - is JSONL on standard input. The key is read from
    ANNOTATE_API_KEY. Without --base-url the embedded model is used. The same command again goes on where it stopped.
    """
    settings = run_settings(options)
    source = FileSource(input)
    loaded = load_task(task)
    if show_prompt:
        raise ConfigError("--show-prompt comes with the next slice")
    output = options["output"]
    if output is None:
        raise click.UsageError("Missing option '--output'.")
    check_output_path(output, source=input)
    store = options["store"] or (None if output == "-" else f"{output}.store.sqlite")
    note = {"task": task, "input": input, "options": options | {"store": store}}
    return anyio.run(_run, settings, loaded, source, output, store, note, options)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the options come to."""

    endpoint: Endpoint | None
    config: RunConfig
    model_path: str | None
    allow_change: bool


def run_settings(options: dict[str, Any]) -> Settings:
    """Endpoint and configuration from the options of the command line."""
    base_url, model = options["base_url"], options["model"]
    if base_url is None and model is not None:
        raise click.UsageError("--model needs --base-url; without both, the small embedded model is used")
    if base_url is not None and model is None:
        raise click.UsageError("--base-url needs --model")
    if base_url is not None and options["model_path"] is not None:
        raise click.UsageError("--model-path is for the embedded model; leave out --base-url or --model-path")
    endpoint = None
    if base_url is not None:
        endpoint = Endpoint(
            base_url=base_url,
            model=model,
            headers=options["headers"],
            extra_body=options["extra_body"],
            temperature=options["temperature"],
            timeout_s=options["timeout_s"],
        )
    return Settings(
        endpoint=endpoint,
        config=_config(options),
        model_path=options["model_path"],
        allow_change=options["allow_change"],
    )


def _config(options: dict[str, Any]) -> RunConfig:
    return RunConfig(
        limits=Limits(
            requests_per_minute=options["rpm"],
            tokens_per_minute=options["tpm"],
            max_concurrency=options["max_concurrency"],
        ),
        packing=Packing(
            batch_size=options["batch_size"],
            max_batch_size=options["max_batch_size"],
            max_input_tokens=options["max_input_tokens"],
            max_output_tokens=options["max_output_tokens"],
            look_ahead=options["look_ahead"],
            deduplicate=not options["no_dedup"],
        ),
        recovery=Recovery(lone_attempts=options["attempts"], max_failed=options["max_failed"]),
        prices=_prices(options),
        budget_usd=options["budget_usd"],
        answer_form=options["answer_form"],
        on_bad_record=options["on_bad_record"],
        retry_failed=options["retry_failed"],
        seed=options["seed"],
    )


def _prices(options: dict[str, Any]) -> Prices | None:
    given = options["price_input"], options["price_output"]
    if given == (None, None):
        return None
    if None in given:
        raise click.UsageError("--price-input and --price-output go together")
    return Prices(input=options["price_input"], output=options["price_output"], cached_input=options["price_cached"])


async def _run(
    settings: Settings,
    task: Any,
    source: FileSource,
    output: str,
    store: str | None,
    note: dict[str, Any],
    options: dict[str, Any],
) -> int:
    started = time.monotonic()
    async with open_workbench(
        settings.endpoint,
        settings.config,
        store=store,
        model_path=settings.model_path,
        allow_change=settings.allow_change,
    ) as bench:
        corpus = CorpusRun(bench, task, source, limit=options["limit"])
        stopped: RunStopped | None = None
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_watch_signals, corpus, scope)
                with make_progress(corpus.counters, prices=settings.config.prices) as progress:
                    tasks.start_soon(progress.keep_drawing)
                    stopped = await corpus.annotate(note=note)
                    tasks.cancel_scope.cancel()
        if scope.cancelled_caught:
            stopped = RunStopped("interrupted", "stopped at once; answers in flight were given up")
        with anyio.CancelScope(shield=True):
            await bench.run_sync(lambda: corpus.write_output(output))
        return _finish(corpus, stopped, time.monotonic() - started)


def _finish(corpus: CorpusRun, stopped: RunStopped | None, wall_s: float) -> int:
    counters = corpus.counters
    click.echo(
        f"{counters.records_ok} ok, {counters.records_failed} failed, {counters.requests} requests, {wall_s:.1f} s",
        err=True,
    )
    for notice in counters.notices:
        click.echo(notice, err=True)
    if stopped is not None:
        click.echo(f"annotate: stopped: {stopped}", err=True)
        click.echo(f"Go on with the same command: annotate {' '.join(sys.argv[1:])}", err=True)
        return STOPPED
    return SOME_FAILED if counters.records_failed else ALL_ANNOTATED


async def _watch_signals(corpus: CorpusRun, scope: anyio.CancelScope) -> None:
    """Once: stop sending, keep every answer in flight. Twice: stop now."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        first = True
        async for _ in signals:
            if not first:
                scope.cancel()
                return
            first = False
            click.echo("\nstopping: waiting for answers in flight; once more stops at once", err=True)
            corpus.stop(RunStopped("interrupted", "interrupted"))
