"""How well what can be seen without gold predicts what a batch size does to accuracy, on recorded replies.

python -m benchmarks.proxies CLASSIFY.jsonl.gz

The recording holds one request a line, in JSON: task, B, fewshot, mode, file, tag.order, ids, pred, gold. A cell is a
task, a number of examples, an output mode and a batch size, asked once in one order; its loss is the accuracy of lone
answers to the same records less its own. Each signal is what a guard could know of such a cell without gold. Those
"with lone accuracy" need gold for lone answers, and none in batches; that accuracy is of one half of the records, and
the loss that they are held against of the other half, or chance in the lone answers would be on both sides.

Printed are a signal's correlations with the loss (Pearson, and of ranks) over all cells, the same within tasks (both
less their task's mean), the area under the ROC curve for losses of more than 5 points; and how well a line through the
other tasks' cells tells those of a task that it has not seen: R2 against the mean of the others, and the area. The
recording is not in the repository.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from statistics import correlation, fmean, pstdev
from typing import Any

import msgspec
import numpy as np

from benchmarks.common import write_json
from engine.decide.quality_evidence import equal_across, equal_pairs

BAD = 0.05
_RIDGE = 1.0  # of standardised signals, in cells


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A batch size of a task, asked in one way."""

    task: str
    way: str
    size: int
    loss: float
    signals: dict[str, float]


Answers = Mapping[str, str]
"""Id of a record -> answer."""


class Asked(msgspec.Struct, kw_only=True):
    """All replies of one way to ask: batches of ids and answers in the order sent."""

    batches: list[list[tuple[str, str]]] = []

    @property
    def answers(self) -> dict[str, str]:
        """The first answer to each record."""
        found: dict[str, str] = {}
        for batch in self.batches:
            for id_, answer in batch:
                found.setdefault(id_, answer)
        return found


Way = tuple[str, int, str]  # task, examples, mode


def read(path: Path) -> tuple[dict[tuple[Way, int], list[Asked]], dict[Way, dict[str, str]], dict[str, str]]:
    """Replies by way and size, one entry for each order or repetition; lone answers once more; gold by record."""
    runs: dict[tuple[Way, int, str, int], Asked] = defaultdict(Asked)
    again: dict[Way, dict[str, str]] = defaultdict(dict)
    gold: dict[str, str] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            way = (row["task"], row["fewshot"], row["mode"])
            answers = [(id_, said) for id_, said in zip(row["ids"], row["pred"], strict=True) if said is not None]
            gold |= zip(row["ids"], row["gold"], strict=True)
            run = runs[way, row["B"], row["file"], row["tag"]["order"]]
            if row["B"] == 1:
                known = run.answers if len(run.batches) < 2_000 else {}
                for id_, said in answers:
                    if id_ in known:
                        again[way][id_] = said
            run.batches.append(answers)
    grouped: dict[tuple[Way, int], list[Asked]] = defaultdict(list)
    for (way, size, _, _), asked in sorted(runs.items(), key=lambda one: str(one[0])):
        grouped[way, size].append(asked)
    for (way, size), alike in grouped.items():
        if size == 1 and len(alike) > 1:
            for other in alike[1:]:
                for id_, said in other.answers.items():
                    again[way].setdefault(id_, said)
    return grouped, again, gold


def cells_of(path: Path) -> tuple[list[Cell], list[Cell]]:
    """All cells whose records were asked alone in the same way; and each twice, with the lone accuracy of one half of
    its records and the loss of the other."""
    grouped, again, gold = read(path)
    lone = {way: alike[0].answers for (way, size), alike in grouped.items() if size == 1}
    found: list[Cell] = []
    halves: list[Cell] = []
    for (way, size), alike in sorted(grouped.items(), key=lambda one: str(one[0])):
        if size == 1 or way not in lone:
            continue
        others = [lone[other] for other in lone if other[0] == way[0] and other != way]
        noise = _disagreement(lone[way], again[way]) if again[way] else _noise_elsewhere(way, lone, again)
        asked = alike[0]
        both = [id_ for id_ in asked.answers if id_ in lone[way]]
        right = {id_: answer == gold[id_] for id_, answer in asked.answers.items()}
        signals = signals_of(asked, lone[way], others=others, orders=alike[1:], noise=noise, size=size)
        for part in (0, 1):
            seen, held = (
                [id_ for number, id_ in enumerate(sorted(both)) if number % 2 == side] for side in (part, 1 - part)
            )
            accuracy = fmean(lone[way][id_] == gold[id_] for id_ in seen)
            loss = fmean(float(lone[way][id_] == gold[id_]) - float(right[id_]) for id_ in held)
            known = with_lone_accuracy(signals, accuracy, labels=len({gold[id_] for id_ in both}))
            halves.append(Cell(task=way[0], way=f"{way[1]} {way[2]}", size=size, loss=loss, signals=signals | known))
        loss = fmean(float(lone[way][id_] == gold[id_]) - float(right[id_]) for id_ in both)
        found.append(Cell(task=way[0], way=f"{way[1]} {way[2]}", size=size, loss=loss, signals=signals))
    return found, halves


