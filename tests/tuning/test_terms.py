"""What asking takes, expected and learned."""

from __future__ import annotations

from typing import Any

import pytest

from engine.adapters.measured_calls import MeasuredCall
from engine.decide.forecast import Terms
from engine.decide.prompts import make_prompt
from engine.tuning.terms import UNKNOWN_RATIO, expected_terms, in_flight, learned_terms, with_reasoning
from engine.vocabulary.task import Example, Field, FieldType, Task
from support import make_task

TERMS = Terms(static_tokens=100, output_call=4.0, output_record=10.0)


def call(size: int, *, latency_s: float = 1.0, at: float = 0.0, output: int = 0, **changes: Any) -> MeasuredCall:
    digests = frozenset(f"{at}-{number}".encode() for number in range(size))
    values: dict[str, Any] = {
        "size": size, "input_tokens": 120 + 24 * size, "output_tokens": output or 5 + 8 * size, "sent_at": at,
        "latency_s": latency_s, "digests": digests,
    }  # fmt: skip
    return MeasuredCall(**(values | changes))


def found_of(calls: list[MeasuredCall]) -> dict[bytes, int]:
    return {digest: 20 for each in calls for digest in each.digests}


def test_a_foreign_tokenizer_is_allowed_for() -> None:
    """Where the model's tokens are ours, nothing is added."""
    task = make_task()
    theirs, ours = (expected_terms(task, make_prompt(task), len, exact=exact) for exact in (False, True))
    assert (theirs.input_ratio, ours.input_ratio) == (UNKNOWN_RATIO, 1.0)
    assert theirs.output_record == pytest.approx(UNKNOWN_RATIO * ours.output_record)


def test_results_are_as_long_as_labels_are() -> None:
    """Longer labels, several variables, the keyed form: each makes a result longer; labels differ, so it deviates."""
    short = make_task()

    def record_of(task: Task, form: Any = "compact") -> float:
        return expected_terms(task, make_prompt(task, form), len, exact=True).output_record

    assert record_of(make_task(labels=["a colour that is red", "green", "blue"])) > record_of(short)
    assert record_of(short, "keyed") > record_of(short) + 20
    fields = {"mood": Field(type=FieldType.LABEL, labels=["good", "bad"]), "note": Field(type=FieldType.STRING)}
    assert record_of(Task(instructions="Say.", fields=fields)) > record_of(short) + 60
    written = [Example(input="x", output={"mood": "good", "note": "n" * 400})]
    assert record_of(Task(instructions="Say.", fields=fields, examples=written)) > 400
    assert expected_terms(short, make_prompt(short), len, exact=True).output_deviation > 0


def test_the_ratio_is_learned_from_records_that_are_known() -> None:
    """1.2 tokens for one of ours, from calls whose records this corpus has; others say nothing of it."""
    calls = [call(size, at=float(size)) for size in (1, 5, 10, 10, 2)]
    terms, learned = learned_terms(TERMS, calls, found_of(calls))
    assert terms.input_ratio == pytest.approx(1.2)
    assert learned is not None
    assert (learned.calls, learned.matched, learned.sizes) == (5, 5, (1, 10))
    unknown, without = learned_terms(TERMS, calls, {})
    assert unknown.input_ratio == TERMS.input_ratio
    assert without is not None
    assert without.matched == 0


def test_reasoning_is_a_line_of_its_own() -> None:
    """300 tokens a request and 20 a record, apart from the answers; where all calls are alike, as others say."""
    calls = [call(size, output=5 + 8 * size + 300 + 20 * size, reasoning_tokens=300 + 20 * size) for size in (1, 4, 8)]
    terms, _ = learned_terms(TERMS, calls, {})
    assert (terms.output_call, terms.output_record) == (pytest.approx(5), pytest.approx(8))
    assert (terms.reasoning_call, terms.reasoning_record) == (pytest.approx(300), pytest.approx(20))
    assert terms.reasoning_scatter == pytest.approx((8 * 0.5**2 / 11) ** 0.5)  # as a run believes it after three calls
    alike, _ = learned_terms(TERMS, [call(10, output=985, reasoning_tokens=900)] * 4, {})
    assert (alike.reasoning_call, alike.reasoning_record) == (pytest.approx(300), pytest.approx(60))
    without, _ = learned_terms(TERMS, [call(10)] * 4, {})
    assert (without.reasoning_call, without.reasoning_record) == (0.0, 0.0)


