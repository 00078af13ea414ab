"""Limits, latency, queueing and what a batch does to the answers: the numbers of the simulator."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import LABELS, ask, chat_body, document, make_endpoint, results

from engine.testing.simulator import stable_label
from engine.testing.simulator.latency import FixedLatency, LinearLatency, Load
from engine.testing.simulator.ledger import Ledger
from engine.testing.simulator.limits import Bucket, RateLimits, duration
from engine.testing.simulator.measured import QWEN_SERVER
from engine.testing.simulator.slots import Slots


@settings(max_examples=100, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 30), min_size=1, max_size=80),
    tokens=st.lists(st.integers(1, 400), min_size=80, max_size=80),
    window_s=st.sampled_from([1.0, 10.0, 60.0]),
)
def test_no_span_gets_more_than_refill_and_bucket(gaps: list[float], tokens: list[int], window_s: float) -> None:
    """Whatever is asked for, what is admitted in any 60 s is at most a minute's limit plus one full bucket."""
    limits = RateLimits(rpm=12, tpm=1200, window_s=window_s)
    now, admitted = 0.0, []
    for gap, amount in zip(gaps, tokens, strict=False):
        now += gap
        if limits.admit(amount, now) is None:
            admitted.append((now, amount))
    for start, _ in admitted:
        span = [amount for at, amount in admitted if start <= at < start + 60]
        assert len(span) <= 12 + max(12 * window_s / 60, 1) + 1e-6
        assert sum(span) <= 1200 + 1200 * window_s / 60 + 1e-6


@settings(max_examples=100, deadline=None)
@given(gaps=st.lists(st.floats(0, 0.5), min_size=20, max_size=80), tokens=st.lists(st.integers(1, 90), min_size=80))
def test_no_second_gets_more_than_refill_and_bucket(gaps: list[float], tokens: list[int]) -> None:
    """Limits a second bind beside roomy ones a minute: any second has at most its refill plus one full bucket."""
    limits = RateLimits(rpm=6000, tpm=600_000, rps=3, tps=100)
    now, admitted = 0.0, []
    for gap, amount in zip(gaps, tokens, strict=False):
        now += gap
        if limits.admit(amount, now) is None:
            admitted.append((now, amount))
    for start, _ in admitted:
        span = [amount for at, amount in admitted if start <= at < start + 1]
        assert len(span) <= 3 + 3 + 1e-6
        assert sum(span) <= 100 + 100 + 1e-6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=40))
def test_waiting_as_told_is_enough(amounts: list[int]) -> None:
    """After the wait that a denial names, the same request passes."""
    limits, now = RateLimits(rpm=30, tpm=600, window_s=10), 0.0
    for amount in amounts:
        denial = limits.admit(amount, now)
        for _ in range(2):  # one wait for each limit at the most
            if denial is not None:
                now += denial.retry_after_s + 1e-6
                denial = limits.admit(amount, now)
        assert denial is None


def test_what_never_fits_has_no_retry_after() -> None:
    """A request above the bucket is told so; nothing is charged for it."""
    endpoint = make_endpoint(tpm=600, limit_window_s=10)
    plan = ask(endpoint, chat_body(["a"], max_tokens=101))
    assert plan.status == 429
    assert "Request too large" in document(plan)["error"]["message"]
    assert "Retry-After" not in plan.headers
    assert ask(endpoint, chat_body(["a"], max_tokens=10)).status == 200


