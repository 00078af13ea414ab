"""A run left alone for a day and more: does anything grow, leak or drift?

python -m benchmarks.soak [--hours 30] [--rpm 40] [--tracemalloc]        virtual time, everything in one process
python -m benchmarks.soak --sockets [--minutes 20]                       real time, the endpoint in another process

A source that never ends, a run store on disk, batch size, window and rates left to the engine, the guard's audits on.
Mixed faults all the time and a bad five minutes in every hour, rate limits that the endpoint tells of by 429s only and
that sink by 40 % for ten minutes of every hour; in the fifth tenth of the time the model is another one, which larger
batches change. Looked at every simulated hour (every minute on sockets): resident memory, open files, tasks, the
length of every collection that can be reached from the engine, and what was done in the hour.

The first hour (on sockets the third minute) is compared with the last one, and what was done with what was done in the
one after it, since the first holds the ramp.
The endpoint is simulated. On virtual time it shares the process, and keeps nothing of what is past, so that growth is
the engine's.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio

from benchmarks.common import versions, write_json
from benchmarks.soak_census import census, open_files, resident_mib, tasks
from engine import Endpoint, Engine, RunConfig, Task
from engine.report.metrics import Counters
from engine.run.result_stream import ResultStream
from engine.testing import virtual_time
from engine.testing.simulator.behaviour import Drift
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.made_up import CHANGES, HOLDS
from engine.testing.simulator.rates import CALL_FAULTS, RECORD_FAULTS, FaultRates
from engine.testing.simulator.transport import InProcessTransport

LABELS = ["red", "green", "blue", "yellow"]
HOUR_S = 3600.0
FEW, MANY = 0.004, 0.05
"""How often each of the 19 faults strikes, and in the bad five minutes of an hour."""

REPEATED = 50
"""One text in so many was there before: such records share an answer."""


@dataclass
class Sample:
    """What there was at the end of an hour, and what was done in it."""

    at_s: float
    resident_mib: float
    traced_mib: float
    files: int
    tasks: int
    in_flight: int
    records: int
    failed: int
    requests: int
    refused: int
    mean_size: float
    size: int
    window: float
    requests_per_minute: float | None
    audits: int
    cpu_s: float
    collections: dict[str, int]


class Observer:
    """Takes samples."""

    def __init__(self, engine: Engine, counters: Counters) -> None:
        self._engine = engine
        self._counters = counters
        self._before: Counter[str] = Counter()
        self._cpu_s = time.process_time()
        self.samples: list[Sample] = []

    def look(self, at_s: float) -> None:
        """Take one, and print it without the collections."""
        counters = self._counters
        now: Counter[str] = Counter(
            records=counters.records_done, failed=counters.records_failed, requests=counters.requests,
            refused=counters.http_429, audits=counters.auditor.requests if counters.auditor else 0,
        )  # fmt: skip
        done, self._before = now - self._before, now
        cpu_s, self._cpu_s = time.process_time() - self._cpu_s, time.process_time()
        rate = counters.rate.per_minute("requests") if counters.rate else None
        gc.collect()
        sample = Sample(
            at_s=round(at_s, 1),
            resident_mib=round(resident_mib(), 1),
            traced_mib=round(tracemalloc.get_traced_memory()[0] / 2**20, 2),
            files=open_files(),
            tasks=tasks(),
            in_flight=counters.in_flight,
            records=done["records"],
            failed=done["failed"],
            requests=done["requests"],
            refused=done["refused"],
            mean_size=round(done["records"] / max(1, done["requests"] - done["audits"]), 1),
            size=counters.batch_size.settled_size if counters.batch_size else 0,
            window=counters.window.size if counters.window else 0,
            requests_per_minute=rate if rate is None else round(rate, 1),
            audits=done["audits"],
            cpu_s=round(cpu_s, 1),
            collections=census(self._engine),
        )
        self.samples.append(sample)
        print({name: value for name, value in asdict(sample).items() if name != "collections"}, flush=True)


def endless() -> Iterator[dict[str, Any]]:
    """Records without an end."""
    for number in itertools.count():
        text = number // REPEATED if number % REPEATED == 0 else number
        yield {"id": number, "text": f"text number {text}, as short as most of them are"}


def mixed_faults() -> FaultRates:
    """All faults, few at most times and many in five minutes of each hour."""

    def rate(batch_size: int, elapsed_s: float) -> float:
        return MANY if 1500 <= elapsed_s % HOUR_S < 1800 else FEW

    return FaultRates(dict.fromkeys((*CALL_FAULTS, *RECORD_FAULTS), rate))


def simulator(hours: float, rpm: float) -> SimulatorConfig:
    """The endpoint of the run on virtual time."""
    schedule = [
        (hour * HOUR_S + at, share)
        for hour in range(int(hours) + 2)
        for at, share in ((0, 1.0), (2400, 0.6), (3000, 1.0))
    ]
    steps = [(0.0, HOLDS), (0.4 * hours * HOUR_S, CHANGES), (0.5 * hours * HOUR_S, HOLDS)]
    return SimulatorConfig(
        labels=LABELS,
        latency="hosted",
        faults=mixed_faults(),
        behaviour=Drift(steps=steps),
        rpm=rpm,
        limit_window_s=5.0,
        limit_schedule=schedule,
        limits_told="refusals",
        cache="off",
    )


async def consume(stream: ResultStream) -> None:
    """Take every result."""
    async for _ in stream:
        pass


async def observed(
    engine: Engine, *, every_s: float, looks: int, each: Callable[[], None] | None = None
) -> list[Sample]:
    """Annotate without an end, look so many times, then stop."""
    async with anyio.create_task_group() as group:
        stream = engine.annotate(Task(instructions="Say which colour.", labels=LABELS), endless())
        observer = Observer(engine, stream.counters)
        group.start_soon(consume, stream)
        started = anyio.current_time()
        for number in range(1, looks + 1):
            await anyio.sleep(started + number * every_s - anyio.current_time())
            observer.look(anyio.current_time() - started)
            if each is not None:
                each()
        await stream.aclose()
    return observer.samples


async def on_virtual_time(hours: int, rpm: float, store: Path) -> list[Sample]:
    """All in one process."""
    endpoint = build_endpoint(simulator(hours, rpm))
    keep_little(endpoint)
    settings = Endpoint(base_url="http://simulated/v1", model="simulated", timeout_s=60.0)
    transport = InProcessTransport(endpoint)
    async with Engine(settings, RunConfig(), store=store, transport=transport, virtual_time=True) as engine:
        return await observed(engine, every_s=HOUR_S, looks=hours, each=endpoint.ledger.sends.clear)


class Tail:
    """A column of a ledger that forgets what is old."""

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self._gone = 0

    def __len__(self) -> int:
        return self._gone + len(self._values)

    def __getitem__(self, number: int) -> float:
        return self._values[number - self._gone]

    def __setitem__(self, number: int, value: float) -> None:
        self._values[number - self._gone] = value

    def append(self, value: float) -> None:
        """One more; the oldest goes when there are thousands."""
        self._values.append(value)
        if len(self._values) > 2_000:
            self._values.popleft()
            self._gone += 1


def keep_little(endpoint: SimulatedEndpoint) -> None:
    """Let the ledger of an endpoint forget single requests, so that all growth of the process is the engine's."""
    for column in ("at_s", "charged_tokens", "statuses", "delays_s", "lasted_s"):
        setattr(endpoint.ledger, column, Tail())


