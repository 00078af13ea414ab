"""Gold in the run: how soon a fall of accuracy in large batches is found, and how often none is called one.

python -m benchmarks.gold_guard [--runs 400] [--engine 20] [--seed 0]
python -m benchmarks.gold_guard --tried  (other tests on the same answers)
python -m benchmarks.gold_guard --profiles 3  (the whole guard, with and without gold)

The test alone (`engine.decide.gold_test`), on answers that are drawn: a record is right alone in 85 of 100; in batches
above eight it is lost (right alone, wrong there) and gained with given chances, whose sum is the discordance. Under
"together" the losses of a batch come at once: half of the batches bear all of them. Gold is a twentieth of the records.
A run climbs through 2, 4 and 8 with a few answers each, then stays at the largest size until that is capped. Counted
are answers to gold in batches above eight, each beside a lone answer to the same record.

Then the engine, on the simulated endpoint and virtual time: the whole way from the file of gold to the cap.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from benchmarks.common import write_json
from benchmarks.gold_tried import show_tried
from engine import Endpoint, Engine, Limits, Packing, Quality, Recovery, RunConfig, Task
from engine.decide.gold_test import GoldTest
from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport

ACCURACY = 0.85
SAFE = 8
CLIMB = {2: 2, 4: 3, 8: 5}  # answers to gold on the way up
RATE = 0.05
LABELS = ["red", "green", "blue"]
ENDPOINT = Endpoint(base_url="http://simulated/v1", model="simulated")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One set-up.

    :ivar loss: of accuracy above eight records; `discordant`: lost and gained together.
    :ivar answers: to gold, above eight: the end of the run.
    :ivar most: the largest batch. :ivar from_: the answer from which on it loses.
    :ivar together: losses come by batches. :ivar file: records with gold; 0: each answer is of another one.
    """

    name: str
    loss: float
    discordant: float
    answers: int
    most: int = 16
    from_: int = 0
    together: bool = False
    file: int = 0


