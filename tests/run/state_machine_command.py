"""The command line's way through the engine, on virtual time: a file is validated, labelled, and its output written."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
from state_machine_books import HONEST, check_store, until
from state_machine_replies import truth
from state_machine_world import ENDPOINT, Watched, World, digest_of

from engine import RunConfig, RunStopped
from engine.adapters.files import FileSource
from engine.run.compose import open_workbench
from engine.run.corpus import CorpusRun
from engine.run.journal import at_once
from engine.testing.virtual_time import settle
from engine.vocabulary.errors import EngineError, InputError


class _Ended:
    """What a stream has in the other world: whether the run has ended."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.pipeline = None


class CommandWorld(World):
    """One command after the other on one store, as `engine.cli.run` does it."""

    corpus: CorpusRun
    outcome: Exception | None
    was_cancelled: bool

    @property
    def output(self) -> Path:
        return self.folder / "output.jsonl"

    def command(
        self, config: RunConfig, task: str, lines: Sequence[str], ids: list[Any], texts: list[str | None]
    ) -> None:
        """Start it, up to the first requests."""
        self.store.parent.mkdir(exist_ok=True)
        source = self.folder / "input.jsonl"
        source.write_text("".join(f"{line}\n" for line in lines))
        self.config, self.engines = config, self.engines + 1
        task = self.voted_on(task)
        self.watched = Watched(task=task, texts=texts, ids=ids, known=frozenset(), alone=True, left=True, feed=_Ended())
        self.streams.append(self.watched)
        given = ((id_, text) for id_, text in zip(ids, texts, strict=True) if text is not None)
        self.given |= {(task, msgspec.json.encode(id_).decode(), text) for id_, text in given}
        self.digests |= {text: digest_of(text) for text in texts if text is not None}
        self.outcome, self.was_cancelled = None, False
        opened = asyncio.Event()
        self.host = self.loop.create_task(self._command(FileSource(str(source)), opened))
        self.do(opened.wait())
        self.go(steps=12)

    async def _command(self, source: FileSource, opened: asyncio.Event) -> None:
        task = self.watched.task
        async with open_workbench(
            ENDPOINT,
            self.config,
            store=self.store,
            transport=self.transport,
            run_sync=at_once,
            allow_change=True,
        ) as bench:
            self._watch(bench)
            self.reader = sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True, isolation_level=None)
            self.watched.known = frozenset(self.stored_ok(task))
            self.corpus = CorpusRun(bench, self.tasks[task], source)
            with anyio.CancelScope() as self.scope:
                opened.set()
                try:
                    self.outcome = await self.corpus.annotate(note={})
                except EngineError as error:
                    self.outcome = error
            self.was_cancelled = self.scope.cancelled_caught
            self.watched.feed.ended.set()
            self.corpus.write_output(str(self.output))

    def stop(self) -> None:
        """The first Ctrl-C."""

        async def stop() -> None:
            self.corpus.stop(RunStopped("interrupted", "interrupted"))
            await settle(3)

        self.do(stop())
        self.silent_from = len(self.asked)

    def stop_at_once(self) -> None:
        """The second."""

        async def cancel() -> None:
            self.scope.cancel()

        self.broken_off.add(self.engines)
        self.do(cancel())

    def finish(self) -> None:
        """Let it come to its end, and look at what it wrote."""
        if self.host is None:
            return
        self.autopilot = HONEST
        until(self, self.host.done, "the command does not end")
        self.host.result()
        leftover = asyncio.all_tasks(self.loop)
        assert not leftover, f"tasks are left: {leftover}"
        for _, pipeline in self.pipelines:
            state = pipeline._state
            assert (state.calls, state.counters.in_flight) == (0, 0), f"slots leak: {state}"
            assert not state.budget.may_ease, f"money stays reserved: {state}"
        check_store(self)
        self._check_output()
        self.closed()

    def _check_output(self) -> None:
        """Every record that has ended stands in the output once, in the order of the input, with its own answer."""
        if isinstance(self.outcome, InputError):
            assert self.config.on_bad_record == "stop", repr(self.outcome)
            assert None in self.watched.texts, repr(self.outcome)
            return
        assert isinstance(self.outcome, RunStopped | None), repr(self.outcome)
        rows = [json.loads(line) for line in self.output.read_text().splitlines()]
        expected = list(zip(self.watched.ids, self.watched.texts, strict=True))
        if self.outcome is None and not self.was_cancelled:
            assert len(rows) == len(expected), f"{len(rows)} rows for {len(expected)} records"
            counters = self.corpus.counters
            ok = sum(row["error"] is None for row in rows)
            assert (counters.records_ok, counters.records_failed) == (ok, len(rows) - ok), counters
        at = 0
        for row in rows:
            while expected[at][0] != row["id"] or not _fits(self.watched.task, expected[at][1], row):
                at += 1
                assert at < len(expected), f"a row too many, out of order, or with another's answer: {row}"
            at += 1


def _fits(task: str, text: str | None, row: dict[str, Any]) -> bool:
    """Whether this may be the row of a record with this text."""
    if row["error"] is not None:
        return (row["error"]["kind"] == "bad-record") == (text is None)
    return text is not None and row["output"] == truth(task, text)
