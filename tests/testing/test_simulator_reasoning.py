"""The simulated model thinks: tokens that are billed as output, take time, and are told as an endpoint tells them."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import ask, chat_body, document, make_endpoint

from engine.testing.simulator.cache import CacheRule, PrefixCache
from engine.testing.simulator.latency import LinearLatency, load_row
from engine.testing.simulator.reasoning import Reasoning

CALM = Reasoning(call_tokens=300, record_tokens=50, variation=0.0)


def said(*, told: Any = "details", texts: tuple[str, ...] = ("a", "b"), **body: Any) -> dict[str, Any]:
    thinks = Reasoning(call_tokens=300, record_tokens=50, variation=0.0, told=told)
    reply: dict[str, Any] = document(ask(make_endpoint(reasoning=thinks), chat_body(list(texts), **body)))
    return reply


def test_thinking_goes_by_the_request_and_the_record() -> None:
    """300 a request and 50 a record, inside the completion tokens."""
    plain = document(ask(make_endpoint(), chat_body(["a", "b"])))["usage"]
    usage = said()["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 400
    assert usage["completion_tokens"] == plain["completion_tokens"] + 400
    assert "completion_tokens_details" not in plain


def test_it_is_told_as_an_endpoint_tells_it() -> None:
    """In the usage, as a text beside the answer, or not at all; it is billed in any case."""
    text, nothing = said(told="text"), said(told="nothing")
    assert text["choices"][0]["message"]["reasoning_content"]
    assert "reasoning_content" not in nothing["choices"][0]["message"]
    for reply in (text, nothing):
        assert "completion_tokens_details" not in reply["usage"]
        assert reply["usage"]["completion_tokens"] > 400


def test_a_limit_may_leave_no_room_for_the_answer() -> None:
    """Cut in the thought: an empty answer, and all that was allowed is billed."""
    reply = said(max_tokens=250)
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["choices"][0]["message"]["content"] == ""
    usage = reply["usage"]
    assert usage["completion_tokens"] == usage["completion_tokens_details"]["reasoning_tokens"] == 250
    assert said(max_tokens=900)["choices"][0]["finish_reason"] == "stop"


def test_it_takes_time_and_stands_in_the_ledger() -> None:
    """A token of it takes as long as one of the answer."""
    latency = LinearLatency((load_row(1, 0.0, 0.0, 10.0, 0.0),))
    endpoint = make_endpoint(reasoning=CALM, latency=latency)
    plan = ask(endpoint, chat_body(["a", "b"]))
    assert plan.delay_s == pytest.approx(document(plan)["usage"]["completion_tokens"] * 0.01)
    assert endpoint.ledger.reasoning_tokens == endpoint.ledger.as_dict()["tokens"]["reasoning"] == 400


@pytest.mark.parametrize(("effort", "tokens"), [("none", 0), ("low", 120), ("high", 1_000)])
def test_the_effort_is_obeyed(effort: str, tokens: int) -> None:
    """Its shares are made up."""
    assert said(reasoning_effort=effort)["usage"]["completion_tokens_details"]["reasoning_tokens"] == tokens


def test_an_effort_that_it_does_not_know_is_refused() -> None:
    """By a model that thinks, with what it takes; by another, as a parameter that it does not know."""
    wrong = ask(make_endpoint(reasoning=CALM), chat_body(["a"], reasoning_effort="all"))
    assert wrong.status == 400
    assert b"'low'" in wrong.body
    unknown = ask(make_endpoint(), chat_body(["a"], reasoning_effort="low"))
    assert unknown.status == 400
    assert b"Unrecognized request argument" in unknown.body


def test_a_cache_may_take_time_until_it_can_be_read() -> None:
    """From the first reply on, whoever asks meanwhile."""
    cache = PrefixCache(CacheRule(min_tokens=1, step_tokens=1, write_delay_s=2.0))
    cache.learn(("static",), 10.0)
    assert cache.cached_tokens(("static",), 50, 11.9) == 0
    cache.learn(("static",), 11.9)
    assert cache.cached_tokens(("static",), 50, 12.0) == 50
