"""From a record as read to one that can be asked about: ids keep their type, and what is missing is named."""

from __future__ import annotations

import datetime as dt
import json
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.records import RecordReader, id_key, used_fields
from engine.vocabulary.task import Task
from engine.vocabulary.values import BadRecord, RawRecord, Record


def make_reader(*, each_alone: bool = False, **changes: Any) -> RecordReader:
    return RecordReader(Task(**({"instructions": "Judge it.", "labels": ["a"]} | changes)), each_alone=each_alone)


def raw(data: dict[str, Any] | None, *, line: int = 1, error: str | None = None) -> RawRecord:
    return RawRecord(position=line - 1, line=line, data=data, error=error)


def good(reader: RecordReader, data: dict[str, Any], line: int = 1) -> Record:
    record = reader.read(raw(data, line=line))
    assert isinstance(record, Record), record
    return record


def bad(reader: RecordReader, data: dict[str, Any] | None, line: int = 1, **options: Any) -> BadRecord:
    record = reader.read(raw(data, line=line, **options))
    assert isinstance(record, BadRecord), record
    return record


ids = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(ids)
def test_ids_keep_their_type(id_: Any) -> None:
    """What goes in as a number comes out as that number, as a string as that string."""
    record = good(make_reader(), {"id": id_, "text": "x"})
    assert (record.id, type(record.id)) == (id_, type(id_))


@given(st.integers(-(10**25), 10**25))
def test_a_number_and_its_digits_are_two_ids(number: int) -> None:
    """``1`` and ``"1"`` are two records, to the store as well."""
    assert id_key(number) != id_key(str(number))
    assert json.loads(id_key(number)) == number


@pytest.mark.parametrize("id_", [None, True, [1], {"a": 1}, float("nan"), float("inf"), "\ud800"], ids=repr)
def test_an_id_that_json_cannot_hold_makes_a_bad_record(id_: Any) -> None:
    """Neither a string nor a finite number: refused by name, with its place, and no exception."""
    record = bad(make_reader(), {"id": id_, "text": "x"}, line=7)
    assert (record.line, record.position) == (7, 6)
    assert record.message


def test_without_ids_the_line_number_serves() -> None:
    """The first readable record decides: no `id`, no ids; then the number from 1 is the id."""
    reader = make_reader()
    bad(reader, None, line=1, error="broken JSON")
    assert reader.id_field is None
    assert [good(reader, {"text": "x"}, line=line).id for line in (2, 3)] == [2, 3]
    assert good(reader, {"id": 2, "text": "x"}, line=4).id == 4  # two records with the id 2 would be worse


def test_with_ids_all_must_have_one() -> None:
    """A record without the id that others have is refused, and the nearest name is given."""
    reader = make_reader()
    good(reader, {"id": "a", "text": "x"})
    assert reader.id_field == "id"
    assert "id field 'id' is missing; did you mean 'Id'?" in bad(reader, {"Id": "b", "text": "x"}).message


def test_records_of_different_callers_stand_for_themselves() -> None:
    """With `each_alone` one record may have an id and the next none; a task that names the field still holds."""
    reader = make_reader(each_alone=True)
    assert [good(reader, data, line=9).id for data in ({"id": "a", "t": "x"}, {"t": "x"})] == ["a", 9]
    bad(make_reader(each_alone=True, id="key"), {"t": "x"})


def test_the_task_chooses_id_and_fields() -> None:
    """Fields go out in the task's order, the id only where the task sends it."""
    record = good(make_reader(id="key", input=["title", "body"]), {"body": "b", "key": 3, "title": "t", "more": 1})
    assert (record.id, record.input, list(record.input)) == (3, {"title": "t", "body": "b"}, ["title", "body"])


