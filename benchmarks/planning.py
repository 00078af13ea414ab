"""`annotate plan` beside the run that it planned: tokens, cost and time. Simulated.

python -m benchmarks.planning [--seeds 3] [--records 6000] [--only NAME] [--sizes 2 20]

Six corpora and four batch sizes; then one with a prefix cache and a price of it, and three of models that think before
they answer (made up; the first plan is told what they think on average). The simulated endpoint counts tokens with
another encoding plus chat overhead, so the first plan, made before anything was sent, is off by what the two counts
differ. The second one has learned from the first 20 calls of the run's store, a third one (`later`) from 100. Limits
are known and bind, so the time planned is what the limits allow. Targets: tokens within 8 % before and 2 % after, cost
within 3 %, time within 10 % (both after). Virtual time.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, Prices, RunConfig, Task
from engine.decide.pricing import cost_usd
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.made_up import REASONS
from engine.testing.simulator.reasoning import Reasoning
from engine.testing.simulator.transport import InProcessTransport
from engine.tuning import planning
from engine.tuning.planning import Wishes, make_plan
from engine.vocabulary.values import RawRecord

SIZES = (2, 5, 10, 20)
FIRST_CALLS, MORE_CALLS = 20, 100
PRICES = Prices(input=0.15, output=0.6)
ROOT = Path(__file__).parent.parent
PROSE = "prose"
"""Stands for sentences of our own documentation, drawn at random: English as people write it."""
CYRILLIC = "он она сказал город рынок команда первый закон суд данные год компания игра против после"
FIGURES = "12.50 1,024 2026-11-25 x=3; (a+b)/2 {'k': 7} --- 99% #4711 v1.2.3 0x7f"
TOPICS = ["world", "sports", "business", "science"]
EXAMPLES = [
    {"input": f"It was said {word} that number {number} will be first.", "output": TOPICS[number % 4]}
    for number, word in enumerate(["yesterday", "today", "twice", "again", "here"] * 4)
]
SHORT = "Say what the piece of news is about, by what it mostly tells. " * 4
LONG = "Say what the piece of news is about. Read it as a whole before you choose, and choose one topic only. " * 60
INTENTS = [f"intent number {number} of the catalogue" for number in range(40)]


@dataclass(frozen=True, kw_only=True)
class CorpusKind:
    """A corpus and its task.

    :ivar words: median words of a record; lengths are log-normal with this `sigma`.
    :ivar prices: with a price of cached input, what the plan says of a cached prefix is held against the run.
    """

    name: str
    words: float
    sigma: float
    task: Mapping[str, Any]
    text: str = PROSE
    prices: Prices = PRICES
    reasoning: Reasoning | None = None
    limits: Limits = field(default_factory=lambda: Limits(requests_per_minute=600, tokens_per_minute=120_000))


CORPORA = (
    CorpusKind(name="sentences", words=14, sigma=0.5, task={"instructions": SHORT, "labels": TOPICS}),
    CorpusKind(name="documents", words=220, sigma=0.9, task={"instructions": SHORT, "labels": TOPICS}),
    CorpusKind(name="long prompt", words=25, sigma=0.6, task={"instructions": LONG, "labels": TOPICS}),
    CorpusKind(
        name="20 examples, 40 labels", words=10, sigma=0.4,
        task={"instructions": SHORT, "labels": INTENTS + TOPICS, "examples": EXAMPLES},
    ),
    CorpusKind(name="another script", words=20, sigma=0.6, text=CYRILLIC,
               task={"instructions": SHORT, "labels": TOPICS}),
    CorpusKind(name="figures, requests bind", words=12, sigma=0.5, text=FIGURES,
               task={"instructions": SHORT, "labels": TOPICS},
               limits=Limits(requests_per_minute=60, tokens_per_minute=2_000_000)),
    CorpusKind(
        name="long prompt, cached", words=25, sigma=0.6, task={"instructions": LONG, "labels": TOPICS},
        prices=Prices(input=0.15, cached_input=0.015, output=0.6),
    ),
    CorpusKind(name="sentences, thinks", words=14, sigma=0.5, task={"instructions": SHORT, "labels": TOPICS},
               reasoning=REASONS, limits=Limits(requests_per_minute=600, tokens_per_minute=400_000)),
    CorpusKind(name="documents, thinks", words=120, sigma=0.7, task={"instructions": SHORT, "labels": TOPICS},
               reasoning=REASONS, limits=Limits(requests_per_minute=600, tokens_per_minute=400_000)),
    CorpusKind(name="40 labels, thinks by the record", words=10, sigma=0.4,
               task={"instructions": SHORT, "labels": INTENTS + TOPICS, "examples": EXAMPLES},
               reasoning=Reasoning(call_tokens=200.0, record_tokens=60.0, variation=0.3),
               limits=Limits(requests_per_minute=600, tokens_per_minute=400_000)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Planned over used."""

    corpus: str
    batch_size: int
    seed: int
    tokens_before: float
    tokens_after: float
    cost_after: float
    time_before: float
    time_after: float
    time_later: float
    requests: float
    used_tokens: int
    took_s: float


