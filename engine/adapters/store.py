"""The run store: what was asked, what was answered, what it cost. SQLite; the truth that output files are made from.

What survives what: every transaction is committed with ``synchronous=FULL`` in WAL mode, so an answer that was
published survives a killed process and a lost machine. See docs/design/store.md.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import msgspec

from engine.vocabulary.errors import StoreError

VERSION = 1
APPLICATION_ID = 0x616E6E6F  # "anno"
RAW_LIMIT = 64_000
"""Characters of the raw reply of a failed call that are kept."""

_SCHEMA = """
CREATE TABLE settings (
    id INTEGER PRIMARY KEY, task_key TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL,
    UNIQUE (task_key, model));
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, settings_id INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, status TEXT,
    config TEXT NOT NULL);
-- What the newest run's input holds, in order: duplicates are found, outputs ordered and exports made from it.
CREATE TABLE inputs (
    run_id INTEGER NOT NULL, position INTEGER NOT NULL, line INTEGER NOT NULL, id TEXT NOT NULL, key TEXT,
    digest BLOB, error TEXT, PRIMARY KEY (run_id, position)) WITHOUT ROWID;
CREATE UNIQUE INDEX inputs_key ON inputs (run_id, key) WHERE key IS NOT NULL;
CREATE TABLE answers (
    settings_id INTEGER NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, ok INTEGER NOT NULL, output TEXT,
    error_kind TEXT, error_message TEXT, calls TEXT NOT NULL, batch_size INTEGER NOT NULL, form TEXT NOT NULL,
    run_id INTEGER NOT NULL, answered_at REAL NOT NULL, latency_s REAL NOT NULL, copied INTEGER NOT NULL,
    redo INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (settings_id, key, digest)) WITHOUT ROWID;
-- Only of answers that may be copied: the first that it gives is one.
CREATE INDEX answers_digest ON answers (digest, settings_id) WHERE ok = 1 AND redo = 0;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL, sent_at REAL NOT NULL, latency_s REAL NOT NULL,
    size INTEGER NOT NULL, accepted INTEGER NOT NULL, status INTEGER NOT NULL, outcome TEXT NOT NULL,
    finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL, message TEXT, raw TEXT);
"""


class CallRow(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP attempt. `outcome` is ``ok`` or the cause why not every record was answered.

    :ivar status: of the HTTP reply; 0 when there was none.
    :ivar raw: the reply's text where the outcome is not ``ok``.
    """

    id: int
    sent_at: float
    latency_s: float
    size: int
    accepted: int
    status: int
    outcome: str
    finish_reason: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    message: str | None = None
    raw: str | None = None


class AnswerRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record: `output` as JSON text, or an error.

    :ivar copied: taken over from an identical input instead of being asked for.
    """

    key: str
    digest: bytes
    output: str | None
    error_kind: str | None = None
    error_message: str | None = None
    calls: tuple[int, ...] = ()
    batch_size: int = 0
    form: str = "compact"
    answered_at: float = 0.0
    latency_s: float = 0.0
    copied: bool = False
    redo: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is an output."""
        return self.error_kind is None


class InputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the input: `id` as JSON text; `key` and `digest` are None where `error` says why."""

    position: int
    line: int
    id: str
    key: str | None
    digest: bytes | None
    error: str | None = None


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """An id that occurs twice in one input."""

    id: str
    position: int
    line: int
    first_line: int


class OutputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the input beside what became of it; `answer` is None while nothing has."""

    record: InputRow
    answer: AnswerRow | None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of some records.

    :ivar by_key: key -> its answers, one for each text that the record has had.
    :ivar by_digest: digest -> an ok answer to the same input, whoever asked.
    """

    by_key: dict[str, list[AnswerRow]]
    by_digest: dict[bytes, AnswerRow]


ANSWER_COLUMNS = (
    "key, digest, output, error_kind, error_message, calls, batch_size, form, answered_at, latency_s, copied, redo"
)


class RunStore:
    """A run store. Its methods block and may be called from any one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, lock: filelock.BaseFileLock | None) -> None:
        """Use `open_store` or `temporary_store`."""
        self._db = connection
        self.path = path
        self._lock = lock
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"RunStore({str(self.path) if self.path else 'temporary'!r})"

    def close(self) -> None:
        """Close the file and let others have it."""
        try:
            with self._guard, _translated(self.path):
                self._db.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
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
            row = db.execute("SELECT id FROM settings WHERE task_key = ? AND model = ?", (task_key, model)).fetchone()
            if row:
                return int(row[0])
            others = db.execute("SELECT task_key, model FROM settings").fetchall()
            if others and not allow_change:
                raise StoreError(_changed(self.path, others, task_key, model))
            cursor = db.execute(
                "INSERT INTO settings (task_key, model, task) VALUES (?, ?, ?)", (task_key, model, task)
            )
            return int(cursor.lastrowid or 0)

    def begin_run(self, *, settings_id: int, started_at: float, config: str) -> int:
        """Note a new run."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO runs (settings_id, started_at, config) VALUES (?, ?, ?)",
                (settings_id, started_at, config),
            )
            return int(cursor.lastrowid or 0)

    def drop_ended_inputs(self) -> None:
        """Drop the lists of inputs of runs that have ended; call it when a newer one is complete."""
        with self._transaction() as db:
            db.execute("DELETE FROM inputs WHERE run_id IN (SELECT id FROM runs WHERE status IS NOT NULL)")

    def forget_run(self, run_id: int) -> None:
        """Take back a run whose input turned out to be unusable, before anything was asked."""
        with self._transaction() as db:
            db.execute("DELETE FROM inputs WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM runs WHERE id = ?", (run_id,))

    def end_run(self, run_id: int, *, ended_at: float, status: str) -> None:
        """Note how a run ended."""
        with self._transaction() as db:
            db.execute("UPDATE runs SET ended_at = ?, status = ? WHERE id = ?", (ended_at, status, run_id))

    def next_call_id(self) -> int:
        """The number after the highest call stored."""
        return int(self._one("SELECT coalesce(max(id), 0) + 1 FROM calls"))

    # -- inputs ------------------------------------------------------------------------------------------------

    def add_inputs(self, run_id: int, rows: Sequence[InputRow]) -> list[Duplicate]:
        """Note records of the input. One whose id has occurred before is noted as broken, and returned."""
        values = [(run_id, row.position, row.line, row.id, row.key, row.digest, row.error) for row in rows]
        try:
            with self._transaction() as db:
                db.executemany(_INSERT_INPUT, values)
        except _Conflict:
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
        with self._guard, _translated(self.path):
            sql = f"SELECT {ANSWER_COLUMNS} FROM answers WHERE settings_id = ? AND key IN ({_marks(keys)})"
            for row in self._db.execute(sql, (settings_id, *keys)):
                answer = read_answer(row)
                by_key.setdefault(answer.key, []).append(answer)
                if answer.ok and not answer.redo:
                    by_digest[answer.digest] = answer
            # The index is named, since SQLite without statistics takes the primary key's prefix for as good and reads
            # every answer; and it is asked for one at a time, since a text may have been answered for many records.
            sql = (
                f"SELECT {ANSWER_COLUMNS} FROM answers INDEXED BY answers_digest "
                "WHERE digest = ? AND settings_id = ? AND ok = 1 AND redo = 0 LIMIT 1"
            )
            for digest in set(digests) - by_digest.keys():
                for row in self._db.execute(sql, (digest, settings_id)):
                    by_digest[digest] = read_answer(row)
        return Found(by_key=by_key, by_digest=by_digest)

    def write(self, run_id: int, settings_id: int, calls: Sequence[CallRow], answers: Sequence[AnswerRow]) -> None:
        """Store calls and what they settled, in one durable transaction.

        An ok answer replaces what was there; a failure never replaces an ok answer.
        """
        with self._transaction() as db:
            db.executemany(_INSERT_CALL, [_call_values(run_id, call) for call in calls])
            db.executemany(_UPSERT_ANSWER, [_answer_values(run_id, settings_id, answer) for answer in answers])

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
            sql = "UPDATE answers SET redo = 0 WHERE settings_id = ? AND redo = 1 AND ok = 1"
            return db.execute(sql, (settings_id,)).rowcount

    # -- reading -----------------------------------------------------------------------------------------------

    def outputs(self, run_id: int, settings_id: int) -> Iterator[OutputRow]:
        """Every record of the run's input in order, beside its answer."""
        columns = ", ".join(f"a.{name.strip()}" for name in ANSWER_COLUMNS.split(","))
        sql = (
            f"SELECT i.position, i.line, i.id, i.key, i.digest, i.error, {columns} FROM inputs i "
            "LEFT JOIN answers a ON a.settings_id = ? AND a.key = i.key AND a.digest = i.digest "
            "WHERE i.run_id = ? ORDER BY i.position"
        )
        with _translated(self.path):
            for row in self._db.execute(sql, (settings_id, run_id)):
                position, line, id_, key, digest, error = row[:6]
                record = InputRow(position=position, line=line, id=id_, key=key, digest=digest, error=error)
                yield OutputRow(record=record, answer=None if row[6] is None else read_answer(row[6:]))

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read-only question; for reports and `annotate show`."""
        with self._guard, _translated(self.path):
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return self.query(sql, values)[0][0]


_INSERT_INPUT = "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_CALL = f"INSERT INTO calls VALUES ({', '.join('?' * 15)})"
_UPSERT_ANSWER = f"""
INSERT INTO answers VALUES ({", ".join("?" * 15)})
ON CONFLICT (settings_id, key, digest) DO UPDATE SET
    ok = excluded.ok, output = excluded.output, error_kind = excluded.error_kind,
    error_message = excluded.error_message, calls = excluded.calls, batch_size = excluded.batch_size,
    form = excluded.form, run_id = excluded.run_id, answered_at = excluded.answered_at,
    latency_s = excluded.latency_s, copied = excluded.copied, redo = 0
