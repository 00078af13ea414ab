"""Gold that a search measures: no field tells the answer, no record stands in its own prompt, no text counts twice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tune import LABELS, SPACE, ended, make_gold, search, trials_of

from engine.decide.gold_records import read_gold
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.tuning.fair_gold import Fair, fair_gold
from engine.tuning.gold import Gold
from engine.tuning.space import Space
from engine.vocabulary.config import OnBadRecord
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.task import Example, Field, FieldType, Task
from engine.vocabulary.values import RawRecord

WHOLE = Task(instructions="Which colour?", labels=LABELS)
CHOSEN = Task(instructions="Which colour?", labels=LABELS, input=["text"])
SEVERAL = Task(
    instructions="Which?",
    fields={"colour": Field(labels=LABELS), "loud": Field(type=FieldType.BOOLEAN)},
)


def gold_of(rows: list[dict[str, Any]], task: Task = WHOLE) -> Gold:
    """As a file with these lines is read."""
    raws = [RawRecord(position=n, line=n + 1, data=row) for n, row in enumerate(rows)]
    return read_gold(raws, task, name="gold.jsonl", field=None, seed=0)


def fair(gold: Gold, task: Task = WHOLE, examples: list[Example] | None = None, on_bad: OnBadRecord = "stop") -> Fair:
    """As a search looks at it."""
    return fair_gold(gold, task, examples or [], name="gold.jsonl", on_bad_record=on_bad)


def rows_with(**columns: Any) -> list[dict[str, Any]]:
    """Sixty records, and columns made by functions of the number and the label."""
    made = []
    for number in range(60):
        label = LABELS[number * 7 % 3]
        more = {name: make(number, label) for name, make in columns.items()}
        made.append({"id": number, "text": f"text {number}", "label": label, **more})
    return made


TELLING = {
    "output": lambda number, label: label,
    "Answer": lambda number, label: f"no label {number}",
    "annotator_label": lambda number, label: label.upper() if number % 7 else "red",
    "second_coder": lambda number, label: label if number % 3 else None,
    "label_number": lambda number, label: LABELS.index(label),
    "meta": lambda number, label: {"by": f"coder {number % 2}", "gold": label},
    "finer": lambda number, label: f"{label} {number % 2}",
    "code": lambda number, label: {"red": "r", "green": "g", "blue": "b"}[label],
}


@pytest.mark.parametrize("name", TELLING)
def test_a_field_that_tells_the_right_answer_is_refused(name: str) -> None:
    """By what it holds or by its name, with the remedy; a task that names its fields sends no other."""
    rows = rows_with(source=lambda number, _: f"file {number % 4}", **{name: TELLING[name]})
    with pytest.raises(ConfigError) as refused:
        fair(gold_of(rows))
    assert f"'{name}' beside 'label' would tell" in str(refused.value)
    assert 'input = ["text","source"]' in str(refused.value)
    assert len(fair(gold_of(rows, CHOSEN), CHOSEN).gold.records) == 60


def test_fields_that_tell_nothing_are_sent() -> None:
    """A constant, a number, a category by chance, a flag as rare as the label that it does not tell."""
    chance = random.Random(1)
    rows = rows_with(
        language=lambda number, _: "en",
        length=lambda number, _: number,
        guess=lambda number, _: chance.choice(LABELS),
        stars=lambda number, _: number // 20,
    )
    assert fair(gold_of(rows)).notes == []


def test_with_one_right_output_there_is_nothing_to_tell() -> None:
    """Of gold that has one label only, no column of two values is its answer."""
    rows = [{**row, "label": "red", "part": str(number % 2)} for number, row in enumerate(rows_with())]
    assert fair(gold_of(rows)).notes == []


def test_what_tells_one_of_several_variables_is_refused() -> None:
    """The columns are the right output; another one holds a variable, or the whole."""
    rows = [
        {"id": n, "text": f"text {n}", "colour": LABELS[n % 3], "loud": n % 5 == 0, "shout": str(n % 5 == 0).lower()}
        for n in range(40)
    ]
    with pytest.raises(ConfigError, match="'shout' beside 'colour, loud'"):
        fair(gold_of(rows, SEVERAL), SEVERAL)
    whole = [{**row, "shout": {"loud": row["loud"], "colour": row["colour"]}} for row in rows]
    with pytest.raises(ConfigError, match="'shout' beside"):
        fair(gold_of(whole, SEVERAL), SEVERAL)


def test_a_rare_flag_that_agrees_by_chance_is_no_answer() -> None:
    """Both are false nine times of ten: equal in most records, and beyond chance in none."""
    rows = [
        {"id": n, "text": f"text {n}", "colour": LABELS[n % 3], "loud": n % 10 == 0, "paid": n % 10 == 5}
        for n in range(60)
    ]
    assert fair(gold_of(rows, SEVERAL), SEVERAL).notes == []


@given(
    texts=st.lists(st.sampled_from(["a", "b", "A  b", "a b", " a", "c"]), min_size=1, max_size=12),
    labels=st.lists(st.sampled_from(LABELS), min_size=12, max_size=12),
    shown=st.lists(st.sampled_from(["a", "B", "a b", "d"]), max_size=3),
)
def test_every_measured_text_is_new_and_has_one_right_answer(
    texts: list[str], labels: list[str], shown: list[str]
) -> None:
    """No two measured records are the same text, none is an example, none had two labels; all others are measured."""

    def same(text: str) -> str:
        return " ".join(text.split())

    pairs = enumerate(zip(texts, labels, strict=False))
    rows: list[dict[str, Any]] = [{"id": n, "text": text, "label": label} for n, (text, label) in pairs]
    right: dict[str, set[str]] = {}
    for row in rows:
        right.setdefault(same(row["text"]), set()).add(row["label"])
    examples = [Example(input=text, output="red") for text in shown]
    in_prompt = {same(text).casefold() for text in shown}
    wanted = {text for text, found in right.items() if len(found) == 1 and text.casefold() not in in_prompt}
    try:
        measured = fair(gold_of(rows), examples=examples, on_bad="fail-record").gold
    except InputError:
        assert not wanted
        return
    found = [same(record["text"]) for record in measured.records]
    assert sorted(found) == sorted(wanted)
    assert all(right[text] == {output} for text, output in zip(found, measured.outputs, strict=True))
    again = fair(measured, examples=examples, on_bad="fail-record")
    assert (again.gold.records, again.notes) == (measured.records, [])


def test_a_text_with_two_right_answers_stops_it_and_names_the_lines() -> None:
    """Or both are left out, where bad records are; the same text with the same answer counts once."""
    rows = rows_with()
    rows[10]["text"], rows[50]["text"] = "same  text", "same text"
    rows[10]["label"], rows[50]["label"] = "red", "blue"
    rows[3]["text"], rows[3]["label"] = rows[4]["text"], rows[4]["label"]
    with pytest.raises(InputError, match=r"2 bad gold records of 60(.|\n)*line 11: the same record as line 51"):
        fair(gold_of(rows))
    kept = fair(gold_of(rows), on_bad="fail-record")
    assert kept.gold.unusable == 2
    assert len(kept.gold.records) == 57
    assert kept.notes == ["1 gold record is the same as another one, and measured once"]


def test_an_example_with_fields_is_found(tmp_path: Path) -> None:
    """Field by field, or the text alone where other fields go along."""
    rows = [{"id": n, "text": f"text {n}", "source": f"s{n}", "label": LABELS[n % 3]} for n in range(9)]
    examples = [
        Example(input={"source": "s1", "text": "text 1"}, output="green"), Example(input="Text 2", output="blue")
    ]  # fmt: skip
    kept = fair(gold_of(rows), examples=examples)
    assert sorted(kept.gold.lines) == [1, 4, 5, 6, 7, 8, 9]
    assert kept.notes[0].startswith("2 gold records are examples of the task")


def test_no_record_is_measured_that_stands_in_a_prompt(tmp_path: Path) -> None:
    """A search asks about no example that any of its settings shows, says so, and loses no other record."""
    gold = make_gold(60)
    examples = [Example(input=gold.records[n]["text"], output=gold.outputs[n]) for n in range(20)]
    task = Task(instructions="Say which colour it is.", labels=LABELS, examples=examples)
    endpoint = build_endpoint(SimulatorConfig())
    seen: list[str] = []
    for shown, left in (((0, 20), 40), ((0,), 60)):
        space = Space(batch_size=(1,), form=("compact",), examples=shown)
        made = search(tmp_path / f"{left}", endpoint, gold=gold, space=space, task=task)
        transport = InProcessTransport(endpoint)
        post = transport.post

        async def spy(*args: Any, **kwargs: Any) -> Any:
            seen.append(repr((args, kwargs)))
            return await post(*args, **kwargs)  # noqa: B023

        transport.post = spy  # type: ignore[method-assign]
        for trial in trials_of(made):
            trial._transport = transport
        tuned = ended(made)
        assert tuned.records == left
        assert any("are examples of the task" in note for note in tuned.notes) is (left == 40)


def test_a_search_refuses_gold_that_tells(tmp_path: Path) -> None:
    """Before anything is sent."""
    gold = make_gold(20)
    rows = [{**record, "answer": output} for record, output in zip(gold.records, gold.outputs, strict=True)]
    telling = Gold(records=rows, outputs=gold.outputs, field="label", unusable=0, problems=[])
    endpoint = build_endpoint(SimulatorConfig())
    with pytest.raises(ConfigError, match="'answer' beside 'label' would tell"):
        search(tmp_path, endpoint, gold=telling, space=SPACE)
    assert endpoint.ledger.requests == 0
