"""Fuzzing of the store reader: bytes flipped, pages cut, zeroed, exchanged, doubled. It gives the store or an error.

SQLite has no checksums of its own. What is read as an answer must be the answer that was written for that record, and
whatever cannot be read must be a `StoreError` that names the store or the record, never another exception or a hang.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from engine import Endpoint, Engine, Packing, RunConfig, Task
from engine.adapters import stored
from engine.adapters.store import open_store, read_store
from engine.run.export import write_newest
from engine.run.inspection import overview
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.rates import FaultRates
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.errors import EngineError

PAGE = 4096
LABELS = ["red", "green", "blue"]


async def _annotate(path: Path) -> None:
    config = SimulatorConfig(labels=LABELS, faults=FaultRates.all(0.1), seed=1)
    settings = RunConfig(packing=Packing(batch_size=5))
    endpoint = Endpoint(base_url="http://simulated/v1", model="simulated")
    transport = InProcessTransport(build_endpoint(config))
    records = [{"id": f"r{number}", "text": f"text {number}"} for number in range(60)]
    async with Engine(endpoint, settings, store=path, transport=transport, virtual_time=True) as engine:
        async for _ in engine.annotate(Task(instructions="Which colour?", labels=LABELS), records):
            pass


class Stores:
    """See `benchmarks.fuzz_common.Target`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "run.sqlite"
        random.seed(1)
        virtual_time.run(_annotate, self._path)
        with closing(sqlite3.connect(self._path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("PRAGMA journal_mode = DELETE")
        self._whole = self._path.read_bytes()
        self._truth = dict(_answers(self._path))
        self.refused = 0

    def make(self, rng: Random) -> dict[str, Any]:
        """Edits of the whole store: kind, place, and a number that says what."""
        size = len(self._whole)
        kinds = ("flip", "flip", "flip", "set", "cut", "zero", "exchange", "double", "insert", "header")
        return {
            "edits": [
                [rng.choice(kinds), rng.randrange(size), rng.randrange(256)] for _ in range(rng.choice((1, 1, 2, 8)))
            ]
        }

    def check(self, case: dict[str, Any]) -> str | None:
        """Read everything that is ever read of a store, then open it for a run."""
        content = damaged(self._whole, case.get("edits", ()))
        for beside in self._path.parent.glob("run.sqlite*"):
            beside.unlink()
        self._path.write_bytes(content)
        if "sql" in case:  # of the corpus: damage that stays the same when the layout of the store changes
            with closing(sqlite3.connect(self._path)) as db:
                db.executescript(case["sql"])
        for use in (_read, _open, self._compare):
            try:
                use(self._path)
            except EngineError as error:
                self.refused += 1
                if not any(place in str(error) for place in (str(self._path), "the record", "of the input")):
                    return f"an error that names neither the store nor a record: {error!s:.200}"
        return None

    def _compare(self, path: Path) -> None:
        for id_, output in _answers(path):
            if output != self._truth.get(id_):
                raise AssertionError(f"wrong assignment: {id_} -> {output}, and {self._truth.get(id_)} was written")

    def figures(self) -> dict[str, Any]:
        """What is worth telling at the end."""
        return {"uses refused": self.refused, "store, bytes": len(self._whole)}


def damaged(content: bytes, edits: Iterable[list[Any]]) -> bytes:
    """The content of a store after edits."""
    data = bytearray(content)
    for kind, place, number in edits:
        at = place % max(1, len(data))
        page = at // PAGE * PAGE
        other = number * PAGE % max(PAGE, len(data))
        match kind:
            case "flip":
                data[at : at + 1] = bytes([data[at] ^ (1 << number % 8)]) if data else b""
            case "set":
                data[at : at + 1] = bytes([number])
            case "cut":
                del data[at:]
            case "zero":
                data[page : page + PAGE] = bytes(len(data[page : page + PAGE]))
            case "exchange":
                one, two = bytes(data[page : page + PAGE]), bytes(data[other : other + PAGE])
                if len(one) == len(two):
                    data[page : page + PAGE], data[other : other + PAGE] = two, one
            case "double":
                data[page : page + PAGE] = data[other : other + PAGE]
            case "insert":
                data[at:at] = bytes([number])
            case "header":
                data[at % 100 : at % 100 + 1] = bytes([number])
    return bytes(data)


def _read(path: Path) -> None:
    with closing(read_store(path)) as store:
        listed = stored.runs(store)
        newest = stored.newest_input(store)
        stored.outcome_counts(store)
        stored.noted_inputs(store)
        for run in listed[:1]:
            stored.answer_counts(store, run.settings_id)
            stored.failed_records(store, newest, run.settings_id, most=10)
            stored.records_with_id(store, newest, run.settings_id, "r1")
            for answer in stored.answers(store, run.settings_id):
                stored.calls(store, answer.calls)
            if newest is not None:
                overview(store, path, None, newest)
                for row in store.outputs(newest.id, newest.settings_id):
                    msgspec.json.encode(row)
        write_newest(store, str(path.with_name("out.jsonl")))


def _answers(path: Path) -> Iterator[tuple[str, str | None]]:
    """Id and output of each record that is read as annotated."""
    with closing(read_store(path)) as store:
        newest = stored.newest_input(store)
        for row in store.outputs(newest.id, newest.settings_id) if newest is not None else ():
            if row.answer is not None and row.answer.ok:
                yield row.record.id, row.answer.output


def _open(path: Path) -> None:
    with closing(open_store(path)) as store:
        settings = store.settings(task_key="k", model="m", task="{}", allow_change=True)
        run = store.begin_run(settings_id=settings, started_at=1.0, config="{}")
        for number in (1, 2):
            store.find(number, keys=['"r1"', '"r2"'], digests=[b"x" * 16])
        store.spent("simulated")
        store.next_call_id()
        store.end_run(run, ended_at=2.0, status="done")
