"""The results of one reply, while the faults of the call work on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from . import damage
from .faults import Strikes
from .model import ChatModel
from .reply_shape import ReplyShape
from .request import Record


class Poison(StrEnum):
    """What a poisoned record does, always."""

    DROP = "drop"
    BREAK = "break"
    OFF_LABEL = "off_label"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonRule:
    """Which records are poisoned, and what they do.

    :ivar marker: those whose text contains it; None: none.
    """

    marker: str | None = None
    kind: Poison = Poison.DROP

    def of(self, record: Record) -> Poison | None:
        """What this record does, or None."""
        return self.kind if self.marker is not None and self.marker in record.text else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Writes the text of the results of one request.

    :ivar swaps: whether two results exchange their ids.
    :ivar earlier_ids: ids of requests before this one, for results that nobody asked for.
    :ivar struck: faults that left a mark, one entry for each record struck.
    """

    model: ChatModel
    rng: Random
    records: Sequence[Record]
    shape: ReplyShape
    strikes: Strikes
    poison: PoisonRule
    swaps: bool
    earlier_ids: Sequence[Sequence[str | int]]
    struck: list[str] = field(default_factory=list)

    def text(self, max_tokens: int) -> str:
        """The whole document, however broken.

        :param max_tokens: an endless list gets at least so long.
        """
        results = self._results()
        if "reorder" in self.strikes.call and len(results) > 1:
            results = damage.reordered(results, self.rng)
            self.struck.append("reorder")
        if "endless" in self.strikes.call and results:
            results.extend(_more(results[-1], max_tokens))
            self.struck.append("endless")
        parts = [damage.encode(result) for result in results]
        if "trailing_comma" not in self.strikes.call or not parts:
            return damage.join(parts)
        self.struck.append("trailing_comma")
        return damage.slightly_broken(parts, self.rng)

    def _results(self) -> list[damage.Result]:
        outputs = self.model.outputs(self.records, self.shape, self.rng)
        made = [self.shape.result(record, output) for record, output in zip(self.records, outputs, strict=True)]
        if self.swaps and damage.swap_ids(made, self.rng):
            self.struck.append("swap")
        if not self.strikes.records and self.poison.marker is None:
            return made
        results = [result for index in range(len(made)) for result in self._struck_record(index, made[index])]
        return results + self._foreign(made)

    def _struck_record(self, index: int, result: damage.Result) -> list[damage.Result]:
        """What stands in the reply for one record. The first of drop, off_label, conflict, duplicate counts."""
        poison = self.poison.of(self.records[index])
        if poison is not None:
            self.struck.append("poison")
            return [] if poison is Poison.DROP else [self._spoiled(result)]
        if index in self.strikes.at("drop"):
            self.struck.append("drop")
            return []
        if index in self.strikes.at("off_label"):
            self.struck.append("off_label")
            return [self._spoiled(result)]
        return self._repeated(index, result)

    def _repeated(self, index: int, result: damage.Result) -> list[damage.Result]:
        if index in self.strikes.at("conflict"):
            other = self.model.other(self.records[index], self.shape, result["output"], "conflict")
            if other != result["output"]:
                self.struck.append("conflict")
                return self.rng.sample([result, {**result, "output": other}], 2)
        if index in self.strikes.at("duplicate"):
            self.struck.append("duplicate")
            return [result, result]
        return [result]

    def _spoiled(self, result: damage.Result) -> damage.Result:
        labels = self.model.outputs_are_labels(self.shape)
        return {**result, "output": damage.spoiled(result["output"], self.rng, labels=labels)}

    def _foreign(self, made: Sequence[damage.Result]) -> list[damage.Result]:
        extra = []
        for index in sorted(self.strikes.at("foreign_id")):
            id_ = damage.foreign_id((record.id for record in self.records), self.earlier_ids, self.rng)
            if id_ is not None:
                self.struck.append("foreign_id")
                extra.append({**made[index], "id": id_})
        return extra


def _more(result: damage.Result, max_tokens: int) -> list[damage.Result]:
    """Results for made-up ids, for ever: as many as `max_tokens` can hold, at three tokens each or more."""
    return [{**result, "id": f"{result['id']}-{number}"} for number in range(max_tokens // 3)]
