"""Whether the simulator's measured profiles answer as what was measured: both figures side by side, and the error.

python -m benchmarks.calibration [--tape FOLDER] [--fit] [--records 4000]

Measured is a recording of a small model and a server (``summary.json``, ``sweep.jsonl.gz``, ``smol_cpu.jsonl.gz`` in
FOLDER), which is not part of this repository; without it the simulated figures stand alone. ``--fit`` fits the
parameters anew and prints them: these are the numbers in ``engine/testing/simulator/measured.py``.

Model of the answers, for each batch size B, with L labels, all equally frequent. An answer is copied from the one
before with probability c(position); if not, it is the favourite label with probability x; if not, it is drawn anew
with probability d and then right with probability q, else it is the lone answer, right with probability p. So

    marginal of the favourite   m = x + (1 - x) / L
    two fresh answers equal     e = m^2 + (1 - m)^2 / (L - 1)
    equal to the one before     c + (1 - c) e
    right                       (1 - c) r + c / L        with r = x / L + (1 - x) ((1 - d) p + d q)

x comes from the label whose share rises most from B=1; c and r from least squares over the shares equal to the one
before and right at each position (weights: answers) and the accuracy by B; d from least squares over the agreement
with the lone answers and with another order.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log2
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

from benchmarks.common import write_json
from engine.testing.simulator.command import build_endpoint
from engine.testing.simulator.latency import LinearLatency
from engine.testing.simulator.measured import (
    ANY_DEVIATION,
    LOST_ITEM,
    QWEN_SERVER,
    SMOL_BROKEN,
    SMOL_SERVER,
    SMOL_SHORT,
)
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.rates import Rate

Row = dict[str, Any]
SIZES = (1, 2, 5, 10, 20, 40)


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tape:
    """A recording: its summary, and where its rows are."""

    folder: Path
    summary: dict[str, Any]

    def rows(self, name: str) -> list[Row]:
        """Those of requests that were answered."""
        with gzip.open(self.folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            return [row for row in map(json.loads, lines) if row.get("http") == 200]


@dataclass(frozen=True)
class Cell:
    """Answers at some positions of batches of one size.

    :ivar same: share equal to the answer before; None at position 1.
    """

    first: int
    last: int
    n: int
    right: float
    same: float | None

    @property
    def positions(self) -> int:
        return self.last - self.first + 1


def read_tape(folder: Path) -> Tape:
    return Tape(folder, json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def cells_of(tape: Tape, task: str, size: int) -> list[Cell]:
    """The cells of one task and batch size, by position."""
    rows = [row for row in tape.summary["position"] if (row["task"], row["B"]) == (task, size)]
    made = []
    for row in rows:
        first, last = map(int, row["positions"].split("-"))
        made.append(Cell(first, last, row["n"], row["accuracy"], row["pred_same_as_previous"]))
    return made


def accuracy_by_size(tape: Tape, task: str) -> dict[int, float]:
    """Five examples, no schema, the given order."""
    wanted = {"task": task, "fewshot": 5, "mode": "free", "order": 0, "rep": 0}
    return {
        row["B"]: row["accuracy"]
        for row in sorted(tape.summary["cells"], key=lambda row: row["file"] != "main", reverse=True)
        if all(row[key] == value for key, value in wanted.items()) and row["file"] in ("main", "others")
    }


def lone_agreement(tape: Tape, task: str) -> dict[int, float]:
    found = defaultdict(list)
    for row in tape.summary["paired_vs_B1"]:
        if row["task"] == task and row["fewshot"] == 5:
            found[row["B"]].append(row["label_agreement_with_B1"])
    return {size: mean(values) for size, values in found.items()}


def order_agreement(tape: Tape, task: str) -> dict[int, float]:
    rows = tape.summary["agreement"]
    return {row["B"]: row["agreement"] for row in rows if row["task"] == task and row["kind"].startswith("other order")}


def shares(tape: Tape, task: str) -> dict[int, dict[str, float]]:
    """Share of each label among the valid answers, by batch size; under 0 among the right ones."""
    counts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in tape.rows("classify"):
        if row["task"] == task and row["fewshot"] == 5 and row["model"].startswith("qwen"):
            counts[row["B"]].update(label for label in row["pred"] if label is not None)
            counts[0].update(row["gold"])
    return {size: {label: count / found.total() for label, count in found.items()} for size, found in counts.items()}


# --- fitting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnswerFit:
    """Parameters of the answers at one batch size; `copying` by first position."""

    favourite: float
    fresh_right: float
    copying: dict[int, float]
    redrawn: float
    redrawn_right: float


def clipped(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def fresh_equal(favourite: float, labels: int) -> float:
    """e: two fresh answers are equal."""
    m = favourite + (1 - favourite) / labels
    return m * m + (1 - m) ** 2 / (labels - 1)


def fit_copying(cells: Sequence[Cell], table: float, favourite: float, labels: int) -> tuple[float, dict[int, float]]:
    """r and c by alternating least squares: given one, the other has a closed form."""
    e, chance = fresh_equal(favourite, labels), 1 / labels
    table_n = sum(cell.n for cell in cells)
    copying = {cell.first: 0.0 for cell in cells}
    size = cells[-1].last
    right = table
    for _ in range(500):
        c_mean = sum(copying[cell.first] * cell.positions for cell in cells) / size
        up = sum(cell.n * (1 - copying[cell.first]) * (cell.right - copying[cell.first] * chance) for cell in cells)
        down = sum(cell.n * (1 - copying[cell.first]) ** 2 for cell in cells)
        up += table_n * (1 - c_mean) * (table - c_mean * chance)
        down += table_n * (1 - c_mean) ** 2
        right = clipped(up / down)
        for cell in cells:
            if cell.same is None:
                continue
            slope = chance - right
            up = (1 - e) * (cell.same - e) + slope * (cell.right - right)
            copying[cell.first] = clipped(up / ((1 - e) ** 2 + slope**2))
    return right, copying


def predicted_agreement(fit: AnswerFit, cells: Sequence[Cell], labels: int, lone: float) -> tuple[float, float]:
    """Agreement with the lone answers, and with the same batch in another order."""
    size, x, d, q = cells[-1].last, fit.favourite, fit.redrawn, fit.redrawn_right
    c = sum(fit.copying[cell.first] * cell.positions for cell in cells) / size
    alike = q * lone + (1 - q) * (1 - lone)  # a wrong answer is always the record's second choice
    both = (1 - d) ** 2 + 2 * d * (1 - d) * alike + d * d * (q * q + (1 - q) ** 2)
    fresh_lone = x / labels + (1 - x) * (1 - d + d * alike)
    fresh_fresh = x * x + 2 * x * (1 - x) / labels + (1 - x) ** 2 * both
    return (
        c / labels + (1 - c) * fresh_lone,
        (1 - c) ** 2 * fresh_fresh + (1 - (1 - c) ** 2) * fresh_equal(x, labels),
    )


def fit_size(
    cells: Sequence[Cell], table: float, favourite: float, labels: int, lone: float, agreements: Sequence[float | None]
) -> AnswerFit:
    """All parameters of one batch size."""
    right, copying = fit_copying(cells, table, favourite, labels)
    within = clipped((right - favourite / labels) / (1 - favourite))
    best: tuple[float, AnswerFit] | None = None
    for step in range(1, 101):
        d = step / 100
        q = clipped((within - (1 - d) * lone) / d)
        miss = abs((1 - d) * lone + d * q - within)
        fit = AnswerFit(favourite, right, copying, d, q)
        found = predicted_agreement(fit, cells, labels, lone)
        error = sum((one - two) ** 2 for one, two in zip(found, agreements, strict=True) if two is not None)
        if best is None or error + 100 * miss * miss < best[0]:
            best = error + 100 * miss * miss, fit
    assert best is not None  # noqa: S101 - the loop runs
    return best[1]


def favourite_rise(by_size: Mapping[int, Mapping[str, float]], size: int) -> float:
    """x: how far the share of one label rises above both its share at B=1 and the true one, of what is left to rise."""
    usual = {label: max(by_size[1].get(label, 0.0), by_size[0].get(label, 0.0)) for label in by_size[size]}
    return max(0.0, *((share - usual[label]) / (1 - usual[label]) for label, share in by_size[size].items()))


def fit_answers(tape: Tape, task: str, labels: int) -> dict[int, AnswerFit]:
    table, by_size = accuracy_by_size(tape, task), shares(tape, task)
    lone_by, order_by = lone_agreement(tape, task), order_agreement(tape, task)
    made = {}
    for size in SIZES[1:]:
        # With one order only, the label that rises may be the one that a few batches happened to begin with.
        favourite = favourite_rise(by_size, size) if order_by else 0.0
        agreements = (lone_by.get(size), order_by.get(size))
        made[size] = fit_size(cells_of(tape, task, size), table[size], favourite, labels, table[1], agreements)
    return made


@dataclass(frozen=True)
class LatencyFit:
    """latency_ms = a + b * uncached input tokens + c * output tokens."""

    a: float
    b: float
    c: float
    r2: float
    rmse_ms: float
    n: int


def fit_latency(rows: Sequence[Row], *, base: bool = True) -> LatencyFit:
    """Ordinary least squares by the normal equations.

    :param base: whether there is an a; without one, where least squares would have it below zero.
    """
    inputs = [(float(base), row["prompt_tokens"] - row["cached_tokens"], row["completion_tokens"]) for row in rows]
    times = [row["lat_ms"] for row in rows]
    matrix = [[sum(one[i] * one[j] for one in inputs) for j in range(3)] for i in range(3)]
    vector = [sum(one[i] * time for one, time in zip(inputs, times, strict=True)) for i in range(3)]
    if not base:
        matrix[0][0] = 1.0
    a, b, c = solved(matrix, vector)
    errors = [time - a - b * one[1] - c * one[2] for one, time in zip(inputs, times, strict=True)]
    middle = mean(times)
    total = sum((time - middle) ** 2 for time in times)
    squares = sum(error * error for error in errors)
    return LatencyFit(a, b, c, 1 - squares / total, (squares / len(rows)) ** 0.5, len(rows))


def solved(matrix: list[list[float]], vector: list[float]) -> list[float]:
    """Gauss and Jordan, with pivots."""
    rows = [[*line, value] for line, value in zip(matrix, vector, strict=True)]
    for i in range(len(rows)):
        pivot = max(range(i, len(rows)), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(len(rows)):
            if k != i:
                rows[k] = [value - rows[k][i] * own for value, own in zip(rows[k], rows[i], strict=True)]
    return [line[-1] for line in rows]


def fit_logistic(counts: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """a and b of logit P = a + b log2 B by Newton's method, from (B, events, trials)."""
    a, b = -2.0, 0.0
    for _ in range(60):
        gradient, hessian = [0.0, 0.0], [[1e-9, 0.0], [0.0, 1e-9]]
        for size, events, trials in counts:
            x = log2(size)
            p = 1 / (1 + exp(-a - b * x))
            for i, one in enumerate((1.0, x)):
                gradient[i] += one * (events - trials * p)
                for j, two in enumerate((1.0, x)):
                    hessian[i][j] += one * two * trials * p * (1 - p)
        step = solved(hessian, gradient)
        a, b = a + step[0], b + step[1]
    return a, b


