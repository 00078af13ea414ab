"""The whole way of a record, against a simulated endpoint on virtual time."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.profiles import named_profile
from engine.testing.simulator.rates import FaultRates
from engine.testing.simulator.transport import InProcessTransport, SimulatedReply
from engine.vocabulary.config import Limits, Packing, Prices, Quality, RunConfig
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.task import Field, FieldType
from support import LABELS, annotate_all, make_config, make_records, make_task, simulate


def test_every_record_is_answered_once_with_its_own_answer() -> None:
    """A clean endpoint: n records take ceil(n / B) calls and one for the lone probe."""
    records = make_records(1000)
    outcome = simulate(records, make_config(10))
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.counters.requests == 101


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_faults_on_the_first_two_sends_lose_nothing(batch_size: int) -> None:
    """Every fault at 5 %, all together, striking a record's first two sends: all records end ok and right."""
    records = make_records(1500)
    simulator = SimulatorConfig(faults=FaultRates.all(0.05), strike="first_sends=2", seed=batch_size)
    outcome = simulate(records, make_config(batch_size, concurrency=32), simulator)
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.stopped is None


@pytest.mark.parametrize("seed", range(3))
def test_faults_at_every_send_lose_and_mislabel_nothing(seed: int) -> None:
    """Faults drawn anew at every attempt: every record ends, right or failed with a reason."""
    records = make_records(1500)
    outcome = simulate(
        records, make_config(20, concurrency=32), SimulatorConfig(faults=FaultRates.all(0.05), seed=seed)
    )
    outcome.assert_each_once(records)
    assert all(result.error and result.error.kind and result.error.message for result in outcome.failed)
    assert len(outcome.failed) < 30


@pytest.mark.parametrize("poison", ["drop", "break", "off_label"])
def test_exactly_the_poison_records_fail(poison: str) -> None:
    """Records that always break their batch fail, and only they; they cost at most the bound of the design."""
    batch_size, attempts, count = 20, 3, 20
    records = make_records(2000, lambda number: f"{'POISON ' if number % 100 == 50 else ''}text {number}")
    outcome = simulate(records, make_config(batch_size), SimulatorConfig(poison_marker="POISON", poison=poison))
    outcome.assert_each_once(records)
    assert {result.id for result in outcome.failed} == {f"r{number}" for number in range(50, 2000, 100)}
    # The probe for a lone record may take the look-ahead out of step by one batch.
    plain = math.ceil((2000 - 1) / batch_size) + 1 + 1
    bound = count * (2 * math.ceil(math.log2(batch_size)) + attempts - 1)
    assert outcome.counters.requests - plain <= bound


def test_replies_in_reverse_order_cost_no_call() -> None:
    """Matching is by id: order means nothing."""
    records = make_records(500)
    outcome = simulate(records, make_config(10), SimulatorConfig(faults={"reorder": 1.0}))
    outcome.assert_each_once(records)
    assert outcome.counters.requests == 51
    assert outcome.counters.malformed == 0


def test_what_is_missing_is_asked_again_and_the_rest_is_kept() -> None:
    """One record of a batch is left out once: the others are kept, it alone is sent again."""
    records = make_records(100, lambda number: f"text {number}")
    outcome = simulate(records, make_config(10), SimulatorConfig(faults={"drop": 0.1}, strike="first_sends=1", seed=3))
    outcome.assert_each_once(records)
    assert outcome.endpoint is not None
    dropped = outcome.endpoint.ledger.strikes["drop"]
    assert dropped > 0
    sends = Counter(outcome.endpoint.ledger.sends.values())
    assert sends == {1: 100 - dropped, 2: dropped}


@pytest.mark.parametrize("mode", ["never_format", "always_400", "echo_items"])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_a_run_that_cannot_work_is_stopped_early(mode: str, batch_size: int) -> None:
    """Stopped within 20 calls, with a cause, whatever the batch size."""
    outcome = simulate(make_records(5000), make_config(batch_size, max_failed=0.2), SimulatorConfig(mode=mode))
    assert isinstance(outcome.stopped, RunStopped)
    assert outcome.counters.requests <= 20
    assert outcome.ok == []


def test_a_stale_reply_is_no_answer() -> None:
    """A server that repeats the reply before: its ids carry another salt, so nothing of it counts."""
    records = make_records(300)
    outcome = simulate(records, make_config(10), SimulatorConfig(mode="stale"))
    assert outcome.mislabelled(records) == []
    assert len(outcome.ok) <= 1  # the very first reply has none before it, and is right


