"""What `plan.json` holds, word for word. Units are in the names."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.decide.forecast import Forecast, Terms
from engine.tuning.terms import Learned
from engine.tuning.voting import Voted
from engine.vocabulary.config import Prices

PLAN_VERSION = 1


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a corpus will take, for each batch size, before anything is sent.

    :ivar records: that can be asked about; `asked` of them are different inputs, the others get their answers.
    :ivar counted: inputs whose tokens were counted; fewer than `asked` where they are a sample.
    :ivar record_tokens: input tokens of a record's entry, on average, as the endpoint will count them.
    :ivar encoding: of our own count.
    :ivar learned: what an earlier run taught; None: everything is expected, nothing measured.
    :ivar votes: None: each record is asked once.
    :ivar worth_it: the smallest batch size with nine tenths of what the largest one saves.
    """

    plan_version: int
    task: str
    input: str
    model: str
    records: int
    bad: int
    asked: int
    counted: int
    record_tokens: float
    encoding: str
    terms: Terms
    learned: Learned | None
    prices: Prices | None
    limits: dict[str, Any]
    forecasts: list[Forecast]
    worth_it: int
    notes: list[str]
    votes: Voted | None = None

    @property
    def static_share(self) -> float:
        """The article's r: static tokens of a request per token of a record."""
        return self.terms.static_tokens * self.terms.input_ratio / self.record_tokens
