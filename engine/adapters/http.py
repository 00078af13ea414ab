"""HTTP over aiohttp: one session a run, keep-alive, bounded replies."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from aiohttp.connector import Connection

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Unpacked. No honest reply comes near; what is longer is cut off and counts as a broken connection.

One piece of a packed body is unpacked in steps of some 64 KiB, and headers are counted, by aiohttp itself: from 3.14.3
on, which is why the package asks for it. Before, endless headers took 1 GB in two seconds.
"""

MAX_INTERIM = 100
"""Replies of 1xx before the one that counts. aiohttp skips any number: as fast as they come, on a core of their own."""

_QUOTED = re.compile(r":?\s*(?:bytearray\()?\bb['\"].*", re.DOTALL)
"""Where an error of aiohttp's parser quotes what came: up to half a megabyte, and it may hold a part of our key."""
_TLS_HINTS = (
    (r"WRONG_VERSION|RECORD_LAYER|PACKET_LENGTH|HTTP_REQUEST", "it speaks no TLS; is it an http:// address?"),
    (r"expired|not yet valid", "its certificate is not valid today: renew it, or look at this machine's clock"),
    (r"mismatch|not valid for", "the certificate is for another host: is base_url (--base-url) right?"),
    (r"CERTIFICATE_VERIFY", "if it is to be trusted, name the file with its CA in the variable SSL_CERT_FILE"),
)


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
            response_class=_Response,
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
        except aiohttp.ConnectionTimeoutError:
            raise TimeoutError(f"no connection within {connect_timeout_s:g} s") from None
        except TimeoutError:
            raise TimeoutError(f"no reply within {timeout_s:g} s") from None
        except _NOTHING_SENT as error:
            raise ConnectionRefusedError(_words(error)) from None
        except (aiohttp.ClientError, ValueError) as error:  # ValueError: a host name that no codec takes
            raise ConnectionError(_words(error)) from None


class _Response(aiohttp.ClientResponse):
    """One that gives up on an endpoint that announces a reply for ever."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read up to the headers of the reply that counts."""
        protocol = connection.protocol
        if protocol is None:
            return await super().start(connection)
        left, read = MAX_INTERIM + 1, protocol.read

        async def bounded() -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise aiohttp.ClientConnectionError(f"more than {MAX_INTERIM} interim replies (1xx)")
            return await read()

        # aiohttp has no bound and no hook for it: for this reply, its connection's reader is ours.
        protocol.read = bounded  # type: ignore[method-assign]
        try:
            return await super().start(connection)
        finally:
            del protocol.read


_NOTHING_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientSSLError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)


def _words(error: Exception) -> str:
    """What is wrong, without the bytes that came and without a URL: that may hold a password or a key."""
    if isinstance(error, aiohttp.InvalidURL):
        return "the address, or the one of the proxy that the environment names, is no URL"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status} {error.message[:200]}"
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    text = f"{type(error).__name__}: {_QUOTED.sub('', text[:4_000])}"
    hints = _TLS_HINTS if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorError) else ()
    return "; ".join([text, *(hint for pattern, hint in hints if re.search(pattern, text))][:2])


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
