"""From a run of the command line to its report, written where the user wants it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import click
import msgspec

from engine.report.document import Report
from engine.report.summary import HTML_NAME, make_report, write_report
from engine.run.compose import Run, Workbench
from engine.run.corpus import CorpusRun
from engine.vocabulary.errors import EngineError, RunStopped

EMBEDDED = "the embedded model"

T = TypeVar("T")


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What a run left to be read.

    :ivar report: None if none could be made.
    :ivar page: None if none was asked for, or could be written.
    :ivar is_earlier_page: an earlier run's, because this one sent nothing.
    """

    report: Report | None = None
    page: Path | None = None
    is_earlier_page: bool = False


async def end_report(
    bench: Workbench,
    corpus: CorpusRun,
    *,
    task_name: str,
    base_url: str | None,
    folder: str | None,
    stopped: RunStopped | None,
    wall_s: float,
) -> Ended:
    """The report of a run that has ended, and its page if one was asked for and could be written.

    A run that sent nothing leaves the page of the run that did the work as it is.
    A report that cannot be made or written costs a message: the labels are there, and it is they that were paid for.

    :param base_url: None for the embedded model.
    :param folder: None writes nothing.
    """
    run = corpus.run
    if run is None or not bench.store.query("SELECT 1 FROM runs WHERE id = ?", (run.run_id,)):
        return Ended()  # taken back before anything was sent: there is nothing to report on
    ended_at = time.time()

    def make(run: Run = run) -> Report:
        return make_report(
            corpus.counters,
            bench.store,
            run_id=run.run_id,
            settings_id=run.settings_id,
            config=bench.config,
            prices=bench.config.prices,
            model=bench.model_name,
            endpoint=base_url or EMBEDDED,
            task_name=task_name,
            started_at=ended_at - wall_s,
            ended_at=ended_at,
            simulated=bench.is_simulated,
            stopped=stopped,
            static_tokens=run.plan.asking.static_tokens,
        )

    report = await _attempt(bench, make)
    if report is None or folder is None:
        return Ended(report=report)
    earlier = Path(folder) / HTML_NAME
    if not report.requests.total and earlier.exists():
        return Ended(report=report, page=earlier, is_earlier_page=True)
    return Ended(report=report, page=await _attempt(bench, lambda: write_report(folder, report)))


async def _attempt(bench: Workbench, function: Callable[[], T]) -> T | None:
    made: T | None = None
    with anyio.CancelScope(shield=True):
        try:
            made = await bench.run_sync(function)
        except EngineError as error:
            click.echo(f"annotate: {error}", err=True)
    return made