def test_swapped_answers_are_caught_by_the_keyed_form() -> None:
    """Outputs swapped between two ids cannot be seen in the compact form; a key that does not fit shows them."""
    records = make_records(60, lambda number: f"item {number * 7919} of the list")
    config = make_config(6)
    keyed = RunConfig(packing=config.packing, limits=config.limits, recovery=config.recovery, answer_form="keyed")
    outcome = simulate(records, keyed, SimulatorConfig(mode="swap"))
    outcome.assert_each_once(records)
    assert outcome.ok != []
    plain = simulate(records, config, SimulatorConfig(mode="swap"))
    assert plain.mislabelled(records) != []


def test_records_with_the_same_first_words_share_no_keyed_request() -> None:
    """Between two of them a swap could not be seen, so they go apart; those that differ still go together."""
    records = make_records(40, lambda number: f"one and the same beginning, then {number}")
    base = make_config(8)
    keyed = RunConfig(packing=base.packing, limits=base.limits, recovery=base.recovery, answer_form="keyed")
    outcome = simulate(records, keyed, SimulatorConfig(mode="swap"))
    outcome.assert_each_once(records)
    assert {result.batch_size for result in outcome.results} == {1}
    mixed = make_records(40, lambda number: f"beginning {number % 4} of one and the same, then {number}")
    outcome = simulate(mixed, keyed, SimulatorConfig())
    outcome.assert_each_once(mixed)
    assert 2 <= max(result.batch_size for result in outcome.results) <= 4


def test_an_endpoint_that_ignores_the_keyed_form_gets_the_compact_one() -> None:
    """The run goes on compact, with a notice, instead of being stopped."""
    records = make_records(100)
    base = make_config(10)
    config = RunConfig(packing=base.packing, limits=base.limits, recovery=base.recovery, answer_form="keyed")
    outcome = simulate(records, config, SimulatorConfig(follows_form=False))
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert any("compact" in notice for notice in outcome.counters.notices)


def test_identical_inputs_are_asked_once() -> None:
    """Equal texts share one ask, over the whole run and not only within the look-ahead."""
    records = make_records(3000, lambda number: f"text {number % 50}")
    outcome = simulate(records, make_config(10))
    outcome.assert_each_once(records)
    assert outcome.endpoint is not None
    assert set(outcome.endpoint.ledger.sends.values()) == {1}
    assert len(outcome.endpoint.ledger.sends) == 50
    assert outcome.counters.records_copied == 2950


def test_identical_inputs_are_each_asked_when_that_is_wanted() -> None:
    """With deduplication off, every record is sent."""
    records = make_records(100, lambda number: f"text {number % 5}")
    config = RunConfig(packing=Packing(batch_size=10, deduplicate=False), limits=Limits(max_concurrency=4))
    outcome = simulate(records, config)
    assert outcome.endpoint is not None
    assert sum(outcome.endpoint.ledger.sends.values()) == 100


def test_a_copy_of_a_failed_record_fails_with_it() -> None:
    """Identical inputs share a failure as well."""
    records = make_records(40, lambda number: "POISON" if number % 10 == 3 else f"text {number}")
    outcome = simulate(records, make_config(5), SimulatorConfig(poison_marker="POISON"))
    outcome.assert_each_once(records)
    assert {result.id for result in outcome.failed} == {"r3", "r13", "r23", "r33"}


def test_a_record_too_long_for_any_request_is_refused_by_name() -> None:
    """It is failed with the numbers and never sent; its neighbours are labelled."""
    records = make_records(20, lambda number: "word " * 5000 if number == 7 else f"text {number}")
    config = RunConfig(packing=Packing(batch_size=5, max_input_tokens=2000), limits=Limits(max_concurrency=2))
    outcome = simulate(records, config)
    (failed,) = outcome.failed
    assert failed.id == "r7"
    assert failed.error is not None
    assert failed.error.kind == "too-long"
    assert "2,000" in failed.error.message
    assert len(outcome.ok) == 19


