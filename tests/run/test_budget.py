"""Budgets in dollars and in tokens: what is in flight is reserved at its worst, over all runs of a store."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting import make_call

from engine.adapters.store import Spent, read_store, temporary_store
from engine.run.budget import Budget, Reserve
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.config import Prices, RunConfig
from engine.vocabulary.errors import RunStopped
from support import make_config, make_records, simulate

PRICES = Prices(input=1.0, output=4.0)

requests = st.lists(
    st.tuples(st.integers(1, 5_000), st.integers(1, 5_000), st.floats(0, 1), st.booleans(), st.integers(0, 200)),
    min_size=1,
    max_size=40,
)
"""Of each: the most input and output, the share that is billed, whether its reply is lost, what is billed beyond."""


@settings(deadline=None)  # the machine may have other work
@given(requests, st.integers(1, 40_000), st.integers(0, 20_000), st.integers(1, 8), st.booleans())
def test_no_more_is_spent_than_the_budget_and_what_is_billed_beyond_the_worst(
    sent: list[tuple[int, int, float, bool, int]], limit: int, earlier: int, in_flight: int, in_usd: bool
) -> None:
    """Whatever is sent, lost and billed, in any number at once: spent <= max(budget, spent before) + billed beyond."""
    prices = Prices(input=1e6, output=1e6)  # a dollar a token, so that one test holds both
    budget = Budget(
        float(limit) if in_usd else None,
        prices,
        Spent(input_tokens=earlier),
        limit_tokens=None if in_usd else limit,
    )
    out: list[tuple[Reserve, int, int, bool]] = []
    spent, beyond = earlier, 0

    def settle() -> None:
        nonlocal spent
        reserve, input_tokens, output_tokens, is_lost = out.pop(0)
        if is_lost:
            budget.settle(reserve, Spent(unconfirmed_input=input_tokens, unconfirmed_output=output_tokens))
        else:
            budget.settle(reserve, Spent(input_tokens=input_tokens, output_tokens=output_tokens))
        spent += input_tokens + output_tokens

    for most_input, most_output, share, is_lost, more in sent:
        if len(out) == in_flight:
            settle()
        reserve = budget.worst(input_tokens=most_input, output_tokens=most_output)
        if not budget.try_reserve(reserve):
            assert spent + sum(one.tokens for one, *_ in out) + reserve.tokens > limit, "refused though there was room"
            continue
        billed = (most_input, most_output) if is_lost else (int(share * most_input), int(share * most_output) + more)
        beyond += max(0, sum(billed) - reserve.tokens)
        out.append((reserve, *billed, is_lost))
    while out:
        settle()
    assert spent <= max(limit, earlier) + beyond
    assert not budget.may_ease


def test_both_budgets_hold_and_the_text_names_the_one_that_is_spent() -> None:
    """Dollars may be left where tokens are not, and the other way round."""
    budget = Budget(1.0, PRICES, Spent(), limit_tokens=1_000)
    reserve = budget.worst(input_tokens=900, output_tokens=200)
    assert not budget.try_reserve(reserve)
    assert "budget of 1,000 tokens" in str(budget.exhausted(reserve))
    assert "--budget-tokens" in str(budget.exhausted(reserve))
    budget = Budget(0.001, PRICES, Spent(), limit_tokens=10_000)
    assert not budget.try_reserve(reserve)
    assert "--budget-usd" in str(budget.exhausted(reserve))


def used(path: Path) -> int:
    """Tokens that the store says were taken, or may have been."""
    store = read_store(path)
    try:
        return sum(msgspec.structs.astuple(store.spent())) - store.spent().cached_tokens
    finally:
        store.close()


@pytest.mark.parametrize("faulty", [False, True])
def test_a_run_ends_within_its_tokens_and_goes_on_with_more(faulty: bool, tmp_path: Path) -> None:
    """In one run or in three, with lost replies or without: the endpoint's own bill is never above."""
    records, store = make_records(400), tmp_path / "s.sqlite"
    simulator = SimulatorConfig(
        faults={"http_500": 0.1, "reset": 0.1, "drop": 0.1, "cut_body": 0.05} if faulty else {}, seed=4
    )
    done = billed = 0
    for budget in (6_000, 12_000, 18_000):
        config = msgspec.structs.replace(make_config(5), budget_tokens=budget)
        outcome = simulate(records, config, simulator, store=store)
        assert isinstance(outcome.stopped, RunStopped)
        assert outcome.stopped.kind == "budget"
        assert outcome.endpoint is not None
        billed += outcome.endpoint.ledger.prompt_tokens + outcome.endpoint.ledger.completion_tokens
        assert billed <= budget
        assert budget * 0.8 < used(store) <= budget
        assert len(outcome.ok) > done, "going on gets further"
        done = len(outcome.ok)
    outcome = simulate(records, make_config(5), SimulatorConfig(), store=store)
    assert outcome.stopped is None
    outcome.assert_each_once(records)


def test_tokens_of_all_models_count() -> None:
    """A budget in tokens is the store's; one in dollars is the model's, since its prices are."""
    store = temporary_store()
    try:
        for model, input_tokens in (("small", 700), ("large", 200)):
            settings_id = store.settings(task_key="t", model=model, task="{}", allow_change=True)
            run_id = store.begin_run(settings_id=settings_id, started_at=1.0, config="{}")
            call = make_call(store.next_call_id(), input_tokens=input_tokens, output_tokens=0)
            store.write(run_id, settings_id, [call], [])
        assert store.spent("large").input_tokens == 200
        config = RunConfig(prices=Prices(input=1e6, output=1e6), budget_usd=1_000, budget_tokens=1_000)
        budget = Budget.of(config, store.spent("large"), store.spent())
    finally:
        store.close()
    assert budget.try_reserve(budget.worst(input_tokens=100, output_tokens=0))
    refused = budget.worst(input_tokens=1, output_tokens=0)
    assert not budget.try_reserve(refused)
    assert "but for 100, 900 of them by earlier runs" in str(budget.exhausted(refused))
