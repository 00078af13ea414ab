"""What all streams of one engine share: limits, window and pauses are the endpoint's, whoever sends."""

from __future__ import annotations

from engine.adapters.limits import Pacer
from engine.run.load import Load
from engine.run.signal import Signal
from engine.vocabulary.config import Limits


class Traffic:
    """One for an endpoint. Each stream joins with its signal, and is woken when a slot is free or a pause is set.

    :ivar pacer: holds the rates that the user gave.
    :ivar load: the window and the rates that the endpoint bears.
    :ivar in_flight: requests of all streams.
    :ivar pause_until_s: nobody sends before it (loop time).
    """

    def __init__(self, limits: Limits, *, target_s: float | None = None) -> None:
        """:param target_s: a latency target of records."""
        self.pacer = Pacer(limits)
        self.load = Load(limits, target_s=target_s)
        self.in_flight = 0
        self.pause_until_s = 0.0
        self._streams: list[Signal] = []  # who sent last comes last, so that none takes every slot that gets free

    def __repr__(self) -> str:
        return f"Traffic(in_flight={self.in_flight}, streams={len(self._streams)}, {self.pacer!r}, {self.load!r})"

    @property
    def is_shared(self) -> bool:
        """Whether more than one stream sends at present."""
        return len(self._streams) > 1

    @property
    def is_full(self) -> bool:
        """Whether no more may be in flight."""
        return self.in_flight >= self.load.window.size

    def join(self, stream: Signal) -> None:
        """A stream may send from now on."""
        self._streams.append(stream)

    def leave(self, stream: Signal, in_flight: int) -> None:
        """It has ended.

        :param in_flight: its requests that never ended: their tasks were cancelled before their first step.
        """
        if stream in self._streams:
            self._streams.remove(stream)
        self.in_flight -= in_flight
        self._wake()

    def sent(self, stream: Signal) -> None:
        """A request of a stream is in flight."""
        self.in_flight += 1
        if self.is_shared:
            self._streams.remove(stream)
            self._streams.append(stream)

    def ended(self) -> None:
        """A request is not in flight any more."""
        self.in_flight -= 1
        self._wake()

    def pause_until(self, until_s: float) -> None:
        """Nobody sends before then; a pause is never made shorter."""
        if until_s > self.pause_until_s:
            self.pause_until_s = until_s
            self._wake()

    def _wake(self) -> None:
        for stream in list(self._streams):
            stream.notify()