def _noise_elsewhere(way: Way, lone: Mapping[Way, Answers], again: Mapping[Way, Answers]) -> float:
    known = [_disagreement(lone[other], again[other]) for other in lone if other[0] == way[0] and again[other]]
    return fmean(known) if known else 0.02


def _disagreement(one: Answers, other: Answers) -> float:
    both = [id_ for id_ in one if id_ in other]
    return fmean(one[id_] != other[id_] for id_ in both) if both else 0.0


def signals_of(
    asked: Asked, lone: Answers, *, others: Sequence[Answers], orders: Sequence[Asked], noise: float, size: int
) -> dict[str, float]:
    """What can be known of a cell without gold.

    :param others: lone answers to the same records, asked in other ways (more examples, another output mode).
    :param orders: the same records in other orders.
    """
    answers = asked.answers
    both = [id_ for id_ in answers if id_ in lone]
    changed = [id_ for id_ in both if answers[id_] != lone[id_]]
    disagreement = len(changed) / len(both)
    before, after = Counter(lone[id_] for id_ in both), Counter(answers[id_] for id_ in both)
    sure = {id_: fmean(other.get(id_) == lone[id_] for other in others) for id_ in both} if others else {}
    within = [fmean([equal_pairs([said for _, said in one]), equal_pairs([said for _, said in other])])
              - equal_across([said for _, said in one], [said for _, said in other])
              for one, other in pairwise(asked.batches) if min(len(one), len(other)) > 1]  # fmt: skip
    late = _late(asked, lone)
    signals = {
        "log2 B": math.log2(size),
        "disagreement": disagreement,
        "disagreement less noise": disagreement - noise,
        "copying": fmean(within) if within else 0.0,
        "collapse": _collapse(asked, lone),
        "entropy lost": _entropy(before) - _entropy(after),
        "commonest share gained": (max(after.values()) - max(before.values())) / len(both),
        "distributions differ": sum(abs(after[x] - before[x]) for x in before | after) / (2 * len(both)),
        "changed to the commonest": sum(answers[id_] == after.most_common(1)[0][0] for id_ in changed) / len(both),
        "changes grow with the place": late,
    }
    if sure:
        signals["disagreement where lone answers are sure"] = sum(sure[id_] == 1.0 for id_ in changed) / len(both)
        signals["disagreement weighed by sureness"] = sum(sure[id_] for id_ in changed) / len(both)
        signals["lone answers sure, of changed"] = fmean(sure[id_] for id_ in changed) if changed else 0.0
        backed = fmean(fmean(other.get(id_) == lone[id_] for other in others) for id_ in both)
        batch = fmean(fmean(other.get(id_) == answers[id_] for other in others) for id_ in both)
        signals["agreement lost with other ways"] = backed - batch
    if orders:
        signals["disagreement with other orders"] = fmean(_disagreement(answers, other.answers) for other in orders)
    return signals


def with_lone_accuracy(signals: Mapping[str, float], accuracy: float, *, labels: int) -> dict[str, float]:
    """Where it is known how right lone answers are: what a change would cost, were it to any label alike.

    A changed answer is right alone in `accuracy` of the cases, and in the batch in (1 - accuracy) / (labels - 1).
    """
    cost = accuracy - (1.0 - accuracy) / (labels - 1)
    return {
        "lone accuracy": accuracy,
        "disagreement, with lone accuracy": signals["disagreement less noise"] * cost,
        "copying, with lone accuracy": signals["copying"] * cost,
        "collapse, with lone accuracy": signals["collapse"] * cost,
    }


def _late(asked: Asked, lone: Answers) -> float:
    """Disagreement in the second half of the places less that in the first."""
    halves: tuple[list[bool], list[bool]] = ([], [])
    for batch in asked.batches:
        for place, (id_, said) in enumerate(batch):
            if id_ in lone:
                halves[2 * place >= len(batch)].append(said != lone[id_])
    return fmean(halves[1]) - fmean(halves[0]) if all(halves) else 0.0


def _collapse(asked: Asked, lone: Answers) -> float:
    """Equal pairs of answers, less equal pairs of lone answers to the same records."""
    answers = asked.answers
    ids = [id_ for id_ in answers if id_ in lone]
    pairs = list(combinations(ids, 2))
    return fmean((answers[a] == answers[b]) - (lone[a] == lone[b]) for a, b in pairs)


def _entropy(counts: Counter[str]) -> float:
    total = counts.total()
    return -sum(n / total * math.log2(n / total) for n in counts.values() if n)


# -- how well they predict ---------------------------------------------------------------------------------------------


def ranks(values: Sequence[float]) -> list[float]:
    """Mean ranks."""
    order = sorted(values)
    places: dict[float, list[int]] = defaultdict(list)
    for place, value in enumerate(order):
        places[value].append(place)
    return [fmean(places[value]) for value in values]


