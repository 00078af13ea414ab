"""Every fault at once: how many records are lost, mislabelled or failed, and what recovery costs. Virtual time.

python -m benchmarks.faults [--records 5000] [--rate 0.05] [--seeds 5]

(a) faults strike a record's first two sends only; (b) faults are drawn anew at every attempt; (c) as (a), with 20
poison records. For (b) the number of failures stands beside the one to be expected: of N records that come to be asked
alone, N p**3 fail, p being the share of lone replies that leave their record unanswered; p is taken from the store, and
N from the number of lone replies L = N (1 + p + p**2).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import versions, write_json
from engine import Endpoint, Engine, Limits, Packing, Recovery, Result, RunConfig, Task
from engine.adapters.store import read_store
from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.rates import FaultRates
from engine.testing.simulator.transport import InProcessTransport

LABELS = ["red", "green", "blue"]
BATCH_SIZE, ATTEMPTS = 20, 3


async def annotate(config: SimulatorConfig, texts: list[str], store: Path) -> tuple[list[Result], Any]:
    """All results and the counters."""
    settings = RunConfig(
        packing=Packing(batch_size=BATCH_SIZE),
        limits=Limits(max_concurrency=32),
        recovery=Recovery(lone_attempts=ATTEMPTS),
    )
    transport = InProcessTransport(build_endpoint(config))
    endpoint = Endpoint(base_url="http://simulated/v1", model="simulated")
    async with Engine(endpoint, settings, store=store, transport=transport, virtual_time=True) as engine:
        stream = engine.annotate(Task(instructions="Say which colour.", labels=LABELS), texts)
        return [result async for result in stream], stream.counters


def expected_failures(store: Path) -> float:
    """Failures to be expected from the lone replies in a store."""
    opened = read_store(store)
    try:
        rows = opened.query("SELECT count(*), coalesce(sum(accepted), 0) FROM calls WHERE size = 1 AND status = 200")
    finally:
        opened.close()
    replies, answered = rows[0]
    p = (replies - answered) / replies if replies else 0.0
    return float(replies / (1 + p + p * p) * p**ATTEMPTS)


def arm(name: str, config: SimulatorConfig, texts: list[str]) -> dict[str, Any]:
    """One cell: run it and count."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.sqlite"
        results, counters = virtual_time.run(annotate, config, texts, store)
        expected = expected_failures(store)
    ok = [result for result in results if result.ok]
    wrong = sum(result.output != stable_label(texts[result.position], LABELS) for result in ok)
    failed = Counter(result.error.kind for result in results if result.error is not None)
    row = {
        "arm": name,
        "seed": config.seed,
        "ok": len(ok),
        "failed": sum(failed.values()),
        "expected_failed": round(expected, 1),
        "failed_by_kind": dict(failed),
        "lost": len(texts) - len({result.position for result in results}),
        "doubled": len(results) - len({result.position for result in results}),
        "mislabelled": wrong,
        "requests": counters.requests,
        "poison_failed": sum("POISON" in texts[result.position] for result in results if not result.ok),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print("simulated endpoint, virtual time", vars(options), versions(), f"B {BATCH_SIZE}, {ATTEMPTS} lone attempts")
    plain = [f"text number {number}" for number in range(options.records)]
    poisoned = [f"POISON {text}" if number % 250 == 7 else text for number, text in enumerate(plain)]
    rows = []
    for seed in range(options.seeds):
        faults = FaultRates.all(options.rate)
        first = SimulatorConfig(labels=LABELS, faults=faults, strike="first_sends=2", seed=seed)
        every = SimulatorConfig(labels=LABELS, faults=faults, seed=seed)
        poison = SimulatorConfig(
            labels=LABELS, faults=faults, strike="first_sends=2", seed=seed, poison_marker="POISON"
        )
        rows += [arm("a", first, plain), arm("b", every, plain), arm("c", poison, poisoned)]
    failures = [row["failed"] for row in rows if row["arm"] == "b"]
    expected = [row["expected_failed"] for row in rows if row["arm"] == "b"]
    print(f"(b) failed: {sum(failures)} over {len(failures)} seeds, to be expected: {sum(expected):.0f}")
    write_json("faults", {"simulated": True, "settings": vars(options), "rows": rows})


if __name__ == "__main__":
    main()
