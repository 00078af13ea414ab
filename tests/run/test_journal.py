"""Group commit: whoever shares a transaction gets it written, or learns that it was not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest

from engine.adapters.store import AnswerRow, RunStore, open_store
from engine.run.journal import Journal, at_once, in_thread
from engine.testing import virtual_time
from engine.vocabulary.errors import StoreError


def make_answer(number: int) -> AnswerRow:
    return AnswerRow(key=f'"r{number}"', digest=bytes([number]) * 16, output='"red"')


def opened(folder: Path) -> tuple[RunStore, int, int]:
    store = open_store(folder / "run.sqlite")
    settings_id = store.settings(task_key="k", model="m", task="{}", allow_change=False)
    return store, settings_id, store.begin_run(settings_id=settings_id, started_at=0.0, config="{}")


@pytest.mark.parametrize("cancelled", [0, 1, 2])
@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("threads", [False, True])
def test_a_cancelled_writer_takes_nobody_with_it(tmp_path: Path, cancelled: int, steps: int, threads: bool) -> None:
    """Three write together and one is cancelled at any step: what the others wrote is in the store when they return.

    The first of a group writes for all; it may be the feeding task, which a stop cancels.
    """
    store, settings_id, run_id = opened(tmp_path)
    journal = Journal(store, run_id=run_id, settings_id=settings_id, run_sync=in_thread if threads else at_once)
    returned: list[int] = []

    scopes: list[anyio.CancelScope] = []  # the engine's way to cancel, which a shield can hold off

    async def write(number: int) -> None:
        with scopes[number]:
            await journal.write((), [make_answer(number)])
            returned.append(number)
            found = store.query("SELECT 1 FROM answers WHERE key = ?", (f'"r{number}"',))
            assert found, f"{number} returned unwritten"

    async def main() -> None:
        scopes.extend(anyio.CancelScope() for _ in range(3))
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(write, number)
            await virtual_time.settle(steps)
            scopes[cancelled].cancel()

    virtual_time.run(main)
    store.close()
    assert {0, 1, 2} - {cancelled} <= set(returned)


def test_a_failed_commit_is_told_to_all_of_its_group(tmp_path: Path) -> None:
    """None of them takes its answer for stored."""
    store, settings_id, run_id = opened(tmp_path)
    journal = Journal(store, run_id=run_id, settings_id=settings_id, run_sync=at_once)
    store.close()

    async def main() -> list[BaseException | None]:
        writes = (journal.write((), [make_answer(number)]) for number in range(3))
        return await asyncio.gather(*writes, return_exceptions=True)

    assert all(isinstance(error, StoreError) for error in virtual_time.run(main))
