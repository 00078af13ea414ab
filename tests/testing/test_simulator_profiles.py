"""The named profiles: they do what their names say, and the measured ones what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from simulated import LABELS, ask, chat_body, content, document, finish_reason, results, schema_of

from engine.cli.simulate import simulate_command
from engine.testing.simulator import (
    PROFILES,
    Ledger,
    Moment,
    Origin,
    Prices,
    SimulatedEndpoint,
    build_endpoint,
    gold_label,
    named_profile,
)
from engine.testing.simulator.server import serving

FOUR = ["world", "sports", "business", "science"]
TWO = ["good", "bad"]


def make_profile(name: str, labels: Sequence[str] = LABELS, **changes: Any) -> SimulatedEndpoint:
    """A profile's endpoint with these labels."""
    return build_endpoint(named_profile(name).config(labels=labels, **changes))


def answers(
    endpoint: SimulatedEndpoint, texts: Sequence[str], size: int, *, system: str = "JSON.", now: float = 0.0
) -> list[list[str]]:
    """The labels of whole batches, in order."""
    made = []
    for start in range(0, len(texts) - size + 1, size):
        plan = ask(endpoint, chat_body(texts[start : start + size], system=system), now=now)
        made.append([result["output"] for result in results(plan)])
    return made


def flat_answers(endpoint: SimulatedEndpoint, texts: Sequence[str], size: int) -> list[str]:
    """The same in one list."""
    return [label for batch in answers(endpoint, texts, size) for label in batch]


def accuracy(endpoint: SimulatedEndpoint, texts: Sequence[str], batches: Sequence[Sequence[str]]) -> float:
    """Share of right labels."""
    flat = [label for batch in batches for label in batch]
    return sum(label == endpoint.truth(text) for text, label in zip(texts, flat, strict=False)) / len(flat)


def repeated(batches: Sequence[Sequence[str]], first: int, last: int) -> float:
    """Share of labels equal to the one before, at these positions from 1."""
    pairs = [one == two for batch in batches for at, (one, two) in enumerate(pairwise(batch), 2) if first <= at <= last]
    return sum(pairs) / len(pairs)


TEXTS = [f"text {number}" for number in range(4000)]
KEYED = 'Reply with {"results":[{"id":"<id>","starts":"<first five words of the input>","output":"<label>"}]}'


@pytest.mark.parametrize(
    ("profile", "labels", "size", "measured"),
    [
        *(("agnews-compact", FOUR, size, share)
          for size, share in ((1, 0.740), (2, 0.715), (5, 0.670), (10, 0.555), (20, 0.385), (40, 0.230))),
        *(("sst2-compact", TWO, size, share)
          for size, share in ((1, 0.865), (2, 0.865), (5, 0.780), (10, 0.745), (20, 0.660), (40, 0.550))),
        ("agnews-reworded", FOUR, 20, 0.45),
        ("sst2-reworded", TWO, 20, 0.87),
    ],
)  # fmt: skip
def test_accuracy_falls_with_the_batch_as_measured(profile: str, labels: list[str], size: int, measured: float) -> None:
    """Within .045 of the recording, whose own standard error is .03 (200 inputs a cell)."""
    endpoint = make_profile(profile, labels, faults={})
    assert accuracy(endpoint, TEXTS, answers(endpoint, TEXTS, size)) == pytest.approx(measured, abs=0.045)


