"""The whole pipeline as a state machine: any endpoint, any interleaving, any end, and every record once and right.

Hypothesis decides what comes next: records, callers, what becomes of each request and in which order, who leaves,
stops, is cancelled or killed, and with what settings the store is opened again. `HYPOTHESIS_PROFILE=long` tries
thousands.
"""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from state_machine_books import HONEST, check_reading, close, ended, finish
from state_machine_replies import Move, text_of
from state_machine_rules import Driven, configs, corpora, make_config, make_corpus, mild, profile, steps

from engine import Packing, RunConfig
from engine.adapters.store import open_store
from engine.vocabulary.config import Recovery

tasks = st.sampled_from(("labels", "digests"))


class Pipelines(Driven):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.is_redone = False

    @initialize(config=configs, corpus=corpora, task=tasks, easy=st.booleans())
    def begin(self, config: dict[str, Any], corpus: dict[str, Any], task: str, easy: bool) -> None:
        self.world.open(make_config(config))
        self.start(corpus, task)
        if easy:  # past the probes, where the window is whole
            self.world.autopilot = HONEST
            self.world.go(steps=20, seconds=0.1)
            self.world.autopilot = []

    # -- what its users do ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.is_open and sum(not run.ended for run in self.world.streams) < 3)
    @rule(corpus=corpora, task=tasks)
    def start(self, corpus: dict[str, Any], task: str) -> None:
        records, ids, texts = make_corpus(corpus)
        self.world.annotate(task, records, ids, texts, corpus["source"])
        self.world.go(steps=12)

    @precondition(lambda self: self.is_open and len(self.world.calls) < 12)
    @rule(
        texts=st.lists(st.integers(0, 23), min_size=1, max_size=4),
        id_=st.sampled_from((None, "r1", "r2", 5)),
        task=tasks,
        wait=steps,
    )
    def submit(self, texts: list[int], id_: Any, task: str, wait: int) -> None:
        for number in texts:
            self.world.submit(task, text_of(number), id_)
        self.world.go(steps=wait)

    @precondition(lambda self: any(not call.task.done() for call in self.world.calls))
    @rule(pick=st.integers(0, 11))
    def cancel_caller(self, pick: int) -> None:
        waiting = [call for call in self.world.calls if not call.task.done()]
        call = waiting[pick % len(waiting)]
        call.cancelled = call.task.cancel()
        self.world.go(steps=2)

    @precondition(lambda self: any(not run.ended for run in self.world.streams))
    @rule(pick=st.integers(0, 2), open_=st.booleans())
    def consumer_stops_or_goes_on(self, pick: int, open_: bool) -> None:
        run = self.world.streams[-1 - pick % len(self.world.streams)]
        run.may_take.set() if open_ else run.may_take.clear()
        self.world.go(steps=3)

    @precondition(lambda self: any(not run.ended for run in self.world.streams))
    @rule(pick=st.integers(0, 2), closes=st.booleans(), wait=steps)
    def consumer_leaves(self, pick: int, closes: bool, wait: int) -> None:
        run = self.world.streams[-1 - pick % len(self.world.streams)]
        assert run.consumer is not None
        run.closes = closes
        run.consumer.cancel()
        self.world.go(steps=wait)

    # -- how it ends ---------------------------------------------------------------------------------------------

    @precondition(lambda self: any(not run.ended for run in self.world.streams))
    @rule(wait=steps)
    def interrupt(self, wait: int) -> None:
        """Ctrl-C once, as the command does it: nothing more is sent, what is in flight is answered."""
        self.world.stop()
        self.world.go(steps=wait)

    @precondition(lambda self: self.is_open)
    @rule(wait=steps)
    def interrupt_twice(self, wait: int) -> None:
        """The second Ctrl-C, or any exception around the engine: everything is cancelled."""
        world = self.world
        world.broken_off.add(world.engines)
        world.go(steps=wait)
        assert world.host is not None
        world.host.cancel()
        ended(world)

    @precondition(lambda self: self.is_open)
    @rule(gently=st.booleans())
    def close_engine(self, gently: bool) -> None:
        if gently:
            finish(self.world)
            return
        self.world.autopilot = HONEST
        for run in self.world.streams:
            run.may_take.set()
        close(self.world)

    @precondition(lambda self: self.is_open and len(self.world.calls) < 10)
    @rule(text=st.integers(0, 22), between=st.integers(2, 9), after=st.integers(0, 20))
    def twin_amid_a_commit(self, text: int, between: int, after: int) -> None:
        """An answer waits for its commit, shortly after another's, when an identical text comes."""
        world = self.world
        earlier, later = text_of(100 + 2 * text), text_of(101 + 2 * text)  # of no other rule, so not known yet
        for one in (earlier, later):
            world.submit("pairs", one, None)
            world.go(steps=20, seconds=0.06)
        for one in (earlier, later):
            for asked in world.waiting:
                if one in asked.driven.request.inputs:
                    world.end(asked, HONEST[0])
            world.go(steps=between if one == earlier else 0)
        world.submit("pairs", later, "r1")
        world.go(steps=after)

    @precondition(lambda self: self.world.waiting and len(self.world.calls) < 12)
    @rule(move=mild, task=tasks, text=st.integers(0, 23), between=st.integers(0, 6), after=st.integers(0, 6))
    def kill_amid_a_commit(self, move: Move, task: str, text: int, between: int, after: int) -> None:
        """A reply has come and is not stored yet, another request goes out, and the process dies."""
        self.world.end(self.world.waiting[0], move)
        self.world.go(steps=between)
        self.submit([text], None, task, after)
        self.kill(0)

    @precondition(lambda self: not self.is_open)
    @rule(config=configs, corpus=corpora, task=tasks)
    def open_again(self, config: dict[str, Any], corpus: dict[str, Any], task: str) -> None:
        self.world.open(make_config(config))
        self.is_redone = False
        self.start(corpus, task)

    @precondition(lambda self: not self.is_open and not self.is_redone)
    @rule(which=st.sampled_from(("ok = 1", "ok = 0", "key = '\"r1\"'")))
    def redo(self, which: str) -> None:
        """`annotate retry`: answers are marked to be asked again, and stay until there is a better one."""
        store = open_store(self.world.store)
        for (settings_id,) in store.query("SELECT id FROM settings"):
            store.mark_redo(settings_id, which, [])
        store.close()
        self.is_redone = True

    # -- what holds ----------------------------------------------------------------------------------------------

    @invariant()
    def reading_is_bounded(self) -> None:
        if self.is_open:
            check_reading(self.world)

    def teardown(self) -> None:
        """It ends; then a last run over everything has an answer to every record."""
        try:
            if sys.exc_info()[0] is None:  # else a step has failed, and that is what is to be seen
                finish(self.world)
                self._last_run()
        finally:
            self.world.clean_up()

    def _last_run(self) -> None:
        world = self.world
        packing = Packing(batch_size=5)
        world.open(RunConfig(packing=packing, retry_failed=True, recovery=Recovery(max_failed=1.0)))
        whole = {"count": 30, "first_id": 0, "texts": 24, "shift": 0, "turned": False, "spoilt": None, "source": "list"}
        records, ids, texts = make_corpus(whole)
        run = world.annotate("labels", records, ids, texts, "list")
        finish(world)
        assert run.error is None, repr(run.error)
        assert all(result.ok for result in run.results.values()), run.results


Pipelines.TestCase.settings = profile(110)
TestPipelines = Pipelines.TestCase
