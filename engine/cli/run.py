"""`annotate run`: label a file."""

from __future__ import annotations

import os
import shlex
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec

from engine.adapters.files import FileSource, check_output_path, write_rows
from engine.adapters.files.atomic import make_folder
from engine.adapters.providers.efforts import is_refused, without_effort
from engine.adapters.providers.known import KEY_VARIABLE, key_variables
from engine.adapters.store import NotByRun, RunStore
from engine.adapters.stored import STORE_SUFFIX, newest_input
from engine.adapters.stored_again import answered_beyond, has_inputs, left_behind
from engine.cli.console import pasteable, silence_stdout
from engine.cli.earlier_output import has_rows, holds_more, without_any
from engine.cli.exits import ALL_ANNOTATED, SOME_FAILED, STOPPED
from engine.cli.final import Places, print_final
from engine.cli.gold import GoldFiles, gold_files, read_gold_files, write_gold_answers
from engine.cli.interrupts import Interrupts, with_interrupts
from engine.cli.logs import LoggedCommand, logging_as, logging_refusals
from engine.cli.options import Settings, check_key, run_options, run_settings
from engine.cli.progress import make_progress
from engine.cli.prompt import print_first_request
from engine.cli.reporting import end_report
from engine.report.summary import HTML_NAME, JSON_NAME
from engine.report.words import duration
from engine.run.compose import Run, Workbench, open_workbench
from engine.run.corpus import CorpusRun, WhenNoted
from engine.run.export import write_newest
from engine.run.log import log_error
from engine.run.tasks import load_task, source_for
from engine.vocabulary.errors import ConfigError, EngineError, RunStopped, StoreError
from engine.vocabulary.task import Task

