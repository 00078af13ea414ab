"""`annotate tune` where the true accuracy of every setting is known: what it chooses, and what that took. Simulated.

python -m benchmarks.tune [--seeds 50] [--engine-seeds 5] [--records 1000] [--margin 0.03]

First on plain random numbers: 30 settings (batch size x examples x form) of five made-up worlds, whose records are
easy or hard for all settings alike, with a tenth of the answers changed by the setting. Then through the real engine,
against the simulated endpoint on virtual time, with curves of accuracy by batch size and form. Target: a setting within
the margin of the true best in 95 % of the runs, for 40 % of a full grid's tokens.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import spread, versions, write_json
from engine import Endpoint, Limits, RunConfig, Task
from engine.decide.racing import Race, Rule, looks
from engine.decide.scores import metric_of
from engine.testing import virtual_time
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.tuning.gold import Gold
from engine.tuning.space import Space
from engine.tuning.trial import Means
from engine.tuning.tune import Aim, Search
from engine.tuning.tune_document import Tuned
from engine.vocabulary.task import Example

SIZES = (1, 2, 5, 10, 20)
LABELS = ["world", "sports", "business", "science"]

Loss = Callable[[int, str], float]
"""By how much a batch size and a form lower the accuracy."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Made-up accuracies.

    :ivar base: by the number of examples, compact, one record a request. Keyed is `keyed` lower.
    :ivar keyed_share: of the compact form's loss that the keyed form has.
    """

    name: str
    base: Mapping[int, float]
    loss: Callable[[int], float]
    keyed: float = 0.02
    keyed_share: float = 0.3


_USUAL = {0: 0.70, 5: 0.76, 20: 0.77}
WORLDS = (
    World(name="flat", base=_USUAL, loss=lambda size: 0.0),
    World(name="smooth", base=_USUAL, loss=lambda size: 0.012 * math.log2(size)),
    World(name="cliff", base=_USUAL, loss=lambda size: 0.0 if size <= 5 else 0.12),
    World(name="copying", base=_USUAL, loss=lambda size: 0.07 * math.log2(size)),
    World(name="examples help", base={0: 0.74, 5: 0.76, 20: 0.80}, loss=lambda size: 0.005 * math.log2(size)),
)
_STATIC = {0: 300.0, 5: 537.0, 20: 1288.0}  # tokens of a request; the two with examples are those of the article
_CHANGED = 0.16  # of the answers are drawn anew by the setting: two settings differ on a tenth of the records


@dataclass(frozen=True, kw_only=True)
class Known:
    """A setting of a world: tokens of a record, and its true accuracy."""

    cost: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a search came to.

    :ivar behind: of the true accuracy, the choice behind the best.
    :ivar spent: share of the full grid's tokens.
    :ivar dearer: cost of the choice over that of the cheapest setting within the margin.
    """

    world: str
    seed: int
    behind: float
    spent: float
    dearer: float
    is_clear: bool


def settings_of(world: World) -> list[Known]:
    """All 30."""
    made = []
    for form, extra in (("compact", 0.0), ("keyed", 30.0)):
        for examples, static in _STATIC.items():
            for size in SIZES:
                keyed = form == "keyed"
                loss = world.loss(size) * (world.keyed_share if keyed else 1.0)
                accuracy = world.base[examples] - (world.keyed if keyed else 0.0) - loss
                made.append(Known(cost=static / size + 106.0 + extra, accuracy=accuracy))
    return made


def answers(settings: list[Known], records: int, seed: int) -> list[list[float]]:
    """Right (1) or wrong, of each setting on each record."""
    rng = random.Random(seed)
    columns: list[list[float]] = [[] for _ in settings]
    for _ in range(records):
        hard = rng.random()
        for setting, column in zip(settings, columns, strict=True):
            drawn = rng.random() if rng.random() < _CHANGED else hard
            column.append(float(drawn < setting.accuracy))
    return columns


def raced(world: World, *, seed: int, records: int, margin: float) -> Chosen:
    """One race on random numbers."""
    settings = settings_of(world)
    scores = answers(settings, records, seed)
    asked = [0] * len(settings)
    race = Race([each.cost for each in settings], at=looks(records, step=max(SIZES)), rule=Rule(margin=margin))
    while wanted := race.wanted():
        for k, upto in wanted.items():
            asked[k] = upto
        race.told([column[:upto] for column, upto in zip(scores, asked, strict=True)])
    choice = race.choice()
    best = max(each.accuracy for each in settings)
    enough = min(each.cost for each in settings if each.accuracy >= best - margin - 1e-9)
    return Chosen(
        world=world.name,
        seed=seed,
        behind=best - settings[choice.setting].accuracy,
        spent=race.spent / (records * sum(each.cost for each in settings)),
        dearer=settings[choice.setting].cost / enough,
        is_clear=choice.is_clear,
    )


# -- through the engine ------------------------------------------------------------------------------------------