# Batch size, positions, share equal to the label before: of agnews in the recording, all orders.
COPYING = [
    (5, 3, 5, 0.265), (10, 3, 5, 0.347), (10, 6, 10, 0.543), (20, 3, 5, 0.406), (20, 6, 10, 0.817),
    (20, 11, 20, 0.888), (40, 6, 10, 0.893), (40, 11, 20, 0.990), (40, 21, 40, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("size", "first", "last", "measured"), COPYING)
def test_copying_grows_with_position_as_measured(size: int, first: int, last: int, measured: float) -> None:
    """Over many draws the share of repeated labels is within .05 of the recording."""
    endpoint = make_profile("agnews-compact", FOUR, faults={})
    batches = [batch for seed in range(2) for batch in answers(endpoint, [f"{seed} {t}" for t in TEXTS], size)]
    assert repeated(batches, first, last) == pytest.approx(measured, abs=0.05)


def test_repeats_agree_but_for_the_noise_and_orders_do_not() -> None:
    """The noise floor of asking twice is .995; another order changes three answers in ten at B=5 (measured .70)."""
    endpoint = make_profile("agnews-compact", FOUR, faults={})
    once, again = (dict(zip(TEXTS, flat_answers(endpoint, TEXTS, 1), strict=True)) for _ in range(2))
    assert sum(once[text] == again[text] for text in TEXTS) / len(TEXTS) == pytest.approx(0.995, abs=0.003)
    turned = [*TEXTS[::3], *TEXTS[1::3], *TEXTS[2::3]]
    batch = dict(zip(TEXTS, flat_answers(endpoint, TEXTS, 5), strict=True))
    other = dict(zip(turned, flat_answers(endpoint, turned, 5), strict=True))
    assert sum(batch[text] == other[text] for text in TEXTS) / len(TEXTS) == pytest.approx(0.70, abs=0.05)


@pytest.mark.parametrize(
    ("profile", "labels", "compact", "keyed"),
    [("agnews-compact", FOUR, 0.385, 0.75), ("sst2-reworded", TWO, 0.87, 0.70)],
)
def test_a_key_helps_one_task_and_harms_another(profile: str, labels: list[str], compact: float, keyed: float) -> None:
    """At B=20, whether the key is asked for by a schema or by the prompt alone."""
    endpoint = make_profile(profile, labels, faults={}, schema_faults={})
    assert accuracy(endpoint, TEXTS, answers(endpoint, TEXTS, 20)) == pytest.approx(compact, abs=0.04)
    assert accuracy(endpoint, TEXTS, answers(endpoint, TEXTS, 20, system=KEYED)) == pytest.approx(keyed, abs=0.03)
    schema = schema_of({"type": "string", "enum": labels}, beginning={"type": "string"})
    made = [results(ask(endpoint, chat_body(TEXTS[at : at + 20], response_format=schema))) for at in range(0, 4000, 20)]
    assert made[0][0]["beginning"] == "text 0"
    outputs = [[result["output"] for result in batch] for batch in made]
    assert accuracy(endpoint, TEXTS, outputs) == pytest.approx(keyed, abs=0.03)


@pytest.mark.parametrize(
    ("system", "key", "value"),
    [
        (KEYED, "starts", "a b c d e"),
        ('Form: {"results": [{"id": "", "opening": "<first three words>", "output": ""}]}', "opening", "a b c"),
        ('Example:\n{"results":[{"id":"7ax-1","head":"x y","output":"red"}]}\nJSON', "head", "a b c d e"),
        ('{"results":[{"id":"","output":"","starts after":""}]}', None, None),
        ('{"results":[{"id":"","confidence":1,"output":""}]} broken {"results":[{', None, None),
        ("no form at all", None, None),
    ],
)
def test_a_key_is_found_in_the_words_whatever_its_name(system: str, key: str | None, value: str | None) -> None:
    """A string shown between the id and the output is a key; numbers, and what comes after the output, are not."""
    plan = ask(make_profile("holds"), chat_body(["a b c d e f"], system=system))
    (result,) = results(plan)
    assert list(result) == (["id", "output"] if key is None else ["id", key, "output"])
    assert key is None or result[key] == value


def test_a_key_is_found_in_the_message_of_the_items() -> None:
    """Instructions may stand in the same message, before the items."""
    items = json.loads(chat_body(["a b"]))["messages"][1]["content"]
    body = json.dumps({"messages": [{"role": "user", "content": f"{KEYED}\n{items}"}]}).encode()
    assert results(ask(make_profile("holds"), body))[0]["starts"] == "a b"


def test_truth_and_lone_answers_can_be_known() -> None:
    """The endpoint, and a plain function in another process, tell the gold label; lone answers are as right as said."""
    endpoint = make_profile("agnews-compact", FOUR, answers_seed=5, faults={})
    assert [endpoint.truth(text) for text in TEXTS[:50]] == [gold_label(text, FOUR, seed=5) for text in TEXTS[:50]]
    lone = [endpoint.lone(text) for text in TEXTS]
    asked = flat_answers(endpoint, TEXTS, 1)
    assert sum(one == two for one, two in zip(lone, asked, strict=True)) / len(TEXTS) > 0.995
    assert sum(one == endpoint.truth(text) for one, text in zip(lone, TEXTS, strict=True)) == pytest.approx(
        0.74 * len(TEXTS), rel=0.03
    )
    with pytest.raises(ValueError, match="labels"):
        make_profile("holds", ()).truth("text")


def test_a_seed_draws_other_truths_and_other_errors() -> None:
    """So that twenty seeds are twenty runs; and seed 0 is the plain label of the text."""
    zero, one = (make_profile("agnews-compact", FOUR, answers_seed=seed, faults={}) for seed in (0, 1))
    texts = TEXTS[:1000]
    assert 0.15 < sum(zero.truth(text) == one.truth(text) for text in texts) / 1000 < 0.35
    wrong = [{text for text in texts if endpoint.lone(text) != endpoint.truth(text)} for endpoint in (zero, one)]
    assert len(wrong[0] & wrong[1]) == pytest.approx(0.26 * 0.26 * 1000, abs=40)


def test_holds_answers_the_same_at_every_size() -> None:
    """Nothing of a batch of a hundred is another answer than the lone one, but for the noise."""
    endpoint = make_profile("holds", FOUR)
    flat = flat_answers(endpoint, TEXTS, 100)
    assert sum(label == endpoint.lone(text) for text, label in zip(TEXTS, flat, strict=True)) / len(TEXTS) > 0.995


def test_changes_agrees_in_seven_of_ten_and_is_as_right() -> None:
    """What disagreement alone cannot tell from harm."""
    endpoint = make_profile("changes", FOUR)
    flat = flat_answers(endpoint, TEXTS, 10)
    same = sum(label == endpoint.lone(text) for text, label in zip(TEXTS, flat, strict=True)) / len(TEXTS)
    assert same == pytest.approx(0.70, abs=0.03)
    assert accuracy(endpoint, TEXTS, [flat]) == pytest.approx(0.75, abs=0.025)


@pytest.mark.parametrize(("profile", "most"), [("cliff-at-3", 3), ("cliff-at-16", 16)])
def test_a_cliff_answers_prose_above_it(profile: str, most: int) -> None:
    """So many items are answered, one more is not."""
    endpoint = make_profile(profile)
    assert len(results(ask(endpoint, chat_body(TEXTS[:most])))) == most
    assert "results" not in content(ask(endpoint, chat_body(TEXTS[: most + 1])))


def test_a_collapse_is_silent() -> None:
    """At 16 items all is well; at 17 the labels repeat, in perfect JSON."""
    endpoint = make_profile("collapse-at-16", FOUR)
    assert accuracy(endpoint, TEXTS, answers(endpoint, TEXTS, 16)) == pytest.approx(0.85, abs=0.03)
    assert repeated(answers(endpoint, TEXTS, 17), 3, 17) > 0.85


def test_failing_smoothly_loses_more_the_larger_the_batch() -> None:
    """Next to nothing alone, a quarter at 32."""
    endpoint = make_profile(
        "fails-smoothly", faults={"drop": named_profile("fails-smoothly").settings["faults"]["drop"]}
    )
    kept = {size: sum(map(len, answers(endpoint, TEXTS[:1920], size))) / 1920 for size in (1, 8, 32)}
    assert kept[1] > 0.99
    assert kept[8] == pytest.approx(0.967, abs=0.02)
    assert kept[32] == pytest.approx(0.73, abs=0.05)


def test_a_drift_is_good_bad_and_good_again() -> None:
    """By the time since the first request, which may be at zero, or by the requests before."""
    endpoint = make_profile("drifts", FOUR)
    shares = [accuracy(endpoint, TEXTS, answers(endpoint, TEXTS, 20, now=now)) for now in (0.0, 119.0, 121.0, 241.0)]
    assert [share > 0.8 for share in shares] == [True, True, False, True]
    assert shares[2] < 0.6
    assert endpoint.lone("text 1", moment=Moment(130.0, 0)) == endpoint.lone("text 1")
    endpoint = make_profile("drifts-by-requests", FOUR)
    batches = answers(endpoint, [f"text {number}" for number in range(18_000)], 20)
    repeats = [repeated(batches[start : start + 300], 3, 20) for start in (0, 300, 600)]
    assert [share > 0.6 for share in repeats] == [False, True, False]


def test_the_cached_prefix_is_cheap() -> None:
    """A tenth of the price, for any length of prefix; and the second request is billed so."""
    profile = named_profile("cheap-cached-prefix")
    endpoint = make_profile("cheap-cached-prefix")
    for _ in range(2):
        plan = ask(endpoint, chat_body(["a"], system="word " * 500))
    usage = document(plan)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 500
    assert profile.prices is not None
    assert profile.prices.cached_usd == pytest.approx(profile.prices.input_usd / 10)


def test_the_cost_is_that_of_the_tokens() -> None:
    """Cached tokens are part of the prompt's, and not paid twice."""
    ledger = Ledger()
    ledger.bill(prompt=1_000_000, cached=400_000, completion=100_000)
    assert ledger.cost_usd(Prices(input_usd=1.0, cached_usd=0.1, output_usd=5.0)) == pytest.approx(0.6 + 0.04 + 0.5)


@pytest.mark.parametrize("asked", [None, 100, 5000])
def test_output_is_capped(asked: int | None) -> None:
    """At the server's own limit, or at the client's where that is lower."""
    limit = {} if asked is None else {"max_tokens": asked}
    plan = ask(make_profile("output-capped"), chat_body(TEXTS[:100], **limit))
    assert document(plan)["usage"]["completion_tokens"] == min(256, asked or 256)
    assert finish_reason(plan) == "length"


def _admitted(endpoint: SimulatedEndpoint, seconds: float, every_s: float, start: float = 0.0) -> list[float]:
    times = [start + number * every_s for number in range(int(seconds / every_s))]
    return [at for at in times if ask(endpoint, chat_body(["a"], max_tokens=50), now=at).status == 200]


def test_seconds_and_minutes_both_bind() -> None:
    """No second lets more through than its bucket and its refill, no minute more than its own."""
    endpoint = make_profile("hosted-requests-bound")
    admitted = _admitted(endpoint, 180, 0.02)
    for window_s, most in ((1.0, 10 + 10), (60.0, 300 + 300)):
        busiest = max(sum(at <= other < at + window_s for other in admitted) for at in admitted[::50])
        assert most * 0.4 < busiest <= most
    late = [at for at in admitted if at >= 120]
    assert len(late) == pytest.approx(300, abs=2)
    ledger = endpoint.ledger.as_dict()
    assert ledger["http_429"] == 9000 - len(admitted)
    assert (
        ledger["most_in_a_minute"]["admitted"]["requests"] <= 600 < ledger["most_in_a_minute"]["received"]["requests"]
    )
    assert ledger["most_in_a_second"]["admitted"]["requests"] <= 20


def test_a_429_of_a_second_says_so_and_when() -> None:
    """The wait is that of the second; the headers tell the minute's limits, remaining and reset."""
    endpoint = make_profile("hosted-requests-bound")
    plans = [ask(endpoint, chat_body(["a"], max_tokens=50)) for _ in range(11)]
    assert [plan.status for plan in plans] == [200] * 10 + [429]
    last = plans[-1]
    assert "per s: Limit 10" in document(last)["error"]["message"]
    assert (last.headers["Retry-After"], last.headers["retry-after-ms"]) == ("1", "100")
    assert last.headers["x-ratelimit-limit-requests"] == "300"
    assert last.headers["x-ratelimit-remaining-requests"] == "290"
    assert last.headers["x-ratelimit-reset-requests"] == "2s"
    assert ask(endpoint, chat_body(["a"], max_tokens=50), now=0.1).status == 200


def test_tokens_bind_by_what_might_be_put_out() -> None:
    """Input and max_tokens are charged at once: a fat max_tokens costs throughput."""

    def passes(max_tokens: int) -> int:
        endpoint = make_profile("hosted-tokens-bound")
        return sum(ask(endpoint, chat_body(["a"], max_tokens=max_tokens), now=n / 10).status == 200 for n in range(600))

    charge = make_profile("hosted-tokens-bound")
    ask(charge, chat_body(["a"], max_tokens=1000))
    each = charge.ledger.charged_tokens[0]
    assert passes(1000) == pytest.approx(120_000 / each, rel=0.03)
    assert passes(100) == 600


def test_a_quota_halves_and_comes_back() -> None:
    """600 requests a minute, 300 between 60 s and 180 s, 600 again; the headers follow."""
    endpoint = make_profile("hosted-halving")
    admitted = _admitted(endpoint, 240, 0.05)
    counts = [sum(start <= at < start + 40 for at in admitted) for start in (15.0, 80.0, 190.0)]
    assert counts == [pytest.approx(400, abs=4), pytest.approx(200, abs=4), pytest.approx(400, abs=4)]
    limits = []
    for at in (10.0, 100.0, 200.0):
        fresh = make_profile("hosted-halving")
        ask(fresh, chat_body(["a"]), now=0.0)
        limits.append(ask(fresh, chat_body(["a"]), now=at).headers["x-ratelimit-limit-requests"])
    assert limits == ["600", "300", "600"]


def test_a_queueing_server_never_refuses() -> None:
    """32 run, the others wait for them."""
    endpoint = make_profile("vllm-like")
    plans = [endpoint.begin(chat_body(TEXTS[:5]), {}, 0.0) for _ in range(128)]
    assert {plan.status for plan in plans} == {200}
    assert plans[-1].delay_s > 3 * plans[31].delay_s


def _lengths(endpoint: SimulatedEndpoint, size: int, **settings: Any) -> list[int]:
    return [len(results(ask(endpoint, chat_body(TEXTS[:size], **settings)))) for _ in range(60)]


def test_the_small_model_runs_on_at_one_and_a_schema_of_exact_length_stops_it() -> None:
    """Results beyond those asked at B=1; minItems = maxItems holds the number."""
    endpoint = make_profile("smol-cpu")
    format_ = schema_of({"type": "string", "enum": LABELS})
    assert min(_lengths(endpoint, 1, response_format=format_)) > 1
    format_["json_schema"]["schema"]["properties"]["results"] |= {"minItems": 1, "maxItems": 1}
    assert set(_lengths(endpoint, 1, response_format=format_)) == {1}


def test_a_short_list_is_half_of_one() -> None:
    """The first half, whole."""
    endpoint = make_profile("holds", faults={"short": 1.0})
    ids = [result["id"] for result in results(ask(endpoint, chat_body(TEXTS[:9])))]
    assert ids == [f"k3f-{number}" for number in range(1, 5)]


def test_a_schema_stops_broken_json_in_the_measured_profiles() -> None:
    """Its faults are others than those of requests without one."""
    free, strict = (named_profile("agnews-compact").settings[name] for name in ("faults", "schema_faults"))
    assert "trailing_comma" in free
    assert "trailing_comma" not in strict
    endpoint = make_profile("holds", faults={"babble": 1.0}, schema_faults={})
    assert "results" not in content(ask(endpoint, chat_body(["a"])))
    assert "results" in content(ask(endpoint, chat_body(["a"], response_format=schema_of({"enum": LABELS}))))


def test_every_profile_says_where_it_comes_from_and_answers() -> None:
    """A measured one names its evidence; each serves a lone record."""
    for name, profile in PROFILES.items():
        assert (profile.origin is Origin.MEASURED) == bool(profile.evidence), name
        plan = ask(make_profile(name, seed=3), chat_body(["a b c"]))
        assert plan.status == 200, name
    with pytest.raises(ValueError, match="holds"):
        named_profile("unknown")


async def test_the_ledger_is_read_over_http() -> None:
    """429s and the busiest minute and second, for a benchmark in another process."""
    endpoint = make_profile("hosted-requests-bound", latency="fixed", delay_s=0.0)
    async with serving(endpoint) as url, aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.post(f"{url}/chat/completions", data=chat_body(["a"])) as reply:
                assert reply.status == 200
        async with session.get(f"{url}/ledger") as reply:
            ledger = await reply.json()
    assert ledger["http_429"] == 0
    assert ledger["most_in_a_minute"]["admitted"]["requests"] == 3
    assert ledger["tokens"]["prompt"] > 0


def test_the_command_lists_profiles_with_their_origin() -> None:
    """Nobody takes a made-up figure for a measured one."""
    lines = CliRunner().invoke(simulate_command, ["--list-profiles"]).output.splitlines()
    listed = {line.split()[0]: line for line in lines if not line.startswith(" ")}
    assert set(listed) == set(PROFILES)
    assert all(str(PROFILES[name].origin) in line for name, line in listed.items())


@pytest.mark.parametrize(
    ("words", "delay_s", "rpm"),
    [([], None, 300), (["--rpm", "5"], None, 5), (["--latency", "fixed", "--delay-s", "0.25"], 0.25, 300)],
)
def test_options_beside_a_profile_change_it(
    words: list[str], delay_s: float | None, rpm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given counts; what is not given is the profile's, whatever the option's own default."""
    served: list[SimulatedEndpoint] = []
    monkeypatch.setattr("anyio.run", lambda serve, endpoint, *rest: served.append(endpoint))
    given = ["--profile", "hosted-requests-bound", "--labels", "a,b", *words]
    outcome = CliRunner().invoke(simulate_command, given, standalone_mode=False)
    assert outcome.exception is None
    plan = ask(served[0], chat_body(["a"]))
    assert plan.headers["x-ratelimit-limit-requests"] == str(rpm)
    assert delay_s is None or plan.delay_s == delay_s