def malformed_counts(tape: Tape) -> dict[str, list[tuple[int, int, int]]]:
    """(B, events, distinct prompts) of any deviation and of lost items; free and schema pooled."""
    made: dict[str, list[tuple[int, int, int]]] = {}
    for kind in ("distinct_not_exact", "distinct_losing_items"):
        found: Counter[int] = Counter()
        trials: Counter[int] = Counter()
        for row in tape.summary["malformed_vs_B"]:
            if row["mode"] != "schema_n":
                found[row["B"]] += row[kind]
                trials[row["B"]] += row["distinct_prompts"]
        made[kind.removeprefix("distinct_")] = [(size, found[size], trials[size]) for size in sorted(trials)]
    return made


def smol_counts(tape: Tape) -> dict[str, list[tuple[int, int, int]]]:
    """SmolLM2 without a schema, five examples: (B, events, requests) of broken JSON and of lists too short.

    Broken JSON is pooled with the console of the same model on a GPU, which has no rows.
    """
    console: Counter[int] = Counter()
    trials: Counter[int] = Counter()
    for line in tape.summary["smol_gpu_console"]:
        found = _CONSOLE.match(line)
        if found:
            console[int(found[1])], trials[int(found[1])] = int(found[3]), int(found[2])
    rows = [row for row in tape.rows("smol_cpu") if (row["fewshot"], row["mode"]) == (5, "free")]
    rows = [row for row in rows if row["task"] == "debate375"]
    sizes = sorted({row["B"] for row in rows})
    of = {size: [row for row in rows if row["B"] == size] for size in sizes}
    return {
        "broken": [
            (size, console[size] + sum(row["how"] == "bad_json" for row in of[size]), trials[size] + len(of[size]))
            for size in sizes
        ],
        "short": [
            (size, sum(row["missing"] > 0 and row["how"] != "bad_json" for row in of[size]), len(of[size]))
            for size in sizes
        ],
    }


