"""Pieces of a key, and a key with something odd inside, in what an endpoint says."""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.providers.fragments import Fragments
from engine.adapters.providers.redaction import Redaction
from engine.vocabulary.secrets import HIDDEN

KEY = "sk-SECRETKEY1234567890abcdef"
LEAST, LEAST_IN_ANSWERS = 8, 16


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


def _wide(text: str) -> str:
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


@pytest.mark.parametrize(
    "said",
    [
        KEY[:25],
        KEY[:LEAST],
        KEY[5 : 5 + LEAST],
        KEY[-LEAST:],
        f"{KEY[:13]} and then {KEY[13:]}",
        " ".join(KEY),
        KEY.upper(),
        KEY.replace("-", "\u2011"),
        KEY.replace("-", "%2D"),
        f"&#x73;&#107;-{KEY[3:]}",
        f"{KEY[:8]}\u200b{KEY[8:]}",
        "\u00ad".join(KEY),
        _escaped(KEY),
        json.dumps(_escaped(KEY)),
        _wide(KEY),
        quote(_wide(KEY[:10])) + KEY[10:],
    ],
)
def test_no_eight_characters_of_a_key_in_a_row_are_left_in_an_error(said: str) -> None:
    """Its beginning, its halves, written with gaps or in other letters: what is left is no piece that helps anybody."""
    redaction = Redaction([KEY])
    for shown in (redaction.text(f"no: {said}."), redaction.body(f"no: {said}.".encode()).decode()):
        assert shown.startswith("no: ")
        assert shown.endswith((".", '".')), "what stands around it stays"
        bare = "".join(character for character in shown.lower() if character.isascii() and character.isalnum())
        plain = KEY.replace("-", "").lower()
        assert not any(plain[at : at + LEAST] in bare for at in range(len(plain) - LEAST + 1))
        assert HIDDEN in shown


@pytest.mark.parametrize(
    "said",
    [
        KEY, KEY[:25], KEY[:LEAST_IN_ANSWERS], _escaped(KEY), f"{KEY[:8]}\u200b{KEY[8:]}", f"{KEY}\u3002",
        " ".join(KEY), "\\n".join((KEY[:9], KEY[9:])), "".join(f"%{ord(letter):02x}" for letter in KEY),
        "".join(f"&#{ord(letter)};" for letter in KEY), "".join(f"&#x{ord(letter):x};" for letter in KEY),
        KEY[::-1], KEY.encode().hex(), b64encode(KEY.encode()).decode(),
    ],
)  # fmt: skip
def test_no_sixteen_characters_of_a_key_in_a_row_are_left_in_an_answer(said: str) -> None:
    """An answer goes into the output: also where a model was made to spell the key as JSON would."""
    shown = Redaction([KEY]).answer(f'{{"output": "{said}"}}')
    assert shown.startswith(f'{{"output": "{HIDDEN}')
    assert "SECRET" not in shown
    assert "u0053" not in shown


def test_a_short_key_is_a_word_and_its_pieces_stay() -> None:
    """`localhost-key` is what people give to a server that wants none: an error about localhost stays readable."""
    message = "nobody listens on localhost, and localhos is no name"
    assert Redaction(["localhost-key"]).text(message) == message


_TEXTS = st.text(
    st.sampled_from([*KEY, "\u200b", "\u2011", "\\", "u", "0", "%", "&", "#", ";", " ", "\uff21", "\u4e2d"])
)


@settings(max_examples=300, deadline=None)
@given(_TEXTS, st.integers(0, len(KEY) - LEAST), st.integers(LEAST, len(KEY)), _TEXTS)
def test_whatever_stands_around_it_a_piece_is_found(before: str, at: int, length: int, after: str) -> None:
    """Where a text is clean it is left as it is; where a piece was put in, none is left."""
    fragments = Fragments([KEY], least=LEAST)
    piece = KEY[at : at + max(LEAST, length)]
    shown = fragments.hide(f"{before}|{piece}|{after}")
    lowered, runs = shown.lower(), [KEY[i : i + LEAST].lower() for i in range(len(KEY) - LEAST + 1)]
    assert not any(run in lowered for run in runs)
    assert fragments.hide(shown) == shown


@given(st.text())
def test_what_holds_no_piece_stays(text: str) -> None:
    """Every character of it, surrogates and marks as well."""
    assert Fragments([KEY], least=LEAST).hide(text) == text
    assert Redaction([KEY]).answer(text) == text