def test_a_long_record_runs_alone() -> None:
    """What leaves no room for others is sent by itself, and no request exceeds the budget by our count."""
    records = make_records(40, lambda number: ("long " * 1500 if number % 8 == 0 else "short ") + str(number))
    config = RunConfig(packing=Packing(batch_size=8, max_input_tokens=2200), limits=Limits(max_concurrency=4))
    outcome = simulate(records, config)
    outcome.assert_each_once(records)
    assert outcome.failed == []


def test_context_overflow_halves_until_it_fits() -> None:
    """An endpoint with a smaller context than we think: batches are halved, nothing fails that fits alone."""
    records = make_records(64, lambda number: f"some thirty words {'lorem ipsum dolor ' * 20}{number}")
    outcome = simulate(records, make_config(16), SimulatorConfig(context_tokens=700))
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.counters.splits > 0


@pytest.mark.parametrize("support", ["json_schema", "json_object", "none"])
def test_the_endpoint_s_format_support_is_found_out(support: str) -> None:
    """Whatever response_format the endpoint takes, the run finds it in a call or two and goes on."""
    records = make_records(100)
    simulator = SimulatorConfig(
        schema_support=support, labels=LABELS, max_tokens_field="max_completion_tokens", takes_temperature=False
    )
    outcome = simulate(records, make_config(10), simulator)
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.counters.requests <= 11 + 8


def test_rate_limits_known_to_us_are_never_exceeded() -> None:
    """Paced by the endpoint's own limits, the run meets no 429."""
    records = make_records(600)
    config = RunConfig(packing=Packing(batch_size=10), limits=Limits(requests_per_minute=60, max_concurrency=16))
    outcome = simulate(records, config, SimulatorConfig(rpm=60))
    outcome.assert_each_once(records)
    assert outcome.counters.http_429 == 0
    assert outcome.seconds < 61 * 1.15


def test_a_rate_limit_unknown_to_us_is_read_from_the_headers() -> None:
    """The endpoint's headers name it within a few calls, and the run is paced by it: hardly a 429, hardly slower."""
    records = make_records(3_000)
    config = RunConfig(packing=Packing(batch_size=10))
    outcome = simulate(records, config, SimulatorConfig(rpm=60))
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.counters.http_429 <= 3
    assert outcome.seconds < 301 * 1.1


def test_a_rate_limit_that_nobody_names_is_found_by_refusals() -> None:
    """Without headers the limit is found, used nearly whole, and shown."""
    records = make_records(12_000)
    config = RunConfig(packing=Packing(batch_size=10))
    outcome = simulate(records, config, SimulatorConfig(rps=2))
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.seconds < 600 * 1.25
    rate = outcome.counters.rate
    assert rate is not None
    found = rate.per_minute("requests")
    assert found is not None
    assert 80 < found < 240


def test_a_window_unknown_to_us_is_found() -> None:
    """An endpoint that bears three requests at once is asked three at a time, most of the time."""
    records = make_records(2_000)
    config = RunConfig(packing=Packing(batch_size=10))
    outcome = simulate(records, config, SimulatorConfig(max_concurrency=3, delay_s=1.0))
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.counters.http_429 < 0.15 * outcome.counters.requests
    assert outcome.seconds < 1.4 * 2_000 / 10 / 3


def test_a_latency_target_is_met_by_smaller_batches_and_a_shorter_look_ahead() -> None:
    """95 % of the records within 3 s, where throughput alone would let them wait several times as long.

    The first thousand, in which it learns, are not counted.
    """
    p95_s = []
    for target_s in (None, 3.0):
        simulator = named_profile("holds").config(labels=LABELS, seed=1)
        config = RunConfig(limits=Limits(max_concurrency=4), quality=Quality(guard=False), target_p95_s=target_s)
        outcome = simulate(make_records(4_000), config, simulator)
        assert len(outcome.ok) == 4_000
        later = [result.latency_s for result in outcome.ok[1_000:]]
        p95_s.append(statistics.quantiles(later, n=20)[-1])
    assert p95_s[0] > 10
    assert p95_s[1] <= 3.3


def test_wrong_key_stops_at_once() -> None:
    """401 is not retried; the reason names the remedy."""
    outcome = simulate(make_records(500), make_config(10), SimulatorConfig(api_key="right"))
    assert isinstance(outcome.stopped, RunStopped)
    assert outcome.stopped.kind == "auth"
    assert "ANNOTATE_API_KEY" in str(outcome.stopped)
    assert outcome.counters.requests <= 2


