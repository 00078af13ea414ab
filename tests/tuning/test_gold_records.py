"""Gold is read as it stands: each record with its own right output, whatever is left out between them."""

from __future__ import annotations

import pytest

from engine.decide.gold_records import read_gold
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Field, FieldType, Task
from engine.vocabulary.values import RawRecord

TASK = Task(instructions="Which?", labels=["red", "green", "blue"], input=["text"])


@pytest.mark.parametrize("seed", range(3))
def test_a_record_that_cannot_be_sent_moves_no_label_to_another(seed: int) -> None:
    """It has a right output and lacks the text: both are left out, and the line of each other is known."""
    rows = [
        {"text": "is red", "label": "red"},
        {"label": "green"},
        {"text": "is blue", "label": "blue"},
        {"text": "is green", "label": "green"},
        {"text": "is pink", "label": "pink"},
    ]
    raws = [RawRecord(position=n, line=n + 1, data=row) for n, row in enumerate(rows)]
    gold = read_gold(raws, TASK, name="gold", field=None, seed=seed)
    assert {record["text"]: output for record, output in zip(gold.records, gold.outputs, strict=True)} == {
        "is red": "red",
        "is blue": "blue",
        "is green": "green",
    }
    assert sorted(gold.lines) == [1, 3, 4]
    assert [rows[line - 1]["text"] for line in gold.lines] == [record["text"] for record in gold.records]
    assert gold.unusable == 2


@pytest.mark.parametrize("field", [None, "right"])
def test_first_records_without_a_label_are_bad_records_and_no_other_file(field: str | None) -> None:
    """A later one says which field it is; where none does, that is told with the fields that there are."""
    name = field or "label"
    rows = [{"text": "one"}, {"text": "two", "source": "x"}, {"text": "is red", name: "red"}, {"text": "four"}]
    raws = [RawRecord(position=n, line=n + 1, data=row) for n, row in enumerate(rows)]
    gold = read_gold(raws, TASK, name="gold", field=field, seed=0)
    assert (gold.outputs, gold.lines, gold.unusable) == (["red"], [3], 3)
    assert [problem.split(":")[0] for problem in gold.problems] == ["line 1", "line 2", "line 4"]
    with pytest.raises(ConfigError, match=r"--gold-field NAME \(there are: text\)"):
        read_gold(raws[:2], TASK, name="gold", field=field, seed=0)


@pytest.mark.parametrize(("cell", "right"), [("True", True), ("false", False), ("TRUE ", True), (True, True)])
def test_booleans_of_csv_are_read_however_they_are_written(cell: object, right: bool) -> None:
    """As Python writes them, a spreadsheet, and JSON."""
    task = Task(instructions="Is it?", fields={"loud": Field(type=FieldType.BOOLEAN)}, input=["text"])
    raw = RawRecord(position=0, line=2, data={"text": "oh", "loud": cell})
    assert read_gold([raw], task, name="gold", field=None, seed=0).outputs == [{"loud": right}]
