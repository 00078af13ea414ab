"""`annotate retry`: ask again for some records, with the settings that they were asked with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from engine.adapters.store import RunStore, open_store, read_store
from engine.adapters.stored import (
    STORE_SUFFIX,
    StoredRun,
    answer_counts,
    runs,
    store_path,
)
from engine.adapters.stored_again import (
    AnswerFilter,
    Marked,
    answered_keys,
    has_answers,
    left_behind,
    mark_again,
    unfinished_retry,
)
from engine.cli.console import pasteable
from engine.cli.exits import ALL_ANNOTATED, STOPPED
from engine.cli.logs import LoggedCommand, logging_refusals
from engine.cli.options import run_options
from engine.cli.run import Job, as_typed, make_job, run_job
from engine.run.compose import Run, task_key
from engine.vocabulary.errors import ConfigError


@click.command("retry", cls=LoggedCommand)
@click.argument("store_or_output")
@click.option("--failed", is_flag=True, help="Failed records; so it is when no filter is given.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Records that failed so. May be repeated.")
@click.option(
    "--batch-size-above",
    type=click.IntRange(min=0),
    metavar="N",
    help="Records answered in requests of more than N, also if they are done.",
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="This record, also if it is done. May be repeated.")
@click.option("--task", metavar="TASK.toml", help="The task file, if it moved.")
@click.option("--input", metavar="INPUT", help="The input, if it moved.")
@run_options
def retry_command(**given: Any) -> int:
    """Ask again for failed records, or for those that the filters name, in the order of the input.

    STORE_OR_OUTPUT is a run store, or the output file that it lies beside. Task, input and options are those of the
    run, except where other ones are given here (--batch-size 1). Earlier answers stay until there are new ones. The
    run's report is kept: it becomes report-1 beside that of the retry.
    """
    files = (given[name] for name in ("store_or_output", "task", "input", "output", "store"))
    with logging_refusals(given, *files):
        return _asked_again(**given)


def _asked_again(
    store_or_output: str,
    failed: bool,
    kinds: tuple[str, ...],
    batch_size_above: int | None,
    ids: tuple[str, ...],
    task: str | None,
    input: str | None,
    **options: Any,
) -> int:
    if "bad-record" in kinds:
        raise ConfigError(
            "--kind bad-record: such a record could not be read and was never sent; mend the input, and `annotate run` "
            "asks for it"
        )
    path = store_path(store_or_output)
    with closing(read_store(path)) as store:
        run = _repeatable(store, path, store_or_output, input)
        _check_kinds(store, run, kinds)
        keys = _keys(store, run, ids)
    failed = failed or options["retry_failed"]  # what `run` calls it
    if not (failed or kinds or keys) and batch_size_above is None:
        failed = True
    wanted = AnswerFilter(failed=failed, kinds=kinds, batch_size_above=batch_size_above, keys=keys)
    settings = _merged(run, options) | {"store": str(path), "retry_failed": False}
    if not _is_given("output"):
        settings["output"] = _output(store_or_output, path, run)
    task, input = _still_there(task, run.note["task"], "--task"), _still_there(input, run.note["input"], "--input")
    job = make_job(task, input, settings, again=as_typed())
    if not job.source.rereadable:
        raise ConfigError(f"--input {input}: is a stream, which cannot be read twice; give a file")
    ask_again = pasteable(["retry", str(path)])
    note = job.note | {"base": _base(run), "again": wanted.note()}
    job = msgspec.structs.replace(job, note=note, ask_again=ask_again)
    _check_same_question(run, job)
    with closing(read_store(path)) as store:
        found = has_answers(store, _settings(store, run), wanted) or unfinished_retry(store, wanted) is not None
    mark = _Mark(wanted, job)
    code = run_job(msgspec.structs.replace(job, when_noted=mark)) if found else ALL_ANNOTATED
    if not mark.goes_on:
        if code == ALL_ANNOTATED:
            click.echo("No answer of that kind is to a text of this input; nothing is asked again.", err=True)
        return code
    if code != STOPPED:
        _settle_marks(path, run, mark.marked)
    return code


for _option in retry_command.params:
    if isinstance(_option, click.Option) and _option.name == "retry_failed":
        _option.hidden = True  # taken for --failed, and no second filter to be read of


def _repeatable(store: RunStore, path: Path, named: str, input: str | None) -> StoredRun:
    """The newest run that wrote the output named, else the newest of all, if it can be done again.

    A later look at the first few, into another output, is not the run that whoever names this output means.
    """
    all_runs = runs(store)
    if not all_runs:
        raise ConfigError(f"{path} holds no run, so there is nothing to ask again")
    run = next((run for run in all_runs if _wrote(run, Path(named))), all_runs[0])
    if not isinstance(run.note.get("options"), dict) or not isinstance(run.note.get("task"), str):
        raise ConfigError(
            f"{path} was written by a program and not by `annotate run`; ask again there, with retry_failed=True"
        )
    if run.note.get("input") == "-" and input is None:
        raise ConfigError(
            "the run read standard input, which cannot be read again; send the same records into the same "
            "`annotate run` once more, with --retry-failed, or give them in a file with --input"
        )
    return run


def _wrote(run: StoredRun, output: Path) -> bool:
    options = run.note.get("options")
    noted = options.get("output") if isinstance(options, dict) else None
    return isinstance(noted, str) and Path(noted).resolve() == output.resolve()


def _settings(store: RunStore, run: StoredRun) -> list[int]:
    """The settings of the run's model, and those of its second one."""
    second = store.second_run(run.id)
    return [run.settings_id] if second is None else [run.settings_id, second.settings_id]


