"""The run store: what was asked, what was answered, what it cost. SQLite; the truth that output files are made from.

What survives what: every transaction is committed with ``synchronous=FULL`` in WAL mode, so an answer that was
published survives a killed process and a lost machine. See docs/design/store.md.
"""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.adapters.files.atomic import sync_if_there
from engine.adapters.store.holder import Hold
from engine.adapters.store.in_flight import InFlightFile, SentRow
from engine.adapters.store.rows import (
    ANSWER_COLUMNS,
    BALLOT_COLUMNS,
    INPUT_COLUMNS,
    INSERT_ANSWER,
    INSERT_BALLOT,
    INSERT_CALL,
    KEEP_ANSWER,
    AnswerRow,
    BallotRow,
    CallRow,
    Duplicate,
    Found,
    InputRow,
    OutputRow,
    SecondRun,
    Spent,
    answer_values,
    ballot_values,
    call_values,
    input_values,
    noted_failures,
    read_answer,
    read_ballot,
    read_input,
)
from engine.adapters.store.run_rows import (
    SEALED_OF_RUN,
    SEALED_OF_SETTINGS,
    SecondPart,
    check_runs,
    check_same,
    check_settings,
    complete_list,
    insert_run,
    insert_settings,
    known_settings,
)
from engine.adapters.store.schema import check_whole
from engine.adapters.store.translate import Conflict, Damaged, NotByRun, translated
from engine.vocabulary.errors import StoreError


