"""The set-up of a simulated endpoint as plain values: what `annotate simulate` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from .behaviour import Behaviour, Drift
from .cache import RULES, CacheRule
from .draft import Poison, PoisonRule
from .endpoint import SimulatedEndpoint
from .faults import parse_strike_mode
from .gullible import ORDERS, Gullibility
from .latency import FixedLatency, Latency, LinearLatency
from .limits import RateLimits
from .made_up import CHANGES, HOLDS, HOSTED
from .measured import AGNEWS_COMPACT, QWEN_SERVER
from .model import ChatModel, Oracle
from .rates import FaultRates, Rate
from .reasoning import Reasoning
from .refusal import LimitsTold, MaxTokensField, Rules, SchemaSupport
from .reply import Mode, ReplyWriter

T = TypeVar("T")

BEHAVIOURS: dict[str, Behaviour] = {"agnews-compact": AGNEWS_COMPACT, "holds": HOLDS, "changes": CHANGES}
"""Behaviours by name; ``agnews-compact`` is fitted to measurements, the others are made up."""

LATENCIES: dict[str, LinearLatency] = {"measured": QWEN_SERVER, "hosted": HOSTED}
"""Latencies by name; ``fixed`` is made from a delay."""


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """Everything that can be set. Wrong names raise `ValueError` in `build_endpoint`.

    :ivar labels: the label set where a request's schema names none.
    :ivar output_schema: JSON schema of an output, for requests without a schema and tasks with several variables.
    :ivar answers_seed: of the right answers and of what batches do to them; 0: right answers by the text alone.
        See `gold_label`. `seed` draws faults, jitter and noise.
    :ivar latency: ``fixed``, ``measured`` (fitted to a real server), ``hosted`` (made up), or one of your own.
    :ivar delay_s: the latency of ``fixed``.
    :ivar faults: fault -> rate; see `rates.ALL_FAULTS`.
    :ivar schema_faults: the same for requests with a JSON schema; None: no difference.
    :ivar strike: ``every``, or ``first_sends=N``: faults strike only the first N sends of a record.
    :ivar mode: ``normal``, ``never_format``, ``always_400``, ``stale``, ``echo_items``, ``swap``.
    :ivar poison_marker: records whose text contains it always fail, in the way of `poison`.
    :ivar poison: ``drop``, ``break`` (the whole reply is garbage), ``off_label``.
    :ivar behaviour: see `BEHAVIOURS`, or one of your own; None: answers do not depend on the batch.
    :ivar gullibility: probability that an order in a record's text changes the answer to each record beside it.
    :ivar orders: what is taken for an order: a regular expression with a group ``label``; see `gullible.ORDERS`.
    :ivar rpm: requests a minute. :ivar tpm: tokens a minute, input and max_tokens charged up front.
    :ivar rps: requests a second, besides. :ivar tps: tokens a second; a request above it never passes.
    :ivar itpm: input tokens a minute, apart. :ivar otpm: output tokens a minute, apart; see `RateLimits`.
    :ivar limit_window_s: how much of the limits a minute may be used at once, in seconds of refill.
    :ivar limit_schedule: pairs (seconds since the first request, share of the limits from then on).
    :ivar limits_told: what is said of the rate limits: ``headers``, ``refusals`` (429s only), ``nothing``.
    :ivar max_concurrency: requests at once; more are answered 429, or wait with `queues`.
    :ivar quota_tokens: tokens that may be billed altogether.
    :ivar output_cap: tokens at which every reply is cut (``finish_reason`` length), whatever `max_tokens` says.
    :ivar cache: ``openai``, ``exact``, ``off``, or a rule of one's own.
    :ivar schema_support: ``json_schema``, ``json_object``, ``none``.
    :ivar max_tokens_field: ``either``, ``max_tokens``, ``max_completion_tokens``.
    :ivar context_tokens: the context limit.
    :ivar usage: whether replies carry usage.
    :ivar reasoning: what the model thinks before it answers; None: nothing, and ``reasoning_effort`` is refused.
    :ivar follows_form: whether keyed answers are given when asked for.
    """

    labels: Sequence[str] = ()
    output_schema: Mapping[str, Any] | None = None
    oracle: Oracle | None = None
    behaviour: str | Behaviour | Drift | None = None
    gullibility: float = 0.0
    orders: str = ORDERS
    seed: int = 0
    answers_seed: int = 0
    latency: str | Latency = "fixed"
    delay_s: float = 0.05
    faults: Mapping[str, Rate] | FaultRates = field(default_factory=dict)
    schema_faults: Mapping[str, Rate] | FaultRates | None = None
    strike: str = "every"
    mode: str = "normal"
    poison_marker: str | None = None
    poison: str = "drop"
    rpm: float | None = None
    tpm: float | None = None
    rps: float | None = None
    tps: float | None = None
    itpm: float | None = None
    otpm: float | None = None
    limit_window_s: float = 60.0
    limit_schedule: Sequence[tuple[float, float]] = ()
    limits_told: str = "headers"
    max_concurrency: int | None = None
    queues: bool = False
    quota_tokens: int | None = None
    output_cap: int | None = None
    cache: str | CacheRule = "openai"
    schema_support: str = "json_schema"
    max_tokens_field: str = "either"
    takes_temperature: bool = True
    context_tokens: int | None = None
    usage: bool = True
    follows_form: bool = True
    reasoning: Reasoning | None = None
    api_key: str | None = None
    model: str | None = None


def build_endpoint(config: SimulatorConfig) -> SimulatedEndpoint:
    """The endpoint.

    :raises ValueError: for an unknown name of a profile, fault, mode and the like.
    """
    model = ChatModel(
        oracle=config.oracle,
        labels=config.labels,
        output_schema=config.output_schema,
        behaviour=_behaviour(config.behaviour),
        gullibility=_gullibility(config),
        seed=config.answers_seed,
    )
    writer = ReplyWriter(
        model,
        Random(f"{config.seed} replies"),
        mode=Mode(config.mode),
        poison=PoisonRule(marker=config.poison_marker, kind=Poison(config.poison)),
    )
    return SimulatedEndpoint(
        writer,
        seed=config.seed,
        rules=_rules(config),
        latency=_latency(config),
        cache=config.cache if isinstance(config.cache, CacheRule) else _named(RULES, config.cache, "cache"),
        limits=RateLimits(
            rpm=config.rpm,
            tpm=config.tpm,
            rps=config.rps,
            tps=config.tps,
            itpm=config.itpm,
            otpm=config.otpm,
            window_s=config.limit_window_s,
            schedule=config.limit_schedule,
        ),
        faults=_rates(config.faults),
        schema_faults=None if config.schema_faults is None else _rates(config.schema_faults),
        first_sends=parse_strike_mode(config.strike),
        max_concurrency=config.max_concurrency,
        queues=config.queues,
        quota_tokens=config.quota_tokens,
        output_cap=config.output_cap,
        usage=config.usage,
        follows_form=config.follows_form,
        reasoning=config.reasoning,
    )


def _gullibility(config: SimulatorConfig) -> Gullibility | None:
    if config.gullibility <= 0:
        return None
    return Gullibility(strength=config.gullibility, orders=config.orders, seed=config.answers_seed)


def _rules(config: SimulatorConfig) -> Rules:
    return Rules(
        model=config.model,
        api_key=config.api_key,
        schema_support=SchemaSupport(config.schema_support),
        max_tokens_field=MaxTokensField(config.max_tokens_field),
        context_tokens=config.context_tokens,
        limits_told=LimitsTold(config.limits_told),
        takes_temperature=config.takes_temperature,
        refuses_all=config.mode == Mode.ALWAYS_400,
        efforts=tuple(config.reasoning.efforts) if config.reasoning is not None else (),
    )


def _rates(faults: Mapping[str, Rate] | FaultRates) -> FaultRates:
    return faults if isinstance(faults, FaultRates) else FaultRates(faults)


def _latency(config: SimulatorConfig) -> Latency:
    if not isinstance(config.latency, str):
        return config.latency
    if config.latency == "fixed":
        return FixedLatency(config.delay_s)
    return _named(LATENCIES, config.latency, "latency")


def _behaviour(behaviour: str | Behaviour | Drift | None) -> Behaviour | Drift | None:
    return _named(BEHAVIOURS, behaviour, "behaviour") if isinstance(behaviour, str) else behaviour


def _named(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return known[name]
