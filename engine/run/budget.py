"""Money: what has been spent, what is reserved for requests in flight, and whether one more may go."""

from __future__ import annotations

import msgspec

from engine.adapters.store import Spent
from engine.decide.pricing import cost_usd, worst_usd
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


class _Purse:
    """What all models of a run spend from."""

    def __init__(self, limit_usd: float | None, limit_tokens: int | None) -> None:
        self.limit_usd, self.limit_tokens = limit_usd, limit_tokens
        self.earlier_usd = self.spent_usd = 0.0
        self.earlier_tokens = self.spent_tokens = 0
        self.reserved = Reserve()
        self.out = 0
        self.changed = Signal()


class Budget:
    """The budgets of one store, over all its runs: in dollars for one model, in tokens for all. Shared by every
    pipeline of a workbench; `of_second` gives the same purse to a second model with other prices.

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
        """
        :param spent: by earlier runs on this model; `spent_by_all` on any, None where that is the same.
        :ivar has_read_cache: whether the endpoint told those of cached tokens.
        """
        self._prices = prices
        self.has_read_cache = spent.cached_tokens > 0
        self._purse = purse = _Purse(limit_usd, limit_tokens)
        purse.earlier_usd = purse.spent_usd = self._cost(spent)
        purse.earlier_tokens = purse.spent_tokens = _tokens(spent if spent_by_all is None else spent_by_all)

    @classmethod
    def of(cls, config: RunConfig, spent: Spent, spent_by_all: Spent | None = None) -> Budget:
        """The budgets that a configuration sets; without any everything is allowed."""
        return cls(
            config.budget_usd, config.prices, spent, limit_tokens=config.budget_tokens, spent_by_all=spent_by_all
        )

    def of_second(self, prices: Prices | None, spent: Spent) -> Budget:
        """The same budgets for a second model: what either spends is gone for both.

        :param spent: by earlier runs on that model, which count in dollars from now on.
        """
        second = Budget(None, prices, Spent())
        second._purse, second.has_read_cache = self._purse, spent.cached_tokens > 0
        usd = second._cost(spent)
        self._purse.earlier_usd += usd
        self._purse.spent_usd += usd
        return second

    @property
    def changed(self) -> Signal:
        """Notified when a request has ended."""
        return self._purse.changed

    def __repr__(self) -> str:
        purse = self._purse
        return (
            f"Budget({purse.limit_usd} USD, {purse.limit_tokens} tokens, spent={purse.spent_usd:.4f} USD, "
            f"{purse.spent_tokens} tokens, reserved={purse.reserved.usd:.4f} USD, {purse.reserved.tokens} tokens)"
        )

    def worst(self, *, input_tokens: int, output_tokens: int) -> Reserve:
        """What a request may take at the most."""
        return Reserve(tokens=input_tokens + output_tokens, usd=self._worst_usd(input_tokens, output_tokens))

    def price(self, usage: Usage) -> float:
        """What tokens cost: in dollars, or without prices in input tokens, an output token counting as four."""
        prices = self._prices or _BY_TOKEN
        return cost_usd(
            prices,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            written_tokens=usage.written_tokens,
        )

    def try_reserve(self, reserve: Reserve) -> bool:
        """Whether so much more may be spent; it is reserved then."""
        usd, tokens = self._purse.reserved.usd + reserve.usd, self._purse.reserved.tokens + reserve.tokens
        if self._purse.limit_usd is not None and self._purse.spent_usd + usd > self._purse.limit_usd:
            return False
        if self._purse.limit_tokens is not None and self._purse.spent_tokens + tokens > self._purse.limit_tokens:
            return False
        self._purse.reserved = Reserve(tokens=tokens, usd=usd)
        self._purse.out += 1
        return True

    @property
    def may_ease(self) -> bool:
        """Whether requests are in flight that may come cheaper than was reserved for them."""
        return self._purse.out > 0

    def settle(self, reserve: Reserve, spent: Spent = _NOTHING) -> None:
        """A request that had reserved so much has ended. Without `spent` it was never sent."""
        self._purse.out -= 1
        # Sums of floats come back to zero only nearly; without a request out nothing is reserved.
        usd = max(0.0, self._purse.reserved.usd - reserve.usd) if self._purse.out else 0.0
        self._purse.reserved = Reserve(tokens=self._purse.reserved.tokens - reserve.tokens, usd=usd)
        self._purse.spent_usd += self._cost(spent)
        self._purse.spent_tokens += _tokens(spent)
        self.changed.notify()

    def exhausted(self, following: Reserve) -> RunStopped:
        """Why the run ends: the budget that the next request is above; dollars where it is above both."""
        limit_usd = self._purse.limit_usd
        if limit_usd is not None and self._purse.spent_usd + following.usd > limit_usd:
            left_usd = max(0.0, limit_usd - self._purse.spent_usd)
            earlier = f", ${self._purse.earlier_usd:.4f} of it by earlier runs" if self._purse.earlier_usd else ""
            return RunStopped(
                "budget",
                f"the budget of ${limit_usd:g} for this store is spent but for ${left_usd:.4f}{earlier}, "
                f"and the next request may cost ${following.usd:.4f}; a larger budget_usd (--budget-usd) goes on",
            )
        limit = self._purse.limit_tokens or 0
        left = max(0, limit - self._purse.spent_tokens)
        earlier = f", {self._purse.earlier_tokens:,} of them by earlier runs" if self._purse.earlier_tokens else ""
        return RunStopped(
            "budget",
            f"the budget of {limit:,} tokens for this store is used but for {left:,}{earlier}, and the next request "
            f"may take {following.tokens:,}; a larger budget_tokens (--budget-tokens) goes on",
        )

    def _cost(self, spent: Spent) -> float:
        if self._prices is None:
            return 0.0
        usd = cost_usd(
            self._prices,
            input_tokens=spent.input_tokens,
            cached_tokens=spent.cached_tokens,
            output_tokens=spent.output_tokens,
            written_tokens=spent.written_tokens,
        )
        return usd + self._worst_usd(spent.unconfirmed_input, spent.unconfirmed_output)

    def _worst_usd(self, input_tokens: int, output_tokens: int) -> float:
        if self._prices is None:
            return 0.0
        return worst_usd(self._prices, input_tokens=input_tokens, output_tokens=output_tokens)


def _tokens(spent: Spent) -> int:
    return spent.input_tokens + spent.output_tokens + spent.unconfirmed_input + spent.unconfirmed_output