_CONSOLE = re.compile(r"smol:debate375 B=(\d+) fs=5 free .*clean=\d+/(\d+) .*'bad_json': (\d+)")


# --- simulating ----------------------------------------------------------------------------------------------------

LABELS = {"agnews": ["world", "sports", "business", "science"], "sst2": ["good", "bad"]}


def request(texts: Sequence[str], labels: Sequence[str], *, keyed: bool = False) -> bytes:
    """A request by hand: the plain words of any client, no schema."""
    key = '"starts":"<first five words of the input>",' if keyed else ""
    system = f'Reply in JSON: {{"results":[{{"id":"<id>",{key}"output":"<one of the labels>"}}]}}'
    items = [{"id": f"q-{number}", "input": text} for number, text in enumerate(texts, start=1)]
    user = json.dumps({"items": items}, separators=(",", ":"))
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 64 + 48 * len(texts)}).encode()


class Answers:
    """A profile's answers, as a client sees them."""

    def __init__(self, profile: str, labels: Sequence[str], *, seed: int = 0) -> None:
        config = named_profile(profile).config(labels=labels, answers_seed=seed, seed=seed, faults={}, schema_faults={})
        self.endpoint = build_endpoint(config)
        self.labels = labels

    def batch(self, texts: Sequence[str], *, keyed: bool = False) -> list[str]:
        plan = self.endpoint.begin(request(texts, self.labels, keyed=keyed), {}, 0.0)
        self.endpoint.end(plan, 0.0)
        content = json.loads(plan.body)["choices"][0]["message"]["content"]
        return [result["output"] for result in json.loads(content)["results"]]

    def all(self, texts: Sequence[str], size: int, *, keyed: bool = False) -> list[list[str]]:
        return [self.batch(texts[at : at + size], keyed=keyed) for at in range(0, len(texts) - size + 1, size)]


