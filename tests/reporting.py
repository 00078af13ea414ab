"""Runs over a file against a simulated endpoint on virtual time, and the reports of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.adapters.files import FileSource
from engine.adapters.store import AnswerRow, CallRow, InputRow, RunStore, temporary_store
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


def make_call(number: int, **changes: Any) -> CallRow:
    return CallRow(
        **{"id": number, "sent_at": 100.0, "latency_s": 1.0, "size": 1, "accepted": 1, "status": 200, "outcome": "ok"}
        | changes
    )


def make_answer(key: str, **changes: Any) -> AnswerRow:
    return AnswerRow(
        **{"key": key, "digest": key.encode(), "output": '"red"', "calls": (1,), "answered_at": 101.0, "latency_s": 1.0}
        | changes
    )


def hand_made(
    calls: Sequence[CallRow], answers: Sequence[AnswerRow], *, inputs: Sequence[InputRow] = (), **changes: Any
) -> Report:
    """A report of a store that was filled by hand."""
    store = temporary_store()
    try:
        settings_id = store.settings(task_key="t", model="m", task="{}")
        run_id = store.begin_run(settings_id=settings_id, started_at=100.0, config="{}")
        if inputs:
            store.add_inputs(run_id, inputs)
        store.write(run_id, settings_id, calls, answers)
        return reported(store, run_id, settings_id, **changes)
    finally:
        store.close()


def reported(store: RunStore, run_id: int, settings_id: int, **changes: Any) -> Report:
    settings: dict[str, Any] = {
        "config": RunConfig(), "prices": None, "model": "m", "endpoint": "http://e/v1", "task_name": "t.toml",
        "started_at": 100.0, "ended_at": 200.0, "simulated": False,
    }  # fmt: skip
    counters = changes.pop("counters", None) or Counters()
    return make_report(counters, store, run_id=run_id, settings_id=settings_id, **(settings | changes))
