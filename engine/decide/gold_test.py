"""Whether larger batches lose accuracy, by records with known answers: a test that may be looked at after every reply.

See docs/design/gold.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

GOLD_ALPHA = 0.05
"""Of a run in which no batch size loses anything: how often one is capped all the same, at the most."""

LEAST_LOSS = 0.02
"""Of accuracy: less by estimate is not acted on, however sure it is that there is a loss."""

_STAKES = (0.1, 0.2, 0.4, 0.6, 0.9)
_LOG_STAKES = math.log(len(_STAKES))
_RUNGS = (2, 4, 8, 16, 32, 64)
_WEIGHTS = (0.55, 0.11, 0.11, 0.11, 0.07, 0.05)  # the first takes in all sizes, and is right where all of them suffer
_MAIN = 0.85  # of the weight is on the game that begins with the run
_LATER = 0.11  # and this much on those that begin later: a fall late in the run would drown in what was won before it
_PASSES = 0.04  # and on later passes through the records
_RESTART_EVERY = 50  # batches with pairs
_MOST_RESTARTS = 32  # then only every second one goes on, and new ones come half as often
_NEAR = 3.0  # a factor of 20 that its own pairs must add before a smaller size is blamed for what larger ones lose


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A loss that was shown.

    :ivar size: the rung from which on batches lose. :ivar pairs: at it and above.
    :ivar loss: of accuracy, by estimate.
        Of a fall late in the run both are of what came since.
    :ivar late: whether a game that began during the run showed it, and not the one from its start.
    """

    size: int
    pairs: int
    loss: float
    late: bool


class _Pairs(msgspec.Struct, frozen=True):
    """Of one batch: its records' lone answers less their answers in it, on average (-1 to 1)."""

    sweep: int
    rung: int
    mean: float
    count: int


class _Game:
    """A capital that grows where the mean is above 0, as in `quality_stats.Bet`, of several stakes at once."""

    def __init__(self, logs: Sequence[float] = (0.0,) * len(_STAKES)) -> None:
        self._logs = list(logs)
        self.log = 0.0

    def add(self, gains: Sequence[float]) -> None:
        """One number more; the log of what it makes of each stake."""
        self._logs = [log + gain for log, gain in zip(self._logs, gains, strict=True)]
        self.log = _log_sum(self._logs) - _LOG_STAKES

    def copy(self) -> _Game:
        """Another one that stands where this one does."""
        other = _Game(self._logs)
        other.log = self.log
        return other


class _Games:
    """One game for each least size: it takes what comes of batches of that size and above.

    All start together; their mean by the weights is again a capital that does not grow where nothing is lost. So the
    sizes need no share of the error each: where only large batches were asked, all games are one and the same. Such are
    kept once, under the least size that was asked.
    """

    def __init__(self) -> None:
        self._games: dict[int, _Game] = {}  # by rung asked, the largest first
        self._lost = dict.fromkeys(_RUNGS, 0.0)
        self._pairs = dict.fromkeys(_RUNGS, 0)

    def add(self, pairs: _Pairs, gains: Sequence[float]) -> None:
        """A batch, and what it makes of each stake."""
        rung = pairs.rung
        self._lost[rung] += pairs.mean * pairs.count
        self._pairs[rung] += pairs.count
        if rung not in self._games:
            larger = min((one for one in self._games if one > rung), default=None)
            self._games[rung] = _Game() if larger is None else self._games[larger].copy()
        for least, game in self._games.items():
            if least <= rung:
                game.add(gains)

    @property
    def log(self) -> float:
        """Of the mean capital."""
        logs: list[float] = []
        below = 0
        for rung in sorted(self._games):
            weight = sum(w for least, w in zip(_RUNGS, _WEIGHTS, strict=True) if below < least <= rung)
            logs.append(math.log(weight) + self._games[rung].log)
            below = rung
        idle = sum(w for least, w in zip(_RUNGS, _WEIGHTS, strict=True) if least > below)
        return _log_sum([*logs, math.log(idle)] if idle > 0.0 else logs)

    def log_from(self, rung: int) -> float:
        """Of the game that takes this size and above, which was asked."""
        return self._games[rung].log

    @property
    def rungs(self) -> list[int]:
        """Of which it has seen batches."""
        return [rung for rung, count in self._pairs.items() if count]

    def pairs_from(self, rung: int) -> int:
        """Records compared at this size and above."""
        return sum(count for at, count in self._pairs.items() if at >= rung)

    def loss_from(self, rung: int) -> float:
        """Of accuracy at this size and above, by estimate."""
        lost = math.fsum(lost for at, lost in self._lost.items() if at >= rung)
        return lost / max(1, self.pairs_from(rung))


