"""What a corpus will take at a batch size."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.forecast import BATCH_API_SHARE, Corpus, Forecast, Given, Latency, Terms, forecasts
from engine.decide.vote_rounds import Rounds
from engine.vocabulary.config import Limits, Packing, Prices


def forecast(
    entries: list[int], sizes: list[int], *, static: int = 500, ratio: float = 1.0, output: float = 10.0,
    limits: Limits | None = None, prices: Prices | None = None, latency: Latency | None = None,
    concurrency: int | None = None, packing: Packing | None = None, deviation: float = 0.0, asked: int | None = None,
) -> list[Forecast]:  # fmt: skip
    corpus = Corpus(records=len(entries), asked=asked or len(entries), entry_tokens=entries, deviation=deviation)
    terms = Terms(
        static_tokens=static, output_call=4.0, output_record=output, input_ratio=ratio, latency=latency
    )  # fmt: skip
    given_ = Given(
        limits=limits or Limits(), packing=packing or Packing(), prices=prices, concurrency=concurrency
    )  # fmt: skip
    return forecasts(corpus, terms, given_, batch_sizes=sizes, seed=0)


@pytest.mark.parametrize(
    ("size", "static", "tokens"),
    [
        (1, 536.975, 58_255), (1, 1_287.975, 133_355), (5, 536.975, 15_297), (5, 1_287.975, 30_317),
        (10, 536.975, 9_928), (10, 1_287.975, 17_438),
    ],
)  # fmt: skip
def test_the_six_counts_of_the_article(size: int, static: float, tokens: int) -> None:
    """100 inputs of 45.575 tokens with 5 and 20 examples, within 1 % of what was counted there."""
    entries = [45, 46] * 50
    (made,) = forecast(entries, [size], static=round(static))
    assert made.input_tokens == pytest.approx(tokens, rel=0.01)
    assert made.requests == math.ceil(100 / size)


@given(st.lists(st.integers(5, 400), min_size=1, max_size=300), st.integers(1, 40), st.floats(0.8, 1.4))
def test_tokens_are_those_of_the_cost_model(entries: list[int], size: int, ratio: float) -> None:
    """Where no budget binds: ceil(n/B) requests, ratio * (requests * static + entries) tokens, and no more saved
    than the static part of the requests that are not sent."""
    alone, made = forecast(entries, [1, size], ratio=ratio)
    assert made.requests == math.ceil(len(entries) / size)
    assert made.input_tokens == pytest.approx(ratio * (500 * made.requests + sum(entries)), abs=1)
    assert made.static_tokens + made.item_tokens == pytest.approx(made.input_tokens, abs=1)
    assert made.output_tokens == round(4.0 * made.requests + 10.0 * len(entries))
    assert made.saved == pytest.approx(1 - made.input_tokens / alone.input_tokens, abs=1e-3)
    assert alone.saved == 0.0


def test_a_token_budget_makes_smaller_requests() -> None:
    """Long records do not fit ten a request, and the plan knows it as the packer will."""
    (made,) = forecast([900] * 100, [10], packing=Packing(max_input_tokens=4_000))
    assert made.requests > 30
    assert made.mean_size < 4


def test_a_sample_stands_for_the_corpus() -> None:
    """A tenth counted: ten times its requests and tokens, with an interval around them."""
    (whole,) = forecast([50] * 1_000, [10])
    (made,) = forecast([50] * 100, [10], asked=1_000, deviation=400.0)
    assert made.requests == whole.requests
    assert made.input_tokens == whole.input_tokens
    assert made.input_interval is not None
    assert made.input_interval.low == pytest.approx(made.input_tokens - 784, abs=1)
    assert whole.input_interval is None


def test_money() -> None:
    """Fresh tokens, a cached prefix for all requests but one, and half the price where a day does not matter."""
    prices = Prices(input=1.0, output=4.0, cached_input=0.1)
    (made,) = forecast([100] * 100, [10], static=2_100, prices=prices)
    assert made.usd == pytest.approx((made.input_tokens + 4 * made.output_tokens) / 1e6)
    assert made.cached_tokens == 9 * 2_048
    assert made.cached_usd == pytest.approx(made.usd - 0.9 * made.cached_tokens / 1e6)
    assert made.batch_api_usd == pytest.approx(BATCH_API_SHARE * made.usd)
    (short,) = forecast([100] * 100, [10], static=900, prices=prices)
    assert (short.cached_tokens, short.cached_usd) == (0, None)


def test_writing_the_prefix_into_the_cache_costs_once() -> None:
    """At its own price, where it has one; a run without a cache pays nothing more."""
    prices = Prices(input=1.0, output=4.0, cached_input=0.1)
    dear = Prices(input=1.0, output=4.0, cached_input=0.1, cache_write=1.25)
    (plain,), (made,) = (forecast([100] * 100, [10], static=2_100, prices=each) for each in (prices, dear))
    assert plain.cached_usd is not None
    assert made.cached_usd == pytest.approx(plain.cached_usd + 0.25 * 2_048 / 1e6)
    assert made.usd == plain.usd


def test_what_is_thought_goes_by_the_request() -> None:
    """Part of the output, at its price; a batch of ten thinks once for ten records, and has room for it."""
    prices = Prices(input=1.0, output=4.0)
    corpus = Corpus(records=1_000, asked=1_000, entry_tokens=[50] * 1_000)
    plain = Terms(static_tokens=500, output_call=4.0, output_record=10.0)
    thinks = msgspec.structs.replace(plain, reasoning_call=600.0, reasoning_record=20.0)
    given_ = Given(limits=Limits(), packing=Packing(), prices=prices, concurrency=None)
    alone, ten = forecasts(corpus, thinks, given_, batch_sizes=[1, 10], seed=0)
    (before,) = forecasts(corpus, plain, given_, batch_sizes=[10], seed=0)
    assert (alone.reasoning_tokens, ten.reasoning_tokens) == (620_000, 80_000)
    assert ten.output_tokens == before.output_tokens + 80_000
    assert ten.usd is not None
    assert before.usd is not None
    assert ten.usd == pytest.approx(before.usd + 4 * 80_000 / 1e6)
    limited = msgspec.structs.replace(given_, limits=Limits(tokens_per_minute=100_000))
    (slow,) = forecasts(corpus, thinks, limited, batch_sizes=[10], seed=0)
    (fast,) = forecasts(corpus, plain, limited, batch_sizes=[10], seed=0)
    assert slow.time_s is not None
    assert fast.time_s is not None
    assert slow.time_s > fast.time_s + 60 * 80_000 / 100_000  # what may be thought is charged


def test_time_is_what_binds() -> None:
    """Requests a minute, tokens a minute, or the window, which begins with two; and one request's latency."""
    entries = [50] * 1_000
    latency = Latency(base_s=1.0, per_record_s=0.1)
    (slow,) = forecast(entries, [10], limits=Limits(requests_per_minute=10), latency=latency)
    assert (slow.time_s, slow.bound_by) == (602.0, "rpm")
    (alone,) = forecast(entries, [10], concurrency=4, latency=latency)
    assert alone.bound_by == "window"
    assert alone.time_s is not None
    assert 50.0 <= alone.time_s <= 54.0  # 100 requests of two seconds, four at once, and two in the beginning
    (tokens,) = forecast(entries, [10], limits=Limits(input_tokens_per_minute=10_000))
    assert (tokens.time_s, tokens.bound_by) == (60 * 100_000 / 10_000, "itpm")
    (unknown,) = forecast(entries, [10], latency=latency)
    assert (unknown.time_s, unknown.bound_by) == (None, None)


