"""What the endpoint bears: requests in flight and a minute, as the user gave them and as they are found out.

Joins the two controls of `decide`. The pacer holds what the user gave; what is found out comes on top.
"""

from __future__ import annotations

import math

import msgspec

from engine.decide.concurrency import Ticket, Window
from engine.decide.latency_target import REQUEST_SHARE
from engine.decide.rate import Dimension, DiscoveredRate, RateTicket
from engine.vocabulary.config import Limits
from engine.vocabulary.values import Completion, Fault, FaultKind, Quota, QuotaOf, Usage

_AWAY = 8  # errors of the server's own in a row


class LoadTicket(msgspec.Struct, frozen=True, kw_only=True):
    """What a request keeps from when it was sent.

    :ivar before: requests and tokens sent before it, and it itself.
    """

    window: Ticket
    rate: RateTicket
    before: tuple[int, int]


class Load:
    """One for a pipeline: `sent` gives a ticket for each request, `ended` takes it back."""

    def __init__(self, limits: Limits, *, target_s: float | None = None) -> None:
        """:param target_s: a latency target of records, of which a request may take a share."""
        most_s = math.inf if target_s is None else REQUEST_SHARE * target_s
        self.window = Window(cap=limits.most_in_flight, seeks=limits.max_concurrency is None, most_s=most_s)
        self.rate = DiscoveredRate()
        self._given: dict[QuotaOf, float | None] = {
            "requests": limits.requests_per_minute,
            "tokens": limits.tokens_per_minute,
        }
        self._sent = (0, 0)
        self._newest: dict[QuotaOf, int] = {}
        self._errors: list[LoadTicket] = []  # of the server's own, since its last reply

    def __repr__(self) -> str:
        return f"Load({self.window!r}, {self.rate!r})"

    def per_minute(self, dimension: Dimension) -> float | None:
        """The limit that is believed in: what was given, or less where refusals or headers say so."""
        known = [limit for limit in (self._given[dimension], self.rate.believed(dimension)) if limit is not None]
        return min(known) if known else None

    def speed(self, in_flight: int) -> float:
        """Work that so many requests in flight get done in a second, in requests at the lowest load seen."""
        return in_flight / self.window.slowdown(in_flight)

    def sent(self, now: float, *, in_flight: int, tokens: int, paced: bool) -> LoadTicket:
        """A request goes out.

        :param in_flight: with it.
        :param tokens: that it is expected to be charged.
        :param paced: it waited for a rate, so the window was not what held it.
        """
        self._sent = (self._sent[0] + 1, self._sent[1] + tokens)
        return LoadTicket(
            window=self.window.admitted(now, in_flight=in_flight, paced=paced),
            rate=self.rate.spend(now, tokens),
            before=self._sent,
        )

    def ended(
        self, ticket: LoadTicket, outcome: Completion | Fault, usage: Usage, *, latency_s: float, now: float
    ) -> None:
        """A request came to this."""
        for quota in outcome.quotas:
            self._learn(ticket, quota, now)
        if isinstance(outcome, Completion):
            self._take_errors_in(now)
            self.rate.observe_accepted(ticket.rate, now)
            self.window.observe_success(
                ticket.window,
                now,
                latency_s=latency_s,
                uncached_input_tokens=max(0, usage.input_tokens - usage.cached_tokens),
                output_tokens=usage.output_tokens,
            )
        elif outcome.kind is FaultKind.RATE_LIMIT:
            self.rate.observe_rate_limited(ticket.rate, now, dimension=outcome.limit)
            if outcome.limit is None:
                self.window.observe_rate_limited(ticket.window, now)
        elif outcome.kind is FaultKind.SERVER:
            self._errors = [*self._errors[-_AWAY:], ticket]
        elif outcome.kind is FaultKind.TIMEOUT:
            self.window.observe_failure(ticket.window, now)

    def _take_errors_in(self, now: float) -> None:
        """A server that is overloaded answers some; one that answers nothing for a while is away at any window."""
        if len(self._errors) < _AWAY:
            for ticket in self._errors:
                self.window.observe_failure(ticket.window, now)
        self._errors.clear()

    def _learn(self, ticket: LoadTicket, quota: Quota, now: float) -> None:
        """Headers are as old as the request. They do not overrule the user: they may mean another period."""
        if ticket.rate.number < self._newest.get(quota.of, 0) or self._given[quota.of] is not None:
            return
        self._newest[quota.of] = ticket.rate.number
        self.rate.learn_limit(quota.of, quota.per_minute, now)
        if quota.remaining is not None:
            index = 0 if quota.of == "requests" else 1
            sent_after = self._sent[index] - ticket.before[index]
            self.rate.sync(quota.of, now, remaining=quota.remaining, sent_after=sent_after)