def test_exhausted_quota_stops_and_keeps_everything() -> None:
    """insufficient_quota is told apart from a rate limit: it ends the run, with all answers given out."""
    outcome = simulate(make_records(500), make_config(10, concurrency=4), SimulatorConfig(quota_tokens=5000))
    assert isinstance(outcome.stopped, RunStopped)
    assert outcome.stopped.kind == "quota"
    assert len(outcome.ok) > 50
    assert outcome.counters.http_429 <= 5


def test_a_budget_is_not_overspent() -> None:
    """The run stops before the request that might exceed the budget, all that is in flight counted."""
    config = make_config(10, concurrency=8)
    priced = RunConfig(
        packing=config.packing, limits=config.limits, prices=Prices(input=1.0, output=4.0), budget_usd=0.01
    )
    outcome = simulate(make_records(5000), priced)
    assert isinstance(outcome.stopped, RunStopped)
    assert outcome.stopped.kind == "budget"
    counters = outcome.counters
    spent = (counters.tokens_input * 1.0 + counters.tokens_output * 4.0) / 1e6
    assert 0.005 < spent <= 0.01


def test_a_budget_is_for_the_store_and_not_for_each_run(tmp_path: Path) -> None:
    """The same command again has what is left, not as much again; a larger budget goes on from there."""
    base, records, store = make_config(10), make_records(5000), str(tmp_path / "run.sqlite")
    spent = 0.0
    for budget_usd, least in ((0.01, 0.005), (0.01, 0.0), (0.02, 0.005)):
        priced = RunConfig(
            packing=base.packing, limits=base.limits, prices=Prices(input=1.0, output=4.0), budget_usd=budget_usd
        )
        outcome = simulate(records, priced, store=store)
        assert isinstance(outcome.stopped, RunStopped)
        assert outcome.stopped.kind == "budget"
        counters = outcome.counters
        here = (counters.tokens_input * 1.0 + counters.tokens_output * 4.0) / 1e6
        spent += here
        assert least <= here
        assert spent <= budget_usd
    assert "earlier runs" in str(outcome.stopped)


def test_what_did_not_fit_is_judged_anew_under_other_limits(tmp_path: Path) -> None:
    """A refusal before sending says something about our limits, not about the record: it is no lasting failure."""
    records, store = [{"id": "long", "text": "word " * 3000}], str(tmp_path / "run.sqlite")
    small = RunConfig(packing=Packing(batch_size=5, max_input_tokens=2000))
    paced = RunConfig(limits=Limits(tokens_per_minute=2000))
    for config in (small, paced, small):
        (failed,) = simulate(records, config, store=store).failed
        assert failed.error is not None
        assert failed.error.kind == "too-long"
        assert "next run" in failed.error.message
    again = simulate(records, make_config(5), store=store)
    assert [result.id for result in again.ok] == ["long"]


def test_a_limit_below_any_request_is_said_before_anything_is_sent() -> None:
    """A static prompt that alone takes more than a minute's tokens is a mistake of the whole, not of each record."""
    outcome = simulate(make_records(3), RunConfig(limits=Limits(tokens_per_minute=50)))
    assert isinstance(outcome.stopped, ConfigError)
    assert "--tpm" in str(outcome.stopped)
    assert outcome.counters.requests == 0


def test_several_variables_at_once() -> None:
    """An answer is an object with every field checked."""
    task = make_task(
        labels=[],
        fields={
            "colour": Field(type=FieldType.LABEL, labels=LABELS),
            "sure": Field(type=FieldType.BOOLEAN),
        },
    )
    records = make_records(50)
    outcome = simulate(records, make_config(10), task=task)
    assert len(outcome.ok) == 50
    assert all(set(result.output) == {"colour", "sure"} for result in outcome.ok)


def test_the_counters_agree_with_the_endpoint_s_ledger() -> None:
    """Requests and tokens are the endpoint's own, failed attempts included."""
    records = make_records(400)
    faults: dict[str, Any] = {"drop": 0.1, "http_500": 0.1, "off_label": 0.1, "fence": 0.2}
    outcome = simulate(records, make_config(10), SimulatorConfig(faults=faults, seed=1))
    assert outcome.endpoint is not None
    ledger = outcome.endpoint.ledger
    assert outcome.counters.requests == ledger.requests
    assert outcome.counters.tokens_input == ledger.prompt_tokens
    assert outcome.counters.tokens_output == ledger.completion_tokens


