"""The first task file: always valid, and a sensible guess on data that looks like data."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from engine.decide.starter import starter_task
from engine.vocabulary.task import Task, make_task

VALUE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=60)
    | st.sampled_from(["pos", "neg", 'q"', "tab\t", "\x00\x7f", "'''", '"""', "\\", "\u2028\r\n", "# no comment"])
    | st.lists(st.integers(), max_size=2)
)
ROWS = st.lists(
    st.dictionaries(st.text(max_size=8) | st.sampled_from(["id", "text", "label", "a b"]), VALUE, max_size=6),
    max_size=12,
)


def parsed(rows: list[dict[str, Any]], **options: Any) -> Task:
    text = starter_task(rows, **{"source_name": "in.jsonl", **options})
    text.encode()
    return make_task(tomllib.loads(text), where="TASK.toml")


def make_review(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "review_id": f"r{number}",
        "url": f"https://example.org/{number}",
        "date": f"2024-01-{number + 1:02}",
        "shop": "the one shop of all the reviews in this file",
        "title": f"My stay number {number} in the old hotel",
        "text": f'It was "number {number}"\nand I would come again, \\ or not.',
        "stars": number % 5,
        "lang": ["de", "en"][number % 2],
        "sentiment": "good" if number < 10 else "bad",
    } | changes


REVIEWS = [make_review(number) for number in range(20)]


@given(ROWS, st.text(max_size=20), st.none() | st.text(max_size=5))
@example([{"label": label, "text": f"{label} text {n}"} for n in range(5) for label in ('a"\\', "b")], 'x"\n[y]', "\n")
def test_any_rows_make_a_valid_task(rows: list[dict[str, Any]], source_name: str, id_field: str | None) -> None:
    """Whatever the rows hold, the text is TOML and a valid task, with comments that end where they should."""
    parsed(rows, source_name=source_name, id_field=id_field)


@given(st.text(min_size=1, max_size=200).filter(str.strip))
def test_examples_hold_the_text_as_it_is(text: str) -> None:
    """The text of an example is, character by character, the text of its row."""
    rows = [{"text": f"{text} {number}", "label": ["x", "y"][number % 2]} for number in range(4)]
    texts = [row["text"] for row in rows]
    assert all(shown.input in texts for shown in parsed(rows).examples)


def test_reviews() -> None:
    """Id, text and label columns are found; addresses, dates, constants and numbers are left out."""
    task = parsed(REVIEWS)
    assert (task.id, task.input, task.labels) == ("review_id", ["title", "text"], ["good", "bad"])
    assert [shown.output for shown in task.examples] == ["good", "bad", "good", "bad"]
    assert task.examples[0].input == {key: REVIEWS[0][key] for key in ("title", "text")}


def test_labels_do_not_stand_in_runs() -> None:
    """Where a label has few rows, there are fewer examples rather than a run of the other label."""
    rows = [make_review(number, sentiment="bad" if number == 3 else "good") for number in range(20)]
    outputs = [shown.output for shown in parsed(rows).examples]
    assert outputs == ["good", "bad", "good"]


def test_number_and_truth_labels() -> None:
    """A column named as labels are named serves even if it holds numbers or true and false; the labels are text."""
    for column, labels in (("label", [0, 1]), ("is_label", [True, False])):
        rows = [{"text": f"a text about the number {number}", column: labels[number % 2]} for number in range(8)]
        assert parsed(rows).labels == (["0", "1"] if column == "label" else ["true", "false"])


def test_nothing_to_go_by() -> None:
    """Without rows, or without labels, there are two labels to be changed, no examples and no id."""
    for rows in ([], [{"text": f"some words about {number}"} for number in range(9)]):
        task = parsed(rows)
        assert (task.labels, task.examples, task.id) == (["first label", "second label"], [], None)
    assert parsed([]).input is None


def test_the_id() -> None:
    """The id is the field named so, else one that ends in id, else one that differs in every row and looks like ids."""
    texts = [f"words and words {number}" for number in range(6)]
    assert parsed([{"text": text, "other_id": n, "ID": f"x{n}"} for n, text in enumerate(texts)]).id == "ID"
    assert parsed([{"text": text, "ID": "same", "tweetId": n} for n, text in enumerate(texts)]).id == "tweetId"
    assert parsed([{"text": text, "nr": n} for n, text in enumerate(texts)]).id == "nr"
    assert parsed([{"text": text, "when": f"2024-01-0{n}"} for n, text in enumerate(texts, 1)]).id is None
    assert parsed(REVIEWS, id_field="title").id == "title"
    assert parsed(REVIEWS, id_field="title").input == ["text"]


def test_long_texts_are_cut_in_examples() -> None:
    """An example of a thousand words would be paid for in every request."""
    rows = [{"text": "word " * 1000 + str(number), "label": ["x", "y"][number % 2]} for number in range(4)]
    assert all(len(shown.input) < 610 for shown in parsed(rows).examples)


def test_every_key_is_explained() -> None:
    """Each key of a task stands in the file, in force or as a comment."""
    text = starter_task(REVIEWS, source_name="in.csv")
    assert all(key in text for key in (*Task.__struct_fields__, "[fields.topic]", 'type = "label"', "description"))


def test_the_same_rows_make_the_same_text() -> None:
    """Nothing is left to chance."""
    assert starter_task(REVIEWS, source_name="a") == starter_task(list(REVIEWS), source_name="a")
