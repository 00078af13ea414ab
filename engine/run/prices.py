"""What a run's tokens cost: what the user says, else what the table knows of that model at that host."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from engine.adapters.prices import shipped_prices
from engine.decide.pricing import listed_elsewhere, listed_price
from engine.vocabulary.config import Endpoint, RunConfig
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.prices import PriceTable


def priced(config: RunConfig, endpoint: Endpoint | None, *, own: PriceTable | None = None) -> RunConfig:
    """The configuration with prices, where they are given or known.

    :param endpoint: None for the embedded model, which costs nothing that we could know.
    :param own: a table of the user's, which wins over the one that ships.
    :raises ConfigError: a budget in dollars is asked for, and no price is known.
    """
    if config.prices is not None:
        return config
    if endpoint is not None:
        host = urlsplit(endpoint.base_url).hostname or ""
        found = listed_price([*(own.lists if own else ()), *shipped_prices().lists], host, endpoint.model)
        if found is not None:
            return msgspec.structs.replace(config, prices=found)
    if config.budget_usd is not None:
        raise ConfigError(_unknown(endpoint))
    return config


def _unknown(endpoint: Endpoint | None) -> str:
    """With what other hosts take for it, where the model is known: a proxy most likely passes that on."""
    said = "a budget in dollars needs prices (--price-input and --price-output), in dollars per million tokens"
    if endpoint is None:
        return f"{said}; the embedded model has none. --budget-tokens needs no prices"
    said += f"; none is known of {endpoint.model!r} at {urlsplit(endpoint.base_url).hostname or 'this endpoint'}"
    elsewhere = listed_elsewhere(shipped_prices().lists, endpoint.model)
    if elsewhere is not None:
        said += (
            f". At its own provider it was {elsewhere.input:g} and {elsewhere.output:g} "
            f"({elsewhere.as_of}, {elsewhere.source})"
        )
    return f"{said}. --budget-tokens needs no prices"
