"""A record with one bad variable keeps the good ones: the first valid answer to each counts, and all must come."""

from __future__ import annotations

import json
import random
from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide.answers import read_answers
from engine.decide.neighbours_family import UNSAID, Asked, Family
from engine.decide.outputs import Partial, output_check
from engine.decide.recovery import completed, judge_fault, judge_reply
from engine.vocabulary.config import Recovery
from engine.vocabulary.task import Field, FieldType, Task
from engine.vocabulary.values import Batch, Completion, Fault, FaultKind, Item, Record

NAMES = ("topic", "tone", "length")
TASK = Task(instructions="x", fields={name: Field(type=FieldType.STRING) for name in NAMES})
CHECK = output_check(TASK)
PAIR = Task(instructions="x", fields={"topic": Field(labels=["sport", "art"]), "tone": Field(labels=["calm", "harsh"])})


def make_items(count: int) -> tuple[Item, ...]:
    return tuple(
        Item(
            record=Record(position=n, line=n + 1, id=n, key=str(n), input=f"text {n}", digest=bytes([n])),
            accepted_at_s=0.0,
        )
        for n in range(count)
    )


def make_completion(text: str, finish_reason: str = "stop") -> Completion:
    return Completion(text=text, finish_reason=finish_reason, refusal=None, usage=None)


def reply(results: list[tuple[str, Any]]) -> str:
    return json.dumps({"results": [{"id": id_, "output": output} for id_, output in results]})


def read_pair(*outputs: Any) -> Any:
    return read_answers(reply([("a-1", output) for output in outputs]), {"a-1": ""}, output_check(PAIR))


FATES = st.sampled_from(["valid", "valid", "invalid", "missing"])
RECORD_FATES = st.one_of(
    st.tuples(FATES, FATES, FATES), st.sampled_from(["no result", "null", "twice", "not an object"])
)


@given(st.integers(1, 8), st.integers(1, 4), st.data())
@settings(max_examples=200, deadline=None)
def test_an_output_holds_the_first_valid_value_of_each_variable_and_all_of_them(
    size: int, attempts: int, data: st.DataObject
) -> None:
    """For any replies: an accepted output has every variable, each the first valid value said of this very record; one
    that fails lacks one, and its error holds the others; and asking ends."""
    limits = Recovery(lone_attempts=attempts)
    todo = deque([Batch(items=make_items(size))])
    first: dict[int, dict[str, str]] = {n: {} for n in range(size)}
    ended: dict[int, Any] = {}
    calls = 0
    while todo:
        calls += 1
        batch = todo.popleft()
        ids = {f"k{calls}-{n}": item for n, item in enumerate(batch.items, start=1)}
        results: list[tuple[str, Any]] = []
        for id_, item in ids.items():
            number, fate = item.record.position, data.draw(RECORD_FATES)
            if isinstance(fate, str):
                results += {
                    "no result": [],
                    "null": [(id_, None)],
                    "not an object": [(id_, f"ask {calls}")],
                    "twice": [(id_, dict.fromkeys(NAMES, "one")), (id_, {"topic": "two"})],
                }[fate]
                continue
            said = {name: f"record {number}, {name}, ask {calls}" for name in NAMES}
            valid = {name: said[name] for name, each in zip(NAMES, fate, strict=True) if each == "valid"}
            wrong = {name: 7 for name, each in zip(NAMES, fate, strict=True) if each == "invalid"}
            results.append((id_, valid | wrong))
            first[number] = valid | first[number]
        results = data.draw(st.permutations(results))
        text = reply(results)
        reading = read_answers(text, dict.fromkeys(ids, ""), CHECK)
        verdict = judge_reply(batch, ids, reading, make_completion(text), limits)
        for answer in verdict.accepted:
            number = answer.item.record.position
            assert number not in ended
            assert answer.output == first[number]
            assert list(answer.output) == list(NAMES)
            ended[number] = True
        for failure in verdict.failed:
            number = failure.item.record.position
            assert number not in ended
            assert failure.error.valid == first[number]
            assert set(first[number]) < set(NAMES)
            assert all(value in failure.error.message for value in first[number].values())
            ended[number] = False
        assert bool(verdict.cause) == (len(verdict.accepted) < len(batch.items))
        todo.extend(verdict.children)
    assert sorted(ended) == list(range(size))
    assert calls <= size * (attempts + 1) + 2 * size


