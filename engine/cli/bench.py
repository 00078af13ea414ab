"""`annotate bench`: measure an endpoint."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import click
import msgspec

from engine.adapters.files.atomic import replacing
from engine.adapters.http import HttpTransport
from engine.adapters.local import LOCAL_MODEL_NAME, local_model
from engine.adapters.providers.openai_chat import shown_url
from engine.bench import plan
from engine.bench.document import BENCH_VERSION, Bench, Planned
from engine.bench.feed import Feed, bench_task, make_feed
from engine.bench.figures import Limits as Allowed
from engine.bench.knee import RULE
from engine.bench.page.html import write_page
from engine.bench.plan import AtMost
from engine.bench.runner import Runner, Stopper
from engine.bench.sweep import Sweep, Wishes
from engine.cli.bench_options import Asked, asked_of, bench_options, shared_options
from engine.cli.bench_text import print_bench, print_plan
from engine.cli.exits import ALL_ANNOTATED, STOPPED
from engine.cli.interrupts import Interrupts, with_interrupts
from engine.cli.logs import LoggedCommand, logging_as, logging_refusals
from engine.cli.options import Settings
from engine.decide.pricing import cost_usd
from engine.run.compose import fitted, open_workbench
from engine.vocabulary.config import Endpoint, RunConfig
from engine.vocabulary.errors import ConfigError, EngineError

_EMBEDDED = "the embedded model"
_PACKAGES = ("annotation-engine", "aiohttp", "anyio", "aiolimiter", "msgspec", "tiktoken")


@click.command("bench", cls=LoggedCommand, params=shared_options())
@click.argument("task")
@click.argument("input")
@bench_options
def bench_command(task: str, input: str, **options: Any) -> int:
    """Measure an endpoint with the records of INPUT, asked as TASK says.

    First a closed loop: batch sizes x requests in flight, repeated, in random order. Then an open loop: records arrive
    at random times at given rates. Prints the throughput-latency curve, its knee, what bound it, waste and cost, and
    writes all of it to a file. Answers are thrown away. Ctrl-C ends it with what it has.
    """
    with logging_refusals(options, task, input, str(options["output"])):
        asked = asked_of(task, input, options)
    with logging_as(asked.settings.log, endpoint=asked.settings.endpoint):
        return anyio.run(with_interrupts, partial(_measured, asked))


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask. `name` names the model, `shown` the endpoint, for people."""

    endpoint: Endpoint
    config: RunConfig
    name: str
    shown: str


@asynccontextmanager
async def _target(settings: Settings) -> AsyncIterator[_Target]:
    """The endpoint; or the embedded model, started once for all cells, as `run` would ask it."""
    if settings.endpoint is not None:
        shown = shown_url(settings.endpoint.base_url)
        yield _Target(endpoint=settings.endpoint, config=settings.config, name=settings.endpoint.model, shown=shown)
        return
    async with local_model(settings.model_path) as local:
        endpoint = msgspec.structs.replace(
            settings.embedded, base_url=local.base_url, model=LOCAL_MODEL_NAME, exact_count=True
        )
        config = fitted(settings.config, slots=local.slots, context_tokens=local.context_tokens)
        yield _Target(endpoint=endpoint, config=config, name=local.name, shown=_EMBEDDED)


async def _measured(asked: Asked, interrupts: Interrupts) -> int:
    started = anyio.current_time()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    stopper = Stopper()
    with anyio.CancelScope() as everything:
        interrupts.call(everything.cancel)
        async with AsyncExitStack() as stack:
            target = await stack.enter_async_context(_target(asked.settings))
            transport = await stack.enter_async_context(HttpTransport(max_connections=asked.grid.concurrencies[-1] + 1))
            feed, at_most = await _fed(asked, target)
            print_plan(
                asked.grid, at_most, time_s=asked.time_s, endpoint=target.shown, model=target.name,
                usd=_worst_usd(at_most, target.config), budget_usd=target.config.budget_usd,
                budget_tokens=target.config.budget_tokens, records=len(feed), skipped=feed.skipped,
            )  # fmt: skip
            if asked.dry_run:
                return ALL_ANNOTATED
            runner = Runner(
                endpoint=target.endpoint, config=target.config, task=bench_task(asked.task), feed=feed,
                transport=transport, stopper=stopper,
            )  # fmt: skip
            sweep = Sweep(runner, _wishes(asked, target, anyio.current_time() - started), say=_say)
            await _swept(sweep, stopper, interrupts)
            document = _document(
                asked, target, sweep, at_most, simulated=runner.tap.is_simulated, started_at=started_at,
                wall_s=anyio.current_time() - started,
            )  # fmt: skip
            return _told(document, asked.output)
    click.echo("annotate: interrupted before anything was measured", err=True)
    return STOPPED


def _told(document: Bench, output: Path) -> int:
    """Write and print it; the exit code."""
    if not document.closed:
        click.echo(f"annotate: {document.stopped or 'stopped'} before anything was measured", err=True)
        return STOPPED
    _write(output, document)
    print_bench(document, output)
    _draw(output, document)
    return STOPPED if document.partial else ALL_ANNOTATED


