"""The in-process front: posts to a `SimulatedEndpoint`, sleeping on the running loop's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from . import refusal
from .endpoint import Plan, SimulatedEndpoint

PATH = "/chat/completions"


@dataclass(frozen=True, slots=True)
class SimulatedReply:
    """A reply as received. `headers` is case-sensitive here: the names as OpenAI spells them."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class InProcessTransport:
    """Posts without a socket.

    :param endpoint: where everything is sent, whatever the host of the URL.
    """

    def __init__(self, endpoint: SimulatedEndpoint) -> None:
        self.endpoint = endpoint

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> SimulatedReply:
        """The reply of the endpoint, after the time that it takes.

        :param timeout_s: for the whole attempt.
        :raises TimeoutError: if that is not enough.
        :raises ConnectionResetError: if the endpoint breaks the connection, before the reply or within its body.
        """
        if not url.endswith(PATH):
            wrong = refusal.unknown_path(url)
            return SimulatedReply(wrong.status, wrong.headers or {}, wrong.body)
        plan = self.endpoint.begin(body, headers, anyio.current_time())
        try:
            await _wait(plan, timeout_s)
        finally:
            self.endpoint.end(plan, anyio.current_time())
        if plan.action == "reset":
            raise ConnectionResetError("the simulated endpoint reset the connection")
        if plan.action == "cut_body":
            raise ConnectionResetError("the simulated endpoint closed the connection within the body")
        return SimulatedReply(plan.status, plan.headers, plan.body)

    async def aclose(self) -> None:
        """Nothing to close; transports have it."""


async def _wait(plan: Plan, timeout_s: float) -> None:
    if plan.action == "hang" or plan.delay_s > timeout_s:
        await anyio.sleep(timeout_s)
        raise TimeoutError(f"no reply within {timeout_s:g} s")
    await anyio.sleep(plan.delay_s)