async def on_sockets(minutes: int, base_url: str, store: Path) -> list[Sample]:
    """Against a server."""
    settings = Endpoint(base_url=base_url, model="simulated", timeout_s=10.0)
    async with Engine(settings, RunConfig(), store=store) as engine:
        return await observed(engine, every_s=60.0, looks=minutes)


@contextmanager
def served() -> Iterator[str]:
    """`annotate simulate` in another process; gives the base URL."""
    argv = [sys.executable, "-m", "engine.cli.main", "simulate", "--labels", ",".join(LABELS), "--rpm", "1500"]
    argv += ["--all-faults", str(FEW), "--latency", "fixed", "--delay-s", "0.3", "--behaviour", "holds", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def compared(samples: list[Sample], *, first: int = 0) -> dict[str, Any]:
    """The last sample over the first, what was done over what was done in the second; and the collections that grew.

    :param first: the sample that stands for the beginning. Tasks and files are those beyond the requests in flight.
    """
    start, second, last = samples[first], samples[min(first + 1, len(samples) - 1)], samples[-1]
    ratios = {"resident_mib": last.resident_mib / start.resident_mib}
    ratios["most resident_mib after it"] = max(sample.resident_mib for sample in samples[first:]) / start.resident_mib
    ratios["tasks beyond requests"] = (last.tasks - last.in_flight) / max(1, start.tasks - start.in_flight)
    ratios["files"] = last.files / start.files
    for name in ("records", "requests", "mean_size"):
        ratios[name] = getattr(last, name) / max(1e-9, getattr(second, name))
    grown = {
        name: [sample.collections.get(name, 0) for sample in samples]
        for name, size in last.collections.items()
        if size > 1.05 * max(sample.collections.get(name, 0) for sample in samples[: max(1, len(samples) // 3)]) + 8
    }
    return {
        "last over first": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "collections that grew": grown,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=30)
    parser.add_argument("--rpm", type=float, default=40)
    parser.add_argument("--sockets", action="store_true")
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--tracemalloc", action="store_true", help="slow; measures what Python itself holds")
    options = parser.parse_args()
    how = "sockets" if options.sockets else "virtual time"
    print(f"simulated endpoint, {how}", vars(options), versions(), flush=True)
    if options.tracemalloc:
        tracemalloc.start()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.sqlite"
        if options.sockets:
            with served() as base_url:
                samples = anyio.run(on_sockets, options.minutes, base_url, store)
        else:
            samples = virtual_time.run(on_virtual_time, options.hours, options.rpm, store)
        store_mib = round(store.stat().st_size / 2**20, 1)
    figures: Mapping[str, Any] = compared(samples, first=min(2, len(samples) - 1) if options.sockets else 0)
    print(f"store: {store_mib} MiB for {sum(sample.records for sample in samples):,} records")
    for name, value in figures.items():
        print(name, value)
    print(f"{time.monotonic() - started:.0f} s of real time, pid {os.getpid()}")
    document = {
        "simulated": True,
        "settings": vars(options),
        **figures,
        "samples": [asdict(sample) for sample in samples],
    }
    write_json(f"soak-{how.replace(' ', '-')}", document)


if __name__ == "__main__":
    main()