def _check_kinds(store: RunStore, run: StoredRun, kinds: Sequence[str]) -> None:
    """A kind that no record failed with is most likely misspelled: it would ask for nothing, without a word."""
    counts = [count for settings_id in _settings(store, run) for count in answer_counts(store, settings_id)]
    known = list(dict.fromkeys(count.kind for count in counts if count.kind is not None))
    unknown = next((kind for kind in kinds if kind not in known), None)
    if unknown is not None:
        there = f"its failures are: {', '.join(known)}" if known else "no answer in it is a failure"
        raise ConfigError(f"--kind {unknown}: no record in {store.path or 'the store'} failed so; {there}")


def _keys(store: RunStore, run: StoredRun, ids: Sequence[str]) -> list[str]:
    found: list[str] = []
    for given in ids:
        keys = answered_keys(store, run.settings_id, given)
        if not keys:
            raise ConfigError(f"--id {given}: no answer to a record of that id is in the store")
        found += keys
    return found


def _still_there(given: str | None, noted: str, option: str) -> str:
    """A file of the run's, unless another one is given."""
    if given is None and not Path(noted).exists():
        raise ConfigError(f"{noted}, which the run read, is no longer there; say where it is with {option}")
    return noted if given is None else given


# -- settings ----------------------------------------------------------------------------------------------------


def _base(run: StoredRun) -> dict[str, Any]:
    """The options of `annotate run`, without what an earlier retry changed for itself."""
    base: dict[str, Any] = run.note.get("base") or run.note["options"]
    return base


def _output(store_or_output: str, path: Path, run: StoredRun) -> str:
    """The output that is named, or that of the run; one that lay beside its store has moved with it."""
    if Path(store_or_output).resolve() != path.resolve():
        return store_or_output
    noted: str = _base(run)["output"]
    lay_beside = _base(run).get("store") == f"{noted}{STORE_SUFFIX}" and path.name.endswith(STORE_SUFFIX)
    return str(path).removesuffix(STORE_SUFFIX) if lay_beside else noted


def _merged(run: StoredRun, options: dict[str, Any]) -> dict[str, Any]:
    """The run's options, with those of this command line in their place."""
    stored = {name: value for name, value in _base(run).items() if name in options and name != "headers"}
    given = {name: value for name, value in options.items() if _is_given(name)}
    if _elsewhere(given, stored):
        raise click.UsageError("another model is another question: use `annotate run` with another --output")
    missing = [name for name in _base(run).get("headers", ()) if name not in options["headers"]]
    if missing:
        again = " ".join(f"--header {name}=..." for name in missing)
        raise ConfigError(f"the run sent headers whose values are not stored, as they may be keys; add {again}")
    return options | stored | given | {"headers": options["headers"]}


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _elsewhere(given: dict[str, Any], stored: dict[str, Any]) -> bool:
    return any(name in given and given[name] != stored.get(name) for name in ("model", "model_path"))


def _check_same_question(run: StoredRun, job: Job) -> None:
    if task_key(job.task) != run.task_key:
        raise ConfigError(
            f"the task in {job.task_path} changed since the run, so its answers would be to another question; use "
            "`annotate run` with another --output, or give the task as it was with --task"
        )


# -- marks -------------------------------------------------------------------------------------------------------


class _Mark:
    """Marks what is to be asked again when the input is noted, and tells how many; without any the run is off.

    One that was begun and did not end is gone on with: what it had asked is not asked once more.
    """

    def __init__(self, wanted: AnswerFilter, job: Job) -> None:
        self._wanted = wanted
        self._job = job
        self.marked = Marked(counts={})
        self.goes_on = False

    def __call__(self, store: RunStore, run: Run) -> bool:
        self._check_whole(store, run)
        earlier = unfinished_retry(store, self._wanted, before=run.run_id)
        self.marked = mark_again(store, run.settings_id, self._wanted, run_id=run.run_id, earlier=earlier)
        self.goes_on = self.marked.total > 0 or earlier is not None
        if earlier is not None:
            click.echo(
                f"the retry that began as run {earlier.since} did not end: it is gone on with, and what it had "
                "answered is not asked again",
                err=True,
            )
        if self.marked.total:
            click.echo(_told(self.marked), err=True)
        elif earlier is not None:
            click.echo("nothing of it is left; to ask for all of it anew, give the same command once more", err=True)
        return self.goes_on

    def _check_whole(self, store: RunStore, run: Run) -> None:
        """A part of the input would leave the output with the rows of that part: `--input` is for one that moved."""
        output = self._job.output
        gone = left_behind(store, run.run_id) if Path(output).is_file() else 0
        if gone:
            raise ConfigError(
                f"{self._job.source.name} lacks {gone:,} {'record' if gone == 1 else 'records'} that the run did, and "
                f"{output} would be written without them; give the whole input, or another --output"
            )


def _told(marked: Marked) -> str:
    kinds = ", ".join(
        f"{count:,} {'done' if kind is None else f'failed ({kind})'}" for kind, count in marked.counts.items()
    )
    verb = "record is" if marked.total == 1 else "records are"
    whose = ""
    if marked.second is not None and marked.of_second:
        whose = f"; {marked.of_second:,} of the second model, {marked.second.model}"
    return f"{marked.total:,} {verb} asked again: {kinds}{whose}"


def _settle_marks(path: Path, run: StoredRun, marked: Marked) -> None:
    """A done record whose new ask failed keeps its answer, and is not asked yet again by the next run."""
    with closing(open_store(path)) as store:
        kept = store.clear_redo(run.settings_id)
        if marked.second is not None:
            kept += store.clear_redo(marked.second.settings_id)
    if kept:
        show = pasteable(["show", str(path)])
        click.echo(f"{kept:,} keep their earlier answer: asked again, they failed; see {show}", err=True)
