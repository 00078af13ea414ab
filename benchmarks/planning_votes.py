"""`annotate plan --votes` beside the run that it planned: tokens. Simulated.

python -m benchmarks.planning_votes [--records 2000] [--first 300] [--seeds 2]

Models whose answers hang on the batch (docs/design/votes.md), in batches of ten. The first plan knows nothing of the
answers and takes its stated assumption; the second one has the store of a run of the first records with three votes.
Planned over used, input and output together, and the range that was given beside what was used. Virtual time.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.command import build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport
from engine.tuning.planning import Wishes, make_plan
from engine.vocabulary.config import VotesStop
from engine.vocabulary.values import RawRecord

LABELS = ["world", "sports", "business", "science"]
TASK = Task(instructions="Say what the piece of news is about. " * 20, labels=LABELS)
PROFILES = ("changes", "agnews-compact", "holds")
ARMS: tuple[tuple[int, VotesStop], ...] = ((3, "decided"), (5, "decided"), (5, "agreed"))
SIZE, FIRST_VOTES = 10, 3


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Planned over used; `least` and `most` are the ends of the range over what was used."""

    profile: str
    votes: int
    stop: VotesStop
    seed: int
    before: float
    after: float
    least: float
    most: float


def texts_of(records: int) -> list[str]:
    """Different texts."""
    return [f"piece of news number {number}, with some more words to it" for number in range(records)]


def config_of(votes: int, stop: VotesStop, seed: int) -> RunConfig:
    """Of a plan and of its run."""
    return RunConfig(
        limits=Limits(max_concurrency=8), packing=Packing(batch_size=SIZE), seed=seed, votes=votes, votes_stop=stop
    )


def used(endpoint: SimulatedEndpoint, config: RunConfig, texts: list[str], store: Path | None = None) -> int:
    """Tokens of a run."""

    async def annotate() -> int:
        async with Engine(
            Endpoint(base_url="http://simulated/v1", model="simulated"), config,
            transport=InProcessTransport(endpoint), store=store, virtual_time=True,
        ) as engine:  # fmt: skip
            stream = engine.annotate(TASK, texts)
            async for _ in stream:
                pass
            return stream.counters.tokens_input + stream.counters.tokens_output

    return int(virtual_time.run(annotate))


def run(profile: str, votes: int, stop: VotesStop, *, records: int, first: int, seed: int) -> Beside:
    """Plan, run some records, plan again, and run all."""

    def endpoint() -> SimulatedEndpoint:
        return build_endpoint(
            named_profile(profile).config(seed=seed, answers_seed=seed, labels=LABELS, faults={}, schema_faults={})
        )

    texts, config = texts_of(records), config_of(votes, stop, seed)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.sqlite"

        def planned(from_store: Path | None) -> Any:
            raws = (RawRecord(position=at, line=at + 1, data={"text": text}) for at, text in zip(count(), texts))
            wishes = Wishes(batch_sizes=(SIZE,), form="compact", sample=50_000, limit=None, store=from_store,
                            model="simulated")  # fmt: skip
            return make_plan(TASK, raws, config, wishes, task_name="task", input_name="input").forecasts[-1]

        before = planned(None)
        used(endpoint(), config_of(FIRST_VOTES, "decided", seed), texts[:first], store)
        after = planned(store)
    took = used(endpoint(), config, texts)
    tokens = [(made.input_tokens + made.output_tokens) / took for made in (before, after)]
    rounds = after.rounds
    return Beside(
        profile=profile, votes=votes, stop=stop, seed=seed, before=round(tokens[0], 4), after=round(tokens[1], 4),
        least=round(tokens[1] * rounds.least / rounds.expected, 4),
        most=round(tokens[1] * rounds.most / rounds.expected, 4),
    )  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    print("planned over used; simulated endpoint, virtual time", vars(options), versions())
    made: list[Beside] = []
    for profile in PROFILES:
        for votes, stop in ARMS:
            found = [
                run(profile, votes, stop, records=options.records, first=options.first, seed=seed)
                for seed in range(1, options.seeds + 1)
            ]
            parts = []
            for name in ("before", "after", "least", "most"):
                of = spread([getattr(each, name) for each in found])
                parts.append(f"{name} {of['median']:.3f} ({of['min']:.3f}-{of['max']:.3f})")
            print(f"{profile:<16} {f'{votes} {stop}':<12} {'  '.join(parts)}", flush=True)
            made += found
    write_json(
        "planning_votes", {"simulated": True, "settings": vars(options), "runs": [asdict(each) for each in made]}
    )


if __name__ == "__main__":
    main()
