"""The endpoint's own truth: what was sent to it and what it answered, to hold a client's report against."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import record_text, stable_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Of a million tokens each, in US dollars."""

    input_usd: float
    cached_usd: float
    output_usd: float


class Ledger:
    """Counts of everything. Memory: 48 bytes a request, about 100 a distinct record.

    :ivar by_status: HTTP status -> requests; a reset or hanging one counts as 0.
    :ivar strikes: fault -> how often it left a mark (once a record struck for faults of records).
    :ivar prompt_tokens: billed, cached ones included; of replies with status 200 that were sent or begun.
    :ivar reasoning_tokens: of the completion's, those that the model thought with.
    :ivar broken_off: replies with status 200 that did not go out whole, or whose client had left.
    :ivar told_prompt: of `prompt_tokens`, those that a reply stated which went out whole; `told_cached` and
        `told_completion` likewise. A client can know no more.
    :ivar sends: key of a record -> how often it was received.
    :ivar at_s: time of each request. The five columns have one entry for each request, in the order of arrival.
    :ivar charged_tokens: input + most output of each request, as the tokens/min limit counts it.
    :ivar statuses: status of each request.
    :ivar delays_s: time that each reply is to take.
    :ivar lasted_s: time until each was sent, or its client left; 0 while it is in flight.
    """

    def __init__(self) -> None:
        self.by_status: Counter[int] = Counter()
        self.strikes: Counter[str] = Counter()
        self.sends: Counter[int] = Counter()
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = self.reasoning_tokens = 0
        self.broken_off = 0
        self.told_prompt = self.told_cached = self.told_completion = 0
        self.in_flight = self.peak_in_flight = 0
        self.at_s = array("d")
        self.charged_tokens = array("q")
        self.statuses = array("h")
        self.delays_s = array("d")
        self.lasted_s = array("d")

    @property
    def requests(self) -> int:
        """Requests received."""
        return len(self.at_s)

    @property
    def http_429(self) -> int:
        """Requests refused for a limit, for concurrency or for a spent quota."""
        return self.by_status[429]

    @property
    def admitted_tokens(self) -> int:
        """Charged tokens of the requests that no limit refused."""
        columns = zip(self.charged_tokens, self.statuses, strict=True)
        return sum(charged for charged, status in columns if status != 429)

    def cost_usd(self, prices: Prices) -> float:
        """What was billed, at these prices."""
        uncached = self.prompt_tokens - self.cached_tokens
        spent = uncached * prices.input_usd + self.cached_tokens * prices.cached_usd
        return (spent + self.completion_tokens * prices.output_usd) / 1e6

    def arrive(self, now: float) -> int:
        """A request came; its number, from 0."""
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.at_s.append(now)
        self.charged_tokens.append(0)
        self.statuses.append(0)
        self.delays_s.append(0.0)
        self.lasted_s.append(0.0)
        return len(self.at_s) - 1

    def count_sends(self, keys: Iterable[int]) -> list[int]:
        """Note that these records were received; for each, how often by now."""
        sends, counts = self.sends, []
        for key in keys:
            sends[key] += 1
            counts.append(sends[key])
        return counts

    def bill(self, *, prompt: int, cached: int, completion: int, reasoning: int = 0) -> None:
        """Tokens of one reply."""
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.completion_tokens += completion
        self.reasoning_tokens += reasoning

    def answer(self, number: int, *, status: int, delay_s: float) -> None:
        """What a request will get."""
        self.by_status[status] += 1
        self.statuses[number] = status
        self.delays_s[number] = delay_s

    def leave(self, number: int, now: float) -> float:
        """A request ended, or its client left; when it had come."""
        self.in_flight -= 1
        arrived = self.at_s[number]
        self.lasted_s[number] = now - arrived
        return arrived

    def tell(self, *, prompt: int, cached: int, completion: int) -> None:
        """The usage of a reply reached its client."""
        self.told_prompt += prompt
        self.told_cached += cached
        self.told_completion += completion

    def sends_of(self, value: Any) -> int:
        """How often an input was received."""
        return self.sends[stable_number(record_text(value))]

    def most_in_window(self, window_s: float = 60.0, *, admitted_only: bool = False) -> tuple[int, int]:
        """The most requests, and the most charged tokens, that came within any span of this length.

        :param admitted_only: leave out those answered 429.
        """
        window: deque[tuple[float, int]] = deque()
        tokens = most_requests = most_tokens = 0
        for at, charged, status in zip(self.at_s, self.charged_tokens, self.statuses, strict=True):
            if admitted_only and status == 429:
                continue
            window.append((at, charged))
            tokens += charged
            while window[0][0] <= at - window_s:
                tokens -= window.popleft()[1]
            most_requests, most_tokens = max(most_requests, len(window)), max(most_tokens, tokens)
        return most_requests, most_tokens

    def _most_in(self, window_s: float) -> dict[str, dict[str, int]]:
        received, admitted = self.most_in_window(window_s), self.most_in_window(window_s, admitted_only=True)
        return {"received": _named(received), "admitted": _named(admitted)}

    def as_dict(self, *, records: bool = False) -> dict[str, Any]:
        """Everything as JSON can hold it.

        :param records: with the sends of each record, by the hexadecimal `stable_number` of its text.
        """
        made: dict[str, Any] = {
            "requests": self.requests,
            "http_429": self.http_429,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "tokens": {
                "prompt": self.prompt_tokens,
                "cached": self.cached_tokens,
                "completion": self.completion_tokens,
                "reasoning": self.reasoning_tokens,
            },
            "charged_tokens": self.admitted_tokens,
            "most_in_a_minute": self._most_in(60.0),
            "most_in_a_second": self._most_in(1.0),
            "records": _spread(list(self.sends.values())),
            "strikes": dict(sorted(self.strikes.items())),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
        }
        if records:
            made["sends"] = {f"{key:016x}": count for key, count in self.sends.items()}
        return made


def _named(most: tuple[int, int]) -> dict[str, int]:
    return {"requests": most[0], "charged_tokens": most[1]}


def _spread(sends: Sequence[int]) -> dict[str, int]:
    return {
        "distinct": len(sends),
        "sends": sum(sends),
        "resent": sum(count > 1 for count in sends),
        "most_sends": max(sends, default=0),
    }
