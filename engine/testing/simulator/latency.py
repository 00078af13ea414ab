"""How long a reply takes: a + b * uncached input tokens + c * output tokens, by load, with jitter."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from random import Random
from typing import Protocol


class Latency(Protocol):
    """Seconds from the last byte received to the first byte sent."""

    def seconds(self, *, uncached: int, output: int, in_flight: int, rng: Random) -> float:
        """The delay of one reply.

        :param in_flight: requests in flight when this one came, itself included.
        """
        ...


@dataclass(frozen=True, slots=True)
class FixedLatency:
    """The same for every reply."""

    delay_s: float

    def seconds(self, *, uncached: int, output: int, in_flight: int, rng: Random) -> float:
        """See `Latency`."""
        return self.delay_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The latency at one number of requests in flight.

    :ivar base_ms: milliseconds of every request (a).
    :ivar input_ms: milliseconds a token of uncached input (b).
    :ivar output_ms: milliseconds a token of output (c).
    :ivar variation: standard deviation of the latency over its mean.
    """

    in_flight: int
    base_ms: float
    input_ms: float
    output_ms: float
    variation: float


@dataclass(frozen=True, slots=True)
class LinearLatency:
    """A table of loads, linear in between; beyond the last row it goes on as between the last two.

    The load is the one at the arrival of the request. In a closed loop that is the load of its whole life; in a burst
    it is an approximation.
    """

    table: Sequence[Load]

    def seconds(self, *, uncached: int, output: int, in_flight: int, rng: Random) -> float:
        """See `Latency`."""
        load = self.at(in_flight)
        mean = (load.base_ms + load.input_ms * uncached + load.output_ms * output) / 1000
        return mean * _jitter(load.variation, rng)

    def at(self, in_flight: int) -> Load:
        """The row for a load, interpolated."""
        table = self.table
        above = bisect_right(table, in_flight, key=lambda row: row.in_flight)
        if len(table) == 1 or above == 0:
            return table[0]
        low, high = table[min(above, len(table) - 1) - 1], table[min(above, len(table) - 1)]
        share = (in_flight - low.in_flight) / (high.in_flight - low.in_flight)
        return Load(
            in_flight=in_flight,
            base_ms=_between(low.base_ms, high.base_ms, share),
            input_ms=_between(low.input_ms, high.input_ms, share),
            output_ms=_between(low.output_ms, high.output_ms, share),
            variation=_between(low.variation, high.variation, min(share, 1.0)),
        )


def _between(low: float, high: float, share: float) -> float:
    return low + share * (high - low)


def _jitter(variation: float, rng: Random) -> float:
    """A log-normal factor with mean 1: latencies are skewed to the right and never negative."""
    if variation <= 0:
        return 1.0
    sigma = sqrt(log(1 + variation * variation))
    return rng.lognormvariate(-sigma * sigma / 2, sigma)


def load_row(in_flight: int, base_ms: float, input_ms: float, output_ms: float, variation: float) -> Load:
    """A row of a table, for tables."""
    return Load(in_flight=in_flight, base_ms=base_ms, input_ms=input_ms, output_ms=output_ms, variation=variation)
