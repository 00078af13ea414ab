"""The adaptive batch size at work in the pipeline, and the guard of the labels beside it. Virtual time, simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.adapters.store import read_store
from engine.testing.simulator.command import SimulatorConfig
from engine.testing.simulator.profiles import named_profile
from engine.vocabulary.config import Limits, Packing, Quality, Recovery, RunConfig
from support import LABELS, Outcome, make_records, make_task, simulate


def make_auto(*, guard: bool = True, concurrency: int = 8) -> RunConfig:
    """A run that chooses its batch size."""
    return RunConfig(
        packing=Packing(batch_size=None),
        limits=Limits(max_concurrency=concurrency),
        quality=Quality(guard=guard),
        recovery=Recovery(max_failed=1.0),
    )


def run_profile(name: str, count: int, config: RunConfig, **changes: object) -> Outcome:
    return simulate(make_records(count), config, named_profile(name).config(labels=LABELS, seed=3, **changes))


def settled(outcome: Outcome) -> int:
    assert outcome.counters.batch_size is not None
    return outcome.counters.batch_size.settled_size


def test_labels_that_copying_would_ruin_keep_the_size_small() -> None:
    """In perfect JSON nothing but the guard can see it: with it the size stays at two, without it goes far up.

    Ids are salted from the system's randomness, so no two runs are the same to the token.
    """
    guarded = run_profile("agnews-compact", 4_000, make_auto())
    assert settled(guarded) <= 2
    blind = run_profile("agnews-compact", 4_000, make_auto(guard=False))
    assert blind.counters.batch_size is not None
    assert max(move.new for move in blind.counters.batch_size.history) >= 8
    assert blind.counters.malformed < 0.02 * blind.counters.requests


def test_labels_that_hold_let_the_size_grow() -> None:
    """Evidence comes first at every step, and its price is small."""
    outcome = run_profile("holds", 8_000, make_auto())
    assert outcome.counters.batch_size is not None
    assert max(move.new for move in outcome.counters.batch_size.history) >= 8
    auditor = outcome.counters.auditor
    assert auditor is not None
    assert 0 < auditor.cost <= 0.05 * auditor.cost_at_one
    assert auditor.requests <= 0.10 * outcome.counters.requests


@pytest.mark.parametrize("faults", [{}, {"drop": 0.05, "cut": 0.05, "http_500": 0.05, "http_429": 0.05, "reset": 0.02}])
def test_what_is_only_compared_is_no_answer(tmp_path: Path, faults: dict[str, float]) -> None:
    """Every record ends once with the answer to its own ask; audits are stored as such, every request is counted."""
    records = make_records(3_000)
    store = tmp_path / "run.sqlite"
    outcome = simulate(records, make_auto(), SimulatorConfig(faults=faults, seed=2), store=str(store))
    outcome.assert_each_once(records)
    assert outcome.endpoint is not None
    assert outcome.counters.auditor is not None
    assert outcome.counters.requests == outcome.endpoint.ledger.requests
    opened = read_store(store)
    ((audits, accepted),) = opened.query("SELECT count(*), total(accepted) FROM calls WHERE purpose = 'audit'")
    ((answers,),) = opened.query("SELECT count(*) FROM answers")
    opened.close()
    assert audits == outcome.counters.auditor.requests > 0
    assert (accepted, answers) == (0, 3_000)


def test_a_size_that_the_user_fixed_is_not_guarded() -> None:
    """Nothing is sent beyond the records; what production shows of copying is reported all the same."""
    config = RunConfig(packing=Packing(batch_size=20), limits=Limits(max_concurrency=8))
    outcome = run_profile("agnews-compact", 12_000, config)
    auditor = outcome.counters.auditor
    assert auditor is not None
    assert auditor.requests == 0
    assert auditor.guard.verdict(20).kind == "collapsing"


def test_a_small_corpus_stays_modest() -> None:
    """Where a guard would cost more than it saves, no size above five is used and nothing is compared."""
    outcome = run_profile("holds", 300, make_auto())
    assert max(result.batch_size for result in outcome.results) <= 5
    assert outcome.counters.auditor is not None
    assert outcome.counters.auditor.requests == 0


def test_the_last_records_are_spread_over_the_slots() -> None:
    """Where nothing but the window limits, no slot stays idle at the end while another has a full batch."""
    records = make_records(400)
    outcome = simulate(records, make_auto(guard=False), SimulatorConfig(delay_s=1.0), task=make_task())
    outcome.assert_each_once(records)
    last = [result.batch_size for result in outcome.results[-8:]]
    assert max(last) < max(result.batch_size for result in outcome.results)


def test_a_format_that_fails_at_four_records_lets_three_be_used() -> None:
    """Audits that are not answered bar the size they asked at, and not the one below."""
    assert settled(run_profile("cliff-at-3", 6_000, make_auto())) == 3


def test_the_price_is_held_to_the_whole_run_and_not_to_its_start() -> None:
    """A tenth of the requests that are sure to come may be spent at once: the size does not stay at two for it."""
    records = 12_000
    outcome = run_profile("holds", records, make_auto())
    auditor = outcome.counters.auditor
    assert auditor is not None
    assert auditor.requests <= 0.10 * outcome.counters.requests
    assert sum(result.batch_size <= 2 for result in outcome.results) < 0.05 * records


def test_a_short_run_does_not_wait_at_small_batches_until_its_audits_are_a_small_share() -> None:
    """3,000 records under a limit of requests: most go in large batches, not in the time before the evidence."""
    simulator = named_profile("hosted-requests-bound").config(labels=LABELS, seed=1)
    outcome = simulate(make_records(3_000), RunConfig(), simulator)
    assert len(outcome.ok) == 3_000
    assert sum(result.batch_size >= 16 for result in outcome.results) > 2_450
