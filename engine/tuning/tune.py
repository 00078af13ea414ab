"""The search: settings race over the gold records, and the cheapest one that is good enough is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.adapters.tokens import TiktokenCounter
from engine.decide.estimates import ENTRY_TOKENS
from engine.decide.prompts import input_text, make_prompt
from engine.decide.racing import Choice, Race, Rule, looks
from engine.decide.scores import Metric, Score, VariableScore, pareto_front, score_within, variable_scores
from engine.decide.vote_rounds import ASSUMED_AGREEMENT, rounds_of
from engine.tuning.fair_gold import fair_gold, input_of
from engine.tuning.gold import Gold, left_out
from engine.tuning.grouping import parts_of
from engine.tuning.journal import Journal
from engine.tuning.model_prices import model_prices, unpriced
from engine.tuning.rate import Rate, expected
from engine.tuning.space import Setting, Space, settings_of, task_of, varying
from engine.tuning.stack import Stack
from engine.tuning.terms import expected_terms
from engine.tuning.trial import Means, Shared, Trial, Use, extra_body
from engine.tuning.tune_document import TUNE_VERSION, Row, Tuned
from engine.tuning.voting import check_can_vote, with_a_point
from engine.vocabulary.config import Prices, RunConfig
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.ports import Transport
from engine.vocabulary.task import Task

_TRUSTED = 300  # records before which an estimate does not stand on the Pareto front
_TOKENS_COUNTED = 200  # records, for what the search may cost


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, and what may be spent on it. Names are for people.

    :ivar metric_name: how `metric` is called.
    :ivar reasoning: tokens that the model is expected to think with, of a request and of each record in it.
    """

    space: Space
    rule: Rule
    metric: Metric
    metric_name: str
    task_name: str
    gold_name: str
    budget_usd: float | None = None
    budget_tokens: int | None = None
    reasoning: tuple[float, float] = (0.0, 0.0)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a search is: about to ask `setting` for records up to `upto`."""

    setting: Setting
    upto: int
    running: int
    spent_tokens: int


class Search:
    """A search over one task, one gold set and one endpoint. Once made, nothing is sent yet."""

    def __init__(
        self, task: Task, gold: Gold, aim: Aim, means: Means, *, transport: Transport | None = None,
        virtual_time: bool = False,
    ) -> None:  # fmt: skip
        """
        :param transport: in place of HTTP, for tests, as is `virtual_time`.
        :raises ConfigError: the space does not fit to the task or the endpoint; a budget in dollars lacks prices.
        """
        self._task, self._aim, self._means = task, aim, means
        every = settings_of(aim.space, task, votes=means.config.votes)
        self.settings, self.left_out = with_a_point(every, means.endpoint)
        parts = [parts_of(task_of(setting, task, aim.space), setting.variables) for setting in self.settings]
        for setting, tasks in zip(self.settings, parts, strict=True):
            for one in tasks:
                check_can_vote(one, setting.votes)
        shown = [example for tasks in parts for example in tasks[0].examples]
        fair = fair_gold(gold, task, shown, name=aim.gold_name, on_bad_record=means.config.on_bad_record)
        self.gold, self.notices = fair.gold, fair.notes
        self._prices = model_prices(self.settings, means, budget_usd=aim.budget_usd)
        self._has_prices = all(prices is not None for prices in self._prices)
        self._shared = Shared(means.config.limits)

        def made(setting: Setting, task: Task, prices: Prices | None) -> Trial:
            of_its_own = _priced(means, prices)
            return Trial(setting, task, of_its_own, shared=self._shared, transport=transport, virtual_time=virtual_time)

        self._trials = [
            Stack([made(setting, one, prices) for one in tasks])
            for setting, tasks, prices in zip(self.settings, parts, self._prices, strict=True)
        ]
        self._answers: list[list[Any]] = [[] for _ in self.settings]
        self._uses = [trial.use() for trial in self._trials]
        self._expected = [
            expected(use) for use in _expected_uses(self.settings, parts, self.gold, means, aim.reasoning)
        ]
        self._measured: list[Rate | None] = [None] * len(self.settings)
        self._journal = Journal(means.folder)
        self._stays_broken = 0
        step = max(setting.batch_size for setting in self.settings)
        self._race = Race(
            self._costs(), at=looks(len(self.gold.records), step=step), rule=aim.rule, tokens=self._tokens()
        )
        self._stopped: str | None = None
        self._stop_kind: str | None = None

    @property
    def most_tokens(self) -> int:
        """What it is expected to take at the most: as prompts and answers are counted before anything is measured."""
        return round(self._race.most)

    @property
    def most_usd(self) -> float | None:
        """The same in dollars; None where a price is not known."""
        if not self._has_prices:
            return None
        rates = zip(self._rates(), self._prices, strict=True)
        return self._race.most_of([rate.usd(prices) for rate, prices in rates if prices is not None])

    async def run(self, tell: Callable[[Progress], None]) -> Tuned:
        """Ask, until the choice is clear, the gold is used up, or the budget is.

        The same search again finds its answers in the stores, takes the same way and pays for nothing twice.

        :raises RunStopped: nothing could be asked at all: a wrong key, no such model.
        """
        while wanted := self._race.wanted():
            for k, upto in sorted(wanted.items(), key=lambda each: self._costs()[each[0]]):
                tell(
                    Progress(
                        setting=self.settings[k], upto=upto, running=len(self._race.alive), spent_tokens=self.spent
                    )
                )
                try:
                    await self._ask(k, upto)
                except RunStopped as stop:
                    self._stop(stop)
                    break
            self._race.told(self._scores())
            if self._stopped is not None:
                self._race.end()
                break
            self._race.price(self._costs(), tokens=self._tokens())
        self._check_anything()
        return self._document(self._race.choice())

    def stop(self) -> None:
        """Send nothing more; `run` then ends with what it has."""
        self._shared.stop()

    @property
    def spent(self) -> int:
        """Tokens that all trials took so far."""
        return sum(use.tokens for use in self._uses)

    async def _ask(self, k: int, upto: int) -> None:
        answers = self._answers[k]
        left_usd, left_tokens = self._left()
        trial, known = self._trials[k], self.gold.records[:upto]
        had = trial.answered()
        look = self._journal.look(trial.name, known)
        if look is not None and look.broken is not None and trial.broken is None and self._uses[k].requests:
            trial.break_off(look.broken)
            self._stays_broken += 1
        try:
            answers += await trial.ask(known[len(answers) :], left_usd=left_usd, left_tokens=left_tokens)
        finally:
            self._uses[k] = trial.use()
        if look is None or look.broken != trial.broken or had != trial.answered():
            self._measured[k] = trial.rate(len(answers))
            self._journal.keep(trial.name, known, trial.rate(len(answers)), trial.broken)
        else:
            self._measured[k] = look.rate

    def _left(self) -> tuple[float | None, int | None]:
        usd, tokens = self._aim.budget_usd, self._aim.budget_tokens
        left_usd = None if usd is None else usd - (self._spent_usd() or 0.0)
        left_tokens = None if tokens is None else tokens - self.spent
        return left_usd, left_tokens

    def _stop(self, stop: RunStopped) -> None:
        """Half a block is not counted: its settings would be compared on other records than the rest."""
        if not any(self._answers):
            raise stop
        self._stop_kind = stop.kind
        self._stopped = self._budget_used() if stop.kind == "budget" else str(stop)

    def _budget_used(self) -> str:
        """In the words of the command; the engine speaks of the store of one trial."""
        usd, tokens = self._aim.budget_usd, self._aim.budget_tokens
        if tokens is not None:
            return (
                f"{self.spent:,} of the {tokens:,} tokens of --budget-tokens are used, and the next request may not fit"
            )
        return f"${self._spent_usd() or 0.0:.4f} of the ${usd or 0.0:g} of --budget-usd are used"

    def _check_anything(self) -> None:
        broken = [trial.broken for trial in self._trials if trial.broken is not None]
        if broken and len(broken) == len(self._trials):
            self._journal.forget_broken()
            raise RunStopped("brake", f"no setting gets an answer; the first says: {broken[0]}")

    # -- what it costs ------------------------------------------------------------------------------------------

    def _costs(self) -> list[float]:
        """Of one record: measured, where it was."""
        rates = zip(self._rates(), self._prices, strict=True)
        return [rate.cost(prices if self._has_prices else None) for rate, prices in rates]

    def _rates(self) -> list[Rate]:
        """As they were at the look at which they were first measured: a later run decides by the same."""
        return [
            measured if measured is not None and measured.tokens else first
            for measured, first in zip(self._measured, self._expected, strict=True)
        ]

    def _spent_usd(self) -> float | None:
        if not self._has_prices:
            return None
        return math.fsum(use.spent_usd(prices) for use, prices in zip(self._uses, self._prices, strict=True) if prices)

    def _grid_tokens(self) -> float:
        return len(self.gold.records) * math.fsum(self._tokens())

    def _tokens(self) -> list[float]:
        """Of one record."""
        return [rate.tokens for rate in self._rates()]

    # -- what came of it ----------------------------------------------------------------------------------------

    def _scores(self) -> list[list[float]]:
        return [
            self._aim.metric(list(zip(self.gold.outputs[: len(answers)], answers, strict=True))) if answers else []
            for answers in self._answers
        ]

    def _measured_scores(self) -> list[Score]:
        """As everybody works them out; the race goes by one number a record (`decide.scores`)."""
        return [
            score_within(
                list(zip(self.gold.outputs[: len(answers)], answers, strict=True)), each, self._aim.metric_name,
                self._task, self._aim.rule.confidence,
            )
            for answers, each in zip(self._answers, self._scores(), strict=True)
        ]  # fmt: skip

    def _document(self, choice: Choice) -> Tuned:
        costs, scores = self._costs(), self._measured_scores()
        order = sorted(range(len(self.settings)), key=lambda k: (costs[k], k))
        place = {k: index for index, k in enumerate(order)}
        front = self._front(costs, scores)
        threat, z = choice.threat, self._aim.rule.z
        return Tuned(
            tune_version=TUNE_VERSION,
            task=self._aim.task_name,
            gold=self._aim.gold_name,
            model=self._means.model,
            metric=self._aim.metric_name,
            margin=self._aim.rule.margin,
            confidence=self._aim.rule.confidence,
            records=len(self.gold.records),
            unusable=self.gold.unusable,
            rows=[self._row(k, scores[k], costs[k], on_front=k in front, place=place) for k in order],
            dimensions=varying(self.settings),
            chosen=place[choice.setting],
            best=place[choice.best],
            threatening=None if choice.threatening is None else place[choice.threatening],
            is_clear=choice.is_clear,
            behind=threat.mean if threat else 0.0,
            at_most=threat.high(z) if threat else 0.0,
            gold_needed=choice.gold_needed,
            spent_tokens=self.spent,
            spent_usd=self._spent_usd(),
            grid_tokens=self._grid_tokens(),
            prices=self._prices[choice.setting],
            options=options_of(self.settings[choice.setting], self._means.config),
            stopped=self._stopped,
            stop_kind=self._stop_kind,
            notes=self._notes(),
        )

    def _row(self, k: int, score: Score, cost: float, *, on_front: bool, place: Mapping[int, int]) -> Row:
        rate, answers, prices = self._measured[k] or Rate(), self._answers[k], self._prices[k]
        stop = self._race.stop_of(k)
        return Row(
            setting=self.settings[k],
            records=len(answers),
            failed=sum(answer is None for answer in answers),
            score=score.value,
            interval=score.interval,
            variables=self._by_variable(answers),
            requests=rate.requests,
            mean_size=rate.mean_size,
            input_per_record=rate.input,
            cached_per_record=rate.cached,
            output_per_record=rate.output,
            usd_per_1000=None if prices is None else 1000 * rate.usd(prices),
            cost_per_record=cost,
            malformed=rate.malformed,
            latency_s=rate.latency_s,
            on_front=on_front,
            running=k in self._race.alive,
            broken=self._trials[k].broken,
            stopped_by=None if stop is None else place[stop.by],
            is_worse=stop is not None and stop.is_worse,
        )

    def _by_variable(self, answers: Sequence[Any]) -> list[VariableScore]:
        judged = list(zip(self.gold.outputs[: len(answers)], answers, strict=True))
        confidence = self._aim.rule.confidence
        return variable_scores(judged, self._task, self._aim.metric_name, confidence) if judged else []

    def _front(self, costs: Sequence[float], scores: Sequence[Score]) -> set[int]:
        """Of the settings that are known well enough: the luck of fifty records is no merit."""
        enough = max(1, min(_TRUSTED, max(map(len, self._answers))))
        known = [k for k, answers in enumerate(self._answers) if len(answers) >= enough]
        points = [(costs[k], scores[k].value) for k in known]
        return {k for k, is_on in zip(known, pareto_front(points), strict=True) if is_on}

    def _notes(self) -> list[str]:
        notes = []
        notes += [without for without in (left_out(self.gold), *self.notices, self.left_out) if without is not None]
        without = unpriced(self.settings, self._prices, self._means)
        notes += [] if without is None else [without]
        if self._stays_broken:
            one = self._stays_broken == 1
            notes.append(
                f"{self._stays_broken} setting{' that was' if one else 's that were'} stopped in an earlier run for "
                f"replies that make no sense {'is' if one else 'are'} not asked again; another --work asks anew"
            )
        return notes


def options_of(setting: Setting, config: RunConfig) -> list[str]:
    """Words for `annotate run` that the task file cannot say."""
    words = ["--batch-size", str(setting.batch_size), "--answer-form", setting.form]
    if setting.votes > 1:
        words += ["--votes", str(setting.votes)]
        words += [] if config.votes_stop == "decided" else ["--votes-stop", config.votes_stop]
    if setting.model is not None:
        words += ["--model", setting.model]
    if setting.temperature is not None:
        words += ["--temperature", f"{setting.temperature:g}"]
    if extra_body(setting):
        words += ["--extra-body", msgspec.json.encode(extra_body(setting)).decode()]
    return words


def _priced(means: Means, prices: Prices | None) -> Means:
    return msgspec.structs.replace(means, config=msgspec.structs.replace(means.config, prices=prices))


def _expected_uses(
    settings: Sequence[Setting], parts: Sequence[Sequence[Task]], gold: Gold, means: Means, thought: tuple[float, float]
) -> list[Use]:
    """What one record will take, before anything is sent. Blocks for some milliseconds a setting.

    :param thought: tokens of a request and of each record in it.
    """
    counter = TiktokenCounter(means.model)
    inputs = [input_of(record, parts[0][0]) for record in gold.records[:_TOKENS_COUNTED]]
    entry = sum(counter.count(input_text(value)) + ENTRY_TOKENS for value in inputs) / len(inputs)

    def expected(setting: Setting, task: Task) -> Use:
        terms = expected_terms(task, make_prompt(task, setting.form), counter.count, exact=counter.is_theirs)
        if terms.static_tokens >= means.config.packing.max_input_tokens:
            raise ConfigError(
                f"the static prompt with {setting.examples} examples takes {terms.static_tokens:,} tokens and a "
                f"request may have {means.config.packing.max_input_tokens:,}; take fewer, or raise --max-input-tokens"
            )
        sent = terms.input_ratio * (terms.static_tokens / setting.batch_size + entry)
        call, record = thought
        said = terms.output_record + record + (terms.output_call + call) / setting.batch_size
        asks = rounds_of(setting.votes, means.config.votes_stop, agreement=ASSUMED_AGREEMENT).expected
        return Use(input=round(asks * sent), output=round(asks * said))

    uses = []
    for setting, tasks in zip(settings, parts, strict=True):
        each = [expected(setting, task) for task in tasks]
        uses.append(Use(input=sum(use.input for use in each), output=sum(use.output for use in each)))
    return uses
