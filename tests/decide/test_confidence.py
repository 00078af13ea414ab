"""Confidence by token probabilities: the product of what a label's own letters took, whoever cuts the tokens how."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.providers.logprobs import MOST_TOKENS, read_tokens
from engine.decide.confidence import confidences
from engine.vocabulary.task import Field, FieldType, Task
from engine.vocabulary.values import Token

LABELS = ["rot", "grün", "дом", "a b"]
TASK = Task(instructions="Which?", labels=LABELS)
BOTH = Task(
    instructions="Read it.",
    fields={
        "topic": Field(labels=LABELS),
        "n": Field(type=FieldType.INTEGER),
        "why": Field(type=FieldType.STRING),
    },
)


def tokens_of(text: str, cuts: set[int], logprob: float = 0.0) -> list[Token]:
    """The bytes of a text, cut after so many of them; all tokens equally probable."""
    content = text.encode()
    edges = sorted({0, len(content), *(cut for cut in cuts if 0 < cut < len(content))})
    return [Token(content=content[a:b], logprob=logprob) for a, b in pairwise(edges)]


@given(
    st.lists(st.sampled_from(LABELS), min_size=1, max_size=5),
    st.sets(st.integers(0, 400)),
    st.booleans(),
    st.sampled_from([None, 2]),
    st.sampled_from(["", "```json\n", "Sure:\n"]),
)
def test_a_label_is_as_sure_as_the_tokens_that_its_letters_are_in(
    labels: list[str], cuts: set[int], escaped: bool, indent: int | None, before: str
) -> None:
    """However a reply is spaced and cut into tokens, also within a letter: one that touches the label's letters counts,
    and no other does."""
    document = {"results": [{"id": f"r{number}", "output": label} for number, label in enumerate(labels)]}
    text = before + json.dumps(document, ensure_ascii=escaped, indent=indent) + ("\n```" if before else "")
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(text.encode())), len(text.encode())]
    tokens = [
        Token(content=text.encode()[a:b], logprob=-0.001 * (number + 1))
        for number, (a, b) in enumerate(pairwise(edges))
    ]
    found = confidences(text, tokens, [f"r{number}" for number in range(len(labels))], TASK)
    at = len(before)
    for number, label in enumerate(labels):
        written = json.dumps(label, ensure_ascii=escaped)[1:-1]
        at = text.index(f'"{written}"', at + 1) + 1
        first, last = len(text[:at].encode()), len(text[: at + len(written)].encode())
        at = text.index('"', at + len(written))
        expected = sum(
            one.logprob for one, a, b in zip(tokens, edges, edges[1:], strict=False) if a < last and b > first
        )
        assert found[f"r{number}"] == pytest.approx(math.exp(expected))


def test_a_record_is_as_sure_as_its_least_sure_variable() -> None:
    """Labels and integers count, free text does not."""
    text = '{"results":[{"id":"x","output":{"topic":"rot","n":12,"why":"because"}}]}'
    pieces = ['{"results":[{"id":"x","output":{"topic":"', "rot", '","n":', "12", ',"why":"', "because", '"}}]}']
    probable = [1.0, 0.9, 1.0, 0.5, 1.0, 0.01, 1.0]
    tokens = [
        Token(content=piece.encode(), logprob=math.log(share)) for piece, share in zip(pieces, probable, strict=True)
    ]
    assert "".join(pieces) == text
    assert confidences(text, tokens, ["x"], BOTH) == {"x": pytest.approx(0.5)}


def test_tokens_around_the_text_do_not_matter() -> None:
    """Spaces and marks of the end, which endpoints list and do not show."""
    text = '{"results":[{"id":"x","output":"rot"}]}'
    around = [
        Token(content=b"\n ", logprob=-1.0),
        *tokens_of(text, {30, 31}, -0.1),
        Token(content=b"<|end|>", logprob=-2),
    ]
    assert confidences(text, around, ["x"], TASK) == confidences(text, tokens_of(text, {30, 31}, -0.1), ["x"], TASK)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"results":[{"id":"x","output":"rot"},{"id":"x","output":"rot"}]}', "twice"),
        ('{"results":[{"id":"y","output":"rot"}]}', "of another"),
        ('{"results":[{"id":"x","output":"rot",}]}', "repaired"),
        ('{"results":[{"id":"x","output":"ro', "cut"),
        ('{"results":[{"id":"x"}]}', "no output"),
        ("[" * 100, "deep"),
        ("", "nothing"),
        ("no JSON", "prose"),
    ],
)
def test_nothing_is_said_of_what_is_not_plain(text: str, said: str) -> None:
    """A confidence is never guessed."""
    assert confidences(text, tokens_of(text, {3, 9}), ["x"], TASK) == {}


def test_nothing_is_said_where_the_tokens_are_not_the_text() -> None:
    """Of an endpoint that garbles them, or of a text that was changed on its way."""
    text = '{"results":[{"id":"x","output":"rot"}]}'
    other = tokens_of(text.replace("rot", "tor"), {30})
    assert confidences(text, other, ["x"], TASK) == {}
    assert confidences(text, [], ["x"], TASK) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.text(alphabet='{}[]":,a\\ 1', max_size=60) | json_values.map(json.dumps),
    json_values | st.lists(st.fixed_dictionaries({"token": json_values, "logprob": json_values, "bytes": json_values})),
)
def test_no_reply_breaks_it(text: str, content: Any) -> None:
    """Whatever an endpoint sends for its tokens and its text: shares from 0 to 1, or nothing."""
    for logprobs in ({"content": content}, content):
        tokens = read_tokens(logprobs)
        found = confidences(text, tokens or tokens_of(text, {2}), ["x", "a"], TASK)
        assert all(0.0 <= share <= 1.0 for share in found.values())


def test_a_token_that_cannot_be_read_makes_the_rest_worthless() -> None:
    """Half of the tokens would be a confidence of half a label; and there are never more than can be held."""
    good = {"token": "a", "logprob": -0.5}
    assert read_tokens({"content": [good]}) == (Token(content=b"a", logprob=-0.5),)
    for bad in (
        {"token": "a"},
        {"token": 1, "logprob": -1},
        {"token": "a", "logprob": float("nan")},
        {"token": "a", "logprob": True},
        {"token": "a" * 2_000, "logprob": -1},
        None,
        [],
    ):
        assert read_tokens({"content": [good, bad]}) == ()
    assert read_tokens({"content": [good] * (MOST_TOKENS + 1)}) == ()
    assert read_tokens({"content": [{"token": "\ufffd", "logprob": 0.1, "bytes": [195]}]}) == (
        Token(content=b"\xc3", logprob=0.0),
    )


@pytest.mark.parametrize("at", [0, -1])
def test_another_tokens_infinite_doubt_changes_no_confidence(at: int) -> None:
    """Servers mask tokens with the smallest number of 32 bits. Sums over the whole reply would lose all others to it,
    and every record be certain."""
    text = '{"results": [{"id": "r0", "output": "rot"}, {"id": "r1", "output": "a b"}]}'
    tokens = tokens_of(text, set(range(0, len(text), 3)), logprob=-0.25)
    tokens[at] = Token(content=tokens[at].content, logprob=-3.4e38)
    found = confidences(text, tokens, ["r0", "r1"], TASK)
    assert all(0.2 < confidence < 0.8 for confidence in found.values())
    assert len(found) == 2


def test_a_probability_above_one_is_none() -> None:
    """A logarithm above 0 by more than rounding: whatever the numbers are, they are not what was asked for."""
    assert len(read_tokens({"content": [{"token": "a", "logprob": 1e-6}]})) == 1
    assert read_tokens({"content": [{"token": "a", "logprob": 3.0}, {"token": "b", "logprob": -1.0}]}) == ()
