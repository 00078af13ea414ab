"""A server to the byte, on a socket of this machine: what it does with a request is one function."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


@dataclass
class Server:
    """What was asked of it, and how to end it.

    :ivar waits: for a whole request, before it is handled.
    """

    handle: Handler
    waits: bool = True
    url: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        try:
            # Cancelled at the end of the test; not suppressed, 3.11 logs it as an error.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                if not self.waits:
                    return await self.handle(reader, writer)
                while not writer.is_closing():
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                    self.requests.append(head + await reader.readexactly(length))
                    await self.handle(reader, writer)
                    await writer.drain()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(handle: Handler, *, tls: ssl.SSLContext | None = None, waits: bool = True) -> AsyncIterator[Server]:
    server = Server(handle, waits)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/chat/completions"
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.sleep(0)


def sending(content: bytes) -> Handler:
    """Send it, and keep the connection unless the content says otherwise."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        if b"close" in content:
            await writer.drain()
            writer.close()

    return handle


def closing(content: bytes) -> Handler:
    """Send it, and hang up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        writer.close()

    return handle


def ok(body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send nothing."""
    await asyncio.Event().wait()


def pouring(head: bytes, piece: bytes) -> Handler:
    """`head`, and then `piece` for as long as anybody reads."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    return handle


def dripping(head: bytes, every_s: float) -> Handler:
    """`head`, and then a byte from time to time."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(every_s)

    return handle
