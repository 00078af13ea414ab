"""Which records of the first model go to a second one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.escalation import failures_for_second, goes_on
from engine.vocabulary.values import RecordError, Result

SAME = failures_for_second(first_most_tokens=16_000, second_most_tokens=16_000)
KINDS = st.sampled_from([
    "invalid-output", "missing", "no-json", "cut-off", "refused", "filtered", "rejected", "overthought", "too-long",
    "context", "server", "timeout", "transport", "bad-reply", "bad-record",
])  # fmt: skip


@given(
    kind=st.none() | KINDS,
    confidence=st.none() | st.floats(0, 1),
    below=st.none() | st.floats(0, 1, exclude_min=True),
)
def test_an_answer_goes_on_by_its_confidence_and_a_failure_by_its_kind(
    kind: str | None, confidence: float | None, below: float | None
) -> None:
    """Neither says anything of the other; an unknown confidence never does."""
    error = None if kind is None else RecordError(kind=kind, message="")
    result = Result(id=1, output=None if error else "x", error=error, confidence=confidence)
    expected = kind in SAME if kind else below is not None and confidence is not None and confidence < below
    assert goes_on(result, below=below, failures=SAME) is expected
    assert not (error and goes_on(result, below=below, failures=frozenset()))


@pytest.mark.parametrize("kind", ["server", "timeout", "transport", "bad-reply", "rate-limit", "bad-record", "auth"])
def test_what_is_not_the_model_s_doing_stays(kind: str) -> None:
    """Another model would meet the same, or nothing could be asked at all."""
    assert kind not in failures_for_second(first_most_tokens=1, second_most_tokens=1_000_000)


@pytest.mark.parametrize(("second", "goes"), [(4_000, False), (16_000, False), (16_001, True)])
def test_too_long_goes_only_to_a_model_that_is_known_to_take_more(second: int, goes: bool) -> None:
    """And so does what the first endpoint said was too long for its context."""
    kinds = failures_for_second(first_most_tokens=16_000, second_most_tokens=second)
    assert ("too-long" in kinds, "context" in kinds) == (goes, goes)
