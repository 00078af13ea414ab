"""The two fronts of one endpoint: in process on virtual time, and a real HTTP server."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import aiohttp
import anyio
import pytest
from simulated import LABELS, chat_body, make_endpoint

from engine.testing.simulator import InProcessTransport, SimulatedEndpoint, SimulatorConfig
from engine.testing.simulator.server import serve_forever, serving
from engine.testing.virtual_time import on_virtual_time

URL = "http://simulated/v1/chat/completions"


async def _post(endpoint: SimulatedEndpoint, *, timeout_s: float = 10.0, url: str = URL) -> Any:
    transport = InProcessTransport(endpoint)
    body = chat_body(["a"])
    return await transport.post(url, body=body, headers={}, connect_timeout_s=1, timeout_s=timeout_s)


@on_virtual_time
async def test_a_reply_takes_its_time() -> None:
    """The delay of the profile passes on the loop's clock, and the request is in flight meanwhile."""
    endpoint, start = make_endpoint(delay_s=3.0), anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(_post, endpoint)
        await anyio.sleep(1)
        assert endpoint.ledger.in_flight == 5
    assert anyio.current_time() - start == pytest.approx(3.0, abs=1e-3)
    assert (endpoint.ledger.in_flight, endpoint.ledger.peak_in_flight) == (0, 5)


@pytest.mark.parametrize(("settings", "error", "after_s"), [
    ({"faults": {"reset": 1.0}}, ConnectionResetError, 0.005),
    ({"faults": {"cut_body": 1.0}, "delay_s": 2.0}, ConnectionResetError, 2.0),
    ({"faults": {"hang": 1.0}}, TimeoutError, 10.0),
    ({"delay_s": 11.0}, TimeoutError, 10.0),
])  # fmt: skip
def test_broken_connections_raise(settings: dict[str, Any], error: type[Exception], after_s: float) -> None:
    """The builtin exceptions that a real transport raises, when they would come."""

    @on_virtual_time
    async def main() -> None:
        endpoint, start = make_endpoint(**settings), anyio.current_time()
        with pytest.raises(error):
            await _post(endpoint)
        assert anyio.current_time() - start == pytest.approx(after_s, abs=1e-3)
        assert endpoint.ledger.in_flight == 0

    main()


@on_virtual_time
async def test_a_client_that_leaves_is_not_in_flight() -> None:
    """Cancellation ends the request on the endpoint too."""
    endpoint = make_endpoint(delay_s=100.0)
    with anyio.move_on_after(1):
        await _post(endpoint, timeout_s=1000)
    assert endpoint.ledger.in_flight == 0
    assert endpoint.ledger.requests == 1


@on_virtual_time
async def test_a_wrong_path_is_a_404() -> None:
    """A base URL with a part too few or too many shows."""
    endpoint = make_endpoint()
    assert (await _post(endpoint, url="http://simulated/v1/completions")).status == 404
    assert endpoint.ledger.requests == 0


async def test_the_server_speaks_http() -> None:
    """Chat, models, ledger and 404 over a real socket; the same bytes as in process."""
    endpoint = make_endpoint(rpm=1000)
    body = chat_body(["a", "b"])
    async with serving(endpoint) as url, aiohttp.ClientSession() as session:
        async with session.post(f"{url}/chat/completions", data=body) as reply:
            assert (reply.status, reply.content_type) == (200, "application/json")
            assert reply.headers["x-ratelimit-limit-requests"] == "1000"
            assert await reply.read() == make_endpoint().begin(body, {}, 0.0).body
        async with session.get(f"{url}/models") as reply:
            assert (await reply.json())["data"][0]["id"] == "simulated"
        async with session.get(f"{url}/ledger?records=1") as reply:
            ledger = await reply.json()
            assert ledger["requests"] == 1
            assert sorted(ledger["sends"].values()) == [1, 1]
        async with session.post(f"{url}/embeddings", data=b"{}") as reply:
            assert reply.status == 404


async def test_large_requests_are_read() -> None:
    """Documents of some megabytes are no error of the client."""
    body = io.BytesIO(chat_body(["word " * 500_000]))  # aiohttp warns of large bytes
    async with serving(make_endpoint()) as url, aiohttp.ClientSession() as session:
        reply = await session.post(f"{url}/chat/completions", data=body)
        assert reply.status == 200
        reply.release()


async def test_the_key_is_read_whatever_its_case() -> None:
    """Header names have no case."""
    async with serving(make_endpoint(api_key="k")) as url, aiohttp.ClientSession() as session:
        for headers, status in (({"authorization": "Bearer k"}, 200), ({"Authorization": "Bearer x"}, 401)):
            async with session.post(f"{url}/chat/completions", data=chat_body(["a"]), headers=headers) as reply:
                assert reply.status == status


async def test_a_reset_is_a_reset() -> None:
    """The client's socket is broken, not merely closed: a plain socket sees ECONNRESET."""
    async with serving(make_endpoint(faults={"reset": 1.0})) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = chat_body(["a"])
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_cut_body_is_cut() -> None:
    """Headers and half of the body come, then the connection closes."""
    async with serving(make_endpoint(faults={"cut_body": 1.0})) as url, aiohttp.ClientSession() as session:
        reply = await session.post(f"{url}/chat/completions", data=chat_body(["a"]))
        assert reply.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()


async def test_a_hanging_request_ends_with_its_client() -> None:
    """It takes as long as the client waits, and then nothing of it is left."""
    endpoint = make_endpoint(faults={"hang": 1.0})
    async with serving(endpoint) as url, aiohttp.ClientSession() as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.post(
                f"{url}/chat/completions", data=chat_body(["a"]), timeout=aiohttp.ClientTimeout(total=0.1)
            )
        with anyio.fail_after(5):
            while endpoint.ledger.in_flight:
                await session.get(f"{url}/models")
    assert endpoint.ledger.requests == 1


async def test_serving_for_ever_ends_with_its_task() -> None:
    """It announces its address, serves, and frees the port when cancelled."""
    urls: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(serve_forever(SimulatorConfig(labels=LABELS), announce=urls.put_nowait))
    url = await urls.get()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/models") as reply:
            assert reply.status == 200
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{url}/models")