class GoldTest:
    """Takes pairs, batch by batch; says from which size on batches lose accuracy.

    H0: given all that came before, a batch's mean difference has a mean of 0 or less. Each game is a nonnegative
    supermartingale then, and so is the weighted sum of all; by Ville's inequality it ever passes 1/alpha in one of
    1/alpha runs. A batch is one number, so that records which go wrong together count once. What is shown for a size is
    shown; then those below it are tested with the same error, on their own pairs: one after the other from the top, a
    fixed sequence needs no share for each.
    """

    def __init__(self, *, alpha: float = GOLD_ALPHA) -> None:
        self._alpha = alpha
        self._seen: list[_Pairs] = []
        self._top = 2 * _RUNGS[-1]  # what is at it and above has been shown
        self.shown: list[Shown] = []
        self._begin()

    def __repr__(self) -> str:
        return f"GoldTest(pairs={self.pairs}, bad_from={self.bad_from}, log={self.log:.2f})"

    def _begin(self) -> None:
        self._main = _Games()
        self._later: list[tuple[float, _Games]] = []
        self._passes: dict[int, _Games] = {}
        self._batches = 0
        self._every = _RESTART_EVERY

    @property
    def pairs(self) -> int:
        """Records compared, of all sizes and passes."""
        return sum(pairs.count for pairs in self._seen)

    @property
    def bad_from(self) -> int | None:
        """The least size that is shown to lose; None: none."""
        return None if not self.shown else self._top

    def add(self, rung: int, differences: Sequence[float], *, sweep: int = 1) -> Shown | None:
        """A batch in which records with known answers stood. What it shows, if anything new.

        :param rung: of its size, a power of two from 2.
        :param differences: for each record, right alone (0 to 1) less right in the batch.
        :param sweep: which pass through the records; each has games of its own, as its records came before.
        """
        if not differences:
            return None
        mean = math.fsum(differences) / len(differences)
        pairs = _Pairs(sweep, min(rung, _RUNGS[-1]), mean, len(differences))
        self._seen.append(pairs)
        self._take(pairs)
        return self._look()

    def _take(self, pairs: _Pairs) -> None:
        if pairs.rung >= self._top:
            return
        gains = [math.log1p(stake * pairs.mean) for stake in _STAKES]
        if pairs.sweep > 1:
            self._passes.setdefault(pairs.sweep, _Games()).add(pairs, gains)
            return
        if self._batches and self._batches % self._every == 0:
            number = self._batches // _RESTART_EVERY
            self._later.append((1.0 / (number * (number + 1)), _Games()))
            if len(self._later) > _MOST_RESTARTS:
                self._later, self._every = self._later[1::2], 2 * self._every
        self._batches += 1
        self._main.add(pairs, gains)
        for _, games in self._later:
            games.add(pairs, gains)

    def _all(self) -> list[tuple[float, _Games]]:
        """All games with their weights, which are 1 or less together; what is not at stake counts for nothing."""
        games = [(_MAIN, self._main)]
        games += [(_LATER * weight, one) for weight, one in self._later]
        games += [(_PASSES * 0.5 ** (sweep - 1), one) for sweep, one in self._passes.items()]
        return games

    @property
    def log(self) -> float:
        """Of the capital of all games together; `-log(alpha)` shows a loss."""
        return _log_sum([math.log(weight) + games.log for weight, games in self._all()])

    def _look(self) -> Shown | None:
        if self.log < -math.log(self._alpha):
            return None
        _, games = max(self._all(), key=lambda one: math.log(one[0]) + one[1].log)
        losing = [rung for rung in games.rungs if games.loss_from(rung) >= LEAST_LOSS]
        if not losing:
            return None
        most = max(games.log_from(rung) for rung in losing)
        size = max(rung for rung in losing if games.log_from(rung) >= most - _NEAR)
        shown = Shown(size=size, pairs=games.pairs_from(size), loss=games.loss_from(size), late=games is not self._main)
        self._top = size
        self.shown.append(shown)
        self._begin()
        for pairs in self._seen:
            self._take(pairs)
        return shown


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(log - top) for log in logs))
