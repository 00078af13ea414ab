"""What a request took: as it is reported, as it may be billed, and as the endpoint's limits count it."""

from __future__ import annotations

from engine.adapters.store import Spent
from engine.run.dispatch import Sent
from engine.vocabulary.values import Completion, Fault, Usage


def unconfirmed(sent: Sent) -> Spent:
    """What a request without a reply may be billed for: what was sent, and the most that it may put out."""
    return Spent(unconfirmed_input=sent.most_input, unconfirmed_output=sent.max_output_tokens)


def spent_on(sent: Sent, outcome: Completion | Fault, usage: Usage) -> Spent:
    """What a call took; the worst where it reached the endpoint, or may have, and brought neither answer nor error."""
    if isinstance(outcome, Fault) and outcome.usage is None and outcome.sent and outcome.status in (0, 200):
        return unconfirmed(sent)
    return Spent(
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        written_tokens=usage.written_tokens,
    )


def settle_reservation(sent: Sent, outcome: Completion | Fault, usage: Usage) -> None:
    """Of a request that failed the endpoint may have counted all of it, so what was reserved stays: unless there was no
    connection."""
    if isinstance(outcome, Completion) or outcome.usage is not None:
        sent.reservation.settle(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    elif not outcome.sent:
        sent.reservation.give_back()


def charged(sent: Sent, outcome: Completion | Fault, usage: Usage) -> int:
    """Tokens that the endpoint has counted against its limit: of a request that failed, what was reserved."""
    if isinstance(outcome, Fault) and outcome.usage is None:
        return sent.reserved_tokens
    return usage.input_tokens + max(usage.output_tokens, sent.max_output_tokens)
