"""What the user gave, what headers state and what refusals show come together in one place."""

from __future__ import annotations

import anyio
import pytest

from engine.run.load import Load, LoadTicket
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import Limits, Packing, RunConfig
from engine.vocabulary.values import Completion, Fault, FaultKind, Quota, QuotaOf, Usage
from support import annotate_all, make_records

USAGE = Usage(input_tokens=100, output_tokens=10)


def reply(*quotas: Quota) -> Completion:
    """One with these limits in its headers."""
    return Completion(text="{}", finish_reason="stop", refusal=None, usage=USAGE, quotas=quotas)


def send(load: Load, at_s: float, in_flight: int = 1) -> LoadTicket:
    """One request of 110 tokens."""
    return load.sent(at_s, in_flight=in_flight, tokens=110, paced=False)


def test_headers_are_believed_where_nothing_was_given() -> None:
    """The limit is shown, paced by at once, and followed when it changes."""
    load = Load(Limits())
    load.ended(send(load, 0.0), reply(Quota(of="requests", per_minute=60, remaining=59)), USAGE, latency_s=1, now=1.0)
    assert load.per_minute("requests") == pytest.approx(60)
    send(load, 1.0)
    assert load.rate.delay_s(1.0, 110) > 0.5
    load.ended(send(load, 2.0), reply(Quota(of="requests", per_minute=600)), USAGE, latency_s=1, now=3.0)
    assert load.per_minute("requests") == pytest.approx(600)


def test_headers_do_not_overrule_the_user() -> None:
    """Who gives a limit may know better than a header of which the period is not known."""
    load = Load(Limits(requests_per_minute=300))
    load.ended(send(load, 0.0), reply(Quota(of="requests", per_minute=60)), USAGE, latency_s=1, now=1.0)
    assert load.per_minute("requests") == 300
    assert load.rate.per_minute("requests") is None


def test_an_older_reply_does_not_bring_back_an_older_limit() -> None:
    """Replies come out of order; the limit is the one of the request that was sent last."""
    load = Load(Limits())
    first, second = send(load, 0.0), send(load, 0.1)
    load.ended(second, reply(Quota(of="tokens", per_minute=500)), USAGE, latency_s=1, now=1.0)
    load.ended(first, reply(Quota(of="tokens", per_minute=1_000)), USAGE, latency_s=2, now=2.0)
    assert load.per_minute("tokens") == pytest.approx(500)


def test_what_is_left_does_not_count_requests_in_flight_twice() -> None:
    """`remaining` was written before the requests that were sent after this one."""
    load = Load(Limits())
    quota = Quota(of="requests", per_minute=6_000, remaining=3)
    first = send(load, 0.0)
    load.ended(first, reply(quota), USAGE, latency_s=1, now=1.0)
    load.rate.delay_s(10.0, 110)
    second = send(load, 10.0)
    for _ in range(3):
        send(load, 10.0)
    load.ended(second, reply(quota), USAGE, latency_s=0.0001, now=10.0)
    assert load.rate.delay_s(10.0, 110) > 0  # three were left, and three have gone since


def test_a_refusal_that_names_a_rate_leaves_the_window_alone() -> None:
    """And one that names nothing may be either."""
    cases: list[tuple[QuotaOf | None, bool]] = [("tokens", False), (None, True)]
    for limit, cut in cases:
        load = Load(Limits(max_concurrency=8))
        tickets = [send(load, 0.0, in_flight=min(8, number + 1)) for number in range(10)]
        for ticket in tickets:
            fault = Fault(kind=FaultKind.RATE_LIMIT, message="", status=429, limit=limit)
            load.ended(ticket, fault, USAGE, latency_s=0.1, now=1.0)
        assert (load.window.size < 8) == cut
        assert load.rate.per_minute("tokens") is not None


def test_a_given_window_is_not_searched_below() -> None:
    """A number that the user gave stays, however the endpoint's latency grows."""
    load = Load(Limits(max_concurrency=12))
    assert load.window.size == 12
    for number in range(2_000):
        ticket = send(load, number, in_flight=12)
        load.ended(ticket, reply(), USAGE, latency_s=1 + number, now=number + 0.5)
    assert load.window.size == 12


def test_on_a_real_clock_too_the_window_is_seen_to_be_what_holds_requests() -> None:
    """No wait takes exactly no time there; a few microseconds are no limit that bound."""
    records = make_records(400)
    endpoint = build_endpoint(SimulatorConfig(delay_s=0.005))
    config = RunConfig(packing=Packing(batch_size=1))
    outcome = anyio.run(annotate_all, records, InProcessTransport(endpoint), config)
    outcome.assert_each_once(records)
    assert outcome.counters.window is not None
    assert outcome.counters.window.size > 4
