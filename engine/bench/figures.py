"""From the calls of one visit to its figures, and from repeats to a spread. Pure. Words as in docs/design/bench.md."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from engine.bench.plan import PROBES, Cell, OpenCell
from engine.decide.pricing import cost_usd
from engine.report.document import Percentiles
from engine.vocabulary.config import Prices

_MINUTE_S = 60.0
_FEWEST = 2
"""Requests that must end in the steady window, or one turn of every slot if that is more."""
_RAMP_SHARE = 0.1
"""Of an open loop's schedule, what is left out: the queue starts empty."""
_LATE_SHARE = 0.1
"""Of the median effective latency: a client that hands records over so much later than scheduled is measured too."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP attempt, as the run store has it. Times are seconds on one clock.

    :ivar outcome: ``ok``, or why an asked record was left unanswered.
    """

    sent_s: float
    ended_s: float
    size: int
    accepted: int
    status: int
    outcome: str
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    unconfirmed_input: int = 0
    unconfirmed_output: int = 0

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One record that has ended: when, how long after the engine took it in, and whether it is valid."""

    at_s: float
    latency_s: float
    ok: bool


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The steady part of a visit, (from_s, to_s]."""

    from_s: float
    to_s: float

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return self.to_s - self.from_s

    def holds(self, at_s: float) -> bool:
        """Whether a moment is in it."""
        return self.from_s < at_s <= self.to_s


def share_in(call: Seen, window: Window) -> float:
    """How much of a request lies in a window: the share of its time, from 0 to 1.

    Rates add up these shares. Whole requests by their end would depend on where in its turn each slot happens to be at
    both ends of the window: by up to a request a slot, which in a slow cell is a tenth of all.
    """
    if call.ended_s <= call.sent_s:
        return float(window.holds(call.ended_s))
    inside = min(call.ended_s, window.to_s) - max(call.sent_s, window.from_s)
    return max(0.0, inside) / (call.ended_s - call.sent_s)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What was allowed, for the utilisation."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one visit of one cell. Rates are of the steady window, sums of the whole visit.

    :ivar short: too few requests ended for a steady window: rates are of the whole visit, ramp-up and all.
    :ivar steady_s: length of the steady window, 0 for a short visit; `measured_requests` ended in it.
    :ivar errors: why attempts left asked records unanswered -> attempts, of the whole visit.
    :ivar goodput_per_s: valid records a second within the latency target; None without a target.
    :ivar request_latency_s: last byte - sent, of attempts that brought an accepted answer.
    :ivar record_latency_s: closed loop: from accepted by the engine to stored. Open loop: the effective latency, from
        the scheduled arrival to the answer; a record not answered in time has its age so far.
    :ivar utilisation: used / allowed, for each limit: ``window`` (requests in flight), ``rpm``, ``tpm``.
    :ivar waste_share: tokens of attempts that gave no accepted answer / all tokens.
    :ivar usd_per_1000: dollars for 1,000 valid records; None without prices.
    :ivar mean_batch_size: records in an attempt; less than the cell's where the token budgets allow no more.
    :ivar stopped: why the visit ended before its time; empty if it did not.
    :ivar abandoned: requests given up when the visit's time was over.
    """

    repeat: int
    short: bool
    steady_s: float
    measured_requests: int
    requests: int
    records_ok: int
    records_failed: int
    http_429: int
    errors: dict[str, int]
    records_per_s: float
    requests_per_s: float
    tokens_per_s: float
    goodput_per_s: float | None
    request_latency_s: Percentiles
    record_latency_s: Percentiles
    utilisation: dict[str, float]
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    wasted_tokens: int
    waste_share: float | None
    tokens_per_record: float | None
    usd_per_1000: float | None
    mean_batch_size: float
    abandoned: int
    client_cpu_share: float | None = None
    stopped: str = ""


class OpenVisit(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one visit of one arrival rate.

    :ivar offered_per_s: records a second that arrived; `arrivals` in all.
    :ivar unanswered: arrivals without an answer when the visit's time was over: the rate is more than is borne.
    :ivar late_s: how much later than scheduled the 99th percentile was handed to the engine.
    """

    offered_per_s: float
    arrivals: int
    unanswered: int
    late_s: float
    figures: Visit


