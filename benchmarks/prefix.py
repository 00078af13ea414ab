"""The prefix cache: what a first request that goes ahead saves, and which batch size is cheapest at a cached price.

python -m benchmarks.prefix [--records 4000] [--seeds 5]

Simulated, virtual time. The first table: a prompt of some 2,400 tokens, cached input at a tenth of the price, a cache
that can be read some time after the first reply (made up), with the first request alone and without. The second: a
model that fails more in larger batches; fixed sizes beside `--objective cost`, where cached input costs what other
input does and where it costs a tenth. The endpoint's own count, at the prices given.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import anyio

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, Prices, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.cache import CacheRule
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.ledger import Prices as Billed
from engine.testing.simulator.rates import logistic
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import Quality

LABELS = ["world", "sports", "business", "science"]
TASK = Task(
    instructions="Say what the piece of news is about, by what it mostly tells, and think of all that was agreed. "
    * 110,
    labels=LABELS,
)
PRICE, CACHED_PRICE, OUTPUT_PRICE = 1.25, 0.125, 10.0
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
FAILS = {
    "drop": logistic(-5.5, 1.3), "trailing_comma": logistic(-5.0, 1.3), "babble": logistic(-4.5, 1.0)
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run. :ivar cold: requests that paid for the whole prompt."""

    requests: int
    cold: int
    usd: float
    usd_per_1000: float
    seconds: float
    ends_at: int


async def _run(settings: SimulatorConfig, config: RunConfig, records: int, cached_price: float) -> Ran:
    endpoint, started = build_endpoint(settings), anyio.current_time()
    texts = [f"piece of news number {number}, " + "with some more words " * 5 for number in range(records)]
    transport = _Counting(endpoint)
    where = Endpoint(base_url="http://simulated/v1", model="simulated")
    async with Engine(where, config, transport=transport, virtual_time=True) as engine:
        stream = engine.annotate(TASK, texts)
        answered = sum([result.ok async for result in stream])
        size = stream.counters.batch_size
    usd = endpoint.ledger.cost_usd(Billed(input_usd=PRICE, cached_usd=cached_price, output_usd=OUTPUT_PRICE))
    return Ran(
        requests=endpoint.ledger.requests,
        cold=transport.cold,
        usd=round(usd, 5),
        usd_per_1000=round(1_000 * usd / max(1, answered), 5),
        seconds=round(anyio.current_time() - started, 2),
        ends_at=0 if size is None else size.settled_size,
    )


class _Counting(InProcessTransport):
    """Counts replies that read nothing from the cache."""

    cold = 0

    async def post(self, url: str, **request: Any) -> Any:
        reply = await super().post(url, **request)
        self.cold += reply.status == 200 and b'"cached_tokens":0}' in reply.body
        return reply


def warmed(warm: bool, *, delay_s: float, in_flight: int, records: int, seed: int) -> Ran:
    """One run of the first table."""
    settings = SimulatorConfig(labels=LABELS, seed=seed, latency="hosted", cache=CacheRule(write_delay_s=delay_s))
    config = RunConfig(
        packing=Packing(batch_size=10), limits=Limits(max_concurrency=in_flight), warm_prefix=warm, seed=seed,
        prices=Prices(input=PRICE, output=OUTPUT_PRICE, cached_input=CACHED_PRICE),
    )  # fmt: skip
    made: Ran = virtual_time.run(_run, settings, config, records, CACHED_PRICE)
    return made


def chosen(size: int | None, *, cached_price: float, records: int, seed: int) -> Ran:
    """One run of the second table."""
    settings = SimulatorConfig(
        labels=LABELS, seed=seed, latency="hosted", cache="exact", faults=FAILS, schema_faults=FAILS
    )
    config = RunConfig(
        packing=Packing(batch_size=size), limits=Limits(max_concurrency=16), objective="cost", seed=seed,
        quality=Quality(guard=False, neighbours="off"),
        prices=Prices(input=PRICE, output=OUTPUT_PRICE, cached_input=cached_price),
    )  # fmt: skip
    made: Ran = virtual_time.run(_run, settings, config, records, cached_price)
    return made


def _warm_table(records: int, seeds: int) -> list[dict[str, Any]]:
    rows = []
    for delay_s in (0.0, 0.5, 3.0):
        for in_flight in (8, 32):
            for warm in (False, True):
                found = [
                    warmed(warm, delay_s=delay_s, in_flight=in_flight, records=records, seed=seed)
                    for seed in range(seeds)
                ]
                cold, usd, took = (
                    spread([getattr(each, name) for each in found]) for name in ("cold", "usd", "seconds")
                )
                print(
                    f"readable after {delay_s:3.1f} s, {in_flight:2} in flight, first alone {warm!s:<5}  "
                    f"{found[0].requests} requests, cold {cold['median']:.0f} ({cold['min']:.0f}-{cold['max']:.0f})  "
                    f"${usd['median']:.4f}  {took['median']:.2f} s ({took['min']:.2f}-{took['max']:.2f})",
                    flush=True,
                )
                rows += [{"delay_s": delay_s, "in_flight": in_flight, "warm": warm} | asdict(each) for each in found]
    return rows


def _size_table(records: int, seeds: int) -> list[dict[str, Any]]:
    rows = []
    for cached_price in (PRICE, CACHED_PRICE):
        fixed = {
            size: [chosen(size, cached_price=cached_price, records=records, seed=seed) for seed in range(2)]
            for size in SIZES
        }
        costs = {size: median(each.usd_per_1000 for each in found) for size, found in fixed.items()}
        best = min(costs, key=lambda size: costs[size])
        print(f"cached input at ${cached_price}: " + ", ".join(f"B={size} ${usd:.4f}" for size, usd in costs.items()))
        auto = [chosen(None, cached_price=cached_price, records=records, seed=seed) for seed in range(seeds)]
        ends = [each.ends_at for each in auto]
        loss = [costs[end] / costs[best] if end in costs else float("nan") for end in ends]
        of = spread([each.usd_per_1000 / costs[best] for each in auto])
        print(
            f"  auto ends at {ends}: these cost {', '.join(f'{each:.3f}' for each in loss)} of the cheapest, B={best}; "
            f"the whole run {of['median']:.3f} ({of['min']:.3f}-{of['max']:.3f})",
            flush=True,
        )
        rows += [{"cached_price": cached_price, "size": None} | asdict(each) for each in auto]
        rows += [
            {"cached_price": cached_price, "size": size} | asdict(each)
            for size, found in fixed.items()
            for each in found
        ]
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print("simulated endpoint, virtual time", vars(options), versions())
    rows = {
        "warm": _warm_table(options.records // 4, options.seeds),
        "sizes": _size_table(options.records, options.seeds),
    }
    write_json("prefix", {"simulated": True, "settings": vars(options), **rows})


if __name__ == "__main__":
    main()
