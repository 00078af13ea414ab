"""What must hold when a stream, an engine, or a process has ended: every record accounted for, every request booked."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
from state_machine_replies import Move, truth
from state_machine_world import BUFFER, Asked, Watched, World

from engine import RunStopped
from engine.adapters.store import open_store

HONEST = [Move("honest")]
_MOST_ROUNDS = 3_000


def finish(world: World) -> None:
    """Let everything come to its end with an endpoint that works from now on, close the engine, and look at the books.

    It must end: nothing may wait for ever for anything but the endpoint, the source and the consumer.
    """
    if world.engine is None:
        return
    world.autopilot = HONEST
    for run in world.streams:
        run.may_take.set()
    for asked in world.waiting:
        world.end(asked, HONEST[0])
    _until_quiet(world)
    for run in world.streams:
        check_stream(world, run)
    close(world)


def close(world: World) -> None:
    """Leave the engine as its user would, and look at the books."""
    host = world.host
    assert host is not None
    world.closing.set()
    until(world, host.done, "the engine does not close")
    assert not host.exception(), repr(host.exception())
    ended(world)


def ended(world: World) -> None:
    """The engine is closed, however it came to be."""
    assert world.host is not None
    for run in world.streams:
        run.may_take.set()
    until(world, world.host.done, "the engine does not close")
    until(world, lambda: all(run.consumer is None or run.consumer.done() for run in world.streams), "a consumer hangs")
    until(world, lambda: all(call.task.done() for call in world.calls), "a caller hangs")
    for call in world.calls:
        _check_call(call)
    for run in world.streams:
        _check_records(run)
    world.go(steps=5)
    leftover = asyncio.all_tasks(world.loop)
    assert not leftover, f"tasks are left: {leftover}"
    for _, pipeline in world.pipelines:
        state = pipeline._state
        assert (state.calls, state.counters.in_flight) == (0, 0), f"slots leak: {state}"
        assert not state.budget.may_ease, f"money stays reserved: {state}"
    assert not world.store.with_name(world.store.name + ".in-flight").exists(), "requests stay noted as in flight"
    check_store(world)
    world.closed()


def _until_quiet(world: World) -> None:
    """Until every consumer has what it will get, and every caller an answer."""
    until(
        world,
        lambda: (
            all(run.consumer is None or run.consumer.done() for run in world.streams)
            and all(call.task.done() for call in world.calls)
        ),
        "a run does not end",
    )


def until(world: World, is_so: Any, what: str) -> None:
    """Let time pass until it is so; days are enough for anything."""
    for number in range(_MOST_ROUNDS):
        if is_so():
            return
        world.go(steps=2, seconds=min(0.1 * 1.1**number, 60.0))
        for asked in world.waiting if world.autopilot else ():
            world.end(asked, HONEST[0])
    states = "\n".join(repr(pipeline) for _, pipeline in world.pipelines)
    raise AssertionError(f"{what} within days: {states}")


# -- one stream --------------------------------------------------------------------------------------------------


def check_stream(world: World, run: Watched) -> None:
    """What a stream that has ended says of itself is what its consumer got."""
    _check_records(run)
    pipeline = run.feed.pipeline
    if run.left or pipeline is None:
        return
    state, counters = pipeline._state, run.feed.counters
    given = Counter(result.ok for result in run.results.values())
    assert (counters.records_ok, counters.records_failed) == (given[True], given[False]), (counters, given)
    assert counters.records_stored == sum(result.stored for result in run.results.values())
    if run.error is None:
        assert (state.held, state.queue.is_empty, state.followers) == (0, True, {}), f"something is left: {state}"


def _check_records(run: Watched) -> None:
    """A stream that ends without an error gave every record once; one that was stopped, none twice and a reason."""
    count = len(run.texts)
    if run.error is not None:
        assert isinstance(run.error, RunStopped | LookupError), repr(run.error)
    elif not run.left:
        assert sorted(run.results) == list(range(count)), f"lost: {set(range(count)) - run.results.keys()}"


def check_reading(world: World) -> None:
    """No source is read further ahead than the look-ahead, whatever the endpoint and the consumer do."""
    packing, limits = world.config.packing, world.config.limits
    most = packing.batch_size or packing.max_batch_size
    capacity = max(packing.look_ahead, 2 * most * limits.most_in_flight)
    for run in world.streams:
        if not run.left:
            ahead = run.pulled - len(run.results)
            assert ahead <= capacity + packing.look_ahead + BUFFER + 1, f"{ahead} records are read ahead"
    active = sum(not run.ended for run in world.streams) + len({call.task_name for call in world.calls})
    waiting = len(world.waiting)
    assert waiting <= limits.most_in_flight * max(1, active), f"{waiting} requests are in flight"


def _check_call(call: Any) -> None:
    if call.task.cancelled():
        assert call.cancelled
        return
    error = call.task.exception()
    if error is not None:
        assert isinstance(error, RunStopped), repr(error)
        return
    result = call.task.result()
    if call.id is not None:
        assert result.id == call.id, f"{result} is not for {call.id}"
    if result.ok:
        assert result.output == truth(call.task_name, call.text), f"another's answer: {result} for {call.text!r}"


# -- the store ---------------------------------------------------------------------------------------------------


def check_store(world: World) -> None:
    """What another process finds in the store: every answer right, none lost, and every request of the endpoint's."""
    store = open_store(world.store)
    try:
        calls = {row[0]: row for row in store.query(_CALLS)}
        answers = store.query(_ANSWERS)
        ballots = store.query(_BALLOTS)
        unended = store.query("SELECT count(*) FROM runs WHERE status IS NULL")[0][0]
    finally:
        store.close()
    assert not unended, "a run has no end"
    _check_answers(world, answers)
    _check_ballots(world, ballots, answers)
    _check_accepted(world, calls, [row[-1] for row in ballots] + [row[-1] for row in answers if not row[5]])
    _check_calls(world, calls)