CELLS = [
    *(
        Cell(name=f"{points} points", loss=points / 100, discordant=d, answers=answers, together=together)
        for points, answers, discordances in (
            (15, 150, (0.15, 0.19, 0.25, 0.31)),
            (10, 400, (0.10, 0.15, 0.20, 0.30)),
            (5, 1_500, (0.05, 0.09, 0.15, 0.20)),
            (3, 3_000, (0.05, 0.10)),
        )
        for d in discordances
        for together in (False, True)
    ),
    *(
        Cell(name="15 points, most 32", loss=0.15, discordant=d, answers=answers, most=32)
        for answers in (150, 300)
        for d in (0.15, 0.19, 0.25)
    ),
    *(Cell(name="5 points, most 32", loss=0.05, discordant=d, answers=1_500, most=32) for d in (0.05, 0.09, 0.15)),
    *(
        Cell(name=f"{points} points, late", loss=points / 100, discordant=d, answers=600 + after, from_=600)
        for points, d, after in ((15, 0.19, 300), (15, 0.25, 300), (5, 0.09, 1_500), (5, 0.15, 1_500))
    ),
    Cell(name="15 points from the second pass on, 200 records", loss=0.15, discordant=0.19, answers=600, from_=200,
         file=200),
    *(
        Cell(name="none", loss=0.0, discordant=d, answers=answers, together=together, most=32)
        for d, answers in ((0.05, 1_500), (0.16, 1_500), (0.30, 1_500), (0.16, 5_000))
        for together in (False, True)
    ),
    Cell(name="none, 200 records in 7 passes", loss=0.0, discordant=0.16, answers=1_400, most=32, file=200),
    *(Cell(name="1 point", loss=0.01, discordant=d, answers=1_500, most=32) for d in (0.05, 0.15)),
    *(Cell(name="2 points", loss=0.02, discordant=d, answers=1_500, most=32) for d in (0.05, 0.15)),
]  # fmt: skip


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A run: answers to gold above eight until the first cap, and until the cap is eight; None: not."""

    first: int | None
    at_eight: int | None
    below: bool


def batches(size: int, rng: random.Random) -> Iterator[int]:
    """Gold in each batch of a size, where it is a share of all records."""
    credit = 0.0
    while True:
        credit += RATE * size
        here = int(credit)
        credit -= here
        if here:
            yield here


def one_run(cell: Cell, seed: int) -> Found:
    """The test on one run of drawn answers."""
    rng = random.Random(seed)
    test = GoldTest()
    records = Records(cell, rng)
    for size, count in CLIMB.items():
        for _ in range(count):
            test.add(size, [records.difference(falls=False, bad=False)], sweep=records.sweep)
    size, seen, first = cell.most, 0, None
    gold = batches(size, rng)
    while seen < cell.answers:
        here = min(next(gold), cell.answers - seen, records.left)
        bad = rng.random() < 0.5
        sweep = records.sweep
        differences = [records.difference(falls=seen >= cell.from_, bad=bad) for _ in range(here)]
        seen += here
        shown = test.add(size, differences, sweep=sweep)
        if shown is None:
            continue
        first = seen if first is None else first
        if shown.size <= 2 * SAFE:
            return Found(first=first, at_eight=seen, below=shown.size <= SAFE)
        size = shown.size // 2
        gold = batches(size, rng)
    return Found(first=first, at_eight=None, below=False)


class Records:
    """Differences of fresh records; or of a file that is asked again and again, whose lone answers stay as they are."""

    def __init__(self, cell: Cell, rng: random.Random) -> None:
        self._cell = cell
        self._rng = rng
        self._lone = [rng.random() < ACCURACY for _ in range(cell.file)]
        self._place = 0
        self.sweep = 1

    @property
    def left(self) -> int:
        """Of this pass."""
        return self._cell.file - self._place if self._cell.file else 1 << 30

    def difference(self, *, falls: bool, bad: bool) -> float:
        """Right alone less right in the batch."""
        cell, rng = self._cell, self._rng
        loss = cell.loss if falls else 0.0
        discordant = cell.discordant if falls else max(0.0, cell.discordant - cell.loss)
        lost, gained = (discordant + loss) / 2.0, (discordant - loss) / 2.0
        if cell.together:
            lost, gained = (2.0 * lost, 0.0) if bad else (0.0, 2.0 * gained)
        if not cell.file:
            drawn = rng.random()
            return 1.0 if drawn < lost else -1.0 if drawn < lost + gained else 0.0
        lone = self._lone[self._place]
        self._place += 1
        if self._place == cell.file:
            self._place, self.sweep = 0, self.sweep + 1
        if lone:
            return float(rng.random() < lost / ACCURACY)
        return -float(rng.random() < gained / (1.0 - ACCURACY))


def measure(cell: Cell, *, runs: int, seed: int) -> dict[str, Any]:
    """All runs of a cell."""
    found = [one_run(cell, seed * 1_000_003 + number) for number in range(runs)]
    firsts = sorted(each.first if each.first is not None else 1 << 30 for each in found)
    since = [first - cell.from_ for first in firsts]
    described: dict[str, Any] = msgspec.to_builtins(cell)
    return described | {
        "runs": runs,
        "found": sum(each.first is not None for each in found) / runs,
        "before_it": sum(each.first is not None and each.first <= cell.from_ for each in found) / runs,
        "at_eight": sum(each.at_eight is not None for each in found) / runs,
        "below_eight": sum(each.below for each in found) / runs,
        "median": None if since[runs // 2] > cell.answers else since[runs // 2],
        "p90": None if since[int(0.9 * runs)] > cell.answers else since[int(0.9 * runs)],
    }


def measure_named(cell: Cell, *, runs: Mapping[str, int], seed: int) -> dict[str, Any]:
    """For a pool of processes: a cell with the runs that it gets."""
    return measure(cell, runs=runs[cell.name], seed=seed)


# -- the engine --------------------------------------------------------------------------------------------------------


def behaviour(loss: float, seed: int) -> BatchBehaviour:
    """Above eight records some answers are drawn anew, a third of them right: so much is lost."""
    share = loss / (ACCURACY - 1.0 / 3.0)
    return BatchBehaviour(
        accuracy=ACCURACY, redraw=Redraw(share={8: 0.0, 9: share}, accuracy={1: 1.0 / 3.0}), seed=seed
    )


async def _annotate(
    records: Sequence[Any], gold: Sequence[Any] | None, transport: Any, config: RunConfig, *, keeps: bool = False
) -> Any:
    task = Task(instructions="Say which colour it is.", labels=LABELS)
    async with Engine(ENDPOINT, config, transport=transport, virtual_time=True) as engine:
        stream = engine.annotate(task, records, gold=gold)
        results = [result async for result in stream]
        return (stream.counters, results) if keeps else stream.counters


def engine_run(loss: float, *, records: int, gold: int, seed: int) -> dict[str, Any]:
    """A run of the engine without proxies: gold alone holds the batch size."""
    endpoint = build_endpoint(SimulatorConfig(behaviour=behaviour(loss, seed), seed=seed))
    config = RunConfig(
        packing=Packing(max_batch_size=16), limits=Limits(max_concurrency=8), recovery=Recovery(max_failed=1.0),
        quality=Quality(guard=False, gold_rate=RATE), seed=seed,
    )  # fmt: skip
    texts = [f"run {seed}, record {number}" for number in range(records)]
    known = [f"run {seed}, gold {number}" for number in range(gold)]
    labelled = [{"text": text, "label": stable_label(text, LABELS)} for text in known]
    counters = virtual_time.run(_annotate, texts, labelled, InProcessTransport(endpoint), config)
    use = counters.gold.use(began_s=0.0)
    return {
        "seed": seed,
        "capped": [move.kept for move in use.moves],
        "pairs": [move.pairs for move in use.moves],
        "rides": use.rides,
        "alone": use.alone,
        "pairs_in_all": sum(row.pairs for row in use.losses),
        "gold_tokens_share": use.tokens / (counters.tokens_input + counters.tokens_output),
        "settled": counters.batch_size.settled_size,
    }


def profile_run(name: str, seed: int, *, gold: int) -> dict[str, Any]:
    """The whole guard on a simulated profile, 12,000 records: where B ends, and what was labelled on the way."""
    endpoint = build_endpoint(named_profile(name).config(labels=LABELS, seed=seed))
    config = RunConfig(limits=Limits(max_concurrency=8), recovery=Recovery(max_failed=1.0), seed=seed)
    texts = [f"run {seed}, record {number}" for number in range(12_000)]
    known = [f"run {seed}, gold {number}" for number in range(gold)]
    labelled = [{"text": text, "label": stable_label(text, LABELS)} for text in known]
    counters, results = virtual_time.run(
        _annotate, texts, labelled or None, InProcessTransport(endpoint), config, keeps=True
    )
    settled = counters.batch_size.settled_size
    return {
        "profile": name,
        "seed": seed,
        "gold": gold,
        "settled": settled,
        "accuracy": statistics.fmean(
            result.output == stable_label(texts[result.position], LABELS) for result in results
        ),
        "above_settled": sum(result.batch_size > settled for result in results),
        "requests": counters.requests,
        "tokens": counters.tokens_input + counters.tokens_output,
        "audits": counters.auditor.requests,
    }


def show_profiles(seeds: int) -> None:
    """Each with gold and without, side by side."""
    for name in ("holds", "changes", "collapse-at-16", "agnews-compact", "sst2-compact"):
        for gold in (0, 400):
            runs = [profile_run(name, seed, gold=gold) for seed in range(seeds)]
            print(
                f"{name:<18} gold {gold:>3}: B ends at {sorted({run['settled'] for run in runs})!s:<14} right "
                f"{statistics.fmean(run['accuracy'] for run in runs):.3f}; labelled in larger batches "
                f"{statistics.median(run['above_settled'] for run in runs):5.0f} of 12,000; "
                f"{statistics.median(run['requests'] for run in runs):6.0f} requests, "
                f"{statistics.median(run['audits'] for run in runs):4.0f} of them audits, "
                f"{statistics.median(run['tokens'] for run in runs):9,.0f} tokens",
                flush=True,
            )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--engine", type=int, default=20, help="runs of the engine for each loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cells whose name begins so")
    parser.add_argument("--profiles", type=int, default=0, help="seeds: the whole guard on simulated profiles only")
    parser.add_argument("--tried", action="store_true", help="other tests only")
    given = parser.parse_args()
    if given.profiles:
        show_profiles(given.profiles)
        return
    if given.tried:
        show_tried(runs=2_000, seed=given.seed)
        return
    cells = [cell for cell in CELLS if cell.name.startswith(given.only)]
    runs_of = {cell.name: given.runs * (2 if cell.loss == 0.0 else 1) for cell in cells}
    print("SIMULATED: answers are drawn, no model is asked.")
    print(
        f"{'fall above B=8':<48} {'d':>4} {'batch':>8} {'answers':>7} {'found':>6} {'B<=8':>6} {'median':>7} {'p90':>6}"
    )
    rows = []
    with multiprocessing.Pool(2) as pool:
        for row in pool.imap(partial(measure_named, runs=runs_of, seed=given.seed), cells):
            rows.append(row)
            print(
                f"{row['name']:<48} {row['discordant']:4.2f} {'together' if row['together'] else '':>8} "
                f"{row['answers'] - row['from_']:7d} {row['found'] - row['before_it']:6.3f} {row['at_eight']:6.3f} "
                f"{row['median'] or '-':>7} {row['p90'] or '-':>6}"
                + (f"  before it: {row['before_it']:.3f}" if row["from_"] else ""),
                flush=True,
            )
        runs: list[tuple[str, Callable[[int], dict[str, Any]]]] = [
            ("15 points", partial(_seeded, 0.15, 6_000, 400)),
            ("5 points", partial(_seeded, 0.05, 40_000, 2_000)),
            ("none", partial(_seeded, 0.0, 20_000, 1_000)),
        ]
        engine: dict[str, Any] = {}
        for name, run in runs if given.engine else []:
            engine[name] = pool.map(run, range(given.engine))
            print(said(name, engine[name]), flush=True)
    write_json("gold_guard", {"cells": rows, "engine": engine})


def said(name: str, done: Sequence[dict[str, Any]]) -> str:
    """What the runs of the engine came to, in a line."""
    capped = [each for each in done if each["capped"]]
    pairs = [each["pairs"][0] for each in capped]
    took = statistics.median(each["gold_tokens_share"] for each in done)
    return (
        f"engine, {name}: capped in {len(capped)} of {len(done)}, settled at "
        f"{sorted({each['settled'] for each in done})}; pairs until then "
        f"{statistics.median(pairs) if pairs else '-'}, at the most {max(pairs, default='-')}, in all "
        f"{statistics.median(each['pairs_in_all'] for each in done)}; gold took {took:.1%} of the tokens"
    )


def _seeded(loss: float, records: int, gold: int, seed: int) -> dict[str, Any]:
    return engine_run(loss, records=records, gold=gold, seed=seed)


if __name__ == "__main__":
    main()
