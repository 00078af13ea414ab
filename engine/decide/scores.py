"""How right answers are, beside gold: accuracy, exact match, macro-F1, Cohen's kappa, Krippendorff's alpha.

Each measure gives one number a record, so that settings can be compared record by record. Where the measure is one of
the whole set, these are the jackknife's pseudo-values n T - (n - 1) T_without_i, whose spread is its error and whose
mean is the measure with its bias of order 1/n taken off (Tukey 1958; Efron and Tibshirani 1993, "An introduction to
the bootstrap", chapter 11). With rare labels that is some points beside the measure itself, which is what is told
(`score_within`).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import msgspec

from engine.decide.quality_stats import Interval
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import LABELLED, Task

Judged = tuple[Any, Any]
"""The gold output of a record, and the answer; None where there is no valid answer, which is never right."""

Metric = Callable[[Sequence[Judged]], list[float]]
"""One number for each record; their mean is the measure."""

RecordScore = Callable[[Any, Any], float]
"""A user's own: of the gold output and the answer, a number from 0 to 1."""

_Cell = tuple[str, str]
_SHOWN = 60  # characters of an output in a message
_NONE = ""  # no JSON text is empty

METRICS = ("accuracy", "macro-f1", "exact", "kappa", "alpha")


def metric_of(name: str, task: Task) -> Metric:
    """The measure of that name. With several variables it is the mean over them, but for ``exact``.

    :raises KeyError: there is none of that name.
    """
    if name == "exact" or (name == "accuracy" and not task.is_object):
        return exact
    if name == "accuracy":
        return lambda judged: _averaged([exact(_column(judged, variable)) for variable in task.fields])
    whole, names = _WHOLE[name], _labelled(task)
    return lambda judged: _averaged([pseudo_values(_cells(_column(judged, key)), whole) for key in names])


def score_within(judged: Sequence[Judged], scores: Sequence[float], name: str, task: Task, sure: float) -> Score:
    """The measure of that name as everybody works it out, with an interval.

    :param scores: of `metric_of`, which also say how sure it is; their mean is the measure where it is none of the
        whole set. :param sure: confidence of the interval.
    """
    around = mean_within(scores, sure)
    mean = math.fsum(scores) / max(1, len(scores))
    measure = _WHOLE.get(name)
    if measure is None or not judged:
        return Score(value=mean, interval=around)
    value = statistics.fmean(measure(Counter(_cells(_column(judged, key)))) for key in _labelled(task))
    least = 0.0 if name == "macro-f1" else -1.0
    low, high = (min(1.0, max(least, end + value - mean)) for end in (around.low, around.high))
    return Score(value=value, interval=Interval(low=low, high=high))


def _labelled(task: Task) -> list[str]:
    return [key for key, field in task.variables.items() if field.type in LABELLED] or list(task.variables)


def own_metric(score: RecordScore, name: str = "the measure") -> Metric:
    """A user's function as a measure. A record without an answer scores 0 and is not given to it.

    The measure raises `ConfigError` where the function fails, or gives no number from 0 to 1.

    :param name: for messages.
    """
    return lambda judged: [0.0 if answer is None else _own(score, name, gold, answer) for gold, answer in judged]


def _own(score: RecordScore, name: str, gold: Any, answer: Any) -> float:
    of = f"({_text(gold)[:_SHOWN]}, {_text(answer)[:_SHOWN]})"
    try:
        found = score(gold, answer)
        number = float(found)
    except Exception as error:
        raise ConfigError(f"--metric: {name}{of} fails: {type(error).__name__}: {error}; answers are kept") from error
    if not 0.0 <= number <= 1.0:
        raise ConfigError(f"--metric: {name}{of} gives {found!r}; it is to be a number from 0 to 1; answers are kept")
    return number


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """A measure of all judged records, and where it lies."""

    value: float
    interval: Interval


class VariableScore(msgspec.Struct, frozen=True, kw_only=True):
    """How right the answers are in one variable of several.

    :ivar accuracy: share of the records in which it is right. :ivar interval: of that.
    :ivar score: by the measure that the search goes by, where that is another one and of labels; else None.
    """

    name: str
    accuracy: float
    interval: Interval
    score: float | None = None


def variable_scores(judged: Sequence[Judged], task: Task, metric_name: str, confidence: float) -> list[VariableScore]:
    """Each variable by itself; none for a task with one.

    :param metric_name: see `METRICS`; accuracy is always told.
    """
    measure = _WHOLE.get(metric_name)
    made = []
    for name, field in task.fields.items():
        column = _column(judged, name)
        right = exact(column)
        of_labels = measure if measure is not None and field.type in LABELLED and column else None
        made.append(
            VariableScore(
                name=name,
                accuracy=math.fsum(right) / max(1, len(right)),
                interval=mean_within(right, confidence),
                score=None if of_labels is None else of_labels(Counter(_cells(column))),
            )
        )
    return made


def exact(judged: Sequence[Judged]) -> list[float]:
    """1 where the answer is the gold output as a whole."""
    return [float(answer is not None and _text(answer) == _text(gold)) for gold, answer in judged]


