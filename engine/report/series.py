"""What the plots of a report are drawn from, as `report.json` holds it under `series`. All of it is bounded in size.

Lists of one object are columns of one table: equally long, a value for each bin. Times are seconds after the first
send.
"""

from __future__ import annotations

import msgspec


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The run in equal slices of `bin_s` seconds.

    :ivar at_s: where each slice ends.
    :ivar sent: requests sent in it; `ended` those whose last byte came in it.
    :ivar records_ok: valid records of this run that ended in it, copies of its answers too; beside `records_failed`.
    :ivar in_flight: requests in flight, the mean over the slice.
    :ivar batch_size: records in a request that was sent in it, the mean; None where none was sent.
    :ivar tokens_input: of the requests sent in it, as `tokens_cached` (inside input), `tokens_output` and
        `tokens_wasted` (input and output of attempts that gave no accepted answer).
    :ivar request_p50_s: latency of requests that ended in it; `record_p50_s` that of records. None where none did.
    :ivar causes: why attempts that ended in it did not answer every record -> attempts.
    """

    bin_s: float
    at_s: list[float]
    sent: list[int]
    ended: list[int]
    records_ok: list[int]
    records_failed: list[int]
    in_flight: list[float]
    batch_size: list[float | None]
    tokens_input: list[int]
    tokens_cached: list[int]
    tokens_output: list[int]
    tokens_wasted: list[int]
    request_p50_s: list[float | None]
    request_p95_s: list[float | None]
    record_p50_s: list[float | None]
    causes: dict[str, list[int]]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """How many values lie between neighbouring edges: `counts[i]` in [edges_s[i], edges_s[i + 1]), the last one closed.

    :ivar logarithmic: the edges grow by a constant factor, and not by a constant step.
    """

    edges_s: list[float]
    counts: list[int]
    logarithmic: bool


class SizeLatency(msgspec.Struct, frozen=True, kw_only=True):
    """Requests with so many records.

    :ivar busy_s: seconds that they were in flight, added up.
    """

    size: int
    requests: int
    accepted: int
    busy_s: float
    p50_s: float
    p95_s: float


class WaitSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that the request first in line was held, by what held it, in slices of `bin_s` that end at `at_s`.

    :ivar by_cause: ``rpm``, ``tpm``, ``window``, ``pause`` -> seconds in each slice.
    :ivar edges_s: of `requests_by_cause`: how many requests waited so long for it; the last is open.
    :ivar unheld: cause -> requests that did not wait for it, or less than the first edge.
    """

    bin_s: float
    at_s: list[float]
    by_cause: dict[str, list[float]]
    edges_s: list[float]
    requests_by_cause: dict[str, list[int]]
    unheld: dict[str, int]


class PositionRow(msgspec.Struct, frozen=True, kw_only=True):
    """Places in a request, for requests of a class of sizes.

    :ivar smallest: records in the requests of the class, up to `largest`.
    :ivar asked: by place, from the first: records that stood there in a request that a model answered.
    :ivar missed: of them, those without a usable answer in that reply.
    """

    smallest: int
    largest: int
    asked: list[int]
    missed: list[int]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is drawn.

    :ivar request_latency: of every attempt; `record_latency` of every record that this run asked for. None: none were.
    :ivar waits: None where nothing was sent.
    """

    timeline: Timeline | None
    request_latency: Histogram | None
    record_latency: Histogram | None
    sizes: list[SizeLatency]
    waits: WaitSeries | None
    positions: list[PositionRow]
