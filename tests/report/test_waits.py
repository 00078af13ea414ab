"""What held requests back: no second is lost, however long the run, and the log stays small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.report.charts.bound import binding
from engine.report.positions import PLACES, PositionLog
from engine.report.waits import BINS, WaitLog
from engine.vocabulary.values import Waits

HELD = st.one_of(st.just(0.0), st.floats(1e-6, 1e5))
WAITS = st.builds(Waits, window_s=HELD, requests_s=HELD, tokens_s=HELD, pause_s=HELD)


@given(st.lists(st.tuples(WAITS, st.floats(0.0, 1e4)), min_size=1, max_size=30))
def test_slices_hold_every_second_waited(waited: list[tuple[Waits, float]]) -> None:
    """By cause, in a bounded number of slices; and every request is counted once for each cause."""
    log, now = WaitLog(), 1_000.0
    for waits, between_s in waited:
        now += waits.window_s + waits.requests_s + waits.tokens_s + waits.pause_s + between_s
        log.add(waits, now)
    series = log.series(1_000.0)
    assert series is not None
    for cause, name in (("window_s", "window"), ("requests_s", "rpm"), ("tokens_s", "tpm"), ("pause_s", "pause")):
        total_s = sum(getattr(waits, cause) for waits, _ in waited)
        assert sum(series.by_cause[name]) == pytest.approx(total_s, rel=1e-6, abs=1e-4)
        assert len(series.by_cause[name]) == len(series.at_s) <= BINS
        assert sum(series.requests_by_cause[name]) + series.unheld[name] == len(waited)
    busiest = max(sum(column) for column in zip(*series.by_cause.values(), strict=True)) if series.at_s else 0.0
    assert busiest <= series.bin_s * (1 + 1e-6) + 1e-3  # requests wait one after the other


def test_a_wait_lies_in_the_slices_in_which_it_was_waited() -> None:
    """Not in the one in which it ended: what bound is shown when it bound."""
    log = WaitLog()
    log.add(Waits(), 10.0)
    log.add(Waits(window_s=2.0, tokens_s=1.0), 14.0)
    series = log.series(10.0)
    assert series is not None
    assert series.bin_s == 0.25
    assert series.by_cause["window"] == [0.0] * 4 + [0.25] * 8 + [0.0] * 4
    assert series.by_cause["tpm"] == [0.0] * 12 + [0.25] * 4
    assert binding(series) == [None] * 4 + ["window"] * 8 + ["tpm"] * 4
    assert series.at_s[-1] == pytest.approx(4.0)


def test_nothing_sent_is_no_series() -> None:
    """An empty run has no waits to show."""
    assert WaitLog().series(0.0) is None


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=300), max_size=20))
def test_places_hold_every_record_once(replies: list[list[bool]]) -> None:
    """Each record that was asked stands at one place of one class; so does each that was missed."""
    log = PositionLog()
    for reply in replies:
        log.add(reply)
    rows = log.rows()
    assert sum(sum(row.asked) for row in rows) == sum(map(len, replies))
    assert sum(sum(row.missed) for row in rows) == sum(reply.count(False) for reply in replies)
    for row in rows:
        assert len(row.asked) == len(row.missed) <= min(row.largest, PLACES)
        assert sum(row.asked) == sum(len(reply) for reply in replies if row.smallest <= len(reply) <= row.largest)