def test_limits_charge_the_most_output_up_front_and_say_so() -> None:
    """OpenAI's rule: input plus max_tokens, never given back, with its headers."""
    endpoint = make_endpoint(rpm=60, tpm=6000)
    plan = ask(endpoint, chat_body(["a"], max_tokens=1000), now=5.0)
    charge = document(plan)["usage"]["prompt_tokens"] + 1000
    assert endpoint.ledger.charged_tokens[0] == charge
    assert plan.headers["x-ratelimit-limit-requests"] == "60"
    assert plan.headers["x-ratelimit-remaining-requests"] == "59"
    assert plan.headers["x-ratelimit-reset-requests"] == "1s"
    assert plan.headers["x-ratelimit-remaining-tokens"] == str(6000 - charge)
    statuses = [ask(endpoint, chat_body(["a"], max_tokens=1000), now=5.0) for _ in range(6)]
    assert [made.status for made in statuses] == [200] * 4 + [429] * 2
    wait_ms = int(statuses[-1].headers["retry-after-ms"])
    assert int(statuses[-1].headers["Retry-After"]) == -(-wait_ms // 1000)
    assert ask(endpoint, chat_body(["a"], max_tokens=1000), now=5.0 + wait_ms / 1000).status == 200


def test_limits_can_halve_and_come_back() -> None:
    """The schedule counts from the first request."""
    limits = RateLimits(rpm=60, window_s=1, schedule=((100, 0.5), (200, 1.0)))

    def admitted(start: float) -> int:
        return sum(limits.admit(1, start + second / 10) is None for second in range(100))

    assert [admitted(start) for start in (1000.0, 1150.0, 1250.0)] == [10, 5, 10]


def test_durations_are_spelled_as_in_the_headers() -> None:
    """12ms, 7.66s, 6m0s."""
    assert [duration(seconds) for seconds in (0.012, 7.66, 360, 61.5)] == ["12ms", "7.66s", "6m0s", "1m1.5s"]


def test_a_bucket_never_overflows() -> None:
    """An hour's pause saves up no more than the bucket holds."""
    bucket = Bucket(60, 10)
    bucket.refill(0.0, 1.0)
    bucket.take(10)
    bucket.refill(3600.0, 1.0)
    assert (bucket.remaining, bucket.reset_s) == (10, 0.0)


def test_one_too_many_at_once_is_refused_or_waits() -> None:
    """A server that refuses, and one that queues."""
    refusing = make_endpoint(max_concurrency=2, delay_s=1.0)
    plans = [refusing.begin(chat_body(["a"]), {}, 0.0) for _ in range(3)]
    assert [plan.status for plan in plans] == [200, 200, 429]
    queueing = make_endpoint(max_concurrency=2, queues=True, delay_s=1.0)
    plans = [queueing.begin(chat_body(["a"]), {}, 0.0) for _ in range(5)]
    assert [plan.delay_s for plan in plans] == [1.0, 1.0, 2.0, 2.0, 3.0]


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), max_size=30))
def test_slots_are_never_shared(count: int, arrivals: list[tuple[int, int]]) -> None:
    """At no time more requests run than there are slots, and nobody waits while one is free."""
    slots, now, runs = Slots(count), 0, []
    for gap, service in arrivals:
        now += gap
        busy = sum(end > now for _, end in runs)
        wait = slots.wait_s(now, service)
        assert (wait > 0) == (busy >= count)
        runs.append((now + wait, now + wait + service))
    for start, _ in runs:
        assert sum(begin <= start < end for begin, end in runs) <= count


# In flight, uncached input and output tokens of a request, mean latency in ms: cells of the sweep, B = 1, 20, 5, 20, 1.
TAPE = [(1, 36, 13, 47.9), (1, 800, 178, 449.1), (8, 211, 46, 416.2), (16, 911, 179, 2569.1), (64, 113, 13, 1397.0)]


@pytest.mark.parametrize(("in_flight", "uncached", "output", "mean_ms"), TAPE)
def test_the_measured_profile_is_near_what_was_measured(
    in_flight: int, uncached: int, output: int, mean_ms: float
) -> None:
    """Means within 10 % of cells of the sweep, at the tokens of those cells."""
    rng = random.Random(0)
    drawn = [QWEN_SERVER.seconds(uncached=uncached, output=output, in_flight=in_flight, rng=rng) for _ in range(2000)]
    assert sum(drawn) / len(drawn) * 1000 == pytest.approx(mean_ms, rel=0.10)


def test_jitter_keeps_the_mean_and_load_is_interpolated() -> None:
    """A log-normal factor with mean 1; between and beyond the rows on straight lines."""
    rng = random.Random(1)
    profile = LinearLatency(
        (
            Load(in_flight=1, base_ms=100, input_ms=1, output_ms=2, variation=0.3),
            Load(in_flight=3, base_ms=300, input_ms=3, output_ms=4, variation=0.3),
        )
    )
    drawn = [profile.seconds(uncached=10, output=20, in_flight=1, rng=rng) for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.150, rel=0.02)
    assert min(drawn) > 0
    loads = [profile.at(in_flight) for in_flight in (1, 2, 3, 5)]
    assert [load.base_ms for load in loads] == [100, 200, 300, 500]
    assert [load.output_ms for load in loads] == [2, 3, 4, 6]
    assert all(load.variation == 0.3 for load in loads)
    assert FixedLatency(0.5).seconds(uncached=1, output=1, in_flight=9, rng=rng) == 0.5


