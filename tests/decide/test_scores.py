"""Measures of how right answers are."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.scores import (
    METRICS,
    cohen_kappa,
    exact,
    krippendorff_alpha,
    macro_f1,
    mean_within,
    metric_of,
    own_metric,
    pareto_front,
    pseudo_values,
    score_within,
)
from engine.vocabulary.task import Field, FieldType, Task

TASK = Task(instructions="Which?", labels=["a", "b", "c"])
labels = st.sampled_from(["a", "b", "c"])
judged_sets = st.lists(st.tuples(labels, st.one_of(st.none(), labels)), min_size=3, max_size=40)


def cells(counts: dict[tuple[str, str], int]) -> Counter[tuple[str, str]]:
    return Counter({(f'"{one}"', f'"{other}"'): count for (one, other), count in counts.items()})


def test_kappa_of_the_published_example() -> None:
    """Cohen 1960's kind of table as in textbooks: 20 yes-yes, 5, 10, 15 no-no of 50 give kappa = .40."""
    table = cells({("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15})
    assert cohen_kappa(table) == pytest.approx(0.40)


def test_alpha_of_the_published_example() -> None:
    """Krippendorff 2011, A: two observers, ten units, binary data: alpha = .095."""
    one, other = "0100000000", "1110010010"
    assert krippendorff_alpha(Counter(zip(one, other, strict=True))) == pytest.approx(0.095, abs=0.0005)


def test_alpha_of_the_published_nominal_example() -> None:
    """Krippendorff 2011, B: two observers, twelve units, five categories: alpha = .692."""
    one, other = "aabbdcccedda", "babbbccceddd"
    assert krippendorff_alpha(Counter(zip(one, other, strict=True))) == pytest.approx(0.692, abs=0.0005)


@given(judged_sets, st.sampled_from(METRICS))
def test_what_is_told_is_the_measure_itself(judged: list[tuple[str, str | None]], name: str) -> None:
    """Not the mean of its pseudo-values, which rare labels move by points; the interval is about it."""
    whole = {"macro-f1": macro_f1, "kappa": cohen_kappa, "alpha": krippendorff_alpha}.get(name)
    numbers = metric_of(name, TASK)(judged)
    told = score_within(judged, numbers, name, TASK, 0.95)
    table = Counter((f'"{gold}"', "" if answer is None else f'"{answer}"') for gold, answer in judged)
    wanted = statistics.fmean(numbers) if whole is None else whole(table)
    assert told.value == pytest.approx(wanted)
    assert told.interval.low - 1e-9 <= told.value <= told.interval.high + 1e-9
    assert told.interval.high <= 1 + 1e-9


def test_rare_labels_move_the_mean_of_pseudo_values_and_not_what_is_told() -> None:
    """With several variables it is the mean of the measures of those with labels."""
    judged = [("a", "a")] * 60 + [("a", "b")] * 20 + [("b", "b"), ("c", "a")]
    told = score_within(judged, metric_of("macro-f1", TASK)(judged), "macro-f1", TASK, 0.95)
    a, b = 2 * 60 / (80 + 61), 2 * 1 / (1 + 21)
    assert told.value == pytest.approx((a + b + 0) / 3)
    assert abs(statistics.fmean(metric_of("macro-f1", TASK)(judged)) - told.value) > 0.01
    both = Task(instructions="x", fields={"one": Field(labels=["a", "b", "c"]), "two": Field(labels=["a"])})
    rows = [({"one": gold, "two": "a"}, {"one": answer, "two": "a"}) for gold, answer in judged]
    stacked = score_within(rows, metric_of("macro-f1", both)(rows), "macro-f1", both, 0.95)
    assert stacked.value == pytest.approx((told.value + 1) / 2)


def test_macro_f1_by_hand() -> None:
    """a: TP 2, FP 1, FN 0 gives .8; b: TP 1, FP 0, FN 1 gives .667; the mean is .733. No answer is a miss, no label."""
    table = cells({("a", "a"): 2, ("b", "b"): 1, ("b", "a"): 1})
    assert macro_f1(table) == pytest.approx((0.8 + 2 / 3) / 2)
    missing = Counter({('"a"', '"a"'): 1, ('"a"', ""): 1})
    assert macro_f1(missing) == pytest.approx(2 / 3)


def test_several_labels_count_each_for_itself() -> None:
    """Gold {a, b} answered {a}: a is right, b is missed."""
    assert macro_f1(Counter({('["a","b"]', '["a"]'): 1})) == pytest.approx(0.5)


@given(judged_sets)
def test_right_answers_score_one_and_nothing_scores_more(judged: list[tuple[str, str | None]]) -> None:
    """Every measure is 1 for the gold itself; the accuracy is the share of right ones; there is one score a record."""
    for name in METRICS:
        metric = metric_of(name, TASK)
        assert len(metric(judged)) == len(judged)
        assert metric([(gold, gold) for gold, _ in judged]) == pytest.approx([1.0] * len(judged))
    right = sum(gold == answer for gold, answer in judged) / len(judged)
    assert statistics.fmean(metric_of("accuracy", TASK)(judged)) == pytest.approx(right)


@given(judged_sets)
def test_the_mean_of_a_share_by_pseudo_values_is_the_share(judged: list[tuple[str, str | None]]) -> None:
    """For a measure that is itself a mean, a record's pseudo-value is its own score."""

    def share(counts: Any) -> float:
        return sum(n for (gold, answer), n in counts.items() if gold == answer) / sum(counts.values())

    pairs = [(gold, answer or "") for gold, answer in judged]
    assert pseudo_values(pairs, share) == pytest.approx(exact(judged))


def test_several_variables() -> None:
    """Accuracy is the mean over the variables, exact asks for all of them; a missing answer is right in none."""
    fields = {name: Field(type=FieldType.LABEL, labels=["x", "y"]) for name in ("one", "two")}
    task = Task(instructions="Which?", fields=fields)
    gold = {"one": "x", "two": "y"}
    judged = [(gold, gold), (gold, {"one": "x", "two": "x"}), (gold, None)]
    assert metric_of("accuracy", task)(judged) == [1.0, 0.5, 0.0]
    assert metric_of("exact", task)(judged) == [1.0, 0.0, 0.0]


def test_the_users_own_function_never_sees_a_missing_answer() -> None:
    """It scores answers; none at all is 0."""
    metric = own_metric(lambda gold, answer: len(answer) / len(gold))
    assert metric([("four", "fo"), ("four", None)]) == [0.5, 0.0]


def test_wilson_of_the_published_example() -> None:
    """Newcombe 1998, Stat. Med. 17, table 1: 81 of 263 is .2553 to .3662, 0 of 20 is 0 to .1611."""
    found = mean_within([1.0] * 81 + [0.0] * 182, 0.95)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    none = mean_within([0.0] * 20, 0.95)
    assert (none.low, none.high) == (pytest.approx(0.0, abs=1e-12), pytest.approx(0.1611, abs=5e-5))


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    """The cheapest of the best is always on it, and no point on it is beaten by another on it."""
    front = pareto_front(points)
    best = max(points, key=lambda point: (point[1], -point[0]))
    assert front[points.index(best)]
    on_it = [point for point, is_on in zip(points, front, strict=True) if is_on]
    assert not any(a[0] < b[0] and a[1] > b[1] for a in on_it for b in on_it)
    assert not math.isnan(sum(score for _, score in on_it))
