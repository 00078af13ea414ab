"""What replies took at one level of load. See docs/design/concurrency.md."""

from __future__ import annotations

import math

import msgspec

MEMORY = 1200.0
"""Replies after which an old one has faded to 1/e."""


class LoadSums(msgspec.Struct):
    """Fading sums of replies at one level of load."""

    weight: float = 0.0
    latency_s: float = 0.0
    in_flight: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    squares: float = 0.0

    def add(self, latency_s: float, in_flight: int, input_tokens: int, output_tokens: int, off: float) -> None:
        """Take in one reply; `off` is its latency over the expected one, less 1."""
        self.fade(1 - 1 / MEMORY)
        self.weight += 1
        self.latency_s += latency_s
        self.in_flight += in_flight
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.squares += min(off * off, 4.0)

    def fade(self, share: float) -> None:
        """Trust all of it less."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) * share)

    def merge(self, other: LoadSums) -> None:
        """Take in later sums."""
        self.fade(math.exp(-other.weight / MEMORY))
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def error(self) -> float:
        """Standard error of the mean latency, relative; the prior deviation of .3 weighs four replies."""
        return math.sqrt((self.squares + 4 * 0.09) / (self.weight + 4)) / math.sqrt(max(self.weight, 1.0))