class RunStore:
    """A run store. Its methods block and may be called from any one thread at a time."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path | None,
        hold: Hold | None,
        in_flight: InFlightFile | None = None,
    ) -> None:
        """Use `open_store` or `temporary_store`."""
        self._db = connection
        self.path = path
        self._hold = hold
        self._files = () if hold is None or path is None else (path.resolve(), Path(f"{path.resolve()}-wal"))
        self._in_flight = in_flight
        self._guard = threading.Lock()
        self._has_ballots: bool | None = None  # not known yet

    def __repr__(self) -> str:
        return f"RunStore({str(self.path) if self.path else 'temporary'!r})"

    def close(self) -> None:
        """Close the file and let others have it."""
        try:
            with self._guard, translated(self.path):
                self._db.close()
                if self._in_flight is not None:
                    self._in_flight.close()
        finally:
            if self._hold is not None:
                self._hold.release()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard, translated(self.path):
            try:
                self._db.execute("BEGIN IMMEDIATE")  # which may fail and have begun all the same
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    # -- settings and runs -------------------------------------------------------------------------------------

    def settings(self, *, task_key: str, model: str, task: str, allow_change: bool = False) -> int:
        """The id of this task on this model.

        :raises StoreError: when the store belongs to another task or model and a change was not asked for.
        """
        with self._transaction() as db:
            known = known_settings(db, self.path, task_key=task_key, model=model, task=task)
            if not allow_change:
                check_same(db, self.path, known, task_key=task_key, model=model)
            return known or insert_settings(db, task_key=task_key, model=model, task=task)

    def begin_run(
        self, *, settings_id: int, started_at: float, config: str, first_run: int | None = None,
        below: float | None = None, second: SecondPart | None = None,
    ) -> int:  # fmt: skip
        """Note a new run.

        :param first_run: the run whose answers with a confidence under `below` this one gives anew.
        :param second: what a second model is to have of it: noted with it, under the next number, or an export between
            would not know of it.
        """
        with self._transaction() as db:
            run_id = insert_run(
                db, settings_id=settings_id, started_at=started_at, config=config, first_run=first_run, below=below
            )
            if second is not None:
                insert_run(
                    db, settings_id=second.settings_id, started_at=started_at, config=second.config, first_run=run_id,
                    below=second.below,
                )  # fmt: skip
            return run_id

    def complete_inputs(self, run_id: int) -> None:
        """A run's list of inputs is complete: drop those of runs before it that have ended, in the same transaction."""
        with self._transaction() as db:
            complete_list(db, run_id)
            ended = "SELECT id FROM runs WHERE status IS NOT NULL AND id < ?"
            db.execute(f"DELETE FROM inputs WHERE run_id IN ({ended})", (run_id,))

    def forget_run(self, run_id: int) -> None:
        """Take back a run whose input turned out to be unusable, before anything was asked."""
        with self._transaction() as db:
            db.execute("DELETE FROM inputs WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM runs WHERE id = ?1 OR first_run = ?1", (run_id,))

    def end_run(self, run_id: int, *, ended_at: float, status: str) -> None:
        """Note how a run ended."""
        with self._transaction() as db:
            of_it = "id = ?3 OR first_run = ?3 AND status IS NULL"  # a second model's part that never began
            db.execute(f"UPDATE runs SET ended_at = ?1, status = ?2 WHERE {of_it}", (ended_at, status, run_id))

    def next_call_id(self) -> int:
        """The number after the highest call stored."""
        return int(self._one("SELECT coalesce(max(id), 0) + 1 FROM calls"))

    # -- inputs ------------------------------------------------------------------------------------------------

    def add_inputs(self, run_id: int, rows: Sequence[InputRow]) -> list[Duplicate]:
        """Note records of the input. One whose id has occurred before is noted as broken, and returned."""
        values = [input_values(run_id, row) for row in rows]
        try:
            with self._transaction() as db:
                db.executemany(_INSERT_INPUT, values)
        except Conflict:
            return self._add_one_by_one(run_id, rows, values)
        return []

    def _add_one_by_one(
        self, run_id: int, rows: Sequence[InputRow], values: Sequence[tuple[Any, ...]]
    ) -> list[Duplicate]:
        duplicates: list[Duplicate] = []
        with self._transaction() as db:
            for row, value in zip(rows, values, strict=True):
                try:
                    db.execute(_INSERT_INPUT, value)
                except sqlite3.IntegrityError:
                    duplicates.append(_note_duplicate(db, run_id, row))
        return duplicates

    def broken_inputs(self, run_id: int, rows: Sequence[InputRow]) -> dict[int, str]:
        """Positions, of records noted before, that cannot be used: a second of its id, or not the record noted."""
        noted = {
            position: (digest, error)
            for position, digest, error in self.query(
                "SELECT position, digest, error FROM inputs WHERE run_id = ? AND position BETWEEN ? AND ?",
                (run_id, rows[0].position, rows[-1].position),
            )
        }
        broken: dict[int, str] = {}
        for row in rows:
            digest, error = noted.get(row.position, (None, "the input changed while it was read"))
            if error is None and digest != row.digest:
                error = "the input changed while it was read"
            if error is not None:
                broken[row.position] = error
        return broken

    # -- answers -----------------------------------------------------------------------------------------------

    def find(self, settings_id: int, *, keys: Sequence[str], digests: Sequence[bytes]) -> Found:
        """What is known of these records; call it with some hundreds at a time."""
        by_key: dict[str, list[AnswerRow]] = {}
        by_digest: dict[bytes, AnswerRow] = {}
        broken: list[tuple[Any, ...]] = []

        def read(sql: str, values: Sequence[Any]) -> Iterator[AnswerRow]:
            for row in self._db.execute(f"SELECT {ANSWER_COLUMNS} FROM answers {sql}", values):
                try:
                    yield read_answer(row)
                except Damaged:
                    broken.append((settings_id, *row[:2]))

        with self._guard, translated(self.path):
            for answer in read(f"WHERE settings_id = ? AND key IN ({_marks(keys)})", (settings_id, *keys)):
                by_key.setdefault(answer.key, []).append(answer)
                if answer.ok and not answer.redo:
                    by_digest[answer.digest] = answer
            # The index is named, since SQLite without statistics takes the primary key's prefix for as good and reads
            # every answer; and it is asked for one at a time, since a text may have been answered for many records.
            sql = "INDEXED BY answers_digest WHERE digest = ? AND settings_id = ? AND ok = 1 AND redo = 0 LIMIT 1"
            for digest in set(digests) - by_digest.keys():
                for answer in read(sql, (digest, settings_id)):
                    by_digest[digest] = answer
        if broken:
            self._throw_away(broken)
        ballots = self._ballots(settings_id, keys) if self._may_have_ballots() else {}
        return Found(by_key=by_key, by_digest=by_digest, damaged=len(broken), ballots=ballots)

    def _may_have_ballots(self) -> bool:
        """Whether records have ever been asked several times here; a store of plain runs pays nothing for it."""
        if self._has_ballots is None:
            self._has_ballots = bool(self.query("SELECT 1 FROM ballots LIMIT 1"))
        return self._has_ballots

    def _ballots(self, settings_id: int, keys: Sequence[str]) -> dict[str, list[BallotRow]]:
        """Answers of earlier rounds. One that is damaged counts for nothing: its round is asked again."""
        by_key: dict[str, list[BallotRow]] = {}
        sql = f"SELECT {BALLOT_COLUMNS} FROM ballots WHERE settings_id = ? AND key IN ({_marks(keys)}) ORDER BY round"
        for row in self.query(sql, (settings_id, *keys)):
            with contextlib.suppress(Damaged):
                ballot = read_ballot(row)
                by_key.setdefault(ballot.key, []).append(ballot)
        return by_key

    def _throw_away(self, keys: Sequence[tuple[Any, ...]]) -> None:
        """Damaged answers: they say nothing, and would stand in the way of new ones."""
        with self._transaction() as db:
            db.executemany("DELETE FROM answers WHERE settings_id = ? AND key = ? AND digest = ?", keys)

    def write(
        self, run_id: int, settings_id: int, calls: Sequence[CallRow], answers: Sequence[AnswerRow],
        ballots: Sequence[BallotRow] = (),
    ) -> None:  # fmt: skip
        """Store calls and what they settled, in one durable transaction.

        An ok answer replaces what was there; a failure never replaces an ok answer. Either ends its record's votes.
        """
        self._check_there()
        if ballots:
            self._has_ballots = True
        ended = [(settings_id, row.key, row.digest) for row in answers] if self._may_have_ballots() else ()
        failed = [(settings_id, row.key, row.digest) for row in answers if not row.ok]
        with self._transaction() as db:
            db.executemany(INSERT_CALL, [call_values(run_id, call) for call in calls])
            db.executemany(INSERT_BALLOT, [ballot_values(settings_id, ballot) for ballot in ballots])
            db.executemany(INSERT_ANSWER, [answer_values(run_id, settings_id, answer) for answer in answers])
            db.executemany(KEEP_ANSWER, failed)
            db.executemany("DELETE FROM ballots WHERE settings_id = ? AND key = ? AND digest = ?", ended)

    def _check_there(self) -> None:
        """A file that was removed goes on taking answers until it is closed, and then they are nowhere."""
        for there in self._files:
            if not there.exists():
                raise NotByRun(_removed(there, *self._files))

    def note_sent(self, sent: SentRow) -> None:
        """A request goes out: a killed process leaves it to the next one. Microseconds; call it on the event loop."""
        if self._in_flight is not None:
            with translated(self.path):
                self._in_flight.note(sent)

    def note_ended(self, call_id: int) -> None:
        """The call that the request came to has been written."""
        if self._in_flight is not None:
            self._in_flight.forget(call_id)

    def spent(self, model: str | None = None) -> Spent:
        """What all calls to a model, or to any, took, over all runs and tasks in this store."""
        columns = ", ".join(f"total({name})" for name in Spent.__struct_fields__)
        rows = self.query(
            f"SELECT {columns} FROM settings JOIN runs ON runs.settings_id = settings.id "
            "JOIN calls ON calls.run_id = runs.id WHERE ?1 IS NULL OR settings.model = ?1",
            (model,),
        )
        return Spent(**dict(zip(Spent.__struct_fields__, map(int, rows[0]), strict=True)))

    def has_answers(self, settings_id: int) -> bool:
        """Whether any record was annotated."""
        rows = self.query("SELECT 1 FROM answers WHERE settings_id = ? AND ok = 1 LIMIT 1", (settings_id,))
        return bool(rows)

    def mark_redo(self, settings_id: int, where: str, values: Sequence[Any]) -> int:
        """Mark answers to be asked again by the next run. They stay the answers until a new one is there."""
        with self._transaction() as db:
            sql = f"UPDATE answers SET redo = 1 WHERE settings_id = ? AND ({where})"
            return db.execute(sql, (settings_id, *values)).rowcount

    def clear_redo(self, settings_id: int) -> int:
        """Take the mark off answers that are ok; the number of them."""
        with self._transaction() as db:
            sql = "UPDATE answers SET redo = 0 WHERE settings_id = ? AND redo > 0 AND ok = 1"
            return db.execute(sql, (settings_id,)).rowcount

    def put_back(self, table: str, rows: Sequence[Sequence[Any]]) -> int:
        """Rows of a damaged store, as they were there; the number of those that were not here yet."""
        with self._transaction() as db:
            before = db.total_changes
            db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({_marks(rows[0])})", rows)
            return db.total_changes - before

    # -- reading -----------------------------------------------------------------------------------------------

    def outputs(self, run_id: int, settings_id: int, *, second: SecondRun | None = None) -> Iterator[OutputRow]:
        """Every record of the run's input in order, beside its answer, and that of the second model."""
        of_second = () if second is None else _of("b", ANSWER_COLUMNS)
        columns = ", ".join([*_of("i", INPUT_COLUMNS), *_of("a", ANSWER_COLUMNS), *of_second])
        sql = (
            f"SELECT {columns} FROM inputs i "
            "LEFT JOIN answers a ON a.settings_id = ?2 AND a.key = i.key AND a.digest = i.digest "
            "LEFT JOIN answers b ON b.settings_id = ?3 AND b.key = i.key AND b.digest = i.digest "
            "WHERE i.run_id = ?1 ORDER BY i.position"
        )
        split = INPUT_COLUMNS.count(",") + 1
        end = split + ANSWER_COLUMNS.count(",") + 1
        with translated(self.path):
            for row in self._db.execute(sql, (run_id, settings_id, second.settings_id if second else None)):
                yield OutputRow(
                    record=read_input(row[:split]),
                    answer=None if row[split] is None else read_answer(row[split:end]),
                    second=None if second is None or row[end] is None else read_answer(row[end:]),
                )

    def second_run(self, run_id: int) -> SecondRun | None:
        """What a second model had of a run; None where none was asked."""
        self.check_runs()
        rows = self.query(
            "SELECT b.settings_id, b.below, b.config, s.model, t.model, s.id FROM runs b "
            "JOIN runs a ON a.id = b.first_run "
            "JOIN settings s ON s.id = a.settings_id JOIN settings t ON t.id = b.settings_id "
            "WHERE b.first_run = ? ORDER BY b.id DESC LIMIT 1",
            (run_id,),
        )
        if not rows:
            return None
        settings_id, below, note, first_model, model, first_settings = rows[0]
        self.check_settings(first_settings, settings_id)
        return SecondRun(
            settings_id=settings_id, below=below, failures=noted_failures(note), first_model=first_model, model=model
        )

    def check_whole(self) -> None:
        """Look whether every page of the file is where it should be; half a second for a million records.

        Call it before rows are given out: what a killed process left in the log, and the disk may lack, is synced.

        :raises StoreError: not so.
        """
        with self._guard, translated(self.path):
            if self._hold is None and self.path is not None:  # else a commit of ours has done it
                sync_if_there(Path(f"{self.path.resolve()}-wal"))
            check_whole(self._db, self.path)

    def check_runs(self) -> None:
        """Look at the seal of every run: which of them has a list of inputs, and which a second model's part.

        :raises StoreError: one is not what was written.
        """
        check_runs(self.query(f"SELECT {SEALED_OF_RUN} FROM runs"), self.path)

    def check_settings(self, *ids: int) -> None:
        """Look at the seals of these settings.

        :raises StoreError: one is not what was written.
        """
        sql = f"SELECT {SEALED_OF_SETTINGS} FROM settings WHERE id IN ({_marks(ids)})"
        check_settings(self.query(sql, ids), self.path)

    def check_answers(self) -> None:
        """Look at the seal of every answer, whichever record it says that it belongs to.

        An answer whose key is damaged is found by no record, so that nobody else would meet it.

        :raises StoreError: one is not what was written.
        """
        with self._guard, translated(self.path):
            for row in self._db.execute(f"SELECT {ANSWER_COLUMNS} FROM answers"):
                read_answer(row)

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read-only question; for reports and `annotate show`."""
        with self._guard, translated(self.path):
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.query(sql, values)[0][0]


def _removed(gone: Path, store: Path, log: Path) -> str:
    said = f"{gone} was removed while the run went on, so that nothing more can be kept in it. "
    if store.exists():
        return f"{said}The same command goes on with what is in {store}, and asks again for what was in its log only"
    begin = f"rm -f {shlex.quote(str(log))}"
    return (
        f"{said}Put a copy of it in its place; or, to begin anew by the same command, everything asked again: {begin}"
    )


_INSERT_INPUT = "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def _note_duplicate(db: sqlite3.Connection, run_id: int, row: InputRow) -> Duplicate:
    first = db.execute("SELECT line FROM inputs WHERE run_id = ? AND key = ?", (run_id, row.key)).fetchone()
    if first is None:
        raise StoreError(f"position {row.position} of the input was noted twice")
    error = f"the id {row.id} stands in line {first[0]} already"
    twin = InputRow(position=row.position, line=row.line, id=row.id, key=None, digest=None, error=error)
    db.execute(_INSERT_INPUT, input_values(run_id, twin))
    return Duplicate(id=row.id, position=row.position, line=row.line, first_line=first[0])


def _of(table: str, columns: str) -> list[str]:
    return [f"{table}.{name.strip()}" for name in columns.split(",")]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
