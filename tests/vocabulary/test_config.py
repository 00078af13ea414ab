"""The configuration of a run: what is out of range is named before anything is sent, and secrets stay secret."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.vocabulary.config import Endpoint, Limits, Packing, Prices, Recovery, RunConfig, check_config
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import Secret

PRICES = Prices(input=1, output=1)


def test_the_defaults_are_in_range() -> None:
    """A configuration of nothing but defaults is fine, and so is one at the edges."""
    check_config(RunConfig())
    check_config(RunConfig(packing=Packing(batch_size=1, max_wait_s=0), recovery=Recovery(max_failed=1)))
    check_config(RunConfig(budget_usd=0.01, prices=PRICES))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RunConfig(packing=Packing(batch_size=0)), "batch size must be at least 1, not 0"),
        (RunConfig(packing=Packing(max_input_tokens=-1)), "max input tokens must be at least 1, not -1"),
        (RunConfig(packing=Packing(look_ahead=0)), "look-ahead must be at least 1"),
        (RunConfig(packing=Packing(max_wait_s=-0.1)), "max wait must be a number from 0 up, not -0.1"),
        (RunConfig(limits=Limits(requests_per_minute=0.5)), "requests per minute must be at least 1"),
        (RunConfig(limits=Limits(tokens_per_minute=float("inf"))), "tokens per minute must be at least 1"),
        (RunConfig(limits=Limits(tokens_per_minute=float("nan"))), "tokens per minute must be at least 1"),
        (RunConfig(limits=Limits(max_concurrency=0)), "max concurrency must be at least 1"),
        (RunConfig(recovery=Recovery(lone_attempts=0)), "lone attempts must be at least 1"),
        (RunConfig(recovery=Recovery(max_failed=1.1)), "max failed is a share from 0 to 1, not 1.1"),
        (RunConfig(recovery=Recovery(max_failed=float("nan"))), "max failed is a share from 0 to 1"),
        (RunConfig(budget_tokens=0), "the budget in tokens must be above 0, not 0"),
        (RunConfig(budget_usd=0, prices=PRICES), "the budget must be above 0, not 0"),
    ],
)
def test_what_is_out_of_range_is_named(config: RunConfig, words: str) -> None:
    """The message holds the option, the range and the value."""
    with pytest.raises(ConfigError) as raised:
        check_config(config)
    assert str(raised.value).startswith(words)


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda value: f"{[value]!r}"])
def test_a_secret_does_not_show_itself(show: Any) -> None:
    """Not in a text, nor inside another object's; only where it is asked to."""
    endpoint = Endpoint(base_url="http://x", model="m", api_key=Secret("hunter2"))
    for value in (endpoint.api_key, endpoint):
        assert "hunter2" not in show(value)
    assert Secret("hunter2").reveal() == "hunter2"


def test_a_secret_is_not_encoded_by_accident() -> None:
    """An endpoint that is written to a store or a report raises rather than leak."""
    with pytest.raises(TypeError):
        msgspec.json.encode(Endpoint(base_url="http://x", model="m", api_key=Secret("hunter2")))


def test_a_key_as_a_plain_string_is_a_secret_too() -> None:
    """It is taken, and shows itself nowhere."""
    endpoint = Endpoint(base_url="http://e/v1", model="m", api_key="hush-hush")  # type: ignore[arg-type]
    assert endpoint.api_key is not None
    assert endpoint.api_key.reveal() == "hush-hush"
    assert "hush" not in repr(endpoint)