def fraction(flags: Iterable[bool]) -> float:
    return float(mean(map(float, flags)))


def right_share(answers: Answers, texts: Sequence[str], batches: Sequence[Sequence[str]]) -> float:
    flat = [output for batch in batches for output in batch]
    return fraction(output == answers.endpoint.truth(text) for output, text in zip(flat, texts, strict=False))


def same_share(batches: Sequence[Sequence[str]], first: int, last: int) -> float:
    """Share of answers equal to the one before at these positions (from 1)."""
    pairs = [
        one == two for batch in batches for at, (one, two) in enumerate(pairwise(batch), start=2) if first <= at <= last
    ]
    return fraction(pairs)


def agreement(texts: Sequence[str], one: Sequence[Sequence[str]], other: Mapping[str, str]) -> float:
    flat = [output for batch in one for output in batch]
    return fraction(output == other[text] for text, output in zip(texts, flat, strict=False) if text in other)


def by_text(texts: Sequence[str], batches: Sequence[Sequence[str]]) -> dict[str, str]:
    return dict(zip(texts, (output for batch in batches for output in batch), strict=False))


def simulated_answers(profile: str, task: str, count: int) -> dict[int, dict[str, Any]]:
    """Accuracy, agreements and copying by batch size."""
    answers = Answers(profile, LABELS[task])
    texts = [f"{task} {number}" for number in range(count)]
    shuffled = random.Random(1).sample(texts, len(texts))
    lone = by_text(texts, answers.all(texts, 1))
    made = {}
    for size in SIZES:
        batches = answers.all(texts, size)
        other = by_text(shuffled, answers.all(shuffled, size))
        made[size] = {
            "accuracy": right_share(answers, texts, batches),
            "lone_agreement": agreement(texts, batches, lone),
            "repeat_agreement": agreement(texts, answers.all(texts, size), by_text(texts, batches)),
            "order_agreement": agreement(texts, batches, other),
            "same": {
                f"{first}-{min(last, size)}": same_share(batches, first, last)
                for first, last in ((2, 2), (3, 5), (6, 10), (11, 20), (21, 40))
                if first <= size
            },
        }
    return made


# --- comparing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One figure: simulated, measured (None: not), and the standard error of the measurement."""

    what: str
    simulated: float
    measured: float | None = None
    standard_error: float | None = None

    def show(self) -> str:
        if self.measured is None:
            return f"  {self.what:<44} {self.simulated:10.3f}"
        line = f"  {self.what:<44} {self.simulated:10.3f} {self.measured:10.3f} {self.simulated - self.measured:+10.3f}"
        return line if self.standard_error is None else f"{line}   (measured +-{self.standard_error:.3f})"


