"""A model that thinks before it answers: room is found at once, batches stay whole, its thoughts are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from engine.testing.simulator.command import SimulatorConfig
from engine.testing.simulator.made_up import HOSTED, REASONS
from engine.testing.simulator.reasoning import Reasoning
from engine.vocabulary.config import Limits, Packing, Quality, RunConfig
from tests.support import Outcome, make_config, make_records, simulate


def reasons(reasoning: Reasoning = REASONS, **changes: Any) -> SimulatorConfig:
    return SimulatorConfig(**({"reasoning": reasoning, "latency": HOSTED} | changes))


def run(records: int, config: RunConfig, simulator: SimulatorConfig) -> Outcome:
    rows = make_records(records)
    outcome = simulate(rows, config, simulator)
    assert outcome.stopped is None
    outcome.assert_each_once(rows)
    return outcome


@pytest.mark.parametrize("told", ["details", "text", "nothing"])
@pytest.mark.parametrize("usage", [True, False])
def test_a_thought_that_was_cut_does_not_split_a_batch(told: Any, usage: bool) -> None:
    """The first requests have no room for what nobody knew of; they are sent again whole, however little is told."""
    outcome = run(200, make_config(10), reasons(Reasoning(call_tokens=900, variation=0.2, told=told), usage=usage))
    counters = outcome.counters
    assert outcome.failed == []
    assert 1 <= counters.causes["overthought"] <= 6
    assert counters.splits == 0
    assert counters.requests <= 200 / 10 + 1 + counters.causes["overthought"]


def test_reasoning_tokens_are_counted_as_the_endpoint_counts_them() -> None:
    """In the counters they are what the endpoint billed, inside the output."""
    outcome = run(200, make_config(10), reasons())
    assert outcome.endpoint is not None
    ledger = outcome.endpoint.ledger
    assert outcome.counters.tokens_reasoning == ledger.reasoning_tokens > 0
    assert outcome.counters.tokens_output == ledger.completion_tokens > ledger.reasoning_tokens


def test_a_model_that_thinks_beyond_the_budget_is_told_what_would_help() -> None:
    """No request puts out more than the user allows; the run says which option gives it room."""
    config = RunConfig(
        packing=Packing(batch_size=4, max_output_tokens=1_500), limits=Limits(max_concurrency=4),
        quality=Quality(guard=False),
    )  # fmt: skip
    outcome = simulate(make_records(20), config, reasons(Reasoning(call_tokens=5_000, variation=0.0)))
    assert outcome.endpoint is not None
    assert outcome.ok == []
    assert outcome.stopped is not None
    ledger = outcome.endpoint.ledger
    assert ledger.completion_tokens <= 1_500 * ledger.requests
    assert ledger.requests <= 40
    assert any("--max-output-tokens" in said for said in outcome.counters.notices)


def test_auto_goes_to_large_batches_and_saves_reasoning() -> None:
    """Most of what is thought is thought once a request: the size controller sees it in what calls cost, and ends at a
    size that takes a fraction of the reasoning of one record a request."""
    alone = run(300, make_config(1, concurrency=16), reasons())
    config = RunConfig(
        packing=Packing(max_batch_size=32), limits=Limits(max_concurrency=16), objective="cost",
        quality=Quality(guard=False),
    )  # fmt: skip
    rows = make_records(3_000)
    auto = simulate(rows, config, reasons())
    assert alone.endpoint is not None
    assert auto.endpoint is not None
    assert auto.counters.batch_size is not None
    assert auto.counters.batch_size.settled_size >= 16
    per_record_alone = alone.endpoint.ledger.reasoning_tokens / 300
    assert auto.endpoint.ledger.reasoning_tokens / 3_000 < 0.25 * per_record_alone


def test_a_limit_on_tokens_that_does_not_bind_leaves_the_window_to_grow() -> None:
    """Large requests wait a moment for their tokens every time; what they wait for is the window, and it is found."""
    config = RunConfig(
        packing=Packing(batch_size=20), limits=Limits(tokens_per_minute=200_000), quality=Quality(guard=False)
    )
    outcome = run(3_000, config, reasons(tpm=200_000))
    assert outcome.counters.window is not None
    assert outcome.counters.window.size >= 8
