"""The scripted transport plays what it is told, in order, and records what it was sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from simulated import chat_body

from engine.testing.scripted import (
    DrivenTransport,
    ScriptedReply,
    ScriptedTransport,
    answer_all,
    answer_some,
    chat_reply,
    error_reply,
    items_of,
)
from engine.testing.virtual_time import on_virtual_time


async def _post(
    transport: ScriptedTransport | DrivenTransport, inputs: Sequence[Any] = ("a",), timeout_s: float = 5
) -> ScriptedReply:
    return await transport.post(
        "http://x/v1/chat/completions",
        body=chat_body(inputs),
        headers={"X": "y"},
        connect_timeout_s=1,
        timeout_s=timeout_s,
    )


def _results(reply: ScriptedReply) -> Any:
    return json.loads(json.loads(reply.body)["choices"][0]["message"]["content"])["results"]


@on_virtual_time
async def test_the_script_is_played_in_order() -> None:
    """Replies, exceptions and functions, then what stands for the rest."""
    script = [error_reply(500), ConnectionResetError("gone"), answer_some(str.upper, lambda text: text != "b")]
    transport = ScriptedTransport(script, then=answer_all(str.title))
    assert (await _post(transport)).status == 500
    with pytest.raises(ConnectionResetError, match="gone"):
        await _post(transport)
    assert _results(await _post(transport, ["a", "b"])) == [{"id": "k3f-1", "output": "A"}]
    for _ in range(2):
        assert _results(await _post(transport, ["ab"])) == [{"id": "k3f-1", "output": "Ab"}]
    assert [request.inputs for request in transport.requests] == [["a"], ["a"], ["a", "b"], ["ab"], ["ab"]]
    assert transport.requests[0].headers == {"X": "y"}


@on_virtual_time
async def test_a_request_beyond_the_script_fails_the_test() -> None:
    """One call too many is an error with the inputs in it, not a hang."""
    with pytest.raises(AssertionError, match=r"request 1 is beyond the script: \['a'\]"):
        await _post(ScriptedTransport([]))


@on_virtual_time
async def test_delays_and_timeouts_are_on_the_clock() -> None:
    """A reply within the timeout comes after its delay; a later one is a TimeoutError at the timeout."""
    transport = ScriptedTransport([chat_reply("x", delay_s=4), chat_reply("x", delay_s=6)])
    start = anyio.current_time()
    assert (await _post(transport)).status == 200
    assert anyio.current_time() - start == pytest.approx(4, abs=1e-3)
    with pytest.raises(TimeoutError):
        await _post(transport)
    assert anyio.current_time() - start == pytest.approx(9, abs=1e-3)
    assert transport.in_flight == 0


@on_virtual_time
async def test_requests_at_once_are_counted() -> None:
    """Also when they are cancelled."""
    transport = ScriptedTransport(lambda request: chat_reply("x", delay_s=60))
    with anyio.move_on_after(1):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(_post, transport)
    assert (transport.peak_in_flight, transport.in_flight) == (3, 0)


def test_bodies_have_openai_s_shape() -> None:
    """Usage with cached tokens, or none; errors with type, code and param."""
    usage = json.loads(chat_reply("x", prompt_tokens=7, completion_tokens=2, cached_tokens=3).body)["usage"]
    assert usage["total_tokens"] == 9
    assert usage["prompt_tokens_details"] == {"cached_tokens": 3}
    assert "usage" not in json.loads(chat_reply("x", prompt_tokens=None).body)
    error = error_reply(429, "slow", code="rate_limit_exceeded", headers={"Retry-After": "2"})
    assert json.loads(error.body)["error"]["code"] == "rate_limit_exceeded"
    assert error.headers["Retry-After"] == "2"


def test_a_chat_without_items_has_none() -> None:
    """Probes and other requests do not break the recorder."""
    assert items_of({"messages": [{"content": "hello"}]}) == []
    assert items_of({"messages": [{"content": "[1]"}]}) == []


@on_virtual_time
async def test_a_driven_request_ends_when_and_as_the_test_says() -> None:
    """Any order, a reply or an exception; once only."""
    transport = DrivenTransport()
    got: list[Any] = []

    async def post(name: str) -> None:
        try:
            got.append((name, (await _post(transport, [name])).body))
        except ConnectionResetError:
            got.append((name, "reset"))

    async with anyio.create_task_group() as tasks:
        for name in ("a", "b", "c"):
            tasks.start_soon(post, name)
        await anyio.sleep(1)
        a, b, c = transport.waiting
        assert [driven.request.inputs for driven in (a, b, c)] == [["a"], ["b"], ["c"]]
        assert c.end(ScriptedReply(body=b"third"))
        await anyio.sleep(1)
        assert b.end(ConnectionResetError())
        assert not b.end(ScriptedReply(body=b"too late"))
        await anyio.sleep(1)
        assert a.end(ScriptedReply(body=b"first"))
    assert got == [("c", b"third"), ("b", "reset"), ("a", b"first")]
    assert transport.waiting == []


@on_virtual_time
async def test_a_driven_request_that_nobody_ends_times_out() -> None:
    """And what comes for it later is given to nobody."""
    transport = DrivenTransport()
    started = anyio.current_time()
    with pytest.raises(TimeoutError):
        await _post(transport, timeout_s=5)
    assert anyio.current_time() - started == pytest.approx(5, abs=0.01)
    assert transport.requests[0].fate == "timed out"
    assert not transport.requests[0].end(ScriptedReply())


@on_virtual_time
async def test_a_driven_request_that_is_cancelled_is_given_up() -> None:
    """The test can see that its caller is gone."""
    transport = DrivenTransport()
    with anyio.move_on_after(1):
        await _post(transport, timeout_s=5)
    assert transport.requests[0].fate == "given up"
