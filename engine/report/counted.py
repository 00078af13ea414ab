"""Our own count of the input beside the endpoint's: what a request repeats, as the endpoint counts it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.vocabulary.values import Usage

_SPREAD = 1.6
"""Variance of what the endpoint counts, per token: as `decide.estimates` takes it before it knows."""
_APART = 0.2
"""Standard deviation of the difference between the endpoint's tokens for one of ours in the prompt, which is prose, and
in the records, which stand in JSON. With two rules that split texts at signs and after so many letters it was .17 and
.18 (`testing.simulator.tokens`, and one of a tester's)."""


@dataclass
class CountedInput:
    """Requests by our own count, beside what the endpoint says of the same ones: ``(b + u) static + b records``.

    Least squares for b, and for u with a prior about 0 (`_APART`): batches of unequal length tell how much of a request
    does not grow with its records, and where they are all alike the endpoint's tokens are taken to be the same in both.

    :ivar static: tokens, by our count, that each request repeats: prompt and frame. The other sums are of squares and
        products: of all tokens (t), of those (s), and of what the endpoint says (y).
    """

    requests: int = 0
    static: int = 0
    counted: int = 0
    tt: int = 0
    ts: int = 0
    ss: int = 0
    ty: int = 0
    sy: int = 0

    def add(self, counted: int, *, static: int, usage: Usage) -> None:
        """One request whose reply says what it took; our own estimate of that teaches nothing."""
        if usage.estimated or not counted:
            return
        charged = usage.input_tokens
        self.requests += 1
        self.static += static
        self.counted += counted
        self.tt += counted * counted
        self.ts += counted * static
        self.ss += static * static
        self.ty += counted * charged
        self.sy += static * charged

    def static_tokens(self, ours: int | None) -> int | None:
        """Tokens that a request repeats, as the endpoint counts.

        :param ours: the prompt by our own count, where no reply has said anything.
        """
        if ours is None or not self.ty:
            return ours
        ss = self.ss + _SPREAD * self.counted / self.requests / _APART**2
        off = (self.sy - self.ts * self.ty / self.tt) / (ss - self.ts * self.ts / self.tt)
        ratio = (self.ty - off * self.ts) / self.tt
        return max(0, round((ratio + off) * self.static / self.requests))
