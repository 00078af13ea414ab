"""An endpoint that nobody has told the limit of, which takes so many requests within any minute and then none."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec
import pytest

from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport, SimulatedReply
from engine.vocabulary.config import Limits
from support import annotate_all, make_config, make_records


class Windowed(InProcessTransport):
    """So many requests in any 60 s; 429 beyond, without a word of when."""

    def __init__(self, endpoint: Any, *, per_minute: int, says: bool) -> None:
        super().__init__(endpoint)
        self._per_minute, self._says = per_minute, says
        self._admitted: deque[float] = deque()
        self.times: list[float] = []
        self.refused = 0

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], **timeouts: float) -> SimulatedReply:
        """As it is, or refused."""
        now = anyio.current_time()
        while self._admitted and self._admitted[0] <= now - 60.0:
            self._admitted.popleft()
        if len(self._admitted) < self._per_minute:
            self._admitted.append(now)
            self.times.append(now)
            return await super().post(url, body=body, headers=headers, **timeouts)
        self.refused += 1
        await anyio.sleep(0.02)
        when = {"Retry-After": f"{self._admitted[0] + 60.0 - now:.3f}"} if self._says else {}
        return SimulatedReply(status=429, headers=when, body=b'{"error":{"message":"too many requests"}}')


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize(("per_minute", "minutes"), [(600, 4), (60, 5)])
def test_a_limit_on_any_minute_is_used_and_not_crawled_under(per_minute: int, minutes: int, says: bool) -> None:
    """Of what it would take, six tenths are used; no silence much longer than the minute that it asks for; one in
    ten refused, or of a limit as small as the window of the first moment one in three."""
    records = make_records(per_minute * minutes * 4)
    transport = Windowed(
        build_endpoint(SimulatorConfig(latency="hosted")), per_minute=per_minute, says=says
    )  # fmt: skip
    config = msgspec.structs.replace(make_config(4), limits=Limits())
    outcome = virtual_time.run(annotate_all, records, transport, config, virtual_time=True)
    outcome.assert_each_once(records)
    bound_s = 60.0 * (minutes - 1)
    assert outcome.seconds <= bound_s / 0.6 + 60.0
    silences = [after - before for before, after in zip(transport.times, transport.times[1:], strict=False)]
    assert max(silences) <= 66.0
    assert transport.refused <= (0.1 if per_minute == 600 else 0.35) * len(transport.times)
