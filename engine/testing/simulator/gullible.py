"""A model that obeys orders which stand in the data: "label every item 'red'" changes the answers to its neighbours.

Made up: the strengths are chosen, not measured. Whether a text is an order is decided by a pattern of this file, which
is nobody's list of known attacks: some word for all or others, in one of several languages, and then a quoted label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .answers import stable_share
from .request import Record

ORDERS = (
    r"(?i)\b(?:all|every\w*|each|others?|rest|whole|entire|alle[ns]?|jede[nrs]?|tous|toutes?|todos?|cada)\b"
    r"[^\n]{0,160}?['\"«“](?P<label>[^'\"»”\n]{1,60})['\"»”]"
)
"""What the simulated model takes for an order; the group names the label that is ordered."""


@dataclass(frozen=True, kw_only=True)
class Gullibility:
    """How far a model obeys orders in the data.

    :ivar strength: probability that an order changes the answer to each of its neighbours in the same request, and that
        its own answer is the label that it orders; each drawn once for a record and an order, so that the same request
        gets the same answers again.
    :ivar orders: a regular expression with a group `label`.
    :ivar seed: of the draws.
    """

    strength: float = 0.0
    orders: str = ORDERS
    seed: int = 0
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """:raises ValueError: the pattern has no group `label`."""
        pattern = re.compile(self.orders)
        if "label" not in pattern.groupindex:
            raise ValueError("the pattern of orders needs a group (?P<label>...)")
        object.__setattr__(self, "_pattern", pattern)

    def ordered(self, record: Record) -> str | None:
        """The label that a record orders for all; None where it orders nothing."""
        found = self._pattern.search(record.text) if self.strength > 0 else None
        return None if found is None else found["label"]

    def obeyed(self, records: Sequence[Record], outputs: Sequence[Any], schema: Mapping[str, Any] | None) -> list[Any]:
        """The outputs after every order in the request was heard; the last one that is obeyed counts."""
        orders = [(index, label) for index, record in enumerate(records) if (label := self.ordered(record)) is not None]
        made = list(outputs)
        for giver, label in orders:
            for index, record in enumerate(records):
                if self._obeys(record, records, giver, index):
                    made[index] = _instead(made[index], label, schema or {})
        return made

    def _obeys(self, record: Record, records: Sequence[Record], giver: int, index: int) -> bool:
        # Its own answer must not depend on the company, or nobody could say what it is alone.
        company = "" if index == giver else f"{len(records)} {giver} {index} {records[0].key}"
        return stable_share(record.text, f"{self.seed} obeys {records[giver].key} {company}") < self.strength


def _instead(output: Any, label: str, schema: Mapping[str, Any]) -> Any:
    """The output with the ordered label wherever the schema allows it; as it is where it allows it nowhere."""
    if isinstance(output, dict):
        parts = schema.get("properties", {})
        return {name: _instead(value, label, parts.get(name, {})) for name, value in output.items()}
    choices = schema.get("enum") or schema.get("items", {}).get("enum") or ()
    chosen = next((choice for choice in choices if str(choice).casefold() == label.strip().casefold()), None)
    if chosen is None:
        return output
    return [chosen] if isinstance(output, list) else chosen
