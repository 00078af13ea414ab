"""Models that think before they answer: fixed batch sizes and the adaptive one. Simulated, and the thinking is made up.

python -m benchmarks.reasoning [--records 4000] [--seeds 2]

A simulated model thinks for a tokens a request and b a record, log-normal around that. Each is run with fixed sizes
(one seed) and adaptive, with the guard of the labels (each seed), for time and for cost; figures are the endpoint's own
count. `cut` is the share of the requests that were cut in the middle of a thought, `wasted` that of all tokens which
brought nothing. Virtual time.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

import anyio

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, Prices, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.command import build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.reasoning import Reasoning, Told
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import Objective

LABELS = ["world", "sports", "business", "science"]
TASK = Task(instructions="Say what the piece of news is about. " * 20, labels=LABELS)
PRICES = Prices(input=1.25, output=10.0)
FIXED = (1, 2, 5, 10, 20, 32)
OBJECTIVES: tuple[Objective, ...] = ("records-per-second", "cost")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A model: tokens a request, tokens a record, standard deviation over the mean, what it says of them."""

    name: str
    call: float
    record: float
    variation: float
    told: Told = "details"
    most_output: int = 4_000


KINDS = (
    Kind(name="does not think", call=0, record=0, variation=0.0),
    Kind(name="400 + 20 a record", call=400, record=20, variation=0.4),
    Kind(name="the same, untold", call=400, record=20, variation=0.4, told="nothing"),
    Kind(name="200 + 100 a record", call=200, record=100, variation=0.4),
    Kind(name="1,500 + 20, wild", call=1_500, record=20, variation=0.8, most_output=16_000),
    Kind(name="2,500 + 20, room 4,000", call=2_500, record=20, variation=0.4),
)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run; tokens per record that was answered."""

    kind: str
    arm: str
    seed: int
    reasoning: float
    output: float
    usd_per_1000: float
    seconds: float
    cut: float
    wasted: float
    failed: int
    ends_at: int


async def _run(endpoint: SimulatedEndpoint, config: RunConfig, kind: Kind, arm: str, records: int, seed: int) -> Arm:
    texts = [
        f"piece of news number {number}, with some words more to make it as long as one" for number in range(records)
    ]
    failed, started = 0, anyio.current_time()
    async with Engine(
        Endpoint(base_url="http://simulated/v1", model="simulated"), config,
        transport=InProcessTransport(endpoint), virtual_time=True,
    ) as engine:  # fmt: skip
        stream = engine.annotate(TASK, texts)
        async for result in stream:
            failed += not result.ok
        found = stream.counters
    ledger, answered = endpoint.ledger, max(1, records - failed)
    usd = (ledger.prompt_tokens * PRICES.input + ledger.completion_tokens * PRICES.output) / 1e6
    return Arm(
        kind=kind.name, arm=arm, seed=seed, failed=failed,
        reasoning=round(ledger.reasoning_tokens / answered, 1),
        output=round(ledger.completion_tokens / answered, 1),
        usd_per_1000=round(1_000 * usd / answered, 4),
        seconds=round(anyio.current_time() - started, 1),
        cut=round((found.causes["overthought"] + found.causes["cut-off"]) / max(1, found.requests), 4),
        wasted=round(found.tokens_wasted / max(1, found.tokens_input + found.tokens_output), 4),
        ends_at=found.batch_size.settled_size if found.batch_size is not None else 0,
    )  # fmt: skip


def run(kind: Kind, size: int | None, objective: Objective, records: int, seed: int) -> Arm:
    """One run of one arm."""
    thinks = Reasoning(call_tokens=kind.call, record_tokens=kind.record, variation=kind.variation, told=kind.told)
    settings = named_profile("holds").config(labels=LABELS, seed=seed, reasoning=thinks if kind.call else None)
    config = RunConfig(
        packing=Packing(batch_size=size, max_output_tokens=kind.most_output), limits=Limits(max_concurrency=16),
        prices=PRICES, objective=objective, seed=seed,
    )  # fmt: skip
    arm = f"B={size}" if size else f"auto, {objective}"
    made: Arm = virtual_time.run(_run, build_endpoint(settings), config, kind, arm, records, seed)
    return made


def show(arms: list[Arm]) -> None:
    """One line for the seeds of an arm."""
    parts = []
    for name in ("reasoning", "output", "usd_per_1000", "seconds", "cut", "wasted"):
        of = spread([getattr(each, name) for each in arms])
        among = f" ({of['min']:g}-{of['max']:g})" if len(arms) > 1 else ""
        parts.append(f"{name} {of['median']:g}{among}")
    ends = f"  ends at {[each.ends_at for each in arms]}" if arms[0].arm.startswith("auto") else ""
    lost = f"  FAILED {[each.failed for each in arms]}" if any(each.failed for each in arms) else ""
    print(f"{arms[0].kind:<24} {arms[0].arm:<25} {'  '.join(parts)}{ends}{lost}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    print("simulated endpoint, made-up reasoning, virtual time", vars(options), versions())
    made: list[Arm] = []
    for kind in KINDS:
        for size in FIXED:
            made.append(run(kind, size, "cost", options.records, 0))
            show(made[-1:])
        for objective in OBJECTIVES:
            found = [run(kind, None, objective, options.records, seed) for seed in range(options.seeds)]
            show(found)
            made += found
    write_json("reasoning", {"simulated": True, "settings": vars(options), "runs": [asdict(each) for each in made]})


if __name__ == "__main__":
    main()
