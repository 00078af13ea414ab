"""A batch that is held back on the endpoint's word, while others go on: bounded, shown and in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import anyio
import pytest

from engine.cli.progress import View, Watch, parts
from engine.decide.recovery import HELD_S
from engine.report.metrics import Counters
from engine.run.log import LOGGER, Event
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport, SimulatedReply
from engine.vocabulary.config import RunConfig
from support import annotate_all, make_config, make_records

_ASKS_S = 31_536_000
_SPARE_S = 10.0


class OneRefusal(InProcessTransport):
    """The sixth request gets a 503 that asks to wait a year; all others are answered."""

    def __init__(self, endpoint: Any) -> None:
        super().__init__(endpoint)
        self._requests = 0

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], **timeouts: float) -> SimulatedReply:
        """As it is, or a 503."""
        self._requests += 1
        if self._requests == 6:
            return SimulatedReply(status=503, headers={"Retry-After": str(_ASKS_S)}, body=b'{"error": {}}')
        return await super().post(url, body=body, headers=headers, **timeouts)


class Slow(InProcessTransport):
    """Answers after four minutes."""

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], **timeouts: float) -> SimulatedReply:
        """As it is, late."""
        await anyio.sleep(240.0)
        return await super().post(url, body=body, headers=headers, **timeouts)


@pytest.fixture
def events() -> Iterator[list[tuple[float, Event]]]:
    """What is logged, with the loop time of each."""
    told: list[tuple[float, Event]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.msg, Event):
                told.append((anyio.current_time(), record.msg))

    handler, level = Kept(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield told
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


def _named(events: list[tuple[float, Event]], name: str) -> list[tuple[float, dict[str, Any]]]:
    return [(at_s, event.fields) for at_s, event in events if event.name == name]


def _annotated(transport: InProcessTransport, config: RunConfig, records: int) -> Any:
    return virtual_time.run(annotate_all, make_records(records), transport, config, virtual_time=True)


def test_one_503_holds_its_batch_for_two_minutes_at_the_most_while_others_are_answered(
    events: list[tuple[float, Event]],
) -> None:
    """Whatever it asks for. The log says how long and why, and that nothing but this is waited for."""
    outcome = _annotated(OneRefusal(build_endpoint(SimulatorConfig(delay_s=0.1))), make_config(4, concurrency=2), 40)
    assert outcome.failed == []
    assert HELD_S <= outcome.seconds <= HELD_S + _SPARE_S
    ((at_s, held),) = _named(events, "held")
    assert outcome.counters.held_until_s == pytest.approx(at_s + HELD_S)
    assert (held["seconds"], held["cause"], held["size"]) == (HELD_S, "server", 4)
    progress = _named(events, "progress")
    assert {fields["held_by"] for _, fields in progress} == {"pause"}
    assert progress[0][1]["done"] == 36


def test_the_log_tells_every_minute_how_far_it_is_though_nothing_ends_in_it(events: list[tuple[float, Event]]) -> None:
    """By the clock: a log that is silent for ten minutes looks like a program that hangs."""
    _annotated(Slow(build_endpoint(SimulatorConfig(delay_s=0.1))), make_config(4, concurrency=2), 4)
    times = [at_s for at_s, _ in _named(events, "progress")]
    assert len(times) == 4
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [60, 60, 60]


def test_a_held_batch_that_alone_is_left_is_shown_as_a_pause() -> None:
    """With what is left of it: 'waiting' for nothing, with nothing in flight, looks like a program that hangs."""
    counters = Counters(records_ok=28, records_total=30, held_until_s=500.0, first_sent_s=1.0)
    counters.held_by = lambda: "pause"
    view = Watch(counters, None).view(100.0)
    assert isinstance(view, View)
    assert view.paused_s == 400.0
    assert any(part.startswith("paused for 6") for part in parts(view))
