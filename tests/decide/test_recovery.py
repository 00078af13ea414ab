"""The decision table: every record ends once, the guilty pay, and no more calls than promised are made."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide.answers import Reading, read_answers
from engine.decide.recovery import FATAL, TRANSIENT, Verdict, backoff_s, halves, judge_fault, judge_reply
from engine.vocabulary.config import Recovery
from engine.vocabulary.values import Batch, Completion, Fault, FaultKind, Item, Record

LIMITS = Recovery()


def make_items(count: int) -> tuple[Item, ...]:
    records = [
        Record(position=n, line=n + 1, id=n, key=str(n), input=f"text {n}", digest=bytes([n])) for n in range(count)
    ]
    return tuple(Item(record=record, accepted_at_s=0.0) for record in records)


def make_completion(text: str = "", finish_reason: str = "stop", refusal: str | None = None) -> Completion:
    return Completion(text=text, finish_reason=finish_reason, refusal=refusal, usage=None)


def make_fault(kind: FaultKind, **changes: Any) -> Fault:
    return Fault(**({"kind": kind, "message": "no"} | changes))


def ids_of(batch: Batch) -> dict[str, Item]:
    return {f"abc-{number}": item for number, item in enumerate(batch.items, start=1)}


def positions(items: Iterable[Item]) -> list[int]:
    return [item.record.position for item in items]


def accounted(verdict: Verdict) -> Counter[int]:
    ended = [answer.item for answer in verdict.accepted] + [failure.item for failure in verdict.failed]
    return Counter(positions([*ended, *(item for child in verdict.children for item in child.items)]))


# --- every record in exactly one place


@given(
    st.integers(1, 20), st.data(), st.sampled_from(["stop", "length", "content_filter", ""]),
    st.sampled_from([None, "", "I can't"]), st.integers(1, 5), st.integers(0, 6),
)  # fmt: skip
@settings(max_examples=300)
def test_every_record_of_a_reply_is_accepted_failed_or_asked_again(
    size: int, data: st.DataObject, finish_reason: str, refusal: str | None, attempts: int, tried: int
) -> None:
    """For any reading: none lost, none twice; what was answered is accepted with its own output, the rest is not."""
    items = tuple(msgspec.structs.replace(item, lone_attempts=tried) for item in make_items(size))
    batch = Batch(items=items, transport_attempts=2, output_scale=4.0)
    ids = ids_of(batch)
    fates = {id_: data.draw(st.sampled_from(["answer", "defect", "nothing"])) for id_ in ids}
    answers = {id_: f"output of {id_}" for id_, fate in fates.items() if fate == "answer"}
    defects = {id_: "wrong" for id_, fate in fates.items() if fate == "defect"}
    reading = Reading(answers=answers, defects=defects, foreign=1, found=len(answers) + len(defects))
    completion = make_completion("raw", finish_reason, refusal)
    verdict = judge_reply(batch, ids, reading, completion, Recovery(lone_attempts=attempts))
    assert accounted(verdict) == Counter(range(size))
    assert {answer.item.record.position: answer.output for answer in verdict.accepted} == {
        ids[id_].record.position: output for id_, output in answers.items()
    }
    assert bool(verdict.cause) == (len(answers) < size)
    assert not verdict.failed or (size == 1 and tried + 1 >= attempts)
    assert all(len(child.items) < size or size == 1 for child in verdict.children)
    assert all(child.transport_attempts == 0 for child in verdict.children)


@given(st.integers(1, 20), st.sampled_from(FaultKind), st.integers(0, 10), st.integers(1, 8), st.integers(0, 2**32))
def test_every_record_of_a_fault_is_failed_or_asked_again(
    size: int, kind: FaultKind, sends: int, most: int, seed: int
) -> None:
    """A call that brought no reply accepts nothing, loses nothing, and never fails a record that had company."""
    batch = Batch(items=make_items(size), transport_attempts=sends)
    limits = Recovery(transport_attempts=most, lone_attempts=1)
    verdict = judge_fault(batch, make_fault(kind), limits, now=100.0, rng=random.Random(seed))
    assert accounted(verdict) == Counter(range(size))
    assert verdict.accepted == ()
    assert verdict.cause == kind
    assert not verdict.failed or size == 1
    assert verdict.fatal == (kind in FATAL)


@given(st.integers(1, 64))
def test_halves_keep_order_and_shrink(size: int) -> None:
    """Two parts that differ by one at the most; one part for a single item."""
    parts = [positions(half.items) for half in halves(make_items(size))]
    assert [position for part in parts for position in part] == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts) == min(2, size)


# --- the bound


def drop(batch: Batch, poison: set[int], rng: random.Random) -> tuple[str, str]:
    """The poison records get no result."""
    return results(item for item in ids_of(batch).items() if item[1].record.position not in poison), "stop"


def spoil(batch: Batch, poison: set[int], rng: random.Random) -> tuple[str, str]:
    """A poison record breaks the whole reply."""
    hit = poison & set(positions(batch.items))
    return ("I am sorry, {", "stop") if hit else (results(ids_of(batch).items()), "stop")


def halt(batch: Batch, poison: set[int], rng: random.Random) -> tuple[str, str]:
    """The model stops at the first poison record, and says that it is done."""
    return results(before_poison(batch, poison)), "stop"


def run_on(batch: Batch, poison: set[int], rng: random.Random) -> tuple[str, str]:
    """A poison record makes the model talk until its limit."""
    kept = before_poison(batch, poison)
    if len(kept) == len(batch.items):
        return results(kept), "stop"
    return results(kept)[:-2] + ',{"id":"abc-99","output":"and on and on', "length"


def scatter(batch: Batch, poison: set[int], rng: random.Random) -> tuple[str, str]:
    """With poison in it, a random part of the batch is answered, in random order."""
    pairs = list(ids_of(batch).items())
    if not poison & set(positions(batch.items)):
        return results(pairs), "stop"
    kept = [pair for pair in pairs if pair[1].record.position not in poison]
    return results(rng.sample(kept, rng.randint(0, len(kept)))), "stop"


def before_poison(batch: Batch, poison: set[int]) -> list[tuple[str, Item]]:
    kept: list[tuple[str, Item]] = []
    for id_, item in ids_of(batch).items():
        if item.record.position in poison:
            break
        kept.append((id_, item))
    return kept


def results(pairs: Iterable[tuple[str, Item]]) -> str:
    return json.dumps({"results": [{"id": id_, "output": f"of {item.record.position}"} for id_, item in pairs]})


@pytest.mark.parametrize("server", [drop, spoil, halt, run_on, scatter])
@given(st.integers(1, 64), st.data(), st.integers(1, 5), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_poison_records_cost_no_more_than_promised(
    server: Any, size: int, data: st.DataObject, attempts: int, seed: int
) -> None:
    """k poison records in a batch of B cost at most ``k * (2 * ceil(log2 B) + attempts - 1)`` extra calls.

    Whatever they do to the replies that they are in; and they alone fail, each with its reason.
    """
    poison = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=min(size, 12)))
    limits, rng = Recovery(lone_attempts=attempts), random.Random(seed)
    waiting = deque([Batch(items=make_items(size))])
    calls, outputs, failed = 0, {}, {}
    while waiting:
        batch = waiting.popleft()
        calls += 1
        text, finish_reason = server(batch, poison, rng)
        ids = ids_of(batch)
        reading = read_answers(text, dict.fromkeys(ids, ""), lambda value: value)
        verdict = judge_reply(batch, ids, reading, make_completion(text, finish_reason), limits)
        outputs |= {answer.item.record.position: answer.output for answer in verdict.accepted}
        failed |= {failure.item.record.position: failure.error for failure in verdict.failed}
        waiting.extend(verdict.children)
    assert calls - 1 <= len(poison) * (2 * math.ceil(math.log2(size)) + attempts - 1)
    assert outputs == {position: f"of {position}" for position in range(size) if position not in poison}
    assert set(failed) == poison
    assert all(f"asked alone {attempts} times" in error.message for error in failed.values())


# --- the rows of the table


def judged(answered: int, size: int = 10, **completion: Any) -> Verdict:
    batch = Batch(items=make_items(size))
    answers = dict.fromkeys(list(ids_of(batch))[:answered], "x")
    reading = Reading(answers=answers, defects={}, foreign=0, found=answered)
    return judge_reply(batch, ids_of(batch), reading, make_completion(**completion), LIMITS)


@pytest.mark.parametrize(
    ("answered", "completion", "children", "cause"),
    [
        (10, {}, [], ""),
        (9, {}, [1], "missing"),
        (5, {}, [5], "missing"),
        (4, {}, [3, 3], "missing"),
        (0, {}, [5, 5], "no-json"),
        (6, {"finish_reason": "length"}, [2, 2], "cut-off"),
        (0, {"finish_reason": "length"}, [5, 5], "cut-off"),
        (0, {"refusal": "I can't"}, [5, 5], "refused"),
    ],
)
def test_the_table_of_replies(answered: int, completion: dict[str, Any], children: list[int], cause: str) -> None:
    """All answered: accept. Some: ask the rest again, in halves if that is most. None, cut or refused: halve."""
    verdict = judged(answered, **completion)
    assert [len(child.items) for child in verdict.children] == children
    assert (verdict.cause, verdict.split) == (cause, len(children) > 1)


def test_a_lone_record_that_is_cut_gets_more_room_each_time() -> None:
    """The output room doubles, so that an answer that is merely long comes through; then it fails with its words."""
    batch = Batch(items=make_items(1))
    reading = Reading(answers={}, defects={}, foreign=0, found=0)
    scales = []
    for _ in range(LIMITS.lone_attempts):
        scales.append(batch.output_scale)
        completion = make_completion("a long story", "length")
        verdict = judge_reply(batch, ids_of(batch), reading, completion, LIMITS)
        batch = verdict.children[0] if verdict.children else batch
    assert scales == [1.0, 2.0, 4.0]
    assert verdict.failed[0].error.kind == "cut-off"
    assert "'a long story'" in verdict.failed[0].error.message


def driven(batch: Batch, fault: Fault, limits: Recovery) -> tuple[int, list[Any]]:
    """Sends until nothing is left, every send meeting `fault`; the number of sends and the failures."""
    waiting, sends, failures = deque([batch]), 0, []
    while waiting:
        sends += 1
        assert sends < 10_000
        verdict = judge_fault(waiting.popleft(), fault, limits, now=0.0, rng=random.Random(0))
        waiting.extend(verdict.children)
        failures += verdict.failed
    return sends, failures


@given(st.integers(1, 64), st.sampled_from(sorted(TRANSIENT)), st.integers(1, 8))
@settings(max_examples=60)
def test_a_batch_whose_sends_all_fail_ends(size: int, kind: FaultKind, most: int) -> None:
    """Bounded: the budget of the batch, then two sends for each part; every record fails and none asked in vain."""
    sends, failures = driven(
        Batch(items=make_items(size)), make_fault(kind, status=503), Recovery(transport_attempts=most)
    )
    assert sorted(positions(failure.item for failure in failures)) == list(range(size))
    assert sends <= most + 2 * (2 * size - 2)
    assert all(failure.item.lone_attempts == 0 for failure in failures)
    assert all("HTTP 503: no" in failure.error.message for failure in failures)


@pytest.mark.parametrize("kind", [FaultKind.CONTEXT, FaultKind.FILTERED, FaultKind.REJECTED])
def test_refused_content_is_halved_down_to_the_guilty_record(kind: FaultKind) -> None:
    """A 4xx about the content splits; alone, what is too long fails at once and the others after their attempts."""
    attempts = 1 if kind is FaultKind.CONTEXT else LIMITS.lone_attempts
    sends, failures = driven(Batch(items=make_items(8)), make_fault(kind), LIMITS)
    assert sends == 7 + 8 * attempts
    assert {failure.error.kind for failure in failures} == {kind}


@given(st.sampled_from(sorted(TRANSIENT)), st.integers(0, 4), st.integers(0, 2**32))
def test_transport_faults_leave_lone_attempts_alone(kind: FaultKind, sends: int, seed: int) -> None:
    """A lone record that meets a server error has not been asked, as far as its content is concerned."""
    batch = Batch(items=make_items(1), transport_attempts=sends, output_scale=4.0)
    (again,) = judge_fault(batch, make_fault(kind), LIMITS, now=5.0, rng=random.Random(seed)).children
    assert again.items == batch.items
    assert (again.transport_attempts, again.output_scale) == (sends + 1, 4.0)
    assert 5.0 <= again.not_before_s <= 5.0 + LIMITS.backoff_cap_s


def test_a_rate_limit_never_fails_a_record() -> None:
    """However often: the same batch again, everybody pauses, and no budget is used up."""
    batch = Batch(items=make_items(3), transport_attempts=5)
    for _ in range(1_000):
        verdict = judge_fault(batch, make_fault(FaultKind.RATE_LIMIT), LIMITS, now=0.0, rng=random.Random(1))
        (batch,) = verdict.children
        assert 0 < verdict.pause_s <= LIMITS.backoff_cap_s
    assert positions(batch.items) == [0, 1, 2]
    assert batch.transport_attempts == 5


def test_a_pause_is_as_long_as_the_endpoint_asks_and_never_nothing() -> None:
    """Retry-After is obeyed; one of 0 seconds falls back on back-off, or the loop would be as fast as the network."""
    batch, rng = Batch(items=make_items(1)), random.Random(1)
    asked = judge_fault(batch, make_fault(FaultKind.RATE_LIMIT, retry_after_s=17.0), LIMITS, now=0.0, rng=rng)
    zero = judge_fault(batch, make_fault(FaultKind.RATE_LIMIT, retry_after_s=0.0), LIMITS, now=0.0, rng=rng)
    assert asked.pause_s == 17.0
    assert zero.pause_s > 0
    (later,) = judge_fault(batch, make_fault(FaultKind.SERVER, retry_after_s=60.0), LIMITS, now=1.0, rng=rng).children
    assert later.not_before_s == 61.0


@pytest.mark.parametrize("kind", sorted(FATAL))
def test_a_fatal_fault_keeps_the_batch(kind: FaultKind) -> None:
    """The run ends and nothing is failed: with the key or the quota mended, the same records are asked again."""
    batch = Batch(items=make_items(4))
    verdict = judge_fault(batch, make_fault(kind), LIMITS, now=0.0, rng=random.Random(0))
    assert (verdict.children, verdict.failed, verdict.fatal) == ((batch,), (), True)


@given(st.integers(0, 2_000), st.floats(0, 100), st.floats(0, 100), st.integers(0, 2**32))
def test_backoff_is_between_nothing_and_its_cap(attempts: int, base: float, cap: float, seed: int) -> None:
    """Full jitter: never negative, never above the cap or the doubling base, for any number of attempts."""
    wait = backoff_s(attempts, Recovery(backoff_base_s=base, backoff_cap_s=cap), random.Random(seed))
    assert 0 <= wait <= cap
    assert wait <= base * 2.0 ** min(attempts, 30)


def test_halves_of_a_batch_whose_sends_failed_have_two_sends_each_at_the_least() -> None:
    """Also where fewer are allowed altogether; and the verdict says that it split, for the counters."""
    for allowed in (1, 2, 5):
        limits = Recovery(transport_attempts=allowed)
        batch = Batch(items=make_items(4), transport_attempts=allowed)
        verdict = judge_fault(batch, make_fault(FaultKind.SERVER), limits, now=0.0, rng=random.Random(0))
        assert verdict.split
        assert [child.transport_attempts for child in verdict.children] == [max(0, allowed - 2)] * 2


@pytest.mark.parametrize(
    ("completion", "words"),
    [
        (make_completion(refusal="I can't"), "refused"),
        (make_completion(finish_reason="length"), "cut off"),
        (make_completion("no json"), "no result in the format"),
    ],
)
def test_a_record_without_an_answer_keeps_what_was_wrong(completion: Completion, words: str) -> None:
    """The reason of a failure names the last defect, whatever kind it was."""
    batch = Batch(items=make_items(2))
    reading = Reading(answers={}, defects={}, foreign=0, found=0)
    verdict = judge_reply(batch, ids_of(batch), reading, completion, LIMITS)
    defects = [item.last_defect for child in verdict.children for item in child.items]
    assert len(defects) == 2
    assert all(words in defect for defect in defects)


def test_the_verdict_says_what_was_done_for_the_counters() -> None:
    """A batch sent again after a 429 is a retry; one record that is left over is no split."""
    batch, rng = Batch(items=make_items(4)), random.Random(0)
    assert judge_fault(batch, make_fault(FaultKind.RATE_LIMIT), LIMITS, now=0.0, rng=rng).retry
    assert not judged(9, finish_reason="length").split
    assert judged(8, finish_reason="length").split
