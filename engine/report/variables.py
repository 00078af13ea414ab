"""Of a task with several variables, which of them were answered and which had to be asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from engine.decide.answers import Reading
from engine.decide.recovery import Failure
from engine.report import words
from engine.vocabulary.task import Task
from engine.vocabulary.values import Item

_MOST_REASONS = 200  # different ones that are counted for a variable: each quotes a value of the model's
_SHOWN = 120


class VariableUse(msgspec.Struct, frozen=True, kw_only=True):
    """One variable.

    :ivar answered: records of which any variable was answered.
    :ivar valid_at_first: of these, where this one was valid in the first such answer; else it was `asked_again`.
    :ivar failed: records that were given up without it.
    :ivar reason: the commonest one why it was not valid.
    """

    name: str
    answered: int
    valid_at_first: int
    asked_again: int
    failed: int
    reason: str | None


class VariableLog:
    """Counts while a run goes on. A task with one variable has nothing to count."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._answered = 0
        self._again: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}

    def watch(self, task: Task) -> None:
        """Whose variables they are."""
        self._names = tuple(task.fields) if task.is_object else ()

    def add_reply(self, ids: Mapping[str, Item], reading: Reading) -> None:
        """A reply was judged: what it says of its records, completed by what was kept of them before."""
        if not self._names:
            return
        for id_, item in ids.items():
            if not item.kept:
                self._answered += id_ in reading.answers or id_ in reading.partial
            if id_ in reading.partial:
                self._add_wrong(item, reading.partial[id_].wrong)

    def _add_wrong(self, item: Item, wrong: Mapping[str, str]) -> None:
        for name, why in wrong.items():
            if name in item.kept:
                continue
            self._again[name] += not item.kept
            reasons = self._reasons.setdefault(name, Counter())
            if why in reasons or len(reasons) < _MOST_REASONS:
                reasons[why] += 1

    def add_failed(self, failures: Iterable[Failure]) -> None:
        """Records were given up."""
        for failure in failures:
            self._failed.update(name for name in self._names if name not in failure.item.kept)

    def rows(self) -> list[VariableUse]:
        """One a variable, in the order of the task; none while nothing was answered."""
        if not self._answered and not self._failed:
            return []
        return [
            VariableUse(
                name=name,
                answered=self._answered,
                valid_at_first=self._answered - self._again[name],
                asked_again=self._again[name],
                failed=self._failed[name],
                reason=self._reason(name),
            )
            for name in self._names
        ]

    def _reason(self, name: str) -> str | None:
        reasons = self._reasons.get(name)
        if not reasons:
            return None
        why = reasons.most_common(1)[0][0].removeprefix(f"field '{name}': ")
        return why if len(why) <= _SHOWN else f"{why[: _SHOWN - 3]}..."


def variable_values(uses: Iterable[VariableUse]) -> list[str]:
    """Those that had to be asked again or failed, in words."""
    said = []
    for use in uses:
        again = f"asked again for {words.plural(use.asked_again, 'record')}" if use.asked_again else ""
        failed = f"failed for {words.number(use.failed)}" if use.failed else ""
        if again or failed:
            said.append(f"{words.visible(use.name)} {', '.join(part for part in (again, failed) if part)}")
    return said or ["all valid in the first answer"]
