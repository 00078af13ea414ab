"""The async API: streams, single records, back-pressure, and leaving early."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from engine import Engine, Limits, Packing, Result, RunConfig, RunStopped, annotate_sync
from engine.adapters.store import read_store
from engine.testing import virtual_time
from engine.testing.scripted import ScriptedTransport, answer_all
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.server import serving
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.errors import ConfigError, StoreError
from support import ENDPOINT, LABELS, annotate_all, make_config, make_records, make_task, simulate


def engine_on(endpoint: Any, config: RunConfig, store: Path | None = None) -> Engine:
    return Engine(ENDPOINT, config, transport=InProcessTransport(endpoint), virtual_time=True, store=store)


def test_an_async_source_is_read_as_it_comes() -> None:
    """Records of an async iterable are answered while the source goes on."""

    async def source() -> AsyncIterator[dict[str, Any]]:
        for record in make_records(100):
            yield record
            await anyio.sleep(0.01)

    outcome = simulate(source(), make_config(10))
    outcome.assert_each_once(make_records(100))


def test_an_idle_source_does_not_hold_a_half_full_batch() -> None:
    """Seven records and then silence: they are sent after max_wait_s, not when the source ends."""
    times: list[float] = []

    async def main() -> None:
        async def source() -> AsyncIterator[dict[str, Any]]:
            for record in make_records(7):
                yield record
            await anyio.sleep(3600)

        async with engine_on(build_endpoint(SimulatorConfig()), make_config(10)) as engine:
            started = anyio.current_time()
            async for _ in engine.annotate(make_task(), source()):
                times.append(anyio.current_time() - started)
                if len(times) == 7:
                    break

    virtual_time.run(main)
    assert len(times) == 7
    assert max(times) < 1.0


def test_a_slow_consumer_stops_the_reading() -> None:
    """Nobody takes results: only a bounded number of records is read, and bounded calls are made."""
    read = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal read
        for record in make_records(100_000):
            read += 1
            yield record

    async def main() -> None:
        config = RunConfig(packing=Packing(batch_size=5, look_ahead=200), limits=Limits(max_concurrency=4))
        async with engine_on(build_endpoint(SimulatorConfig()), config) as engine:
            stream = engine.annotate(make_task(), source())
            await stream.__anext__()
            await anyio.sleep(1000)
            assert read <= 200 + 64 + 256
            await stream.aclose()

    virtual_time.run(main)


@pytest.mark.parametrize("way", ["break", "aclose", "exception", "collected", "context"])
def test_leaving_a_stream_early_stops_sending(way: str) -> None:
    """However a stream is left, nothing more is sent, and the engine can be used again."""
    endpoint = build_endpoint(SimulatorConfig())

    async def leave(engine: Engine) -> None:
        stream = engine.annotate(make_task(), make_records(10_000))
        if way == "context":
            async with stream:
                await stream.__anext__()
            return
        try:
            async for _ in stream:
                if way == "exception":
                    raise KeyError("mine")
                break
        except KeyError:
            pass
        if way == "aclose":
            await stream.aclose()

    async def main() -> None:
        async with engine_on(endpoint, make_config(5, concurrency=4)) as engine:
            await leave(engine)
            gc.collect()
            await anyio.sleep(10)
            sent = endpoint.ledger.requests
            assert sent < 100
            await anyio.sleep(100)
            assert endpoint.ledger.requests == sent
            again = [result async for result in engine.annotate(make_task(), make_records(20))]
            assert len(again) == 20

    virtual_time.run(main)


def test_leaving_early_keeps_what_was_in_flight(tmp_path: Path) -> None:
    """With a store, answers that were paid for are kept: a second stream does not ask for them again."""
    endpoint = build_endpoint(SimulatorConfig())

    async def main() -> None:
        async with engine_on(endpoint, make_config(5, concurrency=8), tmp_path / "run.sqlite") as engine:
            stream = engine.annotate(make_task(), make_records(1000))
            async for _ in stream:
                break
            await stream.aclose()
        async with engine_on(endpoint, make_config(5, concurrency=8), tmp_path / "run.sqlite") as engine:
            results = [result async for result in engine.annotate(make_task(), make_records(1000))]
            assert len(results) == 1000
            assert any(result.stored for result in results)

    virtual_time.run(main)
    assert set(endpoint.ledger.sends.values()) == {1}


def test_a_second_run_over_a_store_sends_nothing(tmp_path: Path) -> None:
    """Everything ok is answered from the store, with any batch size."""
    endpoint = build_endpoint(SimulatorConfig())
    records = make_records(300)

    async def main() -> None:
        for batch_size in (10, 3):
            outcome = await annotate_all(
                records,
                InProcessTransport(endpoint),
                make_config(batch_size),
                store=tmp_path / "run.sqlite",
                virtual_time=True,
            )
            outcome.assert_each_once(records)
        assert all(result.stored for result in outcome.results)

    virtual_time.run(main)
    assert set(endpoint.ledger.sends.values()) == {1}


def test_texts_that_move_under_the_same_ids_get_their_own_labels(tmp_path: Path) -> None:
    """Lines inserted, deleted and swapped between two runs with line numbers as ids: no label moves with them."""
    endpoint = build_endpoint(SimulatorConfig())
    texts = [f"text {number}" for number in range(100)]
    changed = ["a new first line", *texts[5:50], texts[51], texts[50], *texts[52:], "a new last line"]

    async def main() -> None:
        for lines in (texts, changed):
            async with engine_on(endpoint, make_config(10), tmp_path / "run.sqlite") as engine:
                results = [result async for result in engine.annotate(make_task(), lines)]
            assert len(results) == len(lines)
            for result in results:
                assert result.output == stable_label(lines[result.position], LABELS)

    virtual_time.run(main)
    assert set(endpoint.ledger.sends.values()) == {1}, "a text that was answered is not paid for again"


def test_an_error_of_the_source_comes_after_what_was_read() -> None:
    """The user's own exception reaches the consumer, behind the results of the records before it."""

    def source() -> Iterator[dict[str, Any]]:
        yield from make_records(20)
        raise LookupError("my source broke")

    outcome = simulate(source(), make_config(5))
    assert isinstance(outcome.stopped, LookupError)


