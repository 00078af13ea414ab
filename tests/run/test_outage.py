"""An endpoint that goes away in the middle of a run and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport, SimulatedReply
from support import annotate_all, make_config, make_records


class Outage(InProcessTransport):
    """Nothing but errors from one time to another, seconds since the first request."""

    def __init__(self, endpoint: Any, *, begins_s: float, ends_s: float, kind: str) -> None:
        super().__init__(endpoint)
        self._begins_s, self._ends_s, self._kind = begins_s, ends_s, kind
        self._began_s: float | None = None
        self.refused = 0

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], **timeouts: float) -> SimulatedReply:
        """As it is, or an error at once."""
        now = anyio.current_time()
        self._began_s = now if self._began_s is None else self._began_s
        now -= self._began_s
        if not self._begins_s <= now < self._ends_s:
            return await super().post(url, body=body, headers=headers, **timeouts)
        self.refused += 1
        await anyio.sleep(0.002)
        if self._kind == "refused":
            raise ConnectionRefusedError("nobody listens")
        return SimulatedReply(status=503, headers={}, body=b"upstream is away")


@pytest.mark.parametrize("kind", ["503", "refused"])
@pytest.mark.parametrize(("window", "size"), [(4, 8), (32, 8), (32, 1)])
def test_what_was_sent_in_an_outage_is_not_lost_nor_asked_a_thousand_times(kind: str, window: int, size: int) -> None:
    """Away for 25 s after it had worked: no record fails of it, some probes a second at the most after the first
    moment, and the run goes on within some seconds of its return."""
    records = make_records(window * size * 40)
    endpoint = build_endpoint(SimulatorConfig(delay_s=1.0))
    transport = Outage(endpoint, begins_s=10.0, ends_s=35.0, kind=kind)
    config = make_config(size, concurrency=window)
    outcome = virtual_time.run(annotate_all, records, transport, config, virtual_time=True)
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert 20 <= transport.refused <= 2 * window + 60
    assert outcome.seconds <= 40.0 + 25.0 + 15.0


def test_an_endpoint_that_stays_away_ends_the_run_with_everything_kept() -> None:
    """After two minutes, with some probes every few seconds, and without failing what it could not ask."""
    records = make_records(2_000)
    transport = Outage(build_endpoint(SimulatorConfig(delay_s=1.0)), begins_s=10.0, ends_s=1e9, kind="503")
    outcome = virtual_time.run(annotate_all, records, transport, make_config(8, concurrency=16), virtual_time=True)
    assert outcome.stopped is not None
    assert "nothing but errors" in str(outcome.stopped)
    assert outcome.failed == []
    assert transport.refused <= 150
    assert 120.0 <= outcome.seconds <= 150.0