_LONG_PAUSE_S = 10.0
_STANDARD_STREAM = "-"
_PATH_OPTIONS = ("output", "store", "report", "model_path", "key_file", "prices", "gold", "gold_output")
_LOG_OPTIONS = ("log_json", "log_level")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run, checked as far as it can be before anything is opened.

    :ivar output: a file, or ``-``.
    :ivar store: None keeps nothing.
    :ivar note: kept in the store with the run, for ``annotate retry`` and ``show``; holds no key and no header.
    :ivar again: the command that goes on with it, for a person.
    :ivar ask_again: the command that asks for failed records again; None for the same one with --retry-failed.
    :ivar when_noted: called when the input is noted and nothing is sent yet.
    :ivar gold: records with known answers; None: there are none.
    """

    task: Task
    task_path: str
    source: FileSource
    settings: Settings
    output: str
    store: str | None
    report: str | None
    csv_safe: bool
    limit: int | None
    note: dict[str, Any]
    again: str
    ask_again: str | None = None
    when_noted: WhenNoted | None = None
    gold: GoldFiles | None = None


@click.command("run", cls=LoggedCommand)
@click.argument("task")
@click.argument("input")
@run_options
@click.option("--show-prompt", is_flag=True, help="Print the first request and send nothing.")
def run_command(task: str, input: str, show_prompt: bool, **options: Any) -> int:
    """Annotate the records of INPUT as TASK says.

    INPUT is JSONL, CSV or Parquet, compressed or not; - is JSONL on standard input. The key is read from
    ANNOTATE_API_KEY, or from the variable of the provider. Without --base-url and --provider the embedded model is
    used. The same command again goes on where it stopped.
    """
    if show_prompt:
        shown = load_task(task)
        print_first_request(shown, source_for(shown, input), run_settings(options), limit=options["limit"])
        return ALL_ANNOTATED
    with logging_refusals(options, task, input, options["output"], options["store"]):
        if options["output"] is None:
            raise click.UsageError("--output is missing; name the file to write, such as --output labels.jsonl")
        job = make_job(task, input, options, again=as_typed())
        return run_job(msgspec.structs.replace(job, when_noted=_warner(job)))


def _warner(job: Job) -> WhenNoted:
    """Rows that leave the output with their records are told and not refused: the input may be cut down on purpose.

    To nothing it is not.
    """

    def warn(store: RunStore, run: Run) -> bool:
        if job.source.rereadable:  # what a stream lacks is known at its end
            if not has_inputs(store, run.run_id, usable=True) and has_rows(job.output):
                raise without_any(job.source.name, job.output)
            _tell_left_behind(job, left_behind(store, run.run_id), "this input any more")
        return True

    return warn


def _tell_left_behind(job: Job, gone: int, where: str) -> None:
    """:param gone: records of the input before, which have ended; without an output there is nothing to leave."""
    if gone and Path(job.output).is_file():
        said = "1 record that is done is" if gone == 1 else f"{gone:,} records that are done are"
        click.echo(
            f"annotate: {said} not in {where} and will not be in {job.output}; the answers stay in the store", err=True
        )


def make_job(task: str, input: str, options: dict[str, Any], *, again: str) -> Job:
    """Check everything that can be checked before a model is started or a request is sent.

    :param options: of `run_options`; the output is not None.
    :raises ConfigError: a file is missing, not writable, or named twice; a provider's key is missing.
    """
    settings = run_settings(options)
    check_key(settings)
    loaded = load_task(task)
    source = source_for(loaded, input)
    output = options["output"]
    check_output_path(output, source=input)
    store = options["store"] or (None if output == _STANDARD_STREAM else f"{output}{STORE_SUFFIX}")
    report = options["report"]
    pages = {} if report is None else {f"{name} of --report": f"{report}/{name}" for name in (JSON_NAME, HTML_NAME)}
    _check_distinct(
        {"TASK": task, "INPUT": input, "--output": output, "--store": store, "--log-json": settings.log.json}
        | {"--gold": options["gold"], "--gold-output": options["gold_output"]}
        | pages
    )
    _check_report_folder(report)
    return Job(
        task=loaded,
        task_path=task,
        source=source,
        settings=settings,
        output=output,
        store=store,
        report=report,
        csv_safe=options["csv_safe"],
        limit=options["limit"],
        note=_note(task, input, options | {"store": store}),
        again=again,
        gold=gold_files(options),
    )


def _check_distinct(named: dict[str, str | None]) -> None:
    """No file may be two things: the second would be written over the first."""
    seen: dict[Path, str] = {}
    for what, path in named.items():
        if path is None or path == _STANDARD_STREAM:
            continue
        if Path(path).exists() and not Path(path).is_file():
            continue  # a device such as /dev/null, or a folder, which others complain about
        first = seen.setdefault(Path(path).resolve(), what)
        if first != what:
            raise ConfigError(f"{path}: is {first} and {what} at once; give one of them another name")


def _check_report_folder(folder: str | None) -> None:
    if folder is None:
        return
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ConfigError(f"--report: {folder} is a file; name a folder")
    try:
        make_folder(Path(folder))
    except OSError as error:
        raise ConfigError(f"--report: the folder {folder} cannot be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--report: the folder {folder} is not writable")


def _note(task: str, input: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a later `annotate retry` needs to do the same again. Of headers, which may be keys, the names only."""
    kept = {
        name: _absolute(value) if name in _PATH_OPTIONS else value
        for name, value in options.items()
        if name not in _LOG_OPTIONS  # a retry is logged where it is asked for
    }
    kept["headers"] = sorted(options["headers"])
    return {"task": _absolute(task), "input": _absolute(input), "options": kept}


def _absolute(path: str | None) -> str | None:
    return path if path in (None, _STANDARD_STREAM) else str(Path(str(path)).absolute())


def as_typed() -> str:
    """The command line, ready to be pasted, the values of headers taken out: it may end up in a log."""
    words: list[str] = []
    hide_next = False
    for word in click.get_current_context().find_root().obj or ["run", "..."]:
        if hide_next:
            word = f"{word.partition('=')[0]}=..."  # noqa: PLW2901
        hide_next = word == "--header"
        if word.startswith("--header="):
            word = f"{word.partition('=')[2].partition('=')[0]}=..."  # noqa: PLW2901
            words.append("--header")
        words.append(word)
    return pasteable(words)


# -- the run -----------------------------------------------------------------------------------------------------


def run_job(job: Job) -> int:
    """Do the run; the exit code."""
    with logging_as(job.settings.log, endpoint=job.settings.endpoint):
        try:
            return anyio.run(with_interrupts, partial(_annotate, job))
        except Exception as error:
            log_error(error)
            raise


def _warn_of_prices(job: Job) -> None:
    """A budget that rests on a price which nobody has looked up today is told so before anything is spent."""
    config = job.settings.config
    prices = config.prices
    if config.budget_usd is None or prices is None or prices.source is None:
        return
    click.echo(
        f"annotate: the budget is reckoned at ${prices.input:g} and ${prices.output:g} per million tokens in and out, "
        f"as of {prices.as_of} ({prices.source}); if they have changed, give --price-input and --price-output",
        err=True,
    )


