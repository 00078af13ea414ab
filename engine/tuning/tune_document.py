"""What `tune.json` holds, word for word. Units are in the names."""

from __future__ import annotations

import msgspec

from engine.decide.quality_stats import Interval
from engine.decide.scores import VariableScore
from engine.tuning.space import Setting
from engine.vocabulary.config import Prices

TUNE_VERSION = 1


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One setting and what became of it. Tokens and seconds are those of the records that it was asked about.

    :ivar records: gold records that it was asked about; `failed` of them have no valid answer, which is not right.
    :ivar interval: of the score, at the confidence of the search.
    :ivar variables: the same for each variable of a task with several.
    :ivar mean_size: records in the request of a record, on average: budgets of tokens may hold fewer than the setting's
        batch size.
    :ivar malformed: replies that left a record unanswered.
    :ivar latency_s: of a request, the median.
    :ivar on_front: no other well-known setting is as cheap and as good, and better in one of the two.
    :ivar running: nothing has shown that it need not be asked further.
    :ivar stopped_by: the setting (an index in `rows`) that showed it: that is cheaper and as good within the margin, or
        where `is_worse` says so better by more than the margin.
    :ivar broken: why it answers nothing.
    """

    setting: Setting
    records: int
    failed: int
    score: float
    interval: Interval
    requests: int
    input_per_record: float
    cached_per_record: float
    output_per_record: float
    usd_per_1000: float | None
    cost_per_record: float
    malformed: int
    latency_s: float | None
    on_front: bool
    running: bool
    broken: str | None
    variables: list[VariableScore] = []
    mean_size: float | None = None
    stopped_by: int | None = None
    is_worse: bool = False


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """A search and its choice.

    :ivar records: gold records that there are; `unusable` were left out.
    :ivar margin: of the score, that the choice may be worse than the best. :ivar confidence: that it is not.
    :ivar rows: from the cheapest setting to the dearest. :ivar chosen: the index of the choice in `rows`, as are `best`
        (the highest estimate) and `threatening` (the setting that may be ahead of the choice by most).
    :ivar is_clear: no setting is better than the choice by more than the margin, at the confidence.
    :ivar behind: by how much the choice is estimated to be behind `threatening`, and `at_most` with the confidence.
    :ivar gold_needed: records that would show the margin for two settings which differ as often as these do.
    :ivar spent_tokens: by all trials, over all runs of the command. :ivar grid_tokens: that asking every setting about
        all records would have taken.
    :ivar stopped: why the search ended before its end; `stop_kind` is that for programs: budget, interrupted, ...
    :ivar prices: of the choice's model.
    :ivar options: for `annotate run`, what the choice implies besides the task file.
    """

    tune_version: int
    task: str
    gold: str
    model: str
    metric: str
    margin: float
    confidence: float
    records: int
    unusable: int
    rows: list[Row]
    dimensions: list[str]
    chosen: int
    best: int
    threatening: int | None
    is_clear: bool
    behind: float
    at_most: float
    gold_needed: int
    spent_tokens: int
    spent_usd: float | None
    grid_tokens: float
    prices: Prices | None
    options: list[str]
    stopped: str | None
    stop_kind: str | None
    notes: list[str]

    @property
    def variables(self) -> list[str]:
        """Names of the variables, where there are several."""
        return [each.name for each in next((row.variables for row in self.rows if row.variables), [])]

    @property
    def beside(self) -> str:
        """What stands beside the accuracy of a variable, for a heading."""
        scored = any(each.score is not None for row in self.rows for each in row.variables)
        return f", and {self.metric}" if scored else ""

    @property
    def choice(self) -> Row:
        """The chosen setting."""
        return self.rows[self.chosen]