def test_a_duplicated_id_in_a_stream_stops_it_with_both_lines() -> None:
    """The message names the lines; fail-record goes on instead, and both records are in the results."""
    records = [*make_records(10), {"id": "r3", "text": "another text"}]
    outcome = simulate(records, make_config(5))
    assert isinstance(outcome.stopped, RunStopped)
    assert "line 11" in str(outcome.stopped)
    assert "line 4" in str(outcome.stopped)
    lenient = RunConfig(packing=Packing(batch_size=5), on_bad_record="fail-record")
    outcome = simulate(records, lenient)
    assert len(outcome.results) == 11
    assert [result.id for result in outcome.failed] == ["r3"]


def test_submitted_records_share_requests() -> None:
    """Thirty callers within max_wait_s are served by a few calls, each with its own answer."""
    endpoint = build_endpoint(SimulatorConfig())
    results: dict[int, Result] = {}

    async def main() -> None:
        async with engine_on(endpoint, make_config(10)) as engine:

            async def one(number: int) -> None:
                results[number] = await engine.submit(f"text {number}", task=make_task())

            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(one, number)

    virtual_time.run(main)
    assert len(results) == 30
    assert all(result.output == stable_label(f"text {number}", LABELS) for number, result in results.items())
    assert endpoint.ledger.requests <= 6


def test_one_submitted_record_does_not_wait_for_others() -> None:
    """A lone caller is answered after max_wait_s and one call, not when a batch is full."""

    async def main() -> float:
        async with engine_on(build_endpoint(SimulatorConfig(delay_s=0.05)), make_config(10)) as engine:
            await engine.submit("first", task=make_task())
            started = anyio.current_time()
            await engine.submit({"id": 7, "text": "second"}, task=make_task())
            return anyio.current_time() - started

    assert virtual_time.run(main) < 0.2


def test_a_cancelled_submit_disturbs_nobody() -> None:
    """One caller gives up; its neighbours in the batch are answered."""

    async def main() -> list[Result]:
        results = []
        async with engine_on(build_endpoint(SimulatorConfig(delay_s=1.0)), make_config(10)) as engine:

            async def patient(number: int) -> None:
                results.append(await engine.submit(f"text {number}", task=make_task()))

            async def impatient() -> None:
                with anyio.move_on_after(0.3):
                    await engine.submit("text 99", task=make_task())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(impatient)
                for number in range(9):
                    tasks.start_soon(patient, number)
        return results

    results = virtual_time.run(main)
    assert len(results) == 9
    assert all(result.ok for result in results)


def test_a_submit_that_cannot_work_says_why() -> None:
    """A wrong key is raised to whoever waits, and to the next caller too."""

    async def main() -> None:
        async with engine_on(build_endpoint(SimulatorConfig(api_key="right")), make_config(10)) as engine:
            for _ in range(2):
                with pytest.raises(RunStopped, match="API key"):
                    await engine.submit("text", task=make_task())

    virtual_time.run(main)


@pytest.mark.parametrize("steps", range(0, 120, 3))
def test_cancellation_at_any_await_leaks_nothing(steps: int, tmp_path: Path) -> None:
    """The consumer is cancelled after any number of loop steps: the engine closes, and the store stays usable."""
    endpoint = build_endpoint(SimulatorConfig(delay_s=0.001))
    store = tmp_path / "run.sqlite"

    async def work() -> None:
        async with engine_on(endpoint, make_config(5, concurrency=4), store) as engine:
            async for _ in engine.annotate(make_task(), make_records(100)):
                pass

    async def main() -> None:
        task = asyncio.ensure_future(work())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leftover = [other for other in asyncio.all_tasks() if other is not asyncio.current_task()]
        assert leftover == []
        outcome = await annotate_all(
            make_records(100), InProcessTransport(endpoint), make_config(5), store=store, virtual_time=True
        )
        outcome.assert_each_once(make_records(100))

    virtual_time.run(main)


