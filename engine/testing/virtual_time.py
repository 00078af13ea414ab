"""An asyncio event loop whose clock is moved by its own timers: an hour of sleep takes a millisecond.

The loop never waits for time. When nothing is ready it sets its clock to the next timer. It does wait, in real time,
for the two things that no clock can hurry: threads at work for this loop (`anyio.to_thread`, `run_in_executor`) and,
when no timer is set at all, real file descriptors. When nothing comes of that either, it raises `Deadlock`, naming
the tasks that hang, instead of blocking the test for ever.

Code under test follows this clock if it reads only the loop's clock (`anyio.current_time()`, `loop.time()`).
Talking to another process over real sockets works but is pointless here: timers run out while the network is slow.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MIN_STEP_S = 1e-6
"""Every poll advances the clock at least this much. Without it, code that polls "is it time yet?" at a deadline that
floating point puts one ulp ahead would spin for ever."""

START_S = 1_000.0
"""A monotonic clock has an arbitrary origin; zero would hide code that takes a time stamp of 0.0 for none."""


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set and no thread is at work: the loop could only wait for ever."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time.

    :param start_s: the first reading of the clock, in seconds.
    :param patience_s: real seconds to wait with nothing to do before `Deadlock`.
    :param thread_patience_s: real seconds for which the clock stands still for threads at work. A thread still busy
        after that is taken for one that itself waits for this loop, and is not waited for until it gets new work.
    """

    def __init__(self, *, start_s: float = START_S, patience_s: float = 5.0, thread_patience_s: float = 5.0) -> None:
        self._now_s = start_s
        self._patience_s = patience_s
        self._thread_patience_s = thread_patience_s
        self._jobs: set[object] = set()
        self._parked: set[object] = set()
        super().__init__(_VirtualSelector(self))
        # asyncio runs a timer that is due within the clock's resolution; the step above is this clock's resolution.
        self._clock_resolution = MIN_STEP_S

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """As in asyncio; the clock stands still until the call is done."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's signature
        """As in asyncio, without a time limit: since 3.12 it has one, and virtual time would reach it at once."""
        token = object()
        self._jobs.add(token)
        try:
            await super().shutdown_default_executor()
        finally:
            self._jobs.discard(token)

    def _advance(self, seconds: float) -> None:
        self._now_s += max(seconds, MIN_STEP_S)

    def _work(self) -> set[object]:
        """Thread work that the clock should stand still for."""
        work = set(self._jobs)
        if threading.active_count() > 1:
            work.update(thread for thread in threading.enumerate() if self._is_busy_worker(thread))
        self._parked &= work
        return work - self._parked

    def _is_busy_worker(self, thread: threading.Thread) -> bool:
        """anyio has no hook for its worker threads, but each knows its loop and the list it stands on when idle."""
        return (
            getattr(thread, "loop", None) is self
            and not getattr(thread, "stopping", False)
            and thread not in getattr(thread, "idle_workers", (thread,))
        )

    def _hanging(self) -> str:
        tasks = sorted(f"  {task!r}" for task in asyncio.all_tasks(self))
        return "\n".join(tasks) or "  (no task at all)"


class _VirtualSelector(selectors.DefaultSelector):
    """Polls real file descriptors, and moves the loop's clock where another selector would sleep."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            ready = self._wait_for_threads()
        if not ready and timeout is None:
            ready = self._wait_for_anything()
        self._loop._advance(0.0 if ready or timeout is None else timeout)
        return ready

    def _wait_for_threads(self) -> list[tuple[selectors.SelectorKey, int]]:
        work = self._loop._work()
        if not work:
            return []
        # A finished thread wakes the loop through its self-pipe, so this returns at once, not after the patience.
        ready = super().select(self._loop._thread_patience_s)
        if not ready:
            self._loop._parked |= work
        return ready

    def _wait_for_anything(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(self._loop._patience_s)
        if not ready:
            raise Deadlock(f"nothing to run, no timer set, no thread at work; waiting:\n{self._loop._hanging()}")
        return ready


def run(main: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``main(*args, **kwargs)`` on a fresh virtual loop to its end, cancel what is left over, close the loop.

    :raises Deadlock: if it can never end.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main(*args, **kwargs))


def on_virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorator that turns an async test into a plain one which runs on virtual time."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test, *args, **kwargs)

    return wrapper


async def settle(times: int = 20) -> None:
    """Let every task that is ready run, a few rounds over, without moving the clock by more than microseconds."""
    for _ in range(times):
        await asyncio.sleep(0)


__all__ = ["Deadlock", "VirtualTimeLoop", "on_virtual_time", "run", "settle"]
