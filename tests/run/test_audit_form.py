"""The answer form is changed by evidence, in the pipeline. Virtual time, simulated."""

from __future__ import annotations

from engine.testing.simulator.profiles import named_profile
from engine.vocabulary.config import FormChoice, Limits, Packing, Quality, Recovery, RunConfig
from support import LABELS, Outcome, make_records, simulate

TOLERANT = Quality(max_disagreement=0.25)
"""So that a few comparisons tell .05 of changed answers from too many."""


def run(count: int = 4_000, *, answer_form: FormChoice = "auto", **changes: object) -> Outcome:
    config = RunConfig(
        packing=Packing(batch_size=None),
        limits=Limits(max_concurrency=8),
        quality=TOLERANT,
        recovery=Recovery(max_failed=1.0),
        objective="cost",
        answer_form=answer_form,
    )
    return simulate(
        make_records(count), config, named_profile("agnews-compact").config(labels=LABELS, seed=3, **changes)
    )


def forms(outcome: Outcome) -> str:
    assert outcome.counters.auditor is not None
    return outcome.counters.auditor.forms.outcome


def test_keyed_answers_are_taken_where_they_hold_in_larger_batches_and_save_money() -> None:
    """The profile copies in large batches of compact answers, and not in keyed ones: the rest is asked so."""
    outcome = run()
    assert len(outcome.ok) == 4_000
    assert forms(outcome) == "taken"
    assert any(notice.startswith("answer form: keyed answers hold at B=") for notice in outcome.counters.notices)
    assert max(result.batch_size for result in outcome.results) >= 16


def test_an_endpoint_that_ignores_the_form_keeps_the_compact_one() -> None:
    """A trial is all that is lost: production never asks for what the endpoint does not give."""
    outcome = run(follows_form=False)
    assert len(outcome.ok) == 4_000
    assert forms(outcome) == "ignored"


def test_a_form_that_the_user_chose_is_kept() -> None:
    """Nothing else is tried."""
    outcome = run(2_000, answer_form="compact")
    assert len(outcome.ok) == 2_000
    assert forms(outcome) == "untried"
