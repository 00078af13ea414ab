"""Ctrl-C and SIGTERM: what they mean depends on how far the run is."""

from __future__ import annotations

import signal
from collections.abc import Callable

import anyio
import anyio.abc


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


def _nothing() -> None:
    """Before anybody has said what is to be done."""
