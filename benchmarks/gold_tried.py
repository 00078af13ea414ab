"""Other tests than the gold guard's, on the same answers: python -m benchmarks.gold_guard --tried

SIMULATED: one game, records one by one, without restarts, passes and sizes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from engine.decide.gold_test import _stake_for


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a stake may follow, in each run: all of it is known before the number comes.

    :ivar answers: so far. :ivar total: of the numbers. :ivar squares: of their squares.
    :ivar missing: log of the capital that is missing, over what is in hand of this part.
    """

    answers: int
    total: Any
    squares: Any
    missing: Any


Rule = Callable[[Known], Any]
"""A stake for each run."""


def fixed(stake: float) -> Rule:
    """Always the same."""
    return lambda _: stake


def plugged_in(known: Known) -> Any:
    """aGRAPA, the mean over the mean square so far: Waudby-Smith and Ramdas 2024, appendix B.3."""
    mean = known.total / (known.answers + 1)
    return np.clip(mean / ((known.squares + 0.25) / (known.answers + 1)), 0.0, 0.9)


_TABLE = np.linspace(-12.0, 27.0, 2_000)
_BY_TABLE = np.array([_stake_for(missing, squares=1e6) * 1e3 for missing in _TABLE])  # at 1e6 no stake is cut


def before(deadline: int) -> Rule:
    """As the guard's own: most often won by that answer."""

    def stake(known: Known) -> Any:
        squares = (known.squares + 6.0) / (known.answers + 20.0) * max(0, deadline - known.answers)
        staked = np.interp(known.missing, _TABLE, _BY_TABLE) / np.sqrt(np.maximum(squares, 1e-9))
        return np.where((squares > 0.0) & (known.missing < np.inf), np.minimum(staked, 0.9), 0.0)

    return stake


Parts = Sequence[tuple[float, Rule]]


def equal(*stakes: float) -> Parts:
    """As much on each."""
    return [(1.0 / len(stakes), fixed(stake)) for stake in stakes]


USED = (0.1, 0.2, 0.4, 0.6, 0.9)
LADDER = [(0.5, before(160)), (0.1, before(500)), (0.2, before(2_400))]
TRIED: dict[str, tuple[float, float, Callable[[float, float], Parts]]] = {
    "fixed and before deadlines": (0.0, 0.05, lambda _, __: [*((0.2 * w, r) for w, r in equal(*USED)), *LADDER]),
    "fixed stakes": (0.0, 0.05, lambda _, __: equal(*USED)),
    "stakes of the other guards": (0.0, 0.05, lambda _, __: equal(0.05, 0.1, 0.2, 0.4, 0.8)),
    "the best fixed stake of each": (0.0, 0.05, lambda loss, discordant: equal(min(0.9, loss / discordant))),
    "aGRAPA": (0.0, 0.05, lambda _, __: [(1.0, plugged_in)]),
    "before 160 answers only": (0.0, 0.05, lambda _, __: [(1.0, before(160))]),
    "before 80 and 160, and fixed": (
        0.0, 0.05, lambda _, __: [*((0.35 * w, r) for w, r in equal(*USED)), (0.25, before(80)), (0.4, before(160))]
    ),
    "fixed, more than 1 point": (0.01, 0.05, lambda _, __: equal(*USED)),
    "fixed, more than 2 points": (0.02, 0.05, lambda _, __: equal(*USED)),
    "fixed, an eighth of the error": (0.0, 0.05 / 8, lambda _, __: equal(*USED)),
}  # fmt: skip
"""Margin in the null, alpha, parts by loss and discordance: of one game on records one by one, without restarts or
passes."""


def plain_power(
    loss: float, discordant: float, answers: int, tried: tuple[float, float, Callable[[float, float], Parts]], *,
    runs: int, seed: int,
) -> tuple[float, float]:  # fmt: skip
    """How often such a game is won, and the median of the answers that it takes."""
    margin, alpha, parts_of = tried
    parts = parts_of(loss, discordant)
    drawn = np.random.default_rng(seed).random((answers, runs))
    lost = (discordant + loss) / 2.0
    gains = np.where(drawn < lost, 1.0, np.where(drawn < discordant, -1.0, 0.0)) - margin
    capital = np.array([np.full(runs, math.log(part)) for part, _ in parts])
    total, squares, first = np.zeros(runs), np.zeros(runs), np.full(runs, answers + 1)
    for number in range(answers):
        left = 1.0 / alpha - np.exp(capital).sum(axis=0)
        missing = np.where(left > 0.0, np.log(np.maximum(left, 1e-9)), np.inf)
        for row, (_, rule) in zip(capital, parts, strict=True):
            known = Known(answers=number, total=total, squares=squares, missing=missing - row)
            np.add(row, np.log1p(rule(known) / (1.0 + margin) * gains[number]), out=row)
        total, squares = total + gains[number], squares + gains[number] ** 2
        won = (np.logaddexp.reduce(capital, axis=0) >= -math.log(alpha)) & (first > answers)
        first[won] = number + 1
    return float((first <= answers).mean()), float(np.median(first))


def mcnemar_power(loss: float, discordant: float, answers: int) -> float:
    """Of McNemar's test, one-sided at 5 %, looked at once: Connor 1987, as `quality_stats.gold_needed`."""
    normal = statistics.NormalDist()
    spread = math.sqrt(discordant - loss * loss)
    return normal.cdf((loss * math.sqrt(answers) - normal.inv_cdf(0.95) * math.sqrt(discordant)) / spread)


def show_tried(*, runs: int, seed: int) -> None:
    """One line for each."""
    cases = [(0.15, 0.19, 150), (0.15, 0.25, 150), (0.15, 0.31, 150), (0.05, 0.09, 1_500), (0.05, 0.15, 1_500)]
    print("won, and the median of the answers: " + ", ".join(f"{loss:.2f} at d={d} in {n}" for loss, d, n in cases))
    for name, tried in TRIED.items():
        powers = [plain_power(*case, tried, runs=runs, seed=seed) for case in cases]
        print(f"{name:<30}" + "".join(f"{won:8.2f} ({median:.0f})" for won, median in powers), flush=True)
    print(f"{'McNemar, looked at once':<30}" + "".join(f"{mcnemar_power(*case):8.2f}" for case in cases))
