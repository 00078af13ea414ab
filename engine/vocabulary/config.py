"""How a run is to be done: endpoint, limits, packing, recovery. Checked once, passed down, never changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.keywords import NamesKeywords
from engine.vocabulary.secrets import HIDDEN, Secret, hidden, secret_parameter, shown_address

AnswerForm = Literal["compact", "keyed"]
FormChoice = Literal["auto", "compact", "keyed"]
"""auto: compact, and keyed where the labels hold compact answers to small batches and keyed ones not."""
Objective = Literal["records-per-second", "cost"]
OnBadRecord = Literal["stop", "fail-record"]
ConfidenceSource = Literal["votes", "logprobs"]
"""votes: how many of a record's votes the answer has. logprobs: also how probable its tokens were, which not
every endpoint says."""
VotesStop = Literal["decided", "agreed", "never"]
"""When a record is asked no more though rounds are left. decided: no other answer can draw level. agreed: also when the
last two answers are the same. never: all rounds."""
NeighbourGuardMode = Literal["off", "watch", "canaries"]
"""watch: look at texts and answers for signs that one record changed the answers to others. canaries: send two records
with known answers along in each batch as well, for corpora that are not trusted."""


class Endpoint(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """An OpenAI-compatible endpoint.

    :ivar base_url: up to and without ``/chat/completions``; a bare host gets ``/v1``.
    :ivar headers: of every request; a value that is a key, whatever the header's name, as a `Secret`, so that no echo
        of it is shown.
    :ivar temperature: sent unless None; an endpoint that does not take it is found out and obeyed.
    :ivar reasoning_effort: how much a model is to think, in the endpoint's words (``low``, ``medium``, ``high``,
        ``none``); one that it does not take ends the run, since more thinking than wanted costs money.
    :ivar extra_body: merged into every request body, at the top level.
    :ivar exact_count: the schema may say how many results there must be; for local servers known to take it, where it
        stops endless lists. Elsewhere a schema that changes costs a compilation or the prefix cache.
    :ivar timeout_s: for one HTTP attempt, from sent to last byte; waiting in our queues is not part of it.
    """

    base_url: str
    model: str
    api_key: Secret | None = None
    headers: Mapping[str, str | Secret] = {}
    extra_body: Mapping[str, Any] = {}
    temperature: float | None = 0.0
    reasoning_effort: str | None = None
    exact_count: bool = False
    connect_timeout_s: float = 10.0
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """A key that comes as a plain string does not show itself either."""
        key: object = self.api_key
        if isinstance(key, str):
            msgspec.structs.force_setattr(self, "api_key", Secret(key))

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What may be shown: no value of a header, which may be a key, and nothing that looks like one."""
        shown = {
            "base_url": shown_address(self.base_url),
            "headers": dict.fromkeys(self.headers, HIDDEN),
            "extra_body": hidden(self.extra_body),
        }
        return [(name, shown.get(name, getattr(self, name))) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"Endpoint({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


MOST_GOLD = 0.5
"""Of the records that are sent: with more, gold would be what the run is about, and `tune` is the command for that."""

_COMFORTABLE_SHARE = 0.04
"""Of the tokens a minute. A burst of b cuts a limit L to L - b in any minute; b is at least the largest request."""

MOST_IN_FLIGHT = 64
"""Where the window finds itself: beyond, one process gains little, and an endpoint that bears more can be told."""


class Exceeded(msgspec.Struct, frozen=True):
    """A limit a minute that one request is above by itself, so that it could never be sent."""

    needed: float
    per_minute: float
    kind: str
    option: str

    def __str__(self) -> str:
        return f"{self.needed:,.0f} {self.kind}, and {self.per_minute:,.0f} a minute are allowed"


class Limits(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """What the endpoint allows. None means not known, and is found out: a rate by what is refused or by the endpoint's
    headers, the number in flight by what it does to throughput. What is given is never exceeded; less is used where
    refusals show that it is too much.

    :ivar tokens_per_minute: input and output together.
    :ivar input_tokens_per_minute: where the endpoint counts them apart from the output; all three may be given.
    :ivar max_concurrency: requests in flight at once.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    max_concurrency: int | None = None

    @property
    def are_known(self) -> bool:
        """Whether any rate is given."""
        return any(
            per_minute is not None
            for per_minute in (
                self.requests_per_minute,
                self.tokens_per_minute,
                self.input_tokens_per_minute,
                self.output_tokens_per_minute,
            )
        )

    @property
    def comfortable_tokens(self) -> float:
        """Tokens that a request may take without its waiting costing too much of a limit; infinite without one."""
        held_by = (self.tokens_per_minute, self.input_tokens_per_minute)
        return max(1.0, min((per * _COMFORTABLE_SHARE for per in held_by if per is not None), default=math.inf))

    def exceeded(self, *, input_tokens: float, output_tokens: float) -> Exceeded | None:
        """The first limit that a request with so many tokens is above."""
        both = input_tokens + output_tokens
        for needed, per_minute, kind, option in (
            (both, self.tokens_per_minute, "tokens", "tokens_per_minute (--tpm)"),
            (input_tokens, self.input_tokens_per_minute, "input tokens", "input_tokens_per_minute (--itpm)"),
            (output_tokens, self.output_tokens_per_minute, "output tokens", "output_tokens_per_minute (--otpm)"),
        ):
            if per_minute is not None and needed > per_minute:
                return Exceeded(needed, per_minute, kind, option)
        return None

    @property
    def most_in_flight(self) -> int:
        """Requests that may ever be in flight at once."""
        return MOST_IN_FLIGHT if self.max_concurrency is None else self.max_concurrency


class Packing(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """How records are put together into requests.

    :ivar batch_size: records in a request; None leaves it to the controller.
    :ivar max_batch_size: the most that a controller may choose.
    :ivar max_input_tokens: of one request, the static prompt included.
    :ivar max_output_tokens: of one request.
    :ivar look_ahead: records held while batches are formed, over all; bounds memory.
    :ivar max_wait_s: the longest that a half-full batch waits for more input.
    :ivar deduplicate: ask identical inputs once, and give all of them the answer.
    """

    batch_size: int | None = None
    max_batch_size: int = 32
    max_input_tokens: int = 16_000
    max_output_tokens: int = 4_000
    look_ahead: int = 512
    max_wait_s: float = 0.05
    deduplicate: bool = True


class Recovery(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """How long to try.

    :ivar lone_attempts: asks of a record by itself before it is failed.
    :ivar transport_attempts: sends of one batch that meet transport or server faults before it is split or failed.
    :ivar max_failed: share of failed records above which the run stops, once 100 have ended.
    """

    lone_attempts: int = 3
    transport_attempts: int = 6
    max_failed: float = 0.2
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0


class Prices(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """US dollars per million tokens. `cached_input` is the price of input read from the provider's prefix cache.

    :ivar cache_write: of input that is written into that cache, where it costs more than other input; None: it does
        not.
    :ivar source: the page that they are from; None: the user gave them. `as_of` is when they were so.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    source: str | None = None
    as_of: str | None = None


class Quality(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """How the labels are guarded while the batch size adapts.

    :ivar guard: compare answers of batches with lone ones, and use no size that is not shown to leave them alone.
    :ivar max_disagreement: share of answers that may differ from lone ones, beyond what differs when asked twice.
    :ivar neighbours: how records are guarded against orders that stand in the text of others; see the type.
    :ivar gold_rate: of records with known answers, where a run is given any, among the records that are sent.
    """

    guard: bool = True
    max_disagreement: float = 0.10
    neighbours: NeighbourGuardMode = "watch"
    gold_rate: float = 0.05


class Escalation(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """A second model, for records of which the first is unsure, or that it failed. Its answers take the place of the
    first one's.

    :ivar below: the confidence under which a record goes to it; needs votes or token probabilities. None: none does.
    :ivar failed: records go to it that the first model failed for a reason that another may not share: no valid answer
        after all attempts, cut off, refused, filtered.
    :ivar base_url: its endpoint; None: the first one's.
    :ivar prices: of it; None: those of the dated table, where it knows it.
    """

    below: float | None = None
    model: str
    failed: bool = False
    base_url: str | None = None
    prices: Prices | None = None


class RunConfig(msgspec.Struct, metaclass=NamesKeywords, frozen=True, kw_only=True):
    """Everything about how a run is done, apart from what is asked and of whom.

    :ivar seed: of the shuffled look-ahead and the jitter. Ids in requests never depend on it.
    :ivar objective: what an adaptive batch size serves: valid records per second, or per dollar (per token, with output
        four times as dear as input, where there are no prices).
    :ivar target_p95_s: answer 95 % of the records within so long after they were accepted, by smaller batches and a
        shorter look-ahead, at the cost of throughput. None: throughput comes first.
    :ivar votes: rounds in which each record is asked at the most, each time among others; the majority counts, and its
        share of the votes is the confidence. 1: no votes.
    :ivar confidence: what it is told by.
    :ivar escalation: a second model for records of which the first is unsure.
    :ivar prices: None: those of a dated table that ships, where it knows the model at its provider's own host.
    :ivar warm_prefix: the first request goes alone, and two at once until one has read the static prompt from the
        provider's cache, at most five seconds. None: where one is known of, and the prompt is long enough for it.
    :ivar budget_usd: stop before spending more on this store and model, over all its runs; needs prices.
    :ivar budget_tokens: stop before more input and output tokens are used by this store, over all its runs.
    """

    limits: Limits = Limits()
    packing: Packing = Packing()
    recovery: Recovery = Recovery()
    quality: Quality = Quality()
    objective: Objective = "records-per-second"
    target_p95_s: float | None = None
    prices: Prices | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None
    votes: int = 1
    votes_stop: VotesStop = "decided"
    confidence: ConfidenceSource = "votes"
    escalation: Escalation | None = None
    answer_form: FormChoice = "auto"
    warm_prefix: bool | None = None
    on_bad_record: OnBadRecord = "stop"
    retry_failed: bool = False
    seed: int = 0


def check_config(config: RunConfig) -> None:
    """Raise `ConfigError` with the name of the option that is out of range."""
    problem = next(_problems(config), None)
    if problem:
        raise ConfigError(problem)


def _problems(config: RunConfig) -> Iterator[str]:
    limits, packing, recovery = config.limits, config.packing, config.recovery
    at_least_one = {
        "batch size": packing.batch_size,
        "max batch size": packing.max_batch_size,
        "max input tokens": packing.max_input_tokens,
        "max output tokens": packing.max_output_tokens,
        "look-ahead": packing.look_ahead,
        "max concurrency": limits.max_concurrency,
        "requests per minute": limits.requests_per_minute,
        "tokens per minute": limits.tokens_per_minute,
        "input tokens per minute": limits.input_tokens_per_minute,
        "output tokens per minute": limits.output_tokens_per_minute,
        "lone attempts": recovery.lone_attempts,
        "transport attempts": recovery.transport_attempts,
        "votes": config.votes,
    }
    for name, value in at_least_one.items():
        if value is not None and not (value >= 1 and math.isfinite(value)):
            yield f"{name} must be at least 1, not {value}"
    if not 0 <= config.quality.max_disagreement <= 1:
        yield f"max disagreement is a share from 0 to 1, not {config.quality.max_disagreement}"
    if not 0 < config.quality.gold_rate <= MOST_GOLD:
        yield f"the rate of gold is a share above 0 and up to {MOST_GOLD}, not {config.quality.gold_rate}"
    if not 0 <= recovery.max_failed <= 1:
        yield f"max failed is a share from 0 to 1, not {recovery.max_failed}"
    at_least_zero = {
        "max wait": packing.max_wait_s,
        "back-off base": recovery.backoff_base_s,
        "back-off cap": recovery.backoff_cap_s,
        "price of input": config.prices.input if config.prices else 0,
        "price of output": config.prices.output if config.prices else 0,
        "price of cached input": (config.prices.cached_input if config.prices else None) or 0,
        "price of cache writes": (config.prices.cache_write if config.prices else None) or 0,
    }
    for name, number in at_least_zero.items():
        if not (number >= 0 and math.isfinite(number)):
            yield f"{name} must be a number from 0 up, not {number}"
    if config.target_p95_s is not None and not (config.target_p95_s > 0 and math.isfinite(config.target_p95_s)):
        yield f"the latency target must be a number of seconds above 0, not {config.target_p95_s}"
    yield from _escalation_problems(config)
    if config.budget_tokens is not None and not config.budget_tokens > 0:
        yield f"the budget in tokens must be above 0, not {config.budget_tokens}"
    if config.budget_usd is not None and not config.budget_usd > 0:
        yield f"the budget must be above 0, not {config.budget_usd}"


def _escalation_problems(config: RunConfig) -> Iterator[str]:
    escalation = config.escalation
    if escalation is None:
        return
    if escalation.below is None and not escalation.failed:
        yield "nothing goes to the second model: give --escalate-below, or --escalate-failed, or both"
    if escalation.below is not None and not 0 < escalation.below <= 1:
        yield f"escalation happens below a confidence above 0 and up to 1 (--escalate-below), not {escalation.below}"
    url = escalation.base_url
    if url is not None and ("@" in url or secret_parameter(url) is not None):
        yield "the second model's address (--escalate-base-url) holds what looks like a key, and an address is shown"
    if escalation.below is not None and config.votes == 1 and config.confidence != "logprobs":
        yield (
            "nothing says how sure an answer is, so none can go to a second model: ask for votes, such as --votes 3, "
            "or for token probabilities, --confidence logprobs, beside --escalate-below"
        )
