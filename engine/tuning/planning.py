"""From a task and a corpus to a plan. Sends nothing, and needs no key."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from engine.adapters.measured_calls import MeasuredCall, measured_calls, settings_id
from engine.adapters.store import read_store
from engine.adapters.tokens import TiktokenCounter
from engine.decide.forecast import CACHE_LEAST, Forecast, Given, Terms, forecasts, seconds_apart
from engine.decide.prompts import make_prompt
from engine.decide.vote_rounds import ONE
from engine.run.compose import task_key
from engine.tuning.corpus import count_corpus
from engine.tuning.document import PLAN_VERSION, Plan
from engine.tuning.terms import expected_terms, in_flight, learned_terms, with_reasoning
from engine.tuning.voting import IN_VAIN, check_can_vote, rounds_alone, stored_agreement, voted
from engine.vocabulary.config import AnswerForm, Packing, Prices, RunConfig
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
    :ivar temperature: that is asked for; None: the endpoint's own.
    :ivar agreement: the share of records whose answers in two rounds of votes are the same; None: as the store says.
    """

    batch_sizes: tuple[int, ...]
    form: AnswerForm
    sample: int
    limit: int | None
    store: Path | None
    model: str | None
    reasoning: tuple[float, float] | None = None
    temperature: float | None = 0.0
    agreement: float | None = None


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
    check_can_vote(task, config.votes)
    earlier = _earlier(task, wishes)
    calls = earlier.calls
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
        terms = with_reasoning(terms, call=call, record=record)
    corpus = counted.corpus
    votes = voted(config.votes, config.votes_stop, given=wishes.agreement, stored=earlier.agreement)
    rounds = ONE if votes is None else votes.rounds
    given = Given(
        limits=config.limits,
        packing=config.packing,
        prices=config.prices,
        concurrency=config.limits.max_concurrency,
        rounds=rounds,
        alone_rounds=rounds_alone(rounds, wishes.temperature),
    )
    if given.concurrency is None and calls:
        given = msgspec.structs.replace(given, concurrency=in_flight(calls, every_s=_apart_s(calls, terms, given)))
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
        votes=votes,
    )
    return msgspec.structs.replace(plan, notes=list(_notes(plan, counted.problems, wishes, len(calls))))


def _check_fits(static_tokens: int, packing: Packing) -> None:
    if static_tokens >= packing.max_input_tokens:
        raise ConfigError(
            f"the static prompt alone takes {static_tokens:,} tokens and a request may have "
            f"{packing.max_input_tokens:,}; shorten instructions or examples, or raise --max-input-tokens"
        )


class _Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier run left: its first calls, and how often two votes were the same."""

    calls: Sequence[MeasuredCall] = ()
    agreement: float | None = None


def _earlier(task: Task, wishes: Wishes) -> _Earlier:
    if wishes.store is None:
        return _Earlier()
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
        return _Earlier(
            calls=measured_calls(store, settings, most=MOST_CALLS), agreement=stored_agreement(store, settings)
        )


def _apart_s(calls: Sequence[MeasuredCall], terms: Terms, given: Given) -> float:
    """What the limits ask for between two calls such as these."""
    size, inputs, outputs = (
        statistics.fmean(values)
        for values in zip(*((each.size, each.input_tokens, each.output_tokens) for each in calls), strict=True)
    )
    each = seconds_apart(terms, given, size=round(size), input_tokens=inputs, output_tokens=outputs)
    return max(each.values(), default=0.0)


def _sizes(wished: Sequence[int]) -> list[int]:
    return sorted({1, *wished})


def _worth_it(made: Sequence[Forecast]) -> int:
    most = max(each.saved for each in made)
    return next(each.batch_size for each in made if each.saved >= _WORTH_IT * most)


def _cache_note(prices: Prices) -> str:
    if prices.cache_write is None:
        return (
            "what is written into a prefix cache is planned at the price of other input; where your provider takes "
            "more for it, say how much: --price-cache-write"
        )
    return (
        f"with a cached prefix, the first request writes it, at ${prices.cache_write:g} a million tokens. An endpoint "
        "that wants to be told what to keep (Anthropic's cache_control) keeps nothing unless --extra-body asks for it"
    )


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
    if plan.votes is not None and plan.forecasts[0].rounds.most == 1:
        yield f"{IN_VAIN}: one record a request is planned with one ask"
    if plan.prices is not None and any(each.cached_usd is not None for each in plan.forecasts):
        yield _cache_note(plan.prices)
    if not any(each.cached_tokens for each in plan.forecasts):
        yield f"the static prompt is below {CACHE_LEAST:,} tokens, too short for a hosted provider's prefix cache"
