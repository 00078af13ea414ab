"""Gold in the run, by how many requests are under way at once: whether a size that loses is found before the file ends.

python -m benchmarks.gold_windows [--seeds 6] [--windows 8,0] [--only NAME]

SIMULATED: the endpoint answers after a fixed time, in virtual time; a record is right alone in 85 of 100. Gold alone
caps, unless a set-up says "guard". A wide window sends most of what it sends before the first answers are there: what
rides then must still come to be pairs, at the sizes that the run stays at. The prompt is long, so that a lone ask takes
half the tokens of a batch of 16, and few are within the tenth that they may take. Window 0: none is given, it grows by
itself, up to 64.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from benchmarks.common import write_json
from engine import Endpoint, Engine, Limits, Packing, Quality, Recovery, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport

ACCURACY = 0.85
AMONG_REDRAWN = 1.0 / 3.0
NOISE = 0.03
LABELS = ["red", "green", "blue"]
INSTRUCTIONS = "Say which colour it is. " + " ".join(f"Rule {n}: it may be any of the colours." for n in range(60))
ENDPOINT = Endpoint(base_url="http://simulated/v1", model="simulated")


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """One set-up. :ivar loss: of accuracy above eight records. :ivar delay_s: of each answer. :ivar batch_size: fixed;
    None: up to `most`. :ivar paced: requests a minute are limited, to many."""

    name: str
    loss: float
    records: int
    gold: int
    delay_s: float = 0.8
    most: int = 16
    batch_size: int | None = None
    paced: bool = False
    guard: bool = False


SETUPS = [
    Setup(name="15 points, 9,000 records", loss=0.15, records=9_000, gold=400),
    Setup(name="15 points, 9,000 records, fast", loss=0.15, records=9_000, gold=400, delay_s=0.03),
    Setup(name="15 points, 9,000 records, guard", loss=0.15, records=9_000, gold=400, guard=True),
    Setup(name="15 points, B 20", loss=0.15, records=9_000, gold=400, batch_size=20),
    Setup(name="15 points, requests limited", loss=0.15, records=9_000, gold=400, paced=True),
    Setup(name="15 points, most 32", loss=0.15, records=9_000, gold=400, most=32),
    Setup(name="5 points, 40,000 records", loss=0.05, records=40_000, gold=2_000),
    Setup(name="none, 20,000 records", loss=0.0, records=20_000, gold=1_000),
]


def one_run(setup: Setup, window: int, seed: int) -> dict[str, Any]:
    """A run of the engine."""
    share = setup.loss / (ACCURACY - AMONG_REDRAWN)
    behaviour = BatchBehaviour(
        accuracy=ACCURACY, noise=NOISE, redraw=Redraw(share={8: 0.0, 9: share}, accuracy={1: AMONG_REDRAWN}), seed=seed
    )
    endpoint = build_endpoint(SimulatorConfig(behaviour=behaviour, seed=seed, delay_s=setup.delay_s))
    config = RunConfig(
        packing=Packing(max_batch_size=setup.most, batch_size=setup.batch_size),
        limits=Limits(max_concurrency=window or None, requests_per_minute=100_000 if setup.paced else None),
        recovery=Recovery(max_failed=1.0), quality=Quality(guard=setup.guard), seed=seed, answer_form="compact",
    )  # fmt: skip
    texts = [f"run {seed}, record {number}" for number in range(setup.records)]
    known = [f"run {seed}, gold {number}" for number in range(setup.gold)]
    labelled = [{"text": text, "label": stable_label(text, LABELS)} for text in known]
    counters, results = virtual_time.run(_annotate, texts, labelled, InProcessTransport(endpoint), config)
    use = counters.gold.use(began_s=0.0)
    return {
        "seed": seed,
        "capped": [move.kept for move in use.moves],
        "pairs": [move.pairs for move in use.moves],
        "at": [round(move.at_s, 1) for move in use.moves],
        "rides": use.rides,
        "alone": use.alone,
        "pairs_by_size": {loss.where: loss.pairs for loss in use.losses},
        "labelled_above": sum(result.batch_size > 8 for result in results),
        "requests": counters.requests,
        "gold_tokens_share": use.tokens / (counters.tokens_input + counters.tokens_output),
        "settled": counters.batch_size.settled_size,
        "sentence": use.sentence,
    }


async def _annotate(records: Sequence[Any], gold: Sequence[Any], transport: Any, config: RunConfig) -> Any:
    task = Task(instructions=INSTRUCTIONS, labels=LABELS)
    async with Engine(ENDPOINT, config, transport=transport, virtual_time=True) as engine:
        stream = engine.annotate(task, records, gold=gold)
        results = [result async for result in stream]
        return stream.counters, results


def said(setup: Setup, window: int, done: Sequence[dict[str, Any]]) -> str:
    """What the runs came to, in a line."""
    found = [each for each in done if each["capped"]]
    middle = statistics.median
    largest = [sum(n for at, n in each["pairs_by_size"].items() if at not in ("2", "3-4", "5-8")) for each in done]
    return (
        f"{setup.name:<32} window {window:>2}: found in {len(found)} of {len(done)}, after "
        f"{middle(each['pairs'][0] for each in found) if found else '-'} pairs (most "
        f"{max((each['pairs'][0] for each in found), default='-')}); pairs above 8 in all {middle(largest):.0f}; alone "
        f"{middle(each['alone'] for each in done):.0f} of {middle(each['requests'] for each in done):.0f} requests, "
        f"rides {middle(each['rides'] for each in done):.0f}, gold "
        f"{middle(each['gold_tokens_share'] for each in done):.1%} "
        f"of the tokens; labelled above 8: {middle(each['labelled_above'] for each in done):.0f} of {setup.records:,}"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--windows", default="8,0")
    parser.add_argument("--only", default="", help="set-ups whose name begins so")
    parser.add_argument("--each", action="store_true", help="a line for each run as well")
    given = parser.parse_args()
    print("SIMULATED: no model is asked.")
    rows = []
    with multiprocessing.Pool(2) as pool:
        for setup in SETUPS:
            if not setup.name.startswith(given.only):
                continue
            for window in map(int, given.windows.split(",")):
                done = pool.map(partial(one_run, setup, window), range(given.seeds), chunksize=1)
                rows.append({"setup": msgspec.to_builtins(setup), "window": window, "runs": done})
                print(said(setup, window, done), flush=True)
                for each in done if given.each else []:
                    print("   ", each, flush=True)
    write_json("gold_windows", {"rows": rows})


if __name__ == "__main__":
    main()
