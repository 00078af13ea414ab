"""The first request goes alone only where a cache is known of, and nobody waits for it for long."""

from __future__ import annotations

import pytest

from engine.decide.warmup import FEW, LEAST_TOKENS, MOST_S, WarmUp, why_warm
from engine.vocabulary.config import Prices, RunConfig

CHEAP = Prices(input=1.0, output=4.0, cached_input=0.1)
PLAIN = Prices(input=1.0, output=4.0)
SAME = Prices(input=1.0, output=4.0, cached_input=1.0)


@pytest.mark.parametrize(
    ("config", "static", "has_read", "live", "warms"),
    [
        (RunConfig(prices=CHEAP), LEAST_TOKENS, False, False, True),
        (RunConfig(prices=CHEAP), LEAST_TOKENS - 1, True, False, False),  # too short for any cache
        (RunConfig(prices=CHEAP), 9_000, False, True, False),  # somebody waits
        (RunConfig(prices=PLAIN), 9_000, False, False, False),  # nobody has said that there is one
        (RunConfig(prices=SAME), 9_000, False, False, False),
        (RunConfig(prices=PLAIN), 9_000, True, False, True),  # earlier runs were told of cached tokens
        (RunConfig(), 9_000, False, False, False),
        (RunConfig(warm_prefix=True), 10, False, False, True),
        (RunConfig(prices=CHEAP, warm_prefix=False), 9_000, True, False, False),
    ],
)
def test_it_warms_where_a_cache_is_known_of(
    config: RunConfig, static: int, has_read: bool, live: bool, warms: bool
) -> None:
    """A price of cached input, earlier replies that told of it, or the user's word."""
    assert bool(why_warm(config, static_tokens=static, has_read_cache=has_read, live=live)) is warms


def test_few_go_until_a_reply_has_read_from_the_cache() -> None:
    """The first alone, then two at once, then as many as else."""
    warm = WarmUp("asked for")
    assert warm.most(5.0) is None
    warm.note_sent(10.0, records=None)
    assert (warm.most(10.5), warm.until_s(10.5)) == (1, 10.0 + MOST_S)
    warm.note_ended(11.0, is_warm=False)
    assert warm.most(11.0) == FEW
    warm.note_sent(11.0, records=None)
    warm.note_ended(12.0, is_warm=True)
    assert (warm.most(12.0), warm.until_s(12.0)) == (None, None)
    assert warm.waited_s == 2.0
    warm.note_sent(12.0, records=None)
    assert warm.most(12.5) is None


@pytest.mark.parametrize("ended", [[], [11.0], [11.0, 14.0, 15.5]])
def test_a_cache_that_never_tells_holds_nobody_up_for_long(ended: list[float]) -> None:
    """Whether replies come that read nothing, or none at all."""
    warm = WarmUp("asked for")
    warm.note_sent(10.0, records=None)
    for at in ended:
        warm.note_ended(at, is_warm=False)
    assert warm.most(10.0 + MOST_S) is None
    assert warm.waited_s == MOST_S


@pytest.mark.parametrize("why", ["", "asked for"])
def test_a_run_of_few_records_waits_for_nothing(why: str) -> None:
    """What few requests might save is not worth the time of a reply; without a reason nothing waits at all."""
    warm = WarmUp(why)
    warm.note_sent(10.0, records=None if not why else 199)
    assert warm.most(10.1) is None
    assert warm.waited_s == 0.0
    assert warm.why == ""
