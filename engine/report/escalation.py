"""Records that a second model was asked about: how many, what it changed, and what it took."""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.decide.pricing import cost_usd
from engine.vocabulary.config import Prices


class Used(Protocol):
    """Of the counters of a pipeline, what is told of the second model's."""

    records_stored: int
    requests: int
    tokens_input: int
    tokens_cached: int
    tokens_written: int
    tokens_output: int


class EscalationUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a second model did in one run. Its requests and tokens are in no other figure of the report.

    :ivar below: the confidence under which a record goes to it; None: only those that failed do.
    :ivar records: that went to it; `stored` of them it had answered in an earlier run.
    :ivar answered: of them, those that it answered; `changed` of these with another answer than the first model's.
    :ivar failed: of `records`, those that the first model had failed; `rescued` of them it answered.
    :ivar unknown: answers of the first model without a confidence (of a run without votes); they stay with it.
    :ivar usd: None where no price is known; `together_usd`: of both models.
    """

    model: str
    below: float | None
    records: int
    stored: int
    answered: int
    changed: int
    unknown: int
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float | None
    together_usd: float | None
    failed: int = 0
    rescued: int = 0


class EscalationLog:
    """Counts while a run goes on.

    :ivar failures: kinds of failure of the first model that it is asked about.
    :ivar counters: of the second model's own requests.
    """

    def __init__(
        self, *, model: str, below: float | None, failures: frozenset[str] = frozenset(), prices: Prices | None,
        counters: Used,
    ) -> None:  # fmt: skip
        self.model = model
        self.below = below
        self.failures = failures
        self.counters = counters
        self.records = self.answered = self.changed = self.unknown = self.failed = self.rescued = 0
        self._prices = prices

    def use(self, first_usd: float | None) -> EscalationUse:
        """What it came to.

        :param first_usd: what the first model cost.
        """
        counters = self.counters
        usd = None
        if self._prices is not None:
            usd = cost_usd(
                self._prices,
                input_tokens=counters.tokens_input,
                cached_tokens=counters.tokens_cached,
                output_tokens=counters.tokens_output,
                written_tokens=counters.tokens_written,
            )
        return EscalationUse(
            model=self.model,
            below=self.below,
            records=self.records,
            stored=counters.records_stored,
            answered=self.answered,
            changed=self.changed,
            unknown=self.unknown,
            requests=counters.requests,
            input_tokens=counters.tokens_input,
            cached_tokens=counters.tokens_cached,
            output_tokens=counters.tokens_output,
            usd=usd,
            together_usd=None if usd is None or first_usd is None else first_usd + usd,
            failed=self.failed,
            rescued=self.rescued,
        )
