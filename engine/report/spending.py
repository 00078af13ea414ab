"""Tokens and money: what went where, what it cost, and what minibatches saved."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from engine.decide.pricing import cost_usd, worst_usd
from engine.report.document import Cost, NoCost, TokenParts, Tokens
from engine.report.ledger import Ledger
from engine.report.metrics import Counters
from engine.report.saving import saving
from engine.vocabulary.config import Prices


def tokens(counters: Counters, ledger: Ledger, static_tokens: int | None) -> Tokens:
    both = counters.tokens_input + counters.tokens_output
    static_tokens = counters.counted.static_tokens(static_tokens)
    votes = counters.votes.use()
    return Tokens(
        input=counters.tokens_input,
        cached=counters.tokens_cached,
        written=counters.tokens_written,
        output=counters.tokens_output,
        reasoning=counters.tokens_reasoning,
        wasted=counters.tokens_wasted,
        wasted_share=round(counters.tokens_wasted / both, 6) if both else None,
        estimated=counters.tokens_estimated,
        unconfirmed=counters.unconfirmed_input + counters.unconfirmed_output,
        saved=saving(
            counters.tokens_input, ledger, static_tokens, voted=0 if votes is None else sum(votes.settled_by_round)
        ),
        parts=_token_parts(counters, ledger, static_tokens),
    )


def _token_parts(counters: Counters, ledger: Ledger, static_tokens: int | None) -> TokenParts | None:
    """What is estimated of the static prompt never makes the sum another one."""
    total, calls = counters.tokens_input + counters.tokens_output, ledger.calls
    if not total:
        return None
    audits = min(total, calls.audit_input + calls.audit_output)
    wasted = min(total - audits, counters.tokens_wasted)
    answers = min(total - audits - wasted, counters.tokens_output - calls.wasted_output - calls.audit_output)
    reasoning = max(0, min(answers, counters.tokens_reasoning - calls.wasted_reasoning - calls.audit_reasoning))
    gave_input = total - audits - wasted - answers
    cached = min(gave_input, counters.tokens_cached - calls.wasted_cached - calls.audit_cached)
    static = min(gave_input - cached, max(0, (static_tokens or 0) * calls.gave - cached))
    records = gave_input - cached - static
    return TokenParts(
        records=records,
        static=static,
        cached=cached,
        answers=answers - reasoning,
        reasoning=reasoning,
        audits=audits,
        wasted=wasted,
    )


def unconfirmed_notices(counters: Counters) -> list[str]:
    tokens = counters.unconfirmed_input + counters.unconfirmed_output
    if not tokens:
        return []
    return [
        f"some requests ended without any reply (timeouts, resets, given up): the endpoint may bill up to {tokens:,} "
        "tokens for them, which are in no other figure here; a budget counts them"
    ]


def _unconfirmed_usd(prices: Prices, counters: Counters) -> float:
    """What attempts without a reply may cost at the most."""
    usd = worst_usd(prices, input_tokens=counters.unconfirmed_input, output_tokens=counters.unconfirmed_output)
    return round(usd, 6)


def cost_of(counters: Counters, ledger: Ledger, prices: Prices | None, valid: int) -> Cost | None:
    if prices is None:
        return None
    usd = cost_usd(
        prices,
        input_tokens=counters.tokens_input,
        cached_tokens=counters.tokens_cached,
        output_tokens=counters.tokens_output,
        written_tokens=counters.tokens_written,
    )
    calls = ledger.calls
    wasted = cost_usd(
        prices,
        input_tokens=calls.wasted_input,
        cached_tokens=calls.wasted_cached,
        output_tokens=calls.wasted_output,
        written_tokens=calls.wasted_written,
    )
    cached = prices.input if prices.cached_input is None else prices.cached_input
    return Cost(
        usd=round(usd, 9),
        unconfirmed_usd=_unconfirmed_usd(prices, counters),
        per_1000_valid_usd=round(1000 * usd / valid, 9) if valid else None,
        wasted_usd=round(wasted, 9),
        prices={"input": prices.input, "cached_input": cached, "output": prices.output, **_writes(prices)},
        source=prices.source,
        as_of=prices.as_of,
    )


def _writes(prices: Prices) -> dict[str, float]:
    return {} if prices.cache_write is None else {"cache_write": prices.cache_write}


def no_cost(prices: Prices | None, endpoint: str) -> NoCost | None:
    """Why there is no cost, in one word. A private or loopback address is a machine of one's own."""
    if prices is not None:
        return None
    if "://" not in endpoint:
        return "embedded"
    try:
        host = urlsplit(endpoint).hostname or ""
        return "local" if host == "localhost" or ipaddress.ip_address(host).is_private else "unpriced"
    except ValueError:
        return "unpriced"
