"""Money: what has been spent, what is reserved for requests in flight, and whether one more may go."""

from __future__ import annotations

import msgspec

from engine.adapters.store import Spent
from engine.decide.pricing import cost_usd
from engine.run.signal import Signal
from engine.vocabulary.config import Prices, RunConfig
from engine.vocabulary.errors import RunStopped
from engine.vocabulary.values import Usage

_BY_TOKEN = Prices(input=1.0, output=4.0)
_NOTHING = Spent()


class Reserve(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may take at the most: input and output tokens, and dollars, 0 without prices."""

    tokens: int = 0
    usd: float = 0.0


class Budget:
    """The budgets of one store, over all its runs: in dollars for one model, in tokens for all. Shared by every
    pipeline of a workbench.

    A request reserves its worst case before it goes, so what is in flight cannot overdraw. What brought no reply may
    be billed all the same, and is taken for its worst. So more is spent only where the endpoint bills a request for
    more than the worst that was reserved for it: more input than our count of it with all doubt, or more output than
    the request allowed.
    """

    def __init__(
        self,
        limit_usd: float | None,
        prices: Prices | None,
        spent: Spent,
        *,
        limit_tokens: int | None = None,
        spent_by_all: Spent | None = None,
    ) -> None:
        """:param spent: by earlier runs on this model; `spent_by_all` on any, None where that is the same."""
        self._limit_usd, self._limit_tokens = limit_usd, limit_tokens
        self._prices = prices
        self._earlier_usd = self._spent_usd = self._cost(spent)
        self._earlier_tokens = self._spent_tokens = _tokens(spent if spent_by_all is None else spent_by_all)
        self._reserved = Reserve()
        self._out = 0
        self.changed = Signal()

    @classmethod
    def of(cls, config: RunConfig, spent: Spent, spent_by_all: Spent | None = None) -> Budget:
        """The budgets that a configuration sets; without any everything is allowed."""
        return cls(
            config.budget_usd, config.prices, spent, limit_tokens=config.budget_tokens, spent_by_all=spent_by_all
        )

    def __repr__(self) -> str:
        return (
            f"Budget({self._limit_usd} USD, {self._limit_tokens} tokens, spent={self._spent_usd:.4f} USD, "
            f"{self._spent_tokens} tokens, reserved={self._reserved.usd:.4f} USD, {self._reserved.tokens} tokens)"
        )

    def worst(self, *, input_tokens: int, output_tokens: int) -> Reserve:
        """What a request may take at the most."""
        usd = self._usd(input_tokens=input_tokens, cached_tokens=0, output_tokens=output_tokens)
        return Reserve(tokens=input_tokens + output_tokens, usd=usd)

    def price(self, usage: Usage) -> float:
        """What tokens cost: in dollars, or without prices in input tokens, an output token counting as four."""
        prices = self._prices or _BY_TOKEN
        return cost_usd(
            prices,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
        )

    def try_reserve(self, reserve: Reserve) -> bool:
        """Whether so much more may be spent; it is reserved then."""
        usd, tokens = self._reserved.usd + reserve.usd, self._reserved.tokens + reserve.tokens
        if self._limit_usd is not None and self._spent_usd + usd > self._limit_usd:
            return False
        if self._limit_tokens is not None and self._spent_tokens + tokens > self._limit_tokens:
            return False
        self._reserved = Reserve(tokens=tokens, usd=usd)
        self._out += 1
        return True

    @property
    def may_ease(self) -> bool:
        """Whether requests are in flight that may come cheaper than was reserved for them."""
        return self._out > 0

    def settle(self, reserve: Reserve, spent: Spent = _NOTHING) -> None:
        """A request that had reserved so much has ended. Without `spent` it was never sent."""
        self._out -= 1
        # Sums of floats come back to zero only nearly; without a request out nothing is reserved.
        usd = max(0.0, self._reserved.usd - reserve.usd) if self._out else 0.0
        self._reserved = Reserve(tokens=self._reserved.tokens - reserve.tokens, usd=usd)
        self._spent_usd += self._cost(spent)
        self._spent_tokens += _tokens(spent)
        self.changed.notify()

    def exhausted(self, following: Reserve) -> RunStopped:
        """Why the run ends: the budget that the next request is above; dollars where it is above both."""
        limit_usd = self._limit_usd
        if limit_usd is not None and self._spent_usd + following.usd > limit_usd:
            left_usd = max(0.0, limit_usd - self._spent_usd)
            earlier = f", ${self._earlier_usd:.4f} of it by earlier runs" if self._earlier_usd else ""
            return RunStopped(
                "budget",
                f"the budget of ${limit_usd:g} for this store is spent but for ${left_usd:.4f}{earlier}, "
                f"and the next request may cost ${following.usd:.4f}; a larger budget_usd (--budget-usd) goes on",
            )
        limit = self._limit_tokens or 0
        left = max(0, limit - self._spent_tokens)
        earlier = f", {self._earlier_tokens:,} of them by earlier runs" if self._earlier_tokens else ""
        return RunStopped(
            "budget",
            f"the budget of {limit:,} tokens for this store is used but for {left:,}{earlier}, and the next request "
            f"may take {following.tokens:,}; a larger budget_tokens (--budget-tokens) goes on",
        )

    def _cost(self, spent: Spent) -> float:
        return self._usd(
            input_tokens=spent.input_tokens + spent.unconfirmed_input,
            cached_tokens=spent.cached_tokens,
            output_tokens=spent.output_tokens + spent.unconfirmed_output,
        )

    def _usd(self, *, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        if self._prices is None:
            return 0.0
        return cost_usd(
            self._prices, input_tokens=input_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens
        )


def _tokens(spent: Spent) -> int:
    return spent.input_tokens + spent.output_tokens + spent.unconfirmed_input + spent.unconfirmed_output
