"""Which refusals show a limit on a rate: not a lone one, and not such as come at a rate that cannot be the reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.rate_refusals import RateRefusals


def calm(refusals: RateRefusals, requests: int, *, one_in: int) -> None:
    """So many requests at a rate that was borne a moment ago, some of them refused all the same."""
    for number in range(requests):
        refusals.note_sent(calm=True)
        if number % one_in == 0:
            refusals.show_limit(paced=True, near=False, calm=True, measured=False)


@given(st.integers(1, 200))
def test_a_lone_refusal_shows_no_limit_that_nobody_knows_of(sent: int) -> None:
    """Not even of the only request; nor the first one after a cut. A second one may."""
    refusals = RateRefusals()
    for _ in range(2):
        for _ in range(sent):
            refusals.note_sent(calm=False)
        assert not refusals.show_limit(paced=False, near=False, calm=False, measured=False)
        second = refusals.show_limit(paced=False, near=False, calm=False, measured=False)
        assert second == (refusals.share >= 0.2)
        refusals.restart()
        assert refusals.share == 0.0


@given(st.integers(1, 40), st.booleans())
def test_one_refusal_is_enough_where_as_much_is_sent_as_a_limit_allows(sent: int, measured: bool) -> None:
    """That was computed before; or where so much was sent since the last cut that it can be computed now."""
    near, far = RateRefusals(), RateRefusals()
    for refusals in (near, far):
        for _ in range(sent):
            refusals.note_sent(calm=False)
    assert near.show_limit(paced=True, near=True, calm=False, measured=measured)
    assert far.show_limit(paced=True, near=False, calm=False, measured=measured) == measured


@pytest.mark.parametrize("one_in", [3, 10, 100])
def test_what_is_refused_at_calm_rates_is_known_as_a_share_of_the_last_thousand(one_in: int) -> None:
    """Not above what it is, and not a tenth below; and an endpoint that has ceased to refuse is believed by and by."""
    refusals = RateRefusals()
    assert refusals.usual == 0.0
    calm(refusals, 10_000, one_in=one_in)
    assert 0.9 / one_in <= refusals.usual <= 1.02 / one_in
    for _ in range(3_000):
        refusals.note_sent(calm=True)
    assert refusals.usual <= 0.1 / one_in


@pytest.mark.parametrize("one_in", [3, 10])
def test_where_refusals_come_at_any_rate_one_more_shows_no_limit(one_in: int) -> None:
    """A tenth beyond twice the usual does, or three tenths beyond it: an endpoint that refuses some for no reason hides
    no limit by that."""
    refusals = RateRefusals()
    calm(refusals, 3_000, one_in=one_in)
    refusals.restart()
    for number in range(200):
        refusals.note_sent(calm=False)
        if number % one_in == 0:
            assert not refusals.show_limit(paced=True, near=True, calm=False, measured=True)
    shown = []
    for _ in range(40):
        refusals.note_sent(calm=False)
        shown.append(refusals.show_limit(paced=True, near=True, calm=False, measured=True))
        assert shown[-1] == (refusals.share >= min(2 * refusals.usual + 0.1, refusals.usual + 0.3))
    assert shown[-1]


@given(st.lists(st.booleans(), max_size=60))
def test_calm_refusals_show_nothing_until_the_limit_can_be_computed(refused: list[bool]) -> None:
    """However many there are: the rate is not the reason."""
    refusals = RateRefusals()
    for is_refused in refused:
        refusals.note_sent(calm=True)
        if is_refused:
            assert not refusals.show_limit(paced=True, near=False, calm=True, measured=False)


@given(st.integers(1, 8), st.integers(1, 40))
def test_a_paced_rate_far_above_the_limit_is_cut_again(refused: int, sent: int) -> None:
    """Where half of what was sent since the cut is refused, and two at least: less may be of the time before it."""
    refusals = RateRefusals()
    for _ in range(sent):
        refusals.note_sent(calm=False)
    for count in range(1, refused + 1):
        shown = refusals.show_limit(paced=True, near=False, calm=False, measured=False)
        assert shown == (count >= 2 and refusals.share >= 0.5)


@given(share=st.floats(0, 1), requests=st.integers(0, 2_000), one_in=st.integers(1, 50))
def test_what_is_taken_for_usual_is_usual(share: float, requests: int, one_in: int) -> None:
    """And what was seen to be usual is not forgotten for a smaller share. Some of them are of a limit all the same, so
    no more than .35 is taken: with more, no share would show a limit ever again."""
    refusals = RateRefusals()
    calm(refusals, requests, one_in=one_in)
    before = refusals.usual
    refusals.take_for_usual(share)
    assert refusals.usual >= min(share, 0.35) * (1 - 1e-9)
    if requests >= 300:
        assert refusals.usual == pytest.approx(max(min(share, 0.35), before))


@given(share=st.floats(0.1, 1.0))
def test_what_is_not_seen_at_calm_rates_is_not_usual(share: float) -> None:
    """A limit that falls for a while and comes back looks like refusals at any rate. At rates that are calm again none
    comes: after six that were due it is no longer believed in."""
    refusals = RateRefusals()
    refusals.take_for_usual(share)
    for _ in range(math.ceil(12 / min(share, 0.35))):
        refusals.note_sent(calm=True)
    assert refusals.usual < 0.02


def test_what_goes_on_at_calm_rates_stays_usual() -> None:
    """As many refusals as are believed to be usual, one after the other or in clumps: the belief stands."""
    for clump in (1, 2, 5):
        refusals = RateRefusals()
        refusals.take_for_usual(0.2)
        for number in range(1_000):
            refusals.note_sent(calm=True)
            if number % (5 * clump) < clump:
                refusals.show_limit(paced=True, near=False, calm=True, measured=False)
        assert refusals.usual > 0.15


def test_what_was_usual_for_long_and_ends_is_soon_not_believed_in() -> None:
    """Each time the belief is held to account it is by what came since the last time."""
    refusals = RateRefusals()
    refusals.take_for_usual(0.2)
    calm(refusals, 1_000, one_in=5)
    assert refusals.usual > 0.15
    for _ in range(80):
        refusals.note_sent(calm=True)
    assert refusals.usual < 0.02


@given(st.lists(st.sampled_from(["sent", "refused"]), max_size=300))
def test_the_share_refused_is_a_share(events: list[str]) -> None:
    """Of the recent requests: from 0 to 1, also where more refusals come than were sent since a cut; and all where all
    are refused."""
    refusals = RateRefusals()
    for event in events:
        if event == "sent":
            refusals.note_sent(calm=False)
        else:
            refusals.show_limit(paced=False, near=False, calm=False, measured=False)
        assert 0.0 <= refusals.share <= 1.0
    refusals.restart()
    for _ in range(5):
        refusals.show_limit(paced=False, near=False, calm=False, measured=False)
        assert refusals.share == 1.0
    for _ in range(400):
        refusals.note_sent(calm=False)
    assert refusals.share < 0.01
