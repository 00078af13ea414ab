"""Money: what has been spent, what is reserved for requests in flight, and whether one more may go."""

from __future__ import annotations

from engine.adapters.store import Spent
from engine.decide.pricing import cost_usd
from engine.run.signal import Signal
from engine.vocabulary.config import Prices, RunConfig
from engine.vocabulary.errors import RunStopped
from engine.vocabulary.values import Usage

_BY_TOKEN = Prices(input=1.0, output=4.0)


class Budget:
    """The budget of one store on one model, over all its runs. Shared by every pipeline of a workbench.

    A request reserves its worst case before it goes, so what is in flight cannot overdraw. What brought no reply may
    be billed all the same, and is taken for its worst.
    """

    def __init__(self, limit_usd: float | None, prices: Prices | None, spent: Spent) -> None:
        """:param spent: by earlier runs."""
        self._limit_usd = limit_usd
        self._prices = prices
        self._earlier_usd = self._spent_usd = self._cost(spent)
        self._reserved_usd = 0.0
        self.changed = Signal()

    @classmethod
    def of(cls, config: RunConfig, spent: Spent) -> Budget:
        """The budget that a configuration sets; without one everything is allowed."""
        return cls(config.budget_usd, config.prices, spent)

    def __repr__(self) -> str:
        return f"Budget({self._limit_usd}, spent={self._spent_usd:.4f}, reserved={self._reserved_usd:.4f})"

    def worst_usd(self, *, input_tokens: int, output_tokens: int) -> float:
        """What a request may cost at the most; 0 without prices."""
        return self._cost(Spent(input_tokens=input_tokens, output_tokens=output_tokens))

    def price(self, usage: Usage) -> float:
        """What tokens cost: in dollars, or without prices in input tokens, an output token counting as four."""
        prices = self._prices or _BY_TOKEN
        return cost_usd(
            prices,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
        )

    def try_reserve(self, usd: float) -> bool:
        """Whether so much more may be spent; it is reserved then."""
        if self._limit_usd is not None and self._spent_usd + self._reserved_usd + usd > self._limit_usd:
            return False
        self._reserved_usd += usd
        return True

    @property
    def may_ease(self) -> bool:
        """Whether requests are in flight that may come cheaper than was reserved for them."""
        return self._reserved_usd > 1e-12

    def settle(self, reserved_usd: float, spent: Spent) -> None:
        """A request that had reserved so much has ended."""
        self._reserved_usd = max(0.0, self._reserved_usd - reserved_usd)
        self._spent_usd += self._cost(spent)
        self.changed.notify()

    def exhausted(self, next_usd: float) -> RunStopped:
        """Why the run ends."""
        limit = self._limit_usd or 0.0
        left = max(0.0, limit - self._spent_usd)
        earlier = f", ${self._earlier_usd:.4f} of it by earlier runs" if self._earlier_usd else ""
        return RunStopped(
            "budget",
            f"the budget of ${limit:g} for this store is spent but for ${left:.4f}{earlier}, "
            f"and the next request may cost ${next_usd:.4f}; a larger budget_usd (--budget-usd) goes on",
        )

    def _cost(self, spent: Spent) -> float:
        if self._prices is None:
            return 0.0
        return cost_usd(
            self._prices,
            input_tokens=spent.input_tokens + spent.unconfirmed_input,
            cached_tokens=spent.cached_tokens,
            output_tokens=spent.output_tokens + spent.unconfirmed_output,
        )
