"""The words that are sent: a static part that never changes, and one line of JSON with whatever the inputs hold."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide.prompts import (
    EXAMPLE_SALTS,
    KEY_WORDS,
    SALTS,
    first_words,
    input_text,
    interleaved,
    make_prompt,
    request_ids,
    request_salt,
    user_message,
)
from engine.vocabulary.task import Example, Field, FieldType, Task

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
awkward = st.sampled_from(["\u2028", "\u2029", "\x85", "\x0b\x0c\x1c\x1e", "<|im|>", "<<|", "\r\n", '"}]}', "</s>"])
inputs = st.one_of(
    texts,
    st.builds("{}{}{}".format, texts, awkward, texts),
    st.dictionaries(texts | awkward, texts | awkward | st.integers() | st.none() | st.lists(texts), max_size=3),
)


def make_task(**changes: Any) -> Task:
    return Task(**({"instructions": "Judge it.", "labels": ["a", "b", "c"]} | changes))


def examples_of(outputs: str) -> list[Example]:
    return [Example(input=f"input {number}", output=output) for number, output in enumerate(outputs)]


# --- the last message


@given(st.lists(inputs, max_size=6))
def test_the_last_line_is_one_document_with_exactly_the_inputs(values: list[Any]) -> None:
    """Whatever an input holds, the message is one line to every reader of lines, and decodes to what was put in."""
    entries = list(zip(request_ids("abc", len(values)), values, strict=True))
    message = user_message(entries)
    assert message.splitlines() == [message]
    assert list(json.loads(message)) == ["items"]
    assert json.loads(message)["items"] == [{"id": id_, "input": value} for id_, value in entries]
    assert message.startswith('{"items":[')


@given(st.lists(inputs, max_size=4))
def test_no_special_token_stands_in_the_data(values: list[Any]) -> None:
    """Servers that look for special tokens in the whole prompt find none in the inputs."""
    message = user_message((str(number), value) for number, value in enumerate(values))
    for token in ("<|", "<｜", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>"):
        assert token not in message


@given(inputs)
def test_the_counted_text_is_the_sent_text(value: Any) -> None:
    """Tokens are counted of what will stand in the message, escapes included."""
    assert f'"input":{input_text(value)}}}' in user_message([("x-1", value)])


# --- ids


def test_salts_do_not_repeat_and_no_id_is_one_of_an_example() -> None:
    """Within `SALTS` calls every salt is another, three characters long, with a letter first."""
    salts = [request_salt(123_456_789, call) for call in range(SALTS)]
    assert len(set(salts)) == SALTS
    assert {len(salt) for salt in salts} == {3}
    assert all(salt[0].isalpha() for salt in salts)


@given(st.integers(0, 1 << 30), st.integers(0, 10**9), st.integers(0, 200))
def test_ids_of_a_request_are_unique(offset: int, call: int, count: int) -> None:
    """Within one request and between it and the next, no id occurs twice; none has the form of an example's."""
    ids = request_ids(request_salt(offset, call), count)
    following = request_ids(request_salt(offset, call + 1), count)
    assert len(set(ids + following)) == 2 * count
    assert not any(id_.startswith(EXAMPLE_SALTS) for id_ in ids)


# --- the static part


def test_the_static_part_is_the_same_every_time() -> None:
    """Byte for byte, prompt and schema: a function of the task and the form, and of nothing else."""
    task = make_task(examples=examples_of("abcab"), fields={}, abstain="none")
    assert make_prompt(task) == make_prompt(task)
    assert make_prompt(task, "keyed").system != make_prompt(task).system
    assert make_prompt(task).schema == make_prompt(make_task(abstain="none")).schema


@pytest.mark.parametrize("form", ["compact", "keyed"])
def test_the_schema_is_strict_and_holds_no_id_and_no_length(form: Any) -> None:
    """A schema that changed between requests would be compiled anew each time."""
    schema = make_prompt(make_task(), form).schema
    result = schema["properties"]["results"]["items"]
    assert schema["required"] == ["results"]
    assert schema["additionalProperties"] is result["additionalProperties"] is False
    assert result["required"] == list(result["properties"])
    assert list(result["properties"]) == (["id", "starts", "output"] if form == "keyed" else ["id", "output"])
    assert result["properties"]["id"] == {"type": "string"}
    assert "minItems" not in json.dumps(schema)


