"""An endpoint that refuses the first requests, and then none: found rates come from what was let in, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from engine.decide.rate import DiscoveredRate
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedTransport, answer_all, error_reply
from engine.vocabulary.config import Limits, RunConfig
from engine.vocabulary.errors import RunStopped
from support import annotate_all, make_records

label = answer_all(lambda _: "red", delay_s=0.3)


@pytest.mark.parametrize("limits", [Limits(), Limits(requests_per_minute=500, tokens_per_minute=200_000)])
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}])
@pytest.mark.parametrize("refusals", [1, 2, 3, 5])
def test_a_few_refusals_at_the_start_cost_seconds(refusals: int, headers: Mapping[str, str], limits: Limits) -> None:
    """Two 429s before anything was let in once cost eleven minutes: of nothing a rate was made."""

    def reply(request: RecordedRequest) -> Outcome:
        if len(transport.requests) <= refusals:
            return error_reply(429, "slow down", headers=headers)
        return label(request)

    transport = ScriptedTransport(reply)
    outcome = virtual_time.run(
        annotate_all, make_records(400), transport, RunConfig(limits=limits), virtual_time=True
    )  # fmt: skip
    assert len(outcome.ok) == 400
    assert outcome.seconds < 25.0


def test_nothing_but_refusals_ends_in_minutes_with_the_endpoints_words() -> None:
    """Between two and six minutes, asked every few seconds, and no record failed for it."""
    transport = ScriptedTransport(lambda _: error_reply(429, "slow down"))
    outcome = virtual_time.run(annotate_all, make_records(400), transport, RunConfig(), virtual_time=True)
    assert isinstance(outcome.stopped, RunStopped)
    assert "slow down" in str(outcome.stopped)
    assert 100.0 <= outcome.seconds <= 360.0
    assert len(transport.requests) >= 10
    assert outcome.failed == []


def test_a_rate_is_never_below_a_request_in_some_seconds() -> None:
    """All of the last seconds was refused: what is taken for the rate lets one request of the usual size through."""
    rate = DiscoveredRate()
    rate.observe_accepted(rate.spend(0.0, 1_000), 1.0)
    for ticket in [rate.spend(100.0, 1_000), rate.spend(100.1, 1_000)]:
        rate.observe_rate_limited(ticket, 100.5)
    rate.spend(101.0 + rate.delay_s(101.0, 1_000), 1_000)
    assert rate.delay_s(110.0, 1_000) <= 10.0
