"""A server that queues: so many requests run at once, the others wait their turn."""

from __future__ import annotations

from heapq import heappush, heapreplace


class Slots:
    """When each request may start, first come first served.

    :param count: requests that run at once.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free_at: list[float] = []

    def wait_s(self, now: float, service_s: float) -> float:
        """Seconds that a request of this length waits for its turn; the slot is then taken for it."""
        if len(self._free_at) < self._count:
            heappush(self._free_at, now + service_s)
            return 0.0
        start = max(now, self._free_at[0])
        heapreplace(self._free_at, start + service_s)
        return start - now
