"""The whole bench on virtual time, against a simulated endpoint in this process."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import pytest

from engine.bench.document import ClosedPoint
from engine.bench.feed import Feed, bench_task, make_feed
from engine.bench.figures import Limits as Allowed
from engine.bench.plan import QUICK, Caps, Grid, requests_at_most
from engine.bench.runner import Runner, Stopper
from engine.bench.sweep import Sweep, Wishes
from engine.run.compose import open_workbench
from engine.run.journal import at_once
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.made_up import CLIFF_AT_3
from engine.testing.simulator.rates import FaultRates
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import Limits, Prices, RunConfig
from engine.vocabulary.errors import InputError, RunStopped
from engine.vocabulary.values import RawRecord
from support import ENDPOINT, make_task

ONE = Grid(batch_sizes=(4,), concurrencies=(2,), repeats=2)
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - each answer is synced: that takes time
PRICES = Prices(input=1.0, output=4.0)


@dataclass
class Done:
    """A bench that has ended."""

    sweep: Sweep
    endpoint: SimulatedEndpoint
    seconds: float
    said: list[str] = field(default_factory=list)

    def point(self, batch_size: int, concurrency: int) -> ClosedPoint:
        return next(
            point
            for point in self.sweep.closed_points()
            if (point.batch_size, point.concurrency) == (batch_size, concurrency)
        )


def raws(count: int = 50) -> list[RawRecord]:
    return [RawRecord(position=n, line=n + 1, data={"id": f"r{n}", "text": f"text number {n}"}) for n in range(count)]


async def make_feed_of(rows: list[RawRecord], config: RunConfig) -> Feed:
    transport = InProcessTransport(build_endpoint(SimulatorConfig()))
    async with open_workbench(ENDPOINT, config, transport=transport, run_sync=at_once) as bench:
        return make_feed(rows, bench.prepare(make_task()), seed=0, limit=None, name="the input")


def bench(
    simulator: SimulatorConfig | None = None, *, records: int = 50, config: RunConfig | None = None,
    stop_after_s: float | None = None, **wishes: Any,
) -> Done:  # fmt: skip
    """Run a bench to its end."""
    endpoint = build_endpoint(simulator or SimulatorConfig(delay_s=1.0))
    config = config or RunConfig()
    said: list[str] = []

    async def main() -> Done:
        stopper = Stopper()
        runner = Runner(
            endpoint=ENDPOINT, config=config, task=bench_task(make_task()), virtual_time=True, stopper=stopper,
            folder=IN_MEMORY, feed=await make_feed_of(raws(records), config), transport=InProcessTransport(endpoint),
        )  # fmt: skip
        plain = {"grid": ONE, "caps": Caps(visit_s=20.0), "time_s": 600.0, "judge_client": False}
        sweep = Sweep(runner, Wishes(**(plain | wishes)), say=said.append)
        started = anyio.current_time()
        if stop_after_s is not None:
            asyncio.get_running_loop().call_later(stop_after_s, stopper.stop)
        await sweep.run()
        return Done(sweep, endpoint, anyio.current_time() - started, said)

    done: Done = virtual_time.run(main)
    return done


# -- closed loop ---------------------------------------------------------------------------------------------------


def test_throughput_is_batch_size_by_slots_by_latency() -> None:
    """Replies after one second: B * C records a second in every cell, and one second a request."""
    grid = Grid(batch_sizes=(1, 8), concurrencies=(1, 4), repeats=2)
    done = bench(grid=grid)
    assert len(done.sweep.closed_points()) == 4
    for point in done.sweep.closed_points():
        assert point.summary.records_per_s is not None
        assert point.summary.records_per_s.median == pytest.approx(point.batch_size * point.concurrency, rel=0.05)
        assert point.summary.request_latency_s["p95"].median == pytest.approx(1.0, rel=0.05)
        assert point.summary.utilisation["window"].median == pytest.approx(1.0, rel=0.05)
        assert not point.summary.short
        assert len(point.visits) == 2
    assert done.sweep.stopped == ""


def test_every_request_is_sent_and_none_is_answered_from_a_store() -> None:
    """One text in the whole input: all the same every record of every visit reaches the endpoint."""
    done = bench(records=1)
    totals = done.sweep.totals()
    assert totals.records_ok == sum(done.endpoint.ledger.sends.values())
    assert totals.requests == done.endpoint.ledger.requests
    assert totals.records_ok > 100
    assert done.sweep.notes == []


def test_what_is_counted_is_what_the_endpoint_saw() -> None:
    """Requests and tokens, warm-up, probes and open loop included."""
    done = bench(grid=Grid(batch_sizes=(1, 8), concurrencies=(1, 4), repeats=1, rate_shares=(0.5,)))
    totals, ledger = done.sweep.totals(), done.endpoint.ledger
    assert totals.requests == ledger.requests
    assert (totals.input_tokens, totals.output_tokens) == (ledger.prompt_tokens, ledger.completion_tokens)


def test_no_visit_sends_more_than_its_requests() -> None:
    """The cap that is announced beforehand holds."""
    caps = Caps(visit_s=1_000.0, requests=10)
    done = bench(caps=caps, time_s=6_000.0)
    assert {visit.requests for visit in done.point(4, 2).visits} <= set(range(10, 13))  # a probe is a smaller request
    assert requests_at_most(2, caps) == 10


def test_a_server_with_slots_has_its_knee_there() -> None:
    """Eight slots: throughput stops rising at 8 in flight, latency doubles at 16."""
    simulator = SimulatorConfig(delay_s=1.0, max_concurrency=8, queues=True)
    done = bench(simulator, grid=Grid(batch_sizes=(1,), concurrencies=(1, 2, 4, 8, 16), repeats=2))
    (knee,) = done.sweep.knees()
    assert (knee.concurrency, knee.power_concurrency, knee.at_end) == (8, 8, False)
    assert done.point(1, 16).summary.request_latency_s["p50"].median == pytest.approx(2.0, rel=0.1)


def test_errors_of_a_cell_are_counted_there_and_the_sweep_goes_on() -> None:
    """An endpoint that takes two at once refuses some of eight: the cell says so, and all cells are measured."""
    simulator = SimulatorConfig(delay_s=0.5, max_concurrency=2)
    done = bench(simulator, grid=Grid(batch_sizes=(1,), concurrencies=(1, 8), repeats=2))
    assert done.point(1, 1).summary.errors == {}
    assert done.point(1, 8).summary.errors["rate-limit"] > 0
    assert done.point(1, 8).summary.http_429 > 0
    assert done.sweep.stopped == ""


def test_a_batch_size_that_never_works_is_left_out_by_name() -> None:
    """Above three items the model answers prose: one a request is measured, eight are named."""
    done = bench(
        SimulatorConfig(delay_s=0.5, faults=CLIFF_AT_3),
        grid=Grid(batch_sizes=(1, 8), concurrencies=(2,), repeats=1),
    )
    assert {point.batch_size for point in done.sweep.closed_points()} == {1}
    assert any("batch size 8 is left out" in note for note in done.sweep.notes)


def test_nothing_works_is_an_error_with_the_endpoint_s_words() -> None:
    """A wrong key: no figures, one clear reason."""
    with pytest.raises(RunStopped, match="key"):
        bench(SimulatorConfig(api_key="right"))


def test_an_endpoint_that_dies_ends_the_sweep_with_what_there_is() -> None:
    """The quota is spent in the middle: partial, and the reason is kept."""
    done = bench(SimulatorConfig(delay_s=0.5, quota_tokens=60_000), grid=QUICK)
    assert done.sweep.stopped
    assert done.sweep.closed_points()


# -- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay_s", "requests"), [(0.05, 20), (2.0, 20), (15.0, None), (60.0, None)])
def test_quick_ends_in_time_however_slow_the_endpoint_is(delay_s: float, requests: int | None) -> None:
    """From 50 ms to a minute a request: over within its time, with points of the curve and, up to 15 s, of arrivals."""
    caps = Caps(visit_s=12.0, quick=True, requests=requests)
    done = bench(SimulatorConfig(delay_s=delay_s), grid=QUICK, caps=caps, time_s=585.0)
    assert done.seconds <= 585.0
    assert done.sweep.closed_points()
    assert done.sweep.open_points() or delay_s > 15.0
    assert done.sweep.stopped == ""


def test_a_slow_endpoint_gets_fewer_cells_and_is_told_so() -> None:
    """At 15 s a request not everything fits into ten minutes; what does not is named."""
    done = bench(SimulatorConfig(delay_s=15.0), grid=QUICK, caps=Caps(visit_s=12.0, quick=True), time_s=585.0)
    assert done.sweep.fitted.left_out
    assert any("left out" in line for line in done.said)
    assert not any(point.summary.short for point in done.sweep.closed_points())


def test_an_endpoint_that_never_answers_is_given_up_within_the_warm_up() -> None:
    """Ten minutes a request: nothing can be measured in ten minutes, and that is said in two."""
    with pytest.raises(RunStopped):
        bench(SimulatorConfig(delay_s=3_600.0), grid=QUICK, time_s=585.0)


class ColdAtFirst:
    """A latency of 30 s for the first two requests and of one after: a model that loads, a cache that fills."""

    def __init__(self) -> None:
        self._count = 0

    def seconds(self, *, uncached: int, output: int, in_flight: int, rng: Random) -> float:
        self._count += 1
        return 30.0 if self._count <= 2 else 1.0


def test_a_cold_start_does_not_shrink_the_plan() -> None:
    """What the first two requests take is no measure of the others."""
    done = bench(SimulatorConfig(latency=ColdAtFirst()), grid=QUICK, caps=Caps(visit_s=12.0, requests=20), time_s=585.0)
    assert done.sweep.fitted.left_out == ()
    assert done.sweep.latencies_s[1] == pytest.approx(1.0, rel=0.1)


def test_cells_are_visited_in_another_order_each_repeat() -> None:
    """Interleaved: every cell once before any cell twice."""
    caps = Caps(visit_s=12.0, requests=8)
    done = bench(grid=Grid(batch_sizes=(1, 4), concurrencies=(1, 2), repeats=3), caps=caps)
    rounds = [done.sweep.visit_order[start : start + 4] for start in (0, 4, 8)]
    assert all(sorted(one) == sorted(rounds[0]) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


# -- limits and money ------------------------------------------------------------------------------------------------


def test_the_requests_a_minute_hold_across_cells() -> None:
    """Every cell has an engine of its own; all the same no minute sees more than was allowed."""
    config = RunConfig(limits=Limits(requests_per_minute=60.0))
    done = bench(
        SimulatorConfig(delay_s=0.2), config=config, grid=Grid(batch_sizes=(1,), concurrencies=(1, 4), repeats=3),
        limits=Allowed(requests_per_minute=60.0), time_s=900.0,
    )  # fmt: skip
    assert done.endpoint.ledger.most_in_window(60.0)[0] <= 60
    summary = done.point(1, 4).summary
    assert summary.bound == "rpm"
    assert summary.utilisation["rpm"].median > 0.8


def test_the_budget_is_never_passed() -> None:
    """Every cell knows what the others have spent."""
    config = RunConfig(prices=PRICES, budget_usd=0.05)
    done = bench(config=config, grid=QUICK, prices=PRICES, budget_usd=0.05)
    ledger = done.endpoint.ledger
    assert (ledger.prompt_tokens * 1.0 + ledger.completion_tokens * 4.0) / 1e6 <= 0.05
    assert "budget" in done.sweep.stopped
    assert done.sweep.totals().usd == pytest.approx((ledger.prompt_tokens * 1.0 + ledger.completion_tokens * 4.0) / 1e6)


def test_the_budget_in_tokens_is_never_passed() -> None:
    """It needs no prices, and holds over all cells as well, replies that were lost in it included."""
    simulator = SimulatorConfig(delay_s=1.0, faults=FaultRates({"reset": 0.05, "http_500": 0.05}))
    done = bench(simulator, grid=QUICK, budget_tokens=80_000)
    ledger = done.endpoint.ledger
    assert 60_000 < ledger.prompt_tokens + ledger.completion_tokens <= 80_000
    assert "the budget of 80,000 tokens (--budget-tokens) leaves no room" in done.sweep.stopped
    assert done.sweep.totals().visits > 1, "one alone shows nothing"


# -- stop ----------------------------------------------------------------------------------------------------------


def test_a_stop_keeps_what_was_measured() -> None:
    """Interrupted in the middle: the answers in flight are waited for, and nothing more is sent."""
    done = bench(grid=QUICK, caps=Caps(visit_s=12.0, requests=30), stop_after_s=100.0)
    assert done.sweep.stopped == "interrupted"
    assert done.sweep.closed_points()
    assert done.seconds < 105.0
    assert done.sweep.totals().requests == done.endpoint.ledger.requests


# -- open loop -----------------------------------------------------------------------------------------------------


def test_below_what_it_bears_records_wait_for_one_reply() -> None:
    """Half of the best rate: the effective latency is about one request, nothing is left over."""
    done = bench(grid=Grid(batch_sizes=(1,), concurrencies=(8,), repeats=2, rate_shares=(0.4,)))
    (point,) = done.sweep.open_points()
    assert point.records_per_s == pytest.approx(0.4 * 8, rel=0.05)
    assert point.unanswered == 0
    assert 1.0 <= point.summary.record_latency_s["p50"].median <= 1.2


def test_above_what_it_bears_the_effective_latency_shows_the_queue() -> None:
    """Twice the best rate: requests still take a second each, and records wait far longer."""
    done = bench(grid=Grid(batch_sizes=(1,), concurrencies=(8,), repeats=1, rates=(16.0,)))
    (point,) = done.sweep.open_points()
    assert point.unanswered > 0
    assert point.summary.request_latency_s["p95"].median == pytest.approx(1.0, rel=0.1)
    assert point.summary.record_latency_s["p95"].median > 3.0


def test_arrivals_share_requests_within_the_batch_size() -> None:
    """Records that arrive together go together: fewer requests than records."""
    done = bench(grid=Grid(batch_sizes=(8,), concurrencies=(4,), repeats=1, rate_shares=(0.9,)))
    (point,) = done.sweep.open_points()
    assert point.visits[0].figures.mean_batch_size > 1.2


def test_with_a_target_the_best_cell_is_the_one_with_the_most_within_it() -> None:
    """Sixteen in flight on eight slots doubles the latency: within 1.5 s, eight is the most."""
    simulator = SimulatorConfig(delay_s=1.0, max_concurrency=8, queues=True)
    done = bench(simulator, grid=Grid(batch_sizes=(1,), concurrencies=(4, 8, 16), repeats=2), target_p95_s=1.5)
    best = done.sweep.best()
    assert best is not None
    assert (best.concurrency, best.by) == (8, "goodput_per_s")
    goodput = done.point(1, 16).summary.goodput_per_s
    assert goodput is not None
    assert goodput.median < 1.0


# -- the input -----------------------------------------------------------------------------------------------------


def test_records_that_cannot_be_read_are_skipped_and_counted() -> None:
    """A bench is no place to mend data; but one record at least must be there."""
    broken = RawRecord(position=0, line=1, error="no JSON")

    async def main() -> None:
        feed = await make_feed_of([broken, *raws(3)], RunConfig())
        assert (len(feed), feed.skipped) == (3, 1)
        with pytest.raises(InputError, match="no record that could be sent; line 1: no JSON"):
            await make_feed_of([broken], RunConfig())

    virtual_time.run(main)


def test_the_input_goes_round_and_round_and_no_id_comes_twice() -> None:
    """Every record before any a second time, over visits too."""

    async def main() -> None:
        feed = await make_feed_of(raws(5), RunConfig())
        first, second = feed.take(3), feed.take(7)
        assert len({row["text"] for row in first + second[:2]}) == 5
        assert len({row["bench id"] for row in second}) == 7

    virtual_time.run(main)
