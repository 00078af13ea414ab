"""What a model thinks before it answers, learned apart from its answers: so many tokens a request and so many a record.

Batches save the part of the request (arXiv 2511.04108: up to 76 % of the reasoning tokens), and a request that leaves
no room for it ends in the middle of a thought, with nothing. See docs/design/reasoning.md.
"""

from __future__ import annotations

from engine.decide.line import Line

SCATTER = 0.5
"""Of a request's reasoning, as a share of it, before it is known: wide, as nobody says how much it varies."""

WORTH = 5.0
"""Records that a request's own reasoning is worth, before calls of several sizes tell: 76 % less (arXiv 2511.04108) in
batches of 10 to 20 is 5.4 to 4."""
_PACKED_DOUBT, _RECORD_DOUBT, _ALLOWED_DOUBT = 2.5, 0.5, 4.0
"""Standard deviations of room: 2.5 and 4 are exceeded by 2 % and .4 % of log-normal requests with a scatter of .4. What
a request may put out costs nothing unless it is put out; what it is packed for keeps it small, and where a scatter is
believed before it is known, small for good: of records little of it is packed for."""
_FAR, _ANY = 2, 1 << 30  # times the largest request so far
_FIRST_FLOOR, _FLOOR_GROWS = 1_024.0, 4.0
_MOST_FLOOR = 32_000.0
_FLOOR_FADES = 1 / 8
_ABSURD, _LEAST_ABSURD = 16.0, 4_096.0
"""Times what was expected, or tokens where little was: a figure beyond is taken for this."""


class Reasoning:
    """Reasoning tokens of one task on one endpoint. Zero until any are seen."""

    def __init__(self) -> None:
        self._line = Line(scatter=SCATTER, worth=WORTH)
        self._floor = 0.0
        self._largest = 1  # records of a request that was whole

    def __repr__(self) -> str:
        return f"Reasoning({self._line!r}, floor={self._floor:.0f})"

    @classmethod
    def known(cls, *, call: float, record: float, scatter: float) -> Reasoning:
        """As after many replies that said this, for a forecast."""
        reasoning = cls()
        reasoning._line = Line(scatter=scatter)
        reasoning._line.base, reasoning._line.each = call, record
        reasoning._largest = _ANY
        return reasoning

    @property
    def is_seen(self) -> bool:
        """Whether this model reasons, as far as is known."""
        return self._floor > 0.0 or self._line.expected(1.0, 1.0) > 0.0

    @property
    def per_call(self) -> float:
        """Room for a request, to pack by, besides `per_record` for each of its records."""
        return max(self._floor, self._line.base * self._doubt(_PACKED_DOUBT))

    @property
    def per_record(self) -> float:
        """Room for each record, to pack by. A larger doubt would keep batches at the size where it arose."""
        return self._line.each * self._doubt(_RECORD_DOUBT)

    def expected(self, records: int) -> float:
        """Mean tokens of a request."""
        return self._line.expected(1.0, records)

    def most(self, records: int) -> float:
        """Tokens that a request will hardly exceed: what it is allowed.

        One much larger than any so far may think as much for each of its records: to allow it that costs little, and it
        is an audit most of the time, which is paid for and says nothing if it is cut.
        """
        expected = self.expected(records)
        if records > _FAR * self._largest:
            expected = max(expected, self.expected(self._largest) * records / self._largest)
        return max(self._floor, expected * self._doubt(_ALLOWED_DOUBT))

    def observe(self, records: int, tokens: int) -> None:
        """A reply took so many, and then answered."""
        if not (tokens or self.is_seen):
            return
        absurd = max(_LEAST_ABSURD, _ABSURD * self.expected(records))
        self._line.observe(records, min(float(tokens), absurd))
        self._largest = max(self._largest, records)
        self._floor -= self._floor * _FLOOR_FADES
        if self._floor < 1.0:
            self._floor = 0.0

    def observe_cut(self, records: int, tokens: int) -> None:
        """A reply was cut while it thought: all that is known is that it takes more. Room first, and figures later.

        The first time much more, since every step costs a request that brings nothing. Once figures are known, it
        counts as what it took: without the longest thoughts all others would seem to vary little.
        """
        if self._line.expected(1.0, records) > 0.0:
            self._line.observe(records, float(tokens))
        wanted = max(_FIRST_FLOOR, _FLOOR_GROWS * tokens) if not self.is_seen else 2.0 * tokens
        self._floor = max(self._floor, min(wanted, _MOST_FLOOR))

    def _doubt(self, deviations: float) -> float:
        return 1.0 + deviations * self._line.scatter
