"""What replies took at one level of load: means of the newest, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.concurrency_sums import MEMORY, LoadSums

REPLY = st.tuples(st.floats(0.01, 100), st.integers(1, 300), st.integers(0, 9_000), st.integers(0, 9_000))
"""Latency, requests in flight, tokens in and out."""


def summed(replies: Sequence[tuple[float, int, int, int]], *, off: float = 0.0) -> LoadSums:
    sums = LoadSums()
    for latency_s, in_flight, read, written in replies:
        sums.add(latency_s, in_flight, read, written, off)
    return sums


def means(sums: LoadSums) -> tuple[float, ...]:
    totals = (sums.latency_s, sums.in_flight, sums.input_tokens, sums.output_tokens, sums.squares)
    return tuple(total / sums.weight for total in totals)


@given(st.lists(REPLY, min_size=1, max_size=30))
def test_what_was_added_comes_out_as_means(replies: list[tuple[float, int, int, int]]) -> None:
    """Of each quantity for itself; among some dozens all count nearly alike, and none is there before."""
    empty = LoadSums()
    assert [getattr(empty, name) for name in empty.__struct_fields__] == [0.0] * 6
    sums = summed(replies, off=0.5)
    assert sums.weight == pytest.approx(len(replies), rel=0.02)
    expected = [fmean(column) for column in zip(*replies, strict=True)]
    assert means(sums) == pytest.approx((*expected, 0.25), rel=0.03)


def test_an_old_reply_fades_and_the_weight_is_bounded() -> None:
    """To 1/e after as many others as are remembered; so many count in the end."""
    sums = summed([(1.0, 1, 1, 1)])
    for _ in range(round(MEMORY)):
        sums.add(0.0, 0, 0, 0, 0.0)
    faded = pytest.approx(1 / math.e, rel=0.01)
    assert (sums.latency_s, sums.in_flight, sums.input_tokens, sums.output_tokens) == (faded,) * 4
    for _ in range(round(20 * MEMORY)):
        sums.add(0.0, 0, 0, 0, 0.0)
    assert sums.weight == pytest.approx(MEMORY)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_what_is_trusted_less_says_the_same_with_less_weight(share: float) -> None:
    """The means stay, and the error is that of fewer replies."""
    sums = summed([(2.0, 8, 100, 10)] * 400, off=0.3)
    before, weight, error = means(sums), sums.weight, sums.error
    sums.fade(share)
    assert sums.weight == pytest.approx(share * weight)
    assert sums.error >= error
    if share:
        assert means(sums) == pytest.approx(before)
        assert sums.error == pytest.approx(error / math.sqrt(share), rel=0.01)


@given(st.lists(REPLY, max_size=40), st.lists(REPLY, min_size=1, max_size=40), st.integers(1, 30))
def test_later_sums_count_as_if_their_replies_had_come_one_by_one(
    first: list[tuple[float, int, int, int]], second: list[tuple[float, int, int, int]], times: int
) -> None:
    """What was there before fades by as many."""
    merged, one_by_one = summed(first * times, off=0.1), summed(first * times + second * times, off=0.1)
    merged.merge(summed(second * times, off=0.1))
    assert means(merged) == pytest.approx(means(one_by_one), rel=0.02)
    assert merged.weight == pytest.approx(one_by_one.weight, rel=0.02)


@given(replies=st.integers(0, 3_000), off=st.floats(0, 2))
def test_the_error_is_that_of_a_mean(replies: int, off: float) -> None:
    """The deviation over the root of the number: .3 before anything is known, weighing as four replies do, then the
    one that was seen."""
    sums = summed([(1.0, 1, 1, 1)] * replies, off=off)
    root = math.sqrt(max(1.0, sums.weight))
    assert min(off, 0.3) / root * 0.999 <= sums.error <= max(off, 0.3) / root * 1.001 or not replies
    if replies == 0:
        assert sums.error == pytest.approx(0.3)
    if replies >= 400:
        assert sums.error == pytest.approx(off / root, abs=0.05 / root)
    four = summed([(1.0, 1, 1, 1)] * 4, off=off)
    assert four.error == pytest.approx(math.sqrt((off * off + 0.09) / 2) / 2, rel=0.01)


def test_one_stray_reply_does_not_make_a_level_doubtful() -> None:
    """Whatever it took, it counts as one that took three times as long."""
    usual, stray = summed([(1.0, 1, 1, 1)] * 200, off=0.2), summed([(1.0, 1, 1, 1)] * 199, off=0.2)
    stray.add(1.0, 1, 1, 1, 1e9)
    assert usual.error < stray.error < 1.3 * usual.error
