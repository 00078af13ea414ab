"""What a corpus will take at a batch size: requests, tokens, cost and time, before anything is sent.

The packer itself packs the corpus's own token counts, so budgets and unequal lengths are in it; what a request takes
besides its records comes from the prompt as it will be sent. Nothing here knows of failures: a forecast is for an
endpoint that answers everything at the first ask. See docs/design/plan.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import msgspec

from engine.decide.climb import Pace, run_s
from engine.decide.concurrency import Window
from engine.decide.estimates import TokenEstimates
from engine.decide.packing import pack
from engine.decide.pricing import cost_usd
from engine.decide.reasoning import SCATTER, Reasoning
from engine.decide.room import request_room
from engine.decide.vote_rounds import ONE, Rounds
from engine.vocabulary.config import Limits, Packing, Prices

CACHE_LEAST, CACHE_STEP = 1_024, 128
"""Tokens from which on hosted providers cache a prefix, and the steps in which they do (OpenAI's documentation)."""

BATCH_API_SHARE = 0.5
"""Of the price, where requests may take a day: what OpenAI, Anthropic, Google and Mistral ask."""

_TWO_SIDED_95 = 1.96
_LOOK_AHEAD = 512
_HELD = 1.5  # times what the limits a minute ask for: then it is the requests in flight that hold a run back


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be asked.

    :ivar records: that can be asked about, copies included.
    :ivar asked: different inputs, or all records where copies are asked again.
    :ivar entry_tokens: of those counted, by our own count.
    :ivar deviation: standard deviation of the tokens of all that is asked; 0 where all were counted.
    :ivar alone_share: of the records, those that are asked alone whatever the batch size: the guard of neighbours
        suspects them.
    """

    records: int
    asked: int
    entry_tokens: Sequence[int]
    deviation: float = 0.0
    alone_share: float = 0.0

    @property
    def scale(self) -> float:
        """Inputs that each counted one stands for."""
        return self.asked / len(self.entry_tokens)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a request takes: ``base_s + per_record_s * records``.

    :ivar token_s: of them, for each output token, thought or said; 0 where nobody knows.
    :ivar scatter: standard deviation of a request's, as a share.
    """

    base_s: float
    per_record_s: float
    token_s: float = 0.0
    scatter: float = 0.0

    def of(self, records: float) -> float:
        """A request with so many records."""
        return self.base_s + self.per_record_s * records


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What asking takes.

    :ivar static_tokens: input tokens of a request besides its entries, by our own count.
    :ivar input_ratio: the endpoint's tokens for one of ours.
    :ivar output_call: output tokens of a reply besides its results; `output_record` of one result, on average.
    :ivar output_deviation: standard deviation of `output_record`.
    :ivar reasoning_call: tokens that the model thinks with in a request, besides `reasoning_record` for each record: on
        top of the other output. `reasoning_scatter`: standard deviation, as a share.
    :ivar latency: None where nobody has measured it.
    """

    static_tokens: int
    output_call: float
    output_record: float
    output_deviation: float = 0.0
    input_ratio: float = 1.0
    reasoning_call: float = 0.0
    reasoning_record: float = 0.0
    reasoning_scatter: float = SCATTER
    latency: Latency | None = None


class Interval(msgspec.Struct, frozen=True):
    """95 % of such samples would have the truth within."""

    low: float
    high: float


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one batch size.

    :ivar batch_size: records in a request at the most; `mean_size` on average.
    :ivar static_tokens: input tokens that are the same in every request; `item_tokens` the others, as it will count.
    :ivar input_interval: of `input_tokens`, for a corpus of which a sample was counted; else None.
    :ivar saved: share of the input tokens at batch size 1 that are not sent.
    :ivar rounds: in which a record is asked: the figures are for the expected number of them, and grow with it.
    :ivar reasoning_tokens: of the output, what the model thinks with.
    :ivar cached_tokens: of the input, read from a prefix cache where the endpoint has one and all calls but one hit.
    :ivar usd: None without prices, as those below.
    :ivar cached_usd: with the prefix cache, its one writing included where that has a price of its own; None where the
        prefix is too short for one or no price of it is known.
    :ivar batch_api_usd: by an interface that may take a day, where the endpoint has one.
    :ivar time_s: the least that the limits allow; where the latency is known, with it and the window's way up. None
        without any limit.
    :ivar bound_by: which of them: ``rpm``, ``tpm``, ``itpm``, ``otpm``, ``window``.
    """

    batch_size: int
    mean_size: float
    requests: int
    static_tokens: int
    item_tokens: int
    input_tokens: int
    input_interval: Interval | None
    output_tokens: int
    saved: float
    cached_tokens: int
    usd: float | None
    cached_usd: float | None
    batch_api_usd: float | None
    time_s: float | None
    bound_by: str | None
    reasoning_tokens: int = 0
    rounds: Rounds = ONE


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What the user has said of the endpoint.

    :ivar concurrency: requests in flight at once; None where nobody knows.
    :ivar rounds: in which a record is asked for its votes; `alone_rounds`: where it is alone in its requests.
    """

    limits: Limits
    packing: Packing
    prices: Prices | None
    concurrency: int | None
    rounds: Rounds = ONE
    alone_rounds: Rounds = ONE

    def rounds_at(self, batch_size: int) -> Rounds:
        """For batches of that size."""
        return self.rounds if batch_size > 1 else self.alone_rounds


def forecasts(corpus: Corpus, terms: Terms, given: Given, *, batch_sizes: Sequence[int], seed: int) -> list[Forecast]:
    """One for each batch size, in their order. Packs each anew: some 5 us a record."""
    alone_rounds = given.alone_rounds.expected
    alone = _input_tokens(corpus, terms, requests=round(alone_rounds * corpus.asked), rounds=alone_rounds)
    return [_forecast(corpus, terms, given, size, alone, seed) for size in batch_sizes]


def _forecast(
    corpus: Corpus, terms: Terms, given: Given, size: int, alone: float, seed: int
) -> Forecast:  # fmt: skip
    packed = _requests(corpus, terms, given, size, random.Random(seed))
    rounds = given.rounds_at(size)
    asks = rounds.expected * corpus.asked
    requests = max(1, round(rounds.expected * (packed + corpus.alone_share * (corpus.asked - packed))))
    input_tokens = _input_tokens(corpus, terms, requests=requests, rounds=rounds.expected)
    static = terms.static_tokens * terms.input_ratio * requests
    reasoning = terms.reasoning_call * requests + terms.reasoning_record * asks
    output = terms.output_call * requests + terms.output_record * asks + reasoning
    cacheable = math.floor(terms.static_tokens * terms.input_ratio / CACHE_STEP) * CACHE_STEP
    cached = (requests - 1) * cacheable if cacheable >= CACHE_LEAST else 0
    time_s, bound_by = _time(asks / requests, terms, given, requests, input_tokens, output, seed)
    prices = given.prices
    usd = None if prices is None else _usd(prices, input_tokens, 0, output)
    doubt = _TWO_SIDED_95 * corpus.deviation * terms.input_ratio * rounds.expected
    return Forecast(
        batch_size=size,
        mean_size=round(asks / requests, 3),
        requests=requests,
        static_tokens=round(static),
        item_tokens=round(input_tokens - static),
        input_tokens=round(input_tokens),
        input_interval=_interval(input_tokens, doubt, least=static),
        output_tokens=round(output),
        reasoning_tokens=round(reasoning),
        rounds=rounds,
        saved=1 - input_tokens / alone,
        cached_tokens=cached,
        usd=usd,
        cached_usd=_usd(prices, input_tokens, cached, output, written=cacheable)
        if prices and prices.cached_input is not None and cached
        else None,
        batch_api_usd=None if usd is None else usd * BATCH_API_SHARE,
        time_s=time_s,
        bound_by=bound_by,
    )  # fmt: skip


def _interval(value: float, doubt: float, *, least: float) -> Interval | None:
    return Interval(round(max(least, value - doubt)), round(value + doubt)) if doubt else None


def _input_tokens(corpus: Corpus, terms: Terms, *, requests: int, rounds: float = 1.0) -> float:
    entries = rounds * corpus.scale * sum(corpus.entry_tokens)
    return terms.input_ratio * (requests * terms.static_tokens + entries)


def _requests(corpus: Corpus, terms: Terms, given: Given, size: int, rng: random.Random) -> float:
    """As the packer makes them of the counted inputs, its look-ahead included."""
    estimates = _estimates(terms)
    room = request_room(estimates, given.packing, given.limits, items=size)
    left = list(corpus.entry_tokens)
    rng.shuffle(left)
    waiting: list[int] = []
    requests = 0
    while left or waiting:
        while left and len(waiting) < max(_LOOK_AHEAD, 2 * size):
            waiting.append(left.pop())
        chosen = pack(waiting, room=room, output_per_record=estimates.output_per_record, rng=rng)
        for index in sorted(chosen, reverse=True):
            del waiting[index]
        requests += 1
    return requests * corpus.scale


def _time(
    size: float, terms: Terms, given: Given, requests: int, input_tokens: float, output_tokens: float, seed: int
) -> tuple[float | None, str | None]:  # fmt: skip
    """Charge by the endpoint's own rule over the limit, and one request's latency: no run can be shorter.

    Where the latency is known, the window's way up is played through, and so is the window itself where it was given or
    seen.
    """
    each = seconds_apart(
        terms, given, size=round(size), input_tokens=input_tokens / requests, output_tokens=output_tokens / requests
    )
    bounds = {name: requests * seconds for name, seconds in each.items()}
    latency = terms.latency
    if latency is None or not (bounds or given.concurrency):
        return (round(max(bounds.values()), 3), _largest(bounds)) if bounds else (None, None)
    one_s, rates_s = latency.of(size), max(bounds.values(), default=0.0)
    pace = Pace(
        every_s=rates_s / requests,
        latency_s=one_s,
        scatter=latency.scatter,
        output_tokens=max(1, round(output_tokens / requests)),
        knee=given.concurrency,
    )
    whole_s = run_s(requests, pace, window=lambda: _window(given), rng=random.Random(seed))
    is_held = whole_s > _HELD * (rates_s + one_s)
    return round(max(whole_s, rates_s + one_s), 3), "window" if is_held else _largest(bounds)


def seconds_apart(
    terms: Terms, given: Given, *, size: int, input_tokens: float, output_tokens: float
) -> dict[str, float]:  # fmt: skip
    """Seconds from one request to the next that each limit asks for, by its short name.

    Where input and output count together, what a request may put out at the most is charged, as providers do.

    :param input_tokens: of a request, as `output_tokens`.
    """
    limits = given.limits
    most_output = _estimates(terms).max_output_tokens(size, 1.0, given.packing.max_output_tokens)
    charges = (
        ("rpm", 1.0, limits.requests_per_minute),
        ("tpm", input_tokens + most_output, limits.tokens_per_minute),
        ("itpm", input_tokens, limits.input_tokens_per_minute),
        ("otpm", output_tokens, limits.output_tokens_per_minute),
    )
    return {name: 60 * charge / per_minute for name, charge, per_minute in charges if per_minute is not None}


def _largest(bounds: Mapping[str, float]) -> str:
    return max(bounds, key=lambda name: bounds[name])


def _window(given: Given) -> Window:
    """As a run begins with it."""
    return Window(cap=given.limits.most_in_flight, seeks=given.limits.max_concurrency is None)


def _estimates(terms: Terms) -> TokenEstimates:
    return TokenEstimates.known(
        static_tokens=terms.static_tokens,
        input_ratio=terms.input_ratio,
        output_mean=terms.output_record,
        output_deviation=terms.output_deviation,
        reasoning=Reasoning.known(
            call=terms.reasoning_call, record=terms.reasoning_record, scatter=terms.reasoning_scatter
        ),
    )


def _usd(prices: Prices, input_tokens: float, cached: int, output: float, written: int = 0) -> float:
    return cost_usd(
        prices,
        input_tokens=round(input_tokens),
        cached_tokens=min(cached, round(input_tokens)),
        output_tokens=round(output),
        written_tokens=written,
    )
