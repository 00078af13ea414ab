"""The way in: note what the input holds, answer from the store what is known, and queue the rest."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from engine.adapters.store import AnswerRow, BallotRow, Found, InputRow, RunStore
from engine.decide.records import id_key
from engine.report.metrics import Counters
from engine.run.journal import RunSync
from engine.run.outcome import copied_row, stored_result
from engine.run.readers import Prepared
from engine.vocabulary.values import BadRecord, Item, Record, RecordError, Result

_CHANGED_LINES = 5


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a chunk of input: results that are known already, and records to be asked.

    :ivar ballots: key of a record to be asked -> its answers of earlier rounds, where there are any.
    :ivar copied: rows of results that were taken over from identical inputs, to be stored before they are given out;
        and after the fresh ones are queued, since a twin's answer may be stored at every await.
    """

    results: list[Result]
    fresh: list[Record]
    bad: list[BadRecord]
    copied: list[AnswerRow]
    ballots: dict[str, list[BallotRow]]


class _LookedUp(msgspec.Struct, frozen=True, kw_only=True):
    """What one visit to the store brought."""

    records: list[Record]
    bad: list[BadRecord]
    found: Found


class Inputs(Enum):
    """What the store is to know of the input as a whole."""

    NOTE = "note"
    """Note every record as it comes: a stream, whose ids are found to repeat only then."""
    NOTED = "noted"
    """A validating pass has noted the input already; what comes now must be the same."""
    HANDED_ON = "handed on"
    """Records that another stream has noted, and hands on."""
    IGNORE = "ignore"
    """Records of different callers: no order, no output, and ids may repeat."""


class Intake:
    """Looks records up before they are queued. One chunk at a time; owned by the pipeline's feeding task."""

    def __init__(
        self, store: RunStore, counters: Counters, *, run_id: int, settings_id: int,
        retry_failed: bool, deduplicate: bool, inputs: Inputs, run_sync: RunSync,
    ) -> None:  # fmt: skip
        self._store = store
        self._counters = counters
        self._run_id = run_id
        self._settings_id = settings_id
        self._retry_failed = retry_failed
        self._deduplicate = deduplicate
        self._inputs = inputs
        self._run_sync = run_sync
        self._settled_meanwhile: dict[bytes, AnswerRow] | None = None

    def note_settled(self, row: AnswerRow) -> None:
        """An answer was stored. A look-up under way may have read the store before it was."""
        if self._settled_meanwhile is not None and row.ok:
            self._settled_meanwhile[row.digest] = row

    async def admit(self, chunk: Sequence[Prepared]) -> Admitted:
        """Sort a chunk into known results, records to ask, and bad ones."""
        self._settled_meanwhile = {}
        looked_up: _LookedUp = await self._run_sync(lambda: self._look_up(chunk))
        meanwhile, self._settled_meanwhile = self._settled_meanwhile, None
        records, bad, found = looked_up.records, looked_up.bad, looked_up.found
        if found.damaged:
            self._counters.notice("stored answers were damaged on disk; they were thrown away and are asked for anew")
        results = [bad_result(record) for record in bad]
        fresh: list[Record] = []
        copied: list[AnswerRow] = []
        for record in records:
            own = self._own_answer(record, found)
            if own is not None:
                results.append(stored_result(record, own))
                continue
            same = found.by_digest.get(record.digest) or meanwhile.get(record.digest)
            if same is None or not self._deduplicate or self._asked_again(record, found):
                fresh.append(record)
                continue
            copied.append(copied_row(record, same))
            results.append(stored_result(record, copied[-1]))
        self._counters.records_copied += len(copied)
        return Admitted(
            results=results,
            fresh=fresh,
            bad=bad,
            copied=copied,
            ballots=_ballots(fresh, found) if found.ballots else {},
        )

    def _look_up(self, chunk: Sequence[Prepared]) -> _LookedUp:
        """Note the chunk in the store and find what is known of it. Blocks; one visit to the thread for both."""
        twice = self._unusable(chunk)
        bad = [record for record in chunk if isinstance(record, BadRecord)]
        records: list[Record] = []
        for record in chunk:
            if isinstance(record, Record):
                problem = twice.get(record.position)
                if problem is None:
                    records.append(record)
                else:
                    bad.append(BadRecord(position=record.position, line=record.line, id=record.id, message=problem))
        return _LookedUp(records=records, bad=bad, found=self._find(records))

    def _unusable(self, chunk: Sequence[Prepared]) -> dict[int, str]:
        """Positions of records that the store knows to be unusable, with the reason."""
        if self._inputs in (Inputs.IGNORE, Inputs.HANDED_ON):
            return {}
        rows = [input_row(record) for record in chunk]
        if self._inputs is Inputs.NOTED:
            return self._store.broken_inputs(self._run_id, rows)
        twins = self._store.add_inputs(self._run_id, rows)
        return {twin.position: f"the id {twin.id} stands in line {twin.first_line} already" for twin in twins}

    def _find(self, records: Sequence[Record]) -> Found:
        keys = [record.key for record in records]
        digests = [record.digest for record in records] if self._deduplicate else []
        return self._store.find(self._settings_id, keys=keys, digests=digests)

    def _own_answer(self, record: Record, found: Found) -> AnswerRow | None:
        known = found.by_key.get(record.key, ())
        own = next((row for row in known if row.digest == record.digest), None)
        if own is None:
            if known:
                self._counters.records_changed += 1
                if len(self._counters.changed_lines) < _CHANGED_LINES:
                    self._counters.changed_lines.append(record.line)
            return None
        # What was refused before it was sent is judged anew: it cost nothing, and the limits may be others now.
        again = own.redo or (not own.ok and (self._retry_failed or not own.calls))
        return None if again else own

    @staticmethod
    def _asked_again(record: Record, found: Found) -> bool:
        """Whether the user asked for this very record to be redone."""
        return any(row.digest == record.digest and row.redo for row in found.by_key.get(record.key, ()))


def _ballots(records: Sequence[Record], found: Found) -> dict[str, list[BallotRow]]:
    """Votes on the very texts that are to be asked."""
    votes = {
        record.key: [row for row in found.ballots.get(record.key, ()) if row.digest == record.digest]
        for record in records
    }
    return {key: rows for key, rows in votes.items() if rows}


def input_row(record: Prepared) -> InputRow:
    """A record of the input, as the store notes it."""
    if isinstance(record, BadRecord):
        id_ = "null" if record.id is None else id_key(record.id)
        return InputRow(position=record.position, line=record.line, id=id_, key=None, digest=None, error=record.message)
    return InputRow(position=record.position, line=record.line, id=record.key, key=record.key, digest=record.digest)


def bad_result(record: BadRecord) -> Result:
    """The result of a record that could not be used."""
    error = RecordError(kind="bad-record", message=f"line {record.line}: {record.message}")
    return Result(id=record.id, error=error, position=record.position)


def item_of(record: Record, now: float) -> Item:
    """A record at the start of its way."""
    return Item(record=record, accepted_at_s=now)
