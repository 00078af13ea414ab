"""Virtual time is fast, ordered, honest about threads, and never hangs in silence."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
from anyio import from_thread, to_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.testing.virtual_time import Deadlock, VirtualTimeLoop, on_virtual_time, run


async def _elapsed(seconds: float) -> float:
    start = anyio.current_time()
    await anyio.sleep(seconds)
    return anyio.current_time() - start


def test_an_hour_takes_no_time() -> None:
    """Sleep advances the clock by what was asked for, and real time stands still."""
    real = time.perf_counter()
    assert run(_elapsed, 3600.0) == pytest.approx(3600.0, abs=1e-3)
    assert time.perf_counter() - real < 600.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=10))
def test_timers_fire_in_order_and_on_time(delays_ms: list[int]) -> None:
    """Whatever the delays, sleepers wake in the order of their deadlines and within a millisecond of them."""

    async def main() -> list[tuple[float, int]]:
        start = anyio.current_time()
        woken: list[tuple[float, int]] = []

        async def sleeper(delay: int) -> None:
            await anyio.sleep(delay / 1000)
            woken.append((anyio.current_time() - start, delay))

        async with anyio.create_task_group() as group:
            for delay in delays_ms:
                group.start_soon(sleeper, delay)
        return woken

    woken = run(main)
    assert [delay for _, delay in woken] == sorted(delays_ms)
    assert all(at == pytest.approx(delay / 1000, abs=1e-3) for at, delay in woken)


@on_virtual_time
async def test_timeouts_follow_the_clock() -> None:
    """anyio's deadlines are on virtual time too."""
    start = anyio.current_time()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(60):
            await anyio.sleep(3600)
    assert anyio.current_time() - start == pytest.approx(60, abs=1e-3)


def test_busy_polling_ends() -> None:
    """A task that yields without sleeping still sees the clock move, so it cannot spin for ever."""

    async def main() -> None:
        end = anyio.current_time() + 0.01
        while anyio.current_time() < end:  # noqa: ASYNC110 - such a loop is what is tested
            await asyncio.sleep(0)

    run(main)


@pytest.mark.parametrize("in_thread", [to_thread.run_sync, asyncio.to_thread], ids=["anyio", "asyncio"])
def test_the_clock_stands_still_for_threads(in_thread: object) -> None:
    """A timer does not run out while a thread works, or every timeout around thread work would fire."""

    async def main() -> tuple[str, float]:
        start = anyio.current_time()
        with anyio.fail_after(0.001):
            await in_thread(time.sleep, 0.05)  # type: ignore[operator]
        return "done", anyio.current_time() - start

    outcome, elapsed = run(main)
    assert outcome == "done"
    assert elapsed < 0.001


def test_a_thread_that_waits_for_the_loop_is_not_waited_for() -> None:
    """Work that calls back into the loop gets its virtual sleep; the loop gives up on the thread once, then moves."""

    def in_thread() -> str:
        from_thread.run(anyio.sleep, 3600)
        from_thread.run(anyio.sleep, 3600)
        return "done"

    loop = VirtualTimeLoop(thread_patience_s=0.05)

    async def main() -> str:
        return await to_thread.run_sync(in_thread)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(main()) == "done"
    assert loop.time() >= 7200


def test_a_wait_for_nothing_is_an_error_that_names_the_task() -> None:
    """A lost wake-up fails the test with the name of the task that waits, after a bounded real time."""
    loop = VirtualTimeLoop(patience_s=0.02)

    async def waits_for_nobody() -> None:
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=lambda: loop) as runner, pytest.raises(Deadlock, match="waits_for_nobody"):
        runner.run(waits_for_nobody())
    assert loop.is_closed()


def test_leftover_tasks_are_cancelled() -> None:
    """What main leaves running is cancelled, not abandoned."""
    ends: list[str] = []

    async def leftover() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ends.append("cancelled")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(leftover())
        await anyio.sleep(1)
        return task

    assert run(main).cancelled()
    assert ends == ["cancelled"]