def percentiles(values: Iterable[float]) -> Percentiles:
    """Nearest rank, as in the report: the smallest value with at least p % of all at or below it."""
    ordered = sorted(values)
    if not ordered:
        return Percentiles()
    p50, p90, p95, p99 = (round(ordered[-(-len(ordered) * p // 100) - 1], 6) for p in (50, 90, 95, 99))
    return Percentiles(p50=p50, p90=p90, p95=p95, p99=p99, max=round(ordered[-1], 6), count=len(ordered))


def steady_window(calls: Sequence[Seen], concurrency: int, *, probes: int = PROBES) -> Window | None:
    """From the moment when every slot has turned over once after the probes, to the last send.

    Before it the load is not there yet, and after the last send the slots run empty. None where fewer than a turn of
    every slot (at least `_FEWEST`) ended in between.
    """
    ends = sorted(call.ended_s for call in sorted(calls, key=lambda call: call.sent_s)[probes:])
    if len(ends) <= concurrency:
        return None
    window = Window(from_s=ends[concurrency - 1], to_s=max(call.sent_s for call in calls))
    enough = sum(map(window.holds, ends)) >= max(concurrency, _FEWEST)
    return window if enough and window.length_s > 0 else None


def mean_in_flight(calls: Iterable[Seen], window: Window) -> float:
    """Requests in flight, averaged over a window."""
    busy = sum(max(0.0, min(call.ended_s, window.to_s) - max(call.sent_s, window.from_s)) for call in calls)
    return busy / window.length_s if window.length_s > 0 else 0.0


def closed_figures(
    calls: Sequence[Seen], records: Sequence[Answered], cell: Cell, *, repeat: int, target_s: float | None,
    prices: Prices | None, limits: Limits, stopped: str = "", client_cpu_share: float | None = None,
) -> Visit:  # fmt: skip
    """What one visit of a closed-loop cell came to."""
    window = steady_window(calls, cell.concurrency)
    span = window or _whole(calls)
    good = _good_by_request(calls, span, target_s)
    latencies = [record.latency_s for record in records if record.ok and span.holds(record.at_s)]
    return _figures(
        calls, span, cell.concurrency, repeat=repeat, short=window is None, good=good, prices=prices, limits=limits,
        record_latency_s=percentiles(latencies), stopped=stopped, client_cpu_share=client_cpu_share,
        failed=sum(not record.ok for record in records),
    )  # fmt: skip


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the open loop. Times are seconds from the start of the schedule.

    :ivar late_s: handed to the engine so long after its time.
    :ivar latency_s: from the scheduled time to the answer; its age at the end where none came.
    """

    scheduled_s: float
    late_s: float
    latency_s: float
    answered: bool
    ok: bool


def open_figures(
    calls: Sequence[Seen], arrived: Sequence[Arrival], cell: OpenCell, *, started_s: float, seconds: float,
    repeat: int, target_s: float | None, prices: Prices | None, limits: Limits, stopped: str = "",
    client_cpu_share: float | None = None,
) -> OpenVisit:  # fmt: skip
    """What one visit of an arrival rate came to.

    :param calls: those after the primer. :param started_s: of the schedule, on the clock of the calls.
    """
    span = Window(from_s=_RAMP_SHARE * seconds, to_s=seconds)
    counted = [arrival for arrival in arrived if span.holds(arrival.scheduled_s)]
    in_time = [arrival for arrival in counted if arrival.ok and arrival.latency_s <= (target_s or 0.0)]
    good = None if target_s is None else len(in_time) / span.length_s
    shifted = Window(from_s=started_s + span.from_s, to_s=started_s + span.to_s)
    figures = _figures(
        calls, shifted, cell.concurrency, repeat=repeat, short=len(counted) < _FEWEST, good=good, prices=prices,
        limits=limits, record_latency_s=percentiles(arrival.latency_s for arrival in counted), stopped=stopped,
        client_cpu_share=client_cpu_share, failed=sum(arrival.answered and not arrival.ok for arrival in arrived),
    )  # fmt: skip
    late = percentiles(arrival.late_s for arrival in arrived)
    return OpenVisit(
        offered_per_s=len(counted) / span.length_s,
        arrivals=len(arrived),
        unanswered=sum(not arrival.answered for arrival in arrived),
        late_s=late.p99 or 0.0,
        figures=figures,
    )


def is_late(visit: OpenVisit) -> bool:
    """Whether the client could not keep the schedule, so that it, too, is measured."""
    return visit.late_s > _LATE_SHARE * (visit.figures.record_latency_s.p50 or 0.0)


def _whole(calls: Sequence[Seen]) -> Window:
    if not calls:
        return Window(from_s=0.0, to_s=0.0)
    return Window(from_s=min(call.sent_s for call in calls), to_s=max(call.ended_s for call in calls))


def _good_by_request(calls: Sequence[Seen], span: Window, target_s: float | None) -> float | None:
    """In the closed loop records wait before the engine because we hold them ready: the request's latency counts."""
    if target_s is None:
        return None
    good = [call for call in calls if call.ended_s - call.sent_s <= target_s]
    return sum(call.accepted * share_in(call, span) for call in good) / span.length_s if span.length_s > 0 else 0.0


def _figures(
    calls: Sequence[Seen], span: Window, concurrency: int, *, repeat: int, short: bool, good: float | None,
    prices: Prices | None, limits: Limits, record_latency_s: Percentiles, stopped: str,
    client_cpu_share: float | None, failed: int,
) -> Visit:  # fmt: skip
    ended = [call for call in calls if span.holds(call.ended_s) and call.outcome != "abandoned"]
    per_s = 1 / span.length_s if span.length_s > 0 else 0.0
    answered = [call for call in ended if call.accepted]
    tokens = sum(call.tokens for call in calls)
    wasted = sum(call.tokens for call in calls if not call.accepted)
    ok = sum(call.accepted for call in calls)
    errors = Counter(call.outcome for call in calls if call.outcome not in ("ok", "abandoned"))
    return Visit(
        repeat=repeat,
        short=short,
        steady_s=0.0 if short else round(span.length_s, 6),
        measured_requests=len(ended),
        requests=len(calls),
        records_ok=ok,
        records_failed=failed,
        http_429=sum(call.status == 429 for call in calls),
        errors=dict(errors.most_common()),
        records_per_s=sum(call.accepted * share_in(call, span) for call in calls) * per_s,
        requests_per_s=requests_in(calls, span) * per_s,
        tokens_per_s=sum(call.tokens * share_in(call, span) for call in calls) * per_s,
        goodput_per_s=good,
        request_latency_s=percentiles(call.ended_s - call.sent_s for call in answered),
        record_latency_s=record_latency_s,
        utilisation=_utilisation(calls, span, concurrency, limits),
        input_tokens=sum(call.input_tokens for call in calls),
        cached_tokens=sum(call.cached_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
        wasted_tokens=wasted,
        waste_share=wasted / tokens if tokens else None,
        tokens_per_record=tokens / ok if ok else None,
        usd_per_1000=spent_usd(calls, prices) / ok * 1000 if prices is not None and ok else None,
        mean_batch_size=statistics.fmean(call.size for call in calls) if calls else 0.0,
        abandoned=sum(call.outcome == "abandoned" for call in calls),
        client_cpu_share=client_cpu_share,
        stopped=stopped,
    )


def requests_in(calls: Iterable[Seen], window: Window) -> float:
    """Requests in a window, those at its ends by their share. What was given up when the visit ended does not count."""
    return sum(share_in(call, window) for call in calls if call.outcome != "abandoned")


def _utilisation(calls: Sequence[Seen], span: Window, concurrency: int, limits: Limits) -> dict[str, float]:
    used = {"window": mean_in_flight(calls, span) / concurrency}
    minutes = span.length_s / _MINUTE_S
    if limits.requests_per_minute is not None and minutes > 0:
        used["rpm"] = requests_in(calls, span) / minutes / limits.requests_per_minute
    if limits.tokens_per_minute is not None and minutes > 0:
        used["tpm"] = sum(call.tokens * share_in(call, span) for call in calls) / minutes / limits.tokens_per_minute
    return {name: round(share, 4) for name, share in used.items()}


def spent_usd(calls: Iterable[Seen], prices: Prices | None, *, worst: bool = False) -> float:
    """What attempts cost; `worst` takes those without a reply for the most that they may be billed."""
    if prices is None:
        return 0.0
    return sum(
        cost_usd(
            prices,
            input_tokens=call.input_tokens + (call.unconfirmed_input if worst else 0),
            cached_tokens=call.cached_tokens,
            output_tokens=call.output_tokens + (call.unconfirmed_output if worst else 0),
        )
        for call in calls
    )


def spent_tokens(calls: Iterable[Seen]) -> int:
    """Tokens of attempts, those without a reply at the most that they may be billed."""
    return sum(
        call.input_tokens + call.output_tokens + call.unconfirmed_input + call.unconfirmed_output for call in calls
    )


# -- repeats ---------------------------------------------------------------------------------------------------------


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """One figure over the repeats."""

    median: float
    min: float
    max: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One cell over its repeats; None where no repeat has the figure. Short visits count only where all are short.

    :ivar request_latency_s: ``p50`` .. ``max`` -> their spread over the repeats.
    :ivar bound: the limit that was used most.
    """

    repeats: int
    short: bool
    records_per_s: Spread | None
    requests_per_s: Spread | None
    tokens_per_s: Spread | None
    goodput_per_s: Spread | None
    request_latency_s: dict[str, Spread]
    record_latency_s: dict[str, Spread]
    utilisation: dict[str, Spread]
    bound: str | None
    tokens_per_record: Spread | None
    waste_share: Spread | None
    usd_per_1000: Spread | None
    errors: dict[str, int]
    requests: int
    records_ok: int
    records_failed: int
    http_429: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Median, least and greatest of what is there."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Spread(median=statistics.median(found), min=min(found), max=max(found))


_RANKS = ("p50", "p90", "p95", "p99", "max")


def summary(visits: Sequence[Visit]) -> Summary:
    """The repeats of one cell together."""
    best = [visit for visit in visits if not visit.short] or list(visits)
    errors: Counter[str] = Counter()
    for visit in visits:
        errors.update(visit.errors)
    utilisation = _by_key([visit.utilisation for visit in best])
    return Summary(
        repeats=len(visits),
        short=all(visit.short for visit in visits),
        records_per_s=spread(visit.records_per_s for visit in best),
        requests_per_s=spread(visit.requests_per_s for visit in best),
        tokens_per_s=spread(visit.tokens_per_s for visit in best),
        goodput_per_s=spread(visit.goodput_per_s for visit in best),
        request_latency_s=_ranks([visit.request_latency_s for visit in best]),
        record_latency_s=_ranks([visit.record_latency_s for visit in best]),
        utilisation=utilisation,
        bound=max(utilisation, key=lambda name: utilisation[name].median, default=None),
        tokens_per_record=spread(visit.tokens_per_record for visit in best),
        waste_share=spread(visit.waste_share for visit in best),
        usd_per_1000=spread(visit.usd_per_1000 for visit in best),
        errors=dict(errors.most_common()),
        requests=sum(visit.requests for visit in visits),
        records_ok=sum(visit.records_ok for visit in visits),
        records_failed=sum(visit.records_failed for visit in visits),
        http_429=sum(visit.http_429 for visit in visits),
    )


def _ranks(found: Sequence[Percentiles]) -> dict[str, Spread]:
    return _by_key([{rank: getattr(one, rank) for rank in _RANKS} for one in found])


def _by_key(found: Sequence[Mapping[str, float | None]]) -> dict[str, Spread]:
    keys = dict.fromkeys(key for one in found for key in one)
    spreads = {key: spread(one.get(key) for one in found) for key in keys}
    return {key: value for key, value in spreads.items() if value is not None}
