"""What the run store says of one run. Every figure is worked out by SQLite, so that a million rows cost no memory."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.adapters.store import RunStore
from engine.adapters.stored_second import rescue_values, rescued
from engine.decide.pricing import cost_usd, worst_usd
from engine.report.document import (
    AllRuns,
    FailedRecord,
    FailureKind,
    Moment,
    Percentiles,
    Records,
    SizeUse,
    Steady,
)
from engine.report.metrics import Counters
from engine.vocabulary.config import Prices

EXAMPLES = 5
"""Failed records shown of each kind."""

EXCERPT = 600
"""Characters of a failure's message that the report holds; ``annotate show`` has the rest."""

MOMENTS = 60
"""Points of the curve over time."""

_STEADY_MIN = 50
"""Records below which a steady part would say nothing."""

# Asked and ended by this run: neither refused before it was sent nor taken over from an earlier run's answer.
ENDED = "settings_id = ? AND run_id = ? AND answered_at >= ? AND calls <> '[]'"

# ?1 the settings, ?2 the run, ?3 and ?4 of the second model; see `stored_second`.
_INPUTS = f"""
FROM inputs i LEFT JOIN answers a ON a.settings_id = ?1 AND a.key = i.key AND a.digest = i.digest
{rescued("?3", "?4")} WHERE i.run_id = ?2
"""

_RECORDS = f"""
SELECT count(*), total(i.error IS NOT NULL), total(a.ok = 1 OR b.ok = 1), total(a.ok = 0 AND b.ok IS NULL),
    total(a.run_id <> ?2), total(a.run_id = ?2 AND a.copied) {_INPUTS}
"""

_FAILED_INPUTS = f"""
SELECT iif(i.error IS NULL, a.error_kind, 'bad-record') AS kind, i.position AS place, i.line AS line, i.id AS id,
    coalesce(i.error, a.error_message) AS message, a.calls AS calls {_INPUTS}
    AND (i.error IS NOT NULL OR a.ok = 0) AND b.ok IS NULL
"""

_FAILED_ANSWERS = f"""
SELECT a.error_kind AS kind, a.answered_at AS place, NULL AS line, a.key AS id, a.error_message AS message,
    a.calls AS calls
FROM answers a {rescued("?3", "?4")} WHERE a.settings_id = ?1 AND a.run_id = ?2 AND a.ok = 0 AND b.ok IS NULL
"""

_EXAMPLES = """
SELECT kind, count, line, id, substr(message, 1, ?5), calls FROM (
    SELECT *, row_number() OVER (PARTITION BY kind ORDER BY place) AS rank, count(*) OVER (PARTITION BY kind) AS count
    FROM ({failed}))
WHERE rank <= ?6 ORDER BY count DESC, kind, rank
"""

_CALLS = """
SELECT count(*), min(sent_at), max(sent_at + latency_s), total(latency_s), total(size), max(size), total(accepted),
    total(outcome = 'ok'), total(input_tokens > 0), total(input_tokens * (accepted = 0 AND purpose = 'ask')),
    total(cached_tokens * (accepted = 0 AND purpose = 'ask')),
    total(output_tokens * (accepted = 0 AND purpose = 'ask')), total(input_tokens * (purpose = 'audit')),
    total(cached_tokens * (purpose = 'audit')), total(output_tokens * (purpose = 'audit')),
    total(input_tokens > 0 AND accepted > 0 AND purpose = 'ask'),
    total(reasoning_tokens * (accepted = 0 AND purpose = 'ask')), total(reasoning_tokens * (purpose = 'audit')),
    total(written_tokens * (accepted = 0 AND purpose = 'ask'))
FROM calls WHERE run_id = ?
"""

REQUEST_LATENCIES = "SELECT latency_s AS value FROM calls WHERE run_id = ?"
# Copies from the store have no latency of their own.
RECORD_LATENCIES = f"SELECT latency_s AS value FROM answers WHERE {ENDED} AND (copied = 0 OR latency_s > 0)"

_RANKED = """
SELECT rank, value FROM (SELECT value, row_number() OVER (ORDER BY value) AS rank FROM ({values}))
WHERE rank IN (?, ?, ?, ?, ?)
"""

# A span of 60 s that begins with a request and does not hold one sent exactly 60 s later.
_PEAKS = """
SELECT max(requests), max(tokens), max(input), max(output) FROM (
    SELECT count(*) OVER minute AS requests, sum(input_tokens + output_tokens) OVER minute AS tokens,
        sum(input_tokens) OVER minute AS input, sum(output_tokens) OVER minute AS output
    FROM calls WHERE run_id = ? WINDOW minute AS (ORDER BY sent_at RANGE BETWEEN 59.99999 PRECEDING AND CURRENT ROW))
"""

