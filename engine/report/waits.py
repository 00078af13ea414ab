"""What held requests back, over time and by length: a log that stays small however long a run is."""

from __future__ import annotations

from bisect import bisect_right

from engine.report.series import WaitSeries
from engine.vocabulary.values import Waits

NAMES = {"window": "window", "requests": "rpm", "tokens": "tpm", "pause": "pause"}
"""What the pipeline calls a cause -> what the report calls it; in the order in which a request meets them."""

BINS = 128
_FIRST_BIN_S = 0.25
EDGES_S = [round(0.001 * 10 ** (step / 5), 9) for step in range(36)]
"""Five a decade, from a millisecond to some three hours."""


class WaitLog:
    """Seconds waited by cause in at most `BINS` slices, which double in length when the run outgrows them.

    :ivar bin_s: the length of a slice.
    """

    def __init__(self) -> None:
        self.bin_s = _FIRST_BIN_S
        self._began_s: float | None = None
        self._seconds: dict[str, list[float]] = {name: [] for name in NAMES.values()}
        self._requests = {name: [0] * len(EDGES_S) for name in NAMES.values()}
        self._unheld = dict.fromkeys(NAMES.values(), 0)

    def __repr__(self) -> str:
        held = {name: round(sum(seconds), 1) for name, seconds in self._seconds.items()}
        return f"WaitLog({held}, slices of {self.bin_s:g} s)"

    def add(self, waits: Waits, now: float) -> None:
        """A request has waited so long, one cause after the other, and goes now (or would, but for what comes next)."""
        parts = [(name, float(getattr(waits, f"{cause}_s"))) for cause, name in NAMES.items()]
        at_s = now - sum(held_s for _, held_s in parts)
        if self._began_s is None:
            self._began_s = at_s
        for name, held_s in parts:
            place = bisect_right(EDGES_S, held_s) - 1
            if place < 0:
                self._unheld[name] += 1
            else:
                self._requests[name][place] += 1
            self._spread(name, at_s, held_s)
            at_s += held_s

    def _spread(self, name: str, from_s: float, held_s: float) -> None:
        """Book a wait on the slices that it lies in."""
        assert self._began_s is not None  # noqa: S101 - set by the only caller
        begin_s = max(0.0, from_s - self._began_s)
        while begin_s + held_s > BINS * self.bin_s:
            self._double()
        seconds = self._seconds[name]
        rest_s = held_s
        while rest_s > 0:
            place = min(int(begin_s / self.bin_s), BINS - 1)
            part_s = min(rest_s, max((place + 1) * self.bin_s - begin_s, 1e-6))
            seconds.extend([0.0] * (place + 1 - len(seconds)))
            seconds[place] += part_s
            begin_s += part_s
            rest_s -= part_s

    def _double(self) -> None:
        self.bin_s *= 2
        for name, seconds in self._seconds.items():
            self._seconds[name] = [sum(seconds[place : place + 2]) for place in range(0, len(seconds), 2)]

    def series(self, first_sent_s: float) -> WaitSeries | None:
        """For the report; None when nothing was sent.

        :param first_sent_s: the moment from which its times count, on the clock of `add`.
        """
        if self._began_s is None:
            return None
        length = max(map(len, self._seconds.values()))
        offset_s = self._began_s - first_sent_s
        return WaitSeries(
            bin_s=self.bin_s,
            at_s=[round(offset_s + (place + 1) * self.bin_s, 6) for place in range(length)],
            by_cause={
                name: [round(held_s, 6) for held_s in seconds] + [0.0] * (length - len(seconds))
                for name, seconds in self._seconds.items()
            },
            edges_s=EDGES_S,
            requests_by_cause={name: list(counts) for name, counts in self._requests.items()},
            unheld=dict(self._unheld),
        )
