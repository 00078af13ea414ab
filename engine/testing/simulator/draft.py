"""The results of one reply, while the faults of the call work on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from . import damage
from .faults import Strikes
from .model import START, ChatModel, Moment
from .reply_shape import ReplyShape
from .request import Record

_LENGTHS = frozenset({"short", "endless", "extra"})

_MOST_EXTRA = 15
"""Results beyond those asked; measured: 1, 10 or 15."""


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
    :ivar moment: when the request came.
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
    moment: Moment = START
    struck: list[str] = field(default_factory=list)

    def text(self, max_tokens: int) -> str:
        """The whole document, however broken.

        :param max_tokens: an endless list gets at least so long.
        """
        results = self._results()
        if "reorder" in self.strikes.call and len(results) > 1:
            results = damage.reordered(results, self.rng)
            self.struck.append("reorder")
        results = self._lengthened(results, max_tokens)
        parts = [damage.encode(result) for result in results]
        if "trailing_comma" not in self.strikes.call or not parts:
            return damage.join(parts)
        self.struck.append("trailing_comma")
        return damage.slightly_broken(parts, self.rng)

    def _lengthened(self, results: list[damage.Result], max_tokens: int) -> list[damage.Result]:
        """A list that stops too early or too late, unless the schema holds its length."""
        call = self.strikes.call
        if not results or self.shape.exact or call.isdisjoint(_LENGTHS):
            return results
        if "short" in call and len(results) > 1:
            self.struck.append("short")
            results = results[: len(results) // 2]
        if "endless" in call:
            self.struck.append("endless")
            return results + _more(results[-1], max_tokens // 3)  # three tokens each or more
        if "extra" in call:
            self.struck.append("extra")
            return results + _more(results[-1], self.rng.randint(1, _MOST_EXTRA))
        return results

    def _results(self) -> list[damage.Result]:
        outputs = self.model.outputs(self.records, self.shape, self.rng, self.moment)
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


def _more(result: damage.Result, count: int) -> list[damage.Result]:
    """So many results for made-up ids."""
    return [{**result, "id": f"{result['id']}-{number}"} for number in range(count)]
