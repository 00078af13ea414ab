"""Which records go next: the oldest always, within the budgets, in no order that the corpus had."""

from __future__ import annotations

import random
from itertools import pairwise
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from engine.decide.packing import Room, pack

rooms = st.builds(
    Room, items=st.integers(1, 40), input_tokens=st.integers(-10, 2_000), output_tokens=st.floats(-100, 4_000)
)
waitings = st.lists(st.integers(0, 600), max_size=80)
seeds = st.integers(0, 2**32)
per_record = st.floats(0, 500)


@given(waitings, rooms, per_record, seeds)
def test_the_oldest_goes_and_the_budgets_hold(waiting: list[int], room: Room, output: float, seed: int) -> None:
    """Each record at most once, the oldest among them, and no budget exceeded unless the oldest is alone."""
    chosen = pack(waiting, room=room, output_per_record=output, rng=random.Random(seed))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(range(len(waiting)))
    assert (0 in chosen) == bool(waiting)
    if len(chosen) > 1:
        assert len(chosen) <= room.items
        assert sum(waiting[index] for index in chosen) <= room.input_tokens
        assert len(chosen) * output <= room.output_tokens


@given(waitings, rooms, per_record, seeds)
def test_the_same_seed_packs_the_same(waiting: list[int], room: Room, output: float, seed: int) -> None:
    """Packing depends on nothing but its arguments."""
    first, second = (pack(waiting, room=room, output_per_record=output, rng=random.Random(seed)) for _ in range(2))
    assert first == second


@given(waitings, rooms, per_record, seeds)
def test_nobody_waits_longer_than_its_place_in_the_queue(
    waiting: list[int], room: Room, output: float, seed: int
) -> None:
    """The record at place n is sent in round n at the latest, however it fits, and each exactly once."""
    rng = random.Random(seed)
    left = list(enumerate(waiting))
    rounds: dict[int, int] = {}
    number = 0
    while left:
        chosen = set(pack([size for _, size in left], room=room, output_per_record=output, rng=rng))
        rounds |= {left[index][0]: number for index in chosen}
        left = [record for index, record in enumerate(left) if index not in chosen]
        number += 1
    assert len(rounds) == len(waiting)
    assert all(rounds[place] <= place for place in rounds)


def test_a_full_batch_is_made_where_one_fits() -> None:
    """With room for all, a batch is as full as it may be; the packer leaves no items for nothing."""
    for seed in range(50):
        chosen = pack(
            [10] * 100, room=Room(items=20, input_tokens=200, output_tokens=400), output_per_record=20,
            rng=random.Random(seed),
        )  # fmt: skip
        assert len(chosen) == 20


def test_the_oldest_stands_in_any_place_of_its_batch() -> None:
    """Answers depend on the place, so no kind of record may have always the same one."""
    room = Room(items=4, input_tokens=100, output_tokens=100)
    places = {pack([1] * 9, room=room, output_per_record=1, rng=random.Random(seed)).index(0) for seed in range(200)}
    assert places == {0, 1, 2, 3}


def test_a_sorted_corpus_makes_no_runs_of_one_label() -> None:
    """512 records in four sorted blocks, packed by tens: neighbours agree as often as chance has it, 1/4, not always.

    Only the first batches are looked at: later ones come from a look-ahead that holds what is left of the last block.
    """
    agreeing = []
    for seed in range(40):
        rng = random.Random(seed)
        left = [place // 128 for place in range(512)]
        for _ in range(20):
            chosen = pack(
                [30] * len(left), room=Room(items=10, input_tokens=10_000, output_tokens=10_000),
                output_per_record=10, rng=rng,
            )  # fmt: skip
            labels = [left[index] for index in chosen]
            agreeing += [one == other for one, other in pairwise(labels)]
            left = [label for index, label in enumerate(left) if index not in set(chosen)]
    assert 0.2 < mean(agreeing) < 0.32