def test_votes_take_so_many_requests_more() -> None:
    """Twice and a half the requests, tokens, dollars and minutes for records asked 2.5 times; alone, one ask."""
    corpus = Corpus(records=1_000, asked=1_000, entry_tokens=[50] * 1_000)
    terms = Terms(static_tokens=500, output_call=4.0, output_record=10.0, reasoning_call=100.0)
    once = Given(
        limits=Limits(tokens_per_minute=50_000), packing=Packing(), prices=Prices(input=1.0, output=4.0),
        concurrency=None,
    )  # fmt: skip
    often = msgspec.structs.replace(once, rounds=Rounds(least=2, expected=2.5, most=3))
    (lone, plain), (alone, made) = (
        forecasts(corpus, terms, each, batch_sizes=[1, 10], seed=0) for each in (once, often)
    )  # fmt: skip
    assert alone == lone
    assert made.rounds.expected == 2.5
    assert made.mean_size == plain.mean_size
    for name in ("requests", "input_tokens", "static_tokens", "output_tokens", "reasoning_tokens", "usd", "time_s"):
        assert getattr(made, name) == pytest.approx(2.5 * getattr(plain, name)), name
    assert 1 - made.saved == pytest.approx(2.5 * (1 - plain.saved))
    warm = msgspec.structs.replace(often, alone_rounds=often.rounds)
    warm_alone, warm_ten = forecasts(corpus, terms, warm, batch_sizes=[1, 10], seed=0)
    assert (warm_alone.requests, warm_alone.saved) == (2_500, 0.0)
    assert warm_ten.saved == pytest.approx(plain.saved)


def test_slow_requests_climb_long() -> None:
    """The same limit, and requests of ten seconds in place of one: more of a short run is the way up."""
    entries, limits = [50] * 3_000, Limits(tokens_per_minute=400_000)
    quick, slow = (
        forecast(entries, [10], limits=limits, latency=Latency(base_s=base_s, per_record_s=0.0))[0]
        for base_s in (1.0, 10.0)
    )  # fmt: skip
    assert quick.time_s is not None
    assert slow.time_s is not None
    assert slow.time_s > quick.time_s + 30
    (given_,) = forecast(
        entries, [10], limits=msgspec.structs.replace(limits, max_concurrency=64),
        latency=Latency(base_s=10.0, per_record_s=0.0), concurrency=64,
    )  # fmt: skip
    assert given_.time_s is not None
    assert given_.time_s < slow.time_s - 15  # a number that was given is not climbed to


def test_what_is_asked_alone_pays_the_static_prompt_each_time() -> None:
    """One record in a hundred alone: at B=10 a tenth more requests."""
    corpus = Corpus(records=1_000, asked=1_000, entry_tokens=[50] * 1_000, alone_share=0.01)
    terms = Terms(static_tokens=500, output_call=4.0, output_record=10.0)
    given_ = Given(limits=Limits(), packing=Packing(), prices=None, concurrency=None)
    alone, ten = forecasts(corpus, terms, given_, batch_sizes=[1, 10], seed=0)
    assert (alone.requests, ten.requests) == (1_000, 109)