@pytest.mark.parametrize(
    ("task", "names", "used"),
    [
        ({}, ["id", "a", "b"], ["id", "a", "b"]),
        ({"input": ["b"]}, ["id", "a", "b"], ["id", "b"]),
        ({"input": ["b"]}, ["a", "b"], ["b"]),
        ({"input": ["b"], "id": "a"}, ["id", "a", "b"], ["a", "b"]),
        ({"input": ["b", "c"]}, ["id", "a", "b"], ["id", "a", "b"]),
        ({"input": ["b"], "id": "k"}, ["id", "a", "b"], ["id", "a", "b"]),
    ],
)
def test_a_task_uses_what_it_names(task: dict[str, Any], names: list[str], used: list[str]) -> None:
    """Its input and the id; everything where nothing is chosen, or where a name is missing and told with what is there.

    The records are the same, whichever of the two were read.
    """
    settings = Task(instructions="Judge it.", labels=["a"], **task)
    assert list(used_fields(settings, names)) == used
    data = {name: f"{name}!" for name in names}
    assert RecordReader(settings).read(raw({name: data[name] for name in used})) == RecordReader(settings).read(
        raw(data)
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain", "plain"), ("", ""), (None, ""), (3, "3"), (True, "true"), ([1, "ü"], '[1,"ü"]'), ({"b": 1}, '{"b":1}')],
)
def test_one_field_is_sent_as_a_plain_string(value: Any, text: str) -> None:
    """A single field is a string, as JSON where it is no text; null is nothing."""
    assert good(make_reader(), {"id": 1, "text": value}).input == text
    assert good(make_reader(input=["text"]), {"id": 1, "text": value, "more": 2}).input == text


def test_all_fields_but_the_id_are_sent_by_default() -> None:
    """Without a choice everything but the id is the input; a record of nothing but an id has none."""
    assert good(make_reader(), {"id": 1, "a": "x", "b": None}).input == {"a": "x", "b": None}
    assert "nothing to ask about" in bad(make_reader(), {"id": 1}).message


def test_a_missing_field_names_the_nearest() -> None:
    """The remedy stands in the message: the field that was probably meant, or those that there are."""
    near = bad(make_reader(input=["text"]), {"id": 1, "txt": "x"})
    assert near.message == "field 'text' is missing; did you mean 'txt'?"
    assert near.id == 1
    assert bad(make_reader(input=["text"]), {"id": 1, "zz": 1}).message == "field 'text' is missing; it has: id, zz"


@pytest.mark.parametrize("value", [object(), "\ud800", {1: {2: object()}}, {"n": 2**20_000}], ids=range(4))
def test_what_json_cannot_hold_makes_a_bad_record(value: Any) -> None:
    """A value from a program that cannot be sent is that record's failure, and not the run's."""
    assert bad(make_reader(), {"id": "a", "x": value, "y": "z"}).id == "a"


def test_half_a_character_in_a_name_is_not_sent_as_another() -> None:
    """A name that is no text fails its record by name, which can be shown; one that is not sent does no harm."""
    data = {"id": "a", "te\ud83dxt": "x", "y": "z"}
    message = bad(make_reader(), data).message
    assert "the name of field 'te\ufffdxt' holds half of a surrogate pair, which is no text; mend it, or" in message
    assert good(make_reader(input=["y"]), data).input == "z"
    assert good(make_reader(), {"id": "a", "te\ud83dxt": "x"}).input == "x"
    assert "it has: id, te\ufffdxt, y" in bad(make_reader(input=["zzzz"]), data).message
    assert "did you mean 'te\ufffdxt'?" in bad(make_reader(input=["text"]), data).message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"x", "holds bytes, which JSON does not have; decode them to a text"),
        (bytearray(b"x"), "holds bytes"),
        (memoryview(b"x"), "holds bytes"),
        ([{"deep": (b"x",)}], "holds bytes"),
        (float("nan"), "holds nan, which is no number to JSON; give None or a finite number"),
        (float("-inf"), "holds -inf"),
        ({"deep": [1, float("inf")]}, "holds inf"),
        (object(), "holds a value of type object, which JSON does not have"),
    ],
    ids=["bytes", "bytearray", "view", "deep bytes", "nan", "inf", "deep inf", "object"],
)
def test_what_json_has_no_word_for_is_told_with_its_field(value: Any, said: str) -> None:
    """The encoder would send base64 and null, which nobody meant: field and remedy are named; unused, it may be."""
    for reader in (make_reader(), make_reader(input=["x"])):
        record = bad(reader, {"id": "a", "x": value, "y": "z"})
        assert record.id == "a"
        assert f"field 'x' {said}" in record.message
        assert 'input = ["..."] in the task' in record.message
    assert good(make_reader(input=["y"]), {"id": "a", "x": value, "y": "z"}).input == "z"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.5, "1.5"), (dt.date(2024, 1, 2), '"2024-01-02"'), (Decimal("1.50"), '"1.50"'), ((1, [None]), "[1,[null]]")],
    ids=repr,
)
def test_what_has_a_form_in_json_is_sent_in_it(value: Any, text: str) -> None:
    """Numbers, dates, decimals and tuples of a program, as before."""
    assert good(make_reader(), {"id": 1, "text": value}).input == text


