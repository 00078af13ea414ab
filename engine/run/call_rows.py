"""The rows that a call leaves in the store: as it goes out, and as it ended."""

from __future__ import annotations

from engine.adapters.store import CallRow, SentRow, Spent
from engine.decide.recovery import Verdict
from engine.run.dispatch import Sent
from engine.vocabulary.values import Completion, Fault, Usage


def sent_row(sent: Sent, *, run_id: int, sent_at: float) -> SentRow:
    """A request as it goes out. `sent_at` is wall time, here and below."""
    return SentRow(
        run_id=run_id,
        call_id=sent.number,
        sent_at=sent_at,
        size=len(sent.ids),
        input_tokens=sent.most_input,
        output_tokens=sent.max_output_tokens,
    )


def call_row(
    sent: Sent,
    outcome: Completion | Fault,
    verdict: Verdict,
    usage: Usage,
    spent: Spent,
    *,
    sent_at: float,
    latency_s: float,
) -> CallRow:
    """A call that ended, with the reply or its beginning where something was wrong with it."""
    fault = outcome if isinstance(outcome, Fault) else None
    raw = None
    if verdict.cause:
        raw = outcome.excerpt if isinstance(outcome, Fault) else (outcome.refusal or outcome.text)
    return CallRow(
        id=sent.number,
        sent_at=sent_at,
        latency_s=latency_s,
        size=len(sent.ids),
        accepted=len(verdict.accepted),
        status=fault.status if fault else 200,
        outcome=verdict.cause or "ok",
        finish_reason="" if isinstance(outcome, Fault) else outcome.finish_reason,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        written_tokens=usage.written_tokens,
        estimated=usage.estimated,
        message=fault.message if fault else None,
        raw=raw,
        unconfirmed_input=spent.unconfirmed_input,
        unconfirmed_output=spent.unconfirmed_output,
    )


def given_up_row(sent: Sent, spent: Spent, *, sent_at: float, latency_s: float) -> CallRow:
    """A call that was given up by a stop at once."""
    return CallRow(
        id=sent.number,
        sent_at=sent_at,
        latency_s=latency_s,
        size=len(sent.ids),
        accepted=0,
        status=0,
        outcome="abandoned",
        message="given up by a stop at once",
        unconfirmed_input=spent.unconfirmed_input,
        unconfirmed_output=spent.unconfirmed_output,
    )
