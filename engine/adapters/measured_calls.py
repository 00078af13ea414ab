"""What the calls of a store say of its endpoint: tokens and seconds by the records that they held."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from engine.adapters.store import RunStore

_WHOLE = """
SELECT calls.id, size, input_tokens, output_tokens, reasoning_tokens, sent_at, latency_s,
    json_extract(config, '$.options.gold') IS NOT NULL
FROM calls JOIN runs ON runs.id = run_id
WHERE settings_id = ? AND outcome = 'ok' AND accepted = size AND estimated = 0
    AND purpose = 'ask' ORDER BY calls.id LIMIT ?
"""
_ANSWERS = """
SELECT json_extract(calls, '$[#-1]') AS answered_by, digest, batch_size FROM answers
WHERE settings_id = ? AND ok = 1 AND copied = 0 AND answered_by <= ?
"""


class MeasuredCall(msgspec.Struct, frozen=True, kw_only=True):
    """A request that answered all that it asked, with the endpoint's own token counts.

    :ivar size: records that it asked, those with known answers (`--gold`) included: they were asked and billed alike.
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
    asked: defaultdict[int, int] = defaultdict(int)
    for number, digest, members in store.query(_ANSWERS, (settings, max((number for number, *_ in calls), default=0))):
        digests[number].add(digest)
        asked[number] = max(asked[number], members)
    return [
        MeasuredCall(
            size=max(size, asked[number]),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens,
            sent_at=sent_at,
            latency_s=latency_s,
            digests=frozenset(digests[number]) if len(digests[number]) == max(size, asked[number]) else frozenset(),
        )
        for number, size, input_tokens, output_tokens, reasoning_tokens, sent_at, latency_s, has_gold in calls
        # An answer's batch size counts gold, a call's does not: without an answer nobody knows what rode along.
        if digests[number] or not has_gold
    ]
