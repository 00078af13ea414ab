"""What tokens cost, and what minibatches save of them."""

from __future__ import annotations

import math

from engine.vocabulary.config import Prices

_MILLION = 1_000_000


def cost_usd(prices: Prices, *, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
    """Dollars for tokens, `cached_tokens` being part of `input_tokens` (as OpenAI and Gemini count them)."""
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    fresh = max(0, input_tokens - cached_tokens)
    return (fresh * prices.input + cached_tokens * cached_price + output_tokens * prices.output) / _MILLION


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