async def test_over_real_sockets_and_threads() -> None:
    """The same over HTTP on loopback, with a blocking source read by a thread."""
    records = make_records(300)
    async with serving(build_endpoint(SimulatorConfig(delay_s=0.005))) as base_url:
        endpoint = msgspec.structs.replace(ENDPOINT, base_url=base_url)
        async with Engine(endpoint, make_config(10)) as engine:
            results = [result async for result in engine.annotate(make_task(), iter(records))]
    assert sorted(result.id for result in results) == sorted(record["id"] for record in records)
    assert all(result.output == stable_label(f"text number {result.id[1:]}", LABELS) for result in results)


async def test_the_sync_helper_works_where_a_loop_runs() -> None:
    """As in a notebook: results come in input order, also from a data frame."""

    class Frame:
        columns = ("id", "text")

        def to_dict(self, orient: str) -> list[dict[str, Any]]:
            assert orient == "records"
            return make_records(30)

    async with serving(build_endpoint(SimulatorConfig(delay_s=0.001))) as base_url:
        endpoint = msgspec.structs.replace(ENDPOINT, base_url=base_url)
        results = await asyncio.to_thread(
            annotate_sync, make_task(), Frame(), endpoint=endpoint, config=make_config(10)
        )
    assert [result.id for result in results] == [f"r{number}" for number in range(30)]


def test_requests_given_up_are_counted_and_stored(tmp_path: Path) -> None:
    """A run that is cancelled with requests in flight: the store holds as many calls as the endpoint received."""
    endpoint = build_endpoint(SimulatorConfig(delay_s=1.0))
    store = tmp_path / "run.sqlite"

    async def main() -> None:
        async with engine_on(endpoint, make_config(5, concurrency=8), store) as engine:
            stream = engine.annotate(make_task(), make_records(1000))
            with anyio.move_on_after(3.5):
                async for _ in stream:
                    pass
            assert stream.counters.in_flight == 8
            engine_tasks = engine._tasks
            assert engine_tasks is not None
            engine_tasks.cancel_scope.cancel()
            await stream._feed.ended.wait()
            assert stream.counters.abandoned == 8
            assert stream.counters.unconfirmed_input > 0

    virtual_time.run(main)
    opened = read_store(store)
    try:
        ((calls, given_up),) = opened.query("SELECT count(*), sum(outcome = 'abandoned') FROM calls")
    finally:
        opened.close()
    assert calls == endpoint.ledger.requests
    assert given_up == 8


async def test_what_the_caller_raises_comes_out_as_it_is() -> None:
    """The task group inside is no matter of the caller's: neither an own exception nor ours is wrapped in a group."""
    transport = InProcessTransport(build_endpoint(SimulatorConfig()))
    with pytest.raises(ValueError, match="mine"):
        async with Engine(ENDPOINT, make_config(), transport=transport):
            raise ValueError("mine")

    async def label() -> None:
        async with Engine(ENDPOINT, make_config(), transport=transport) as engine:
            async for _ in engine.annotate(make_task(labels=["a", "a"]), make_records(2)):
                pass

    with pytest.raises(ConfigError):
        await label()


async def test_an_engine_without_a_store_takes_several_tasks() -> None:
    """What is kept for this process alone belongs to no task."""
    transport = InProcessTransport(build_endpoint(SimulatorConfig()))
    async with Engine(ENDPOINT, make_config(), transport=transport) as engine:
        for labels in (["a", "b"], ["c", "d"]):
            async for result in engine.annotate(make_task(labels=labels), make_records(3)):
                assert result.output in labels


def test_a_run_without_an_answer_binds_no_store(tmp_path: Path) -> None:
    """A wrong key, or a typo in the task, is mended and the same store used."""
    store, records = str(tmp_path / "run.sqlite"), make_records(3)
    refused = simulate(records, make_config(), SimulatorConfig(api_key="right"), store=store)
    assert refused.ok == []
    done = simulate(records, make_config(), store=store, task=make_task(instructions="Otherwise."))
    assert len(done.ok) == 3
    assert isinstance(simulate(records, make_config(), store=store).stopped, StoreError)


def test_a_stream_in_a_cycle_of_garbage_is_closed() -> None:
    """The collector takes a cycle apart in any order; the stream is closed first all the same, and nobody is warned."""

    async def main() -> None:
        transport = ScriptedTransport(answer_all(lambda _: "red", delay_s=1.0))
        async with Engine(ENDPOINT, make_config(5), transport=transport, virtual_time=True) as engine:
            for _ in range(20):
                cycle: list[Any] = [engine.annotate(make_task(), make_records(5))]
                cycle.append(cycle)
                await anyio.sleep(5)
                del cycle
                gc.collect()

    virtual_time.run(main)
