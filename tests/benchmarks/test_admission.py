"""The benchmarks of admission, packing and the report: what they compare with is right, and they run."""

from __future__ import annotations

import json

import pytest

from benchmarks import admission, agreement, packing
from benchmarks.admission_arms import Cell, endpoint_of, lower_bound_s, measure
from engine import Limits
from engine.testing.simulator.endpoint import SimulatedEndpoint


def make_cell(**simulator: object) -> Cell:
    return Cell(name="a cell", simulator={"latency": "fixed", "delay_s": 2.0, **simulator}, records=60)


def ask_each_second(endpoint: SimulatedEndpoint, count: int) -> None:
    for second in range(count):
        items = json.dumps({"items": [{"id": "k3f-1", "input": f"text {second}"}]})
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": items}], "max_tokens": 50}).encode()
        plan = endpoint.begin(body, {}, float(second))
        endpoint.end(plan, second + plan.delay_s)


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [((), 92.0), (((30.0, 0.5), (60.0, 1.0)), 107.0), (((80.0, 0.5),), 102.0), (((100.0, 0.5),), 92.0)],
)
def test_the_bound_is_the_charge_over_the_limit_and_one_latency(
    schedule: tuple[tuple[float, float], ...], seconds: float
) -> None:
    """90 requests at 60 a minute take 90 s and a latency of 2 s; a limit that halves takes twice as long meanwhile."""
    cell = Cell(name="a cell", simulator={"rpm": 60, "latency": "fixed", "delay_s": 2.0}, records=90, schedule=schedule)
    endpoint = endpoint_of(cell, 0)
    ask_each_second(endpoint, 90)
    assert lower_bound_s(cell, endpoint.ledger) == pytest.approx(seconds)


def test_refused_requests_are_not_in_the_bound_but_in_the_fullest_minute() -> None:
    """They cost the endpoint nothing of its limit, and are ours all the same."""
    cell = make_cell(rpm=30, limit_window_s=1.0)
    endpoint = endpoint_of(cell, 0)
    ask_each_second(endpoint, 60)
    assert lower_bound_s(cell, endpoint.ledger) == pytest.approx(62.0)
    figures = measure(cell, "engine", 0, endpoint, failed=0)
    assert (figures.refused, figures.most, figures.silence_s) == (0.5, 2.0, 2.0)
    assert figures.ratio == pytest.approx((58 + 2) / 62, abs=0.001)


@pytest.mark.parametrize("arm", ["engine", "pacer"])
def test_both_arms_label_everything(arm: str) -> None:
    """One minute under a limit of requests: no record lost, near the bound."""
    limits = Limits(requests_per_minute=60, max_concurrency=16)
    cell = Cell(name="a cell", simulator={"rpm": 60, "limit_window_s": 1.0}, records=240, limits=limits)
    figures = admission.run(cell, arm, 0)
    assert figures.failed == 0
    assert figures.requests >= 60
    assert figures.ratio < 1.15


def test_every_cell_can_be_built() -> None:
    """A typo in a setting would only show after minutes."""
    cells = [*admission.known(6), *admission.unknown(6), *admission.changing(6), *admission.sockets(1)]
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        endpoint_of(cell, 0)


def test_packing_is_compared_with_the_fewest_possible() -> None:
    """Nobody can do better than that, and the report of the server's own count is there."""
    cell = packing.Cell(name="small", binds="both", budget=1_500, cap=10, median=60, sigma=0.5)
    figures = packing.run(cell, 8, 0)
    assert figures.failed == 0
    assert figures.ratio >= 1.0
    assert 0.5 < figures.worst < 1.2


@pytest.mark.parametrize("cell", [cell for cell in agreement.CELLS if not cell.sockets], ids=lambda cell: cell.name)
def test_the_report_agrees_with_the_endpoint(cell: agreement.Cell) -> None:
    """Counts and tokens exactly, latencies within 5 %."""
    figures = agreement.run(cell, 150, 1)
    assert len(figures) >= 13
    assert [figure for figure in figures if figure.off > figure.within] == []
