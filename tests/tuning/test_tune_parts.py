"""The parts of a search: the space, the choice of examples, the gold, the task file that is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.run.tasks import load_task
from engine.tuning.gold import read_gold
from engine.tuning.space import Setting, Space, chosen_examples, load_space, settings_of, task_of, varying
from engine.tuning.tune import options_of
from engine.tuning.tune_task import task_toml
from engine.vocabulary.config import RunConfig
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.task import Example, Field, FieldType, Task
from engine.vocabulary.values import RawRecord

LABELS = ["red", "green", "blue"]
TASK = Task(
    instructions="Which colour?",
    labels=LABELS,
    examples=[Example(input=f"text {n}", output=LABELS[0] if n < 6 else LABELS[n % 3]) for n in range(12)],
)
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


def raws(rows: list[dict[str, Any]]) -> list[RawRecord]:
    return [RawRecord(position=place, line=place + 1, data=row) for place, row in enumerate(rows)]


# -- the space ---------------------------------------------------------------------------------------------------


def test_the_space_is_a_product() -> None:
    """Every value with every other; the defaults are the batch sizes, both forms, and no, five and all examples."""
    made = settings_of(Space(), TASK)
    assert len(made) == 5 * 2 * 3
    assert {each.examples for each in made} == {0, 5, 12}
    assert varying(made) == ["batch_size", "examples", "form"]


def test_dimensions_of_the_users_own(tmp_path: Path) -> None:
    """Wordings by name, and keys of the request's body; a setting carries its values."""
    path = tmp_path / "space.toml"
    path.write_text(
        'batch_size = [5]\nexamples = [0]\nform = ["compact"]\nwording = ["own", "short"]\nschema = [true, false]\n'
        '[wordings]\nshort = "Colour? {instructions}"\n[body]\nreasoning_effort = ["low", "high"]\n'
    )
    space = load_space(str(path))
    made = settings_of(space, TASK)
    assert len(made) == 8
    assert varying(made) == ["wording", "schema", "body.reasoning_effort"]
    assert task_of(made[-1], TASK, space).instructions == "Colour? Which colour?"
    options = options_of(made[-1], RunConfig())
    assert json.loads(options[-1]) == {"reasoning_effort": "high", "response_format": {"type": "text"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_sizes = [1]", "did you mean 'batch_size'?"),
        ("batch_size = 5", "a list of values"),
        ("batch_size = [0]", "from 1 up"),
        ('wording = ["none"]', "there is no wording 'none'"),
        ("[body]\nmodel = ['a']", "use model = [...]"),
        ("[body]\napi_key = ['sk-abcdefghijklmnop1234567890']", "looks like a key (api_key)"),
        ("[body]\nextra = [{ auth = { token = 'abcdefgh12345' } }]", "looks like a key (token)"),
        ("[body]\nuser = ['sk-abcdefghijklmnop1234567890']", "goes into ANNOTATE_API_KEY or --key-file"),
        ("[body]\nlog_key = ['abcdefgh12345']", '--extra-body \'{"log_key":"env:VARIABLE"}\''),
        ("[wordings]\nshort = ' '", "'wordings.short' is empty"),
        ("[wordings]\nown = 'Colour?'", "give yours another name"),
        ("[wordings]\nshort = 'Hi {instruction}'", "did you mean {instructions}?"),
        ("[wordings]\nshort = 'Hi {labels}'", "{labels} stands for nothing here"),
        ("batch_size = [", "not valid TOML"),
        ("batch_size = [4, 1, 4]", "'batch_size' has 4 twice"),
        ('form = ["keyed", "keyed"]', "'form' has \"keyed\" twice"),
        ("[body]\ntop_p = [true, 1, 1]", "'body.top_p' has 1 twice"),
    ],
)
def test_a_wrong_space_is_told_with_its_remedy(tmp_path: Path, text: str, said: str) -> None:
    """One line, which names the file and the key."""
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"space\.toml") as raised:
        load_space(str(path))
    assert said in str(raised.value)


def test_a_space_that_the_task_cannot_fill() -> None:
    """More examples than there are, or more settings than can pay."""
    with pytest.raises(ConfigError, match="the task has 12"):
        settings_of(Space(examples=(20,)), TASK)
    with pytest.raises(ConfigError, match="400 are the most"):
        settings_of(Space(batch_size=tuple(range(1, 300))), TASK)


# -- examples ----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(0, 30))
def test_chosen_examples_cover_and_balance(outputs: list[str], count: int) -> None:
    """Every output once before any twice, and so on; a smaller choice is the beginning of a larger one."""
    examples = [Example(input=f"text {place}", output=output) for place, output in enumerate(outputs)]
    chosen = chosen_examples(examples, count)
    assert len(chosen) == min(count, len(examples))
    have, all_ = Counter(each.output for each in chosen), Counter(outputs)
    for output, number in have.items():
        assert all(have[other] >= min(number - 1, all_[other]) for other in all_), output
    assert chosen_examples(examples, max(0, count - 1)) == chosen[: max(0, count - 1)] or count > len(examples)


