"""Task files: a mistake is named with its place and its remedy, before anything is spent."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Example, Field, FieldType, Task, check_task, make_task

HEAD = 'instructions = "Say the colour."\n'
LABELS = 'labels = ["red", "blue"]\n'


def load(toml: str) -> Task:
    return make_task(tomllib.loads(toml), where="t.toml")


def complaint(toml: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(toml)
    message = str(raised.value)
    assert message.startswith("t.toml: ")
    return message.removeprefix("t.toml: ")


def test_a_full_task_is_taken() -> None:
    """Every key of the contract, in the types that the contract gives them."""
    task = load(
        HEAD
        + """
        abstain = "cannot tell"
        input = ["title", "body"]
        id = "key"
        examples_file = "more.jsonl"
        template = "{instructions} {labels} {format} {examples}"
        [[examples]]
        input = {title = "a", body = "b"}
        output = {topic = "x", tags = ["y"], urgent = true}
        [fields.topic]
        labels = {x = "is X", y = ""}
        description = "The topic."
        [fields.tags]
        type = "labels"
        labels = ["x", "y"]
        [fields.urgent]
        type = "boolean"
        """
    )
    assert list(task.variables) == ["topic", "tags", "urgent"]
    assert task.is_object
    assert task.fields["tags"].type is FieldType.LABELS


def test_one_label_set_is_one_variable_without_a_name() -> None:
    """`labels` alone makes one label, with `multiple` a list of labels."""
    assert load(HEAD + LABELS).variables == {"": Field(labels=["red", "blue"])}
    assert load(HEAD + LABELS + "multiple = true").variables[""].type is FieldType.LABELS
    assert not load(HEAD + LABELS).is_object


FIELD = HEAD + "[fields.topic]\n"
EXAMPLES = HEAD + LABELS + '[[examples]]\ninput = "x"\noutput = "red"\n[[examples]]\n'
MISTAKES = {
    "a key with a slip": (HEAD + 'lables = ["a"]', "unknown key 'lables'; did you mean 'labels'?"),
    "a key from nowhere": (HEAD + LABELS + "xyz = 1", "unknown key 'xyz'; known keys: instructions, labels, "),
    "a field's key with a slip": (FIELD + 'label = ["a"]', "unknown key 'fields.topic.label'; did you mean 'labels'?"),
    "an example's key with a slip": (
        EXAMPLES + 'inputs = "x"',
        "unknown key 'examples (number 2): inputs'; did you mean 'input'?",
    ),
    "a key below a table": (
        FIELD + LABELS + 'abstain = "none"',
        "unknown key 'fields.topic.abstain'; known here: type, labels, description; "
        "if it is for the whole task, put it above the first line in [brackets]",
    ),
    "no instructions": (LABELS, "key 'instructions' is missing"),
    "empty instructions": ('instructions = " "\n' + LABELS, "key 'instructions' is empty; say in it what"),
    "neither labels nor fields": (HEAD, "neither 'labels' nor '[fields.NAME]' is given; one of them says"),
    "labels and fields": (HEAD + LABELS + "[fields.x]\n" + LABELS, "both 'labels' and '[fields.*]' are given; use"),
    "labels as text": (
        HEAD + 'labels = "a, b"',
        "key 'labels': expected a list in [brackets] or a table, got a string",
    ),
    "labels as numbers": (HEAD + 'labels = ["1", 2]', "key 'labels (number 2)': expected a string, got a number"),
    "definitions as numbers": (HEAD + "labels = {a = 1}", "key 'labels, one of its values': expected a string, got"),
    "a label twice": (HEAD + 'labels = ["a", "a"]', "key 'labels' holds 'a' twice"),
    "an empty label": (HEAD + 'labels = ["a", ""]', "key 'labels' holds an empty label"),
    "a field without labels": (FIELD + 'type = "label"', "key 'fields.topic.labels' is missing or empty"),
    "labels of a number": (FIELD + LABELS + 'type = "number"', "key 'fields.topic.labels' does nothing for type"),
    "a type with a slip": (FIELD + 'type = "lable"', "key 'fields.topic.type': there is no type 'lable'; did you mean"),
    "a type from nowhere": (
        FIELD + 'type = "x"',
        "key 'fields.topic.type': there is no type 'x'; it is one of label, ",
    ),
    "a field as text": (HEAD + 'fields = {topic = "label"}', "key 'fields.topic': expected a table, got a string"),
    "fields as a list": (HEAD + 'fields = ["topic"]', "key 'fields': expected a table, got a list"),
    "multiple as text": (HEAD + LABELS + 'multiple = "yes"', "key 'multiple': expected true or false, got a string"),
    "multiple with fields": (HEAD + "multiple = true\n[fields.x]\n" + LABELS, "'multiple' goes with 'labels'; in [fie"),
    "input as text": (HEAD + LABELS + 'input = "text"', "key 'input': expected a list in [brackets], got a string"),
    "input twice": (HEAD + LABELS + 'input = ["a", "a"]', "key 'input' must name at least one field, and each once"),
    "no input": (HEAD + LABELS + "input = []", "key 'input' must name at least one field"),
    "abstention among the labels": (HEAD + LABELS + 'abstain = "red"', "key 'abstain' ('red') is also one of 'labels'"),
    "an empty abstention": (HEAD + LABELS + 'abstain = ""', "key 'abstain' is empty; give the word"),
    "abstention as a switch": (HEAD + LABELS + "abstain = true", "key 'abstain': expected a string, got true or false"),
    "an example of a wrong type": (EXAMPLES + "input = 3\noutput = 1", "key 'examples (number 2): input': expected a"),
    "an example without output": (EXAMPLES + 'input = "x"', "key 'examples (number 2): output' is missing"),
    "an example as text": (HEAD + LABELS + 'examples = ["x"]', "key 'examples (number 1)': expected a table, got a st"),
    "one pair of brackets": (HEAD + LABELS + '[examples]\ninput = "x"', "key 'examples': expected a list in [brackets"),
    "an example with one field of two": (
        HEAD + LABELS + 'input = ["a", "b"]\nexamples = [{input = "x", output = "red"}]',
        "example 1: its input should have the fields that 'input' names: {a = ..., b = ...}",
    ),
    "an example with a table for a text": (
        HEAD + LABELS + 'input = ["a"]\nexamples = [{input = {a = "x"}, output = "red"}]',
        "example 1: its input is a table, and 'input' of the task names one field, which is sent as a plain string; "
        'write just the text: input = "..."',
    ),
    "a template without the format": (HEAD + LABELS + 'template = "{instructions}"', "key 'template' must contain {f"),
    "a template without instructions": (HEAD + LABELS + 'template = "{format}"', "key 'template' must contain {instr"),
    "a template without the examples": (
        HEAD + LABELS + 'template = "{instructions} {format}"\nexamples = [{input = "x", output = "red"}]',
        "key 'template' must contain {examples}, or the examples are never sent",
    ),
    "a placeholder with a slip": (
        HEAD + LABELS + 'template = "{instruction} {format}"',
        "key 'template': {instruction} is no placeholder; did you mean {instructions}?",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_place_and_remedy(mistake: str) -> None:
    """Each message holds the key as the file spells it, what is wrong, and the nearest right thing if there is one."""
    toml, words = MISTAKES[mistake]
    message = complaint(toml)
    assert message.startswith(words)
    assert "`" not in message
    assert "$" not in message


@given(st.sampled_from(["", "fields.topic", "examples"]), st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1))
def test_no_unknown_key_slips_through(table: str, key: str) -> None:
    """Any key of any table that is not of the contract is refused by its name."""
    document: dict[str, Any] = {"instructions": "x", "fields": {"topic": {"labels": ["a"]}}, "examples": []}
    example = {"input": "x", "output": {"topic": "a"}}
    kinds = {"": (document, Task), "fields.topic": (document["fields"]["topic"], Field), "examples": (example, Example)}
    document["examples"].append(example)
    place, kind = kinds[table]
    if key in kind.__struct_fields__:
        return
    place[key] = 1
    with pytest.raises(ConfigError, match=f"unknown key '.*{key}'"):
        make_task(document, where="t.toml")


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(Task.__struct_fields__), toml_values)
def test_any_value_of_any_key_is_taken_or_refused_by_name(key: str, value: Any) -> None:
    """Whatever stands behind a key: a task comes out, or a `ConfigError`; never another exception."""
    try:
        task = make_task({"instructions": "x", "labels": ["a"]} | {key: value}, where="t.toml")
    except ConfigError:
        return
    check_task(task)


def test_tasks_made_in_python_are_checked_too() -> None:
    """`check_task` holds the same rules for a task that no file made."""
    with pytest.raises(ConfigError, match="task: key 'labels' holds 'a' twice"):
        check_task(Task(instructions="x", labels=["a", "a"]))


def test_braces_that_are_no_placeholders_are_text() -> None:
    """A template may hold JSON, or words in braces of its own."""
    check_task(Task(instructions="x", labels=["a"], template='{instructions} {"a": 1} {name} {} {format}'))
