"""What tokens cost, and what minibatches save of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from engine.vocabulary.config import Prices
from engine.vocabulary.prices import PriceList

_MILLION = 1_000_000
_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})\Z")  # gpt-4o-mini-2024-07-18, claude-3-haiku-20240307


def cost_usd(
    prices: Prices, *, input_tokens: int, cached_tokens: int, output_tokens: int, written_tokens: int = 0
) -> float:  # fmt: skip
    """Dollars for tokens, `cached_tokens` being part of `input_tokens` (as OpenAI and Gemini count them).

    :param written_tokens: part of `input_tokens` as well: written into the provider's cache.
    """
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    write_price = prices.input if prices.cache_write is None else prices.cache_write
    fresh = max(0, input_tokens - cached_tokens - written_tokens)
    paid = fresh * prices.input + cached_tokens * cached_price + written_tokens * write_price
    return (paid + output_tokens * prices.output) / _MILLION


def worst_usd(prices: Prices, *, input_tokens: int, output_tokens: int) -> float:
    """The most that tokens may cost: none of them cached, and all written into the cache where that costs more."""
    written = input_tokens if (prices.cache_write or 0.0) > prices.input else 0
    return cost_usd(
        prices, input_tokens=input_tokens, cached_tokens=0, output_tokens=output_tokens, written_tokens=written
    )


def corpus_input_tokens(*, records: int, batch_size: int, static_tokens: float, tokens_per_record: float) -> float:
    """Input tokens of a whole corpus: ``ceil(n / B) * F + n * i``, the static part F once a call, each input i once.

    Source: the six input counts of the article that this project grew from obey it to within one token.
    """
    return math.ceil(records / batch_size) * static_tokens + records * tokens_per_record


def input_saving(*, static_share: float, batch_size: int) -> float:
    """Share of the input tokens saved against one record a call: ``r (1 - 1/B) / (1 + r)``.

    :param static_share: r, static tokens per record's tokens. Source: Schnabel, "Stop wasting LLM tokens", 2024.
    """
    return static_share * (1 - 1 / batch_size) / (1 + static_share)


def listed_price(lists: Iterable[PriceList], host: str, model: str) -> Prices | None:
    """What a model costs at a host; None where nobody says. A dated snapshot costs what its model does, unless the
    table has it by its own name.

    Only the host's own list counts: the same name elsewhere may be another offer.
    """
    return _found([listed for listed in lists if listed.host in (None, host)], model)


def listed_elsewhere(lists: Iterable[PriceList], model: str) -> Prices | None:
    """What anybody takes for a model of that name: a hint, and never used as a price."""
    return _found(lists, model)


def _found(lists: Iterable[PriceList], model: str) -> Prices | None:
    known = list(lists)
    for name in (model, _SNAPSHOT.sub("", model)):
        for listed in known:
            price = listed.models.get(name)
            if price is not None:
                return Prices(
                    input=price.input,
                    output=price.output,
                    cached_input=price.cached_input,
                    cache_write=price.cache_write,
                    source=listed.source,
                    as_of=listed.as_of,
                )
    return None