_CALLS = (
    "SELECT id, run_id, status, outcome, input_tokens, output_tokens, estimated, unconfirmed_input, "
    "unconfirmed_output, purpose, accepted, size FROM calls"
)
_ANSWERS = (
    "SELECT task_key, key, digest, ok, output, copied, calls FROM answers "
    "JOIN settings ON settings.id = settings_id ORDER BY 1, 2, 3"
)
_BALLOTS = (
    "SELECT task_key, key, digest, output, calls FROM ballots "
    "JOIN settings ON settings.id = settings_id ORDER BY 1, 2, 3, round"
)


def _check_answers(world: World, rows: list[tuple[Any, ...]]) -> None:
    texts = {digest: text for text, digest in world.digests.items()}
    tasks = {key: task for task, key in world.keys.items()}
    ok: set[tuple[str, str]] = set()
    for key, id_, digest, is_ok, output, *_ in rows:
        task = tasks[key]
        text = texts.get(digest)
        assert text is not None, f"an answer to a text that nobody gave: {id_}"
        assert (task, id_, text) in world.given, f"an answer for {id_} with a text that it never had: {text!r}"
        if is_ok:
            assert msgspec.json.decode(output) == truth(task, text), f"stored another's answer: {output} for {text!r}"
            ok.add((task, id_, text))
    lost = world.stored - ok
    assert not lost, f"answers that were stored are gone: {lost}"
    world.stored = ok
    answered = {(task, text) for task, _, text in ok}
    assert world.given_ok <= answered, f"given out and not stored: {world.given_ok - answered}"


