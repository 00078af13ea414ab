"""Packing: requests beside the fewest possible, and whether any is over budget by the server's own count. Simulated.

python -m benchmarks.packing [--seeds 5] [--batches 160]

Mixed lengths, log-normal, 5 to 6,000 tokens. The fewest possible are max(ceil(tokens of the rendered items / (budget -
static)), ceil(records / cap)), all by the server's own count, which is not the engine's: another encoding, plus chat
overhead. Targets: within 3 % where one of the two clearly binds, 10 % where both do; no request over the budget.
Texts are English words, or of kinds that the two encodings count differently (figures, another script); there a margin
that keeps requests under the budget costs more than these targets, which are meant for prose. Seeds are those
of texts and look-ahead. Virtual time.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, log
from typing import Any

import msgspec

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, Quality, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.tokens import count
from engine.testing.simulator.transport import InProcessTransport, SimulatedReply

TASK = Task(instructions="Say what the text is about. " * 10, labels=["world", "sports", "business", "science"])
LEAST, MOST = 5, 6_000
WORDS = "the minister team market price said of in on for new first report game court data year company city"
FIGURES = "12.50 1,024 2026-11-25 x=3; (a+b)/2 {'k': 7} --- 99% #4711 v1.2.3 0x7f"
CYRILLIC = "он она сказал город рынок команда первый закон суд данные год компания игра против после"
"""The simulated server counts a word of these otherwise than tiktoken does, by .5 to 2 times."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One corpus under one budget.

    :ivar binds: which of the two is meant to: ``tokens``, ``cap`` or ``both``.
    :ivar median: tokens of the median record; the spread is that of `sigma` in the logarithm.
    :ivar mixed: a third of the records each of words, figures and another script.
    """

    name: str
    binds: str
    budget: int
    cap: int
    median: float
    sigma: float
    mixed: bool = False

    @property
    def target(self) -> float:
        """Requests over the fewest possible."""
        return 1.10 if self.binds == "both" else 1.03


CELLS = (
    Cell(name="tokens bind", binds="tokens", budget=8_000, cap=200, median=120, sigma=1.2),
    Cell(name="tokens bind, long tail", binds="tokens", budget=16_000, cap=200, median=150, sigma=1.6),
    Cell(name="tokens bind, tight", binds="tokens", budget=6_600, cap=200, median=400, sigma=1.2),
    Cell(name="cap binds", binds="cap", budget=16_000, cap=8, median=120, sigma=1.2),
    Cell(name="cap binds, large", binds="cap", budget=16_000, cap=32, median=60, sigma=1.2),
    Cell(name="both bind", binds="both", budget=8_000, cap=32, median=120, sigma=1.2),
    Cell(name="tokens bind, mixed kinds", binds="tokens", budget=8_000, cap=200, median=120, sigma=1.2, mixed=True),
    Cell(name="both bind, mixed kinds", binds="both", budget=8_000, cap=32, median=120, sigma=1.2, mixed=True),
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One run.

    :ivar ratio: requests over the fewest possible.
    :ivar by_tokens: the two parts of the fewest possible; `by_cap`.
    :ivar over: requests above the budget by the server's count; `worst` is the largest over the budget.
    """

    cell: str
    seed: int
    records: int
    requests: int
    by_tokens: int
    by_cap: int
    ratio: float
    over: int
    worst: float
    failed: int


class Counting(InProcessTransport):
    """Keeps what the server says that each prompt took."""

    def __init__(self, endpoint: Any) -> None:
        super().__init__(endpoint)
        self.prompts: list[int] = []
        self.static = 0

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], **timeouts: float) -> SimulatedReply:
        """As it is, and note its usage."""
        reply = await super().post(url, body=body, headers=headers, **timeouts)
        if reply.status == 200:
            self.prompts.append(msgspec.json.decode(reply.body)["usage"]["prompt_tokens"])
            messages = msgspec.json.decode(body)["messages"]
            self.static = self.prompts[-1] - count(messages[-1]["content"].rpartition("\n")[2]) + count('{"items":[]}')
        return reply


