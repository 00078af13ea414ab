"""How latencies are spread, counted by SQLite between edges that fit them."""

from __future__ import annotations

import math
from typing import Any

from engine.report.ledger import RECORD_LATENCIES, REQUEST_LATENCIES, Ledger
from engine.report.series import Histogram, SizeLatency

MOST_BINS = 40
_WIDE = 12.0  # times the least: beyond that, equal steps would put most values into one bin
_LEAST_S = 1e-4  # what is shorter is counted as this: a logarithm needs something

_SIZES = """
SELECT size, count(*), total(accepted), total(latency_s), max(iif(rank = (count * 50 + 99) / 100, latency_s, NULL)),
    max(iif(rank = (count * 95 + 99) / 100, latency_s, NULL))
FROM (SELECT size, accepted, latency_s, row_number() OVER (PARTITION BY size ORDER BY latency_s) AS rank,
    count(*) OVER (PARTITION BY size) AS count
    FROM calls WHERE run_id = ? AND purpose = 'ask')
GROUP BY size ORDER BY size
"""


def request_histogram(ledger: Ledger) -> Histogram | None:
    """Of every attempt."""
    return _histogram(ledger, REQUEST_LATENCIES, (ledger.run_id,))


def record_histogram(ledger: Ledger) -> Histogram | None:
    """Of every record that this run asked for."""
    return _histogram(ledger, RECORD_LATENCIES, ledger.ended_values)


def size_latencies(ledger: Ledger) -> list[SizeLatency]:
    """By records in a request, the smallest first."""
    return [
        SizeLatency(
            size=size, requests=requests, accepted=int(accepted), busy_s=round(busy_s, 6), p50_s=round(half, 6),
            p95_s=round(most, 6),
        )
        for size, requests, accepted, busy_s, half, most in ledger.query(_SIZES, (ledger.run_id,))
    ]  # fmt: skip


def edges_between(least_s: float, most_s: float) -> tuple[list[float], bool]:
    """Edges around values from `least_s` to `most_s`, and whether they grow by a factor.

    :return: at most `MOST_BINS` + 1 edges, on round numbers: parts of a decade, or from 0 in steps of 1, 2 or 5 times
        a power of ten.
    """
    least_s, most_s = max(least_s, _LEAST_S), max(most_s, _LEAST_S)
    if most_s > _WIDE * least_s:
        return _by_factor(least_s, most_s), True
    return _by_step(most_s), False


def _by_factor(least_s: float, most_s: float) -> list[float]:
    decades = math.log10(most_s / least_s)
    steps = next((steps for steps in (20, 10, 5, 2) if decades * steps + 2 <= MOST_BINS), 1)
    begin = math.floor(math.log10(least_s) * steps)
    end = math.floor(math.log10(most_s) * steps) + 1
    return [10 ** (place / steps) for place in range(begin, end + 1)]


def _by_step(most_s: float) -> list[float]:
    rough = most_s / (MOST_BINS - 2)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough)
    return [place * step for place in range(math.floor(most_s / step) + 2)]


def _histogram(ledger: Ledger, values_sql: str, values: tuple[Any, ...]) -> Histogram | None:
    least_s, most_s = ledger.query(f"SELECT min(value), max(value) FROM ({values_sql})", values)[0]
    if least_s is None:
        return None
    edges_s, is_logarithmic = edges_between(least_s, most_s)
    inner = edges_s[1:-1]
    slot = " ".join(f"WHEN value < ? THEN {place}" for place in range(len(inner)))
    chosen = f"CASE {slot} ELSE {len(inner)} END" if inner else "0"
    sql = f"SELECT {chosen} AS slot, count(*) FROM ({values_sql}) GROUP BY slot"
    counts = [0] * (len(edges_s) - 1)
    for place, count in ledger.query(sql, (*inner, *values)):
        counts[place] = count
    return Histogram(edges_s=[round(edge, 9) for edge in edges_s], counts=counts, logarithmic=is_logarithmic)