def test_another_order_holds_the_same_examples() -> None:
    """The seed of a setting's order moves examples and takes none away."""
    one, other = (
        task_of(Setting(batch_size=1, examples=9, form="compact", order=order), TASK, Space()).examples
        for order in (0, 3)
    )
    assert one != other
    assert sorted(each.input for each in one) == sorted(each.input for each in other)


# -- gold --------------------------------------------------------------------------------------------------------


def test_the_right_output_is_never_among_what_is_sent() -> None:
    """Nor is the file's own id, which may tell it; the output is spelled as the task does."""
    rows = [{"id": f"red-{n}", "text": f"t{n}", "label": "RED "} for n in range(9)]
    gold = read_gold(raws(rows), TASK, name="gold", field=None, seed=1)
    assert gold.outputs == ["red"] * 9
    assert all(set(record) == {"id", "text"} for record in gold.records)
    assert "red" not in json.dumps(gold.records).lower()
    assert [record["text"] for record in gold.records] != [row["text"] for row in rows]


@pytest.mark.parametrize(
    ("variables", "said"),
    [((9,), "asks for 9 together and the task has 2"), (("together", 2), "together and 2, which are the same"),
     (("one-by-one", 1), "one-by-one and 1, which are the same")],
)  # fmt: skip
def test_variables_that_the_task_does_not_have_or_that_go_alike_are_a_slip(
    variables: tuple[Any, ...], said: str
) -> None:
    """Neither is searched in silence; what differs is a setting each."""
    fields = {"colour": Field(type=FieldType.LABEL, labels=LABELS), "count": Field(type=FieldType.INTEGER)}
    task = Task(instructions="Which?", fields=fields)
    with pytest.raises(ConfigError, match=said):
        settings_of(Space(variables=variables), task)
    apart = Space(batch_size=(1,), form=("keyed",), variables=("together", "one-by-one"))
    assert [each.variables for each in settings_of(apart, task)] == ["together", "one-by-one"]


def test_gold_of_several_variables() -> None:
    """In one object, or each in its own column."""
    fields = {"colour": Field(type=FieldType.LABEL, labels=LABELS), "count": Field(type=FieldType.INTEGER)}
    task = Task(instructions="Which?", fields=fields)
    one = read_gold(
        raws([{"text": "t", "output": '{"colour": "red", "count": 3}'}]), task, name="g", field=None, seed=0
    )
    other = read_gold(raws([{"text": "t", "colour": "red", "count": "3"}]), task, name="g", field=None, seed=0)
    assert one.outputs == other.outputs == [{"colour": "red", "count": 3}]
    assert [set(record) for record in one.records + other.records] == [{"id", "text"}] * 2


def test_gold_that_cannot_be_used_is_left_out_and_told() -> None:
    """A label outside the set, a missing one, no input; with none left there is nothing to search with."""
    rows = [{"text": "t", "label": "red"}, {"text": "t", "label": "pink"}, {"text": "t"}]
    gold = read_gold(raws(rows), TASK, name="gold", field=None, seed=0)
    assert (len(gold.records), gold.unusable) == (1, 2)
    assert "line 2" in gold.problems[0]
    with pytest.raises(InputError, match="no record that could be used"):
        read_gold(raws(rows[1:2]), TASK, name="gold", field=None, seed=0)
    with pytest.raises(ConfigError, match="--gold-field"):
        read_gold(raws([{"text": "t", "truth": "red"}]), TASK, name="gold", field=None, seed=0)
    sent = Task(instructions="Which?", labels=LABELS, input=["text", "label"])
    with pytest.raises(ConfigError, match="the task sends"):
        read_gold(raws(rows), sent, name="gold", field="label", seed=0)


# -- the task file -----------------------------------------------------------------------------------------------


@given(instructions=texts, label=texts, note=texts, key=texts)
def test_a_written_task_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, instructions: str, label: str, note: str, key: str
) -> None:
    """Whatever stands in its texts, and whatever a comment says."""
    if not instructions.strip() or not key.strip():
        return
    task = Task(
        instructions=f'{instructions}\n\n"""\\{instructions}\n',
        labels={label: note, f"{label}x": ""},
        abstain=f"{label}y",
        examples=[Example(input={key: note, f"{key}2": 3}, output=label)],
    )
    path = tmp_path_factory.mktemp("task") / "task.toml"
    path.write_text(task_toml(task, comment=[note, "two\nlines"]), encoding="utf-8", newline="")
    read = load_task(str(path))
    assert read.instructions == task.instructions
    assert (read.labels, read.abstain, read.examples) == (task.labels, task.abstain, task.examples)


def test_a_written_task_with_variables(tmp_path: Path) -> None:
    """Fields, with their own types, labels and descriptions."""
    fields = {
        "a b": Field(type=FieldType.LABELS, labels=["x", "y"], description='so "it" is'),
        "n": Field(type=FieldType.NUMBER),
    }
    task = Task(instructions="Which?", fields=fields, input=["text"], template="{instructions}{format}", id="key")
    path = tmp_path / "task.toml"
    path.write_text(task_toml(task))
    assert load_task(str(path)) == task