_SLOTS = f"""
SELECT min(CAST((answered_at - ?) / ? AS INTEGER), ?) AS slot, sum(ok), sum(1 - ok) FROM answers
WHERE {ENDED} GROUP BY slot ORDER BY slot
"""

_ALL_RUNS = """
SELECT count(DISTINCT runs.id), count(calls.id), total(outcome = 'killed'), total(input_tokens),
    total(cached_tokens), total(output_tokens), total(unconfirmed_input), total(unconfirmed_output),
    total(reasoning_tokens), total(written_tokens)
FROM runs LEFT JOIN calls ON calls.run_id = runs.id WHERE runs.settings_id = ?
"""


class CallSums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the attempts of a run. Times are wall clock; None where there was no attempt.

    :ivar busy_s: seconds that requests were in flight, added up.
    :ivar billed: attempts whose reply carried input tokens.
    :ivar gave: of `billed`, those that gave an accepted answer. Audits are not among them.
    """

    count: int
    first_sent_at: float | None
    last_ended_at: float | None
    busy_s: float
    asked: int
    largest: int | None
    accepted: int
    complete: int
    billed: int
    wasted_input: int
    wasted_cached: int
    wasted_output: int
    audit_input: int
    audit_cached: int
    audit_output: int
    gave: int
    wasted_reasoning: int
    audit_reasoning: int
    wasted_written: int


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """The most in any 60 seconds; None where nothing was sent."""

    requests: int | None
    tokens: int | None
    input_tokens: int | None
    output_tokens: int | None


class Ledger:
    """Questions about one run to its store.

    :ivar query: of the store, for the questions of `timeline` and `histogram`.
    """

    def __init__(self, store: RunStore, *, run_id: int, settings_id: int) -> None:
        self.query = store.query
        self.run_id = run_id
        self._settings_id = settings_id
        self._of_second = rescue_values(store, run_id)
        self.calls = self._call_sums()

    def _call_sums(self) -> CallSums:
        row = self.query(_CALLS, (self.run_id,))[0]
        count, first, last, busy_s, asked, largest, *sums = row
        names = CallSums.__struct_fields__[-len(sums) :]
        return CallSums(
            count=count, first_sent_at=first, last_ended_at=last, busy_s=busy_s, asked=int(asked), largest=largest,
            **dict(zip(names, map(int, sums), strict=True)),
        )  # fmt: skip

    @property
    def ended_values(self) -> tuple[Any, ...]:
        """Values for `ENDED`. Without a request nothing has ended by this run's doing."""
        first = self.calls.first_sent_at
        return self._settings_id, self.run_id, float("inf") if first is None else first

    def records(self, counters: Counters) -> Records:
        """What became of the input; of a stream of single records, whose input is noted nowhere, as was counted."""
        values = (self._settings_id, self.run_id, *self._of_second)
        total, broken, ok, failed, stored, copied = map(int, self.query(_RECORDS, values)[0])
        failed += broken
        if not total:
            ok, failed = counters.records_ok, counters.records_failed
            stored, copied = counters.records_stored, counters.records_copied
            total = max(counters.records_total or 0, ok + failed)
        return Records(
            total=total, ok=ok, failed=failed, pending=total - ok - failed, stored=stored, copied=copied,
            changed=counters.records_changed, changed_lines=list(counters.changed_lines),
        )  # fmt: skip

    def failures(self) -> list[FailureKind]:
        """The failed records of the input by kind."""
        noted = self.query("SELECT 1 FROM inputs WHERE run_id = ? LIMIT 1", (self.run_id,))
        sql = _EXAMPLES.format(failed=_FAILED_INPUTS if noted else _FAILED_ANSWERS)
        kinds: dict[str, tuple[int, list[FailedRecord]]] = {}
        for row in self.query(sql, (self._settings_id, self.run_id, *self._of_second, EXCERPT, EXAMPLES)):
            kind, count, line, id_, message, calls = row
            kinds.setdefault(kind, (count, []))[1].append(_failed_record(line, id_, message, calls))
        return [FailureKind(kind=kind, count=count, examples=made) for kind, (count, made) in kinds.items()]

    def statuses(self) -> dict[str, int]:
        """HTTP status -> attempts."""
        sql = "SELECT status, count(*) FROM calls WHERE run_id = ? GROUP BY status ORDER BY status"
        return {str(status): count for status, count in self.query(sql, (self.run_id,))}

    def batch_sizes(self) -> list[SizeUse]:
        """What came of requests of each size."""
        sql = (
            "SELECT size, count(*), sum(size), sum(accepted) FROM calls WHERE run_id = ? AND purpose = 'ask' "
            "GROUP BY size ORDER BY size"
        )
        return [
            SizeUse(size=size, requests=requests, asked=asked, accepted=accepted)
            for size, requests, asked, accepted in self.query(sql, (self.run_id,))
        ]

    def request_latencies(self) -> Percentiles:
        """Of every attempt."""
        return self._percentiles(REQUEST_LATENCIES, (self.run_id,))

    def record_latencies(self) -> Percentiles:
        """Of every record that this run asked for."""
        return self._percentiles(RECORD_LATENCIES, self.ended_values)

    def _percentiles(self, values_sql: str, values: tuple[Any, ...]) -> Percentiles:
        count = int(self.query(f"SELECT count(*) FROM ({values_sql})", values)[0][0])
        if not count:
            return Percentiles()
        ranks = [-(-count * percent // 100) for percent in (50, 90, 95, 99, 100)]
        found = dict(self.query(_RANKED.format(values=values_sql), (*values, *ranks)))
        p50, p90, p95, p99, highest = (round(found[rank], 6) for rank in ranks)
        return Percentiles(p50=p50, p90=p90, p95=p95, p99=p99, max=highest, count=count)

    def peaks(self) -> Peaks:
        """The most requests, and the most of their tokens, sent within any 60 seconds."""
        requests, tokens, input_tokens, output_tokens = self.query(_PEAKS, (self.run_id,))[0]
        return Peaks(requests=requests, tokens=tokens, input_tokens=input_tokens, output_tokens=output_tokens)

    def ended(self) -> tuple[int, float | None]:
        """Valid records by this run's doing, and the seconds from the first send to the last result."""
        sql = f"SELECT total(ok), max(answered_at) FROM answers WHERE {ENDED}"
        valid, last = self.query(sql, self.ended_values)[0]
        first = self.calls.first_sent_at
        return int(valid), None if last is None or first is None else last - first

    def within(self, target_s: float) -> int:
        """Valid records by this run's doing that took no longer."""
        sql = f"SELECT total(ok) FROM answers WHERE {ENDED} AND latency_s <= ?"
        return int(self.query(sql, (*self.ended_values, target_s))[0][0])

    def steady(self, valid: int) -> Steady | None:
        """The middle of the run, where it was long enough to have one."""
        first = self.calls.first_sent_at
        if valid < _STEADY_MIN or first is None:
            return None
        sql = f"SELECT answered_at FROM answers WHERE {ENDED} AND ok = 1 ORDER BY answered_at LIMIT 1 OFFSET ?"
        begin, end = (self.query(sql, (*self.ended_values, valid * tenths // 10))[0][0] for tenths in (1, 9))
        if end <= begin:
            return None
        sql = f"SELECT count(*) FROM answers WHERE {ENDED} AND ok = 1 AND answered_at > ? AND answered_at <= ?"
        records = int(self.query(sql, (*self.ended_values, begin, end))[0][0])
        return Steady(
            records_per_s=round(records / (end - begin), 6),
            from_s=round(begin - first, 6),
            to_s=round(end - first, 6),
            records=records,
        )

    def over_time(self, span_s: float | None) -> list[Moment]:
        """Records ended in each of `MOMENTS` equal parts of the span."""
        if not span_s:
            return []
        width = span_s / MOMENTS
        values = (self.calls.first_sent_at, width, MOMENTS - 1, *self.ended_values)
        found = {slot: (ok, failed) for slot, ok, failed in self.query(_SLOTS, values)}
        return [
            Moment(at_s=round((slot + 1) * width, 6), ok=ok, failed=failed)
            for slot in range(MOMENTS)
            for ok, failed in [found.get(slot, (0, 0))]
        ]

    def all_runs(self, prices: Prices | None) -> AllRuns:
        """Every run of the same task and model."""
        sums = map(int, self.query(_ALL_RUNS, (self._settings_id,))[0])
        runs, requests, killed, input_tokens, cached, output, maybe_input, maybe_output, reasoning, written = sums
        usd = unconfirmed_usd = None
        if prices is not None:
            usd = cost_usd(
                prices, input_tokens=input_tokens, cached_tokens=cached, output_tokens=output, written_tokens=written
            )
            unconfirmed_usd = worst_usd(prices, input_tokens=maybe_input, output_tokens=maybe_output)
        return AllRuns(
            runs=runs, requests=requests, killed=killed, input_tokens=input_tokens, cached_tokens=cached,
            output_tokens=output, reasoning_tokens=reasoning, unconfirmed=maybe_input + maybe_output,
            usd=None if usd is None else round(usd, 9),
            unconfirmed_usd=None if unconfirmed_usd is None else round(unconfirmed_usd, 9),
        )  # fmt: skip


def _failed_record(line: int | None, id_: str, message: str | None, calls: str | None) -> FailedRecord:
    try:
        shown = msgspec.json.decode(id_)
    except msgspec.DecodeError:
        shown = id_
    return FailedRecord(
        id=shown, line=line, message=message or "", calls=msgspec.json.decode(calls, type=list[int]) if calls else []
    )