def texts_of(kind: CorpusKind, records: int, seed: int) -> list[str]:
    """Different texts."""
    rng, words = random.Random(seed), (documentation() if kind.text == PROSE else kind.text.split() * 50)
    made = []
    for number in range(records):
        length = min(max(2, round(rng.lognormvariate(0, kind.sigma) * kind.words)), len(words) // 2)
        begin = rng.randrange(len(words) - length)
        made.append(f"{number}: " + " ".join(words[begin : begin + length]))
    return made


@cache
def documentation() -> list[str]:
    """Words of our own documentation, without code and tables."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    prose = re.sub(r"```.*?```|^[|#][^\n]*$", " ", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`|[*]", "", prose).split()


def run(kind: CorpusKind, size: int, records: int, seed: int) -> Beside:
    """Plan, run, and plan again from what the run's first calls taught."""
    task = msgspec.convert({**kind.task}, Task)
    texts = texts_of(kind, records, seed)
    config = RunConfig(limits=kind.limits, packing=Packing(batch_size=size), prices=kind.prices, seed=seed)
    thinks = None if kind.reasoning is None else (kind.reasoning.call_tokens, kind.reasoning.record_tokens)
    endpoint = build_endpoint(SimulatorConfig(
        labels=list(task.labels), seed=seed, latency="hosted", rpm=kind.limits.requests_per_minute,
        tpm=kind.limits.tokens_per_minute, reasoning=kind.reasoning,
    ))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.sqlite"

        def planned(from_store: Path | None) -> Any:
            raws = (RawRecord(position=at, line=at + 1, data={"text": text}) for at, text in zip(count(), texts))
            wishes = Wishes(batch_sizes=(size,), form="compact", sample=50_000, limit=None, store=from_store,
                            model="simulated", reasoning=thinks if from_store is None else None)  # fmt: skip
            return make_plan(task, raws, config, wishes, task_name="task", input_name="input").forecasts[-1]

        async def annotate() -> tuple[int, int, int, int, float]:
            where = Endpoint(base_url="http://simulated/v1", model="simulated")
            async with Engine(
                where, config, transport=InProcessTransport(endpoint), store=store, virtual_time=True
            ) as engine:
                results = engine.annotate(task, texts)
                failed = sum([not result.ok async for result in results])
                if failed:
                    raise RuntimeError(f"{failed} records failed")
                found = results.counters
                took_s = (found.last_result_s or 0.0) - (found.first_sent_s or 0.0)
                return found.tokens_input, found.tokens_cached, found.tokens_output, found.requests, took_s

        before = planned(None)
        used_in, cached, used_out, requests, took_s = virtual_time.run(annotate)
        planning.MOST_CALLS = FIRST_CALLS
        after = planned(store)
        planning.MOST_CALLS = MORE_CALLS
        later = planned(store)
    used = used_in + used_out
    knows_cache = kind.prices.cached_input is not None
    usd = cost_usd(
        kind.prices, input_tokens=used_in, cached_tokens=cached if knows_cache else 0, output_tokens=used_out
    )
    planned_usd = after.cached_usd if knows_cache else after.usd
    return Beside(
        corpus=kind.name, batch_size=size, seed=seed, used_tokens=used, took_s=round(took_s, 1),
        tokens_before=round((before.input_tokens + before.output_tokens) / used, 4),
        tokens_after=round((after.input_tokens + after.output_tokens) / used, 4),
        cost_after=round(planned_usd / usd, 4),
        time_before=round((before.time_s or 0) / took_s, 4),
        time_after=round((after.time_s or 0) / took_s, 4),
        time_later=round((later.time_s or 0) / took_s, 4),
        requests=round(after.requests / requests, 4),
    )  # fmt: skip


def show(found: list[Beside]) -> None:
    """One line a cell."""
    parts: list[str] = []
    missed: list[str] = []
    for name, bound in (
        ("tokens_before", 0.08), ("tokens_after", 0.02), ("cost_after", 0.03), ("time_before", 0.0),
        ("time_after", 0.10), ("time_later", 0.10), ("requests", 0.0),
    ):  # fmt: skip
        of = spread([getattr(each, name) for each in found])
        parts.append(f"{name} {of['median']:.3f} ({of['min']:.3f}-{of['max']:.3f})")
        if bound and max(abs(of["min"] - 1), abs(of["max"] - 1)) > bound:
            missed.append(name)
    print(
        f"{found[0].corpus:<24} B={found[0].batch_size:<3} {'  '.join(parts)}  took {found[0].took_s:.0f} s"
        f"{'  MISSED: ' + ', '.join(missed) if missed else ''}",
        flush=True,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--records", type=int, default=6_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--only", metavar="NAME", help="corpora whose names have this in them")
    options = parser.parse_args()
    print("planned over used; simulated endpoint, virtual time", vars(options), versions())
    made: list[Beside] = []
    for kind in [kind for kind in CORPORA if (options.only or kind.name) in kind.name]:
        for size in options.sizes:
            found = [run(kind, size, options.records, seed) for seed in range(options.seeds)]
            show(found)
            made += found
    write_json("planning", {"simulated": True, "settings": vars(options), "runs": [asdict(each) for each in made]})


if __name__ == "__main__":
    main()
