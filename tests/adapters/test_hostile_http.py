"""Endpoints that break HTTP on purpose, over real sockets: an OSError, a TimeoutError or a reply, soon.

What an exception quotes of what came may hold our own key; none does.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hostile import BROKEN, CHUNKED, ENDLESS, KEY, MIB, TIMEOUT_S, packed
from raw_server import Handler, closing, hang, ok, pouring, sending, serving

from engine.adapters import http
from engine.adapters.http import HttpTransport, Reply

pytestmark = pytest.mark.usefixtures("no_proxies")


async def post(url: str, *, transport: HttpTransport | None = None, timeout_s: float = 5.0) -> Reply:
    async with HttpTransport(max_connections=2) as own:
        return await (transport or own).post(
            url,
            body=b"{}",
            headers={"Authorization": f"Bearer {KEY}"},
            connect_timeout_s=2.0,
            timeout_s=timeout_s,
        )


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_does_not_end_is_ended(name: str) -> None:
    """Whatever goes on for ever, a byte at a time or as fast as it can: an error of the connection, soon after the
    timeout at the latest."""
    handle, words = ENDLESS[name]
    async with serving(handle) as server:
        started = time.monotonic()
        with pytest.raises((OSError, TimeoutError), match=words):
            await post(server.url, timeout_s=TIMEOUT_S)
        assert time.monotonic() - started < TIMEOUT_S + 3.0  # a slow machine; the bombs unpack 300 MiB


async def test_the_bound_is_on_the_unpacked_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits exactly is taken, a byte more is not, packed or not."""
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 200_000)
    for pack in (ok, lambda body: packed("gzip", gzip.compress(body))):
        async with serving(sending(pack(b"x" * 200_000))) as server:
            assert len((await post(server.url)).body) == 200_000
        async with serving(sending(pack(b"x" * 200_001))) as server:
            with pytest.raises(ConnectionError, match="longer than"):
                await post(server.url)


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_http_is_a_broken_connection(name: str) -> None:
    """Every lie and every slip is a ConnectionError of one short line, which quotes nothing of what came."""

    async with serving(closing(BROKEN[name])) as server:
        with pytest.raises(ConnectionError, match=r"\w") as caught:
            await post(server.url)
    assert caught.value.__cause__ is None, "it would be shown with this one, and quotes what came"
    assert len(str(caught.value)) < 300
    assert KEY[:6] not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b""),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 101, b""),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\n{}", 999, b"{}"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + ok(b"{}"), 200, b"{}"),
        (ok(b"{}", b"Content-Encoding: rot13\r\n"), 200, b"{}"),
    ],
    ids=["204", "304", "101", "999", "some 1xx", "unknown encoding"],
)
async def test_odd_but_whole_replies_come_back(content: bytes, status: int, body: bytes) -> None:
    """What is odd but HTTP comes back as it is; what it means is not the transport's to say."""
    async with serving(sending(content)) as server:
        reply = await post(server.url)
    assert (reply.status, reply.body) == (status, body)


@pytest.mark.parametrize("head", [b"100 Continue\r\n", b"103 Early Hints\r\nLink: <x>\r\n"])
async def test_a_reply_is_not_announced_for_ever(head: bytes) -> None:
    """A hundred replies of 1xx are skipped; more, which would keep a core busy until the timeout, are an error at once.
    The connection that had some is kept and counts anew."""
    interim = b"HTTP/1.1 " + head + b"\r\n"
    async with HttpTransport(max_connections=1) as transport, serving(hang) as server:
        server.handle = sending(interim * http.MAX_INTERIM + ok(b"{}"))
        for _ in range(3):
            assert (await post(server.url, transport=transport, timeout_s=60.0)).body == b"{}"
        assert server.connections == 1
        for flood in (sending(interim * (http.MAX_INTERIM + 1) + ok(b"{}")), pouring(b"", interim * 1_000)):
            server.handle = flood
            with pytest.raises(ConnectionError, match=r"more than 100 interim replies \(1xx\)"):
                await post(server.url, transport=transport, timeout_s=60.0)
        server.handle = sending(ok(b'"fine"'))
        assert (await post(server.url, transport=transport, timeout_s=60.0)).body == b'"fine"'


async def test_a_reply_behind_a_reply_is_not_the_next_one() -> None:
    """A length that is too short leaves bytes behind, here a whole reply: the next request is not answered by them."""
    async with serving(sending(ok(b"{}") + ok(b'"stale"'))) as server, HttpTransport(max_connections=1) as transport:
        assert (await post(server.url, transport=transport)).body == b"{}"
        server.handle = sending(ok(b'"fresh"'))
        await asyncio.sleep(0)
        assert (await post(server.url, transport=transport)).body == b'"fresh"'