def test_output_and_latency_are_lines_over_the_size() -> None:
    """5 tokens a call and 8 a result; half a second and a tenth a record."""
    calls = [call(size, latency_s=0.5 + 0.1 * size) for size in (1, 4, 8, 20)]
    terms, _ = learned_terms(TERMS, calls, {})
    assert (terms.output_call, terms.output_record) == (pytest.approx(5), pytest.approx(8))
    assert terms.output_deviation == pytest.approx(0, abs=1e-9)
    assert terms.latency is not None
    assert terms.latency.of(10) == pytest.approx(1.5)


def test_one_size_alone_teaches_the_record() -> None:
    """Where all calls are alike, what a reply takes besides stays as it was expected."""
    terms, _ = learned_terms(TERMS, [call(10, output=104)] * 4, {})
    assert (terms.output_call, terms.output_record) == (4.0, 10.0)
    assert terms.latency is not None
    assert terms.latency.of(10) == pytest.approx(1.0)
    assert terms.latency.base_s == pytest.approx((40 + 4) / (40 + 104))  # 40 tokens' worth, and the reply's frame


def test_time_goes_by_the_tokens_that_are_put_out() -> None:
    """Calls of one size think for longer and shorter: that says what a token takes, and so what other sizes will."""
    calls = [
        call(10, output=85 + thought, reasoning_tokens=thought, latency_s=0.4 + 0.01 * (85 + thought))
        for thought in (200, 400, 600, 800, 500, 500)
    ]
    terms, _ = learned_terms(TERMS, calls, {})
    assert terms.latency is not None
    assert terms.latency.token_s == pytest.approx(0.01, rel=0.02)
    assert terms.latency.of(10) == pytest.approx(0.4 + 0.01 * 585, rel=0.02)
    double = with_reasoning(terms, call=2 * terms.reasoning_call, record=2 * terms.reasoning_record)
    assert double.latency is not None
    assert double.latency.of(10) == pytest.approx(0.4 + 0.01 * 1_085, rel=0.02)


def test_one_lone_call_does_not_say_what_a_request_thinks() -> None:
    """A run begins with one lone record: whatever that one thought, the batches' line stays near what is believed."""
    for thought in (100, 800):
        lone = call(1, output=13 + thought, reasoning_tokens=thought)
        batches = [
            call(10, output=85 + each, reasoning_tokens=each, at=float(number))
            for number, each in enumerate([350, 900, 500, 600, 450, 700, 800, 500] * 2)
        ]
        terms, _ = learned_terms(TERMS, [lone, *batches], {})
        assert terms.reasoning_call + 10 * terms.reasoning_record == pytest.approx(600, rel=0.1)
        # A line through both would have 0 a record for the one, and 45 a request for the other.
        assert terms.reasoning_record > 10
        assert terms.reasoning_call > 120


def test_two_calls_teach_nothing() -> None:
    """Too few to tell."""
    assert learned_terms(TERMS, [call(10)] * 2, {}) == (TERMS, None)


def test_requests_at_once_are_counted_where_the_run_was_long_enough() -> None:
    """Three at a time, of 60; of 20 the run was still on its way up, and so it was where they became more."""
    calls = [call(1, at=float(number // 3), latency_s=0.9) for number in range(60)]
    assert in_flight(calls) == 3
    assert in_flight(calls[:20]) is None
    more = [call(1, at=number**0.5, latency_s=0.9) for number in range(100)]
    assert in_flight(more) is None


def test_requests_at_once_are_no_bound_where_the_limits_were() -> None:
    """Three a second at once, and no more than that are allowed: how many it would bear nobody has seen."""
    calls = [call(1, at=float(number // 3), latency_s=0.9) for number in range(60)]
    assert in_flight(calls, every_s=1 / 3) is None
    assert in_flight(calls, every_s=1 / 9) == 3
