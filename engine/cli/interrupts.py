"""Ctrl-C, SIGTERM and SIGHUP: what they mean depends on how far the run is.

SIGTERM (a supervisor, `kill`) and SIGHUP (the terminal or the connection to it is gone) mean what Ctrl-C means once:
send nothing more, keep what is in flight, write the output. A second Ctrl-C or SIGTERM gives up what is in flight. A
hang-up is never taken for a second signal, nor is another signal soon after the first: a terminal that closes sends one
and the supervisor another, in either order, and nobody has decided to give anything up.
Who started the command with `nohup` wants it to go on: an ignored SIGHUP stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from engine.cli.exits import STOPPED

_SOON_S = 2.0


class Stops:
    """Tells whether a signal asks for something new. Pure."""

    def __init__(self) -> None:
        self._first_s = 0.0
        self._came: set[int] = set()

    def is_new(self, number: int, now: float) -> bool:
        """The first one is, and any later one, but a hang-up and one of another kind that comes soon after the first.

        :param now: seconds of any clock.
        """
        is_first, is_again = not self._came, number in self._came
        self._first_s = now if is_first else self._first_s
        self._came.add(number)
        if is_first:
            return True
        return number != signal.SIGHUP and (is_again or now >= self._first_s + _SOON_S)


class Interrupts:
    """Calls a function at each signal. Which one is changed as the run goes on; see `engine.cli.run`."""

    def __init__(self) -> None:
        self._react: Callable[[], None] = _nothing
        self._stops = Stops()

    def call(self, react: Callable[[], None]) -> None:
        """From now on, call this at each signal."""
        self._react = react

    async def watch(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
        with anyio.open_signal_receiver(*_watched()) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    _leave(terminals)
                if not self._stops.is_new(number, anyio.current_time()):
                    continue
                with contextlib.suppress(OSError):  # what it says has nobody to read it any more
                    self._react()


def _watched() -> list[signal.Signals]:
    stays_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if stays_ignored else [signal.SIGHUP])]


def _leave(terminals: list[int]) -> None:
    """Point at nothing what pointed at a terminal that is gone: whatever is printed would fail from now on."""
    for descriptor in terminals:
        with contextlib.suppress(OSError):
            if os.isatty(descriptor):
                continue  # somebody sent the signal, and the terminal is still there
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)
            os.close(null)


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
