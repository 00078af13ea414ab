"""What a run says of itself while it goes on: one event a line, for whoever has to find out why. See docs/logs.md.

Events go to the standard logger `annotation_engine`; who wants them adds a handler, as the command line does. The
message is an `Event`, which is put into words only where a handler asks: without one a call pays for one look at the
level. Texts of the endpoint are cut; inputs, keys and values of headers are part of no event.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Protocol

import anyio
import msgspec

from engine.decide.recovery import Verdict
from engine.report.metrics import Counters, remedy
from engine.vocabulary.config import Endpoint, RunConfig
from engine.vocabulary.errors import EngineError, RunStopped
from engine.vocabulary.secrets import hidden, shown_address
from engine.vocabulary.values import Completion, Fault, Item, Usage

LOGGER = logging.getLogger("annotation_engine")
LOGGER.addHandler(logging.NullHandler())  # else Python itself would print warnings, over the progress display

PROCESS = os.urandom(4).hex()
"""Begins the id of every run of this process."""

_NUMBERS = count(1)
_TOLD = "is_in_the_log"  # set on an exception, which passes through several hands
_MOST_TEXT = 300
_MOST_IDS = 50
_PROGRESS_EVERY_S = 60.0
_LONG_HOLD_S = 10.0  # a usual back-off is shorter, and told with its call
_BARE = re.compile(r"[\w.:/+-]+\Z", re.ASCII)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged: a name for programs, and fields. As text it is one line of `name=value`."""

    name: str
    run: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        return " ".join(
            [self.name, f"run={self.run}", *(f"{key}={_word(value)}" for key, value in self.fields.items())]
        )


def _word(value: Any) -> str:
    if isinstance(value, str) and _BARE.match(value):
        return value
    return json.dumps(value, default=str)  # ASCII: nothing in it can end a line or steer a terminal


class Sending(Protocol):
    """Of a request on its way, what is told of it."""

    @property
    def number(self) -> int:
        """In the store's list of calls."""
        ...

    @property
    def ids(self) -> Mapping[str, Item]:
        """Its records."""
        ...


class Moving(Protocol):
    """A change that a controller made."""

    @property
    def reason(self) -> str:
        """In words."""
        ...


