"""A table of prices: what lists of providers said at a date."""

from __future__ import annotations

import msgspec


class ListedPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one model, in US dollars per million tokens. Cached input without a price costs what other input does, and so
    does `cache_write`: input that is written into the provider's cache."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None


class PriceList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider's.

    :ivar host: the only one that these prices are of; None: whoever serves a model of that name.
    :ivar as_of: the day, month or year in which they were so.
    :ivar source: the page that says it.
    """

    as_of: str
    source: str
    models: dict[str, ListedPrice]
    host: str | None = None


class PriceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lists in the order in which they count: the first that knows a model wins."""

    lists: list[PriceList] = []
