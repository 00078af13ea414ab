"""What follows from the outcome of a call: the one decision table. See docs/design/recovery.md.

Two budgets, kept apart: asks that a model answered badly (`lone_attempts`, and splitting before it), and sends that
met transport or server faults (`transport_attempts`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.decide.answers import Reading
from engine.decide.outputs import Partial
from engine.vocabulary.config import Recovery
from engine.vocabulary.values import Batch, Completion, Fault, FaultKind, Item, RecordError

EXCERPT = 400
"""Characters of a raw reply that go into the reason of a failure; the store keeps more."""

HELD_S = 120.0
"""The most that a batch is held on the endpoint's word while it answers others: six sends still outlast 600 s."""

FATAL = frozenset({FaultKind.AUTH, FaultKind.QUOTA, FaultKind.MODEL})
"""Faults that no retry and no split can mend: they end the run, with everything kept."""

TRANSIENT = frozenset({FaultKind.SERVER, FaultKind.TRANSPORT, FaultKind.TIMEOUT, FaultKind.BAD_REPLY})


DISTURBED = "neighbours"
"""Why a reply was not accepted though it was whole; see docs/design/neighbours.md."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its accepted output."""

    item: Item
    output: Any


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is given up, with its reason."""

    item: Item
    error: RecordError


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of every record of a batch: each is in exactly one of the three.

    :ivar cause: why not all were accepted, one short word for counters; "" if all were.
    :ivar split: the batch was halved.
    :ivar retry: the same batch is sent again.
    :ivar fatal: the run must end, for this reason.
    :ivar pause_s: nobody may send for so long.
    """

    accepted: tuple[Answer, ...] = ()
    failed: tuple[Failure, ...] = ()
    children: tuple[Batch, ...] = ()
    cause: str = ""
    split: bool = False
    retry: bool = False
    fatal: bool = False
    pause_s: float = 0.0


def judge_reply(
    batch: Batch, ids: Mapping[str, Item], reading: Reading, completion: Completion, limits: Recovery
) -> Verdict:
    """The verdict on a reply that came.

    :param ids: request id -> item, for every item of the batch.
    """
    reading = completed(ids, reading)
    accepted = tuple(Answer(item=ids[id_], output=output) for id_, output in reading.answers.items())
    rest = tuple(
        _kept_on(item, _defect(reading, completion, id_), reading.partial.get(id_))
        for id_, item in ids.items()
        if id_ not in reading.answers
    )
    if not rest:
        return Verdict(accepted=accepted)
    cut = completion.finish_reason == "length"
    cause = _cause(reading, completion, cut)
    if len(batch.items) == 1:
        return _judge_lone(batch, rest[0], cause, completion, limits, cut=cut)
    # More than half missing again would not get smaller fast enough for the bound on extra calls.
    if accepted and not cut and 2 * len(rest) <= len(batch.items) + 1:
        return Verdict(accepted=accepted, children=(Batch(items=rest),), cause=cause)
    return Verdict(accepted=accepted, children=halves(rest), cause=cause, split=len(rest) > 1)


def _judge_lone(
    batch: Batch, item: Item, cause: str, completion: Completion, limits: Recovery, *, cut: bool
) -> Verdict:
    tried = msgspec.structs.replace(item, lone_attempts=item.lone_attempts + 1)
    if tried.lone_attempts < limits.lone_attempts:
        scale = batch.output_scale * (2 if cut else 1)
        return Verdict(children=(Batch(items=(tried,), output_scale=scale),), cause=cause)
    words = (completion.refusal or completion.text).strip()
    reason = f"{item.last_defect} (asked alone {tried.lone_attempts} times)"
    return Verdict(failed=(_given_up(tried, cause, reason, f"; the reply: {words[:EXCERPT]!r}"),), cause=cause)


def completed(ids: Mapping[str, Item], reading: Reading) -> Reading:
    """A reading in which what was kept of a record before stands, and completes what is said of it now.

    A variable that was valid once keeps that value, whatever is said of it later: the first valid answer counts.

    :param ids: request id -> item, as far as its answers are to be completed.
    """
    answers, partial = dict(reading.answers), dict(reading.partial)
    defects = dict(reading.defects)
    for id_, item in ids.items():
        if not item.kept:
            continue
        if id_ in answers:
            answers[id_] = {**answers[id_], **item.kept}
        elif id_ in partial and not partial[id_].wrong.keys() - item.kept.keys():
            now = partial.pop(id_)
            answers[id_] = {name: item.kept.get(name, now.valid.get(name)) for name in now.names}
            del defects[id_]
    return msgspec.structs.replace(reading, answers=answers, defects=defects, partial=partial)


def _kept_on(item: Item, defect: str, partial: Partial | None) -> Item:
    """The record with what was wrong with it, and with what is valid of it by now."""
    if partial is None:
        return msgspec.structs.replace(item, last_defect=defect)
    missing = [why for name, why in partial.wrong.items() if name not in item.kept]
    return msgspec.structs.replace(item, last_defect="; ".join(missing), kept={**partial.valid, **item.kept})


