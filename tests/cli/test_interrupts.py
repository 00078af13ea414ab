"""Which signals ask for something new."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.interrupts import Stops

HUP, TERM, INT = signal.SIGHUP, signal.SIGTERM, signal.SIGINT
BEGIN_S = 1_000.0


@pytest.mark.parametrize(
    ("came", "new"),
    [
        ([(HUP, 0.0), (TERM, 0.05)], [True, False]),
        ([(TERM, 0.0), (HUP, 0.05)], [True, False]),
        ([(INT, 0.0), (TERM, 1.9)], [True, False]),
        ([(HUP, 0.0), (TERM, 0.05), (TERM, 0.1)], [True, False, True]),
        ([(HUP, 0.0), (TERM, 2.0)], [True, True]),
        ([(INT, 0.0), (TERM, 30.0)], [True, True]),
        ([(INT, 0.0), (INT, 0.05)], [True, True]),
        ([(TERM, 0.0), (TERM, 0.05)], [True, True]),
        ([(HUP, 0.0), (HUP, 60.0), (TERM, 61.0)], [True, False, True]),
    ],
)
def test_what_comes_together_is_one_stop(came: list[tuple[int, float]], new: list[bool]) -> None:
    """A closing terminal and a supervisor do not know of each other: nobody has asked twice, and nothing is given up.
    The same signal again, or another one 2 s later, is meant."""
    stops = Stops()
    assert [stops.is_new(number, BEGIN_S + at_s) for number, at_s in came] == new


@given(st.lists(st.tuples(st.sampled_from([HUP, TERM, INT]), st.floats(0.0, 5.0)), min_size=1))
def test_the_first_signal_always_counts_and_a_hang_up_never_again(came: list[tuple[int, float]]) -> None:
    """Whatever comes, and when."""
    stops, now = Stops(), BEGIN_S
    for index, (number, later_s) in enumerate(came):
        now += later_s
        is_new = stops.is_new(number, now)
        assert is_new or index > 0
        assert not (is_new and index > 0 and number == HUP)
