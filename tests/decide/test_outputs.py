"""What counts as an output: checks of values, and the schema that asks for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.outputs import MAX_ENUM_LABELS, NotAnOutput, check_examples, output_check, output_schema
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Example, Field, FieldType, Task


def make_task(**changes: Any) -> Task:
    return Task(**({"instructions": "Judge it.", "labels": ["Yes", "No", "don't know"]} | changes))


def field_check(kind: FieldType, *, abstain: str | None = None, labels: tuple[str, ...] = ()) -> Any:
    check = output_check(make_task(labels=[], fields={"f": Field(type=kind, labels=list(labels))}, abstain=abstain))
    return lambda value: check({"f": value})["f"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_labels_come_out_as_the_task_spells_them() -> None:
    """Case and outer spaces are forgiven; the output is the label of the task, letter by letter."""
    check = output_check(make_task())
    assert [check(said) for said in ("Yes", " yes\n", "NO", "Don't Know")] == ["Yes", "Yes", "No", "don't know"]


def test_case_is_forgiven_only_where_it_cannot_decide() -> None:
    """Labels that differ by case or spaces alone are matched exactly, or not at all."""
    check = output_check(make_task(labels=["US", "us", "Other"]))
    assert [check(said) for said in ("US", "us", "other")] == ["US", "us", "Other"]
    with pytest.raises(NotAnOutput, match="'Us' is not one of the labels"):
        check("Us")


@given(json_values)
def test_nothing_but_a_label_is_a_label(value: Any) -> None:
    """Any JSON value is either a label of the task or refused as none; nothing else is ever raised."""
    labels = ["Yes", "No", "don't know"]
    try:
        assert output_check(make_task())(value) in labels
    except NotAnOutput:
        assert not (isinstance(value, str) and value in labels)


@given(json_values, st.sampled_from(FieldType), st.sampled_from([None, "unclear"]))
def test_no_value_is_raised_over_or_let_through(value: Any, kind: FieldType, abstain: str | None) -> None:
    """Every check either gives a value of its type, of the same kind as the schema's, or refuses."""
    kinds = {
        FieldType.LABEL: str,
        FieldType.LABELS: list,
        FieldType.STRING: str,
        FieldType.STRINGS: list,
        FieldType.BOOLEAN: bool,
        FieldType.INTEGER: int,
        FieldType.NUMBER: (int, float),
    }
    try:
        output = field_check(kind, abstain=abstain, labels=("a", "b"))(value)
    except NotAnOutput:
        return
    assert isinstance(output, kinds[kind]) or (abstain is not None and output == abstain)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (FieldType.STRING, ["", "text"], [None, 1, ["x"]]),
        (FieldType.STRINGS, [[], ["a", "a"]], ["a", [1], None]),
        (FieldType.BOOLEAN, [True, False], ["true", 0, 1, None]),
        (FieldType.INTEGER, [0, -3, 10**30], ["3", 3.5, True, float("inf"), float("nan"), None]),
        (FieldType.NUMBER, [0, 2.5, 10**400], ["3", True, float("inf"), float("nan"), None]),
        (FieldType.LABEL, ["a"], [None, 0, True, ["a"], {"label": "a"}, "c"]),
        (FieldType.LABELS, [[], ["a", "b"]], ["a", [None], ["c"], {"a": True}]),
    ],
)
def test_each_type_takes_its_values_alone(kind: FieldType, right: list[Any], wrong: list[Any]) -> None:
    """A value of another JSON type is no answer, however easily it could be turned into one."""
    check = field_check(kind, labels=("a", "b"))
    assert [check(value) for value in right] == right
    for value in wrong:
        with pytest.raises(NotAnOutput, match="field 'f'"):
            check(value)


def test_whole_floats_are_integers() -> None:
    """``3.0`` is an integer to JSON Schema, and comes out as one."""
    output = field_check(FieldType.INTEGER)(3.0)
    assert (output, type(output)) == (3, int)


def test_half_a_surrogate_pair_does_not_leave_the_reader() -> None:
    """A string that UTF-8 cannot hold is mended, or the store could not take the answer."""
    output = field_check(FieldType.STRING)("a\ud800b😀")
    assert output == "a\ufffdb😀"
    assert field_check(FieldType.STRINGS)(["\udfff"]) == ["\ufffd"]


def test_several_labels_come_once_and_in_the_order_of_the_task() -> None:
    """A set of labels has one form, so that equal answers are equal."""
    check = output_check(make_task(multiple=True))
    assert check(["no", "YES", "No"]) == ["Yes", "No"]
    assert check([]) == []


