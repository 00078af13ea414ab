"""Which refusals show a limit on a rate, and which are accidents. See docs/design/concurrency.md."""

from __future__ import annotations

_RECENT = 40.0  # requests
_SHARE = 0.2  # of the recent ones refused, at least twice: a limit, whatever the rate was
_REFUSALS = 2
_MOST = 0.5  # refused at once after a cut: still far above the limit
_USUAL = 0.02  # of requests refused at a calm rate: from there on it is the endpoint's way, and no limit
_EXCESS, _MOST_EXCESS = 0.1, 0.3  # of refusals: the one beyond twice the usual, or the other beyond it, is a limit
_MOST_USUAL = 0.35  # of refusals that no limit explains: some were of one all the same
_DUE = 6.0  # usual refusals at calm rates: where a quarter of them came, they are not usual


class RateRefusals:
    """How many of the recent requests were refused, and how many are at a rate that cannot be the reason."""

    def __init__(self) -> None:
        self._count = 0
        self._sent = self._refused = 0.0
        self._calm = self._accidents = 0.0
        self._tried = self._seen = 0  # calm requests since the usual share was last held to account, and refused ones

    def __repr__(self) -> str:
        return f"{self._refused:.1f} of the last {self._sent:.0f} refused, {self._accidents:.1f} by accident"

    def note_sent(self, *, calm: bool) -> None:
        """A request goes out; `calm` is below the rate that is believed in."""
        self._sent = self._sent * (1 - 1 / _RECENT) + 1
        self._refused *= 1 - 1 / _RECENT
        if calm:
            self._calm = self._calm * (1 - 1 / 1000) + 1
            self._accidents *= 1 - 1 / 1000
            self._tried += 1
            self._hold_to_account()

    def show_limit(self, *, paced: bool, near: bool, calm: bool, measured: bool) -> bool:
        """Take in a refusal; whether it and those before it show a limit.

        :param near: a limit was computed, and we send about as much or more; `calm` is well below one.
        :param measured: so much was sent since the last cut that a limit can be computed.
        """
        self._count += 1
        self._refused += 1
        self._accidents += calm
        self._seen += calm
        usual = self.usual
        if usual < _USUAL and (near or (measured and not calm)):
            return True
        if calm and not measured:
            return False
        if paced and not near and not measured:
            return self.share >= _MOST and self._count >= _REFUSALS
        return self.share >= max(_SHARE, min(2 * usual + _EXCESS, usual + _MOST_EXCESS)) and self._count >= _REFUSALS

    @property
    def share(self) -> float:
        """Of the recent requests, refused."""
        return self._refused / max(self._sent, self._refused, 1.0)

    @property
    def usual(self) -> float:
        """Of requests at a rate that cannot be the reason, refused; as if 50 before had not been."""
        return self._accidents / (self._calm + 50)

    def take_for_usual(self, share: float) -> None:
        """So many are refused, whatever the rate."""
        self._calm = max(self._calm, 200.0)
        self._accidents = max(self._accidents, min(share, _MOST_USUAL) * (self._calm + 50))
        self._tried = self._seen = 0

    def _hold_to_account(self) -> None:
        """What refuses whatever the rate refuses at calm rates too, and a limit that falls and comes back does not.

        By chance alone only one of six that were due comes in 2 of 100 (Poisson).
        """
        due = self.usual * self._tried
        if due < _DUE:
            return
        if self._seen <= due / 4:
            self._accidents = self._seen / self._tried * (self._calm + 50)
        self._tried = self._seen = 0

    def restart(self) -> None:
        """The rate was cut: what was refused before says nothing about the new one."""
        self._count = 0
        self._sent = self._refused = 0.0
