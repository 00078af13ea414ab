"""How many requests in flight a server gets that queues and never refuses, beside every fixed window. Simulated.

python -m benchmarks.admission_window [--seeds 3] [--seconds 600]

A fixed window is run for so many simulated seconds, and the second half is looked at: replies a second, and the median
latency. The engine, told nothing, must end within 95 % of the best fixed window's throughput, and its median latency
within 1.3 times that of the smallest window that reaches those 95 %. The batch size is fixed. Seeds are those of the
jitter; a sweep and the engine share a seed. Latency and throughput are by the endpoint's own ledger.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import anyio

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, Quality, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.command import build_endpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport

LABELS = ["world", "sports", "business", "science"]
TASK = Task(instructions="Say what the piece of news is about.", labels=LABELS)
WINDOWS = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64)
"""Not beyond 64: nothing was measured there."""
CELLS = (("queueing-server", 1), ("queueing-server", 5), ("queueing-server", 20), ("vllm-like", 1), ("vllm-like", 5))
"""Profiles of servers that queue, measured and made up, and batch sizes."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run; figures of its second half.

    :ivar window: as told; 0: the engine was told nothing.
    :ivar in_flight: requests in flight, on average.
    :ivar moves: of the window, where it moved.
    """

    profile: str
    batch_size: int
    window: int
    seed: int
    per_s: float
    p50_s: float
    in_flight: float
    refused: int
    moves: int = 0


async def _texts(seconds: float) -> AsyncIterator[str]:
    """As many as the engine takes in this time."""
    end_s = anyio.current_time() + seconds
    for number in count():
        if anyio.current_time() >= end_s:
            return
        yield f"piece of news number {number}, with some more words to make it as long as one"


async def _annotate(transport: InProcessTransport, config: RunConfig, seconds: float) -> int:
    endpoint = Endpoint(base_url="http://simulated/v1", model="simulated")
    async with Engine(endpoint, config, transport=transport, virtual_time=True) as engine:
        stream = engine.annotate(TASK, _texts(seconds))
        async for _ in stream:
            pass
        window = getattr(stream.counters, "window", None)
    return 0 if window is None else len(window.history)


def run(profile: str, batch_size: int, window: int, seed: int, seconds: float) -> Run:
    """One run."""
    endpoint = build_endpoint(named_profile(profile).config(labels=LABELS, seed=seed))
    limits = Limits(max_concurrency=window) if window else Limits()
    config = RunConfig(
        packing=Packing(batch_size=batch_size, look_ahead=2 * batch_size * max(WINDOWS)),
        limits=limits,
        quality=Quality(guard=False),
        seed=seed,
    )
    moves = virtual_time.run(_annotate, InProcessTransport(endpoint), config, seconds)
    ledger = endpoint.ledger
    since_s, until_s = ledger.at_s[0] + seconds / 2, ledger.at_s[0] + seconds
    late = [
        (at, lasted)
        for at, lasted, status in zip(ledger.at_s, ledger.lasted_s, ledger.statuses, strict=True)
        if status == 200 and since_s <= at + lasted < until_s
    ]
    per_s = len(late) / (until_s - since_s)
    return Run(
        profile=profile,
        batch_size=batch_size,
        window=window,
        seed=seed,
        per_s=round(per_s, 4),
        p50_s=round(statistics.median(lasted for _, lasted in late), 4),
        in_flight=round(per_s * statistics.mean(lasted for _, lasted in late), 2),  # Little's law
        refused=ledger.http_429,
        moves=moves,
    )


def compare(profile: str, batch_size: int, options: argparse.Namespace) -> list[Run]:
    """The sweep and the engine, over the seeds; printed."""
    made, shares, slower, ends = [], [], [], []
    for seed in range(options.seeds):
        fixed = [run(profile, batch_size, window, seed, options.sweep_seconds) for window in WINDOWS]
        found = run(profile, batch_size, 0, seed, options.seconds)
        best = max(each.per_s for each in fixed)
        smallest = next(each for each in fixed if each.per_s >= 0.95 * best)
        shares.append(found.per_s / best)
        slower.append(found.p50_s / smallest.p50_s)
        ends.append(found.in_flight)
        made += [*fixed, found]
        if not seed:
            print(f"== {profile}, B={batch_size} (simulated): requests/s (p50 s) by window: " + ", ".join(
                f"{each.window}: {each.per_s:.2f} ({each.p50_s:.2f})" for each in fixed
            ) + f"; smallest with 95 %: {smallest.window}")  # fmt: skip
    share, p50 = spread(shares), spread(slower)
    both = sum(one >= 0.95 and other <= 1.3 for one, other in zip(shares, slower, strict=True))
    print(
        f"   in flight {ends}; throughput {share['median']:.3f} ({share['min']:.3f}-{share['max']:.3f}) of the best, "
        f"p50 {p50['median']:.2f} ({p50['min']:.2f}-{p50['max']:.2f}) of the smallest; both met in {both} of "
        f"{options.seeds}{'' if both == options.seeds else '  MISSED'}",
        flush=True,
    )
    return made


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600.0, help="simulated, of the engine's run")
    parser.add_argument("--sweep-seconds", type=float, default=120.0, help="simulated, of each fixed window's")
    parser.add_argument("--cells", default="", help="only profiles whose name holds this")
    options = parser.parse_args()
    print("simulated endpoint, virtual time", vars(options), versions())
    made: list[Run] = []
    for profile, batch_size in CELLS:
        if options.cells in profile:
            made += compare(profile, batch_size, options)
    document: dict[str, Any] = {"simulated": True, "settings": vars(options), "runs": [asdict(each) for each in made]}
    write_json("admission_window", document)


if __name__ == "__main__":
    main()
