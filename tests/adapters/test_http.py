"""HTTP over real sockets: every failure is a TimeoutError or an OSError, and nothing is left open.

pytest turns a warning into an error, a ResourceWarning for an open connection among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from pathlib import Path

import pytest
from raw_server import CLOSE, hang, ok, sending, serving

from engine.adapters import http
from engine.adapters.http import HttpTransport, Reply

pytestmark = pytest.mark.usefixtures("no_proxies")


async def post(url: str, *, transport: HttpTransport | None = None, timeout_s: float = 5.0, key: str = "sk-1") -> Reply:
    async with contextlib.AsyncExitStack() as stack:
        used = transport or await stack.enter_async_context(HttpTransport(max_connections=4))
        return await used.post(
            url,
            body=b'{"a":1}',
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            connect_timeout_s=2.0,
            timeout_s=timeout_s,
        )


async def test_bytes_go_out_and_come_back_as_they_are() -> None:
    """Body and headers are sent unchanged, and status, headers and body come back, whatever the status."""
    async with serving(sending(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy")) as server:
        reply = await post(server.url)
    assert (reply.status, reply.headers["retry-after"], reply.body) == (503, "7", b"busy")
    assert server.requests[0].endswith(b'{"a":1}')
    assert b"Authorization: Bearer sk-1\r\n" in server.requests[0]


async def test_one_connection_serves_many_requests() -> None:
    """Keep-alive: requests one after the other share a connection, and those at once open no more than allowed."""
    async with serving(sending(ok(b"{}"))) as server, HttpTransport(max_connections=4) as transport:
        for _ in range(20):
            await post(server.url, transport=transport)
        assert server.connections == 1
        await asyncio.gather(*(post(server.url, transport=transport) for _ in range(20)))
        assert server.connections <= 4


async def test_a_failed_reply_does_not_spoil_the_connection() -> None:
    """An error status leaves the connection in use; the next request does not open another."""
    async with serving(sending(b"HTTP/1.1 429 No\r\nContent-Length: 2\r\n\r\n{}")) as server:
        async with HttpTransport(max_connections=4) as transport:
            assert [(await post(server.url, transport=transport)).status for _ in range(5)] == [429] * 5
        assert server.connections == 1


async def test_silence_is_a_timeout() -> None:
    """No reply in time: TimeoutError, with words."""
    async with serving(hang) as server:
        with pytest.raises(TimeoutError, match=r"no reply within 0\.05 s"):
            await post(server.url, timeout_s=0.05)


async def test_a_reply_that_stops_in_the_middle_is_a_timeout() -> None:
    """The timeout covers the attempt to its last byte, not to its first."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await hang(reader, writer)

    async with serving(half) as server:
        with pytest.raises(TimeoutError, match="no reply within"):
            await post(server.url, timeout_s=0.1)


async def test_nobody_listening_is_a_connection_error() -> None:
    """A port without a server: OSError at once."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError, match=r"Cannot connect to host 127\.0\.0\.1"):
            await post(f"http://127.0.0.1:{reserved.getsockname()[1]}/v1")


async def test_an_unknown_host_is_a_connection_error() -> None:
    """A name that does not resolve: OSError."""
    with pytest.raises(ConnectionError, match=r"no-such-host\.invalid"):
        await post("http://no-such-host.invalid/v1")


async def test_a_reset_in_the_middle_is_a_connection_error() -> None:
    """The connection is torn down while the body comes."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    async with serving(reset) as server:
        with pytest.raises(ConnectionError):
            await post(server.url)


@pytest.mark.parametrize(
    "content",
    [
        CLOSE + b"Content-Length: 100\r\n\r\nhalf",  # cut
        b"HTTP/1.1 close\r\n\r\n",
        b"close\xff\xfe\x00\r\n\r\n",  # no HTTP at all
        CLOSE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        CLOSE + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        CLOSE + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"",  # closed without a word
    ],
    ids=["cut", "bad status", "no http", "bad chunk", "bad gzip", "endless header", "nothing"],
)
async def test_a_broken_reply_is_a_connection_error(content: bytes) -> None:
    """What is no whole HTTP reply counts as a broken connection, never as a reply."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        writer.close()

    async with serving(handle) as server:
        with pytest.raises(OSError, match=r"\w"):
            await post(server.url)


async def test_an_endless_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply beyond all measure is given up, in bounded memory, and its connection closed."""
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100_000)
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CLOSE + b"\r\n")
        while True:
            writer.write(b"x" * 10_000)
            sent += 10_000
            await writer.drain()

    async with serving(pour) as server:
        with pytest.raises(ConnectionError, match="longer than 100,000 bytes"):
            await post(server.url)
    assert sent < 50_000_000


async def test_a_packed_reply_is_unpacked_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """gzip is undone; what unfolds into more than the bound is cut off as well."""
    packed = gzip.compress(b"{}" * 10_000)
    async with serving(sending(ok(packed, b"Content-Encoding: gzip\r\n"))) as server:
        assert (await post(server.url)).body == b"{}" * 10_000
        monkeypatch.setattr(http, "MAX_BODY_BYTES", 1_000)
        with pytest.raises(ConnectionError, match="longer than"):
            await post(server.url)


async def test_a_redirect_is_not_followed() -> None:
    """A redirect comes back as the reply that it is: the key is sent to no other place."""
    async with serving(sending(ok(b"{}"))) as other:
        location = other.url.encode()
        moved = b"HTTP/1.1 307 Moved\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
        async with serving(sending(moved)) as server:
            reply = await post(server.url)
    assert (reply.status, reply.headers["location"]) == (307, other.url)
    assert other.requests == []


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, name: str, scheme: str) -> None:
    """The request goes through the proxy that the environment names, written with or without its scheme."""
    async with serving(sending(ok(b"{}"))) as proxy:
        address = proxy.url.removeprefix("http://").partition("/")[0]
        if name == "HTTP_PROXY":
            monkeypatch.delenv("REQUEST_METHOD", raising=False)
        monkeypatch.setenv(name, scheme + address)
        reply = await post("http://llm.example/v1/chat/completions")
    assert reply.status == 200
    assert proxy.requests[0].startswith(b"POST http://llm.example/v1/chat/completions HTTP/1.1\r\n")


async def test_no_proxy_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in NO_PROXY is asked directly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    async with serving(sending(ok(b"{}"))) as server:
        assert (await post(server.url)).status == 200


async def test_a_netrc_entry_does_not_get_in_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password for the host in ~/.netrc neither replaces our key nor breaks the request."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\ndefault login other password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with serving(sending(ok(b"{}"))) as server:
        assert (await post(server.url)).status == 200
    assert b"Authorization: Bearer sk-1\r\n" in server.requests[0]


async def test_cancellation_closes_the_connection() -> None:
    """A request given up half-way leaves no connection behind and no slot taken: the next one gets through."""
    async with serving(hang) as server, HttpTransport(max_connections=1) as transport:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await post(server.url, transport=transport)
        server.handle = sending(ok(b"{}"))
        assert (await post(server.url, transport=transport)).status == 200


async def test_a_transport_is_used_inside_its_block() -> None:
    """Use before or without the block is a bug of ours, and says so."""
    with pytest.raises(RuntimeError, match="async with"):
        await post("http://127.0.0.1:9/", transport=HttpTransport(max_connections=1))