def test_order_of_labels_in_a_sorted_corpus_is_broken_up() -> None:
    """The look-ahead is shuffled: a corpus sorted by label does not make batches of one label."""
    texts = sorted((f"text {number}" for number in range(400)), key=lambda text: stable_label(text, LABELS))
    records = make_records(400, lambda number: texts[number])
    outcome = simulate(records, make_config(10, concurrency=2))
    by_call: dict[int, set[Any]] = {}
    for result in outcome.ok:
        by_call.setdefault(result.calls[-1], set()).add(result.output)
    mixed = sum(len(labels) > 1 for labels in by_call.values())
    assert mixed > len(by_call) * 0.7


@pytest.mark.parametrize("pause_s", [0.001, 0.003, 0.01, 0.025, 0.049, 0.05, 0.051])
def test_a_twin_that_comes_at_any_moment_is_answered(pause_s: float) -> None:
    """Identical inputs arrive while their answer is asked, on its way into the store, or there: each ends once."""
    records = make_records(60, lambda number: f"text {number % 3}")

    async def source() -> AsyncIterator[dict[str, Any]]:
        for record in records:
            yield record
            await anyio.sleep(pause_s)

    outcome = simulate(source(), make_config(2))
    outcome.assert_each_once(records)
    assert outcome.endpoint is not None
    assert set(outcome.endpoint.ledger.sends.values()) == {1}


def test_a_low_token_limit_does_not_undo_batching() -> None:
    """Where the static prompt is most of a request, smaller batches would only pay for it more often."""
    task = make_task(instructions="Say which colour it is. " * 300)
    config = RunConfig(packing=Packing(batch_size=10), limits=Limits(tokens_per_minute=30_000))
    records = make_records(200)
    outcome = simulate(records, config, task=task)
    outcome.assert_each_once(records)
    assert outcome.counters.requests <= 25


def test_a_budget_counts_requests_that_brought_no_reply() -> None:
    """A request that timed out may be billed: a run of timeouts ends by its budget, not by patience."""
    config = make_config(10)
    priced = RunConfig(
        packing=config.packing, limits=config.limits, prices=Prices(input=1000.0, output=1000.0), budget_usd=3.0
    )
    outcome = simulate(make_records(500), priced, SimulatorConfig(faults={"hang": 0.5}, seed=2))
    assert isinstance(outcome.stopped, RunStopped)
    assert outcome.stopped.kind == "budget"
    counters = outcome.counters
    assert counters.unconfirmed_input > 0
    tokens = counters.tokens_input + counters.tokens_output
    assert (tokens + counters.unconfirmed_input + counters.unconfirmed_output) / 1000 <= 3.0


def test_an_error_of_the_endpoint_s_own_is_not_taken_for_billed() -> None:
    """A 500 is an answer of a kind: only requests without any reply are unconfirmed."""
    outcome = simulate(make_records(200), make_config(10), SimulatorConfig(faults={"http_500": 0.3}, seed=1))
    assert outcome.counters.retried > 0
    assert outcome.counters.unconfirmed_input == outcome.counters.unconfirmed_output == 0


def test_a_latency_target_keeps_the_window_from_growing_into_a_queue() -> None:
    """Four slots of 1.5 s: with a target of 3 s nobody needs to find out how long sixty-four in flight take."""
    endpoint = build_endpoint(SimulatorConfig())
    transport = Queueing(endpoint, slots=4, takes_s=1.5)
    config = RunConfig(target_p95_s=3.0)
    records = make_records(1_500)
    outcome = virtual_time.run(annotate_all, records, transport, config, virtual_time=True)
    outcome.assert_each_once(records)
    assert outcome.counters.window is not None
    assert max(move.new for move in outcome.counters.window.history) <= 12
    last = sorted(result.latency_s for result in outcome.results[-300:])
    assert last[285] <= 2 * 3.0


class Queueing(InProcessTransport):
    """Serves so many at once, each in the same time; the others wait."""

    def __init__(self, endpoint: SimulatedEndpoint, *, slots: int, takes_s: float) -> None:
        super().__init__(endpoint)
        self._slots, self._takes_s = anyio.Semaphore(slots), takes_s

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], **timeouts: float) -> SimulatedReply:
        """When there is a slot."""
        async with self._slots:
            await anyio.sleep(self._takes_s)
            return await super().post(url, body=body, headers=headers, **timeouts)