WHERE excluded.ok = 1 OR answers.ok = 0
"""


def _call_values(run_id: int, call: CallRow) -> tuple[Any, ...]:
    raw = None if call.raw is None else _whole(call.raw[:RAW_LIMIT])
    return (
        call.id, run_id, call.sent_at, call.latency_s, call.size, call.accepted, call.status, call.outcome,
        call.finish_reason, call.input_tokens, call.cached_tokens, call.output_tokens, int(call.estimated),
        call.message and _whole(call.message), raw,
    )  # fmt: skip


def _answer_values(run_id: int, settings_id: int, answer: AnswerRow) -> tuple[Any, ...]:
    return (
        settings_id, answer.key, answer.digest, int(answer.ok), answer.output, answer.error_kind,
        answer.error_message and _whole(answer.error_message), msgspec.json.encode(answer.calls).decode(),
        answer.batch_size, answer.form, run_id, answer.answered_at, answer.latency_s, int(answer.copied), 0,
    )  # fmt: skip


def _whole(text: str) -> str:
    """The text with half characters (lone surrogates) replaced, which SQLite does not take."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def read_answer(row: Sequence[Any]) -> AnswerRow:
    """The answer in a row of `ANSWER_COLUMNS`."""
    key, digest, output, kind, message, calls, size, form, answered_at, latency_s, copied, redo = row
    return AnswerRow(
        key=key,
        digest=digest,
        output=output,
        error_kind=kind,
        error_message=message,
        calls=msgspec.json.decode(calls, type=tuple[int, ...]),
        batch_size=size,
        form=form,
        answered_at=answered_at,
        latency_s=latency_s,
        copied=bool(copied),
        redo=bool(redo),
    )


