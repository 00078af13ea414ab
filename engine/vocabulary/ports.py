"""What the pipeline asks of the outside. Adapters implement these; `engine.testing` has fakes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engine.vocabulary.values import Completion, Fault


class Tokenizer(Protocol):
    """Counts tokens; called from a worker thread, so that a long text does not stall the event loop."""

    def count(self, text: str) -> int:
        """Tokens of `text`, with special tokens counted as plain text."""
        ...


class HttpReply(Protocol):
    """The answer to one POST, as received."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Transport(Protocol):
    """Posts bytes. It knows nothing of models, retries or limits."""

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> HttpReply:
        """The reply, whatever its status.

        :raises ConnectionRefusedError: no connection was made, so nothing was sent.
        :raises TimeoutError: no connection, or not the whole reply, in time.
        :raises OSError: the connection failed or broke (`ConnectionError` and its like).
        """
        ...


class Provider(Protocol):
    """An LLM endpoint: one request in, one classified outcome out. It never retries and never raises for a fault."""

    async def complete(self, *, user: str, max_output_tokens: int, items: int) -> Completion | Fault:
        """Send the static prompt with `user`, which holds so many items, as the last message."""
        ...
