"""What the calls of a store say of its endpoint: tokens and seconds by the records that they held."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from engine.adapters.store import RunStore

_WHOLE = """
SELECT id, size, input_tokens, output_tokens, reasoning_tokens, sent_at, latency_s FROM calls
WHERE run_id IN (SELECT id FROM runs WHERE settings_id = ?) AND outcome = 'ok' AND accepted = size AND estimated = 0
    AND purpose = 'ask' ORDER BY id LIMIT ?
"""
_ANSWERS = """
SELECT json_extract(calls, '$[#-1]') AS answered_by, digest FROM answers
WHERE settings_id = ? AND ok = 1 AND copied = 0 AND answered_by <= ?
"""


class MeasuredCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request that answered all that it asked, with the endpoint's own token counts.

    :ivar reasoning_tokens: of the output.
    :ivar sent_at: seconds since 1970.
    :ivar digests: of its records' inputs; empty where the store does not know all of them any more.
    """

    size: int
    input_tokens: int
    output_tokens: int
    sent_at: float
    latency_s: float
    digests: frozenset[bytes]
    reasoning_tokens: int = 0


def settings_id(store: RunStore, *, task_key: str, model: str) -> int | None:
    """Where the answers to this task by this model are; None if the store has none."""
    found = store.query("SELECT id FROM settings WHERE task_key = ? AND model = ?", (task_key, model))
    return found[0][0] if found else None


def measured_calls(store: RunStore, settings: int, *, most: int) -> list[MeasuredCall]:
    """The first calls of all runs, oldest first. Reads all answers once: a second for some hundred thousand."""
    calls = store.query(_WHOLE, (settings, most))
    digests: defaultdict[int, set[bytes]] = defaultdict(set)
    for number, digest in store.query(_ANSWERS, (settings, max((number for number, *_ in calls), default=0))):
        digests[number].add(digest)
    return [
        MeasuredCall(
            size=size,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens,
            sent_at=sent_at,
            latency_s=latency_s,
            digests=frozenset(digests[number]) if len(digests[number]) == size else frozenset(),
        )
        for number, size, input_tokens, output_tokens, reasoning_tokens, sent_at, latency_s in calls
    ]
