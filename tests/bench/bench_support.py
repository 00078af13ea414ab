"""Documents of benches that were never made, with figures that follow from each other as in one that was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from engine.bench import figures, knee
from engine.bench.document import BENCH_VERSION, Bench, ClosedPoint, OpenPoint, Planned, Totals
from engine.bench.figures import OpenVisit, Visit
from engine.bench.plan import AtMost
from engine.bench.sweep import best_of, knees_of
from engine.report.document import Percentiles

Rate = Callable[[int, int], float]


def make_visit(records_per_s: float, latency_s: float, **changes: Any) -> Visit:
    """A visit with these figures; nothing answered where the rate is 0."""
    ok = records_per_s > 0
    times = {"p50": 1.0, "p90": 1.2, "p95": 1.3, "p99": 1.5, "max": 1.6}
    taken = (
        Percentiles(**{rank: factor * latency_s for rank, factor in times.items()}, count=50) if ok else Percentiles()
    )
    visit = Visit(
        repeat=0, short=False, steady_s=5.0, measured_requests=50, requests=60, records_ok=60 if ok else 0,
        records_failed=0, http_429=0, errors={} if ok else {"server": 60}, records_per_s=records_per_s,
        requests_per_s=records_per_s, tokens_per_s=100 * records_per_s, goodput_per_s=None, request_latency_s=taken,
        record_latency_s=taken, utilisation={"window": 0.98} if ok else {}, input_tokens=5000, cached_tokens=0,
        output_tokens=1000, wasted_tokens=0 if ok else 6000, waste_share=0.0 if ok else 1.0,
        tokens_per_record=100.0 if ok else None, usd_per_1000=None, mean_batch_size=1.0, abandoned=0,
    )  # fmt: skip
    return msgspec.structs.replace(visit, **changes)


def make_closed(batch_size: int, concurrency: int, visits: Sequence[Visit]) -> ClosedPoint:
    """A cell with these visits."""
    return ClosedPoint(
        batch_size=batch_size, concurrency=concurrency, summary=figures.summary(visits), visits=list(visits)
    )


def make_open(records_per_s: float, latency_s: float, *, unanswered: int = 0, answered_per_s: float) -> OpenPoint:
    """An arrival rate, visited once."""
    visit = OpenVisit(
        offered_per_s=records_per_s, arrivals=200, unanswered=unanswered, late_s=0.0,
        figures=make_visit(answered_per_s, latency_s),
    )  # fmt: skip
    return OpenPoint(
        records_per_s=records_per_s, share=0.5, batch_size=4, concurrency=8,
        offered_per_s=figures.spread([records_per_s]), unanswered=unanswered, arrivals=200, late=False,
        summary=figures.summary([visit.figures]), visits=[visit],
    )  # fmt: skip


def make_bench(closed: Sequence[ClosedPoint], opened: Sequence[OpenPoint] = (), **changes: Any) -> Bench:
    """A bench with these cells."""
    by = "records_per_s" if changes.get("target_p95_s") is None else "goodput_per_s"
    visits = [visit for point in closed for visit in point.visits]
    document = Bench(
        bench_version=BENCH_VERSION, partial=False, stopped="", simulated=True, model="m",
        endpoint="http://127.0.0.1:1/v1", task="task.toml", input="in.jsonl", started_at="2026-01-02T03:04:05+00:00",
        wall_s=61.0, seed=7, target_p95_s=None,
        settings={"requests_per_minute": None, "prices": None, "timeout_s": 60.0}, versions={"python": "3.12.1"},
        planned=Planned(
            batch_sizes=sorted({point.batch_size for point in closed}),
            concurrencies=sorted({point.concurrency for point in closed}), rate_shares=[], rates=[], repeats=2,
            time_s=600.0, at_most=AtMost(visits=1, requests=1, records=1, input_tokens=1, output_tokens=1),
        ),
        totals=Totals(
            visits=len(visits), requests=sum(visit.requests for visit in visits),
            records_ok=sum(visit.records_ok for visit in visits),
            input_tokens=sum(visit.input_tokens for visit in visits),
            output_tokens=sum(visit.output_tokens for visit in visits),
            wasted_tokens=sum(visit.wasted_tokens for visit in visits),
        ),
        closed=list(closed), open=list(opened), best=best_of(closed, by) or best_of(closed, "records_per_s"),
        knees=knees_of(closed), knee_rule=knee.RULE, visit_order=[], notes=[],
    )  # fmt: skip
    return msgspec.structs.replace(document, **changes)


def make_grid(sizes: Sequence[int], concurrencies: Sequence[int], rate: Rate) -> list[ClosedPoint]:
    """Cells of two visits each, 4 % apart, whose latency follows from the requests in flight (Little's law)."""
    return [
        make_closed(
            size, many,
            [
                make_visit(each, size * many / each if each else 0.0, usd_per_1000=0.2 / size, goodput_per_s=each)
                for each in (0.98 * rate(size, many), 1.02 * rate(size, many))
            ],
        )
        for size in sizes
        for many in concurrencies
    ]  # fmt: skip
