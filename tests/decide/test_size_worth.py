"""What a size is worth, learned from calls of all sizes together."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.size_worth import Allowed, SlotTimes, Tried, Work, faded

SIZES = (2, 4, 8, 16, 32)


def make_work(size: int, slot_s: float, *, accepted: int | None = None) -> Work:
    return Work(
        origin=size, first=True, size=size, accepted=size if accepted is None else accepted, tokens=500.0 + 50 * size,
        slot_s=slot_s, cost=1.0,
    )  # fmt: skip


def tried(size: int, slots_s: list[float], times: SlotTimes) -> Tried:
    one = Tried()
    for slot_s in slots_s:
        one.add(make_work(size, slot_s), timed=True)
        times.observe(size, slot_s)
    return one


@given(
    ratio=st.floats(0.0, 8.0), each_s=st.floats(0.01, 1.0),
    sizes=st.lists(st.sampled_from(SIZES), min_size=60, max_size=200),
)  # fmt: skip
def test_calls_of_different_sizes_tell_base_from_records(ratio: float, each_s: float, sizes: list[int]) -> None:
    """Without scatter the line goes through every size that was seen often, whatever the ratio of its parts."""
    times = SlotTimes()
    for size in sizes:
        times.observe(size, (ratio + size) * each_s)
    for size in set(sizes):
        if sizes.count(size) >= 10:
            assert times.expected_s(1, size) == pytest.approx((ratio + size) * each_s, rel=0.15)


@given(calls=st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 1e4)), min_size=1, max_size=100))
def test_no_call_makes_a_time_negative(calls: list[tuple[int, float]]) -> None:
    """Whatever calls took, more records never take less time than none, and the scatter is a number."""
    times = SlotTimes()
    for size, slot_s in calls:
        times.observe(size, slot_s)
        assert times.base_s >= 0.0
        assert times.each_s >= 0.0
        assert 0.0 <= times.scatter <= 4.0
    assert times.expected_s(1, 8) > 0.0


def test_neighbours_are_told_apart_though_calls_scatter() -> None:
    """24 and 32 records a call are worth 4 % more or less, and calls scatter by 25 %: twelve calls cannot tell."""
    allowed, wrong, alone = Allowed(window=16.0), 0, 0
    for seed in range(200):
        rng = random.Random(seed)
        draw = lambda size, count: [(0.36 + 0.1 * size) * rng.lognormvariate(-0.03, 0.25) for _ in range(count)]  # noqa: B023, E731
        times = SlotTimes()
        for size in (2, 4, 8, 16):
            tried(size, draw(size, 24), times)
        slots = {size: draw(size, 12) for size in (24, 32)}
        worth = {size: tried(size, slots[size], times) for size in (24, 32)}
        ratio = (worth[24].worth(allowed, "records-per-second", times).rate
                 / worth[32].worth(allowed, "records-per-second", times).rate)  # fmt: skip
        wrong += ratio > 1.02
        alone += (24 / sum(slots[24])) / (32 / sum(slots[32])) > 1.02
    assert alone > 40  # of two means of twelve, one in four or so says that 24 is better by 2 %
    assert wrong < alone / 2


def test_a_size_off_the_line_is_known_by_its_own_calls() -> None:
    """A server that is slow from some size on shows it, when there are enough calls."""
    allowed, times = Allowed(window=16.0), SlotTimes()
    for _ in range(20):
        for size in (2, 4, 8, 16):
            times.observe(size, 0.3 + 0.1 * size)
    slow = tried(32, [2 * (0.3 + 3.2)] * 60, times)
    rate = slow.worth(allowed, "records-per-second", times).rate
    assert rate == pytest.approx(16 * 32 / 7.0, rel=0.1)


def test_old_batches_fade() -> None:
    """The sum of so many batches is what the counter holds after them."""
    one = Tried()
    for count in range(1, 200):
        one.add(make_work(4, 1.0), timed=True)
        assert one.batches == pytest.approx(faded(count), abs=1e-6)


def test_input_tokens_that_are_limited_apart_bind() -> None:
    """Where an endpoint counts input by itself, what a size is worth is what its input allows."""
    times, one = SlotTimes(), Tried()
    for _ in range(10):
        work = Work(
            origin=4, first=True, size=4, accepted=4, tokens=300, slot_s=1.0, cost=1.0, input_tokens=200,
            output_tokens=100,
        )  # fmt: skip
        one.add(work, timed=True)
        times.observe(4, 1.0)
    free = one.worth(Allowed(window=100), "records-per-second", times)
    by_input = one.worth(Allowed(window=100, input_tokens_per_minute=6_000), "records-per-second", times)
    by_output = one.worth(Allowed(window=100, output_tokens_per_minute=600), "records-per-second", times)
    assert free.binding == "window"
    assert by_input.binding == by_output.binding == "tokens"
    assert by_input.rate == pytest.approx(100 / 50)
    assert by_output.rate == pytest.approx(10 / 25)
