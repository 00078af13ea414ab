"""One request ahead of all others, so that the provider's prefix cache knows the static prompt when they come.

Requests that are sent at once do not help each other: each pays the full price of the prompt that all share. The
first one is no extra one, its answers are used; what it costs is the time of its reply. See docs/design/prefix.md.
"""

from __future__ import annotations

from engine.vocabulary.config import Prices, RunConfig

LEAST_TOKENS = 1_024
"""From which on hosted providers cache a prefix (OpenAI, DeepSeek and Gemini say so, or less)."""

MOST_S = 5.0
"""The longest that others wait for it. A prompt is read within a second; a model that then thinks for a minute holds
nobody up for that."""

FEW = 2
"""At once until a reply has read from the cache: as many as a run begins with anyway."""

_LEAST_RECORDS = 200  # of a run: below, what the few requests that might be cold would save is not worth seconds


def why_warm(config: RunConfig, *, static_tokens: int, has_read_cache: bool, live: bool) -> str:
    """Why the first request is to go alone; "" where it is not.

    :param has_read_cache: earlier runs of this store were told of cached tokens by this model.
    :param live: somebody waits for single answers.
    """
    if config.warm_prefix is not None:
        return "asked for" if config.warm_prefix else ""
    if live or static_tokens < LEAST_TOKENS:
        return ""
    if _is_cheaper(config.prices):
        return "cached input has a price of its own"
    return "earlier runs read from a cache" if has_read_cache else ""


def _is_cheaper(prices: Prices | None) -> bool:
    return prices is not None and prices.cached_input is not None and prices.cached_input < prices.input


class WarmUp:
    """How many may go at once while the cache is cold. Pure: the caller brings the time.

    The first request goes alone; then `FEW` go at once until a reply tells that it read from the cache, which may be
    the third (DeepSeek says that it keeps what two had in common). All of it ends `MOST_S` after the first send.
    """

    def __init__(self, why: str) -> None:
        """:param why: the reason; "" for none, and nothing is ever held."""
        self.why = why
        self._sent_s: float | None = None
        self._has_ended = False
        self._over_s: float | None = None

    def __repr__(self) -> str:
        return f"WarmUp({self.why!r}, sent={self._sent_s}, over={self._over_s})"

    def note_sent(self, now: float, *, records: float | None) -> None:
        """A request goes out.

        :param records: that are left to be asked; None where nobody knows.
        """
        if self._sent_s is None:
            self._sent_s = now
            if not self.why or (records is not None and records < _LEAST_RECORDS):
                self.why, self._over_s = "", now

    def note_ended(self, now: float, *, is_warm: bool) -> None:
        """A request has ended, however it did.

        :param is_warm: a reply has told of cached tokens.
        """
        self._has_ended = True
        if self._over_s is None and is_warm:
            self._over_s = now

    def most(self, now: float) -> int | None:
        """Requests that may be in flight at once; None: as many as else."""
        if self.until_s(now) is None:
            return None
        return FEW if self._has_ended else 1

    def until_s(self, now: float) -> float | None:
        """Until when fewer go at the most; None: they do not."""
        if self._sent_s is None or self._over_s is not None:
            return None
        latest = self._sent_s + MOST_S
        return latest if now < latest else None

    @property
    def waited_s(self) -> float:
        """How long few went at once."""
        if self._sent_s is None:
            return 0.0
        latest = self._sent_s + MOST_S
        return (latest if self._over_s is None else min(self._over_s, latest)) - self._sent_s