def _note_duplicate(db: sqlite3.Connection, run_id: int, row: InputRow) -> Duplicate:
    first = db.execute("SELECT line FROM inputs WHERE run_id = ? AND key = ?", (run_id, row.key)).fetchone()
    if first is None:
        raise StoreError(f"position {row.position} of the input was noted twice")
    error = f"the id {row.id} stands in line {first[0]} already"
    db.execute("INSERT INTO inputs VALUES (?, ?, ?, ?, NULL, NULL, ?)", (run_id, row.position, row.line, row.id, error))
    return Duplicate(id=row.id, position=row.position, line=row.line, first_line=first[0])


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _changed(path: Path | None, others: Iterable[tuple[str, str]], task_key: str, model: str) -> str:
    models = sorted({other_model for other_key, other_model in others if other_key == task_key})
    what = f"model {models[0]!r}, not {model!r}" if models else "another task"
    return (
        f"{path} holds answers of {what}. Use another --output or --store; or --allow-change, to keep both in "
        "this store and go on with the new one"
    )


# -- opening ---------------------------------------------------------------------------------------------------


def open_store(path: str | os.PathLike[str]) -> RunStore:
    """Open or create a run store, for this process alone. A new file is readable by its owner only.

    :raises StoreError: another process has it, it is no run store, or a newer version made it.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise StoreError(
            f"the folder of the run store does not exist: {file.parent}. Create it, or use another --store"
        )
    if file.is_dir():
        raise StoreError(f"the run store {file} is a folder; name a file with --store")
    with contextlib.ExitStack() as opened:
        lock = _locked(file)
        opened.callback(lock.release)
        with _translated(file):
            if not file.exists():
                os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
            db = _connect(file)
            opened.callback(db.close)
            _prepare(db, file)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            # We hold the lock, so a run without an end is one that was killed.
            db.execute("UPDATE runs SET status = 'killed' WHERE status IS NULL")
        opened.pop_all()
    return RunStore(db, file, lock)


def read_store(path: str | os.PathLike[str]) -> RunStore:
    """Open an existing store for reading, also while a run writes to it.

    :raises StoreError: there is none, or it is not a run store.
    """
    file = Path(path)
    if not file.is_file():
        raise StoreError(f"there is no run store at {file}")
    with contextlib.ExitStack() as opened, _translated(file):
        db = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
        )
        opened.callback(db.close)
        _check(db, file)
        opened.pop_all()
    return RunStore(db, file, None)


def temporary_store() -> RunStore:
    """A store for one process, on disk so that memory stays flat, gone when it is closed."""
    db = _connect("")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA journal_mode = MEMORY")
    _prepare(db, Path("temporary"))
    return RunStore(db, None, None)


def _connect(path: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30.0)


def _locked(file: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(f"{file.resolve()}.lock", timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(f"{file} is in use by another run; wait for it, or stop it") from None
    except OSError as error:
        raise StoreError(f"the run store {file} cannot be locked: {error}") from error
    return lock


def _prepare(db: sqlite3.Connection, file: Path) -> None:
    if (
        db.execute("PRAGMA user_version").fetchone()[0] == 0
        and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    ):
        db.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        )
    _check(db, file)


def _check(db: sqlite3.Connection, file: Path) -> None:
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION_ID:
        raise StoreError(f"{file} is {_NOT_OURS}")
    if version > VERSION:
        raise StoreError(
            f"{file} was made by a newer version of annotation-engine (store format {version}, this one knows "
            f"{VERSION}): install that version, or use another --store"
        )


_NOT_OURS = "no run store of annotation-engine; it was left as it is. Use another --output or --store"


class _Conflict(StoreError):
    """A row is there already."""


@contextlib.contextmanager
def _translated(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise _Conflict(f"the run store {path or '(temporary)'} failed: {error}") from error
    except (sqlite3.DatabaseError, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise StoreError(f"{path} is {_NOT_OURS}") from error
        raise StoreError(f"the run store {path or '(temporary)'} failed: {error}") from error
