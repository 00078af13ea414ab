"""Tokens and money: what went where, what it cost, and what minibatches saved."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from engine.decide.pricing import cost_usd
from engine.report.document import Cost, NoCost, Saving, TokenParts, Tokens
from engine.report.ledger import Ledger
from engine.report.metrics import Counters
from engine.vocabulary.config import Prices

SAVING_FORMULA = "static_tokens * (answers - calls)"


def tokens(counters: Counters, ledger: Ledger, static_tokens: int | None) -> Tokens:
    both = counters.tokens_input + counters.tokens_output
    return Tokens(
        input=counters.tokens_input,
        cached=counters.tokens_cached,
        output=counters.tokens_output,
        reasoning=counters.tokens_reasoning,
        wasted=counters.tokens_wasted,
        wasted_share=round(counters.tokens_wasted / both, 6) if both else None,
        estimated=counters.tokens_estimated,
        unconfirmed=counters.unconfirmed_input + counters.unconfirmed_output,
        saved=_saving(counters.tokens_input, ledger, static_tokens),
        parts=_token_parts(counters, ledger, static_tokens),
    )


def _token_parts(counters: Counters, ledger: Ledger, static_tokens: int | None) -> TokenParts | None:
    """What our own count says of the static prompt never makes the sum another one."""
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


def _saving(input_tokens: int, ledger: Ledger, static_tokens: int | None) -> Saving | None:
    """One record a call would have sent the static prompt once an answer, instead of once a call.

    Kind to the other side: our re-asks and failed attempts count against us, and it is assumed to have none.
    """
    answers, calls = ledger.calls.accepted, ledger.calls.billed
    if static_tokens is None or not answers:
        return None
    saved = static_tokens * (answers - calls)
    return Saving(
        input=saved,
        share=round(saved / max(1, input_tokens + saved), 6),
        static_tokens=static_tokens,
        answers=answers,
        calls=calls,
        formula=SAVING_FORMULA,
    )


def _unconfirmed_usd(prices: Prices, counters: Counters) -> float:
    """What attempts without a reply may cost at the most."""
    usd = cost_usd(
        prices,
        input_tokens=counters.unconfirmed_input,
        cached_tokens=0,
        output_tokens=counters.unconfirmed_output,
    )
    return round(usd, 6)


def cost_of(counters: Counters, ledger: Ledger, prices: Prices | None, valid: int) -> Cost | None:
    if prices is None:
        return None
    usd = cost_usd(
        prices,
        input_tokens=counters.tokens_input,
        cached_tokens=counters.tokens_cached,
        output_tokens=counters.tokens_output,
    )
    calls = ledger.calls
    wasted = cost_usd(
        prices,
        input_tokens=calls.wasted_input,
        cached_tokens=calls.wasted_cached,
        output_tokens=calls.wasted_output,
    )
    cached = prices.input if prices.cached_input is None else prices.cached_input
    return Cost(
        usd=round(usd, 9),
        unconfirmed_usd=_unconfirmed_usd(prices, counters),
        per_1000_valid_usd=round(1000 * usd / valid, 9) if valid else None,
        wasted_usd=round(wasted, 9),
        prices={"input": prices.input, "cached_input": cached, "output": prices.output},
        source=prices.source,
        as_of=prices.as_of,
    )


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
