"""How much a request may hold: what the budgets of one request and of a minute leave."""

from __future__ import annotations

from engine.decide.estimates import TokenEstimates
from engine.decide.packing import Room
from engine.vocabulary.config import Limits, Packing


def request_room(estimates: TokenEstimates, packing: Packing, limits: Limits, *, items: int) -> Room:
    """What a request with so many records at the most may hold besides its static part.

    One that takes much of a minute's tokens waits long for them: it stays small where that is possible. Where the
    static prompt or the reasoning of a request is most of it, smaller batches would only pay for that more often.
    """
    comfortable = limits.comfortable_tokens - estimates.static_tokens - estimates.call_overhead
    comfortable = max(comfortable, estimates.static_tokens + estimates.reasoning.per_call) / estimates.input_ratio
    return Room(
        items=items,
        input_tokens=int(min(estimates.entry_room(packing.max_input_tokens), comfortable)),
        output_tokens=_output_room(estimates, packing.max_output_tokens),
    )


def _output_room(estimates: TokenEstimates, most: int) -> float:
    """For the answers, and what is thought for each record.

    What a request thinks whatever it holds does not become less in a smaller one, so at the most half of the room is
    kept for it: where that is too little, a batch of one is cut as well, and thinks as much for a single record.
    """
    left = most - estimates.call_overhead
    return max(left, most / 2) if estimates.reasoning.is_seen else left
