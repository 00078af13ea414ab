"""What rounds of votes bring and take: accuracy, tokens, and whether the confidence tells right from wrong.

python -m benchmarks.votes [--profiles changes,agnews-compact,holds] [--records 1200] [--seeds 5] [--batch-size 10]

Virtual time, in process: a simulated endpoint, whose answers to a text change with the batch and the place that it has
in it, as the profile says: `changes` draws most answers anew in every batch, `agnews-compact` copies the label before
(fitted to a real model), `holds` gives the same answer always. Each row is the mean over the seeds; +- is the largest
distance of one of them. `sure right` and `unsure right` are the accuracies of answers with a confidence of 1 and below.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common import versions, write_json
from engine import Endpoint, Engine, Limits, Packing, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.command import build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import VotesStop

LABELS = ["world", "sports", "business", "science"]
TASK = Task(instructions="Say what the piece of news is about. " * 20, labels=LABELS)
ARMS: tuple[tuple[int, VotesStop], ...] = (
    (1, "decided"), (2, "decided"), (3, "decided"), (5, "decided"), (5, "agreed"), (5, "never"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run.

    :ivar tokens: a record, input and output, by the endpoint's own count.
    :ivar sure: share of the answers with a confidence of 1.
    """

    accuracy: float
    tokens: float
    asked: float
    sure: float
    sure_right: float
    unsure_right: float


async def _run(endpoint: SimulatedEndpoint, config: RunConfig, records: int) -> Arm:
    texts = [f"piece of news number {number}, with some more words to it" for number in range(records)]
    right: list[tuple[float, bool]] = []
    async with Engine(
        Endpoint(base_url="http://simulated/v1", model="simulated"), config,
        transport=InProcessTransport(endpoint), virtual_time=True,
    ) as engine:  # fmt: skip
        stream = engine.annotate(TASK, [{"id": number, "text": text} for number, text in enumerate(texts)])
        async for result in stream:
            confidence = 1.0 if result.confidence is None else result.confidence
            right.append((confidence, result.output == endpoint.truth(texts[int(result.id or 0)])))
        counters = stream.counters
        use = counters.votes.use()
    sure = [correct for confidence, correct in right if confidence == 1.0]
    unsure = [correct for confidence, correct in right if confidence < 1.0]
    asked = records if use is None else sum(n * count for n, count in enumerate(use.settled_by_round, start=1))
    return Arm(
        accuracy=sum(correct for _, correct in right) / records,
        tokens=(counters.tokens_input + counters.tokens_output) / records,
        asked=asked / records,
        sure=len(sure) / records,
        sure_right=sum(sure) / max(1, len(sure)),
        unsure_right=sum(unsure) / max(1, len(unsure)),
    )


def run(profile: str, votes: int, stop: VotesStop, *, records: int, seed: int, batch_size: int) -> Arm:
    """One run on an endpoint of its own."""
    config = RunConfig(
        limits=Limits(max_concurrency=8), packing=Packing(batch_size=batch_size), seed=seed, votes=votes,
        votes_stop=stop,
    )  # fmt: skip
    endpoint = build_endpoint(
        named_profile(profile).config(seed=seed, answers_seed=seed, labels=LABELS, faults={}, schema_faults={})
    )
    arm: Arm = virtual_time.run(_run, endpoint, config, records)
    return arm


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", default="changes,agnews-compact,holds")
    parser.add_argument("--records", type=int, default=1_200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=10)
    options = parser.parse_args()
    print(versions(), "simulated", vars(options))
    print(f"{'profile':<16}{'votes':<14}{'accuracy':<16}{'asked':<8}{'tokens':<9}{'sure':<7}sure right  unsure right")
    rows: list[dict[str, Any]] = []
    for profile in options.profiles.split(","):
        for votes, stop in ARMS:
            arms = [
                run(profile, votes, stop, records=options.records, seed=seed, batch_size=options.batch_size)
                for seed in range(1, options.seeds + 1)
            ]
            mean = {name: sum(getattr(arm, name) for arm in arms) / len(arms) for name in asdict(arms[0])}
            off = max(abs(arm.accuracy - mean["accuracy"]) for arm in arms)
            rows.append({"profile": profile, "votes": votes, "stop": stop, "accuracy_off": off} | mean)
            print(
                f"{profile:<16}{f'{votes} {stop}' if votes > 1 else '1':<14}{mean['accuracy']:.3f} +- {off:.3f}  "
                f"{mean['asked']:<8.2f}{mean['tokens']:<9.1f}{mean['sure']:<7.2f}{mean['sure_right']:<12.3f}"
                f"{mean['unsure_right']:.3f}",
                flush=True,
            )
    write_json("votes", {"simulated": True, "settings": vars(options), "rows": rows})


if __name__ == "__main__":
    main()