def binomial_error(share: float, n: int) -> float:
    return float((share * (1 - share) / n) ** 0.5)


def compare_answers(profile: str, task: str, tape: Tape | None, count: int) -> list[Line]:
    """Accuracy, agreements, repeated labels."""
    found = simulated_answers(profile, task, count)
    table = accuracy_by_size(tape, task) if tape else {}
    lone = lone_agreement(tape, task) if tape else {}
    order = order_agreement(tape, task) if tape else {}
    lines = []
    for size, figures in found.items():
        measured = table.get(size)
        error = None if measured is None else binomial_error(measured, 200)
        lines.append(Line(f"B={size} accuracy", figures["accuracy"], measured, error))
        if size == 1:
            repeat = 0.995 if tape and task == "agnews" else None
            lines.append(Line("B=1 agreement of a repeat", figures["repeat_agreement"], repeat))
            continue
        lines.append(Line(f"B={size} agreement with the lone answer", figures["lone_agreement"], lone.get(size)))
        lines.append(Line(f"B={size} agreement in another order", figures["order_agreement"], order.get(size)))
        cells = {f"{cell.first}-{cell.last}": cell for cell in cells_of(tape, task, size)} if tape else {}
        for positions, share in figures["same"].items():
            cell = cells.get(positions)
            same = cell.same if cell else None
            error = binomial_error(same, cell.n) if cell and same is not None else None
            lines.append(Line(f"B={size} equal to the one before, at {positions}", share, same, error))
    return lines


REWORDED = {
    ("agnews-reworded", "agnews"): [
        (1, False, 0.69),
        (10, False, 0.64),
        (20, False, 0.45),
        (10, True, 0.76),
        (20, True, 0.74),
    ],
    ("sst2-reworded", "sst2"): [(1, False, 0.83), (20, False, 0.87), (20, True, 0.70)],
}
"""Batch size, keyed, accuracy: measured with another wording, 100 inputs each (the recording has no rows of these)."""


def compare_reworded(profile: str, task: str, count: int) -> list[Line]:
    answers = Answers(profile, LABELS[task])
    texts = [f"{task} {number}" for number in range(count)]
    lines = []
    for size, keyed, measured in REWORDED[profile, task]:
        share = right_share(answers, texts, answers.all(texts, size, keyed=keyed))
        name = f"B={size} accuracy, {'keyed' if keyed else 'compact'}"
        lines.append(Line(name, share, measured, binomial_error(measured, 100)))
    return lines


def compare_latency(latency: LinearLatency, tape: Tape | None) -> list[Line]:
    """Means, medians and tails of the cells of the sweep, at the tokens of their rows."""
    if tape is None:
        return []
    cells: defaultdict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in tape.rows("sweep"):
        cells[row["conc"], row["B"]].append(row)
    rng, lines = random.Random(0), []
    for (load, size), rows in sorted(cells.items()):
        drawn = [
            1000
            * latency.seconds(
                uncached=row["prompt_tokens"] - row["cached_tokens"],
                output=row["completion_tokens"],
                in_flight=load,
                rng=rng,
            )
            for row in rows
            for _ in range(20)
        ]
        measured = [row["lat_ms"] for row in rows]
        for name, of in (("mean", mean), ("p50", percentile(50)), ("p95", percentile(95))):
            lines.append(Line(f"{load} in flight, B={size}: {name} ms", of(drawn), of(measured)))
    return lines


def percentile(share: int) -> Callable[[Sequence[float]], float]:
    return lambda values: float(quantiles(values, n=100)[share - 1])


def compare_rates(rate: Rate, counts: Sequence[tuple[int, int, int]], name: str) -> list[Line]:
    probability = rate if callable(rate) else lambda size, elapsed_s: rate
    return [
        Line(
            f"B={size} {name}",
            probability(size, 0.0),
            events / trials,
            binomial_error(max(events, 1) / trials, trials) if events < trials else None,
        )
        for size, events, trials in counts
    ]


# --- the program ---------------------------------------------------------------------------------------------------