async def _swept(sweep: Sweep, stopper: Stopper, interrupts: Interrupts) -> None:
    """Run it. The first interrupt waits for what is in flight, the second does not."""

    def react() -> None:
        if stopper.stopped:
            scope.cancel()
            return
        click.echo("\nstopping: waiting for answers in flight; once more stops at once", err=True)
        stopper.stop()

    with anyio.CancelScope() as scope:
        interrupts.call(react)
        await sweep.run()
    if scope.cancelled_caught:
        sweep.stopped = "interrupted"


def _wishes(asked: Asked, target: _Target, used_s: float) -> Wishes:
    config = target.config
    return Wishes(
        grid=asked.grid,
        caps=asked.caps,
        time_s=max(1.0, asked.time_s - used_s),
        target_p95_s=asked.target_p95_s,
        prices=config.prices,
        budget_usd=config.budget_usd,
        budget_tokens=config.budget_tokens,
        limits=Allowed(
            requests_per_minute=config.limits.requests_per_minute, tokens_per_minute=config.limits.tokens_per_minute
        ),
        seed=asked.seed,
        judge_client=target.shown != _EMBEDDED,  # that works in this process
    )


async def _fed(asked: Asked, target: _Target) -> tuple[Feed, AtMost]:
    """The records, and what may be sent of them; the tokens are counted as a run would."""
    async with open_workbench(target.endpoint, target.config) as bench:
        asking = bench.plan(asked.task).asking
        prepare = bench.prepare(asked.task)
        feed = await anyio.to_thread.run_sync(
            lambda: make_feed(asked.source, prepare, seed=asked.seed, limit=asked.limit, name=asked.source.name)
        )
    at_most = plan.at_most(
        asked.grid, asked.caps, static_tokens=asking.static_tokens, entry_tokens=feed.entry_tokens,
        output_tokens=asking.output_tokens, time_s=asked.time_s,
        requests_per_minute=target.config.limits.requests_per_minute,
    )  # fmt: skip
    return feed, at_most


def _worst_usd(at_most: AtMost, config: RunConfig) -> float | None:
    if config.prices is None:
        return None
    return cost_usd(
        config.prices, input_tokens=at_most.input_tokens, cached_tokens=0, output_tokens=at_most.output_tokens
    )


def _document(
    asked: Asked, target: _Target, sweep: Sweep, at_most: AtMost, *, simulated: bool, started_at: str, wall_s: float
) -> Bench:
    grid, config = sweep.fitted.grid, target.config
    return Bench(
        bench_version=BENCH_VERSION,
        partial=bool(sweep.stopped),
        stopped=sweep.stopped,
        simulated=simulated,
        model=target.name,
        endpoint=target.shown,
        task=asked.task_name,
        input=asked.source.name,
        started_at=started_at,
        wall_s=round(wall_s, 3),
        seed=asked.seed,
        target_p95_s=asked.target_p95_s,
        settings={
            "requests_per_minute": config.limits.requests_per_minute,
            "tokens_per_minute": config.limits.tokens_per_minute,
            "limit_share": plan.LIMIT_SHARE,
            "max_input_tokens": config.packing.max_input_tokens,
            "max_output_tokens": config.packing.max_output_tokens,
            "max_wait_s": config.packing.max_wait_s,
            "answer_form": config.answer_form,
            "temperature": target.endpoint.temperature,
            "timeout_s": target.endpoint.timeout_s,
            "extra_body": sorted(target.endpoint.extra_body),
            "prices": None if config.prices is None else msgspec.to_builtins(config.prices),
            "budget_usd": config.budget_usd,
            "budget_tokens": config.budget_tokens,
            "requests_per_visit": asked.caps.requests,
            "visit_s": asked.caps.visit_s,
            "quick": asked.caps.quick,
        },
        versions={
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cores": str(os.cpu_count()),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        planned=Planned(
            batch_sizes=list(grid.batch_sizes),
            concurrencies=list(grid.concurrencies),
            rate_shares=list(grid.rate_shares),
            rates=list(grid.rates),
            repeats=grid.repeats,
            time_s=asked.time_s,
            at_most=at_most,
            left_out=list(sweep.fitted.left_out),
            tight=sweep.fitted.tight,
            warm_latency_s={str(size): round(value, 6) for size, value in sweep.latencies_s.items()},
        ),
        totals=sweep.totals(),
        closed=sweep.closed_points(),
        open=sweep.open_points(),
        best=sweep.best(),
        knees=sweep.knees(),
        knee_rule=RULE,
        visit_order=[[cell.batch_size, cell.concurrency] for cell in sweep.visit_order],
        notes=sweep.notes,
    )


def _write(output: Path, document: Bench) -> None:
    """Write it whole. An earlier bench is somebody's measurement: it is kept as `NAME-1` and so on, with its page."""
    earlier = [path for path in (output, output.with_suffix(".html")) if path.is_file()]
    if earlier:
        number = next(number for number in count(1) if not any(_numbered(path, number).exists() for path in earlier))
        for path in earlier:
            path.rename(_numbered(path, number))
    try:
        with replacing(output) as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(f"--output: {output} cannot be written: {error.strerror}") from None


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def _draw(output: Path, document: Bench) -> None:
    """Draw its page. The figures are written by now, so that a page which cannot be costs a message."""
    if not output.is_file():  # a pipe or a device, beside which nothing belongs
        return
    try:
        click.echo(f"drawn: {write_page(document, output)}")
    except EngineError as error:
        click.echo(f"annotate: {error}", err=True)


def _say(text: str) -> None:
    click.echo(text, err=True)
