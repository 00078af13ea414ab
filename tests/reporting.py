"""Runs over a file against a simulated endpoint on virtual time, and the reports of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.adapters.files import FileSource
from engine.report.document import Report
from engine.report.metrics import Counters
from engine.report.summary import make_report
from engine.run.compose import open_workbench
from engine.run.corpus import CorpusRun
from engine.run.journal import at_once
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import RunConfig
from engine.vocabulary.errors import RunStopped
from support import ENDPOINT, make_config, make_records, make_task

STARTED_AT = 1_760_000_000.0


@dataclass
class Reported:
    """One run, and what is said of it."""

    report: Report
    counters: Counters
    endpoint: SimulatedEndpoint
    stopped: RunStopped | None
    output: Path
    store: Path


def report_run(
    folder: Path,
    records: list[dict[str, Any]] | None = None,
    config: RunConfig | None = None,
    simulator: SimulatorConfig | None = None,
    **changes: Any,
) -> Reported:
    """Annotate records from a file in `folder`, with its store there, and report."""
    source = folder / "input.jsonl"
    lines = make_records(200) if records is None else records
    source.write_text("".join(json.dumps(record) + "\n" for record in lines))
    endpoint = build_endpoint(simulator or SimulatorConfig())
    made: Reported = virtual_time.run(_run, folder, config or make_config(10), endpoint, changes)
    return made


async def _run(folder: Path, config: RunConfig, endpoint: SimulatedEndpoint, changes: dict[str, Any]) -> Reported:
    store, output = folder / "store.sqlite", folder / "output.jsonl"
    transport = InProcessTransport(endpoint)
    async with open_workbench(ENDPOINT, config, store=store, transport=transport, run_sync=at_once) as bench:
        corpus = CorpusRun(bench, make_task(), FileSource(str(folder / "input.jsonl")))
        stopped = await corpus.annotate(note={})
        corpus.write_output(str(output))
        assert corpus.run is not None
        report = make_report(
            corpus.counters,
            bench.store,
            run_id=corpus.run.run_id,
            settings_id=corpus.run.settings_id,
            config=bench.config,
            prices=config.prices,
            model=bench.model_name,
            stopped=stopped,
            static_tokens=corpus.run.plan.asking.static_tokens,
            **{
                "endpoint": ENDPOINT.base_url,
                "task_name": "task.toml",
                "started_at": STARTED_AT,
                "ended_at": STARTED_AT + 90.0,
                "simulated": True,
                **changes,
            },
        )
        return Reported(report, corpus.counters, endpoint, stopped, output, store)