def roc_area(scores: Sequence[float], bad: Sequence[bool]) -> float:
    """The chance that a bad one has a higher score than a good one."""
    goods = [score for score, is_bad in zip(scores, bad, strict=True) if not is_bad]
    bads = [score for score, is_bad in zip(scores, bad, strict=True) if is_bad]
    wins = sum((high > low) + 0.5 * (high == low) for high in bads for low in goods)
    return wins / (len(goods) * len(bads))


def unseen(cells: Sequence[Cell], names: Sequence[str]) -> list[float]:
    """The loss of each cell, predicted by a ridge regression on the cells of the other tasks."""
    predicted = [0.0] * len(cells)
    for task in {cell.task for cell in cells}:
        seen = [cell for cell in cells if cell.task != task]
        x = np.array([[cell.signals[name] for name in names] for cell in seen])
        y = np.array([cell.loss for cell in seen])
        middle, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
        z = (x - middle) / scale
        slopes = np.linalg.solve(z.T @ z + _RIDGE * np.eye(len(names)), z.T @ (y - y.mean()))
        for place, cell in enumerate(cells):
            if cell.task == task:
                own = (np.array([cell.signals[name] for name in names]) - middle) / scale
                predicted[place] = float(y.mean() + own @ slopes)
    return predicted


def _within(cells: Sequence[Cell], value: Callable[[Cell], float]) -> list[float]:
    means = {task: fmean(value(cell) for cell in cells if cell.task == task) for task in {cell.task for cell in cells}}
    return [value(cell) - means[cell.task] for cell in cells]


def row_of(cells: Sequence[Cell], names: Sequence[str]) -> dict[str, Any]:
    """How well some signals, together, tell the loss."""
    losses = [cell.loss for cell in cells]
    bad = [loss > BAD for loss in losses]
    predicted = unseen(cells, names)
    mean = unseen(cells, [])
    error = sum((loss - one) ** 2 for loss, one in zip(losses, predicted, strict=True))
    blind = sum((loss - one) ** 2 for loss, one in zip(losses, mean, strict=True))
    row: dict[str, Any] = {
        "signals": list(names),
        "cells": len(cells),
        "tasks": len({cell.task for cell in cells}),
        "r2_unseen": 1.0 - error / blind,
        "area_unseen": roc_area(predicted, bad),
    }
    if len(names) == 1:
        values = [cell.signals[names[0]] for cell in cells]
        row["pearson"] = correlation(values, losses)
        row["spearman"] = correlation(ranks(values), ranks(losses))
        row["within_tasks"] = correlation(
            _within(cells, lambda cell: cell.signals[names[0]]), _within(cells, lambda cell: cell.loss)
        )
        row["area"] = roc_area(values, bad)
    return row


def show(row: Mapping[str, Any]) -> None:
    """One line."""
    name = " + ".join(row["signals"])
    own = [f"{row[key]:8.2f}" if key in row else f"{'':>8}" for key in ("pearson", "spearman", "within_tasks", "area")]
    print(f"{name:<62} {row['cells']:5d} {' '.join(own)} {row['r2_unseen']:8.2f} {row['area_unseen']:8.2f}")


SETS = (
    ("disagreement less noise", "copying", "collapse"),
    ("log2 B", "disagreement less noise", "copying", "collapse", "changes grow with the place"),
    ("disagreement weighed by sureness", "collapse"),
    ("disagreement weighed by sureness", "agreement lost with other ways"),
    ("agreement lost with other ways", "collapse", "copying"),
    ("disagreement, with lone accuracy", "collapse, with lone accuracy"),
    ("disagreement, with lone accuracy", "copying, with lone accuracy", "collapse, with lone accuracy"),
)


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    cells, halves = cells_of(parser.parse_args().recording)
    bad = sum(cell.loss > BAD for cell in cells)
    print(f"{len(cells)} cells of {len({cell.task for cell in cells})} tasks; {bad} lose more than {BAD:.0%}")
    print(
        f"{'signal':<62} {'cells':>5} {'r':>8} {'rank r':>8} {'in task':>8} {'area':>8} {'R2 new':>8} {'area new':>8}"
    )
    rows = []
    for names in [*((name,) for name in dict.fromkeys(name for cell in halves for name in cell.signals)), *SETS]:
        having = [cell for cell in cells if all(name in cell.signals for name in names)]
        having = having or [cell for cell in halves if all(name in cell.signals for name in names)]
        if len({cell.task for cell in having}) < 3:
            print(f"{' + '.join(names):<62} {len(having):5d}: of too few tasks")
            continue
        rows.append(row_of(having, names))
        show(rows[-1])
    name = "disagreement, with lone accuracy"
    errors = [cell.loss - cell.signals[name] for cell in halves]
    spread = math.sqrt(fmean(error * error for error in errors))
    scatter = pstdev([cell.loss for cell in halves])
    print(
        f"taken as it is, '{name}' is off by {spread:.3f} (root mean square), {fmean(errors):+.3f} on average; "
        f"the losses scatter by {scatter:.3f}"
    )
    write_json("proxies", {"rows": rows, "cells": msgspec.to_builtins(cells)})


if __name__ == "__main__":
    main()
