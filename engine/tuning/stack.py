"""The trials of one setting: one, or where variables are asked apart one for each group of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine.tuning.rate import Part, Rate
from engine.tuning.trial import Trial, Use


class Stack:
    """The trials of one setting: one for each group of variables. Their answers are joined record by record.

    A record is answered when every group is: so it is in the output that a user puts together.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = trials

    def __repr__(self) -> str:
        return f"Stack({list(self.trials)})"

    @property
    def broken(self) -> str | None:
        """Why it answers nothing."""
        return next((trial.broken for trial in self.trials if trial.broken is not None), None)

    @property
    def name(self) -> str:
        """Of its stores."""
        return " ".join(trial.store.stem for trial in self.trials)

    def break_off(self, why: str) -> None:
        """Ask nothing more: an earlier run was told why not."""
        self.trials[0].broken = why

    def answered(self) -> int:
        """Answers that its stores hold."""
        return sum(trial.answered() for trial in self.trials)

    def rate(self, asked: int) -> Rate:
        """What a record takes.

        :param asked: records so far. Equal ones may share an answer, and what the brake stopped has fewer.
        """
        parts = [Part(use=trial.use(), records=max(1, asked, trial.answered())) for trial in self.trials]
        return Rate(parts=parts, latency_s=self.use().latency_s)

    def use(self) -> Use:
        """What it has taken so far."""
        return Use.of(row for trial in self.trials for row in trial.calls())

    async def ask(
        self, records: Sequence[dict[str, Any]], *, left_usd: float | None, left_tokens: int | None
    ) -> list[Any]:
        """The joined answers to some records; see `Trial.ask`."""
        columns: list[list[Any]] = []
        for trial in self.trials:
            had = trial.use()
            columns.append(await trial.ask(records, left_usd=left_usd, left_tokens=left_tokens))
            if self.broken is not None:
                return [None] * len(records)
            now = trial.use()
            left_tokens = None if left_tokens is None else left_tokens - (now.tokens - had.tokens)
            if left_usd is not None and trial.prices is not None:
                left_usd -= now.spent_usd(trial.prices) - had.spent_usd(trial.prices)
        return list(_joined(columns))


def _joined(columns: Sequence[Sequence[Any]]) -> Iterator[Any]:
    for row in zip(*columns, strict=True):
        if len(row) == 1:
            yield row[0]
        elif any(part is None for part in row):
            yield None
        else:
            yield {name: value for part in row for name, value in part.items()}