def test_latency_follows_cache_output_and_load() -> None:
    """In the endpoint: a second request is faster by its cached prefix, a loaded one slower."""
    endpoint = make_endpoint(latency="measured", cache="exact")
    body = chat_body(["a"], system="word " * 20_000)
    cold, warm = ask(endpoint, body), ask(endpoint, body)
    assert cold.delay_s > 5 * warm.delay_s
    loaded = [endpoint.begin(body, {}, 0.0) for _ in range(32)]
    assert loaded[-1].delay_s > 5 * warm.delay_s
    assert endpoint.ledger.peak_in_flight == 32


def _accuracy(behaviour: str, size: int, *, keyed: bool = False) -> tuple[float, float]:
    """Share of right labels, and of labels equal to the one before, over 1,200 texts."""
    labels = [*LABELS, "white"]
    endpoint = make_endpoint(labels=labels, behaviour=behaviour)
    texts = [f"news {number}" for number in range(1200)]
    right = same = pairs = 0
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        system = '"starts"' if keyed else "."
        outputs = [result["output"] for result in results(ask(endpoint, chat_body(batch, system=system)))]
        right += sum(output == stable_label(text, labels) for output, text in zip(outputs, batch, strict=True))
        same += sum(one == two for one, two in pairwise(outputs))
        pairs += size - 1
    return right / len(texts), same / max(pairs, 1)


@pytest.mark.parametrize(
    ("size", "accuracy"), [(1, 0.740), (2, 0.715), (5, 0.670), (10, 0.555), (20, 0.385), (40, 0.230)]
)
def test_the_copying_profile_has_the_measured_accuracy(size: int, accuracy: float) -> None:
    """The curve of the tape (agnews, compact), within .06."""
    assert _accuracy("agnews-compact", size)[0] == pytest.approx(accuracy, abs=0.06)


def test_copying_shows_in_runs_and_only_there() -> None:
    """Compact batches of 20 repeat the label before; keyed ones do not, and stay accurate."""
    assert _accuracy("agnews-compact", 20)[1] > 0.6
    keyed = _accuracy("agnews-compact", 20, keyed=True)
    assert keyed[0] == pytest.approx(0.74, abs=0.05)
    assert keyed[1] < 0.35


def _outputs(behaviour: str, order: Sequence[str], size: int) -> dict[str, str]:
    endpoint = make_endpoint(labels=[*LABELS, "white"], behaviour=behaviour)
    made = {}
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        found = results(ask(endpoint, chat_body(batch)))
        made.update({text: result["output"] for text, result in zip(batch, found, strict=True)})
    return made


def test_answers_change_with_their_batch_but_a_repeat_agrees() -> None:
    """`changes`: about .7 agree with the lone ones, at equal accuracy; `holds`: nearly all."""
    texts = [f"news {number}" for number in range(1200)]

    def agreement(behaviour: str, size: int, other_size: int) -> float:
        one, two = _outputs(behaviour, texts, size), _outputs(behaviour, texts, other_size)
        return sum(one[text] == two[text] for text in texts) / len(texts)

    assert agreement("changes", 1, 10) == pytest.approx(0.7, abs=0.05)
    assert agreement("changes", 10, 10) > 0.98
    assert agreement("holds", 1, 40) > 0.98
    assert _accuracy("changes", 10)[0] == pytest.approx(_accuracy("changes", 1)[0], abs=0.05)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 100)), max_size=40))
def test_the_busiest_window(arrivals: list[tuple[int, int]]) -> None:
    """The ledger finds the fullest span of 60 s, as a slow search does."""
    ledger, now, made = Ledger(), 0, []
    for gap, tokens in arrivals:
        now += gap
        ledger.charged_tokens[ledger.arrive(now)] = tokens
        made.append((now, tokens))
    spans = [[tokens for at, tokens in made if end - 60 < at <= end] for end, _ in made]
    expected = (max(map(len, spans), default=0), max(map(sum, spans), default=0))
    assert ledger.most_in_window(60.0) == expected
