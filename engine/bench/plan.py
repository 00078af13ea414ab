"""What a bench does, and how it keeps to its time. Pure: no await, no clock, no IO. See docs/design/bench.md."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import msgspec

PROBES = 2
"""Requests at the start of a cell that the engine sends to see whether anything works; they are not measured."""

_TURNS = 7.0
"""Latencies that a cell should last: two for the probes (one after the other where one is in flight), one turn of every
slot to fall out of step, two or more to be measured, one and a half to stop sending early enough."""
_LEAST_S = 1.0
_OPEN_LATENCIES = 12
_OPEN_LEAST_S = 5.0
_OPEN_SHARE = 0.3  # of the time: the arrival rates come after the closed loop, which says what rates are worth asking
_MINUTE_S = 60.0
LIMIT_SHARE = 0.95
"""Of the limits that the user gave, what a cell may use: each starts with a small burst, and knows nothing of the one
before."""
PAUSE_S = 2.5
"""Between two cells under a limit a minute: the time in which that burst flows back."""


class Cell(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One place of the closed-loop grid: a fixed batch size, and so many requests always in flight."""

    batch_size: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.batch_size} a request, {self.concurrency} in flight"


class OpenCell(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One arrival rate of the open loop.

    :ivar records_per_s: mean of the Poisson arrivals.
    :ivar share: of the throughput that the closed loop reached in this cell; None where the user named the rate.
    """

    records_per_s: float
    batch_size: int
    concurrency: int
    share: float | None = None

    def __str__(self) -> str:
        return f"{self.records_per_s:.4g} records/s arriving"


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is to be measured, each cell `repeats` times.

    :ivar rate_shares: arrival rates as shares of the best throughput of the closed loop.
    :ivar rates: arrival rates in records a second, in place of the shares.
    """

    batch_sizes: tuple[int, ...]
    concurrencies: tuple[int, ...]
    rate_shares: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    repeats: int = 3

    @property
    def cells(self) -> list[Cell]:
        """The closed loop's, in order."""
        return [Cell(batch_size=size, concurrency=many) for size in self.batch_sizes for many in self.concurrencies]

    @property
    def open_count(self) -> int:
        """How many arrival rates."""
        return len(self.rates or self.rate_shares)


FULL = Grid(batch_sizes=(1, 4, 16), concurrencies=(1, 2, 4, 8, 16, 32), rate_shares=(0.3, 0.5, 0.7, 0.85, 1.0))
QUICK = Grid(batch_sizes=(1, 4, 16), concurrencies=(1, 4, 16), rate_shares=(0.5, 0.8, 1.0))


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one visit of a cell may take.

    :ivar requests: None: enough for its concurrency, see `requests_at_most`.
    """

    visit_s: float
    requests: int | None = None
    quick: bool = False


def requests_at_most(concurrency: int, caps: Caps) -> int:
    """Requests of one visit: enough turns of every slot for a 95th percentile, and no more."""
    if caps.requests is not None:
        return max(caps.requests, PROBES + 1)
    turns, least, most = (8, 30, 400) if caps.quick else (20, 60, 1_000)
    return max(least, min(turns * concurrency, most)) + PROBES


def arrivals_at_most(cell: Cell, caps: Caps) -> int:
    """Records of one visit of an arrival rate here. Few of them may share a request, so not B times as many."""
    return min(cell.batch_size, 4) * requests_at_most(cell.concurrency, caps)


class AtMost(msgspec.Struct, frozen=True, kw_only=True):
    """What a bench sends at the most, retries apart. Tokens are our own count."""

    visits: int
    requests: int
    records: int
    input_tokens: int
    output_tokens: int


def at_most(
    grid: Grid, caps: Caps, *, static_tokens: int, entry_tokens: float, output_tokens: float, time_s: float,
    requests_per_minute: float | None = None,
) -> AtMost:  # fmt: skip
    """The sum over all visits and the warm-up.

    Each closed visit may hold one request more than its cap, for the lone probe. Records of the open loop may come so
    far apart that each goes alone; its place is not known yet and taken to be the largest.
    """
    sizes = [(requests_at_most(cell.concurrency, caps), cell.batch_size) for cell in grid.cells]
    closed = [(count + 1, count * size) for count, size in sizes] * grid.repeats
    primed = max(arrivals_at_most(cell, caps) + 1 + cell.batch_size for cell in grid.cells)
    opened = [(primed, primed)] * (grid.open_count * grid.repeats)
    warm = [(WARM_REQUESTS + 1, WARM_REQUESTS * size) for size in grid.batch_sizes]
    visits = closed + opened
    requests = sum(count for count, _ in visits + warm)
    records = sum(count for _, count in visits + warm)
    share = 1.0
    if requests_per_minute is not None:
        share = min(1.0, requests_per_minute * time_s / _MINUTE_S / requests)
    return AtMost(
        visits=len(visits),
        requests=round(requests * share),
        records=round(records * share),
        input_tokens=round((requests * static_tokens + records * entry_tokens) * share),
        output_tokens=round(records * output_tokens * share),
    )


WARM_REQUESTS = 4
"""Of the warm-up, for each batch size."""

# -- time ----------------------------------------------------------------------------------------------------------


def closed_share(grid: Grid) -> float:
    """Of the time after the warm-up, the part of the closed loop."""
    return 1.0 - _OPEN_SHARE if grid.open_count else 1.0


def need_s(latency_s: float, *, pause_s: float = 0.0) -> float:
    """Seconds that a visit of a closed-loop cell should have: probes, turns of every slot, the last replies."""
    return max(_LEAST_S, _TURNS * latency_s) + pause_s


def open_need_s(latency_s: float, *, pause_s: float = 0.0) -> float:
    """The same of an arrival rate, where a queue must have time to show."""
    return max(_OPEN_LEAST_S, _OPEN_LATENCIES * latency_s) + pause_s


def allotted_s(left_s: float, need: float, needs_left: float, most_s: float) -> float:
    """Seconds for the next visit: its share by need of what is left, more than `most_s` only where it needs that.

    Whatever each takes of its own share, the sum never passes `left_s`: the share is worked out anew for every visit.
    """
    if left_s <= 0 or needs_left <= 0:
        return 0.0
    return min(left_s * need / needs_left, max(most_s, need))


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A grid that fits the time.

    :ivar left_out: what it leaves out of the one that was asked for, in words; empty if nothing.
    :ivar tight: even the smallest grid wants more time: cells may be too short to be measured.
    """

    grid: Grid
    left_out: tuple[str, ...] = ()
    tight: bool = False


def fit(grid: Grid, latencies_s: Mapping[int, float], time_s: float, *, pause_s: float = 0.0) -> Fitted:
    """The largest grid whose closed loop fits into its share of `time_s`.

    :param latencies_s: batch size -> seconds of a request, as the warm-up found them.
    """
    for smaller in _smaller(grid):
        needed = smaller.repeats * sum(
            need_s(latencies_s[cell.batch_size], pause_s=pause_s) for cell in smaller.cells
        )  # fmt: skip
        if needed <= time_s * closed_share(smaller):
            return Fitted(grid=smaller, left_out=tuple(_left_out(grid, smaller)))
    return Fitted(grid=smaller, left_out=tuple(_left_out(grid, smaller)), tight=True)


def _smaller(grid: Grid) -> Iterator[Grid]:
    """Ever smaller grids: fewer repeats, every other concurrency, the batch sizes in the middle, one repeat, the ends.

    Two repeats go before the points of the curve do: without a second look there is no spread.
    """
    yield grid
    if grid.repeats > 2:
        grid = msgspec.structs.replace(grid, repeats=2)
        yield grid
    while len(grid.concurrencies) > 3:
        grid = msgspec.structs.replace(grid, concurrencies=_thinned(grid.concurrencies))
        yield grid
    while len(grid.batch_sizes) > 2:
        grid = msgspec.structs.replace(grid, batch_sizes=_thinned(grid.batch_sizes))
        yield grid
    if grid.repeats > 1:
        grid = msgspec.structs.replace(grid, repeats=1)
        yield grid
    while len(grid.concurrencies) > 2:
        grid = msgspec.structs.replace(grid, concurrencies=_thinned(grid.concurrencies))
        yield grid
    while len(grid.batch_sizes) > 1:  # the largest one takes the most time
        grid = msgspec.structs.replace(grid, batch_sizes=grid.batch_sizes[:-1])
        yield grid
    if len(grid.concurrencies) > 1:
        grid = msgspec.structs.replace(grid, concurrencies=_thinned(grid.concurrencies))
        yield grid


def _thinned(values: tuple[int, ...]) -> tuple[int, ...]:
    """Every other value, the last one always kept; of two the last."""
    return values[-1:] if len(values) == 2 else (*values[:-1:2], values[-1])


def _left_out(asked: Grid, fitted: Grid) -> Iterator[str]:
    for name, before, after in (
        ("batch size", asked.batch_sizes, fitted.batch_sizes),
        ("in flight", asked.concurrencies, fitted.concurrencies),
    ):
        gone = [str(value) for value in before if value not in after]
        if gone:
            yield f"{name} {', '.join(gone)}"
    if fitted.repeats < asked.repeats:
        yield f"{asked.repeats - fitted.repeats} of {asked.repeats} repeats"


def repeats_that_fit(left_s: float, round_s: float, wanted: int) -> int:
    """How many more rounds over all cells fit, by what the cells turned out to need."""
    return wanted if round_s <= 0 else max(0, min(wanted, int(left_s / round_s)))


# -- order ---------------------------------------------------------------------------------------------------------


def order(cells: Sequence[Cell], repeat: int, seed: int) -> list[Cell]:
    """The cells of one repeat, shuffled.

    Repeats are the outer loop, and each has its own order: a drift of the endpoint, or a prefix cache that fills, then
    falls on all cells alike and not on those that happen to come first.
    """
    return random.Random(f"{seed} order {repeat}").sample(list(cells), len(cells))


def open_order(cells: Sequence[OpenCell], repeat: int, seed: int) -> list[OpenCell]:
    """The same of arrival rates."""
    return random.Random(f"{seed} rates {repeat}").sample(list(cells), len(cells))


def arrivals(records_per_s: float, *, seconds: float, most: int, rng: random.Random) -> list[float]:
    """Times of Poisson arrivals from 0 on: exponential gaps, independent of how the endpoint does."""
    times: list[float] = []
    at_s = rng.expovariate(records_per_s)
    while at_s < seconds and len(times) < most:
        times.append(at_s)
        at_s += rng.expovariate(records_per_s)
    return times