def test_placeholders_in_the_instructions_stay_text() -> None:
    """Only the template's own placeholders are filled, once, in any order, as often as they stand there."""
    task = make_task(
        instructions="Write {format} and {examples}, {labels} {instructions}.",
        labels={"a": "means {format}", "b": ""},
        template="{examples}{labels}|{instructions}|{instructions}|{format} {unknown}",
        examples=[Example(input="{labels}", output="a")],
    )
    system = make_prompt(task).system
    assert system.count("Write {format} and {examples}, {labels} {instructions}.") == 2
    assert '- "a": means {format}' in system
    assert '"input":"{labels}"' in system
    assert system.endswith("{unknown}")


def test_examples_stand_in_the_form_of_a_request_and_its_reply() -> None:
    """Examples teach the very format that is asked for, with their own ids and the task's spelling of labels."""
    task = make_task(examples=[Example(input="A <|tag|> in five words and more", output=" A ")])
    lines = make_prompt(task, "keyed").system.splitlines()
    asked, answered = json.loads(lines[-3]), json.loads(lines[-1])
    assert asked == {"items": [{"id": "7ax-1", "input": "A <|tag|> in five words and more"}]}
    assert answered == {"results": [{"id": "7ax-1", "starts": "A <|tag|> in five words", "output": "a"}]}
    assert "<|" not in lines[-3] + lines[-1]


def test_every_variable_and_definition_is_in_the_prompt() -> None:
    """Names, descriptions, labels, definitions and the abstention are told."""
    task = make_task(
        labels=[],
        fields={
            "topic": Field(labels={"x": "is X", "y": ""}, description="What it is about."),
            "score": Field(type=FieldType.NUMBER, description="From 0 to 1."),
        },
        abstain="cannot tell",
    )
    system = make_prompt(task).system
    for words in ('"topic": What it is about.', '- "x": is X', '- "y"', '"score": From 0 to 1.', '"cannot tell"'):
        assert words in system
    assert "\n\n\n" not in system


# --- order of examples


@given(st.text("abc", max_size=12))
@settings(max_examples=300)
def test_equal_examples_stand_apart_wherever_that_is_possible(outputs: str) -> None:
    """No two equal neighbours exactly when no output is in the majority: more than half, rounded up, must touch."""
    ordered = interleaved(examples_of(outputs))
    assert Counter(example.input for example in ordered) == Counter(f"input {n}" for n in range(len(outputs)))
    touching = any(one.output == other.output for one, other in pairwise(ordered))
    feasible = max(Counter(outputs).values(), default=0) <= (len(outputs) + 1) // 2
    assert touching != feasible


@given(st.text("ab", max_size=6))
def test_the_feasibility_condition_is_that_of_all_orders(outputs: str) -> None:
    """The condition of the test above, against every order there is."""
    feasible = max(Counter(outputs).values(), default=0) <= (len(outputs) + 1) // 2
    assert feasible == can_stand_apart(Counter(outputs), last="")


def can_stand_apart(left: Counter[str], last: str) -> bool:
    if not left.total():
        return True
    return any(can_stand_apart(left - Counter(one), one) for one in left if one != last)


# --- the key of the keyed form


@given(inputs)
def test_a_key_is_short_and_the_beginning_of_the_input(value: Any) -> None:
    """Five words at the most, and never a whole text that has no spaces between its words."""
    key = first_words(value)
    assert len(key.split()) <= KEY_WORDS
    assert len(key) <= 60
    if isinstance(value, str):
        assert " ".join(value.split()).startswith(key)


def test_a_key_comes_from_the_first_field() -> None:
    """Of several fields the first is repeated, as JSON where it is no text; an input without any has no key."""
    assert first_words({"title": "One two three four five six", "body": "x"}) == "One two three four five"
    assert first_words({"n": [1, 2]}) == "[1,2]"
    assert first_words({}) == first_words("") == first_words(" \n") == ""
    assert len(first_words("这个产品的质量非常好" * 50)) == 60
