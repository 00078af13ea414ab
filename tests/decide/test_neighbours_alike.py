"""The warning of batches that look as if one record had decided for all."""

from __future__ import annotations

import random
from collections.abc import Hashable

import pytest

from engine.decide.neighbours import NeighbourGuard
from engine.decide.neighbours_alike import AlikeBatches
from engine.decide.neighbours_family import Asked

LABELS = ["red", "green", "blue", "black"]


def _seen(batches: list[list[Hashable]]) -> AlikeBatches:
    alike = AlikeBatches()
    for batch in batches:
        alike.note(batch)
    return alike


def _mixed(rng: random.Random, size: int) -> list[Hashable]:
    return [rng.choice(LABELS) for _ in range(size)]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_batches_with_one_label_among_others_are_told_with_their_number(share: float) -> None:
    """One in twenty is enough. Few stand beside one with the same label, so nearly all are counted."""
    rng = random.Random(1)
    orders = [rng.random() < share for _ in range(200)]
    alike = _seen([_mixed(rng, 20), *([rng.choice(LABELS)] * 20 if order else _mixed(rng, 20) for order in orders)])
    assert alike.batches == 201
    assert 0.6 * sum(orders) <= alike.alike <= sum(orders)
    assert alike.sentence.startswith(f"{alike.alike} of 201 batches came out with one label for all")
    assert "--neighbour-guard canaries" in alike.sentence


@pytest.mark.parametrize("size", [2, 5, 20])
@pytest.mark.parametrize("kind", ["mixed", "one label", "mostly one", "sorted", "in long stretches"])
def test_a_corpus_as_it_comes_is_not_warned_of(kind: str, size: int) -> None:
    """By chance, by its shares or by its order a corpus makes such batches itself."""
    rng = random.Random(2)
    texts: list[Hashable] = _mixed(rng, 6_000)
    if kind == "one label":
        texts = ["red"] * 6_000
    elif kind == "mostly one":
        texts = ["red" if rng.random() < 0.97 else "green" for _ in range(6_000)]
    elif kind == "sorted":
        texts = sorted(texts, key=str)
    elif kind == "in long stretches":
        texts = [LABELS[number // 150 % 4] for number in range(6_000)]
    assert _seen([texts[at : at + size] for at in range(0, 6_000, size)]).sentence == ""


def test_the_watch_tells_what_it_accepted() -> None:
    """Where the price of looking is used up, orders go through; the end of the run says so, and what looks into all."""
    guard = NeighbourGuard("watch", can_compare=True)
    rng = random.Random(3)
    for number in range(120):
        asked = Asked(digests=[bytes([number, place]) for place in range(20)], family=0, canaries=())
        labels = [rng.choice(LABELS)] * 20 if number % 10 == 9 else _mixed(rng, 20)
        answers = dict(zip(asked.digests, labels, strict=True))
        if not guard.judge(asked, answers, ()):
            guard.accepted(asked, answers)
    told = [said for said in guard.notices() if "one label for all" in said]
    assert 0 < guard.alarms < 6
    assert len(told) == 1
