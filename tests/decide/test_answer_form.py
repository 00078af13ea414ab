"""When requests ask for keyed answers: only by evidence that they hold in larger batches and pay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.decide.answer_form import AnswerForms
from engine.decide.size_worth import Allowed, Work, Worth

ALLOWED = Allowed(window=8.0)


def trial(forms: AnswerForms, *, slot_s: float = 4.0, cost: float = 1_000.0, requests: int = 4, size: int = 32) -> None:
    """So many requests in the keyed form that were answered."""
    for _ in range(requests):
        work = Work(origin=size, first=True, size=size, accepted=size, tokens=2_000.0, slot_s=slot_s, cost=cost)
        forms.observe_trial(work)


def compact(rate: float = 8.0, *, noise: float = 0.02) -> Worth:
    return Worth(rate=rate, binding="window", noise=noise)


def decide(forms: AnswerForms, *, keyed_size: int = 32, worth: Worth | None = None, compact_size: int = 2) -> bool:
    """Whether the form changed."""
    now = {"compact": worth or compact(), "allowed": ALLOWED, "now": 1.0}
    return forms.decide(compact_size=compact_size, keyed_size=keyed_size, **now) is not None


def test_what_holds_in_larger_batches_and_pays_is_taken() -> None:
    """32 keyed answers in 4 s of one of eight slots are 64 a second, against 8."""
    forms = AnswerForms(has_keyed=True)
    trial(forms)
    assert decide(forms)
    assert forms.form == "keyed"
    assert "keyed answers hold at B=32, compact ones at B=2 only" in forms.history[0].reason
    assert "8.0 x the valid records for the same window" in forms.sentence


def test_nothing_is_taken_before_its_labels_and_its_price_are_known() -> None:
    """Neither belief in the form nor a rate of one or two requests is enough."""
    forms = AnswerForms(has_keyed=True)
    assert not decide(forms)
    trial(forms, requests=2)
    assert not decide(forms)
    trial(forms, requests=2)
    assert not decide(forms, keyed_size=0)
    assert not decide(forms, keyed_size=2)
    assert not decide(forms, worth=compact(noise=1.0))
    assert forms.may_try
    assert decide(forms)


def test_what_does_not_pay_for_its_output_is_given_up_before_its_labels_are_known() -> None:
    """Where the output takes the time, a larger batch of longer answers is no gain, and no more is spent on it."""
    forms = AnswerForms(has_keyed=True)
    trial(forms, slot_s=60.0)
    assert not decide(forms, keyed_size=0)
    assert not forms.may_try
    assert "would not pay" in forms.sentence


def test_the_objective_decides_what_pays() -> None:
    """The same trial that loses time may save money."""
    forms = AnswerForms(has_keyed=True, objective="cost")
    trial(forms, slot_s=31.0, cost=32.0)
    assert decide(forms, worth=Worth(rate=0.5, binding="cost", noise=0.01))


def test_an_endpoint_that_ignores_the_form_is_not_asked_for_ever() -> None:
    """Two replies without any key are enough."""
    forms = AnswerForms(has_keyed=True)
    forms.observe_unkeyed()
    assert forms.may_try
    forms.observe_unkeyed()
    assert not forms.may_try
    assert "ignores the form" in forms.sentence


def test_it_goes_back_where_the_labels_stop_holding() -> None:
    """A model that changes: at no larger size than the compact form's, the keyed one has nothing to give."""
    forms = AnswerForms(has_keyed=True)
    trial(forms)
    assert decide(forms)
    assert not decide(forms, keyed_size=8)
    assert decide(forms, keyed_size=2)
    assert forms.form == "compact"
    assert not decide(forms)
    assert [move.form for move in forms.history] == ["keyed", "compact"]


@given(
    events=st.lists(
        st.one_of(
            st.just("unkeyed"), st.just("changes"),
            st.tuples(st.floats(0.01, 100), st.integers(0, 64), st.integers(1, 64), st.floats(0.01, 100)),
        ),
        max_size=40,
    ),
    has_keyed=st.booleans(),
)  # fmt: skip
def test_it_changes_at_most_twice_and_says_why(events: list[object], has_keyed: bool) -> None:
    """Whatever comes: keyed once at the most, and back; never a form that there is not."""
    forms = AnswerForms(has_keyed=has_keyed)
    for event in events:
        if event == "unkeyed":
            forms.observe_unkeyed()
        elif event == "changes":
            forms.observe_changes()
        elif isinstance(event, tuple):
            slot_s, keyed_size, compact_size, rate = event
            trial(forms, slot_s=slot_s, requests=1)
            decide(forms, keyed_size=keyed_size, compact_size=compact_size, worth=compact(rate))
    assert len(forms.history) <= (2 if has_keyed else 0)
    assert all(move.reason for move in forms.history)
    assert forms.form == (forms.history[-1].form if forms.history else "compact")


def test_one_endless_reply_is_no_reason_to_give_it_up() -> None:
    """While the gain is not clear more is asked, up to sixteen requests."""
    forms = AnswerForms(has_keyed=True)
    trial(forms, slot_s=28.0)
    assert not decide(forms)
    assert forms.may_try
    trial(forms, slot_s=31.0, requests=14)
    assert not decide(forms)
    assert not forms.may_try
