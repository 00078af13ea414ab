"""`annotate run` as a state machine: any endpoint, Ctrl-C once and twice, kills, and the same command again."""

from __future__ import annotations

import json
import sys
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from state_machine_command import CommandWorld
from state_machine_rules import Driven, configs, corpora, make_config, make_corpus, profile, steps

from engine import Packing, RunConfig
from engine.vocabulary.config import Recovery

tasks = st.sampled_from(("labels", "digests"))


class Commands(Driven):
    """See the module."""

    world: CommandWorld

    def make_world(self) -> CommandWorld:
        return CommandWorld()

    @initialize(config=configs, corpus=corpora, task=tasks)
    def begin(self, config: dict[str, Any], corpus: dict[str, Any], task: str) -> None:
        self.config, self.corpus, self.task = config, corpus, task
        self.run(make_config(config), corpus, task)

    def run(self, config: RunConfig, corpus: dict[str, Any], task: str) -> None:
        records, ids, texts = make_corpus(corpus)
        lines = ['{"id": "bytes", "text": ' if _is_broken(record) else json.dumps(record) for record in records]
        ids = [None if _is_broken(record) else id_ for record, id_ in zip(records, ids, strict=True)]
        self.world.command(config, task, lines, ids, texts)

    @precondition(lambda self: not self.is_open)
    @rule(config=st.none() | configs, shift=st.integers(0, 5), cut=st.integers(0, 3))
    def again(self, config: dict[str, Any] | None, shift: int, cut: int) -> None:
        """The same command, or with other options, other lines, and other texts under the same ids."""
        corpus = self.corpus | {"shift": self.corpus["shift"] + shift, "count": max(0, self.corpus["count"] - cut)}
        self.run(make_config(config or self.config), corpus, self.task)

    @precondition(lambda self: self.is_open)
    @rule(wait=steps)
    def interrupt(self, wait: int) -> None:
        self.world.stop()
        self.world.go(steps=wait)

    @precondition(lambda self: self.is_open)
    @rule(wait=steps)
    def interrupt_twice(self, wait: int) -> None:
        self.world.stop()
        self.world.go(steps=wait)
        self.world.stop_at_once()
        self.world.finish()

    @precondition(lambda self: self.is_open)
    @rule()
    def let_it_end(self) -> None:
        self.world.finish()

    def teardown(self) -> None:
        """It ends; then the same command has an answer to every record, or says why it never can."""
        try:
            if sys.exc_info()[0] is None:
                self.world.finish()
                self._last_run()
        finally:
            self.world.clean_up()

    def _last_run(self) -> None:
        config = RunConfig(
            packing=Packing(batch_size=5),
            recovery=Recovery(max_failed=1.0),
            on_bad_record="fail-record",
            retry_failed=True,
        )
        self.run(config, self.corpus, self.task)
        world = self.world
        usable = sum(text is not None for text in world.watched.texts)
        world.finish()
        assert world.outcome is None, repr(world.outcome)
        assert world.corpus.counters.records_ok == usable, world.corpus.counters


def _is_broken(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("text"), bytes)


Commands.TestCase.settings = profile(40)
TestCommands = Commands.TestCase