def test_abstention_is_an_answer_and_stands_alone() -> None:
    """The abstention is allowed for every variable, and never beside labels."""
    assert output_check(make_task(abstain="unclear"))("Unclear") == "unclear"
    several = output_check(make_task(abstain="unclear", multiple=True))
    assert several(["unclear"]) == ["unclear"]
    with pytest.raises(NotAnOutput, match="beside other labels"):
        several(["unclear", "Yes"])
    assert field_check(FieldType.INTEGER, abstain="unclear")("unclear") == "unclear"


def test_objects_need_every_field_and_lose_unknown_ones() -> None:
    """A missing variable is named; keys that nobody asked for are dropped."""
    fields = {"topic": Field(labels=["a", "b"]), "urgent": Field(type=FieldType.BOOLEAN)}
    check = output_check(make_task(labels=[], fields=fields))
    assert check({"urgent": True, "why": "so", "topic": "A"}) == {"topic": "a", "urgent": True}
    with pytest.raises(NotAnOutput, match="field 'urgent' is missing"):
        check({"topic": "a"})
    with pytest.raises(NotAnOutput, match="not an object of topic, urgent"):
        check("a")


field_names = st.text(min_size=1, max_size=6)
some_fields = st.builds(
    Field,
    type=st.sampled_from(FieldType),
    labels=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True),
)
some_tasks = st.builds(
    make_task,
    abstain=st.sampled_from([None, "(cannot be told)"]),
    fields=st.dictionaries(field_names, some_fields, max_size=4),
    multiple=st.booleans(),
)


def assert_strict(schema: dict[str, Any]) -> None:
    """The subset of JSON schema that OpenAI's strict mode takes."""
    kinds = {"type", "enum", "items", "properties", "required", "additionalProperties", "anyOf"}
    assert set(schema) <= kinds
    assert "type" in schema or "anyOf" in schema
    if "enum" in schema:
        assert schema["enum"]
        assert len(set(schema["enum"])) == len(schema["enum"])
    if schema.get("type") == "object":
        assert schema["required"] == list(schema["properties"])
        assert schema["additionalProperties"] is False
    if schema.get("type") == "array":
        assert_strict(schema["items"])
    for inner in [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]:
        assert_strict(inner)


@given(some_tasks)
def test_schemas_are_what_strict_modes_take(task: Task) -> None:
    """Every key required, nothing additional, no keyword that a strict mode refuses."""
    assert_strict(output_schema(task))


def test_a_huge_label_set_is_left_out_of_the_schema_and_checked_all_the_same() -> None:
    """Providers choke on grammars of thousands of labels; the check of the value holds without one."""
    labels = [f"label {number}" for number in range(MAX_ENUM_LABELS + 1)]
    task = make_task(labels=labels)
    assert output_schema(task) == {"type": "string"}
    with pytest.raises(NotAnOutput):
        output_check(task)("label x")
    assert "enum" in output_schema(make_task(labels=labels[1:]))


@pytest.mark.parametrize(
    ("changes", "output", "words"),
    [
        ({}, "Yess", "'Yess' is not one of the labels"),
        ({}, 1, "output is a number, not a label"),
        ({"multiple": True}, "Yes", "output is a string, not a list of labels"),
        ({"labels": [], "fields": {"n": Field(type=FieldType.INTEGER)}}, {}, "field 'n' is missing"),
        ({"labels": [], "fields": {"n": Field(type=FieldType.INTEGER)}}, {"n": "3"}, "field 'n': output is a string"),
    ],
)
def test_a_wrong_example_is_named_by_its_number(changes: dict[str, Any], output: Any, words: str) -> None:
    """An example that the task itself does not allow would teach errors; the message says which, why and what to do."""
    right = Example(input="x", output={"n": 1} if "fields" in changes else ["Yes"] if "multiple" in changes else "Yes")
    with pytest.raises(ConfigError) as raised:
        check_examples(make_task(**changes, examples=[right, Example(input="y", output=output)]))
    assert str(raised.value).startswith(f"example 2: {words}")
    assert str(raised.value).endswith("mend the example, or what the task allows")


def test_the_schema_of_a_plain_field_lets_the_way_out_through() -> None:
    """A grammar that allows numbers only would force a number where nothing can be told."""
    task = make_task(labels=[], fields={"n": Field(type=FieldType.INTEGER), "s": Field(type=FieldType.STRING)})
    assert output_schema(task)["properties"] == {"n": {"type": "integer"}, "s": {"type": "string"}}
    abstaining = make_task(labels=[], fields=task.fields, abstain="unclear")
    assert output_schema(abstaining)["properties"] == {
        "n": {"anyOf": [{"type": "integer"}, {"type": "string", "enum": ["unclear"]}]},
        "s": {"type": "string"},
    }
