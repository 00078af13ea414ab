"""Gold in a wide window: riders that are asked alone later, and what lone asks may take. Pure."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.gold_pairs import GoldBatch, OpenBatches
from engine.decide.gold_pool import GoldEntry, GoldPool
from engine.decide.gold_share import LEAST_WEIGHT, Spent, lone_asks_worth
from engine.vocabulary.values import Record


def make_entries(count: int) -> list[GoldEntry]:
    return [
        GoldEntry(
            record=Record(position=n, line=n + 1, id=n, key=str(n), input=f"t{n}", digest=str(n).encode()),
            output="red",
            line=n + 1,
        )
        for n in range(count)
    ]


def make_pool(count: int, *, rate: float = 0.05) -> GoldPool:
    return GoldPool(make_entries(count), rate=rate, rng=random.Random(0))


def send(pool: GoldPool, *, size: int = 16, is_largest: bool = True, rung: int = 16) -> list[GoldEntry]:
    """A batch in a hurry."""
    candidates = pool.candidates(size, ahead=400.0, is_largest=is_largest)
    return pool.ride(candidates, records=size - len(candidates), fits=lambda _: True, rung=rung, is_largest=is_largest)


def ask(pool: GoldPool, requests: float, *, is_largest: bool = True) -> GoldEntry | None:
    return pool.next_lone(requests=requests, size=16, is_largest=is_largest, grace=0)


def test_at_the_largest_size_riders_wait_for_no_lone_answer_and_get_it_later() -> None:
    """Ten batches go before any answer is there; as many ride as can be asked alone, and those are who is asked."""
    pool = make_pool(400)
    assert ask(pool, 200.0) is None  # a tenth: 20 may be asked, and nobody rides yet
    riders = [entry for _ in range(30) for entry in send(pool)]
    assert len(riders) == 20
    assert all(pool.awaits(entry.line) for entry in riders)
    asked = [ask(pool, 200.0) for _ in riders]
    assert asked == riders
    assert ask(pool, 200.0) is None
    for entry in riders:
        pool.lone_answered(entry, answered=True)
    assert not any(pool.awaits(entry.line) for entry in riders)


def test_nobody_is_wanted_twice_for_one_batch() -> None:
    """Where fewer can be asked alone than have a place, others fill up: not the same ones again."""
    pool = make_pool(400, rate=0.25)
    assert ask(pool, 2.0) is None  # half the rate of two requests: one may be asked
    wanted = [entry.line for entry in pool.candidates(16, is_largest=True)]
    assert len(wanted) == len(set(wanted)) == 4


def test_on_the_way_to_a_larger_size_riders_have_their_lone_answers() -> None:
    """What is spent there is missing at the size that the run stays at."""
    pool = make_pool(400)
    entry = ask(pool, 200.0, is_largest=False)
    assert entry is not None
    assert send(pool, is_largest=False) == []
    pool.lone_answered(entry, answered=True)
    assert send(pool, is_largest=False) == [entry]


def test_those_that_ride_in_the_largest_batches_are_asked_alone_first() -> None:
    """Whichever rode first."""
    pool = make_pool(400)
    assert ask(pool, 200.0) is None
    small, large = send(pool, size=8, rung=8), send(pool, rung=16)
    assert len(small) == len(large) == 2
    assert [ask(pool, 200.0) for _ in range(4)] == [*large, *small]


def test_a_lone_ask_that_was_lost_is_sent_again_and_its_batch_waits_for_it() -> None:
    """Unless its content was to blame."""
    pool = make_pool(400)
    assert ask(pool, 200.0) is None
    first, second = send(pool)
    assert ask(pool, 200.0) == first
    pool.ask_again(first)
    assert pool.awaits(first.line)
    assert ask(pool, 200.0) == first
    pool.lone_answered(first, answered=False)
    assert not pool.awaits(first.line)
    assert pool.awaits(second.line)


@given(
    count=st.integers(1, 12), seed=st.integers(0, 99),
    steps=st.lists(st.tuples(st.booleans(), st.integers(2, 32), st.integers(0, 2)), max_size=80),
)  # fmt: skip
def test_nobody_rides_twice_in_a_pass_however_late_a_batch_comes_back_empty(
    count: int, seed: int, steps: list[tuple[bool, int, int]]
) -> None:
    """In a wide window a request may fail after the next pass has begun, in which its gold has a place already."""
    pool = GoldPool(make_entries(count), rate=0.5, rng=random.Random(seed))
    out: list[tuple[int, list[GoldEntry]]] = []
    done: Counter[tuple[int, int]] = Counter()
    for is_largest, size, what in steps:
        if (entry := ask(pool, 1_000.0, is_largest=is_largest)) is not None:
            pool.lone_answered(entry, answered=entry.line % 3 > 0)
        riders = send(pool, size=size, is_largest=is_largest)
        done.update((pool.passes, entry.line) for entry in riders)
        out.append((pool.passes, riders))
        if what == 0:
            sweep, lost = out.pop(0)
            pool.give_back(lost, sweep=sweep)
            done.subtract((sweep, entry.line) for entry in lost)
    assert max(done.values(), default=0) <= 1


@given(st.lists(st.sets(st.integers(1, 20), min_size=1, max_size=4), max_size=12), st.lists(st.integers(1, 20)))
def test_a_batch_comes_out_once_and_when_all_its_lone_answers_are_there(
    lines: list[set[int]], answers: list[int]
) -> None:
    """As one number: records of a batch that go wrong together are no two witnesses."""
    waiting = {line for batch in lines for line in batch}
    batches = OpenBatches()
    for number, batch in enumerate(lines):
        batches.add(GoldBatch(size=16, form="compact", sweep=number, right=dict.fromkeys(batch, 1.0)))
    came: list[int] = []
    for line in answers:
        waiting.discard(line)
        complete = batches.complete(waiting.__contains__)
        assert all(waiting.isdisjoint(batch.right) for batch in complete)
        came += [batch.sweep for batch in complete]
    assert len(came) == len(set(came))
    assert set(came) == {number for number, batch in enumerate(lines) if answers and waiting.isdisjoint(batch)}


def test_a_ride_stands_beside_its_lone_answer() -> None:
    """And without one where it did not come."""
    batch = GoldBatch(size=16, form="compact", sweep=1, right={1: 1.0, 2: 0.0})
    assert [(ride.right, ride.alone) for ride in batch.rides({2: 1.0, 3: 0.0})] == [(1.0, None), (0.0, 1.0)]


@pytest.mark.parametrize(
    ("spent", "size", "worth"),
    [
        (Spent(requests=0, cost=0.0, lone=None, entry=0.0), 16, 100.0),  # requests, as long as nothing else is known
        (Spent(requests=40, cost=0.0, lone=None, entry=0.0), 1, 1_640.0),
        (Spent(requests=0, cost=0.0, lone=100.0, entry=0.0), 16, 100.0),  # a record more costs nothing
        (Spent(requests=0, cost=0.0, lone=100.0, entry=10.0), 16, 250.0),  # 250 for a batch of 16
        (Spent(requests=50, cost=10_000.0, lone=100.0, entry=10.0), 16, 350.0),
        (Spent(requests=0, cost=0.0, lone=100.0, entry=100.0), 16, 1_000.0),  # 1,600 by cost; the floor
    ],
)
def test_what_lone_asks_may_take_is_a_share_of_all_that_comes(spent: Spent, size: int, worth: float) -> None:
    """1,600 records are left: by requests, or by what a lone ask costs beside a batch."""
    assert lone_asks_worth(spent, records_left=1_600, size=size) == pytest.approx(worth)
    assert LEAST_WEIGHT == 0.1
