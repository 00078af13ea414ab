"""How much work is in a request, so that those of different sizes can be compared. See docs/design/concurrency.md."""

from __future__ import annotations


class WorkModel:
    """The work in a request: base + input weight x uncached input tokens + output tokens, in units of output tokens.

    Fitted by least squares of relative errors over some 200 fading replies, with a ridge towards the prior, so that
    requests which are all alike (and identify nothing) leave the prior alone. Coefficients stay >= 0.
    """

    _PRIOR = (16.0, 0.04, 1.0)  # measured on llama.cpp's server: 8 to 23, .024 to .08, 1, by load
    _RIDGE = 4.0
    _FADE = 1 - 1 / 200

    def __init__(self) -> None:
        self._scale = [1.0, 1.0, 1.0]
        self._normal = [[0.0] * 3 for _ in range(3)]
        self._right = [0.0] * 3

    def __repr__(self) -> str:
        base, input_weight, output_weight = (s * p for s, p in zip(self._scale, self._PRIOR, strict=True))
        return f"WorkModel({base:.1f} + {input_weight:.3f} * input + {output_weight:.2f} * output)"

    def work(self, calls: float, input_tokens: float, output_tokens: float) -> float:
        """Work in so many calls with so many tokens together."""
        amounts = (calls, input_tokens, output_tokens)
        return max(1e-9, sum(s * p * x for s, p, x in zip(self._scale, self._PRIOR, amounts, strict=True)))

    def observe(self, input_tokens: int, output_tokens: int, work: float) -> None:
        """Learn that a request took as long as `work` does at its load."""
        parts = [p * x for p, x in zip(self._PRIOR, (1, input_tokens, output_tokens), strict=True)]
        expected = sum(parts)
        target = min(max(work / expected, 0.2), 5.0)  # one stray reply must not turn the model over
        shares = [part / expected for part in parts]
        for row, share in enumerate(shares):
            self._right[row] = self._right[row] * self._FADE + share * target
            for column, other in enumerate(shares):
                self._normal[row][column] = self._normal[row][column] * self._FADE + share * other

    def fit(self) -> None:
        """Solve for the coefficients: coordinate descent, which keeps them above zero by itself."""
        for _ in range(20):
            for row in range(3):
                others = sum(self._normal[row][c] * self._scale[c] for c in range(3) if c != row)
                value = (self._right[row] + self._RIDGE - others) / (self._normal[row][row] + self._RIDGE)
                self._scale[row] = max(0.0, value)
