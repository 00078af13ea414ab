"""The run in slices of time, asked of the store. SQLite adds up, so that a million calls are never a list in Python."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.report.ledger import ENDED, Ledger
from engine.report.series import Timeline

MOST_BINS = 120
_FEWEST_BINS = 12
_CALLS_A_BIN = 4  # or a slice with one call more than its neighbours looks like an event

_SENT = """
SELECT min(CAST((sent_at - ?) / ? AS INTEGER), ?) AS slot, count(*), total(sent_at - ?),
    total(iif(purpose = 'ask', size, 0)), total(purpose = 'ask'), total(input_tokens), total(cached_tokens),
    total(output_tokens), total(iif(accepted = 0 AND purpose = 'ask', input_tokens + output_tokens, 0))
FROM calls WHERE run_id = ? GROUP BY slot
"""

_CALLS_ENDED = """
SELECT min(CAST((sent_at + latency_s - ?) / ? AS INTEGER), ?) AS slot, outcome, count(*), total(sent_at + latency_s - ?)
FROM calls WHERE run_id = ? GROUP BY slot, outcome
"""

_RECORDS = f"""
SELECT min(CAST((answered_at - ?) / ? AS INTEGER), ?) AS slot, total(ok), total(1 - ok) FROM answers
WHERE {ENDED} GROUP BY slot
"""

# Nearest rank, as everywhere in the report.
_PERCENTILES = """
SELECT slot, max(iif(rank = (count * 50 + 99) / 100, value, NULL)),
    max(iif(rank = (count * 95 + 99) / 100, value, NULL))
FROM (SELECT slot, value, row_number() OVER (PARTITION BY slot ORDER BY value) AS rank,
    count(*) OVER (PARTITION BY slot) AS count
    FROM (SELECT min(CAST(({at} - ?) / ? AS INTEGER), ?) AS slot, latency_s AS value FROM {source}))
GROUP BY slot
"""
_REQUEST_PERCENTILES = _PERCENTILES.format(at="sent_at + latency_s", source="calls WHERE run_id = ?")
_RECORD_PERCENTILES = _PERCENTILES.format(
    at="answered_at", source=f"answers WHERE {ENDED} AND (copied = 0 OR latency_s > 0)"
)

IDLE_S = 10.0
"""A gap between requests that is shorter belongs to pacing, and not to a pause."""

# Where a request is sent after all before it have ended, nothing was in flight in between.
_IDLE = """
SELECT total(sent_at - until) FROM (
    SELECT sent_at, max(sent_at + latency_s) OVER (
        ORDER BY sent_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS until
    FROM calls WHERE run_id = ?)
WHERE sent_at - until >= ?
"""


class _Slices(msgspec.Struct, frozen=True):
    """`count` slices of `bin_s` seconds from `first` (wall time)."""

    first: float
    bin_s: float
    count: int

    @property
    def values(self) -> tuple[float, float, int]:
        """For `min(CAST((at - ?) / ? AS INTEGER), ?)`."""
        return self.first, self.bin_s, self.count - 1


def idle_s(ledger: Ledger) -> float:
    """Seconds of the gaps of `IDLE_S` or more between the first send and the last byte with nothing in flight."""
    return float(ledger.query(_IDLE, (ledger.run_id, IDLE_S))[0][0])


def timeline(ledger: Ledger, last_answer_s: float | None) -> Timeline | None:
    """The run in slices; None when nothing was sent, or it took no time.

    :param last_answer_s: after the first send.
    """
    calls = ledger.calls
    if calls.first_sent_at is None or calls.last_ended_at is None:
        return None
    span_s = max(calls.last_ended_at - calls.first_sent_at, last_answer_s or 0.0)
    if span_s <= 0:
        return None
    count = max(_FEWEST_BINS, min(MOST_BINS, calls.count // _CALLS_A_BIN))
    slices = _Slices(calls.first_sent_at, span_s / count, count)
    return _filled(ledger, slices)


def _filled(ledger: Ledger, slices: _Slices) -> Timeline:
    sent = _columns(ledger.query(_SENT, (*slices.values, slices.first, ledger.run_id)), slices, 8)
    count, since, asked, asks, tokens_input, cached, output, wasted = sent
    ended_rows = ledger.query(_CALLS_ENDED, (*slices.values, slices.first, ledger.run_id))
    ended, ended_since = [0.0] * slices.count, [0.0] * slices.count
    causes: dict[str, list[int]] = {}
    for slot, outcome, number, at_s in ended_rows:
        ended[slot] += number
        ended_since[slot] += at_s
        if outcome != "ok":
            causes.setdefault(outcome, [0] * slices.count)[slot] += number
    ok, failed = _columns(ledger.query(_RECORDS, (*slices.values, *ledger.ended_values)), slices, 2)
    request_p50, request_p95 = _measured(ledger, _REQUEST_PERCENTILES, (*slices.values, ledger.run_id), slices)
    record_p50, _ = _measured(ledger, _RECORD_PERCENTILES, (*slices.values, *ledger.ended_values), slices)
    return Timeline(
        bin_s=slices.bin_s,
        at_s=[round((slot + 1) * slices.bin_s, 6) for slot in range(slices.count)],
        sent=_whole(count),
        ended=_whole(ended),
        records_ok=_whole(ok),
        records_failed=_whole(failed),
        in_flight=_in_flight(slices, count, since, ended, ended_since),
        batch_size=[round(size / of, 3) if of else None for size, of in zip(asked, asks, strict=True)],
        tokens_input=_whole(tokens_input),
        tokens_cached=_whole(cached),
        tokens_output=_whole(output),
        tokens_wasted=_whole(wasted),
        request_p50_s=request_p50,
        request_p95_s=request_p95,
        record_p50_s=record_p50,
        causes=dict(sorted(causes.items(), key=lambda item: -sum(item[1]))),
    )


def _in_flight(
    slices: _Slices, sent: list[float], sent_s: list[float], ended: list[float], ended_s: list[float]
) -> list[float]:
    """The mean number in flight in each slice: its integral, from the moments of sends and ends added up."""
    means, flying = [], 0.0
    for slot in range(slices.count):
        until_s = (slot + 1) * slices.bin_s
        busy_s = flying * slices.bin_s
        busy_s += sent[slot] * until_s - sent_s[slot]
        busy_s -= ended[slot] * until_s - ended_s[slot]
        flying += sent[slot] - ended[slot]
        means.append(round(max(0.0, busy_s / slices.bin_s), 4))
    return means


def _columns(rows: list[tuple[Any, ...]], slices: _Slices, width: int) -> list[list[float]]:
    """Rows of (slot, values...) as one column for each value; 0 where there was no row."""
    columns = [[0.0] * slices.count for _ in range(width)]
    for slot, *values in rows:
        for column, value in zip(columns, values, strict=True):
            column[slot] = float(value)
    return columns


def _measured(
    ledger: Ledger, sql: str, values: tuple[Any, ...], slices: _Slices
) -> tuple[list[float | None], list[float | None]]:
    p50: list[float | None] = [None] * slices.count
    p95: list[float | None] = [None] * slices.count
    for slot, half, most in ledger.query(sql, values):
        p50[slot], p95[slot] = round(half, 6), round(most, 6)
    return p50, p95


def _whole(values: list[float]) -> list[int]:
    return [round(value) for value in values]
