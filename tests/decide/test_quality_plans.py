"""What the guard asks for of a size in use, again and again: how much, and how often."""

from __future__ import annotations

import pytest

from engine.decide.quality import QualityGuard
from engine.decide.quality_values import AuditPlan, Spending

PLENTY = Spending(audit_cost=1.0, cost_at_one=1e9, audit_requests=1.0, requests=1_000_000)


def holding(size: int) -> QualityGuard:
    """A guard that has seen enough of a size, all of it good."""
    guard = QualityGuard()
    for number in range(400):
        guard.observe_audit("lone", size, 1 + number % size, number % 3, number % 3)
    return guard


def plans(guard: QualityGuard, size: int, records_seen: int) -> list[AuditPlan]:
    """All that it wants now, one after the other."""
    found: list[AuditPlan] = []
    while (
        plan := guard.wants_audit(size=size, most=size, records_seen=records_seen, anchors=400, spending=PLENTY)
    ) is not None:
        found.append(plan)
        assert len(found) < 10
    return found


@pytest.mark.parametrize("size", [16, 32])
def test_a_size_in_use_is_looked_at_whenever_the_records_have_doubled(size: int) -> None:
    """Eight records alone, a request each, and one batch in another order; not before a thousand records, nor before
    there are twice as many as the last time."""
    guard = holding(size)
    assert plans(guard, size, 999) == []
    for seen in (1_000, 2_000, 4_000):
        assert [(plan.kind, plan.size, plan.records, plan.requests) for plan in plans(guard, size, seen)] == [
            ("lone", size, 8, 8),
            ("reordered", size, size, 1),
        ]
        assert plans(guard, size, 2 * seen - 1) == []


def test_a_verdict_says_how_many_records_with_gold_it_rests_on() -> None:
    """All that were seen at that size, right or wrong, with a lone answer or without, and none of another size."""
    guard = holding(8)
    for number in range(30):
        guard.observe_gold(8, 1 + number % 8, number % 4 != 0, alone=None if number % 2 else True)
    guard.observe_gold(4, 1, True, alone=True)
    assert (guard.verdict(8).gold, guard.verdict(4).gold, guard.verdict(16).gold) == (30, 1, 0)