@given(
    st.lists(st.fixed_dictionaries({}, optional={name: st.sampled_from(["{", "}", "x", 7, None]) for name in NAMES}),
             min_size=1, max_size=5),
    st.data(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_cut_and_no_slip_gives_a_record_what_was_not_said_of_it(
    outputs: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Results in any order, with trailing commas or single quotes, fenced, cut at any character: whatever is kept or
    accepted of a record was said of it, and is valid."""
    ids = [f"k3f-{n}" for n in range(1, len(outputs) + 1)]
    said = dict(zip(ids, outputs, strict=True))
    parts = [json.dumps({"id": id_, "output": said[id_]}) for id_ in data.draw(st.permutations(ids))]
    slips = {
        "none": str,
        "comma": lambda part: part.replace("}}", ",},}"),
        "quotes": lambda part: part.replace('"', "'"),
    }
    text = f'{{"results":[{",".join(slips[data.draw(st.sampled_from(list(slips)))](part) for part in parts)}]}}'
    text = data.draw(st.sampled_from(["", "```json\n", "Sure: "])) + text
    reading = read_answers(text[: data.draw(st.integers(0, len(text)))], dict.fromkeys(ids, ""), CHECK)
    for id_, kept in [*reading.answers.items(), *((id_, part.valid) for id_, part in reading.partial.items())]:
        valid = {name: value for name, value in said[id_].items() if isinstance(value, str)}
        assert kept.items() <= valid.items()
        assert (id_ in reading.answers) == (kept.keys() == set(NAMES))


@given(st.permutations([("topic", "sport"), ("tone", "calm")]))
def test_a_whole_answer_does_not_change_what_was_kept(order: list[tuple[str, str]]) -> None:
    """The second reply answers all variables, one of them otherwise: the first valid value stands."""
    item = msgspec.structs.replace(make_items(1)[0], kept={"topic": "art"})
    reading = read_pair(dict(order))
    verdict = judge_reply(Batch(items=(item,)), {"a-1": item}, reading, make_completion("x"), Recovery())
    assert verdict.accepted[0].output == {"topic": "art", "tone": "calm"}


def test_completing_twice_is_completing_once() -> None:
    """A call completes a reading to count it, and the decision table does so again."""
    item = msgspec.structs.replace(make_items(1)[0], kept={"topic": "art"})
    once = completed({"a-1": item}, read_pair({"tone": "harsh"}))
    assert once.answers == {"a-1": {"topic": "art", "tone": "harsh"}}
    assert once.defects == {}
    assert completed({"a-1": item}, once) == once


@pytest.mark.parametrize(
    "outputs",
    [
        [{"topic": "sport", "tone": "x"}, {"topic": "art", "tone": "x"}],
        [{"topic": "sport", "tone": "x"}, {"topic": "sport", "tone": "calm"}],
        [{"topic": "sport"}, None],
        ["sport", {"topic": "sport"}],
    ],
)
def test_nothing_is_kept_of_a_record_that_was_answered_in_two_ways(outputs: list[Any]) -> None:
    """Which of two results is meant cannot be told, in any variable."""
    reading = read_pair(*outputs)
    assert not reading.answers
    assert not reading.partial
    assert "a-1" in reading.defects


def test_nothing_is_kept_where_a_key_stands_twice() -> None:
    """Which of its values is meant cannot be told, and the object is not to be trusted."""
    text = '{"results":[{"id":"a-1","output":{"topic":"sport","topic":"art","tone":"x"}}]}'
    reading = read_answers(text, {"a-1": ""}, output_check(PAIR))
    assert not reading.partial
    assert "twice" in reading.defects["a-1"]


def test_the_keyed_form_keeps_nothing_under_a_key_of_another_record() -> None:
    """What stands under the wrong key is another record's, valid or not."""
    text = '{"results":[{"id":"a-1","starts":"the other text","output":{"topic":"sport","tone":"x"}}]}'
    asked = {"a-1": "my own words here", "a-2": "the other text"}
    assert not read_answers(text, asked, output_check(PAIR), keyed=True).partial
    whole = read_answers(text.replace("the other text", "my own words here"), asked, output_check(PAIR), keyed=True)
    assert whole.partial["a-1"] == Partial(
        valid={"topic": "sport"}, wrong={"tone": "field 'tone': 'x' is not one of the labels"}, names=("topic", "tone")
    )


def test_the_same_partial_answer_twice_is_one() -> None:
    """As with whole answers."""
    assert read_pair({"topic": "sport"}, {"topic": "sport"}).partial["a-1"].valid == {"topic": "sport"}


def test_all_that_is_wrong_is_said() -> None:
    """Not only the first variable that is wrong."""
    assert read_pair({"topic": "x"}).defects["a-1"] == (
        "field 'topic': 'x' is not one of the labels; field 'tone' is missing"
    )


@pytest.mark.parametrize("kind", [FaultKind.TIMEOUT, FaultKind.CONTEXT, FaultKind.FILTERED])
def test_a_record_that_fails_in_transport_tells_what_was_kept_too(kind: FaultKind) -> None:
    """Whatever ends it."""
    item = msgspec.structs.replace(make_items(1)[0], kept={"topic": "art"}, lone_attempts=9)
    batch = Batch(items=(item,), transport_attempts=99)
    verdict = judge_fault(batch, Fault(kind=kind, message="no"), Recovery(), now=0.0, rng=random.Random(0))
    assert verdict.failed[0].error.valid == {"topic": "art"}
    assert '{"topic":"art"}' in verdict.failed[0].error.message


def test_a_variable_without_an_answer_changes_no_label() -> None:
    """A disturbed batch is compared with what its records say later: only where both say something."""
    first = {b"1": (("str", "art"), UNSAID), b"2": (UNSAID, ("str", "calm"))}
    asked = Asked(digests=[b"1", b"2"])
    same, other = (Family(asked, first, target=None, strengths=(1.0,), log_odds=0.0, changed=()) for _ in range(2))
    for digest in first:
        same.note_ended(digest, (("str", "art"), ("str", "calm")), id_="r", alone=True)
        other.note_ended(digest, (("str", "sport"), ("str", "harsh")), id_="r", alone=True)
    assert not same.has_changed(noise=0.0)
    assert other.has_changed(noise=0.0)
