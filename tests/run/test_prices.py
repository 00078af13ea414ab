"""Where prices come from: the user, a table of the user's, the table that ships; and what happens without any."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.adapters.prices import read_prices, shipped_prices
from engine.adapters.providers.known import PROVIDERS
from engine.decide.pricing import listed_price
from engine.run.prices import priced
from engine.vocabulary.config import Endpoint, Prices, RunConfig
from engine.vocabulary.errors import ConfigError

OPENAI = "https://api.openai.com/v1"


def prices_of(base_url: str, model: str, config: RunConfig | None = None, own: Path | None = None) -> Prices | None:
    """What a run there would reckon with."""
    table = None if own is None else read_prices(str(own))
    return priced(config or RunConfig(), Endpoint(base_url=base_url, model=model), own=table).prices


def test_the_table_says_of_when_and_from_where_and_knows_every_provider() -> None:
    """Each list has a date, a page and one host; no price is absurd, and none of cached input above that of other."""
    lists = shipped_prices().lists
    assert {listed.host for listed in lists} >= {provider.host for provider in PROVIDERS.values()}
    assert sum(len(listed.models) for listed in lists) >= 40
    for listed in lists:
        assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", listed.as_of)
        assert listed.source.startswith("https://")
        for price in listed.models.values():
            assert 0 < price.input <= price.output <= 100
            assert price.cached_input is None or 0 < price.cached_input <= price.input


def test_a_known_model_has_its_price_with_its_date() -> None:
    """At its provider's own host; what it is from goes with it into the report."""
    prices = prices_of(OPENAI, "gpt-4o-mini")
    assert prices == Prices(
        input=0.15, output=0.60, cached_input=0.075, source="https://openai.com/api/pricing", as_of="2025-08"
    )


def test_a_snapshot_costs_what_its_model_does_unless_it_is_listed() -> None:
    """By its date only: another suffix is another model."""
    lists = shipped_prices().lists
    plain, dated, listed = (
        listed_price(lists, "api.openai.com", name) for name in ("gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-05-13")
    )
    assert plain is not None
    assert plain == dated
    assert listed is not None
    assert listed.input > plain.input
    assert listed_price(lists, "api.openai.com", "gpt-4o-audio-preview") is None
    assert listed_price(lists, "api.anthropic.com", "claude-3-haiku-20240307") is not None


@pytest.mark.parametrize(
    "base_url", ["http://localhost:4000/v1", "https://proxy.example/v1", "https://api.openai.com.evil.example/v1"]
)
def test_a_name_at_another_host_is_another_offer(base_url: str) -> None:
    """A proxy may take more; its price is not guessed."""
    assert prices_of(base_url, "gpt-4o-mini") is None


@pytest.mark.parametrize("base_url", [OPENAI, "http://localhost:4000/v1"])
def test_an_unknown_price_is_an_error_only_with_a_budget_in_dollars(base_url: str) -> None:
    """It names what is missing, and the budget that needs no price."""
    assert prices_of(base_url, "my-own", RunConfig(budget_tokens=5)) is None
    with pytest.raises(ConfigError) as raised:
        prices_of(base_url, "my-own", RunConfig(budget_usd=1))
    for words in ("my-own", "--price-input", "--budget-tokens"):
        assert words in str(raised.value)


def test_a_price_elsewhere_is_a_hint_and_never_used() -> None:
    """Who asks a proxy is told what the provider itself took, and when."""
    with pytest.raises(ConfigError, match=r"0\.15 and 0\.6 \(2025-08, https://openai\.com"):
        prices_of("http://localhost:4000/v1", "gpt-4o-mini", RunConfig(budget_usd=1))


def test_the_embedded_model_has_no_price() -> None:
    """Nothing is billed; a budget in dollars makes no sense there."""
    assert priced(RunConfig(), None).prices is None
    with pytest.raises(ConfigError, match="--price-input"):
        priced(RunConfig(budget_usd=1), None)


def test_the_users_word_wins(tmp_path: Path) -> None:
    """Prices given, then a table of the user's, then the one that ships."""
    own = tmp_path / "prices.toml"
    own.write_text(
        '[[lists]]\nas_of = "2026-11"\nsource = "our contract"\n'
        '[lists.models]\n"gpt-4o-mini" = { input = 1, output = 2 }\n'
    )
    found = prices_of(OPENAI, "gpt-4o-mini", own=own)
    assert found is not None
    assert (found.input, found.source, found.as_of) == (1, "our contract", "2026-11")
    assert prices_of("http://localhost/v1", "gpt-4o-mini", own=own) == found
    given = Prices(input=7, output=8)
    assert prices_of(OPENAI, "gpt-4o-mini", RunConfig(prices=given), own=own) == given
    assert prices_of(OPENAI, "gpt-4o", own=own) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[lists]]", "as_of"),
        ('[[lists]]\nas_of = "x"\nsource = "y"\nmodels = { a = { input = -1, output = 1 } }', "from 0 up"),
        ('[[lists]]\nas_of = "x"\nsource = "y"\nmodels = { a = { input = nan, output = 1 } }', "from 0 up"),
        ('[[lists]]\nas_of = "x"\nsource = "y"\nmodels = { a = { in = 1, output = 1 } }', "[[lists]]"),
        ("not toml", "[[lists]]"),
        ("\x00", "[[lists]]"),
        (None, "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_told_in_one_line(text: str | None, words: str, tmp_path: Path) -> None:
    """With its name and the form that it should have."""
    path = tmp_path / "prices.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_prices(str(path))
    assert str(path) in str(raised.value)
    assert words in str(raised.value)
