"""Where a throughput curve bends. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

NEAR_BEST = 0.95
RULE = (
    f"knee: the fewest requests in flight with at least {NEAR_BEST:.0%} of the best median throughput at this batch "
    "size; power: the most throughput / latency (Kleinrock 1979)"
)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the curve of one batch size. Medians over the repeats."""

    concurrency: int
    records_per_s: float
    latency_s: float | None


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """Where to stop raising the concurrency.

    :ivar concurrency: the fewest in flight with `NEAR_BEST` of the best throughput: beyond it, only latency grows.
    :ivar power_concurrency: where throughput / latency is highest, for those who wait for each answer. Source: L.
        Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer communications", ICC
        1979. None without latencies.
    :ivar at_end: the knee is the largest concurrency that was tried, so the curve may go on rising.
    """

    batch_size: int
    concurrency: int
    records_per_s: float
    power_concurrency: int | None
    at_end: bool


def find_knee(batch_size: int, points: Sequence[Point]) -> Knee | None:
    """The knee of one batch size; None where nothing was answered.

    Refused: Kneedle (Satopaa et al. 2011). On a handful of points its answer moves with the largest concurrency that
    was tried, because it scales the curve to its own ends.
    """
    points = sorted((point for point in points if point.records_per_s > 0), key=lambda point: point.concurrency)
    if not points:
        return None
    best = max(point.records_per_s for point in points)
    knee = next(point for point in points if point.records_per_s >= NEAR_BEST * best)
    timed = [(point.records_per_s / point.latency_s, point) for point in points if point.latency_s]
    power = max(timed, key=lambda pair: pair[0])[1].concurrency if timed else None
    return Knee(
        batch_size=batch_size,
        concurrency=knee.concurrency,
        records_per_s=knee.records_per_s,
        power_concurrency=power,
        at_end=len(points) > 1 and knee is points[-1],
    )
