"""Which setting to take: the cheapest that is not worse than the best by more than a margin. See docs/design/tune.md.

Settings answer the same records in the same order, a block at a time. One that a cheaper one is shown to equal, within
the margin, is stopped; so is one that is shown to be worse than another by more. What stops is not forgotten: the
setting that wins must hold against every one that was stopped, and those that threaten it most are taken up again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import msgspec

from engine.decide.quality_stats import gold_needed
from engine.decide.racing_pairs import Difference, Pairs

LOOKS = (50, 100, 150, 200, 300, 400, 500, 600, 800, 1000)
"""Records after which is looked. Beyond the last: every 250."""

_BEYOND = 250
_FEW = 600
"""Records below which a stopped setting is not trusted to have lost: it was stopped when it looked worst."""
_STRICT_Z = 4.0
"""How sure its loss must be all the same, not to be taken up again."""
_RUNNING_SHARE = 0.75
"""Of what may be spent, before the rest is kept for taking up again what was stopped. In the world "smooth" of
benchmarks/tune.py, where many settings are about the margin behind, the choice was beyond the margin in 6 of the first
120 runs with a share of .85, a strictness of 3.5 and no `_CHOICES`, in 2 with `_CHOICES`, and in none as it stands."""
_AT_LEAST = 150
"""Records that may always be paid for, for every setting: with little gold nothing can be shown and little be saved."""
_CHOICES = 2
"""The error is divided by it: the choice is the best-looking of several settings about as cheap."""
_ROUNDING = 1.0 + 1e-9
"""What the parts of a sum may be beside the whole: a race that may ask everything must not lack the last records."""
_CHAIN_Z = 1.0
"""How sure a stop must be against what the stopped one had itself stopped: a hint only, since these are looked at again
in the end."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When a setting is good enough.

    :ivar margin: of the score, that the chosen setting may be worse than the best.
    :ivar confidence: with which that is to be shown, for one pair, over all looks together.
    :ivar most_share: of the tokens of asking every setting everything, that a race may spend. Never less than what the
        two dearest settings take (a race of two must be able to end), nor than all settings on the first 150 records.
    :ivar undecided_share: of the margin, that an estimate may be behind where nothing could be shown.
    """

    margin: float = 0.03
    confidence: float = 0.95
    most_share: float = 0.39
    undecided_share: float = 0.25

    @property
    def alpha(self) -> float:
        """The chance of an error."""
        return 1.0 - self.confidence

    @property
    def z(self) -> float:
        """One-sided, for the choice against each other setting."""
        return NormalDist().inv_cdf(1.0 - self.alpha / _CHOICES)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it so far.

    :ivar setting: the chosen one. :ivar best: the one with the highest estimate.
    :ivar is_clear: it is shown that none is better by more than the margin.
    :ivar threat: by how much the strongest of the others may be better; None with one setting.
    :ivar threatening: which that is.
    :ivar gold_needed: records with which the margin could be shown, for two settings that differ as often as these do.
    """

    setting: int
    best: int
    is_clear: bool
    threat: Difference | None
    threatening: int | None
    gold_needed: int


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Why a setting need not go on: `by` is cheaper and as good within the margin, or better by more than that."""

    by: int
    is_worse: bool


def looks(records: int, *, step: int = 1) -> list[int]:
    """When to look, each a multiple of `step` (so that no batch is cut at a look) or the last record."""
    wished = [*LOOKS, *range(LOOKS[-1] + _BEYOND, records + _BEYOND, _BEYOND)]
    return sorted({min(records, math.ceil(look / step) * step) for look in wished if look < records + step} | {records})


class Race:
    """A race of settings over one order of records: it says who is to answer more, and is told the scores."""

    def __init__(
        self, costs: Sequence[float], *, at: Sequence[int], rule: Rule, tokens: Sequence[float] | None = None
    ) -> None:
        """
        :param costs: of one record, in any unit, for each setting: what makes one cheaper than another.
        :param tokens: of one record, for each setting: what the race itself may spend is counted in them; None: costs.
        :param at: records after which is looked, rising; the last is all that there are.
        """
        self._rule = rule
        self._at = list(at)
        self._pairs = Pairs(len(costs))
        self._alive = set(range(len(costs)))
        self._rejected: set[int] = set()
        self._stops: dict[int, Stop] = {}
        self._stopped_by: dict[int, set[int]] = {k: {k} for k in self._alive}
        self._look = 0
        self._over = False
        self.price(costs, tokens=tokens)

    def __repr__(self) -> str:
        return f"Race({len(self._alive)} of {len(self._costs)} left, look {self._look} of {len(self._at)})"

    @property
    def alive(self) -> frozenset[int]:
        """Settings that nothing has stopped."""
        return frozenset(self._alive)

    def stop_of(self, setting: int) -> Stop | None:
        """What stopped it; None while nothing has."""
        return self._stops.get(setting)

    @property
    def spent(self) -> float:
        """Tokens so far."""
        return sum(tokens * self._pairs.records(k) for k, tokens in enumerate(self._tokens))

    @property
    def most(self) -> float:
        """What may be spent."""
        return self._purse(self._rule.most_share)

    def most_of(self, each: Sequence[float]) -> float:
        """The same in another unit.

        :param each: of one record, for each setting.
        """
        return self._purse(self._rule.most_share, each)

    def _purse(self, share: float, each: Sequence[float] | None = None) -> float:
        each = self._tokens if each is None else each
        whole, dearest, records = sum(each), sum(sorted(each)[-2:]), self._at[-1]
        return _ROUNDING * max(records * share * whole, records * dearest, min(records, _AT_LEAST) * whole)

    def price(self, costs: Sequence[float], *, tokens: Sequence[float] | None = None) -> None:
        """Correct the costs by what was measured."""
        self._costs = list(costs)
        self._tokens = list(costs if tokens is None else tokens)
        self._order = sorted(range(len(costs)), key=lambda k: (costs[k], k))
        self._rank = {k: rank for rank, k in enumerate(self._order)}

    def wanted(self) -> dict[int, int]:
        """Settings and the number of records that each is to have answered next; empty when the race is over."""
        while not self._over and self._is_running:
            found = self._wanted_at(self._at[self._look])
            if found:
                return found
            self._look += 1
        return {} if self._over else self._wanted_to_confirm()

    def told(self, scores: Sequence[Sequence[float]]) -> None:
        """Scores of each setting on the records that it has answered, as many as were wanted."""
        self._pairs.update(scores)
        if self._is_running:
            self._stop_some()
            self._look += 1

    def end(self) -> None:
        """Nothing more will be asked: the budget is used, say."""
        self._over = True

    # -- while it runs ------------------------------------------------------------------------------------------

    @property
    def _is_running(self) -> bool:
        return self._look < len(self._at) and (len(self._alive) > 1 or len(self._costs) == 1)

    def _wanted_at(self, look: int) -> dict[int, int]:
        """The dearest first: cheap ones can still be afforded when these can't."""
        wanted: dict[int, int] = {}
        spent, most = self.spent, self._purse(_RUNNING_SHARE * self._rule.most_share)
        for k in reversed(self._order):
            more = look - self._pairs.records(k)
            if k in self._alive and more > 0 and spent + more * self._tokens[k] <= most:
                spent += more * self._tokens[k]
                wanted[k] = look
        return wanted

    def _stop_some(self) -> None:
        """Alpha is spent over the looks in proportion to the records: Lan and DeMets 1983, Biometrika 70."""
        before = self._at[self._look - 1] if self._look else 0
        share = (self._at[self._look] - before) / self._at[-1]
        z = NormalDist().inv_cdf(1.0 - self._rule.alpha * share)
        for k in reversed(self._order):
            if k in self._alive:
                self._stop(k, z)

    def _stop(self, setting: int, z: float) -> None:
        for other in self._order:
            if other == setting or other not in self._alive:
                continue
            if self._rank[other] < self._rank[setting]:
                if self._holds_for(other, setting, z):
                    self._alive.discard(setting)
                    self._stops[setting] = Stop(by=other, is_worse=False)
                    self._stopped_by[other] |= self._stopped_by[setting]
                    return
            elif self._pairs.difference(other, setting).low(z) > self._rule.margin:
                self._alive.discard(setting)
                self._rejected.add(setting)
                self._stops[setting] = Stop(by=other, is_worse=True)
                return

    def _holds_for(self, cheaper: int, setting: int, z: float) -> bool:
        """Whether the cheaper one is shown not to be worse, than it and than those that it had stopped."""
        return all(
            self._pairs.difference(other, cheaper).high(z if other == setting else _CHAIN_Z) < self._rule.margin
            for other in self._stopped_by[setting]
        )

    # -- the end ------------------------------------------------------------------------------------------------

    def choice(self) -> Choice:
        """The setting to take by what is known now."""
        asked = [k for k in self._order if self._pairs.records(k)] or self._order
        candidates = [k for k in asked if k not in self._rejected]
        known = self._known(candidates)
        best = max(known, key=lambda k: (self._pairs.mean(k), -self._rank[k]))
        clear = next((k for k in candidates if self._is_shown(k, asked)), None)
        chosen = clear if clear is not None else self._undecided(known, best)
        threats = [(self._pairs.difference(k, chosen), k) for k in asked if k != chosen]
        threat, by = max(threats, key=lambda each: each[0].high(self._rule.z), default=(None, None))
        discordant = self._pairs.discordance(chosen, best if best != chosen or by is None else by)
        return Choice(
            setting=chosen,
            best=best,
            is_clear=clear is not None and len(asked) == len(self._order),
            threat=threat,
            threatening=by,
            gold_needed=gold_needed(discordant, self._rule.margin),
        )

    def _known(self, candidates: Sequence[int]) -> list[int]:
        """Those whose estimate may be trusted."""
        few = min(_FEW, max(self._pairs.records(k) for k in candidates))
        return [k for k in candidates if self._pairs.records(k) >= few]

    def _is_shown(self, setting: int, others: Sequence[int]) -> bool:
        return all(
            k == setting or self._pairs.difference(k, setting).high(self._rule.z) < self._rule.margin for k in others
        )

    def _undecided(self, known: Sequence[int], best: int) -> int:
        """The cheapest that is estimated to be hardly behind any, where nothing can be shown."""
        most = self._rule.margin * self._rule.undecided_share
        close = (k for k in known if all(self._pairs.difference(o, k).mean <= most for o in known if o != k))
        return next(close, best)

    def _wanted_to_confirm(self) -> dict[int, int]:
        """A cheaper setting that looks as good is tried before the choice is taken; then the choice itself."""
        choice = self.choice()
        candidates = [k for k in self._order if self._pairs.records(k) and k not in self._rejected]
        known = self._known(candidates)
        hope = self._undecided(known, choice.best)
        for k in [hope] * (self._rank[hope] < self._rank[choice.setting]) + [choice.setting]:
            for other, upto in self._open_questions(k):
                if self.spent + (upto - self._pairs.records(other)) * self._tokens[other] <= self.most:
                    return {other: upto}
        return {}

    def _open_questions(self, setting: int) -> Iterator[tuple[int, int]]:
        """Who is to answer how many records more, to know whether a setting holds; the most threatening first."""
        have = self._pairs.records(setting)
        if have < min(_FEW, self._at[-1]) and len(self._costs) > 1:
            yield setting, self._next(have)
        for other in self._threats(setting):
            yield other, min(have, self._next(self._pairs.records(other)))

    def _next(self, records: int) -> int:
        return next(at for at in self._at if at > records)

    def _threats(self, chosen: int) -> Iterator[int]:
        """Stopped settings that may yet be better by more than the margin, the most threatening first."""
        rule, found = self._rule, []
        for k in self._order:
            if k == chosen or self._pairs.records(k) >= self._pairs.records(chosen):
                continue
            above = self._pairs.difference(k, chosen)
            z = rule.z if above.n >= _FEW else max(rule.z, _STRICT_Z)
            if above.high(z) >= rule.margin:
                found.append((above.high(rule.z), k))
        yield from (k for _, k in sorted(found, reverse=True))
