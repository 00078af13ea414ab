"""Whether larger batches lose accuracy, by records with known answers: a test that may be looked at after every reply.

See docs/design/gold.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from itertools import accumulate
from statistics import NormalDist

import msgspec

GOLD_ALPHA = 0.05
"""Of a run in which no batch size loses anything: how often one is capped all the same, at the most."""

LEAST_LOSS = 0.02
"""Of accuracy: less by estimate is not acted on, however sure it is that there is a loss."""

_STAKES = (0.1, 0.2, 0.4, 0.6, 0.9)
_MOST_STAKE = 0.9
_NORMAL = NormalDist()
_RUNGS = (2, 4, 8, 16, 32, 64)
_WEIGHTS = (0.55, 0.11, 0.11, 0.11, 0.07, 0.05)  # the first takes in all sizes, and is right where all of them suffer
_CUMULATED = dict(zip((0, *_RUNGS), accumulate(_WEIGHTS, initial=0.0), strict=True))
_MAIN = 0.82  # of the weight is on the game that begins with the run
_LATER = 0.14  # and this much on those that begin later: a fall late in the run would drown in what was won before it
_PASSES = 0.04  # and on later passes through the records
_SOON = ((160, 0.5), (500, 0.1), (2_400, 0.2))  # pairs: this part of a game is to win by then (see `_Game`)
_SOON_LATER = ((300, 0.3), (1_600, 0.3))  # of games that begin later: they must win more, and that takes longer
_SQUARES, _PAIRS = 6.0, 20.0  # the sum of the squares of the numbers of so many pairs, to begin with: rather too much
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
    """A capital that grows where the mean is above 0, as in `quality_stats.Bet`, of several stakes at once.

    Some are fixed. The others change from number to number, each so that its part of the capital most probably brings
    what is missing before a deadline, see `_stake_for`. As a stake is known before its number comes, any will do.
    """

    def __init__(self, soon: Sequence[tuple[int, float]], weight: float) -> None:
        """
        :param soon: deadlines, as pairs, and the part of the capital for each; the rest is at the fixed stakes.
        :param weight: of the game among all.
        """
        self._soon = soon
        parts = [(1.0 - sum(part for _, part in soon)) / len(_STAKES)] * len(_STAKES) + [part for _, part in soon]
        self._logs = tuple(math.log(part) for part in parts)
        self._log_weight = math.log(weight)
        self._squares = 0.0
        self._pairs = 0
        self.log = 0.0

    def add(self, pairs: _Pairs, gains: Sequence[float], missing: float) -> None:
        """One number more.

        :param gains: the log of what it makes of each fixed stake. :param missing: as in `_stake_for`.
        """
        square = (self._squares + _SQUARES) / (self._pairs + _PAIRS)  # by a pair
        stakes = [
            _stake_for(missing - log - self._log_weight, squares=square * (deadline - self._pairs))
            for (deadline, _), log in zip(self._soon, self._logs[len(_STAKES) :], strict=True)
        ]
        gains = [*gains, *(math.log1p(stake * pairs.mean) for stake in stakes)]
        self._logs = tuple(log + gain for log, gain in zip(self._logs, gains, strict=True))
        self._squares += pairs.mean * pairs.mean
        self._pairs += pairs.count
        self.log = _log_sum(self._logs)

    @property
    def log_fixed(self) -> float:
        """Of what is at the fixed stakes."""
        return _log_sum(self._logs[: len(_STAKES)])


def _stake_for(missing: float, *, squares: float) -> float:
    """The stake of a capital that is to bring what is missing before a deadline.

    Where nothing is lost, a capital that is a share f of its aim comes there with a chance of f at the most. It does so
    by following the chance that the sum of the numbers, taken for a Brownian motion, rises by z sqrt(squares) before
    the deadline, 2 (1 - Phi(z)) = f: the stake is the slope of log f along the sum. That line is O'Brien and Fleming's
    (1979, Biometrics 35), where looking costs next to nothing; to reach a goal by a deadline with such stakes is from
    Browne (1999, Adv. Appl. Prob. 31). Where the guesses are wrong it wins less often, and errs no more.

    :param missing: log of what is missing, over what is in hand; infinite where nothing is.
    :param squares: the sum of the squares of the numbers that will come.
    """
    if squares <= 0.0 or missing == math.inf:
        return 0.0
    share = 1.0 / (1.0 + math.exp(min(missing, 27.0)))  # with less in hand the stakes are about the same
    return min(_MOST_STAKE, 2.0 * _NORMAL.pdf(_NORMAL.inv_cdf(share / 2.0)) / (share * math.sqrt(squares)))


class _Games:
    """One game for each least size: it takes what comes of batches of that size and above.

    All start together; their mean by the weights is again a capital that does not grow where nothing is lost. So the
    sizes need no share of the error each: where only large batches were asked, all games are one and the same. Such are
    kept once, under the least size that was asked.
    """

    def __init__(self, weight: float, soon: Sequence[tuple[int, float]]) -> None:
        """:param weight: of these among all. :param soon: see `_Game`."""
        self._weight = weight
        self._soon = soon
        self._games: dict[int, _Game] = {}  # by rung asked, the largest first
        self._lost = dict.fromkeys(_RUNGS, 0.0)
        self._pairs = dict.fromkeys(_RUNGS, 0)

    def add(self, pairs: _Pairs, gains: Sequence[float], missing: float) -> None:
        """A batch; see `_Game.add`."""
        rung = pairs.rung
        self._lost[rung] += pairs.mean * pairs.count
        self._pairs[rung] += pairs.count
        if rung not in self._games:
            larger = min((one for one in self._games if one > rung), default=None)
            self._games[rung] = _Game(self._soon, self._weight) if larger is None else copy(self._games[larger])
        for least, game in self._games.items():
            if least <= rung:
                game.add(pairs, gains, missing)

    @property
    def log(self) -> float:
        """Of the mean capital, times the weight."""
        rungs = sorted(self._games)
        logs = [
            math.log(_CUMULATED[rung] - _CUMULATED[below]) + self._games[rung].log
            for below, rung in zip([0, *rungs], rungs, strict=False)
        ]
        idle = 1.0 - _CUMULATED[max(rungs, default=0)]
        return math.log(self._weight) + _log_sum([*logs, math.log(idle)] if idle > 1e-9 else logs)

    def log_from(self, rung: int) -> float:
        """Of the game that takes this size and above, which was asked: at the fixed stakes, for others win no more
        than is needed and so tell no size from another."""
        return self._games[rung].log_fixed

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
        self._main = _Games(_MAIN, _SOON)
        self._later: list[_Games] = []
        self._passes: dict[int, _Games] = {}
        self._batches = 0
        self._every = _RESTART_EVERY
        self.log = self._main.log  # of the capital of all games together; `-log(alpha)` shows a loss

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
        missing = self._missing
        for games in self._those_of(pairs.sweep):
            games.add(pairs, gains, missing)
        self.log = _log_sum([games.log for games in self._all()])

    def _those_of(self, sweep: int) -> list[_Games]:
        """The games that take the next batch of this pass."""
        if sweep > 1:
            if sweep not in self._passes:
                self._passes[sweep] = _Games(_PASSES * 0.5 ** (sweep - 1), _SOON_LATER)
            return [self._passes[sweep]]
        if self._batches and self._batches % self._every == 0:
            number = self._batches // _RESTART_EVERY
            self._later.append(_Games(_LATER / (number * (number + 1)), _SOON_LATER))
            if len(self._later) > _MOST_RESTARTS:
                self._later, self._every = self._later[1::2], 2 * self._every
        self._batches += 1
        return [self._main, *self._later]

    def _all(self) -> list[_Games]:
        """All games, whose weights are 1 or less together; what is not at stake counts for nothing."""
        return [self._main, *self._later, *self._passes.values()]

    @property
    def _missing(self) -> float:
        """Log of the capital that is missing until a loss is shown; infinite where none is, and none need be won."""
        aim, log = -math.log(self._alpha), self.log
        return aim + math.log(-math.expm1(log - aim)) if log < aim else math.inf

    def _look(self) -> Shown | None:
        if self.log < -math.log(self._alpha):
            return None
        games = max(self._all(), key=lambda one: one.log)
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
