"""The table of prices that ships with the package, and one of the user's own in its form."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.prices import PriceTable

_SHIPPED = "prices.toml"


@cache
def shipped_prices() -> PriceTable:
    """What the package knows; each list says of when and from where."""
    return msgspec.toml.decode((files("engine.adapters") / _SHIPPED).read_bytes(), type=PriceTable)


def read_prices(path: str) -> PriceTable:
    """A table of the user's.

    :raises ConfigError: it cannot be read, or is no such table.
    """
    try:
        table = msgspec.toml.decode(Path(path).read_bytes(), type=PriceTable)
    except OSError as error:
        raise ConfigError(f"the prices in {path} cannot be read: {error.strerror or error}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no table of prices ({error}); {_FORM}") from None
    for listed in table.lists:
        for model, price in listed.models.items():
            numbers = (price.input, price.output, price.cached_input or 0.0, price.cache_write or 0.0)
            if not all(number >= 0 and math.isfinite(number) for number in numbers):
                raise ConfigError(f"{path}: the price of {model} must be numbers from 0 up")
    return table


_FORM = (
    'its form is: [[lists]] with as_of = "2026-01", source = "where it says so" and, to be used for one host only, '
    'host = "api.example.com"; then [lists.models] with "model" = { input = 0.15, cached_input = 0.075, output = 0.6 } '
    "and cache_write beside them where a provider takes more for what it writes into its cache"
)
