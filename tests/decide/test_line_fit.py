"""A line over the size of a call, from few calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.line_fit import fit_line

SIZES = st.lists(st.integers(1, 64), min_size=1, max_size=40)
AMOUNTS = st.floats(0.0, 1e6)


@given(st.floats(0, 500), st.floats(0.5, 50), st.lists(st.integers(1, 64), min_size=3, max_size=40, unique=True))
def test_calls_that_agree_overrule_the_belief(base: float, each: float, sizes: list[int]) -> None:
    """A line without errors is found, whatever the base is believed to be worth; but for sizes too near to tell."""
    made = fit_line([(size, base + each * size) for size in [*sizes, 1, 64]], worth=5.0)
    for size in (1, 8, 64):
        assert made.of(size) == pytest.approx(base + each * size, rel=0.02, abs=0.5)


@given(st.integers(1, 64), st.floats(1.0, 1e5), st.integers(1, 40))
def test_one_size_tells_nothing_of_others(size: int, amount: float, calls: int) -> None:
    """There the base is worth what is believed, and the size itself takes what it took."""
    made = fit_line([(size, amount)] * calls, worth=5.0)
    assert made.of(size) == pytest.approx(amount, rel=1e-3)
    assert made.base == pytest.approx(5.0 * made.each, rel=1e-3)


@given(st.lists(st.tuples(st.integers(1, 64), AMOUNTS), min_size=1, max_size=40))
def test_whatever_comes_the_line_is_above_zero(points: list[tuple[int, float]]) -> None:
    """And finite: usage is what an endpoint says."""
    made = fit_line(points, worth=5.0)
    assert 0.0 <= made.base < 1e8
    assert 0.0 <= made.each < 1e8
    assert 0.0 <= made.scatter() < 1e16


def test_the_scatter_is_shrunk_to_what_is_believed() -> None:
    """Twenty calls that all agree, and eight calls' worth of belief in .5."""
    made = fit_line([(10, 100.0)] * 20, worth=5.0)
    assert made.scatter() == pytest.approx(0.0, abs=1e-6)
    assert made.scatter(before=0.5, weight=8.0) == pytest.approx((8 * 0.25 / 28) ** 0.5)
