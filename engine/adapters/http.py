"""HTTP over aiohttp: one session a run, keep-alive, bounded replies."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

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

    Proxies are taken from the environment, once for each URL. Redirects are not followed: the key must not travel
    to another host.
    """

    def __init__(self, *, max_connections: int) -> None:
        """:param max_connections: at least the concurrency window, or requests would queue inside the client."""
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        self._timeout = functools.cache(_timeout)
        self._proxy = functools.cache(_proxy)

    async def __aenter__(self) -> HttpTransport:
        connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=75)
        self._session = aiohttp.ClientSession(
            connector=connector,
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
                proxy=self._proxy(url),
                timeout=self._timeout(connect_timeout_s, timeout_s),
                allow_redirects=False,
            ) as response:
                content = await _read_bounded(response)
                return Reply(status=response.status, headers=response.headers, body=content)
        except TimeoutError as error:
            raise TimeoutError(str(error) or f"no reply within {timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise ConnectionRefusedError(f"{type(error).__name__}: {error}") from error
        except aiohttp.ClientError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _timeout(connect_s: float, total_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, sock_connect=connect_s)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this URL, NO_PROXY respected.

    aiohttp's own `trust_env` looks for it, and for a netrc, in a thread at every request: 0.3 ms of CPU each.
    """
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


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
