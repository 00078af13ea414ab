"""What the state machines have found, each as the shortest way there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from state_machine_books import HONEST, close, finish
from state_machine_replies import Move, text_of
from state_machine_world import World

from engine import Limits, Packing, RunConfig, RunStopped


@contextmanager
def opened(*, ahead: int = 8, batch_size: int = 2) -> Iterator[World]:
    """An engine whose endpoint waits for the test."""
    world = World()
    try:
        world.open(
            RunConfig(packing=Packing(batch_size=batch_size, look_ahead=ahead), limits=Limits(max_concurrency=2))
        )
        yield world
    finally:
        world.clean_up()


def annotate(world: World, texts: list[int], source: str = "list") -> Any:
    ids = [f"r{number}" for number in range(len(texts))]
    named = [text_of(number) for number in texts]
    records = [{"id": id_, "text": text} for id_, text in zip(ids, named, strict=True)]
    return world.annotate("labels", records, ids, named, source)


def test_closing_the_engine_does_not_end_a_stream_as_if_it_were_whole() -> None:
    """A consumer in another task than the engine's block is told that results are missing."""
    with opened() as world:
        run = annotate(world, [0, 1, 2])
        world.autopilot = HONEST
        close(world)
        assert len(run.results) < 3
        assert isinstance(run.error, RunStopped)


@pytest.mark.parametrize("steps", range(0, 16, 2))
def test_a_twin_in_a_chunk_with_known_texts_is_not_asked_again(steps: int) -> None:
    """Copies for some of a chunk are being stored while the answer for another's twin arrives: the twin finds it.

    Text 0 is known. Text 1 is on its way, and its answer waits for a commit, when the next chunk is read: a copy of
    text 0 and a twin of text 1. What was looked up before that commit must be queued before it.
    """
    with opened() as world:
        world.autopilot = HONEST
        annotate(world, [0])
        finish(world)
        world.open(RunConfig(packing=Packing(batch_size=2, look_ahead=8), limits=Limits(max_concurrency=2)))
        world.autopilot = []
        annotate(world, [1, 2, 3, 4, 5, 6, 7, 8, 0, 1], "iterator")
        world.go(steps=20)
        alone, batch = world.waiting
        world.end(batch, HONEST[0])  # makes room for the chunk
        world.go(steps=steps)
        world.end(alone, HONEST[0])
        finish(world)
        assert sum(text_of(1) in asked.driven.request.inputs for asked in world.asked) == 1


def test_a_stop_counts_only_results_that_were_given_out() -> None:
    """Known answers that nobody took any more are in no counter of the run that was stopped."""
    with opened(ahead=100) as world:
        world.autopilot = HONEST
        annotate(world, list(range(20)) * 5)
        finish(world)
        world.open(RunConfig(packing=Packing(batch_size=2, look_ahead=100)))
        run = annotate(world, list(range(20)) * 5)
        run.may_take.clear()
        world.go(steps=30)
        world.stop()
        finish(world)
        assert 0 < run.feed.counters.records_stored == len(run.results) < 100


def test_callers_that_wait_for_room_get_the_reason() -> None:
    """The endpoint refuses the key while some callers' records are not even taken in: they are told so, too."""
    with opened(ahead=1) as world:
        calls = [world.submit("labels", text_of(number), f"r{number}") for number in range(24)]
        world.go(steps=20)
        world.end(world.waiting[0], Move("401"))
        finish(world)
        errors = [str(error) for call in calls if (error := call.task.exception()) is not None]
        assert len(errors) > 15
        assert all("check the key" in error for error in errors), errors


def test_two_streams_of_an_engine_share_no_salt() -> None:
    """A reply that goes to a request of another stream is foreign there, and not by luck: one walk serves them all."""
    with opened() as world:
        annotate(world, [0, 1])
        annotate(world, [2, 3])
        world.go(steps=5)
        (_, one), (_, other) = world.pipelines
        assert one._dispatcher._salt_offset == other._dispatcher._salt_offset
        finish(world)
