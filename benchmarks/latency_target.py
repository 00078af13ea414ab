"""Latency of records and makespan, with and without a target for 95 % of them, on simulated endpoints.

python -m benchmarks.latency_target [--profiles holds,queueing-server] [--records 30000] [--targets 10,5,2] [--seeds 3]

Virtual time, in process. The first fifth of the records, in which the controllers learn, is given apart.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import anyio

from benchmarks.batch_size import LABELS, QUOTAS, TASK
from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, RunConfig
from engine.testing import virtual_time
from engine.testing.simulator.command import build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import Quality


async def _run(endpoint: SimulatedEndpoint, config: RunConfig, count: int) -> dict[str, float]:
    records = [
        {"id": number, "text": f"piece of news number {number}, with some more words to make it as long as one"}
        for number in range(count)
    ]
    started, latencies_s = anyio.current_time(), []
    transport = InProcessTransport(endpoint)
    served = Endpoint(base_url="http://simulated/v1", model="simulated")
    async with Engine(served, config, transport=transport, virtual_time=True) as engine:
        async for result in engine.annotate(TASK, records):
            latencies_s.append(result.latency_s)
    later = latencies_s[count // 5 :]
    return {
        "seconds": anyio.current_time() - started,
        "p95_s": statistics.quantiles(latencies_s, n=20)[-1],
        "later_p95_s": statistics.quantiles(later, n=20)[-1],
        "later_p50_s": statistics.median(later),
        "requests": endpoint.ledger.requests,
    }


def cell(profile: str, target_s: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """All seeds of one target on one profile, printed."""
    runs = []
    for seed in range(options.seeds):
        endpoint = build_endpoint(named_profile(profile).config(labels=LABELS, seed=seed))
        config = RunConfig(
            limits=QUOTAS.get(profile, Limits()), quality=Quality(guard=False), target_p95_s=target_s, seed=seed
        )
        runs.append(virtual_time.run(_run, endpoint, config, options.records))
    figures = {name: spread([run[name] for run in runs]) for name in runs[0]}
    words = ", ".join(
        f"{name} {figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f})"
        for name, figure in figures.items()
    )
    print(f"{profile:<24} target {'none' if target_s is None else f'{target_s:g} s':<6} {words}", flush=True)
    return {"profile": profile, "target_s": target_s, "runs": runs}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", default="holds,queueing-server,hosted-requests-bound")
    parser.add_argument("--targets", default="10,5,2")
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("simulated;", vars(options), versions())
    targets = [None, *map(float, options.targets.split(","))]
    cells = [cell(profile, target_s, options) for profile in options.profiles.split(",") for target_s in targets]
    write_json("latency_target", {"simulated": True, "settings": vars(options), "cells": cells})


if __name__ == "__main__":
    main()