def _given_up(item: Item, kind: str, reason: str, more: str = "") -> Failure:
    """A record that fails, with what is known of it all the same."""
    known = f"; valid: {_shown(item.kept)}" if item.kept else ""
    error = RecordError(kind=kind, message=f"{reason}{known}{more}", valid=item.kept)
    return Failure(item=item, error=error)


def _shown(kept: Mapping[str, Any]) -> str:
    text = msgspec.json.encode(kept).decode()
    return text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "..."


def judge_fault(
    batch: Batch, fault: Fault, limits: Recovery, *, now: float, rng: random.Random, works: bool = False
) -> Verdict:
    """The verdict on a call that brought no reply.

    :param works: other calls get replies, so what the endpoint asks for is not believed for long.
    """
    kind = fault.kind
    if kind in FATAL:
        return Verdict(children=(batch,), cause=kind, fatal=True)
    if kind is FaultKind.UNSUPPORTED:  # the provider has taken note and asks differently from now on
        return Verdict(children=(batch,), cause=kind, retry=True)
    if kind is FaultKind.RATE_LIMIT:
        # "Retry-After: 0" with nothing to hold us back would be a loop as fast as the network.
        wait = fault.retry_after_s or backoff_s(batch.rate_limited, limits, rng)
        again = msgspec.structs.replace(batch, rate_limited=batch.rate_limited + 1)
        return Verdict(children=(again,), cause=kind, retry=True, pause_s=wait)
    if kind in TRANSIENT:
        asked_s = min(fault.retry_after_s or 0.0, HELD_S if works else math.inf)
        return _judge_transient(batch, fault, limits, asked_s=asked_s, now=now, rng=rng)
    return _judge_refused(batch, fault, limits)


def _judge_transient(
    batch: Batch, fault: Fault, limits: Recovery, *, asked_s: float, now: float, rng: random.Random
) -> Verdict:
    tried = batch.transport_attempts + 1
    if tried < limits.transport_attempts:
        wait = max(asked_s, backoff_s(batch.transport_attempts, limits, rng))
        again = msgspec.structs.replace(batch, transport_attempts=tried, not_before_s=now + wait)
        return Verdict(children=(again,), cause=fault.kind, retry=True)
    if len(batch.items) > 1:
        # One record may be what the server dies of. Two more sends for each half, so that a dead server costs little.
        left = max(0, limits.transport_attempts - 2)
        parts = tuple(msgspec.structs.replace(half, transport_attempts=left) for half in halves(batch.items))
        return Verdict(children=parts, cause=fault.kind, split=True)
    failure = _given_up(batch.items[0], fault.kind, f"{fault.text} ({tried} sends of it failed)")
    return Verdict(failed=(failure,), cause=fault.kind)


def _judge_refused(batch: Batch, fault: Fault, limits: Recovery) -> Verdict:
    """The endpoint does not take this content: too long, filtered, or a plain 400."""
    if len(batch.items) > 1:
        return Verdict(children=halves(batch.items), cause=fault.kind, split=True)
    item = msgspec.structs.replace(batch.items[0], lone_attempts=batch.items[0].lone_attempts + 1)
    if fault.kind is not FaultKind.CONTEXT and item.lone_attempts < limits.lone_attempts:
        return Verdict(children=(Batch(items=(item,)),), cause=fault.kind)
    return Verdict(failed=(_given_up(item, fault.kind, fault.text),), cause=fault.kind)


def judge_disturbed(batch: Batch, family: int) -> Verdict:
    """The verdict on a batch in which a record seems to have changed the answers to others: nothing of it is accepted.

    :param family: the number under which its records are followed.
    """
    parts = tuple(msgspec.structs.replace(half, family=family) for half in halves(batch.items))
    return Verdict(children=parts, cause=DISTURBED, split=True)


def halves(items: tuple[Item, ...]) -> tuple[Batch, ...]:
    """Two batches of half the items each; one batch for one item."""
    middle = (len(items) + 1) // 2
    return tuple(Batch(items=part) for part in (items[:middle], items[middle:]) if part)


def backoff_s(attempts: int, limits: Recovery, rng: random.Random) -> float:
    """Full jitter: uniform from 0 to ``base * 2**attempts``, capped (AWS Architecture Blog, 2015)."""
    return rng.uniform(0.0, min(limits.backoff_cap_s, limits.backoff_base_s * 2.0 ** min(attempts, 30)))


def _cause(reading: Reading, completion: Completion, cut: bool) -> str:
    if completion.refusal is not None:
        return "refused"
    if cut:
        return "cut-off"
    if reading.defects:
        return "invalid-output"
    return "missing" if reading.found else "no-json"


def _defect(reading: Reading, completion: Completion, id_: str) -> str:
    if id_ in reading.defects:
        return reading.defects[id_]
    if completion.refusal is not None:
        return "the model or a filter refused"
    if completion.finish_reason == "length":
        return "the reply was cut off at its token limit before this record's result"
    return "no result carried its id" if reading.found else "the reply holds no result in the format asked for"
