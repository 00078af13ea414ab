"""From a task and a corpus to a plan. Sends nothing, and needs no key."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from engine.adapters.measured_calls import MeasuredCall, measured_calls, settings_id
from engine.adapters.store import read_store
from engine.adapters.tokens import TiktokenCounter
from engine.decide.forecast import CACHE_LEAST, Forecast, Given, forecasts
from engine.decide.prompts import make_prompt
from engine.run.compose import task_key
from engine.tuning.corpus import count_corpus
from engine.tuning.document import PLAN_VERSION, Plan
from engine.tuning.terms import expected_terms, in_flight, learned_terms
from engine.vocabulary.config import AnswerForm, Packing, RunConfig
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Task
from engine.vocabulary.values import RawRecord

MOST_CALLS = 500  # of an earlier run, that are looked at
_WORTH_IT = 0.9


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is to be made for.

    :ivar batch_sizes: in rising order; 1 comes first in any case.
    :ivar form: how answers are asked for.
    :ivar sample: inputs whose tokens are counted at the most.
    :ivar store: of an earlier run of this task on this model, to learn from.
    :ivar reasoning: tokens that the model thinks with, of a request and of each record in it; None: as the store's
        calls say, else none.
    """

    batch_sizes: tuple[int, ...]
    form: AnswerForm
    sample: int
    limit: int | None
    store: Path | None
    model: str | None
    reasoning: tuple[float, float] | None = None


def make_plan(
    task: Task, raws: Iterable[RawRecord], config: RunConfig, wishes: Wishes, *, task_name: str, input_name: str
) -> Plan:
    """Count a corpus, and say what it will take. Blocks: a minute for a million records of a hundred tokens.

    :raises ConfigError: the prompt does not fit into a request. :raises InputError: nothing can be asked about.
    :raises StoreError: the store cannot be read.
    """
    counter = TiktokenCounter(wishes.model)
    terms = expected_terms(task, make_prompt(task, wishes.form), counter.count, exact=counter.is_theirs)
    _check_fits(terms.static_tokens, config.packing)
    calls = _calls(task, wishes)
    counted = count_corpus(
        itertools.islice(raws, wishes.limit),
        task,
        counter.count,
        name=input_name,
        most=wishes.sample,
        deduplicate=config.packing.deduplicate,
        screens=config.quality.neighbours != "off",
        look_for={digest for call in calls for digest in call.digests},
    )
    terms, learned = learned_terms(terms, calls, counted.found)
    if wishes.reasoning is not None:
        call, record = wishes.reasoning
        terms = msgspec.structs.replace(terms, reasoning_call=call, reasoning_record=record)
    corpus = counted.corpus
    given = Given(
        limits=config.limits,
        packing=config.packing,
        prices=config.prices,
        concurrency=config.limits.max_concurrency or in_flight(calls),
    )
    made = forecasts(corpus, terms, given, batch_sizes=_sizes(wishes.batch_sizes), seed=config.seed)
    plan = Plan(
        plan_version=PLAN_VERSION,
        task=task_name,
        input=input_name,
        model=wishes.model or "the embedded model",
        records=corpus.records,
        bad=counted.bad,
        asked=corpus.asked,
        counted=len(corpus.entry_tokens),
        record_tokens=round(terms.input_ratio * sum(corpus.entry_tokens) / len(corpus.entry_tokens), 3),
        encoding=counter.encoding_name,
        terms=terms,
        learned=learned,
        prices=config.prices,
        limits=msgspec.to_builtins(config.limits),
        forecasts=made,
        worth_it=_worth_it(made),
        notes=[],
    )
    return msgspec.structs.replace(plan, notes=list(_notes(plan, counted.problems, wishes, len(calls))))


def _check_fits(static_tokens: int, packing: Packing) -> None:
    if static_tokens >= packing.max_input_tokens:
        raise ConfigError(
            f"the static prompt alone takes {static_tokens:,} tokens and a request may have "
            f"{packing.max_input_tokens:,}; shorten instructions or examples, or raise --max-input-tokens"
        )


def _calls(task: Task, wishes: Wishes) -> Sequence[MeasuredCall]:
    if wishes.store is None:
        return []
    with closing(read_store(wishes.store)) as store:
        rows = store.query("SELECT DISTINCT model FROM settings WHERE task_key = ?", (task_key(task),))
        models = [model for (model,) in rows]
        if not models:
            raise ConfigError(
                f"{wishes.store} holds nothing of this task: name the store of a run of it, or leave out --store"
            )
        model = wishes.model or models[0]
        settings = settings_id(store, task_key=task_key(task), model=model)
        if settings is None:
            raise ConfigError(
                f"{wishes.store} holds answers to this task by {', '.join(models)}, not by {model}; --model names one"
            )
        return measured_calls(store, settings, most=MOST_CALLS)


def _sizes(wished: Sequence[int]) -> list[int]:
    return sorted({1, *wished})


def _worth_it(made: Sequence[Forecast]) -> int:
    most = max(each.saved for each in made)
    return next(each.batch_size for each in made if each.saved >= _WORTH_IT * most)


def _notes(plan: Plan, problems: Sequence[str], wishes: Wishes, calls: int) -> Iterable[str]:
    if plan.bad:
        more = "; ..." if plan.bad > len(problems) else ""
        yield f"{plan.bad:,} records cannot be asked about and are not in the plan ({'; '.join(problems)}{more})"
    if wishes.store is not None and plan.learned is None:
        yield f"{wishes.store} holds only {calls} whole calls of this task and model, too few to learn from"
    elif plan.learned is not None and not plan.learned.matched:
        yield "the store's calls held other records than this input: how the endpoint counts input is not learned"
    if plan.learned is None and plan.terms.input_ratio != 1.0:
        yield (
            f"this model's tokens are not known: {plan.terms.input_ratio:g} are taken for one of {plan.encoding}, and "
            "it may be .9 to 1.3. After the first 20 calls of a run its store says how many it is: --store"
        )
    largest = plan.forecasts[-1].batch_size
    if plan.learned is not None and plan.learned.sizes[1] < largest:
        yield (
            f"the store's calls held {plan.learned.sizes[0]} to {plan.learned.sizes[1]} records: times of larger "
            "batches are drawn out from these"
        )
    if not any(each.cached_tokens for each in plan.forecasts):
        yield f"the static prompt is below {CACHE_LEAST:,} tokens, too short for a hosted provider's prefix cache"
