"""The right answer to a text depends on the text alone, and is valid for its schema."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.testing.simulator import first_words, stable_label, stable_output
from engine.testing.simulator.tokens import count, prompt_tokens, truncate

LABELS = ["red", "green", "blue"]

SCHEMAS: list[tuple[dict[str, Any], Any]] = [
    ({"type": "string", "enum": LABELS}, lambda value: value in LABELS),
    ({"type": "boolean"}, lambda value: isinstance(value, bool)),
    ({"type": "integer", "minimum": 3, "maximum": 5}, lambda value: value in (3, 4, 5)),
    ({"type": "number"}, lambda value: isinstance(value, float) and 0 <= value <= 1),
    ({"type": "string"}, lambda value: isinstance(value, str)),
    ({"type": ["null", "string"]}, lambda value: isinstance(value, str)),
    ({"const": 7}, lambda value: value == 7),
    ({"type": "array", "items": {"enum": LABELS}, "minItems": 2}, lambda value: 2 <= len(set(value)) == len(value)),
    ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, lambda value: len(value) <= 2),
    ({"anyOf": [{"type": "integer"}, {"enum": ["none"]}]}, lambda value: value == "none" or isinstance(value, int)),
    ({"properties": {"a": {"enum": LABELS}, "b": {"type": "null"}}}, lambda value: list(value) == ["a", "b"]),
]


@pytest.mark.parametrize(("schema", "is_valid"), SCHEMAS, ids=[str(schema)[:40] for schema, _ in SCHEMAS])
@given(text=st.text())
def test_outputs_are_valid_and_stable(schema: dict[str, Any], is_valid: Any, text: str) -> None:
    """Each output passes its schema, and the same text gets it again."""
    value = stable_output(text, schema)
    assert is_valid(value)
    assert stable_output(text, schema) == value


def test_labels_are_spread_evenly_and_known() -> None:
    """A function of the text that favours a label would hide labels that moved; and it must not change between runs."""
    shares = Counter(stable_label(f"text {number}", LABELS) for number in range(3000))
    assert min(shares.values()) > 900
    for text in ("a", "b", "🙂", ""):
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        assert stable_label(text, LABELS) == LABELS[int.from_bytes(digest, "big") % 3]


def test_fields_are_independent() -> None:
    """Two fields with the same labels do not always get the same one."""
    schema = {"properties": {"one": {"enum": LABELS}, "two": {"enum": LABELS}}}
    pairs = {tuple(stable_output(f"t{number}", schema).values()) for number in range(100)}
    assert len(pairs) == 9
    assert stable_output("t1", schema)["one"] == stable_label("t1", LABELS, "/one")


def test_first_words_of_text_and_of_objects() -> None:
    """Five words, of the first field; runs of space count as one."""
    assert first_words("  a b\n c  d e f g") == "a b c d e"
    assert first_words({"title": "x y", "body": "z"}) == "x y"
    assert first_words({"n": 12}) == "12"
    assert first_words({}) == ""


@given(st.text(), st.integers(0, 40))
def test_truncation_is_exact(text: str, limit: int) -> None:
    """A cut text has just as many tokens as allowed, and is a beginning of the whole."""
    cut = truncate(text, limit)
    assert text.startswith(cut)
    assert count(cut) == min(limit, count(text))


def test_chat_overhead_is_counted() -> None:
    """A prompt costs more than its texts, and the last message is never part of the prefix."""
    total, prefix = prompt_tokens(["You label.", "One text"])
    assert (total, prefix) == (count("You label.") + count("One text") + 11, count("You label.") + 4)
