"""Gold is read as it stands: each record with its own right output, whatever is left out between them."""

from __future__ import annotations

import pytest

from engine.decide.gold_records import read_gold
from engine.vocabulary.task import Task
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
