"""Factories that the tests share: a task, records whose right answers are known, and an engine on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio

from engine.report.metrics import Counters
from engine.run.session import Engine, Records
from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.config import Endpoint, Limits, Packing, Recovery, RunConfig
from engine.vocabulary.ports import Transport
from engine.vocabulary.task import Task
from engine.vocabulary.values import Result

LABELS = ["red", "green", "blue"]
ENDPOINT = Endpoint(base_url="http://simulated/v1", model="simulated")
SAMPLING = Endpoint(base_url="http://simulated/v1", model="simulated", temperature=0.7)
"""Where the same question may be answered in another way."""


def make_task(**changes: Any) -> Task:
    """A task with one label set."""
    return Task(**({"instructions": "Say which colour it is.", "labels": LABELS} | changes))


def make_records(count: int, text: Callable[[int], str] = "text number {}".format) -> list[dict[str, Any]]:
    """Records with ids r0, r1, ... and distinct texts."""
    return [{"id": f"r{number}", "text": text(number)} for number in range(count)]


def make_config(batch_size: int = 10, *, concurrency: int = 8, **recovery: Any) -> RunConfig:
    """A configuration with a fixed batch size."""
    return RunConfig(
        packing=Packing(batch_size=batch_size, max_batch_size=max(32, batch_size)),
        limits=Limits(max_concurrency=concurrency),
        recovery=Recovery(**({"max_failed": 1.0} | recovery)),
    )


@dataclass
class Outcome:
    """What a run of the engine came to."""

    results: list[Result] = field(default_factory=list)
    stopped: BaseException | None = None
    counters: Counters = field(default_factory=Counters)
    endpoint: SimulatedEndpoint | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> list[Result]:
        return [result for result in self.results if result.ok]

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if not result.ok]

    def mislabelled(self, records: Iterable[dict[str, Any]]) -> list[Result]:
        """Results that hold another answer than the simulated model gives for that record's own text."""
        truth = {record["id"]: stable_label(record["text"], LABELS) for record in records}
        return [result for result in self.ok if result.output != truth[result.id]]

    def assert_each_once(self, records: Iterable[dict[str, Any]]) -> None:
        """Every record ended exactly once, and none with another's answer."""
        assert sorted(str(result.id) for result in self.results) == sorted(record["id"] for record in records)
        assert self.mislabelled(records) == []


async def annotate_all(
    records: Records, transport: Transport, config: RunConfig, *, task: Task | None = None,
    endpoint: Endpoint = ENDPOINT, **engine: Any,
) -> Outcome:  # fmt: skip
    """Annotate on the running loop."""
    outcome = Outcome()
    started = anyio.current_time()
    async with Engine(endpoint, config, transport=transport, **engine) as opened:
        stream = opened.annotate(task or make_task(), records)
        try:
            async for result in stream:
                outcome.results.append(result)
        except Exception as error:  # noqa: BLE001 - whatever ends the stream is what the test looks at
            outcome.stopped = error
        outcome.counters = stream.counters
    outcome.seconds = anyio.current_time() - started
    return outcome


def simulate(records: Records, config: RunConfig, simulator: SimulatorConfig | None = None, **engine: Any) -> Outcome:
    """Annotate against a simulated endpoint on virtual time."""
    endpoint = build_endpoint(simulator or SimulatorConfig())
    outcome: Outcome = virtual_time.run(
        annotate_all, records, InProcessTransport(endpoint), config, virtual_time=True, **engine
    )
    outcome.endpoint = endpoint
    return outcome
