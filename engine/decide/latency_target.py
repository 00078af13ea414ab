"""How large batches and the look-ahead may be, for 95 % of the records to be answered within a given time.

A record waits in the look-ahead and then for its request. So a request gets at most a set share of the time, and by
Little's law as many records may wait as the present rate takes in what is left. Both are corrected by what is measured.
See docs/design/latency-target.md.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

import msgspec

REQUEST_SHARE = 0.65
"""Of the target, that a request may take; the rest is for waiting."""
_MEAN_SHARE = 0.5  # of the target, for the mean: what is at 95 % is about twice that
_NEAR = (0.6, 0.85)  # of the target: between them nothing is moved
_STEP = 1.25
_SLACK = 0.8
_WAIT_S, _MAX_WAIT_S = 30.0, 600.0  # before a size that was too large is tried again; doubles each time
_ROUND = 1.2  # times the target: the latencies of what was accepted since the last correction are known then
_LEAST = 20
_RECENT = 1_000
_RATE_S = 10.0
_HISTORY = 200


class TargetMove(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the largest batch that the target allows."""

    at_s: float
    old: int
    new: int
    reason: str


class LatencyTarget:
    """Owned by one pipeline. `now` is seconds of one clock.

    :ivar is_out_of_reach: a request with a single record takes longer than the target.
    :param target_s: from accepted to answered, for 95 % of the records.
    :param most: records in a batch, whatever the target.
    """

    def __init__(self, target_s: float, *, most: int) -> None:
        self.target_s = target_s
        self._most = self._size = most
        self._requests: deque[tuple[int, float]] = deque(maxlen=_RECENT // 10)
        self._records: deque[float] = deque(maxlen=_RECENT)
        self._ends: deque[tuple[float, int]] = deque()
        self._patience = 1.0
        self.is_out_of_reach = False
        self._too_large = most + 1
        self._again_at_s, self._wait_s = -math.inf, _WAIT_S
        self._since_size = 0
        self._corrected_at_s = -math.inf
        self._moves: deque[TargetMove] = deque(maxlen=_HISTORY)

    def __repr__(self) -> str:
        return (
            f"LatencyTarget({self.target_s:g} s, at most {self._size} a batch, {self._patience:.2f} of the look-ahead)"
        )

    @property
    def most_records(self) -> int:
        """In one batch."""
        return self._size

    @property
    def history(self) -> Sequence[TargetMove]:
        """The last moves, oldest first."""
        return tuple(self._moves)

    def waiting(self, now: float, *, in_flight: int) -> int:
        """Records that may be held, in flight or waiting. Two batches are always kept ready: no slot stays idle.

        :param in_flight: records that are on their way.
        """
        mean_s = _MEAN_SHARE * self.target_s * self._patience
        return max(in_flight + 2 * self._size, math.ceil(self._rate(now) * mean_s))

    def observe_request(self, now: float, *, size: int, latency_s: float) -> None:
        """A request with so many records was answered."""
        if size > self._size:
            return  # sent before the batch was made smaller
        self._requests.append((size, latency_s))
        self._since_size += 1
        if self._since_size >= _LEAST:
            self._move(now)

    def observe_records(self, now: float, latencies_s: Sequence[float]) -> None:
        """Records were answered, so long after they were accepted."""
        self._ends.append((now, len(latencies_s)))
        # What was accepted before the last correction says nothing about what is held now.
        self._records.extend(took_s for took_s in latencies_s if now - took_s >= self._corrected_at_s)
        if len(self._records) >= _LEAST and now >= self._corrected_at_s + _ROUND * self.target_s:
            self._corrected_at_s = now
            self._correct(percentile(self._records, 95))
            self._records.clear()

    def _rate(self, now: float) -> float:
        """Records answered in a second, of late."""
        while self._ends and self._ends[0][0] < now - max(_RATE_S, self.target_s):
            self._ends.popleft()
        if not self._ends:
            return 0.0
        return sum(count for _, count in self._ends) / max(1.0, now - self._ends[0][0])

    def _correct(self, p95_s: float) -> None:
        low, high = (share * self.target_s for share in _NEAR)
        if p95_s > high:
            self._patience = max(0.05, self._patience * max(0.5, high / p95_s))
        elif p95_s < low:
            self._patience = min(2.0, self._patience * 1.1)

    def _move(self, now: float) -> None:
        """Latency grows with the batch, at most in proportion: a smaller one helps by no more than that."""
        size = max(size for size, _ in self._requests)
        took = [took_s for of, took_s in self._requests if of >= 0.8 * size]
        if len(took) < _LEAST // 2:
            return
        self._since_size = 0
        allowed_s = REQUEST_SHARE * self.target_s
        p95_s = percentile(took, 95)
        new = self._size
        self.is_out_of_reach = size == 1 and p95_s > self.target_s
        if p95_s > allowed_s:
            new = min(new, max(1, min(size - 1, math.floor(size * max(0.25, allowed_s / p95_s)))))
            if size >= self._too_large and now >= self._again_at_s:
                self._wait_s = min(2 * self._wait_s, _MAX_WAIT_S)  # it was tried again, in vain
            self._too_large, self._again_at_s = size, now + self._wait_s
        elif p95_s < _SLACK * allowed_s and size >= 0.8 * self._size:
            most = self._most if now >= self._again_at_s else min(self._most, self._too_large - 1)
            new = max(new, min(most, max(new + 1, math.floor(new * _STEP))))
        if new != self._size:
            reason = f"95 % of the requests with {size} took up to {p95_s:.2g} s; {allowed_s:.2g} s are for them"
            self._moves.append(TargetMove(at_s=now, old=self._size, new=new, reason=reason))
            self._size = new
            self._requests.clear()


def percentile(values: Sequence[float], percent: int) -> float:
    """Between the values, as `statistics.quantiles` does it; one value is its own."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
