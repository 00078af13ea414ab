"""The simulated endpoint: input and output limited apart, what it says of limits, and the tokens a client can know."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import ask, chat_body, document, make_endpoint

from engine.testing.simulator import InProcessTransport
from engine.testing.virtual_time import on_virtual_time

TIMEOUTS: dict[str, Any] = {"connect_timeout_s": 10.0, "timeout_s": 60.0}


def test_output_apart_is_charged_at_its_most_and_given_back() -> None:
    """A request holds max_tokens of the output limit until it ends; then only what it put out."""
    endpoint = make_endpoint(otpm=250, limit_window_s=60.0)
    body = chat_body(["a"], max_tokens=200)
    first = endpoint.begin(body, {}, 0.0)
    assert first.status == 200
    assert endpoint.begin(body, {}, 0.0).status == 429
    endpoint.end(first, 0.0)
    assert ask(endpoint, body).status == 200
    assert document(first)["usage"]["completion_tokens"] + first.unused_output == 200


def test_input_apart_is_charged_without_the_output() -> None:
    """max_tokens does not count against the input limit, and the headers are Anthropic's."""
    endpoint = make_endpoint(itpm=60)
    plan = ask(endpoint, chat_body(["a"], max_tokens=5_000))
    assert plan.status == 200
    left = 60 - document(plan)["usage"]["prompt_tokens"]
    assert plan.headers["anthropic-ratelimit-input-tokens-limit"] == "60"
    assert plan.headers["anthropic-ratelimit-input-tokens-remaining"] == str(left)
    refused = [ask(endpoint, chat_body(["a"], max_tokens=1)) for _ in range(3)][-1]
    assert refused.status == 429
    assert document(refused)["error"]["type"] == "input_tokens"


@pytest.mark.parametrize(("told", "headers", "named"), [("headers", 2, 1), ("refusals", 0, 1), ("nothing", 0, 0)])
def test_an_endpoint_may_keep_its_limits_to_itself(told: str, headers: int, named: int) -> None:
    """In every reply, only in refusals, or nowhere."""
    endpoint = make_endpoint(rpm=1, limits_told=told)
    plans = [ask(endpoint, chat_body(["a"])) for _ in range(2)]
    assert [plan.status for plan in plans] == [200, 429]
    assert sum("x-ratelimit-limit-requests" in plan.headers for plan in plans) == headers
    assert ("Retry-After" in plans[1].headers) == bool(named)
    assert ("Limit 1" in document(plans[1])["error"]["message"]) == bool(named)


@on_virtual_time
async def test_only_usage_that_arrived_whole_is_told() -> None:
    """A body cut short or garbled, or a client that left, was billed all the same and told nobody."""
    for fault in ("cut_body", "bad_envelope"):
        endpoint = make_endpoint(faults={fault: 1.0})
        ask(endpoint, chat_body(["a"]))
        assert (endpoint.ledger.told_prompt, endpoint.ledger.told_completion) == (0, 0)
        assert endpoint.ledger.prompt_tokens > 0
    endpoint = make_endpoint(delay_s=5.0)
    transport = InProcessTransport(endpoint)
    with pytest.raises(TimeoutError):
        await transport.post(
            "/v1/chat/completions", body=chat_body(["a"]), headers={}, **{**TIMEOUTS, "timeout_s": 2.0}
        )
    assert (endpoint.ledger.told_prompt, endpoint.ledger.broken_off) == (0, 1)
    await transport.post("/v1/chat/completions", body=chat_body(["a"]), headers={}, **TIMEOUTS)
    assert endpoint.ledger.told_prompt * 2 == endpoint.ledger.prompt_tokens
    assert list(endpoint.ledger.lasted_s) == pytest.approx([2.0, 5.0])


def test_refused_requests_are_not_among_the_admitted_tokens() -> None:
    """The charge of what no limit refused, to hold a makespan against."""
    endpoint = make_endpoint(rpm=2)
    for _ in range(5):
        ask(endpoint, chat_body(["a"], max_tokens=10))
    charged = endpoint.ledger.charged_tokens
    assert endpoint.ledger.admitted_tokens == charged[0] + charged[1] == endpoint.ledger.as_dict()["charged_tokens"]
