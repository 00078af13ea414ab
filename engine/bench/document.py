"""What `bench.json` holds, word for word. Units are in the names; lists of points are ready to be drawn."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.bench.figures import OpenVisit, Spread, Summary, Visit
from engine.bench.knee import Knee
from engine.bench.plan import AtMost

BENCH_VERSION = 1


class ClosedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the throughput-latency curve of one batch size, and the visits it comes from."""

    batch_size: int
    concurrency: int
    summary: Summary
    visits: list[Visit]


class OpenPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One arrival rate, and the visits it comes from.

    :ivar share: of the closed loop's throughput at this place; None where the user named the rate.
    :ivar answered_per_s: valid records a second; `summary.record_latency_s` is the effective latency.
    """

    records_per_s: float
    share: float | None
    batch_size: int
    concurrency: int
    offered_per_s: Spread | None
    unanswered: int
    arrivals: int
    late: bool
    summary: Summary
    visits: list[OpenVisit]


class Best(msgspec.Struct, frozen=True, kw_only=True):
    """The cell with the most throughput, or with a latency target the most goodput.

    :ivar by: ``records_per_s`` or ``goodput_per_s``.
    """

    batch_size: int
    concurrency: int
    by: str
    records_per_s: float
    value: float


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What the bench sent, the warm-up included.

    :ivar usd: None without prices. `worst_usd` adds the most that attempts without a reply may be billed for.
    """

    visits: int = 0
    requests: int = 0
    records_ok: int = 0
    records_failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    wasted_tokens: int = 0
    usd: float | None = None
    worst_usd: float | None = None


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and what of it fits the time.

    :ivar left_out: in words.
    :ivar tight: even the smallest grid wanted more time.
    :ivar warm_latency_s: batch size -> seconds of a request in the warm-up.
    """

    batch_sizes: list[int]
    concurrencies: list[int]
    rate_shares: list[float]
    rates: list[float]
    repeats: int
    time_s: float
    at_most: AtMost
    left_out: list[str] = []
    tight: bool = False
    warm_latency_s: dict[str, float] = {}


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """A whole bench.

    :ivar partial: it ended before its plan did; `stopped` says why.
    :ivar simulated: the endpoint says that no model stands behind it.
    :ivar closed: the closed loop: the next request of a slot is sent when its last one is answered.
    :ivar open: the open loop: records arrive at random times, whatever the endpoint does.
    :ivar visit_order: the closed-loop visits in the order in which they were made, as [batch size, in flight].
    """

    bench_version: int
    partial: bool
    stopped: str
    simulated: bool
    model: str
    endpoint: str
    task: str
    input: str
    started_at: str
    wall_s: float
    seed: int
    target_p95_s: float | None
    settings: dict[str, Any]
    versions: dict[str, str]
    planned: Planned
    totals: Totals
    closed: list[ClosedPoint]
    open: list[OpenPoint]
    best: Best | None
    knees: list[Knee]
    knee_rule: str
    visit_order: list[list[int]]
    notes: list[str]
