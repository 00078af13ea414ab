"""What looks like a key, by its name or by its form, is shown nowhere; what does not is left alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from engine.vocabulary.config import Endpoint
from engine.vocabulary.secrets import (
    Secret,
    has_secret_form,
    hidden,
    names_secret,
    secret_parameter,
    secret_place,
    shown_address,
)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "api-key",
        "x-api-key",
        "X-Goog-Api-Key",
        "apiKey",
        "api_key",
        "X-Auth-Token",
        "Cookie",
        "secret",
    ],
)
def test_names_of_keys_are_known(name: str) -> None:
    """However they are spelled."""
    assert names_secret(name)


@pytest.mark.parametrize(
    "name", ["X-Team", "max_tokens", "prompt_cache_key", "stop_tokens", "keyword", "monkey", "author", "Accept", "user"]
)
def test_other_names_are_left_alone(name: str) -> None:
    """A word that only begins like one, or the key of a cache entry, is none."""
    assert not names_secret(name)


@pytest.mark.parametrize(
    "text", ["sk-proj-abcdefgh1234", "Bearer abcdef", "gsk_0123456789abcdef", "x sk-or-v1-0123456789ab"]
)
def test_forms_of_keys_are_known(text: str) -> None:
    """Also under a name that says nothing, or within a text."""
    assert has_secret_form(text)
    assert secret_place({"metadata": [{"note": text}]}) == "note"
    assert text not in repr(hidden({"metadata": [{"note": text}]}))


@pytest.mark.parametrize("text", ["task-based labelling of text", "disk-space-analysis", "hf_model", "a basic one"])
def test_plain_words_are_none(text: str) -> None:
    """They hold no key by their form."""
    assert not has_secret_form(text)


def test_parameters_that_only_sound_like_keys_are_kept() -> None:
    """Special tokens and numbers are parameters of many servers."""
    body = {"eos_token": "<|endoftext|>", "max_tokens": 5, "prompt_cache_key": "reviews-2026-11", "top_k": 1}
    assert secret_place(body) is None
    assert hidden(body) == body


KEY = "sk-hunter2-0123456789"


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda value: f"{[value]!r}", pretty_repr])
def test_an_endpoint_shows_no_key_wherever_it_is(show: Any) -> None:
    """Not as the key, a header, a part of the body or of the address; with `rich` neither."""
    endpoint = Endpoint(
        base_url=f"https://user:{KEY}@host/v1?api-key={KEY}",
        model="m",
        api_key=Secret(KEY),
        headers={"X-Gate": "hunter2-in-a-header", "api-key": KEY},
        extra_body={"metadata": {"user_token": "hunter2hunter2"}, "note": f"with {KEY}", "top_p": 0.5},
    )
    assert "hunter2" not in show(endpoint)
    assert "top_p" in show(endpoint)


def test_a_secret_is_not_copied_into_files() -> None:
    """Nobody would look after the copy."""
    with pytest.raises(TypeError):
        pickle.dumps(Secret(KEY))
    with pytest.raises(TypeError):
        copy.deepcopy(Secret(KEY))


@settings(deadline=None)
@given(st.text(max_size=40))
def test_an_address_never_raises(text: str) -> None:
    """Whatever somebody takes for one."""
    for url in (text, f"http://{text}", f"https://u:p@h/{text}"):
        shown_address(url)
        hidden({text: url})


def test_a_parameter_of_an_address_may_be_a_key() -> None:
    """A version is none."""
    assert secret_parameter("https://h/v1?api-version=2024-10-21") is None
    assert secret_parameter("https://h/v1?api-version=1&api-key=x") == "api-key"
    assert secret_parameter(f"https://h/v1?q={KEY}") == "q"
