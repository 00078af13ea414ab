"""What refusals allow of requests in flight, and which of them show a limit at all. See docs/design/concurrency.md."""

from __future__ import annotations

import math
from collections import deque

_CUT = 0.8
_BORNE = 3  # requests with so many in flight or more, of the last ones, went well
_NEAR = 0.95  # of that number: below it, it is no reason for a refusal
_USUAL = 0.01  # refused below that: from there on it is the endpoint's way, and one refusal is not enough
_CALM = 1000
_OUTCOMES = 60
_REFUSED_SHARE = 0.6  # of the last with so many in flight or more, and at least eight: the limit has fallen
_REFUSALS = 8
_FIRST_REFUSALS, _FIRST_SHARE = 2, 0.4  # the same, where more than so many in flight were not borne yet
_RECOVER_S = 10.0


class Ceiling:
    """What refusals allow: cut to a share of what was in use, then a cubic curve back to it and past it (CUBIC).

    The time of the curve stands still while the window is not used: an idle hour proves nothing.
    """

    def __init__(self) -> None:
        self._top = math.inf
        self._used_s = 0.0

    @property
    def size(self) -> float:
        """Requests in flight that it allows now; infinite before any cut."""
        return self._top * (1 - (1 - _CUT) * (1 - self._used_s / _RECOVER_S) ** 3)

    def cut(self, used: int) -> None:
        """Refused with so many in flight."""
        self._top, self._used_s = float(used), 0.0

    def grow(self, used_s: float) -> None:
        """It was used for so many seconds more."""
        self._used_s += used_s


class Refusals:
    """Which refusals show a limit: not those that come as well where as many in flight were borne a moment ago."""

    def __init__(self) -> None:
        self._last: deque[tuple[int, bool]] = deque(maxlen=_OUTCOMES)
        self._calm = self._accidents = 0.0
        self._any = False

    def note_accepted(self, in_flight: int) -> None:
        """A request went well that was sent with so many in flight."""
        if self._any:  # most endpoints refuse nothing, and then nothing is compared
            self._calm += self._is_calm(in_flight)
        self._last.append((in_flight, False))

    def show_limit(self, in_flight: int) -> bool:
        """Take in a refusal; whether it, with those before it, shows a limit."""
        calm, self._any = self._is_calm(in_flight), True
        self._last.append((in_flight, True))
        self._calm += calm
        self._accidents += calm
        if self._calm > _CALM:
            self._calm, self._accidents = self._calm / 2, self._accidents / 2
        ends = [refused for least, refused in self._last if least >= in_flight]
        refused = sum(ends)
        if not calm and self._accidents < _USUAL * (self._calm + 50):
            # What is above a limit is refused, nearly every time; what comes at random is not.
            return refused >= max(_FIRST_REFUSALS, _FIRST_SHARE * len(ends))
        return refused >= max(_REFUSALS, _REFUSED_SHARE * len(ends))

    def _is_calm(self, in_flight: int) -> bool:
        """Whether clearly more than so many were in flight and not refused a moment ago."""
        borne = sorted(least for least, refused in self._last if not refused)
        return len(borne) >= _BORNE and in_flight < _NEAR * borne[-_BORNE]