class RunLog:
    """The events of one run."""

    def __init__(self) -> None:
        self.run = f"{PROCESS}.{next(_NUMBERS)}"
        self._counters = Counters()
        self._seen: dict[str, Any] = {}
        self._progress_s: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether anybody wants to know of more than troubles."""
        return LOGGER.isEnabledFor(logging.INFO)

    def event(self, level: int, name: str, /, **fields: Any) -> None:
        """Log it, unless the level is off."""
        if LOGGER.isEnabledFor(level):
            LOGGER.log(level, Event(name=name, run=self.run, fields=fields))

    # -- the whole -------------------------------------------------------------------------------------------------

    def started(
        self, *, store: str | None, store_run: int, task: str, model: str, endpoint: Endpoint, config: RunConfig
    ) -> None:
        """A run was noted in its store. :param task: its key."""
        if not self.is_on:
            return
        self.event(
            logging.INFO,
            "run-started",
            store=store,
            store_run=store_run,
            task=task,
            model=model,
            endpoint=shown_address(endpoint.base_url),
            has_key=endpoint.api_key is not None,
            headers=sorted(endpoint.headers),
            extra_body=hidden(endpoint.extra_body),
            temperature=endpoint.temperature,
            reasoning_effort=endpoint.reasoning_effort,
            timeout_s=endpoint.timeout_s,
            settings=msgspec.to_builtins(config),
        )

    def watch(self, counters: Counters) -> None:
        """Count by these from now on."""
        self._counters = counters

    def ended(self, status: str) -> None:
        """The run is over. :param status: as in the store: ``done``, ``crashed``, or the kind of the stop."""
        level = {"done": logging.INFO, "crashed": logging.ERROR}.get(status, logging.WARNING)
        counters = self._counters
        self.event(
            level,
            "run-ended",
            status=status,
            ok=counters.records_ok,
            failed=counters.records_failed,
            stored=counters.records_stored,
            requests=counters.requests,
            input_tokens=counters.tokens_input,
            output_tokens=counters.tokens_output,
            causes=dict(counters.causes),
        )

    def stopping(self, reason: BaseException) -> None:
        """Nothing more is sent."""
        kind = reason.kind if isinstance(reason, RunStopped) else type(reason).__name__
        is_wanted = kind == "interrupted"
        self.event(logging.INFO if is_wanted else logging.WARNING, "stopping", kind=kind, message=_cut(str(reason)))

    def broke(self, error: BaseException) -> None:
        """Something went wrong that is no answer of the endpoint: a store that is full, a source that raises, a bug."""
        if isinstance(error, RunStopped):
            return
        log_error(error, self.run)

    # -- calls -----------------------------------------------------------------------------------------------------

    def call_ended(
        self,
        sent: Sending,
        outcome: Completion | Fault,
        verdict: Verdict,
        usage: Usage,
        *,
        purpose: str,
        latency_s: float,
    ) -> None:
        """A call came to this: one event, and of one that went well no more than a line for the curious."""
        is_bad = verdict.fatal or bool(verdict.failed)
        level = logging.WARNING if is_bad else logging.INFO if verdict.cause else logging.DEBUG
        if not LOGGER.isEnabledFor(level):
            return
        fault = outcome if isinstance(outcome, Fault) else None
        fields: dict[str, Any] = {
            "call": sent.number,
            "purpose": purpose,
            "size": len(sent.ids),
            "accepted": len(verdict.accepted),
            "latency_s": round(latency_s, 4),
            "status": 200 if fault is None else fault.status,
            "outcome": verdict.cause or "ok",
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "output_tokens": usage.output_tokens,
        }
        if verdict.cause:
            fields |= _trouble(sent, outcome, verdict)
        self.event(level, "call-ended", **fields)

    def call_given_up(self, sent: Sending, latency_s: float) -> None:
        """A stop at once left a call without its reply."""
        self.event(logging.INFO, "call-given-up", call=sent.number, size=len(sent.ids), latency_s=round(latency_s, 4))

    def refused(self, failures: Sequence[tuple[Any, str, str]]) -> None:
        """Records that were not sent at all. :param failures: id, kind and message of each."""
        if failures:
            self.event(logging.WARNING, "records-refused", count=len(failures), given_up=_given_up(failures))

    def paused(self, seconds: float, cause: str, call: int) -> None:
        """Nobody sends for so long, because of this call."""
        if seconds > 0:
            self.event(logging.INFO, "paused", seconds=round(seconds, 3), cause=cause, call=call)

    def held(self, verdict: Verdict, call: int, *, now: float) -> None:
        """The records of this call are held back for long, while others go on."""
        held_s = max((child.not_before_s - now for child in verdict.children), default=0.0)
        if held_s > _LONG_HOLD_S:
            size = sum(len(child.items) for child in verdict.children)
            self.event(logging.INFO, "held", seconds=round(held_s, 3), cause=verdict.cause, call=call, size=size)

    # -- what is found out -------------------------------------------------------------------------------------------

    def moves(self, now: float) -> None:
        """Tell what the controllers have changed since the last look. Ask `is_on` first: it reads their histories."""
        counters = self._counters
        for name, controller in (
            ("window-moved", counters.window),
            ("limit-found", counters.rate),
            ("size-moved", counters.batch_size),
            ("target-moved", counters.target),
            ("form-moved", None if counters.auditor is None else counters.auditor.forms),
        ):
            if controller is not None:
                for move in self._new(name, controller.history):
                    fields = {key: _rounded(value) for key, value in msgspec.structs.asdict(move).items()}
                    fields.pop("at_s", None)
                    self.event(logging.INFO, name, **fields)
        self._progress(now)

    def _new(self, name: str, history: Sequence[Any]) -> Iterator[Any]:
        """Moves since the last look. A controller may put one in the place of its last: that is told as one more."""
        last, newest = self._seen.get(name), history[-1] if history else None
        if newest is None or newest is last:
            return
        self._seen[name] = newest
        index = next((i for i in range(len(history) - 1, -1, -1) if history[i] is last), len(history) - 2)
        yield from history[(index + 1 if last is not None else 0) :]

    async def keep_telling(self) -> None:
        """Tell every minute how far it is, also when nothing ends in it; until cancelled."""
        while True:
            self._progress(anyio.current_time())
            await anyio.sleep_until((self._progress_s or 0.0) + _PROGRESS_EVERY_S)

    def verdict(self) -> None:
        """Tell what the guard thinks of the size in use, where that is new."""
        counters = self._counters
        if counters.auditor is None or counters.batch_size is None or not self.is_on:
            return
        verdict = counters.auditor.guard.verdict(counters.batch_size.settled_size)
        if self._seen.get("verdict") == (verdict.kind, verdict.size):
            return
        self._seen["verdict"] = verdict.kind, verdict.size
        bad = verdict.kind in ("collapsing", "changes", "worse")
        self.event(
            logging.WARNING if bad else logging.INFO, "guard-verdict",
            verdict=verdict.kind, size=verdict.size, compared=verdict.compared, says=verdict.sentence,
        )  # fmt: skip

    def _progress(self, now: float) -> None:
        if self._progress_s is None:
            self._progress_s = now
        if now < self._progress_s + _PROGRESS_EVERY_S:
            return
        self._progress_s = now
        counters = self._counters
        self.event(
            logging.INFO, "progress",
            done=counters.records_done, total=counters.records_total, failed=counters.records_failed,
            requests=counters.requests, in_flight=counters.in_flight, held_by=counters.held_by(),
            tokens=counters.tokens_input + counters.tokens_output,
        )  # fmt: skip


def log_error(error: BaseException, run: str = PROCESS) -> None:
    """An error that ends what was asked for, once; of a bug with its trace, which names places and no values."""
    if not LOGGER.isEnabledFor(logging.ERROR) or getattr(error, _TOLD, False):
        return
    setattr(error, _TOLD, True)
    fields: dict[str, Any] = {"error": type(error).__name__, "message": _cut(str(error), 4 * _MOST_TEXT)}
    if not isinstance(error, EngineError):
        fields["trace"] = traceback.format_exception(error)
    LOGGER.error(Event(name="failed", run=run, fields=fields))


def _trouble(sent: Sending, outcome: Completion | Fault, verdict: Verdict) -> dict[str, Any]:
    """What was wrong, of which records, and what is done about it."""
    said = outcome.text if isinstance(outcome, Fault) else (outcome.refusal or outcome.text)
    ids = [item.record.id for item in sent.ids.values()]
    fields: dict[str, Any] = {"remedy": remedy(verdict), "says": _cut(said), "records": ids[:_MOST_IDS]}
    if isinstance(outcome, Completion):
        fields["finish_reason"] = outcome.finish_reason
    if verdict.failed:
        fields["given_up"] = _given_up(
            [(one.item.record.id, one.error.kind, one.error.message) for one in verdict.failed]
        )
    return fields


def _given_up(failures: Sequence[tuple[Any, str, str]]) -> list[dict[str, Any]]:
    return [{"id": id_, "kind": kind, "message": _cut(message)} for id_, kind, message in failures[:_MOST_IDS]]


def _cut(text: str, most: int = _MOST_TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
