"""An engine on virtual time that a test drives step by step, and the account that is kept of everything it does.

The endpoint does only what the test tells it. What must hold at every moment is checked where it happens: when a
request arrives, and when a result is taken. What must hold at an end is in `state_machine_books`.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from state_machine_replies import Move, make_tasks, outcome_of, task_of, truth
from state_machine_seen import Asked, Call, Watched
from state_machine_sources import source_of

from engine import Engine, Result, RunConfig, RunStopped
from engine.adapters.store import SentRow
from engine.run.compose import Run, Workbench, task_key
from engine.run.pipeline import Pipeline
from engine.testing.scripted import DrivenRequest, DrivenTransport
from engine.testing.virtual_time import VirtualTimeLoop, settle
from engine.vocabulary.config import Endpoint

T = TypeVar("T")
TIMEOUT_S = 30.0
ENDPOINT = Endpoint(base_url="http://driven/v1", model="driven", timeout_s=TIMEOUT_S)
BUFFER = 64
"""Results that a stream holds for its consumer."""


_ANSWERED = "SELECT digest FROM answers JOIN settings ON settings.id = settings_id WHERE task_key = ?"
_WANTED = "GROUP BY digest HAVING max(ok) = 1 AND max(redo) = 0"


def digest_of(text: str) -> bytes:
    """As the engine knows a text."""
    return hashlib.blake2b(msgspec.json.encode(text), digest_size=16).digest()


class World:
    """Everything that outlives an engine: the folder, the ledger of the endpoint, what must be remembered."""

    def __init__(self) -> None:
        shared = "/dev/shm"  # noqa: S108 - a file system in memory: hundreds of stores are made and synced
        self.folder = Path(tempfile.mkdtemp(dir=shared if Path(shared).is_dir() else None))
        self.tasks = make_tasks()
        self.digests: dict[str, bytes] = {}
        self.loop = VirtualTimeLoop()
        self.generation = self.engines = 0
        self.asked: list[Asked] = []
        self.autopilot: list[Move] = []
        self.autopilot_s = 0.01
        self.failures: list[str] = []
        self.engine: Engine | None = None
        self.keys = {name: task_key(task) for name, task in self.tasks.items()}
        self.ids: dict[int, set[str]] = {}  # by engine
        self.texts: dict[int, set[str]] = {}
        self.given: set[tuple[str, str, str]] = set()  # task, id, text
        self.given_ok: set[tuple[str, str]] = set()
        self.stored: set[tuple[str, str, str]] = set()
        self.ballots: dict[tuple[str, str, str], list[int]] = {}  # task, id, text -> calls of its votes in the store
        self.settled: set[int] = set()  # calls that have been looked at
        self.shared: set[tuple[str, str]] = set()  # task, text: asked for by two at once
        self.broken_off: set[int] = set()  # engines that were killed or cancelled
        self._reset()

    def _reset(self) -> None:
        self.pipelines: list[tuple[Run, Pipeline]] = []
        self.streams: list[Watched] = []
        self.calls: list[Call] = []
        self.open_requests: list[Asked] = []
        self.passed_over: object = None
        self.passed_at_s: list[float] = []
        self.sent: SentRow | None = None
        self.host: asyncio.Task[None] | None = None
        self.silent_from: int | None = None
        self.reader: sqlite3.Connection | None = None
        self.transport = DrivenTransport(self._arrived)
        self.was_cancelled = False

    @property
    def store(self) -> Path:
        """The store's file: another folder after each kill."""
        return self.folder / str(self.generation) / "run.sqlite"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Go on until this is done; then see that nothing went wrong on the way."""
        done = self.loop.run_until_complete(work)
        assert not self.failures, "\n".join(self.failures)
        return done

    def go(self, steps: int = 0, seconds: float = 0.0) -> None:
        """So many steps of the loop, then so many seconds."""

        async def on() -> None:
            await settle(steps)
            if seconds:
                await asyncio.sleep(seconds)

        self.do(on())

    def check(self, holds: bool, message: str) -> None:
        """Note what must hold; for places where an exception would be taken for the user's own."""
        if not holds:
            self.failures.append(message)

    def digest(self, text: str) -> bytes:
        if text not in self.digests:
            self.digests[text] = digest_of(text)
        return self.digests[text]

    # -- the engine ----------------------------------------------------------------------------------------------

    def open(self, config: RunConfig) -> None:
        """Open an engine on the store."""
        self.store.parent.mkdir(exist_ok=True)
        self.config = config
        self.engines += 1
        self.closing = asyncio.Event()
        self.engine = Engine(
            ENDPOINT, config, store=self.store, transport=self.transport, virtual_time=True, allow_change=True
        )
        opened = asyncio.Event()
        self.host = self.loop.create_task(self._host(self.engine, opened))
        self.do(opened.wait())

    async def _host(self, engine: Engine, opened: asyncio.Event) -> None:
        async with engine:
            assert engine._bench is not None
            self.bench = engine._bench
            self._watch(self.bench)
            self.reader = sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True, isolation_level=None)
            opened.set()
            await self.closing.wait()

    def _watch(self, bench: Workbench) -> None:
        """Learn of every pipeline, and of the number of every request: neither can be seen from outside."""
        make, note = bench.pipeline, bench.store.note_sent

        def pipeline(run: Run, **options: Any) -> Pipeline:
            made = make(run, **options)
            self.pipelines.append((run, made))
            return made

        def note_sent(sent: SentRow) -> None:
            note(sent)
            self.sent = sent

        bench.pipeline = pipeline  # type: ignore[method-assign]
        bench.store.note_sent = note_sent  # type: ignore[method-assign]

    # -- the endpoint --------------------------------------------------------------------------------------------

    def _arrived(self, driven: DrivenRequest) -> None:
        sent, self.sent = self.sent, None
        asked = Asked(driven=driven, sent=sent, task=task_of(driven.request), engine=self.engines)
        self._check_ids(asked)
        self._check_asked(asked)
        self._check_order(asked)
        self.check(self.silent_from is None, f"{driven} was sent though every run had been stopped")
        self.asked.append(asked)
        self.open_requests.append(asked)
        if self.autopilot:
            move = self.autopilot[len(self.asked) % len(self.autopilot)]
            if move.kind != "hang":
                self.loop.call_later(self.autopilot_s * (1 + move.pick % 5), self.end, asked, move)

    def _check_ids(self, asked: Asked) -> None:
        """No request has an id that another one of this engine had, whichever stream it is of."""
        mine = asked.ids
        self.check(len(mine) == len(asked.driven.request.items), "an id stands twice in a request")
        used = self.ids.setdefault(asked.engine, set())
        self.check(not mine & used, f"ids {mine & used} were used before")
        used |= mine

    def _check_asked(self, asked: Asked) -> None:
        """What is stored as ok is never asked again, but to compare it."""
        if not self.config.packing.deduplicate:
            return
        inputs = asked.driven.request.inputs
        stored = self.stored_ok(asked.task, [self.digest(text) for text in inputs])
        texts = [text for text in inputs if self.digest(text) in stored]
        for text in texts:
            digest = self.digest(text)
            runs = [run for run in self.streams if run.task == asked.task and not run.ended and text in run.texts]
            live = any(call.text == text for call in self.calls)  # one that was cancelled is still asked
            again = all(run.alone or digest in run.known for run in runs) and not live
            asked.is_known |= again
            self.check(self.may_compare or not again, f"{text!r} was asked though its answer is stored")

    def _check_order(self, asked: Asked) -> None:
        """What came back goes before new records, but for what was being admitted then: a burst, and one more."""
        run_id = asked.sent.run_id if asked.sent else 0
        asked_before = self.texts.setdefault(run_id, set())
        is_new = asked_before.isdisjoint(asked.driven.request.inputs)
        asked_before.update(asked.driven.request.inputs)
        states = [pipeline._state for run, pipeline in self.pipelines if run.run_id == run_id]
        if not is_new or not states or not states[0].queue._ready or states[0].brake.is_silent:
            return  # while nothing but errors comes, new ones are to find out when that ends
        child, at_s = states[0].queue._ready[0], asked.driven.request.at_s
        if child is not self.passed_over:
            self.passed_over, self.passed_at_s = child, []
        if not self.passed_at_s or at_s > self.passed_at_s[-1] + 1e-4:
            self.passed_at_s.append(at_s)
        self.check(len(self.passed_at_s) <= 2, f"new records are sent before {child}")

    @property
    def may_compare(self) -> bool:
        """Whether the guard may ask what is answered."""
        return self.config.packing.batch_size is None and self.config.quality.guard

    @property
    def waiting(self) -> list[Asked]:
        """Requests that nothing has come of yet, the oldest first."""
        self.open_requests = [asked for asked in self.open_requests if asked.waits]
        return self.open_requests

    def end(self, asked: Asked, move: Move) -> None:
        """End a request in some way; too late, it does nothing."""
        others = [one for one in self.asked[-9:] if one is not asked and one.engine == asked.engine]
        other = others[-1 - move.pick % len(others)] if others else None
        outcome, booked = outcome_of(asked.driven, move, None if other is None else other.driven)
        if asked.driven.end(outcome):
            asked.booked = booked

    # -- streams -------------------------------------------------------------------------------------------------

    def stored_ok(self, task: str, digests: Sequence[bytes] | None = None) -> set[bytes]:
        """Digests, of these or of all, that are answered in the store, as another process sees it, and that nobody
        wants asked again.
        """
        if self.reader is None:
            return set()
        among = "" if digests is None else f" AND digest IN ({', '.join('?' * len(digests))})"
        rows = self.reader.execute(f"{_ANSWERED}{among} {_WANTED}", (self.keys[task], *(digests or ())))
        return {digest for (digest,) in rows}

    def _is_stored(self, task: str, id_: Any, text: str) -> bool:
        assert self.reader is not None
        rows = self.reader.execute(
            "SELECT 1 FROM answers JOIN settings ON settings.id = settings_id "
            "WHERE ok = 1 AND task_key = ? AND key = ? AND digest = ?",
            (self.keys[task], msgspec.json.encode(id_).decode(), self.digest(text)),
        )
        return rows.fetchone() is not None

    def annotate(
        self, task: str, records: list[Any], ids: Sequence[Any], texts: Sequence[str | None], source: str
    ) -> Watched:
        """Start a stream and a consumer that takes what comes."""
        task = self.voted_on(task)
        self.shared |= {(task, text) for text in texts if text is not None and self._is_asked_for(task, text)}
        alone = all(run.ended or run.task != task for run in self.streams) and not self.calls
        for run in self.streams:
            run.alone &= run.ended or run.task != task
        watched = Watched(
            task=task, texts=texts, ids=ids, known=frozenset(self.stored_ok(task)), alone=alone,
        )  # fmt: skip
        watched.may_take.set()
        self.streams.append(watched)
        self.given |= {
            (task, msgspec.json.encode(id_).decode(), text)
            for id_, text in zip(ids, texts, strict=True)
            if text is not None
        }
        self.digests |= {text: digest_of(text) for text in texts if text is not None}
        self.silent_from = None

        async def start() -> None:
            assert self.engine is not None
            watched.stream = self.engine.annotate(self.tasks[task], source_of(source, records, watched))
            watched.feed = watched.stream._feed
            watched.consumer = asyncio.ensure_future(self._consume(watched))

        self.do(start())
        return watched

    async def _consume(self, watched: Watched) -> None:
        stream, watched.stream = watched.stream, None  # whoever drops the consumer drops the stream
        assert stream is not None
        try:
            async for result in stream:
                self._check_result(watched, result)
                await watched.may_take.wait()
        except Exception as error:  # noqa: BLE001 - whatever ends a stream is looked at when it has ended
            watched.error = error
        except asyncio.CancelledError:  # not raised again: the traceback would keep the stream alive
            watched.left = True
        if watched.closes:
            await stream.aclose()

    def _check_result(self, watched: Watched, result: Result) -> None:
        """A result comes once, with its own id, its own answer, and after it is stored."""
        position = result.position
        if position in watched.results or position >= len(watched.texts):
            self.failures.append(f"a result too many: {result}")
            return
        watched.results[position] = result
        text = watched.texts[position]
        self.check(result.id == watched.ids[position], f"{result} has another record's id, not {watched.ids[position]}")
        if not result.ok:
            self.check(bool(result.error and result.error.kind and result.error.message), f"no reason: {result}")
            return
        if text is None:
            self.failures.append(f"an answer to a record that cannot be used: {result}")
            return
        self.check(result.output == truth(watched.task, text), f"another's answer: {result} for {text!r}")
        self.check(self._is_stored(watched.task, result.id, text), f"given out before it was stored: {result}")
        self.given_ok.add((watched.task, text))

    def voted_on(self, task: str) -> str:
        """The task, or with votes one that is not of free texts only: those cannot be counted."""
        return "pairs" if task == "digests" and self.config.votes > 1 else task

    def _is_asked_for(self, task: str, text: str) -> bool:
        streams = any(run.task == task and not run.ended and text in run.texts for run in self.streams)
        return streams or any(call.task_name == task and call.text == text for call in self.calls)

    def stop(self) -> None:
        """What the command does at the first Ctrl-C."""

        async def stop() -> None:
            for run in self.streams:
                if run.feed.pipeline is not None:
                    run.feed.pipeline.stop(RunStopped("interrupted", "interrupted"))
            await settle(3)  # what was admitted before has a task that begins now

        self.do(stop())
        if not self.calls and all(run.ended or run.feed.pipeline is not None for run in self.streams):
            self.silent_from = len(self.asked)

    def submit(self, task: str, text: str, id_: Any) -> Call:
        """A single caller."""
        assert self.engine is not None
        task = self.voted_on(task)
        if self._is_asked_for(task, text):
            self.shared.add((task, text))
        for run in self.streams:
            run.alone &= run.ended or run.task != task
        self.silent_from = None
        record = text if id_ is None else {"id": id_, "text": text}
        waiter = self.loop.create_task(self.engine.submit(record, task=self.tasks[task]))
        call = Call(task_name=task, text=text, id=id_, task=waiter)
        self.calls.append(call)
        keys = map(str, range(1, 100)) if id_ is None else [msgspec.json.encode(id_).decode()]
        self.given |= {(task, key, text) for key in keys}
        self.digests[text] = digest_of(text)
        return call

    def kill(self) -> None:
        """The process dies: what the system has of its files is all that is left."""
        before, self.generation = self.store, self.generation + 1
        self.store.parent.mkdir()
        for suffix in ("", "-wal", ".in-flight"):
            file = before.with_name(before.name + suffix)
            if file.exists():
                shutil.copyfile(file, self.store.with_name(file.name))
        self.broken_off.add(self.engines)
        self.transport.arrived = None
        self._bury()
        self.loop = VirtualTimeLoop()
        self.closed()

    def _bury(self) -> None:
        """End the dead loop without a word, from the outside in: a task cut off before its first step complains."""
        self.loop.set_exception_handler(lambda loop, context: None)
        outer = [self.host, *(run.consumer for run in self.streams), *(call.task for call in self.calls)]
        for run in self.streams:
            run.may_take.set()
        for task in outer:
            if task is not None:
                task.cancel()
        while tasks := asyncio.all_tasks(self.loop):
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        self.loop.close()
        self.failures.clear()

    def closed(self) -> None:
        """The engine was closed; the store stays."""
        if self.reader is not None:
            self.reader.close()
        self.engine = None
        self._reset()

    def clean_up(self) -> None:
        """Leave nothing behind."""
        self.transport.arrived = None
        if not self.loop.is_closed():
            self._bury()
        self.closed()
        shutil.rmtree(self.folder)


__all__ = ["BUFFER", "ENDPOINT", "TIMEOUT_S", "Asked", "Call", "RunStopped", "Watched", "World"]
