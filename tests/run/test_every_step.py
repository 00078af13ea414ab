"""Every step at which a run touches the disk: it fails, or the process dies there; then the run goes on without loss.

The run is short and on virtual time, so that each step is tried, not a sample of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from engine import Engine, Result
from engine.adapters.store import open_store, read_store
from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label, stable_number
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.errors import StoreError
from faulty_disk import BROKEN, FULL, UNSYNCED, FaultyDisk
from support import ENDPOINT, LABELS, make_config, make_records, make_task

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the shim asks /proc which file is meant")

RECORDS = make_records(14)
FAULTS = {"drop": 0.2, "cut": 0.1, "http_500": 0.1}
TRUTH = {record["id"]: stable_label(record["text"], LABELS) for record in RECORDS}
WAYS = [(how, for_good) for how in (BROKEN, FULL, UNSYNCED) for for_good in (False, True)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, in memory where there is one: faults are made here, not waited for."""
    memory = "/dev/shm"  # noqa: S108 - a name in it is made by mkdtemp
    with tempfile.TemporaryDirectory(dir=memory if Path(memory).is_dir() else None) as name:
        yield Path(name)


def make_endpoint() -> SimulatedEndpoint:
    """The same faults each time, on the first send of a record only."""
    return build_endpoint(SimulatorConfig(labels=LABELS, faults=FAULTS, strike="first_sends=1", seed=3))


def annotate(store: Path, results: list[Result], endpoint: SimulatedEndpoint) -> None:
    """Label the records; what has been given out is in `results`, whatever ends it."""

    async def main() -> None:
        config, transport = make_config(4, concurrency=2), InProcessTransport(endpoint)
        async with Engine(ENDPOINT, config, store=store, transport=transport, virtual_time=True) as engine:
            async for result in engine.annotate(make_task(), RECORDS):
                results.append(result)

    virtual_time.run(main)


def ids_stored(store: Path) -> set[str]:
    """Ids with an ok answer in a store, if there is one."""
    if not store.exists():
        return set()
    with contextlib.closing(read_store(store)) as opened:
        return {key.strip('"') for (key,) in opened.query("SELECT key FROM answers WHERE ok = 1")}


def assert_goes_on(store: Path, given_out: list[Result], *, sent_before: int = 0) -> None:
    """What was given out is stored; the next run asks for just what is not, and every record ends once and right.

    :param sent_before: requests that the run before sent; the account holds them too.
    """
    stored = ids_stored(store)
    assert {result.id for result in given_out if result.ok} <= stored, "given out, and not stored"
    endpoint, results = make_endpoint(), list[Result]()
    annotate(store, results, endpoint)
    assert sorted(result.id for result in results) == sorted(TRUTH)
    assert {result.id: result.output for result in results} == TRUTH
    sent = {record["id"] for record in RECORDS if endpoint.ledger.sends[stable_number(record["text"])]}
    assert sent == TRUTH.keys() - stored, "just what was not stored is asked for"
    with contextlib.closing(open_store(store)) as opened:
        assert opened.query("PRAGMA integrity_check") == [("ok",)]
        assert opened.query("SELECT count(*) FROM runs WHERE status IS NULL") == [(0,)]
        assert opened.query("SELECT count(*) FROM calls")[0][0] >= sent_before + endpoint.ledger.requests
    beside = {file.name for file in store.parent.iterdir()}
    assert beside == {store.name, f"{store.name}.lock"}, "nothing else is left"


@cache
def steps() -> list[str]:
    """The names of all steps of a run that nothing disturbs."""
    with tempfile.TemporaryDirectory() as name:
        disk = FaultyDisk(Path(name))
        with disk.at_work():
            annotate(Path(name) / "run.sqlite", [], make_endpoint())
    return disk.steps


def fail_at(folder: Path, number: int, how: str, *, for_good: bool) -> None:
    """A run in which a step fails, and the run after it."""
    store, results = folder / "run.sqlite", list[Result]()
    with FaultyDisk(folder, fails_at=number, how=how, for_good=for_good).at_work():
        said = None
        try:
            annotate(store, results, make_endpoint())
        except StoreError as error:
            said = str(error)
    if said is None:
        assert len(results) == len(RECORDS), "what fails without a word does no harm"
    else:
        assert "run.sqlite" in said
        assert any(remedy in said for remedy in ("Make room", "does not work", "cannot be locked"))
    assert_goes_on(store, results)


def test_a_run_has_many_steps() -> None:
    """What the tests below count is there: the store made and opened, notes, groups of answers, and the end."""
    named = steps()
    assert named.count("pwrite") > 5
    assert named.count("COMMIT") > 8
    assert {"replace .new", "fsync", "open .in-flight", "unlink .holder", "INSERT INTO answers"} <= set(named)


