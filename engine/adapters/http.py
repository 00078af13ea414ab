"""HTTP over aiohttp: one session a run, keep-alive, bounded replies."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import aiohttp
import msgspec

MAX_BODY_BYTES = 16 * 1024 * 1024
"""No honest reply comes near; what is longer is cut off and counts as a broken connection."""


class Reply(msgspec.Struct, frozen=True):
    """The answer to one POST, as received."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpTransport:
    """A `Transport` over one aiohttp session.

    Proxies are taken from the environment. Redirects are not followed: the key must not travel to another host.
    """

    def __init__(self, *, max_connections: int) -> None:
        """:param max_connections: at least the concurrency window, or requests would queue inside the client."""
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        self._timeouts: dict[tuple[float, float], aiohttp.ClientTimeout] = {}

    async def __aenter__(self) -> HttpTransport:
        connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=75)
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            raise_for_status=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> Reply:
        """See `engine.vocabulary.ports.Transport`."""
        if self._session is None:
            raise RuntimeError("HttpTransport is used outside its `async with`")
        try:
            async with self._session.post(
                url,
                data=body,
                headers=headers,
                timeout=self._timeout(connect_timeout_s, timeout_s),
                allow_redirects=False,
            ) as response:
                content = await _read_bounded(response)
                return Reply(status=response.status, headers=response.headers, body=content)
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"no reply within {timeout_s:g} s") from None
        except aiohttp.ClientError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def _timeout(self, connect_s: float, total_s: float) -> aiohttp.ClientTimeout:
        key = (connect_s, total_s)
        if key not in self._timeouts:
            self._timeouts[key] = aiohttp.ClientTimeout(total=total_s, sock_connect=connect_s)
        return self._timeouts[key]


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            response.close()
            raise ConnectionError(f"the reply is longer than {MAX_BODY_BYTES:,} bytes")
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
