"""Several streams of one engine: the endpoint's limits hold for all of them together."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from engine.run.session import Engine
from engine.run.signal import Signal
from engine.run.traffic import Traffic
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedTransport, answer_all, error_reply
from engine.vocabulary.config import Limits, RunConfig
from engine.vocabulary.task import Task
from engine.vocabulary.values import Result
from support import ENDPOINT, make_config, make_records, make_task

TASKS = [make_task(instructions=f"Say which colour it is, {number}.") for number in range(3)]


label_all = answer_all(lambda _: "red", delay_s=1.0)
"""Everything is red, after a second."""


async def all_at_once(transport: ScriptedTransport, config: RunConfig, counts: list[int]) -> list[list[Result]]:
    """A stream for each task, side by side."""
    found: list[list[Result]] = [[] for _ in counts]
    async with Engine(ENDPOINT, config, transport=transport, virtual_time=True) as engine:

        async def one(number: int, task: Task, count: int) -> None:
            async for result in engine.annotate(task, make_records(count, f"{number} of {{}}".format)):
                found[number].append(result)

        async with anyio.create_task_group() as tasks:
            for number, count in enumerate(counts):
                tasks.start_soon(one, number, TASKS[number], count)
    return found


def test_no_more_in_flight_than_allowed_over_all_streams() -> None:
    """max_concurrency is what the endpoint bears, whoever sends."""
    transport = ScriptedTransport(label_all)
    found = virtual_time.run(all_at_once, transport, make_config(5, concurrency=4), [100, 100, 100])
    assert [len(results) for results in found] == [100, 100, 100]
    assert transport.peak_in_flight == 4


def test_no_more_a_minute_than_allowed_over_all_streams() -> None:
    """Of a limit of 60 a minute three streams send 60 together, in any minute."""
    transport = ScriptedTransport(label_all)
    config = msgspec.structs.replace(make_config(1), limits=Limits(requests_per_minute=60, max_concurrency=8))
    found = virtual_time.run(all_at_once, transport, config, [70, 70, 70])
    assert [len(results) for results in found] == [70, 70, 70]
    times = [request.at_s for request in transport.requests]
    assert max(sum(since <= time < since + 60 for time in times) for since in times) <= 60


def test_streams_take_turns() -> None:
    """Of two streams with as much to do, neither gets less than a third of the slots while both have work."""
    transport = ScriptedTransport(label_all)
    virtual_time.run(all_at_once, transport, make_config(1, concurrency=3), [100, 100])
    first = sum(str(request.inputs[0]).startswith("0") for request in transport.requests[:120])
    assert 40 <= first <= 80


def test_a_pause_is_one_for_all_streams() -> None:
    """What one stream is told to wait, the others wait as well."""
    refused_at: list[float] = []

    def reply(request: RecordedRequest) -> Outcome:
        if request.at_s >= 10.0 and not refused_at:
            refused_at.append(request.at_s)
            return error_reply(429, "slow down", headers={"Retry-After": "20"})
        return label_all(request)

    transport = ScriptedTransport(reply)
    found = virtual_time.run(all_at_once, transport, make_config(1, concurrency=4), [60, 60])
    assert [len(results) for results in found] == [60, 60]
    meanwhile = [one.at_s for one in transport.requests if refused_at[0] < one.at_s < refused_at[0] + 20.0]
    assert meanwhile == []


@pytest.mark.parametrize("leave_after", [1, 7])
def test_a_stream_that_is_left_holds_no_slot(leave_after: int) -> None:
    """One stream is left in the middle; the other has the whole window, and ends."""
    transport = ScriptedTransport(label_all)

    async def main() -> float:
        config = make_config(2, concurrency=2)
        async with Engine(ENDPOINT, config, transport=transport, virtual_time=True) as engine:
            async with engine.annotate(TASKS[0], make_records(50)) as left:
                seen = 0
                async for _ in left:
                    seen += 1
                    if seen == leave_after:
                        break
            since_s = anyio.current_time()
            results = [one async for one in engine.annotate(TASKS[1], make_records(40))]
            assert len(results) == 40
            return anyio.current_time() - since_s

    assert virtual_time.run(main) < 13.0  # 20 requests on two slots, and a first one or two that try whether it works
    assert transport.peak_in_flight == 2


def test_a_stream_that_breaks_gives_its_slots_back() -> None:
    """The store fails under one stream while its other calls are about to start; the next stream has every slot."""
    transport = ScriptedTransport(label_all)

    async def main() -> None:
        async with Engine(ENDPOINT, make_config(1, concurrency=3), transport=transport, virtual_time=True) as engine:

            async def broken() -> Any:
                for record in make_records(5):
                    yield record
                raise OSError("the source broke")

            with pytest.raises(OSError, match="the source broke"):
                async for _ in engine.annotate(TASKS[0], broken()):
                    pass
            started = anyio.current_time()
            assert len([one async for one in engine.annotate(TASKS[1], make_records(30))]) == 30
            assert anyio.current_time() - started < 13.0

    virtual_time.run(main)


async def test_a_call_that_was_cancelled_before_its_first_step_holds_no_slot() -> None:
    """What a stream still counts as in flight when it has ended is in flight no more."""
    traffic, stream = Traffic(Limits(max_concurrency=2)), Signal()
    traffic.join(stream)
    traffic.sent(stream)
    traffic.sent(stream)
    traffic.ended()
    traffic.leave(stream, 1)
    assert (traffic.in_flight, traffic.is_full, traffic.is_shared) == (0, False, False)