def pseudo_values(cells: Sequence[_Cell], measure: Callable[[Mapping[_Cell, int]], float]) -> list[float]:
    """The jackknife's. Equal records have equal ones, so it takes one measurement for each kind of record."""
    n, counts = len(cells), Counter(cells)
    if n < 2:
        return [measure(counts)] * n
    whole = measure(counts)
    by_kind = {}
    for kind in counts:
        without = counts.copy()
        without[kind] -= 1
        by_kind[kind] = n * whole - (n - 1) * measure(+without)
    return [by_kind[cell] for cell in cells]


def macro_f1(counts: Mapping[_Cell, int]) -> float:
    """The mean over the labels of F1 = 2 TP / (2 TP + FP + FN), labels that occur nowhere left out.

    Several labels a record count each for itself. Source: Opitz and Burst 2019, "Macro F1 and Macro F1", the mean of
    F1 scores (not the F1 of means).
    """
    both: Counter[str] = Counter()
    either: Counter[str] = Counter()
    for (gold, answer), count in counts.items():
        golds, answers = _labels(gold), _labels(answer)
        for label in golds:
            either[label] += count
            both[label] += count if label in answers else 0
        for label in answers:
            either[label] += count
    return statistics.fmean(2 * both[label] / either[label] for label in either) if either else 0.0


def cohen_kappa(counts: Mapping[_Cell, int]) -> float:
    """Agreement beyond chance, (p_o - p_e) / (1 - p_e): Cohen 1960, Educ. Psychol. Meas. 20. 1 where all is one label.

    No answer is a category of its own, which agrees with nothing.
    """
    n = sum(counts.values())
    gold, answer = _margins(counts)
    agreed = sum(count for (one, other), count in counts.items() if one == other) / n
    by_chance = sum(gold[label] * answer[label] for label in gold) / (n * n)
    return 1.0 if by_chance >= 1.0 else (agreed - by_chance) / (1.0 - by_chance)


def krippendorff_alpha(counts: Mapping[_Cell, int]) -> float:
    """1 - D_o / D_e for two coders, nominal data: Krippendorff 2011, "Computing Krippendorff's alpha-reliability".

    D_o is the share of disagreeing pairs, D_e that of all values of both coders together. Records without an answer
    count as disagreeing: left out, as missing values are in the original, a setting could win by answering little.
    """
    n = sum(counts.values())
    gold, answer = _margins(counts)
    together = gold + answer
    differ = sum(count for (one, other), count in counts.items() if one != other) / n
    expected = 1.0 - sum(count * (count - 1) for count in together.values()) / (2 * n * (2 * n - 1))
    return 1.0 if expected <= 0.0 else 1.0 - differ / expected


def _margins(counts: Mapping[_Cell, int]) -> tuple[Counter[str], Counter[str]]:
    gold: Counter[str] = Counter()
    answer: Counter[str] = Counter()
    for (one, other), count in counts.items():
        gold[one] += count
        answer[other] += count
    return gold, answer


_WHOLE: Mapping[str, Callable[[Mapping[_Cell, int]], float]] = {
    "macro-f1": macro_f1,
    "kappa": cohen_kappa,
    "alpha": krippendorff_alpha,
}
"""Measures of a whole set, for labels."""


def mean_within(scores: Sequence[float], confidence: float) -> Interval:
    """The interval of a mean score: Wilson's where all are 0 or 1, else the normal one, from the spread.

    Wilson 1927, JASA 22; of the simple intervals for a share it is the one to take: Brown, Cai and DasGupta 2001,
    Stat. Sci. 16.
    """
    n = len(scores)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    if n == 0:
        return Interval(low=0.0, high=1.0)
    mean = math.fsum(scores) / n
    if all(score in (0.0, 1.0) for score in scores):
        middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return Interval(low=max(0.0, middle - half), high=min(1.0, middle + half))
    half = z * (statistics.stdev(scores) if n > 1 else 1.0) / math.sqrt(n)
    return Interval(low=mean - half, high=mean + half)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of (cost, score) nothing beats: no other is as cheap and as good, and better in one of the two."""
    return [
        not any(
            cost <= point[0] and score >= point[1] and (cost < point[0] or score > point[1]) for cost, score in points
        )
        for point in points
    ]


def _averaged(columns: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(row) / len(row) for row in zip(*columns, strict=True)]


def _column(judged: Sequence[Judged], variable: str) -> list[Judged]:
    if not variable:
        return list(judged)
    return [(gold[variable], None if answer is None else answer.get(variable)) for gold, answer in judged]


def _cells(judged: Sequence[Judged]) -> list[_Cell]:
    return [(_text(gold), _NONE if answer is None else _text(answer)) for gold, answer in judged]


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _labels(text: str) -> frozenset[str]:
    """The labels of an output: of a list each of its own, of anything else that one."""
    if text == _NONE:
        return frozenset()
    value = msgspec.json.decode(text)
    return frozenset(map(_text, value)) if isinstance(value, list) else frozenset([text])