async def test_a_transport_works_on_after_all_of_it() -> None:
    """One that has met everything in these tables has lost no connection slot."""
    handlers = [handle for handle, _ in ENDLESS.values()] + [sending(content) for content in BROKEN.values()]
    async with HttpTransport(max_connections=1) as transport, serving(hang) as server:
        for handler in handlers:
            server.handle = handler
            with pytest.raises((OSError, TimeoutError)):
                await post(server.url, transport=transport, timeout_s=0.05)
        server.handle = sending(ok(b"{}"))
        assert (await post(server.url, transport=transport)).status == 200


async def test_any_damage_is_an_error_or_a_reply() -> None:
    """400 replies with bytes changed, left out, put in, cut: never another exception (seeded)."""
    rng = random.Random(4)
    body = json.dumps({"choices": [{"message": {"content": "x" * 50}}]}).encode()
    whole = [
        ok(body, b"X-A: b\r\n"),
        CHUNKED + b"%x\r\n" % len(body) + body + b"\r\n0\r\nX-T: u\r\n\r\n",
        packed("gzip", gzip.compress(body)),
        packed("deflate", zlib.compress(body)),
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok(body),
    ]
    kinds: set[str] = set()
    async with HttpTransport(max_connections=1) as transport, serving(hang) as server:
        for _ in range(400):
            server.handle = closing(_damaged(rng.choice(whole), rng))
            try:
                kinds.add(f"reply {(await post(server.url, transport=transport, timeout_s=0.5)).status}")
            except (OSError, TimeoutError) as error:
                kinds.add(type(error).__name__)
    assert {"reply 200", "ConnectionError"} <= kinds


def _damaged(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(content) + 1), rng.choice((0, 1, 1, 2, 20))
        new = rng.choice((b"", b"\0", b"\r\n", b"\xff", b":", b"9" * 30, b"-", bytes([rng.randrange(256)])))
        content = content[:at] + new + content[at + length :]
    return content


def completion(**fields: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], **fields}).encode()


def error(**fields: object) -> bytes:
    body = json.dumps({"error": fields}).encode()
    return b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body


FILL = 15 * MIB
GREEDY: Mapping[str, tuple[Handler, str]] = {
    **{
        name: (handle, "transport|timeout")
        for name, (handle, _) in ENDLESS.items()
        if "drip" not in name and "silence" not in name
    },
    "objects": (sending(ok(b"[" + b'{"a":1},' * (FILL // 8) + b"1]")), "bad-reply"),
    "objects in an error": (sending(ok(b'{"error":[' + b'{"a":1},' * (FILL // 8) + b"1]}")), "bad-reply"),
    "arrays beside the answer": (
        sending(ok(completion()[:-1] + b',"x":[' + b"[]," * (FILL // 3) + b"1]}")),
        "bad-reply",
    ),
    "nesting": (sending(ok(b"[" * FILL)), "bad-reply"),
    "nested objects": (sending(ok(b'{"a":' * (FILL // 5))), "bad-reply"),
    "no UTF-8": (sending(ok(b"\xff" * FILL)), "bad-reply"),
    "a web page": (sending(ok(b"<title>" * (FILL // 7), b"Content-Type: text/html\r\n")), "bad-reply"),
    "words": (sending(error(message="two " * (FILL // 4))), "rejected"),
    "a code": (sending(error(message="no", code="unsupported " * (FILL // 12))), "rejected"),
    "a parameter": (sending(error(message="unsupported", param="temperatur " * (FILL // 11))), "rejected"),
    "a long answer": (sending(ok(completion(choices=[{"message": {"content": "word " * (FILL // 5)}}]))), "completion"),
    "a long reason": (
        sending(ok(completion(choices=[{"message": {"content": ""}, "finish_reason": "x" * FILL}]))),
        "completion",
    ),
}
MOST_MIB = 96  # a body of 15 MiB in pieces, joined, and its text


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the kernel's account of a process")
async def test_memory_is_bounded() -> None:
    """No reply makes the client, here a process of its own, take more than some copies of the bound on a body, nor
    more than the timeout and some seconds; and what is kept of it is short."""
    cases = list(GREEDY.values())
    program = Path(__file__).with_name("hostile_client.py")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = int(server.requests[-1].split()[1].removeprefix(b"/").partition(b"/")[0])
        await (sending(ok(completion())) if number == 0 else cases[number - 1][0])(reader, writer)

    async with serving(answer) as server:
        base = server.url.partition("/v1")[0]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            *(f"{base}/{number}" for number in range(len(cases) + 1)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(program.parents[2])},
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    first, *ends = [json.loads(line) for line in output.splitlines()]  # an honest reply, and then all these
    said = {name: end["said"] for name, end in zip(GREEDY, ends, strict=True)}
    assert {name: words for name, words in said.items() if words.partition(":")[0] not in GREEDY[name][1]} == {}
    above = {name: end["peak_mib"] - first["peak_mib"] for name, end in zip(GREEDY, ends, strict=True)}
    assert {name: mib for name, mib in above.items() if mib > MOST_MIB} == {}
    assert {name: end["took_s"] for name, end in zip(GREEDY, ends, strict=True) if end["took_s"] > 6.0} == {}
    assert all(end["size"] < 3_000 for end in ends if end["said"] != "completion")
