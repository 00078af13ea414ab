"""The HTTP front: the same endpoint behind a real socket, with real resets, real hanging and bodies really cut."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from . import refusal, wire
from .command import SimulatorConfig, build_endpoint
from .endpoint import Plan, SimulatedEndpoint

_FOR_EVER_S = 86_400.0
_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: closing then sends RST instead of FIN."""


@asynccontextmanager
async def serving(endpoint: SimulatedEndpoint, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve an endpoint; yields the base URL (``http://127.0.0.1:PORT/v1``) and closes cleanly.

    Answers ``POST .../chat/completions``, ``GET .../models`` and ``GET .../ledger`` (``?records=1`` for the sends of
    each record), under any prefix.

    :param port: 0 takes a free one.
    """
    server = web.Server(_Handler(endpoint), handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        address = runner.addresses[0]
        yield f"http://{address[0]}:{address[1]}/v1"
    finally:
        await runner.cleanup()


async def serve_forever(
    config: SimulatorConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled.

    :param announce: called with the base URL once requests are taken.
    """
    async with serving(build_endpoint(config), host=host, port=port) as base_url:
        if announce is not None:
            announce(base_url)
        await asyncio.get_running_loop().create_future()


class _Handler:
    """Answers requests. aiohttp's router is left out: it costs as much as all the rest of a small request."""

    def __init__(self, endpoint: SimulatedEndpoint) -> None:
        self._endpoint = endpoint
        self._now = asyncio.get_running_loop().time

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if request.method == "POST" and path.endswith("/chat/completions"):
            return await self._chat(request)
        if request.method == "GET" and path.endswith("/models"):
            return _json(self._endpoint.models())
        if request.method == "GET" and path.endswith("/ledger"):
            records = request.query.get("records") == "1"
            return _json(wire.encode(self._endpoint.ledger.as_dict(records=records)))
        return _json(refusal.unknown_path(path).body, status=404)

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()  # request.read() stops at 1 MiB
        plan = self._endpoint.begin(body, request.headers, self._now())
        try:
            if plan.action == "hang":
                return await _hang()
            if plan.delay_s > 0:
                await asyncio.sleep(plan.delay_s)
            if plan.action == "reset":
                return await _reset(request)
            if plan.action == "cut_body":
                return await _cut(request, plan)
            return web.Response(body=plan.body, status=plan.status, headers=plan.headers)
        finally:
            self._endpoint.end(plan, self._now())


def _json(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type=wire.JSON)


async def _hang() -> web.StreamResponse:
    """Wait for the client to leave: aiohttp then cancels the handler."""
    await asyncio.sleep(_FOR_EVER_S)
    return web.Response(status=504)


async def _reset(request: web.BaseRequest) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    return await _hang()


async def _cut(request: web.BaseRequest, plan: Plan) -> web.StreamResponse:
    """Announce the whole body, send half of it, close."""
    response = web.StreamResponse(status=plan.status, headers=plan.headers)
    response.content_length = len(plan.body)
    await response.prepare(request)
    await response.write(plan.body[: len(plan.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return await _hang()
