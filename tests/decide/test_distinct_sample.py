"""How many different inputs there are, and a fair sample of them."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.distinct_sample import DistinctSample


def digest(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def sampled(numbers: list[int], most: int) -> DistinctSample:
    sample = DistinctSample(most=most)
    for number in numbers:
        if sample.wants(digest(number)):
            sample.add(digest(number), number)
    return sample


@given(st.lists(st.integers(0, 60)), st.integers(61, 100))
def test_small_corpora_are_counted_exactly(numbers: list[int], most: int) -> None:
    """Every different input once, whatever the order and the copies."""
    sample = sampled(numbers, most)
    assert sample.distinct == len(set(numbers))
    assert sorted(sample.sizes) == sorted(set(numbers))
    assert sample.records == len(numbers)
    assert sample.is_exact
    assert sample.total_deviation() == 0.0


@given(st.integers(1, 2_000), st.integers(1, 50))
def test_it_never_keeps_more_than_it_may(count: int, most: int) -> None:
    """Memory is bounded by what was asked for, and where no input has a copy the number stays exact."""
    sample = sampled(list(range(count)), most)
    assert len(sample.sizes) <= most
    assert sample.distinct in (0, count)  # 0: none of so few is kept


@pytest.mark.parametrize("copies", [1, 3])
def test_the_estimates_are_as_good_as_they_say(copies: int) -> None:
    """Over 60 corpora the total is within 1.96 standard deviations in most, and the number of inputs within 5 %."""
    within = 0
    for seed in range(60):
        rng = random.Random(seed)
        different = [seed * 10_000 + rng.randrange(10_000) for _ in range(4_000)]
        sizes = {number: rng.lognormvariate(4, 1) for number in different}
        sample = DistinctSample(most=1_000)
        for number in rng.sample(list(sizes) * copies, len(sizes) * copies):
            if sample.wants(digest(number)):
                sample.add(digest(number), round(sizes[number]))
        assert sample.distinct == pytest.approx(len(sizes), rel=0.05)
        estimate = sample.distinct * sum(sample.sizes) / len(sample.sizes)
        within += abs(estimate - sum(sizes.values())) <= 1.96 * sample.total_deviation()
    assert within >= 50


def test_a_copy_needs_no_second_count() -> None:
    """What is kept already is not wanted again, nor what was passed over."""
    sample = DistinctSample(most=8)
    for number in range(100):
        if sample.wants(digest(number)):
            sample.add(digest(number), 1)
    kept = len(sample.sizes)
    wanted = [number for number in range(100) if sample.wants(digest(number))]
    assert wanted == []
    assert len(sample.sizes) == kept