def _check_ballots(world: World, rows: list[tuple[Any, ...]], answers: list[tuple[Any, ...]]) -> None:
    """A vote that is stored is right, and counts until its record has ended, whatever comes between: it is among the
    calls that the answer rests on. Where two ask for one record at once, each has votes of its own.
    """
    texts = {digest: text for text, digest in world.digests.items()}
    tasks = {key: task for task, key in world.keys.items()}
    ballots: dict[tuple[str, str, str], list[int]] = {}
    for key, id_, digest, output, calls in rows:
        of = (tasks[key], id_, texts[digest])
        assert of in world.given, f"a vote on {id_} with a text that it never had: {of}"
        assert msgspec.json.decode(output) == truth(of[0], of[2]), f"another's answer is a vote: {output} for {of}"
        ballots.setdefault(of, []).append(msgspec.json.decode(calls)[-1])
    rests_on = {
        (tasks[row[0]], row[1], texts[row[2]]): None if row[5] else msgspec.json.decode(row[6]) for row in answers
    }
    for of, before in world.ballots.items():
        if (of[0], of[2]) in world.shared or set(before) <= set(ballots.get(of, ())):
            continue
        assert of in rests_on, f"votes that were stored are gone: {before} of {of}, now {ballots.get(of)}"
        calls = rests_on[of]
        assert calls is None or set(before) <= set(calls), (
            f"votes that were stored do not count: {before} of {of}: {calls}"
        )
    world.ballots = ballots


def _check_accepted(world: World, calls: dict[int, tuple[Any, ...]], records: list[str]) -> None:
    """What a call brought is in the store with it, as an answer or as a vote: each record says which calls it had."""
    named = Counter(call for one in records for call in msgspec.json.decode(one))
    for id_, row in calls.items():
        if id_ not in world.settled and row[9] == "ask" and not world.shared:
            assert row[10] <= named[id_], f"call {id_} brought {row[10]} answers, and {named[id_]} records know of it"
    world.settled |= calls.keys()


def _check_calls(world: World, calls: dict[int, tuple[Any, ...]]) -> None:
    assert len(calls) == len(world.asked), f"{len(world.asked)} requests were made, {len(calls)} are in the store"
    for asked in world.asked:
        assert asked.sent is not None, f"{asked.driven} was sent without a note"
        _check_row(world, asked, calls[asked.sent.call_id])
    audits = sum(row[9] == "audit" for row in calls.values())
    again = sum(asked.is_known for asked in world.asked)
    assert again <= audits, f"{again} requests asked what was answered, {audits} to compare"
    for run, pipeline in world.pipelines:
        _check_counters(pipeline.counters, [row for row in calls.values() if row[1] == run.run_id])


def _check_row(world: World, asked: Asked, row: tuple[Any, ...]) -> None:
    _, _, status, outcome, input_tokens, output_tokens, estimated, more_input, more_output, *_ = row
    unconfirmed = bool(more_input and more_output)
    if outcome in ("killed", "abandoned"):
        broken_off = asked.driven.fate == "given up" or asked.engine in world.broken_off
        assert broken_off, f"{asked.driven} is booked as {row}"
        assert unconfirmed, f"nothing is booked for {asked.driven}: {row}"
        return
    booked = asked.booked
    tokens = (input_tokens, output_tokens)
    assert (status, unconfirmed, bool(estimated)) == (booked.status, booked.unconfirmed, booked.estimated), (row, asked)
    assert booked.tokens in (None, tokens), f"{tokens} tokens are booked for {asked}"


def _check_counters(counters: Any, rows: list[tuple[Any, ...]]) -> None:
    """What a run says of itself is what the store holds of it."""
    said = (
        counters.requests,
        counters.http_429,
        counters.abandoned,
        sum(counters.causes.values()),
        counters.tokens_input,
        counters.tokens_output,
        counters.unconfirmed_input,
        counters.unconfirmed_output,
    )
    held = (
        len(rows),
        sum(row[2] == 429 for row in rows),
        sum(row[3] == "abandoned" for row in rows),
        sum(row[3] != "ok" for row in rows),
        *(sum(row[column] for row in rows) for column in (4, 5, 7, 8)),
    )
    assert said == held, f"the counters say {said}, the store {held}"


def check_killed(world: World) -> None:
    """A store that a process left behind by its death: the same must hold of it, before anything is done with it."""
    check_store(world)


__all__ = ["check_killed", "check_reading", "check_store", "close", "ended", "finish", "until"]