ALONE = 0.82
TASK = Task(
    instructions="Say what the piece of news is about. " * 12,
    labels=LABELS,
    examples=[Example(input=f"piece of news for show, number {n}", output=LABELS[n % 4]) for n in range(20)],
)
CURVES: dict[str, tuple[Mapping[int, float], Mapping[int, float]]] = {
    "holds": ({1: ALONE}, {1: ALONE}),
    "falls smoothly": ({1: ALONE, 2: 0.81, 5: 0.79, 10: 0.77, 20: 0.75}, {1: ALONE, 20: 0.81}),
    "cliff after 5": ({1: ALONE, 5: ALONE, 10: 0.65, 20: 0.65}, {1: 0.80, 5: 0.80, 10: 0.65, 20: 0.65}),
    "keyed holds": ({1: ALONE, 2: 0.72, 5: 0.60, 10: 0.50, 20: 0.45}, {1: 0.80, 20: 0.80}),
}
"""Accuracy by batch size, compact and keyed; between them linear in log2 B."""


def behaviour(compact: Mapping[int, float], keyed: Mapping[int, float]) -> BatchBehaviour:
    """A model with these accuracies; two fifths of the answers in a batch are drawn anew."""
    return _one(compact, keyed=_one(keyed))


def _one(curve: Mapping[int, float], keyed: BatchBehaviour | None = None) -> BatchBehaviour:
    alone, share = curve[1], 0.4
    again = {size: max(0.0, (accuracy - (1 - share) * alone) / share) for size, accuracy in curve.items()}
    shares = {1: 0.0} | dict.fromkeys(SIZES[1:], share)
    return BatchBehaviour(accuracy=alone, redraw=Redraw(share=shares, accuracy={1: alone} | again), keyed=keyed)


def _true(curve: Mapping[int, float], size: int) -> float:
    at = _one(curve)._at(size)
    return (1 - at.redrawn) * curve[1] + at.redrawn * at.again


def _gold(endpoint: SimulatedEndpoint, records: int) -> Gold:
    texts = [f"piece of news number {number}, with some more words to make it as long" for number in range(records)]
    return Gold(
        records=[{"id": f"g{number}", "text": text} for number, text in enumerate(texts)],
        outputs=[endpoint.truth(text) for text in texts],
        field="label", unusable=0, problems=[],
    )  # fmt: skip


def searched(name: str, *, seed: int, records: int, margin: float) -> tuple[Chosen, Tuned]:
    """One search through the engine."""
    compact, keyed = CURVES[name]
    endpoint = build_endpoint(SimulatorConfig(labels=LABELS, behaviour=behaviour(compact, keyed), seed=seed))
    with tempfile.TemporaryDirectory() as folder:
        means = Means(
            endpoint=Endpoint(base_url="http://simulated/v1", model="simulated"), model="simulated", is_embedded=False,
            config=RunConfig(limits=Limits(max_concurrency=16), seed=seed), folder=Path(folder),
        )  # fmt: skip
        aim = Aim(
            space=Space(), rule=Rule(margin=margin), metric=metric_of("accuracy", TASK), metric_name="accuracy",
            task_name="simulated", gold_name="simulated",
        )  # fmt: skip
        search = Search(
            TASK, _gold(endpoint, records), aim, means, transport=InProcessTransport(endpoint), virtual_time=True
        )
        tuned: Tuned = virtual_time.run(search.run, lambda progress: None)
    true = [_true(keyed if row.setting.form == "keyed" else compact, row.setting.batch_size) for row in tuned.rows]
    best = max(true)
    enough = min(
        row.cost_per_record for row, each in zip(tuned.rows, true, strict=True) if each >= best - margin - 1e-9
    )
    chosen = Chosen(
        world=name,
        seed=seed,
        behind=best - true[tuned.chosen],
        spent=tuned.spent_tokens / tuned.grid_tokens,
        dearer=tuned.choice.cost_per_record / enough,
        is_clear=tuned.is_clear,
    )
    return chosen, tuned


def tell(title: str, found: list[Chosen], margin: float) -> None:
    """One line for one world."""
    right = sum(each.behind <= margin + 1e-9 for each in found) / len(found)
    spent, dearer = spread([each.spent for each in found]), spread([each.dearer for each in found])
    clear = sum(each.is_clear for each in found) / len(found)
    print(
        f"{title:<16} within the margin {right:6.1%} of {len(found)} runs; spent {spent['median']:.3f} of the grid "
        f"({spent['min']:.3f} to {spent['max']:.3f}); clear {clear:.0%}; cost over the cheapest good one "
        f"{dearer['median']:.2f}",
        flush=True,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--engine-seeds", type=int, default=5)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--margin", type=float, default=0.03)
    options = parser.parse_args()
    print(vars(options), versions())
    same: dict[str, Any] = {"records": options.records, "margin": options.margin}
    print("random numbers (simulated):")
    every: list[Chosen] = []
    for world in WORLDS:
        found = [raced(world, seed=seed, **same) for seed in range(options.seeds)]
        tell(world.name, found, options.margin)
        every += found
    print("the engine on the simulated endpoint, virtual time:")
    through: list[Chosen] = []
    for name in CURVES if options.engine_seeds else ():
        found = [searched(name, seed=seed, **same)[0] for seed in range(options.engine_seeds)]
        tell(name, found, options.margin)
        through += found
    write_json("tune", {
        "simulated": True, "settings": vars(options), "numbers": [asdict(each) for each in every],
        "engine": [asdict(each) for each in through],
    })  # fmt: skip


if __name__ == "__main__":
    main()
