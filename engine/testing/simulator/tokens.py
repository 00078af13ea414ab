"""The endpoint's own token count: another rule than the client's, as with every model but one's own.

Pieces of up to six letters, three digits or two signs. Measured on 1,385 short English texts: 1.10 times o200k's
count, at 0.26 us a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

PER_MESSAGE = 4
"""Chat overhead of a message: its start, its role, its end."""

PER_REQUEST = 3
"""Chat overhead of a request: the start of the reply."""

_PIECE = re.compile(r" ?[^\W\d_]{1,6}|\d{1,3}|[^\w\s]{1,2}|_|\n")


def count(text: str) -> int:
    """Tokens of a text."""
    return len(_PIECE.findall(text))


@lru_cache(maxsize=4096)
def count_cached(text: str) -> int:
    """Tokens of a text that comes again in every request of a run, such as its system message."""
    return count(text)


def prompt_tokens(messages: Iterable[str]) -> tuple[int, int]:
    """Tokens of a whole prompt, and of its messages but the last: what a prefix cache may know already."""
    *prefix, last = messages
    prefix_tokens = sum(count_cached(text) + PER_MESSAGE for text in prefix)
    return prefix_tokens + count(last) + PER_MESSAGE + PER_REQUEST, prefix_tokens


def truncate(text: str, limit: int) -> str:
    """The longest beginning of a text that ends with a whole token and has at most `limit` tokens."""
    if limit <= 0:
        return ""
    last = next(islice(_PIECE.finditer(text), limit - 1, None), None)
    return text if last is None else text[: last.end()]