async def _annotate(job: Job, interrupts: Interrupts) -> int:
    started = time.monotonic()
    _warn_of_prices(job)
    with anyio.CancelScope() as starting:
        interrupts.call(starting.cancel)
        async with open_workbench(
            job.settings.endpoint,
            job.settings.config,
            store=job.store,
            model_path=job.settings.model_path,
            embedded=job.settings.embedded,
            allow_change=job.settings.allow_change,
        ) as bench:
            _check_limit(bench, job)
            gold = read_gold_files(bench, job.task, job.gold)
            corpus = CorpusRun(bench, job.task, job.source, limit=job.limit, when_noted=job.when_noted, gold=gold)
            try:
                stopped = await _labelled(corpus, job, interrupts)
            except EngineError:
                raise  # nothing was sent, and what an earlier run wrote stays
            except Exception:  # a bug; what is paid for is written all the same
                await _write_output(bench, corpus, job, interrupts)
                raise
            if corpus.is_empty and has_rows(job.output):
                if stopped is None:
                    raise without_any(job.source.name, job.output)
                click.echo(f"annotate: no record came before the stop, so {job.output} stays as it was", err=True)
            came = "this stream" if stopped is None else "what came before the stop"
            _tell_left_behind(job, corpus.left_behind, came)
            is_written = await _write_output(bench, corpus, job, interrupts)
            write_gold_answers(job.gold, corpus.counters)
            code = await _finish(bench, corpus, job, stopped, wall_s=time.monotonic() - started, is_written=is_written)
            return code if is_written else STOPPED
    _write_nothing(job.output)
    click.echo("annotate: interrupted before anything was sent", err=True)
    return STOPPED


def _check_limit(bench: Workbench, job: Job) -> None:
    """A shorter look at what is further along would leave an output without most of its rows.

    Refused and not warned of: a look into another file costs nothing, from the same store, and an output that keeps its
    rows all the same would not be what --limit says. The store knows the records of its newest input only, and the
    output may be of another one; so its rows are counted besides.
    """
    if job.limit is None or not Path(job.output).is_file():
        return  # nothing is written over
    if answered_beyond(bench.store, job.limit) or holds_more(job.output, job.limit):
        records = "record" if job.limit == 1 else f"{job.limit:,} records"
        raise ConfigError(
            f"{job.output} holds more than the first {records}, and would be written without the rest; leave --limit "
            f"out, or use another --output (with --store {shlex.quote(str(job.store))} nothing is asked twice)"
        )


async def _labelled(corpus: CorpusRun, job: Job, interrupts: Interrupts) -> RunStopped | None:
    """Annotate; the reason, when it stopped before its end.

    The first interrupt stops sending and keeps every answer in flight, the second gives them up.
    """
    outcome: Exception | None = None
    reacted = False

    def react() -> None:
        nonlocal reacted
        if reacted:
            scope.cancel()
            return
        reacted = True
        corpus.stop(RunStopped("interrupted", "interrupted"))  # first: there may be nobody to tell
        click.echo("\nstopping: waiting for answers in flight; once more stops at once", err=True)

    with anyio.CancelScope() as scope:
        interrupts.call(react)
        async with anyio.create_task_group() as tasks:
            quiet, prices = job.settings.log.fills_standard_error, job.settings.config.prices
            with make_progress(corpus.counters, prices=prices, quiet=quiet) as progress:
                tasks.start_soon(progress.keep_drawing)
                try:
                    outcome = await corpus.annotate(note=job.note)
                except Exception as error:  # noqa: BLE001 - judged below: a task group would wrap it
                    outcome = error
                tasks.cancel_scope.cancel()
    if scope.cancelled_caught:
        return RunStopped("interrupted", "stopped at once; answers in flight were given up")
    return _judged(corpus, outcome)


def _judged(corpus: CorpusRun, outcome: Exception | None) -> RunStopped | None:
    if outcome is None or isinstance(outcome, RunStopped):
        return outcome
    if isinstance(outcome, StoreError) and corpus.run is not None:
        stopped = RunStopped("store", str(outcome))  # the store was fine when the run began: a full disk, say
        stopped.__cause__ = outcome
        return stopped
    raise outcome


# -- the end -----------------------------------------------------------------------------------------------------


