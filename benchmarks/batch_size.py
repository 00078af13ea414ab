"""The adaptive batch size against every fixed one, with the guard of the labels and without, on simulated profiles.

python -m benchmarks.batch_size [--profiles holds,cliff-at-3] [--records 20000] [--seeds 3] [--concurrency 16]

With --guarded-only --seeds 20: where the guarded run ends on many seeds, in which answer form, and what it says.

Virtual time, in process: the figures are of a simulated endpoint, and our CPU is not in them. Each profile is run with
fixed sizes (one seed) and adaptive ones (each seed); ratios are to the best fixed size of the same profile.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, get_args

import anyio

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Engine, Limits, Packing, RunConfig, Task
from engine.testing import virtual_time
from engine.testing.simulator.command import build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import Objective, Quality

LABELS = ["world", "sports", "business", "science"]
TASK = Task(instructions="Say what the piece of news is about. " * 20, labels=LABELS)
FIXED = (2, 3, 4, 8, 16, 32)
PROFILES = (
    "holds", "fails-smoothly", "cliff-at-16", "cliff-at-3", "drifts", "cheap-cached-prefix", "output-capped",
    "queueing-server", "hosted-requests-bound", "hosted-tokens-bound", "agnews-compact", "changes",
)  # fmt: skip
QUOTAS = {
    "hosted-requests-bound": Limits(requests_per_minute=300, tokens_per_minute=2_000_000, max_concurrency=64),
    "hosted-tokens-bound": Limits(requests_per_minute=5_000, tokens_per_minute=60_000, max_concurrency=64),
}


@dataclass
class Arm:
    """One run. Tokens are the endpoint's own count.

    :ivar accuracy: against the simulated truth.
    """

    profile: str
    arm: str
    seed: int
    seconds: float
    tokens_per_record: float
    requests: int
    wasted_share: float
    accuracy: float
    failed: int
    ends_at: int
    verdict: str
    form: str
    guard_cost_share: float
    guard_request_share: float


async def _run(endpoint: SimulatedEndpoint, profile: str, config: RunConfig, records: int, arm: str, seed: int) -> Arm:
    texts = [
        f"piece of news number {number}, with some more words to make it as long as one" for number in range(records)
    ]
    right = failed = 0
    started = anyio.current_time()
    async with Engine(
        Endpoint(base_url="http://simulated/v1", model="simulated"), config,
        transport=InProcessTransport(endpoint), virtual_time=True,
    ) as engine:  # fmt: skip
        stream = engine.annotate(TASK, [{"id": number, "text": text} for number, text in enumerate(texts)])
        async for result in stream:
            failed += not result.ok
            right += result.ok and result.output == endpoint.truth(texts[int(result.id or 0)])
        counters = stream.counters
    seconds = anyio.current_time() - started
    tokens = endpoint.ledger.prompt_tokens + endpoint.ledger.completion_tokens
    size, auditor = counters.batch_size, counters.auditor
    audits = auditor if auditor is not None and auditor.asks else None
    verdict = "" if audits is None or size is None else audits.guard.verdict(max(2, size.settled_size)).kind
    return Arm(
        profile=profile,
        arm=arm,
        seed=seed,
        seconds=round(seconds, 3),
        tokens_per_record=round(tokens / max(1, records - failed), 3),
        requests=endpoint.ledger.requests,
        wasted_share=round(counters.tokens_wasted / max(1, counters.tokens_input + counters.tokens_output), 4),
        accuracy=round(right / records, 4),
        failed=failed,
        ends_at=size.settled_size if size is not None else 0,
        verdict=verdict,
        form="" if audits is None else audits.forms.form,
        guard_cost_share=round(audits.cost / max(1e-12, audits.cost_at_one), 4) if audits else 0.0,
        guard_request_share=round(audits.requests / max(1, counters.requests), 4) if audits else 0.0,
    )


def run(
    profile: str,
    *,
    batch_size: int | None,
    guard: bool,
    records: int,
    seed: int,
    concurrency: int,
    objective: Objective,
) -> Arm:
    """One run of one arm."""
    endpoint = build_endpoint(named_profile(profile).config(labels=LABELS, seed=seed))
    config = RunConfig(
        packing=Packing(batch_size=batch_size),
        limits=QUOTAS.get(profile, Limits(max_concurrency=concurrency)),
        quality=Quality(guard=guard),
        objective=objective,
        seed=seed,
    )
    arm = f"fixed {batch_size}" if batch_size else "auto, guarded" if guard else "auto"
    result: Arm = virtual_time.run(_run, endpoint, profile, config, records, arm, seed)
    return result


def summary(arms: list[Arm], best: Arm) -> str:
    """Seeds of one adaptive arm beside the best fixed size."""
    parts = []
    for name, title in (("seconds", "time"), ("tokens_per_record", "tokens")):
        ratio = spread([getattr(arm, name) / getattr(best, name) for arm in arms])
        parts.append(f"{title} {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f}) of B={best.arm[6:]}")
    parts.append(f"ends at {[arm.ends_at for arm in arms]} {[arm.verdict for arm in arms if arm.verdict]}")
    parts.append(f"waste {max(arm.wasted_share for arm in arms):.3f}")
    parts.append(f"accuracy {[arm.accuracy for arm in arms]} ({best.accuracy})")
    cost, requests = max(arm.guard_cost_share for arm in arms), max(arm.guard_request_share for arm in arms)
    if requests:
        parts.append(f"guard {cost:.3f} of the cost of B=1, {requests:.3f} of the requests")
    return ", ".join(parts)


def _same(options: argparse.Namespace) -> dict[str, Any]:
    return {"records": options.records, "concurrency": options.concurrency, "objective": options.objective}


def compare(profile: str, options: argparse.Namespace) -> list[Arm]:
    """All arms of one profile, printed."""
    same = _same(options)
    fixed = [run(profile, batch_size=size, guard=False, seed=0, **same) for size in FIXED]
    best = min(fixed, key=lambda arm: arm.seconds)
    print(f"== {profile} (simulated): " + ", ".join(f"B={arm.arm[6:]} {arm.seconds:,.0f} s" for arm in fixed))
    adaptive = []
    for guard in (False, True):
        arms = [run(profile, batch_size=None, guard=guard, seed=seed, **same) for seed in range(options.seeds)]
        adaptive += arms
        print(f"   {arms[0].arm:<14} {summary(arms, best)}", flush=True)
    return fixed + adaptive


def guarded(profile: str, options: argparse.Namespace) -> list[Arm]:
    """Many seeds of the guarded arm alone: where it ends, and what it says."""
    arms = []
    for seed in range(options.seeds):
        arms.append(run(profile, batch_size=None, guard=True, seed=seed, **_same(options)))
    ends = sorted(Counter((arm.ends_at, arm.form, arm.verdict) for arm in arms).items())
    accuracy, cost, requests = (
        spread([getattr(arm, name) for arm in arms]) for name in ("accuracy", "guard_cost_share", "guard_request_share")
    )
    print(f"== {profile} (simulated), guarded, {len(arms)} seeds: (ends at, form, verdict): runs {ends}")
    print(f"   accuracy {accuracy}, cost against B=1 {cost}, requests {requests}", flush=True)
    return arms


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--objective", choices=get_args(Objective), default="records-per-second")
    parser.add_argument("--guarded-only", action="store_true")
    options = parser.parse_args()
    print(vars(options), versions())
    each = guarded if options.guarded_only else compare
    arms = [arm for profile in options.profiles.split(",") for arm in each(profile, options)]
    write_json(
        "guard" if options.guarded_only else "batch_size",
        {"simulated": True, "settings": vars(options), "arms": [asdict(arm) for arm in arms]},
    )


if __name__ == "__main__":
    main()