def variation(rows: Sequence[Row], fit: LatencyFit) -> float:
    """Root mean square of the relative error of the fit: the jitter that is left when the tokens are known."""
    relative = []
    for row in rows:
        expected = fit.a + fit.b * (row["prompt_tokens"] - row["cached_tokens"]) + fit.c * row["completion_tokens"]
        relative.append((row["lat_ms"] / expected - 1) ** 2)
    return float(mean(relative) ** 0.5)


def print_fits(tape: Tape) -> None:
    """All parameters of `measured.py`, with the errors of their fits."""
    for task, labels in LABELS.items():
        for size, answers in fit_answers(tape, task, len(labels)).items():
            copying = {first: round(share, 3) for first, share in answers.copying.items() if first > 1}
            print(
                f"{task} B={size}: favourite {answers.favourite:.3f}, drawn anew {answers.redrawn:.2f}, "
                f"then right {answers.redrawn_right:.3f}, copying {copying}"
            )
    rows = tape.rows("sweep")
    for load in sorted({row["conc"] for row in rows}):
        cell = [row for row in rows if row["conc"] == load]
        print(f"{load} in flight: {fit_latency(cell)}, variation {variation(cell, fit_latency(cell)):.3f}")
    smol = tape.rows("smol_cpu")
    fit = fit_latency(smol, base=False)
    print(f"smol: {fit}, variation {variation(smol, fit):.3f}")
    for kind, counts in (malformed_counts(tape) | smol_counts(tape)).items():
        a, b = fit_logistic(counts)
        print(f"{kind}: logit P = {a:.2f} + {b:.2f} log2 B from {counts}")


def compared(tape: Tape | None, count: int) -> dict[str, list[Line]]:
    """Everything, by profile."""
    made = {
        "agnews-compact": compare_answers("agnews-compact", "agnews", tape, count),
        "sst2-compact": compare_answers("sst2-compact", "sst2", tape, count),
        **{profile: compare_reworded(profile, task, count) for profile, task in REWORDED},
    }
    if tape is not None:
        malformed, smol = malformed_counts(tape), smol_counts(tape)
        made["queueing-server"] = compare_latency(QWEN_SERVER, tape)
        made["malformed replies"] = [
            *compare_rates(ANY_DEVIATION, malformed["not_exact"], "any deviation"),
            *compare_rates(LOST_ITEM, malformed["losing_items"], "an item lost"),
        ]
        made["smol-cpu"] = [
            *compare_rates(SMOL_BROKEN, smol["broken"], "broken JSON"),
            *compare_rates(SMOL_SHORT, smol["short"], "list too short"),
            *smol_latency(tape),
        ]
    return made


def smol_latency(tape: Tape) -> list[Line]:
    rows = tape.rows("smol_cpu")
    load = SMOL_SERVER.at(1)
    expected = [
        load.base_ms
        + load.input_ms * (row["prompt_tokens"] - row["cached_tokens"])
        + load.output_ms * row["completion_tokens"]
        for row in rows
    ]
    return [Line("mean latency ms", mean(expected), mean(row["lat_ms"] for row in rows))]


def worst(lines: Iterable[Line], word: str) -> float:
    """The greatest error among the figures whose name holds a word."""
    errors = [abs(line.simulated - line.measured) for line in lines if word in line.what and line.measured is not None]
    return max(errors, default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tape", type=Path, metavar="FOLDER", help="where the recording is")
    parser.add_argument("--fit", action="store_true", help="fit the parameters anew and print them")
    parser.add_argument("--records", type=int, default=4000, help="simulated records a cell (default 4000)")
    options = parser.parse_args()
    tape = None
    if options.tape is not None:
        if not (options.tape / "summary.json").is_file():
            parser.error(f"--tape: there is no summary.json in {options.tape}")
        tape = read_tape(options.tape)
    if options.fit:
        if tape is None:
            parser.error("--fit needs --tape FOLDER")
        print_fits(tape)
        return
    found = compared(tape, options.records)
    for profile, lines in found.items():
        print(f"{profile:<46} {'simulated':>10} {'measured':>10} {'error':>10}")
        for line in lines:
            print(line.show())
    for profile in ("agnews-compact", "sst2-compact") if tape is not None else ():
        errors = {word: worst(found[profile], word) for word in ("accuracy", "lone", "order", "before")}
        print(f"{profile}: greatest error: " + ", ".join(f"{word} {error:.3f}" for word, error in errors.items()))
    rows = {profile: [vars(line) for line in lines] for profile, lines in found.items()}
    settings = {"records": options.records, "tape": tape is not None}
    write_json("calibration", {"simulated": True, "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