@pytest.mark.parametrize("part", range(8))
def test_any_step_may_fail(folder: Path, part: int) -> None:
    """Whichever step fails, for want of room, of the disk or of its fsync, once or from there on: a StoreError with a
    remedy or no harm at all, nothing given out that is not stored, and the next run goes on."""
    for number in range(part, len(steps()), 8):
        how, for_good = WAYS[(number // 8 + number) % len(WAYS)]
        place = folder / str(number)
        place.mkdir()
        fail_at(place, number, how, for_good=for_good)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "for_good"), WAYS)
def test_any_step_may_fail_in_any_way(folder: Path, how: str, for_good: bool) -> None:
    """The same, each step in each way."""
    for number in range(len(steps())):
        place = folder / str(number)
        place.mkdir()
        fail_at(place, number, how, for_good=for_good)


def test_nothing_is_sent_once_the_store_has_failed(folder: Path) -> None:
    """What is sent then is paid for and cannot be kept. The other request of a window of two may be on its way when the
    note of the first one fails."""
    for number, name in enumerate(steps()):
        place, endpoint = folder / str(number), make_endpoint()
        place.mkdir()
        before: list[int] = []

        def look(step: int, endpoint: SimulatedEndpoint = endpoint, before: list[int] = before) -> None:
            before.append(endpoint.ledger.requests)

        disk = FaultyDisk(place, fails_at=number, before_step=look)
        with disk.at_work(), contextlib.suppress(StoreError):
            annotate(place / "run.sqlite", [], endpoint)
            continue  # it failed without harm
        assert endpoint.ledger.requests - before[number] <= (name == "pwrite"), (number, name)


def test_the_process_may_die_at_any_step(folder: Path) -> None:
    """The folder as it is before each step is what SIGKILL there leaves: the next run goes on from it, and holds what
    had been given out by then."""
    run, images = folder / "run", folder / "images"
    run.mkdir()
    results, endpoint = list[Result](), make_endpoint()
    given_out: list[tuple[list[Result], int]] = []

    def keep(number: int) -> None:
        given_out.append((list(results), endpoint.ledger.requests))
        shutil.copytree(run, images / str(number))

    with FaultyDisk(run, before_step=keep).at_work():
        annotate(run / "run.sqlite", results, endpoint)
    assert len(given_out) == len(steps())
    for number, (before, sent) in enumerate(given_out):
        assert_goes_on(images / str(number) / "run.sqlite", before, sent_before=sent)


# -- cancellation --------------------------------------------------------------------------------------------------


class CancellingLoop(virtual_time.VirtualTimeLoop):
    """Counts its turns, time moving between them as it does in a run, and cancels a task at some of them."""

    def __init__(self, cancel_at: frozenset[int]) -> None:
        super().__init__()
        self.turns = 0
        self.task: asyncio.Task[None] | None = None
        self._cancel_at = cancel_at

    def _run_once(self) -> None:
        self.turns += self.task is not None
        if self.task is not None and self.turns in self._cancel_at:
            self.task.cancel()
        super()._run_once()  # type: ignore[misc]


def cancelled_at(store: Path, *cancel_at: int) -> tuple[int, list[Result]]:
    """A run that is cancelled at these turns of the loop; how many it took, and what it had given out."""
    results: list[Result] = []

    async def work() -> None:
        config, transport = make_config(4, concurrency=2), InProcessTransport(make_endpoint())
        async with Engine(ENDPOINT, config, store=store, transport=transport, virtual_time=True) as engine:
            async for result in engine.annotate(make_task(), RECORDS):
                results.append(result)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CancellingLoop)
        loop.task = asyncio.ensure_future(work())
        with contextlib.suppress(asyncio.CancelledError):
            await loop.task
        assert [other for other in asyncio.all_tasks() if other is not asyncio.current_task()] == []
        return loop.turns

    with asyncio.Runner(loop_factory=lambda: CancellingLoop(frozenset(cancel_at))) as runner:
        return runner.run(main()), results


@cache
def turns() -> int:
    """Turns of the loop in a run that nothing disturbs."""
    with tempfile.TemporaryDirectory() as name:
        return cancelled_at(Path(name) / "run.sqlite")[0]


def test_a_run_may_be_cancelled_at_every_turn(folder: Path) -> None:
    """Cancelled at any await, once or again while it cleans up: no task is left, nothing given out is lost, and the
    next run goes on."""
    assert turns() > 50
    for number in range(1, turns() + 2):
        place = folder / str(number)
        place.mkdir()
        once_more = () if number % 2 else (number + 1 + number % 7,)
        _, results = cancelled_at(place / "run.sqlite", number, *once_more)
        assert_goes_on(place / "run.sqlite", results)