def test_a_bottomless_value_makes_a_bad_record() -> None:
    """Nesting deeper than can be encoded is that record's failure too."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert bad(make_reader(), {"id": "a", "x": deep, "y": "z"}).message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON value with its keys in another order."""
    if isinstance(value, dict):
        keys = rng.sample(list(value), len(value))
        return {key: shuffled(value[key], rng) for key in keys}
    return [shuffled(element, rng) for element in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text("abcd", min_size=1), json_values, min_size=1, max_size=4), st.integers(0, 2**32))
def test_the_digest_does_not_depend_on_the_order_of_keys(fields: dict[str, Any], seed: int) -> None:
    """The same question in another order of keys is the same question, at every depth; it has 16 bytes."""
    data = {"id": 1, **fields}
    one = good(make_reader(), data)
    other = good(make_reader(), shuffled(data, random.Random(seed)))
    assert one.digest == other.digest
    assert len(one.digest) == 16


@given(json_values, json_values)
def test_other_inputs_have_other_digests(one: Any, other: Any) -> None:
    """The same id with another text is another question; the id is no part of it."""
    reader = make_reader(input=["a", "b"])
    first = good(reader, {"id": 1, "a": one, "b": ""})
    second = good(reader, {"id": 2, "a": other, "b": ""})
    assert (first.digest == second.digest) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@pytest.mark.parametrize("id_", ["", " ", "\t\n"])
def test_an_empty_id_is_no_id(id_: str) -> None:
    """Nobody could look the record up again."""
    record = bad(make_reader(), {"id": id_, "text": "t"})
    assert record.id is None
    assert "the id in 'id' is empty; mend it, or name" in record.message


def test_a_field_that_cannot_be_read_matters_only_if_it_is_used() -> None:
    """A picture beside the text is no reason to fail; if it is to be sent, the record keeps its id and says the way."""
    record = RawRecord(position=0, line=1, data={"id": 7, "text": "t"}, unreadable={"picture": "bytes"})
    chosen = make_reader(input=["text"]).read(record)
    assert isinstance(chosen, Record)
    assert chosen.input == "t"
    everything = make_reader().read(record)
    assert isinstance(everything, BadRecord)
    assert everything.id == 7
    assert "'picture' holds bytes" in everything.message
    assert "input = " in everything.message
    by_picture = make_reader(id="picture", input=["text"]).read(record)
    assert isinstance(by_picture, BadRecord)
    assert "the id in 'picture' holds bytes" in by_picture.message
    assert 'id = "..." in the task' in by_picture.message


def test_a_broken_record_keeps_the_id_that_can_be_trusted() -> None:
    """With it the output says which record it was; it decides nothing for the others."""
    reader = make_reader()
    assert bad(reader, {"id": "a"}, error="3 cells").id == "a"
    assert bad(reader, {"other": "a"}, error="3 cells").id is None
    assert good(reader, {"text": "t"}, line=3).id == 3
    assert bad(reader, {"id": "a"}, error="3 cells", line=4).id is None


def test_records_of_one_source_have_ids_or_none_have() -> None:
    """Unless they are said to come from different callers: else a line number could be another record's id."""
    reader = RecordReader(Task(instructions="Judge it.", labels=["a"]))
    good(reader, {"text": "x"})
    assert good(reader, {"id": 1, "text": "y"}, line=2).id == 2
