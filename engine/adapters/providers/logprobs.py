"""Tokens and their probabilities in a reply of OpenAI's shape. What cannot be read is no tokens, never a fault."""

from __future__ import annotations

import math
from typing import Any

from engine.vocabulary.values import Token

MOST_TOKENS = 100_000
"""Of a reply; no honest one comes near, and a hostile one is not to fill the memory."""

_MOST_BYTES = 1 << 10  # of one token
_MOST_LOGPROB = 0.2  # coarse numbers may lead a little above 0; more is no probability


def read_tokens(logprobs: Any) -> tuple[Token, ...]:
    """The tokens that ``choices[0].logprobs`` holds; none where one cannot be read: half would mislead."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or len(content) > MOST_TOKENS:
        return ()
    tokens = [_token(entry) for entry in content]
    return () if None in tokens else tuple(token for token in tokens if token is not None)


def _token(entry: Any) -> Token | None:
    if not isinstance(entry, dict):
        return None
    text, logprob, raw = entry.get("token"), entry.get("logprob"), entry.get("bytes")
    if not isinstance(text, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    if not math.isfinite(logprob) or logprob > _MOST_LOGPROB or len(text) > _MOST_BYTES:
        return None
    return Token(content=_bytes(raw) or text.encode(errors="replace"), logprob=min(0.0, float(logprob)))


def _bytes(raw: Any) -> bytes | None:
    """The bytes of a token, which tell half a letter from a replacement; None where they are not given."""
    if not isinstance(raw, list) or len(raw) > _MOST_BYTES:
        return None
    return bytes(raw) if all(type(one) is int and 0 <= one < 256 for one in raw) else None
