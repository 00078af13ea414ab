"""The provider's prefix cache: the static beginning of a prompt is not computed twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRule:
    """What is kept.

    :ivar min_tokens: shorter prefixes are never cached.
    :ivar step_tokens: cached tokens come in multiples of this.
    :ivar capacity: prefixes kept; the one used longest ago goes first.
    :ivar write_delay_s: until a prefix that was answered can be read. Made up: nobody documents one.
    """

    min_tokens: int = 1024
    step_tokens: int = 128
    capacity: int = 256
    write_delay_s: float = 0.0


OPENAI = CacheRule()
"""As OpenAI documents it: from 1,024 tokens on, in steps of 128."""

EXACT = CacheRule(min_tokens=1, step_tokens=1)
"""Token by token, as llama.cpp and vLLM (nearly) do."""

OFF = CacheRule(capacity=0)

RULES = {"openai": OPENAI, "exact": EXACT, "off": OFF}


class PrefixCache:
    """Knows the messages before the last of requests that were answered. Within the last message nothing is cached."""

    def __init__(self, rule: CacheRule) -> None:
        self._rule = rule
        self._known: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def cached_tokens(self, prefix: Sequence[str], prefix_tokens: int, now: float) -> int:
        """Tokens of this prefix that need not be computed again."""
        rule = self._rule
        key = tuple(prefix)
        if prefix_tokens < rule.min_tokens or self._known.get(key, inf) > now:
            return 0
        self._known.move_to_end(key)
        return prefix_tokens // rule.step_tokens * rule.step_tokens

    def learn(self, prefix: Sequence[str], now: float) -> None:
        """A request with this prefix was answered; two at once do not help each other."""
        if not self._rule.capacity or not prefix:
            return
        delay_s = self._rule.write_delay_s
        self._known.setdefault(tuple(prefix), now + delay_s if delay_s else -inf)
        self._known.move_to_end(tuple(prefix))
        if len(self._known) > self._rule.capacity:
            self._known.popitem(last=False)
