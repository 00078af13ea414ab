"""How much a request may hold: what the budgets of one request and of a minute leave."""

from __future__ import annotations

from engine.decide.estimates import TokenEstimates
from engine.decide.packing import Room
from engine.vocabulary.config import Limits, Packing


def request_room(estimates: TokenEstimates, packing: Packing, limits: Limits, *, items: int) -> Room:
    """What a request with so many records at the most may hold besides its static part.

    One that takes much of a minute's tokens waits long for them: it stays small where that is possible. Where the
    static prompt is most of it, smaller batches would only pay for it more often.
    """
    comfortable = limits.comfortable_tokens - estimates.static_tokens - estimates.call_overhead
    comfortable = max(comfortable, estimates.static_tokens) / estimates.input_ratio
    return Room(
        items=items,
        input_tokens=int(min(estimates.entry_room(packing.max_input_tokens), comfortable)),
        output_tokens=packing.max_output_tokens - estimates.call_overhead,
    )
