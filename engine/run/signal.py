"""Wakes whoever waits for any change."""

from __future__ import annotations

import anyio


class Signal:
    """Wakes whoever waits for any change; cheaper than a condition, and never missed between two looks."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = anyio.Event()

    async def wait(self, until_s: float | None = None) -> None:
        """Return at the next change, or at `until_s` (loop time)."""
        event = self._event
        if until_s is None:
            await event.wait()
            return
        with anyio.move_on_after(max(0.0, until_s - anyio.current_time())):
            await event.wait()