async def _write_output(bench: Workbench, corpus: CorpusRun, job: Job, interrupts: Interrupts) -> bool:
    """Write what is done and failed so far, whatever the reason of the stop; whether that worked."""
    interrupts.call(lambda: click.echo("the output is being written; a moment", err=True))
    try:
        with anyio.CancelScope(shield=True):
            await bench.run_sync(lambda: _write(bench, corpus, job))
    except BrokenPipeError:
        silence_stdout()
    except (EngineError, OSError) as error:
        click.echo(f"annotate: {error}", err=True)
        if job.store is not None and not isinstance(error, NotByRun):
            export = pasteable(["export", job.store, "--output", "FILE"])
            click.echo(f"The answers are in the run store; write them elsewhere with: {export}", err=True)
        elif job.store is None:
            click.echo("The answers are lost: nothing keeps them but --store FILE.", err=True)
        return False
    return True


def _write(bench: Workbench, corpus: CorpusRun, job: Job) -> None:
    """A run that was taken back while its input was checked leaves the earlier one to be written."""
    run = corpus.run
    if corpus.is_empty and has_rows(job.output):
        return  # it was stopped before anything came
    if run is not None and bench.store.query("SELECT 1 FROM runs WHERE id = ?", (run.run_id,)):
        corpus.write_output(job.output, csv_safe=job.csv_safe)
    elif newest_input(bench.store) is not None:
        write_newest(bench.store, job.output, csv_safe=job.csv_safe)
    else:
        _write_nothing(job.output)


def _write_nothing(output: str) -> None:
    """There is an output at every stop, but an earlier one is better than none of this run."""
    if output != _STANDARD_STREAM and not Path(output).exists():
        write_rows(output, ())


async def _finish(
    bench: Workbench, corpus: CorpusRun, job: Job, stopped: RunStopped | None, *, wall_s: float, is_written: bool
) -> int:
    endpoint = job.settings.endpoint
    ended = await end_report(
        bench,
        corpus,
        task_name=job.task_path,
        base_url=None if endpoint is None else endpoint.base_url,
        folder=job.report,
        stopped=stopped,
        wall_s=wall_s,
    )
    ways_on = [] if stopped is None else _ways_on(job, stopped)
    left_s = corpus.counters.paused_until_s - anyio.current_time()
    if stopped is not None and left_s > _LONG_PAUSE_S:
        ways_on.insert(0, f"Sending was paused for {duration(left_s)} more, after errors or as the endpoint asked.")
    if ended.report is not None:
        places = Places(
            output=job.output if is_written else None,
            store=job.store,
            report=None if ended.page is None else str(ended.page),
            is_earlier_report=ended.is_earlier_page,
            ask_again=job.ask_again,
        )
        print_final(ended.report, places, ways_on=ways_on)
    elif stopped is not None:
        for line in (f"annotate: stopped: {stopped}", *ways_on):
            click.echo(line, err=True)
    if stopped is not None:
        return STOPPED
    return SOME_FAILED if corpus.counters.records_failed else ALL_ANNOTATED


def _ways_on(job: Job, stopped: RunStopped) -> list[str]:
    """What to mend, where that can be told, and how to go on."""
    endpoint = job.settings.endpoint
    lines = []
    if stopped.kind == "auth" and endpoint is not None and not stopped.by_second:
        found = job.settings.key_variable
        variables = " or ".join(key_variables(endpoint.base_url))
        lines.append(
            f"The endpoint refused the key in {found}." if found else f"No key was sent: none is set in {variables}."
        )
        if found is not None and found not in key_variables(endpoint.base_url):
            lines.append(f"Write the right one into {found}.")
        else:
            lines.append(f"Set the right one with: export {KEY_VARIABLE}=...")
    if isinstance(stopped.__cause__, NotByRun):
        return lines  # it says itself what comes first
    if is_refused(job.settings.embedded.reasoning_effort, str(stopped)):  # the same would be refused again
        again = without_effort(job.again)
        by = "Go on without it" if again != job.again else "Give one that it takes (--reasoning-effort) beside"
        return [*lines, f"Every answer is kept. {by}: {again}"]
    if job.store is None:
        lines.append("Nothing was kept, because the output is standard output; --store FILE would keep the answers.")
    elif job.ask_again is not None and stopped.kind == "brake":  # they may be just the records that always fail
        failed = pasteable(["show", job.store, "--failed"])
        lines.append(f"What failed before failed again, and the same command may well end so too. See: {failed}")
        lines.append(f"Every answer is kept. With the cause mended, ask again with: {job.again}")
    else:
        lines.append(f"Every answer is kept. Go on with the same command: {job.again}")
    return lines
