"""What was sent to an unknown limit: the log knows how far back it goes, and no rate is taken over a longer time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.rate import DiscoveredRate
from engine.decide.sent_log import SentLog

gaps_s = st.lists(st.floats(0.0, 60.0), min_size=1, max_size=80)


@given(gaps_s)
def test_since_then_the_log_is_complete(gaps: list[float]) -> None:
    """Whatever the times: since `complete_since_s` nothing is missing, and that is three minutes back."""
    log, now, times = SentLog(), 1_000.0, []
    for gap_s in gaps:
        now += gap_s
        times.append(now)
        log.add(now, 1)
    since_s = log.complete_since_s
    assert since_s == pytest.approx(now - 180.0)
    assert log.between(since_s, now)[0] == sum(since_s < at_s for at_s in times)


class _Bucket:
    """An endpoint with a limit of requests a minute, five seconds of which may come at once."""

    def __init__(self, per_minute: float) -> None:
        self._per_s, self._most = per_minute / 60, per_minute / 12
        self._level, self._at_s = self._most, 0.0

    def takes(self, now: float) -> bool:
        self._level = min(self._most, self._level + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


def admitted(rate: DiscoveredRate, bucket: _Bucket, now: float, until_s: float, *, lies: int = 0) -> tuple[float, int]:
    """Send as fast as the rate allows; when it ended, and how many were let in.

    :param lies: every so many requests are refused although they are within the limit; 0 for none.
    """
    let_in = sent = 0
    while now < until_s:
        now += max(rate.delay_s(now, 1), 1e-6)
        ticket = rate.spend(now, 1)
        sent += 1
        now += 0.05
        if not bucket.takes(now) or (lies and sent % lies == 0):
            rate.observe_rate_limited(ticket, now, dimension="requests")
            now += 1.0
        else:
            let_in += 1
            rate.observe_accepted(ticket, now)
    return now, let_in


@pytest.mark.parametrize("per_minute", [20.0, 40.0, 90.0])
def test_a_limit_is_found_again_after_refusals_without_a_reason(per_minute: float) -> None:
    """Five bad minutes, in which the endpoint says 429 below its limit, are not held against it for hours.

    The time between two cuts is longer than the log then: an amount of three minutes over five gave a limit of less
    than half, and over hours one of nothing.
    """
    rate, bucket = DiscoveredRate(), _Bucket(per_minute)
    now, _ = admitted(rate, bucket, 0.0, 1_200.0)
    now, _ = admitted(rate, bucket, now, now + 300.0, lies=6)
    now, _ = admitted(rate, bucket, now, now + 1_500.0)
    _, let_in = admitted(rate, bucket, now, now + 900.0)
    assert let_in > 0.8 * 15 * per_minute


def test_a_time_without_anything_let_in_is_not_set_against_hours_before() -> None:
    """After two hours the endpoint refuses all for half a minute: what is believed then is about the last minutes."""
    rate, bucket = DiscoveredRate(), _Bucket(40.0)
    now, _ = admitted(rate, bucket, 0.0, 7_200.0)
    now, _ = admitted(rate, bucket, now, now + 30.0, lies=1)
    now, _ = admitted(rate, bucket, now, now + 30.0)
    assert (rate.believed("requests") or 0.0) > 0.4 * 40.0
    assert any("nothing was let in" in move.reason for move in rate.history)
