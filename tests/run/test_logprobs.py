"""Confidence by token probabilities, from the request to the result; and endpoints that have none, or lie."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedReply, ScriptedTransport, chat_reply
from engine.vocabulary.config import Escalation, RunConfig
from tests.support import LABELS, annotate_all, make_config, make_records


def config(**changes: Any) -> RunConfig:
    return msgspec.structs.replace(make_config(4, concurrency=1), **({"confidence": "logprobs"} | changes))


def run(transport: ScriptedTransport, settings: RunConfig, *, count: int = 8) -> Any:
    return virtual_time.run(annotate_all, make_records(count), transport, settings, virtual_time=True)


def with_logprobs(request: RecordedRequest, logprobs: Any = None, *, label: str = "red") -> ScriptedReply:
    """Every input is red; that of number N is sure by 1 - N/10, in two tokens."""
    pieces: list[tuple[str, float]] = [('{"results":[', 1.0)]
    for place, item in enumerate(request.items):
        share = 1.0 - int(item["input"].split()[-1]) / 10
        pieces += [(f'{"," if place else ""}{{"id":"{item["id"]}","output":"', 0.99), (label[:1], math.sqrt(share))]
        pieces += [(label[1:], math.sqrt(share)), ('"}', 0.98)]
    pieces.append(("]}", 1.0))
    if logprobs is None:
        logprobs = {"content": [{"token": text, "logprob": math.log(share)} for text, share in pieces]}
    reply = chat_reply("".join(text for text, _ in pieces))
    document = json.loads(reply.body)
    document["choices"][0]["logprobs"] = logprobs
    return ScriptedReply(body=json.dumps(document).encode())


def test_a_label_has_the_probability_of_its_tokens() -> None:
    """They are asked for, read, and given out with the record whose label they are of."""
    transport = ScriptedTransport(with_logprobs)
    outcome = run(transport, config())
    assert all(request.document["logprobs"] is True for request in transport.requests)
    assert {result.id: result.confidence for result in outcome.results} == {
        f"r{number}": pytest.approx(1 - number / 10) for number in range(8)
    }
    assert outcome.counters.notices == []
    assert outcome.counters.votes.confidence().answers == 8


def test_they_are_asked_for_only_if_wanted() -> None:
    """Many endpoints refuse the parameter, and it costs bytes."""
    transport = ScriptedTransport(with_logprobs)
    outcome = run(transport, config(confidence="votes"))
    assert all("logprobs" not in request.document for request in transport.requests)
    assert {result.confidence for result in outcome.results} == {None}


def test_an_endpoint_that_refuses_them_is_asked_without() -> None:
    """As other parameters that it does not take: the same batch goes again, it is said once, and the run goes on."""

    def reply(request: RecordedRequest) -> Outcome:
        if "logprobs" in request.document:
            message = "You are not allowed to request logprobs from this model"
            return ScriptedReply(status=400, body=json.dumps({"error": {"message": message}}).encode())
        return chat_reply(json.dumps({"results": [{"id": item["id"], "output": "red"} for item in request.items]}))

    transport = ScriptedTransport(reply)
    outcome = run(transport, config())
    assert {(result.output, result.confidence) for result in outcome.results} == {("red", None)}
    assert sum("logprobs" in request.document for request in transport.requests) == 1
    (notice,) = outcome.counters.notices
    assert "probabilities" in notice


@pytest.mark.parametrize(
    "logprobs",
    [
        [],
        {"content": None},
        {"content": "x" * 10_000},
        {"content": [{"token": "red", "logprob": -0.1}]},
        {"content": [{"token": 7, "logprob": "x"}] * 50},
        {"content": [{"token": "a", "logprob": -1.0}] * 200_000},
        {"content": [None, [], {}, True]},
        "nonsense",
        7,
    ],
    ids=["list", "null", "text", "other tokens", "no tokens", "too many", "mixed", "a word", "a number"],
)
def test_garbled_probabilities_break_nothing(logprobs: Any) -> None:
    """The answers stand; nothing is said of how sure they are."""
    outcome = run(ScriptedTransport(lambda request: with_logprobs(request, logprobs)), config())
    assert {(result.output, result.confidence) for result in outcome.results} == {("red", None)}
    assert len(outcome.results) == 8


def test_votes_are_weighed_by_them() -> None:
    """Three equal votes of a model that is 60 % sure are 60 % of a confidence."""
    outcome = run(ScriptedTransport(with_logprobs), config(votes=3))
    assert {result.id: result.confidence for result in outcome.results} == {
        f"r{number}": pytest.approx(1 - number / 10) for number in range(8)
    }
    assert {result.votes for result in outcome.results} == {2}


def test_they_alone_suffice_for_a_second_model() -> None:
    """Without votes, what is less probable than the bar goes to it."""

    def reply(request: RecordedRequest) -> Outcome:
        return with_logprobs(request, label="blue" if request.document["model"] == "large" else "red")

    outcome = run(ScriptedTransport(reply), config(escalation=Escalation(below=0.55, model="large")))
    assert {result.id: result.model for result in outcome.results} == {
        f"r{number}": "large" if number >= 5 else "simulated" for number in range(8)
    }
    assert {result.output for result in outcome.results if result.model == "large"} == {"blue"}


def test_a_run_that_hangs_on_them_ends_where_there_are_none() -> None:
    """A second model, no votes, and an endpoint that never says how sure it is: that is told before all is paid for."""

    def reply(request: RecordedRequest) -> Outcome:
        return chat_reply(json.dumps({"results": [{"id": item["id"], "output": LABELS[0]} for item in request.items]}))

    transport = ScriptedTransport(reply)
    outcome = run(transport, config(escalation=Escalation(below=0.5, model="large")), count=400)
    assert getattr(outcome.stopped, "kind", None) == "confidence"
    assert "--votes" in str(outcome.stopped)
    assert len(transport.requests) <= 4
