"""Figures in words, and texts from outside made safe to print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.report import words


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.number(1234567), "1,234,567"),
        (words.short_number(9_999), "9,999"),
        (words.short_number(12_345), "12.3k"),
        (words.short_number(4_560_000), "4.56M"),
        (words.short_number(999_999_999_999), "1000B"),
        (words.plural(1, "record"), "1 record"),
        (words.plural(2, "record"), "2 records"),
        (words.share(1, 3), "33.3 %"),
        (words.share(3, 3), "100 %"),
        (words.share(0, 3), "0 %"),
        (words.share(0, 0), "–"),
        (words.three_digits(1234.5), "1,234"),
        (words.three_digits(12.34), "12.3"),
        (words.three_digits(9.999), "10.0"),
        (words.three_digits(0.01234), "0.0123"),
        (words.three_digits(0), "0.00"),
        (words.seconds(None), "–"),
        (words.seconds(0.0851), "85 ms"),
        (words.seconds(0.00123), "1.2 ms"),
        (words.seconds(4.25), "4.25 s"),
        (words.seconds(59.96), "1 min 00 s"),
        (words.duration(200.4), "3 min 20 s"),
        (words.duration(7500), "2 h 05 min"),
        (words.duration(200_000), "2 d 7 h"),
        (words.clock(42), "0:42"),
        (words.clock(3723), "1:02:03"),
        (words.usd(0), "$0.00"),
        (words.usd(1234.5), "$1,234.50"),
        (words.usd(0.4213), "$0.4213"),
        (words.usd(0.00123), "$0.00123"),
        (words.price(0.15), "$0.15"),
    ],
)
def test_a_figure_in_words(said: str, expected: str) -> None:
    """Short, exact where it counts, with its unit."""
    assert said == expected


@pytest.mark.parametrize(("part", "whole", "said"), [(1, 10_000_000, "< 0.1 %"), (9_999_999, 10_000_000, "> 99.9 %")])
def test_a_share_is_never_rounded_to_nothing_nor_to_everything(part: int, whole: int, said: str) -> None:
    """One failed record in ten million is not 100 % labelled."""
    assert words.share(part, whole) == said


@given(st.text())
def test_a_visible_text_holds_no_control_and_no_direction_mark(text: str) -> None:
    """Whatever a model or a record says cannot repaint a terminal or turn a line round, and can be encoded."""
    said = words.visible(text)
    said.encode()
    assert all(character.isprintable() or character in "\u200c\u200d" or character.isspace() for character in said)
    assert not set(said) & set("\n\r\t\x1b\u2028\u202e\u2066\u200f\u061c\ufeff")


def test_what_can_be_shown_is_left_as_it_is() -> None:
    """Other scripts and emoji made of several characters are texts like any other."""
    text = "naïve 日本語 שלום می‌خواهم 👩‍👩‍👧 <b>&amp;"
    assert words.visible(text) == text
    assert words.visible("a\x1b[31m\u202e\n\ud800") == "a\\x1b[31m\\u202e\\n\\ud800"


@given(st.integers(1, 2_000), st.floats(0.01, 1.0))
def test_a_batch_size_that_was_not_reached_is_told_with_what_was(most: int, part: float) -> None:
    """Where a request held less than nine tenths of it on average; the last batch of a file is no news."""
    said = words.batch_size(most, part * most)
    assert said.startswith(str(most))
    assert ("(mean " in said) is (part * most < 0.9 * most)
    assert words.batch_size(most, None) == str(most)
