"""Ctrl-C and SIGTERM: what they mean depends on how far the run is."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from engine.cli.exits import STOPPED


class Interrupts:
    """Calls a function at each signal. Which one is changed as the run goes on; see `engine.cli.run`."""

    def __init__(self) -> None:
        self._react: Callable[[], None] = _nothing

    def call(self, react: Callable[[], None]) -> None:
        """From now on, call this at each signal."""
        self._react = react

    async def watch(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                self._react()


async def with_interrupts(function: Callable[[Interrupts], Awaitable[int]]) -> int:
    """Await a command's work while signals are watched; its exit code.

    :raises Exception: whatever the work raises, bare: a task group would wrap it.
    """
    interrupts = Interrupts()
    failure: Exception | None = None
    code = STOPPED
    async with anyio.create_task_group() as tasks:
        await tasks.start(interrupts.watch)
        try:
            code = await function(interrupts)
        except Exception as error:  # noqa: BLE001 - raised below, bare
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return code


def _nothing() -> None:
    """Before anybody has said what is to be done."""
