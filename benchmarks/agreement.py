"""The report's figures beside the endpoint's own ledger: counts, tokens, latencies. Simulated.

python -m benchmarks.agreement [--records 3000] [--seeds 3]

Counts must agree exactly; tokens exactly, where replies that stated their usage came through; percentiles of request
latency, peaks and throughput within 5 %. The ledger's own latency is from the arrival of a request to the end of its
reply, or to the moment when its client left. Two cells run over real sockets, in real time; there the two clocks differ
by what HTTP takes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio

from benchmarks.common import endpoint_in_thread, versions, write_json
from engine import Endpoint, Limits, Packing, Quality, RunConfig, Task
from engine.adapters.files import FileSource
from engine.report.document import Report
from engine.report.summary import make_report
from engine.run.compose import open_workbench
from engine.run.corpus import CorpusRun
from engine.run.journal import at_once, in_thread
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.rates import FaultRates
from engine.testing.simulator.transport import InProcessTransport

TASK = Task(instructions="Say which colour.", labels=["red", "green", "blue"])
CLOSE = 0.05
TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One set-up; `batch_size` None adapts, with the guard of the labels."""

    name: str
    simulator: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=lambda: Limits(max_concurrency=16))
    batch_size: int | None = 5
    sockets: bool = False


CELLS = (
    Cell(name="clean"),
    Cell(name="every fault, 3 %", simulator={"faults": FaultRates.all(0.03)}),
    Cell(name="every fault, 3 %, no usage", simulator={"faults": FaultRates.all(0.03), "usage": False}),
    Cell(name="429s, quota not told", simulator={"rpm": 240, "limit_window_s": 2.0}),
    Cell(name="quota told", simulator={"rpm": 240}, limits=Limits(requests_per_minute=240, max_concurrency=16)),
    Cell(name="adaptive and guarded", batch_size=None),
    Cell(name="adaptive, every fault, 3 %", batch_size=None, simulator={"faults": FaultRates.all(0.03)}),
    Cell(name="queues", simulator={"latency": "measured", "max_concurrency": 8, "queues": True, "cache": "exact"}),
    Cell(name="clean, real sockets", sockets=True),
    Cell(name="every fault, 3 %, real sockets", simulator={"faults": FaultRates.all(0.03)}, sockets=True),
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, twice. `within`: by how much they may differ, relatively; 0: not at all."""

    name: str
    reported: float | None
    truth: float | None
    within: float = 0.0

    @property
    def off(self) -> float:
        """The relative difference; infinite where only one is there."""
        if self.reported == self.truth:
            return 0.0
        if self.reported is None or self.truth is None:
            return float("inf")
        return abs(self.reported - self.truth) / max(abs(self.truth), 1e-9)


async def _reported(
    folder: Path, config: RunConfig, base_url: str, transport: InProcessTransport | None
) -> tuple[Report, int]:
    """The report of a run over `folder/input.jsonl`, and how many lines of its output hold an answer."""
    endpoint = Endpoint(base_url=base_url, model="simulated", timeout_s=TIMEOUT_S)
    run_sync = in_thread if transport is None else at_once
    async with open_workbench(
        endpoint, config, store=folder / "store.sqlite", transport=transport, run_sync=run_sync
    ) as bench:
        corpus = CorpusRun(bench, TASK, FileSource(str(folder / "input.jsonl")))
        stopped = await corpus.annotate(note={})
        corpus.write_output(str(folder / "output.jsonl"))
        begun = corpus.run
        if begun is None:
            raise RuntimeError("nothing was begun")
        report = make_report(
            corpus.counters,
            bench.store,
            run_id=begun.run_id,
            settings_id=begun.settings_id,
            config=bench.config,
            prices=None,
            model="simulated",
            endpoint=base_url,
            task_name="task",
            started_at=time.time(),
            ended_at=time.time(),
            simulated=True,
            stopped=stopped,
        )
    lines = [json.loads(line) for line in (folder / "output.jsonl").read_text().splitlines()]
    return report, sum(line["error"] is None for line in lines)


def figures(report: Report, answered: int, endpoint: SimulatedEndpoint) -> list[Figure]:
    """Every figure that both sides have."""
    ledger, requests, tokens = endpoint.ledger, report.requests, report.tokens
    ends = [at + lasted for at, lasted in zip(ledger.at_s, ledger.lasted_s, strict=True)]
    span_s = max(ends) - ledger.at_s[0]
    lasted = sorted(ledger.lasted_s)
    made = [
        Figure(name="requests.total", reported=requests.total, truth=ledger.requests),
        Figure(name="requests.http_429", reported=requests.http_429, truth=ledger.http_429),
        Figure(name="records.total", reported=report.records.total, truth=len(ledger.sends)),
        Figure(name="records.ok", reported=report.records.ok, truth=answered),
        Figure(name="peak_in_flight", reported=requests.peak_in_flight, truth=ledger.peak_in_flight, within=CLOSE),
        Figure(name="limits.rpm.peak", reported=report.limits.rpm.peak, truth=ledger.most_in_window()[0], within=CLOSE),
        Figure(name="throughput.records_per_s", reported=report.throughput.records_per_s,
               truth=answered / span_s, within=CLOSE),
    ]  # fmt: skip
    cut = ledger.broken_off  # 200 where it was sent, no reply where it should have come
    truths = ledger.by_status + Counter({0: cut}) - Counter({200: cut})
    for status in sorted({*requests.by_status, *map(str, truths)}):
        truth = truths[int(status)]
        made.append(Figure(name=f"by_status.{status}", reported=requests.by_status.get(status, 0), truth=truth))
    sums = (
        ("input", tokens.input, ledger.told_prompt),
        ("cached", tokens.cached, ledger.told_cached),
        ("output", tokens.output, ledger.told_completion),
    )
    if ledger.told_prompt:
        made += [Figure(name=f"tokens.{name}", reported=reported, truth=truth) for name, reported, truth in sums]
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("max", 100)):
        truth_s = lasted[-(-len(lasted) * percent // 100) - 1]
        reported_s = getattr(report.latency_s.request, name)
        made.append(Figure(name=f"latency_s.request.{name}", reported=reported_s, truth=truth_s, within=CLOSE))
    return made


def run(cell: Cell, records: int, seed: int) -> list[Figure]:
    """One run, and its figures."""
    settings: dict[str, Any] = {"latency": "hosted", **cell.simulator, "seed": seed}
    endpoint = build_endpoint(SimulatorConfig(**settings))
    config = RunConfig(
        packing=Packing(batch_size=cell.batch_size), limits=cell.limits, quality=Quality(guard=True), seed=seed
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [json.dumps({"id": number, "text": f"text number {number}"}) for number in range(records)]
        (folder / "input.jsonl").write_text("\n".join(lines) + "\n")
        if cell.sockets:
            with endpoint_in_thread(endpoint) as base_url:
                report, answered = anyio.run(_reported, folder, config, base_url, None)
        else:
            report, answered = virtual_time.run(
                _reported, folder, config, "http://simulated/v1", InProcessTransport(endpoint)
            )
    return figures(report, answered, endpoint)


def show(cell: Cell, made: list[list[Figure]]) -> list[dict[str, Any]]:
    """One line for a cell, and one for each figure that disagrees."""
    flat = [figure for each in made for figure in each]
    exact = [figure for figure in flat if not figure.within]
    close = [figure for figure in flat if figure.within]
    missed = [figure for figure in flat if figure.off > figure.within]
    worst = max(close, key=lambda figure: figure.off)
    print(
        f"{cell.name:<32} {sum(not figure.off for figure in exact)} of {len(exact)} exact figures agree; of "
        f"{len(close)} others the worst is {worst.name}, off by {worst.off:.2%}",
        flush=True,
    )
    for figure in missed:
        print(f"   MISSED: {figure.name}: reported {figure.reported}, truth {figure.truth}")
    return [{"cell": cell.name, "seed": seed, **asdict(figure)} for seed, each in enumerate(made) for figure in each]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", default="", help="only cells whose name holds this")
    options = parser.parse_args()
    print("simulated endpoint, virtual time but for real sockets", vars(options), versions())
    rows: list[dict[str, Any]] = []
    for cell in CELLS:
        if options.cells in cell.name:
            seeds = 1 if cell.sockets else options.seeds
            rows += show(cell, [run(cell, options.records, seed) for seed in range(seeds)])
    write_json("agreement", {"simulated": True, "settings": vars(options), "figures": rows})


if __name__ == "__main__":
    main()
