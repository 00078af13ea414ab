"""When to stop a run that cannot succeed, and how carefully to start one that might.

A run starts with two probes, one batch and one lone record, and opens when both have succeeded. What fails from the
start fails for a reason that no retry mends: it is stopped within some ten calls, not after a corpus of them.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from engine.vocabulary.config import Recovery
from engine.vocabulary.values import FaultKind

PROBES = 2
_FAILED_BATCHES = 5
_FAILED_LONE = 3
_FAILED_CALLS = 16
_OPEN_ANYWAY = 8
_MIN_ENDED = 100
_SILENT_FAULTS = 8  # faults at random in three calls of ten do that once in 15,000 starts; five in a row, once in 400
_NEVER_S = 10.0  # where nothing has worked yet: a wrong address shows soon, and a server that restarts is waited for
_PAUSED_FAULTS = 3  # in a row, before anything worked, from which on everybody pauses: a refused connection is quick
_PAUSE_BASE_S = 0.25
_PAUSE_CAP_S = 4.0
_SILENT_S = 120.0
_LIMITED_S = 600.0
_LIMITED_FAULTS = 3  # 429s in a row over that time: where each makes us wait ten minutes, eight take an hour


_PATIENCE = 5  # so many times as many barren calls where an earlier run has worked


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """The run must end: a kind for programs, a message for people."""

    kind: str
    message: str


class Brake:
    """Watches outcomes; says how many calls may be in flight while it is wary, and when to stop."""

    def __init__(self, limits: Recovery, *, needs_batch: bool = True, worked_before: bool = False) -> None:
        """
        :param needs_batch: requests hold more than one record, so a batch must be seen to work.
        :param worked_before: an earlier run had answers to this task from this model. What is left over may be just
            the records that always fail, so it takes more of them to believe that nothing works.
        """
        self._limits = limits
        self._patience = _PATIENCE if worked_before else 1
        self._accepted = self._failed = 0
        self._calls = self._barren_batches = self._barren_lone = 0
        self._batch_worked = not needs_batch
        self._lone_worked = False
        self._causes: Counter[str] = Counter()
        self._excerpts: dict[str, str] = {}
        self._faults_in_a_row: Counter[str] = Counter()
        self._quiet_since_s: float | None = None

    def __repr__(self) -> str:
        return f"Brake(open={self.is_open}, accepted={self._accepted}, failed={self._failed}, causes={self._causes})"

    @property
    def is_open(self) -> bool:
        """Whether a batch and a lone record have both succeeded (or enough of anything has).

        It closes again while the endpoint gives nothing but errors: the window is for work, not for failing faster.
        """
        both = self._batch_worked and self._lone_worked
        worked = both or (self._accepted > 0 and self._calls >= _OPEN_ANYWAY)
        return worked and not self.is_silent

    @property
    def is_silent(self) -> bool:
        """Whether the endpoint gives nothing but errors at present."""
        return self._faults_in_a_row.total() >= _SILENT_FAULTS

    @property
    def has_worked(self) -> bool:
        """Whether anything was accepted in this run."""
        return self._accepted > 0

    def pause_s(self, now: float) -> float:
        """How long nobody should send after the fault just observed.

        Without it a refused connection fails a thousand times in a second, and a restart of one second ends the run.
        Until anything worked it doubles with every fault. Later it is half of the time that nothing but errors came:
        all that was in flight when a server went away fails at once, which says no more than one of them.
        429s ask for pauses of their own.
        """
        row = self._faults_in_a_row.total()
        if not self._accepted:
            return 0.0 if row < _PAUSED_FAULTS else min(_PAUSE_CAP_S, _PAUSE_BASE_S * 2.0 ** (row - _PAUSED_FAULTS))
        limited = 2 * self._faults_in_a_row[FaultKind.RATE_LIMIT] >= row
        if limited or not self.is_silent or self._quiet_since_s is None:
            return 0.0
        return min(_PAUSE_CAP_S, max(_PAUSE_BASE_S, (now - self._quiet_since_s) / 2))

    @property
    def wants_lone(self) -> bool:
        """Whether the next new record should be asked alone, to see that this works too."""
        return not self.is_open and not self._lone_worked

    def observe_reply(self, *, size: int, accepted: int, cause: str, excerpt: str) -> None:
        """A reply came. `size` records were asked, `accepted` answered; `cause` and `excerpt` say what was wrong."""
        self._calls += 1
        self._faults_in_a_row.clear()
        self._quiet_since_s = None
        self._accepted += accepted
        if accepted:
            self._batch_worked |= size > 1
            self._lone_worked |= size == 1
            return
        self._note_barren(size, cause, excerpt)

    def observe_fault(self, kind: FaultKind, *, size: int, message: str, now: float) -> None:
        """A call brought no reply."""
        self._calls += 1
        if kind in (FaultKind.REJECTED, FaultKind.FILTERED, FaultKind.CONTEXT):
            self._note_barren(size, kind, message)
            return
        if kind is FaultKind.UNSUPPORTED:
            return
        self._faults_in_a_row[kind] += 1
        self._causes[kind] += 1
        self._excerpts[kind] = message
        if self._quiet_since_s is None:
            self._quiet_since_s = now

    def observe_failed(self, count: int) -> None:
        """`count` records were given up."""
        self._failed += count

    def _note_barren(self, size: int, cause: str, excerpt: str) -> None:
        self._causes[cause] += 1
        self._excerpts[cause] = excerpt
        if size > 1:
            self._barren_batches += 1
        else:
            self._barren_lone += 1

    def stop(self, now: float) -> Stop | None:
        """The reason to end the run now, if there is one."""
        return self._never_worked() or self._gone_silent(now) or self._too_many_failed()

    def _never_worked(self) -> Stop | None:
        lone, batches = self._barren_lone // self._patience, self._barren_batches // self._patience
        told = lone >= min(self._limits.lone_attempts, _FAILED_LONE)
        enough = told and (batches >= _FAILED_BATCHES or lone >= 2 * _FAILED_LONE)
        if self._accepted or not (enough or (lone and lone + batches >= _FAILED_CALLS)):
            return None
        cause, count = self._causes.most_common(1)[0]
        return Stop(
            kind="brake",
            message=f"nothing has worked in {self._calls} calls, {count} of them: {cause}. "
            f"The endpoint's words: {self._excerpts[cause][:400]!r}",
        )

    def _gone_silent(self, now: float) -> Stop | None:
        count = self._faults_in_a_row.total()
        if self._quiet_since_s is None or not count:
            return None
        quiet_s = now - self._quiet_since_s
        cause, _ = self._faults_in_a_row.most_common(1)[0]
        limited = cause == FaultKind.RATE_LIMIT
        waited_out = limited and count >= _LIMITED_FAULTS and quiet_s >= _LIMITED_S
        if count < _SILENT_FAULTS and not waited_out:
            return None
        patience_s = _LIMITED_S if limited else _SILENT_S
        never_s = _LIMITED_S / 5 if limited else _NEVER_S
        if quiet_s < (patience_s if self._accepted else never_s):
            return None
        return Stop(
            kind="endpoint",
            message=f"the endpoint has given nothing but errors for {quiet_s:.0f} s "
            f"({count} in a row, mostly {cause}): {self._excerpts[cause][:400]}{self._hint(cause)}",
        )

    def _hint(self, cause: str) -> str:
        unreachable = cause == FaultKind.TRANSPORT and not self._accepted
        unreachable = unreachable and "the reply is longer than" not in self._excerpts[cause]  # a server said that
        return ". Is the server running, and base_url (--base-url) its address and port?" if unreachable else ""

    def _too_many_failed(self) -> Stop | None:
        ended = self._accepted + self._failed
        if ended < _MIN_ENDED or self._failed <= self._limits.max_failed * ended:
            return None
        cause, _ = self._causes.most_common(1)[0] if self._causes else ("unknown", 0)
        return Stop(
            kind="brake",
            message=f"{self._failed} of {ended} records failed, more than max_failed={self._limits.max_failed:g} "
            f"(--max-failed) allows; the commonest cause is {cause}: {self._excerpts.get(cause, '')[:400]!r}",
        )