def corpus(cell: Cell, batches: int, seed: int) -> list[str]:
    """Texts for so many batches: until one of the two limits that are to bind has come to that."""
    rng = random.Random(seed)
    kinds = (WORDS, FIGURES, CYRILLIC) if cell.mixed else (WORDS,)
    texts: list[str] = []
    tokens = 0
    while tokens < batches * cell.budget and len(texts) < batches * cell.cap:
        length = min(max(rng.lognormvariate(log(cell.median), cell.sigma), LEAST), MOST)
        words = rng.choice(kinds).split()
        each = count(" ".join(words)) / len(words)
        texts.append(" ".join([f"{len(texts)}", *rng.choices(words, k=round(length / each))])[: 6 * MOST])
        tokens += count(texts[-1])
    return texts


async def annotate(cell: Cell, texts: list[str], transport: Counting, seed: int) -> int:
    """Label everything; how many failed."""
    config = RunConfig(
        packing=Packing(
            batch_size=cell.cap, max_batch_size=cell.cap, max_input_tokens=cell.budget, max_output_tokens=100_000
        ),
        limits=Limits(max_concurrency=8),
        quality=Quality(guard=False),
        seed=seed,
    )
    endpoint = Endpoint(base_url="http://simulated/v1", model="simulated")
    async with Engine(endpoint, config, transport=transport, virtual_time=True) as engine:
        return sum([not result.ok async for result in engine.annotate(TASK, texts)])


def run(cell: Cell, batches: int, seed: int) -> Figures:
    """One run."""
    texts = corpus(cell, batches, seed)
    transport = Counting(build_endpoint(SimulatorConfig(seed=seed, latency="hosted")))
    failed = virtual_time.run(annotate, cell, texts, transport, seed)
    rendered = sum(count(msgspec.json.encode({"id": "k3f-1", "input": text}).decode() + ",") for text in texts)
    by_tokens, by_cap = ceil(rendered / (cell.budget - transport.static)), ceil(len(texts) / cell.cap)
    prompts = transport.prompts
    return Figures(
        cell=cell.name,
        seed=seed,
        records=len(texts),
        requests=len(prompts),
        by_tokens=by_tokens,
        by_cap=by_cap,
        ratio=round(len(prompts) / max(by_tokens, by_cap), 4),
        over=sum(prompt > cell.budget for prompt in prompts),
        worst=round(max(prompts) / cell.budget, 4),
        failed=failed,
    )


def show(cell: Cell, figures: list[Figures]) -> None:
    """One line for a cell."""
    ratio, first = spread([each.ratio for each in figures]), figures[0]
    over, worst = sum(each.over for each in figures), max(each.worst for each in figures)
    missed = [f"> {cell.target}"] if ratio["max"] > cell.target else []
    missed += ["over budget"] if over else []
    missed += ["records failed"] if any(each.failed for each in figures) else []
    print(
        f"{cell.name:<26} budget {cell.budget:6} cap {cell.cap:3}  {first.records:6} records, {first.requests:5} "
        f"requests ({first.by_tokens} by tokens, {first.by_cap} by cap)  ratio {ratio['median']:.3f} "
        f"({ratio['min']:.3f}-{ratio['max']:.3f})  over {over}, largest {worst:.3f}"
        f"{'  MISSED: ' + ', '.join(missed) if missed else ''}",
        flush=True,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=160, help="at least, in each run")
    options = parser.parse_args()
    print("simulated endpoint, virtual time", vars(options), versions())
    made: list[Figures] = []
    for cell in CELLS:
        figures = [run(cell, options.batches, seed) for seed in range(options.seeds)]
        show(cell, figures)
        made += figures
    write_json("packing", {"simulated": True, "settings": vars(options), "runs": [asdict(each) for each in made]})


if __name__ == "__main__":
    main()
