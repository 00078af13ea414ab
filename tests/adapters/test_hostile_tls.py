"""Certificates that are wrong, ports that speak something else, and proxies: the key stays here, the words say why.

The certificates are made for each run; nothing but this machine is asked.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import sys
from pathlib import Path

import aiohttp.connector
import pytest
import trustme
from raw_server import Handler, hang, ok, sending, serving

from engine.adapters.http import HttpTransport, Reply

pytestmark = pytest.mark.usefixtures("no_proxies")

KEY = "sk-never-to-be-shown-1234567890"
CA = trustme.CA()
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)


def speaking(*, host: str = "127.0.0.1", ca: trustme.CA = CA, ends: datetime.datetime = NOW + DAY) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(host, not_before=NOW - 9 * DAY, not_after=ends).configure_cert(context)
    return context


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client trusts our authority and no other, as if SSL_CERT_FILE had named it before aiohttp was imported."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)


async def post(url: str) -> Reply:
    async with HttpTransport(max_connections=2) as transport:
        headers = {"Authorization": f"Bearer {KEY}"}
        return await transport.post(url, body=b"{}", headers=headers, connect_timeout_s=2.0, timeout_s=3.0)


async def test_a_right_certificate_is_trusted() -> None:
    """The rest of these tests would pass for nothing, were it not."""
    async with serving(sending(ok(b"{}")), tls=speaking()) as server:
        assert (await post(server.url)).status == 200
    assert KEY.encode() in server.requests[0]


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (speaking(ca=trustme.CA()), r"verify failed.*name the file with its CA in the variable SSL_CERT_FILE"),
        (speaking(ends=NOW - DAY), r"expired.*renew it, or look at this machine's clock"),
        (speaking(host="other.example"), r"another host: is base_url \(--base-url\) right\?"),
    ],
    ids=["unknown authority", "expired", "another host"],
)
async def test_a_wrong_certificate_gets_nothing(tls: ssl.SSLContext, words: str) -> None:
    """No request is sent, the error counts as "nothing sent", and says what to do."""
    async with serving(sending(ok(b"{}")), tls=tls) as server:
        with pytest.raises(ConnectionRefusedError, match=words):
            await post(server.url)
    assert server.requests == []


async def test_https_to_a_port_without_tls() -> None:
    """A server without TLS answers the handshake in words of HTTP: nothing is sent, and the scheme is doubted."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with serving(plain, waits=False) as server:
        with pytest.raises(ConnectionRefusedError, match="is it an http:// address"):
            await post(server.url.replace("http", "https"))


async def test_http_to_a_port_with_tls() -> None:
    """The server hangs up on what is no handshake: a broken connection."""
    async with serving(sending(ok(b"{}")), tls=speaking()) as server:
        with pytest.raises(ConnectionError, match=r"\w"):
            await post(server.url.replace("https", "http"))
    assert server.requests == []


async def test_the_authority_of_the_environment_is_trusted(tmp_path: Path) -> None:
    """SSL_CERT_FILE, which the error tells people to set, is enough."""
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    program = (
        "import asyncio, sys\n"
        "from engine.adapters.http import HttpTransport\n"
        "async def main():\n"
        "    async with HttpTransport(max_connections=1) as transport:\n"
        "        reply = await transport.post(sys.argv[1], body=b'', headers={}, connect_timeout_s=5, timeout_s=5)\n"
        "        print(reply.status)\n"
        "asyncio.run(main())\n"
    )
    async with serving(sending(ok(b"{}")), tls=speaking()) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            server.url,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")},
        )
        output, _ = await process.communicate()
    assert output.strip() == b"200"


# -- proxies ---------------------------------------------------------------------------------------------------------


def tunnel(port: int) -> Handler:
    """A proxy: it opens a connection to a port of ours, whatever it is asked for, and passes on what comes."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    return handle


async def test_a_proxy_of_an_https_address_does_not_see_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for a tunnel, with its own password and nothing of ours; the key goes through it encrypted."""
    async with serving(sending(ok(b"{}")), tls=speaking()) as server:
        port = int(server.url.split(":")[2].partition("/")[0])
        async with serving(tunnel(port)) as proxy:
            address = proxy.url.removeprefix("http://").partition("/")[0]
            monkeypatch.setenv("https_proxy", f"http://me:proxy-word@{address}")
            assert (await post(server.url)).status == 200
    assert KEY.encode() in server.requests[0]
    assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic " in proxy.requests[0]
    assert KEY.encode() not in proxy.requests[0]
    assert b"\r\nAuthorization" not in proxy.requests[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            "the proxy answered 407 Proxy Auth",
        ),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 9\r\n\r\n<html>\xff\xff", "the proxy answered 502 Bad"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",
            "the proxy answered 302",
        ),
        (b"nonsense\r\n\r\n", "Bad status line"),
    ],
    ids=["407", "502", "302", "nonsense"],
)
async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str) -> None:
    """What a proxy says in place of a tunnel is an error of the connection, without its password."""
    async with serving(sending(answer)) as proxy:
        address = proxy.url.removeprefix("http://").partition("/")[0]
        monkeypatch.setenv("https_proxy", f"http://me:proxy-word@{address}")
        with pytest.raises(ConnectionError, match=words) as caught:
            await post("https://llm.example/v1")
    if b"HTTP" in answer:  # no request was sent, and none is to be charged
        assert isinstance(caught.value, ConnectionRefusedError)
    assert "proxy-word" not in str(caught.value)
    assert KEY.encode() not in proxy.requests[0]


@pytest.mark.parametrize(
    "proxy", ["http://me:proxy-word@[::1", "http://me:proxy-word@127.0.0.1:9", "socks5://127.0.0.1:9"]
)
async def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """An address that is no URL, one where nobody listens, a scheme that is not known: nothing sent, no password."""
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConnectionRefusedError, match=r"\w") as caught:
        await post("http://llm.example/v1")
    assert "proxy-word" not in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "a" * 300, "\u2603.invalid"])
async def test_a_host_that_cannot_be(host: str) -> None:
    """A name that no codec and no resolver takes is an error of the connection, and no stack trace."""
    with pytest.raises(ConnectionError, match=r"\w"):
        await post(f"http://{host}/v1")


async def test_no_connection_in_time_does_not_name_the_query() -> None:
    """The text of a connect timeout of aiohttp has the whole address in it, and that may hold a key."""
    async with serving(hang, waits=False) as server, HttpTransport(max_connections=1) as transport:
        url = f"{server.url.replace('http', 'https')}?key={KEY}"
        with pytest.raises(TimeoutError, match=r"^no connection within 0\.1 s$"):
            await transport.post(url, body=b"", headers={}, connect_timeout_s=0.1, timeout_s=5.0)
