"""What a call costs us: wall time against the ideal, and CPU beside a bare aiohttp loop on the same endpoint.

python -m benchmarks.overhead [--calls 10000] [--in-flight 50] [--delay-s 0.05] [--repeats 3]

One input a call, so that every cost is per call. The simulated endpoint runs in a process of its own; on two shared
cores it takes part of the machine, which the wall time shows and the CPU time does not.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from benchmarks.common import show, simulated_endpoint, spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, RunConfig, Task
from engine.testing.simulator.command import SimulatorConfig

LABELS = ["red", "green", "blue"]
TASK = Task(instructions="Say which colour it is.", labels=LABELS)


async def bare(base_url: str, calls: int, in_flight: int) -> None:
    """The least that such a run can cost: a session, bytes out, bytes in, nothing read."""
    body = (
        b'{"model":"m","max_tokens":60,"messages":[{"role":"system","content":"Labels: red, green, blue"},'
        b'{"role":"user","content":"{\\"items\\":[{\\"id\\":\\"abc-1\\",\\"input\\":\\"text\\"}]}"}]}'
    )
    left = calls
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                async with session.post(f"{base_url}/chat/completions", data=body) as response:
                    await response.read()

        await asyncio.gather(*(worker() for _ in range(in_flight)))


async def ours(base_url: str, calls: int, in_flight: int) -> None:
    """The engine, one input a call."""
    config = RunConfig(packing=Packing(batch_size=1), limits=Limits(max_concurrency=in_flight))
    records = ({"id": number, "text": f"text number {number}"} for number in range(calls))
    async with Engine(Endpoint(base_url=base_url, model="m"), config) as engine:
        done = 0
        async for result in engine.annotate(TASK, records):
            done += result.ok
    if done != calls:
        raise SystemExit(f"{done} of {calls} records were labelled")


def measured(function: Callable[..., Awaitable[None]], *args: Any) -> tuple[float, float]:
    """Wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(function(*args))  # type: ignore[arg-type]
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=50)
    parser.add_argument("--delay-s", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(vars(options), versions())
    few = options.calls // 10
    ideal_s = options.calls / options.in_flight * options.delay_s
    rows: dict[str, list[float]] = {
        name: [] for name in ("wall_ratio", "ours_ms", "ours_marginal_ms", "few_marginal_ms", "bare_ms", "bare_wall")
    }
    with simulated_endpoint(SimulatorConfig(labels=LABELS, delay_s=options.delay_s)) as base_url:
        measured(ours, base_url, 200, options.in_flight)  # imports, encodings, connections
        for _ in range(options.repeats):  # interleaved
            _, start_cpu = measured(ours, base_url, 100, options.in_flight)
            _, few_cpu = measured(ours, base_url, few, options.in_flight)
            wall, cpu = measured(ours, base_url, options.calls, options.in_flight)
            bare_wall, bare_cpu = measured(bare, base_url, options.calls, options.in_flight)
            rows["wall_ratio"].append(wall / ideal_s)
            rows["bare_wall"].append(bare_wall / ideal_s)
            rows["ours_ms"].append(cpu / options.calls * 1000)
            rows["few_marginal_ms"].append((few_cpu - start_cpu) / (few - 100) * 1000)
            rows["ours_marginal_ms"].append((cpu - few_cpu) / (options.calls - few) * 1000)
            rows["bare_ms"].append(bare_cpu / options.calls * 1000)
    show("wall time / ideal, engine", rows["wall_ratio"])
    show("wall time / ideal, bare aiohttp", rows["bare_wall"])
    show("CPU a call, engine", rows["ours_ms"], "ms")
    show("CPU a call, bare aiohttp", rows["bare_ms"], "ms")
    show(f"marginal CPU a call up to {few}", rows["few_marginal_ms"], "ms")
    show(f"marginal CPU a call from {few} to {options.calls}", rows["ours_marginal_ms"], "ms")
    pairs = zip(rows["ours_marginal_ms"], rows["few_marginal_ms"], strict=True)
    show("marginal CPU, many / few", [many / less for many, less in pairs])
    show("CPU a call, engine / bare", [a / b for a, b in zip(rows["ours_ms"], rows["bare_ms"], strict=True)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB")
    figures = {name: spread(values) for name, values in rows.items()}
    write_json("overhead", {"simulated": True, "settings": vars(options), "figures": figures, "peak_mib": peak})


if __name__ == "__main__":
    main()
