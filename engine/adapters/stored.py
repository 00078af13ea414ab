"""What a run store holds, for people: the questions that `annotate show`, `export` and `retry` ask of it."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.store import ANSWER_COLUMNS, AnswerRow, CallRow, InputRow, RunStore, SentRow, read_answer
from engine.adapters.store.in_flight import left_over
from engine.adapters.stored_second import had_by_second, rescue_values, rescued
from engine.vocabulary.errors import ConfigError, StoreError
from engine.vocabulary.task import Task

STORE_SUFFIX = ".store.sqlite"
_NOT_JSON = (msgspec.MsgspecError, TypeError, UnicodeError)  # a TypeError where a damaged column is no text at all
_MAGIC = b"SQLite format 3\0"


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run, with the task and the model that it was done with.

    :ivar status: how it ended, ``killed`` where its process ended first; None while it goes on.
    :ivar note: what was written down about how it was started: ``task``, ``input`` and ``options`` of a command line.
    """

    id: int
    settings_id: int
    task_key: str
    model: str
    task: Task
    started_at: float
    ended_at: float | None
    status: str | None
    note: dict[str, Any]


class AnswerCount(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that ended alike. `kind` is None for those with an output."""

    kind: str | None
    count: int
    copied: int
    redo: int


class OutcomeCount(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that ended alike, with their tokens; `barren` of them brought no accepted answer.

    :ivar outcome: ``in-flight`` while they are.
    :ivar audits: of `requests`, those that only compared labels; no answer is expected of them, and nothing wasted.
    :ivar unconfirmed_input_tokens: in no other count: of requests without a reply, which may be billed all the same.
    :ivar unconfirmed_output_tokens: the most that such requests may have put out.
    """

    outcome: str
    requests: int
    barren: int = 0
    audits: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    wasted_tokens: int = 0
    reasoning_tokens: int = 0
    unconfirmed_input_tokens: int = 0
    unconfirmed_output_tokens: int = 0


class InputCount(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the records of one run's input. `unusable` ones could not be read or repeat an id."""

    total: int
    ok: int
    failed: int
    unusable: int

    @property
    def pending(self) -> int:
        """Neither answered nor failed so far."""
        return self.total - self.ok - self.failed - self.unusable


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record: where it stands in the input, if it does, and what was answered, if anything was."""

    place: InputRow | None
    answer: AnswerRow | None


def store_path(given: str) -> Path:
    """The run store that a person means by naming it, or the output file that it lies beside.

    :raises ConfigError: neither is there.
    """
    if not given:
        raise ConfigError("no run store is named; give one, or the output file that it lies beside")
    path, beside = Path(given), Path(f"{given}{STORE_SUFFIX}")
    if _is_database(path):
        return path
    if beside.is_file():
        return beside
    if not path.exists():
        raise ConfigError(f"there is neither a run store nor an output file {given}")
    if path.is_dir():
        raise ConfigError(f"{given} is a folder; give a run store in it, or the output file that it lies beside")
    raise ConfigError(
        f"{given} is not a run store, and there is none beside it ({beside.name}); give the file named by --store. "
        f"If it was one, it is damaged: annotate salvage {shlex.quote(given)} NEW"
    )


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


_RUN = (
    "SELECT r.id, r.settings_id, s.task_key, s.model, s.task, r.started_at, r.ended_at, r.status, r.config, r.inputs "
    "FROM runs r JOIN settings s ON s.id = r.settings_id"
)


def runs(store: RunStore, *, newest: int | None = None) -> list[StoredRun]:
    """So many of the newest runs, or all, the newest first; the part of a second model is no run of its own."""

    def read() -> list[StoredRun]:
        return [
            _run(store, row)
            for row in store.query(f"{_RUN} WHERE r.first_run IS NULL ORDER BY r.id DESC LIMIT ?", (limit,))
        ]

    limit = -1 if newest is None else newest
    found = read()
    if store.path is None or all(run.status is not None for run in found) or is_held(store.path):
        return found
    # Read once more: a run may have ended, and let the store go, since the first look.
    return [msgspec.structs.replace(run, status=run.status or "killed") for run in read()]


def is_held(path: Path) -> bool:
    """Whether a process writes to the store. Its lock is tried, shared and for an instant; readers never keep it."""
    try:
        lock = os.open(f"{path.resolve()}.lock", os.O_RDONLY)
    except OSError as error:
        return not isinstance(error, FileNotFoundError)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def noted_inputs(store: RunStore) -> list[str]:
    """Input files of all runs: none of them may be overwritten, however old the run."""
    try:
        notes = [msgspec.json.decode(note, type=dict[str, Any]) for (note,) in store.query("SELECT config FROM runs")]
    except _NOT_JSON as error:
        raise StoreError(f"the runs of the store {store.path} cannot be read, perhaps it is damaged: {error}") from None
    return sorted({note["input"] for note in notes if isinstance(note.get("input"), str)})


class InputList(msgspec.Struct, frozen=True, kw_only=True):
    """A list of inputs, and the run that it is of.

    :ivar inputs: how many records it has; None where it is not complete.
    :ivar goes_on: its run does, and notes a stream as it comes: what it holds so far is all that there is.
    :ivar passed_over: a newer run that ended before its list was complete.
    """

    run: StoredRun
    inputs: int | None
    goes_on: bool
    passed_over: int | None = None


def newest_list(store: RunStore) -> InputList | None:
    """The list that outputs are made from: the newest that is complete, or of a stream that goes on.

    Without any such list it is the newest that was begun.

    :raises StoreError: the row of a run is damaged.
    """
    store.check_runs()  # any of them may be the one, or its second model's part
    listed = "r.inputs IS NOT NULL OR EXISTS (SELECT 1 FROM inputs i WHERE i.run_id = r.id)"
    rows = store.query(f"{_RUN} WHERE r.first_run IS NULL AND ({listed}) ORDER BY r.id DESC")
    passed_over = None
    for row in rows:
        inputs = row[9]
        if inputs == 0:  # of an empty file; those before it are gone
            return None
        run = _run(store, row)
        goes_on = inputs is None and _is_noting_a_stream(store, run)
        if inputs is not None or goes_on:
            return InputList(run=run, inputs=inputs, goes_on=goes_on, passed_over=passed_over)
        passed_over = passed_over or run.id
    return InputList(run=_run(store, rows[0]), inputs=None, goes_on=False) if rows else None


def newest_input(store: RunStore) -> StoredRun | None:
    """The run of `newest_list`."""
    newest = newest_list(store)
    return None if newest is None else newest.run


def _is_noting_a_stream(store: RunStore, run: StoredRun) -> bool:
    """Of a file the list is complete before the first record is asked, so a part of it is nothing to write."""
    is_streamed = run.note.get("streamed") is True or run.note.get("source") == "api"
    return run.status is None and is_streamed and (store.path is None or is_held(store.path))


def _run(store: RunStore, row: Sequence[Any]) -> StoredRun:
    id_, settings_id, task_key, model, task, started_at, ended_at, status, note, _ = row
    store.check_settings(settings_id)
    try:
        return StoredRun(
            id=id_,
            settings_id=settings_id,
            task_key=task_key,
            model=model,
            task=msgspec.json.decode(task, type=Task),
            started_at=started_at,
            ended_at=ended_at,
            status=status,
            note=msgspec.json.decode(note, type=dict[str, Any]),
        )
    except _NOT_JSON as error:
        raise StoreError(
            f"run {id_} of the store {store.path} cannot be read, perhaps it is damaged or of another version: {error}"
        ) from None


def answer_counts(store: RunStore, settings_id: int) -> list[AnswerCount]:
    """How many answers ended how, those with an output first."""
    rows = store.query(
        "SELECT error_kind, count(*), sum(copied), sum(redo = 1) FROM answers WHERE settings_id = ? "
        "GROUP BY error_kind ORDER BY error_kind IS NOT NULL, count(*) DESC",
        (settings_id,),
    )
    return [AnswerCount(kind=kind, count=count, copied=copied, redo=redo) for kind, count, copied, redo in rows]


def outcome_counts(store: RunStore) -> list[OutcomeCount]:
    """How many requests ended how, over all runs, the commonest first.

    Those that are noted as sent and not yet stored are counted too: nobody may have opened the store since a kill.
    """
    barren = "accepted = 0 AND purpose <> 'audit'"
    rows = store.query(
        f"SELECT outcome, count(*), sum({barren}), sum(purpose = 'audit'), sum(input_tokens), sum(cached_tokens), "
        f"sum(output_tokens), sum(CASE WHEN {barren} THEN input_tokens + output_tokens ELSE 0 END), "
        "sum(reasoning_tokens), sum(unconfirmed_input), sum(unconfirmed_output) FROM calls GROUP BY outcome"
    )
    names = OutcomeCount.__struct_fields__
    found = {row[0]: OutcomeCount(**dict(zip(names, row, strict=True))) for row in rows}
    if (unstored := _unstored(store)) is not None:
        known = found.get(unstored.outcome)
        found[unstored.outcome] = unstored if known is None else _merged(known, unstored)
    return sorted(found.values(), key=lambda one: -one.requests)


def _unstored(store: RunStore) -> OutcomeCount | None:
    """Requests that are noted as sent and not stored: in flight, or lost with their process."""
    sent = _unstored_rows(store)
    if not sent or store.path is None:
        return None
    return OutcomeCount(
        outcome="in-flight" if is_held(store.path) else "killed",
        requests=len(sent),
        barren=len(sent),
        unconfirmed_input_tokens=sum(row.input_tokens for row in sent),
        unconfirmed_output_tokens=sum(row.output_tokens for row in sent),
    )


def _unstored_rows(store: RunStore) -> list[SentRow]:
    noted = [] if store.path is None else list(left_over(Path(f"{store.path.resolve()}.in-flight")))
    if not noted:
        return []
    numbers = msgspec.json.encode([row.call_id for row in noted]).decode()
    rows = store.query("SELECT id FROM calls WHERE id IN (SELECT value FROM json_each(?))", (numbers,))
    stored = {number for (number,) in rows}
    here = {run_id for (run_id,) in store.query("SELECT id FROM runs")}  # the store may be a new one of an old name
    return [row for row in noted if row.call_id not in stored and row.run_id in here]


def _merged(one: OutcomeCount, other: OutcomeCount) -> OutcomeCount:
    sums = {name: getattr(one, name) + getattr(other, name) for name in OutcomeCount.__struct_fields__[1:]}
    return OutcomeCount(outcome=one.outcome, **sums)


def input_count(store: RunStore, run: StoredRun) -> InputCount:
    """What became of the records of this run's input so far."""
    rows = store.query(
        "SELECT count(*), sum(a.ok = 1 OR b.ok = 1), sum(a.ok = 0 AND b.ok IS NULL), sum(i.error IS NOT NULL) "
        "FROM inputs i LEFT JOIN answers a ON a.settings_id = ?1 AND a.key = i.key AND a.digest = i.digest "
        f"{rescued('?3', '?4')} WHERE i.run_id = ?2",
        (run.settings_id, run.id, *rescue_values(store, run.id)),
    )
    total, ok, failed, unusable = rows[0]
    return InputCount(total=total, ok=ok or 0, failed=failed or 0, unusable=unusable or 0)


# -- single records ----------------------------------------------------------------------------------------------


def id_keys(given: str) -> list[str]:
    """The ids that a person may mean, as the store knows them: ``7`` is the number or the string."""
    keys = [msgspec.json.encode(given).decode()]
    try:
        value = msgspec.json.decode(given)
    except (msgspec.MsgspecError, UnicodeError):
        return keys
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        keys.append(msgspec.json.encode(value).decode())
    return keys


_ANSWER = ", ".join(f"a.{name.strip()}" for name in ANSWER_COLUMNS.split(","))
_PLACE = "i.position, i.line, i.id, i.key, i.digest, i.error"


def records_with_id(store: RunStore, run: StoredRun | None, settings_id: int, given: str) -> list[StoredRecord]:
    """Everything known under an id: its place in the input, and answers, also to texts that it had before."""
    keys = id_keys(given)
    marks = ", ".join("?" * len(keys))
    places = []
    if run is not None:
        rows = store.query(
            f"SELECT {_PLACE} FROM inputs i WHERE i.run_id = ? AND i.key IN ({marks}) "
            f"UNION ALL SELECT {_PLACE} FROM inputs i WHERE i.run_id = ? AND i.key IS NULL AND i.id IN ({marks}) "
            "ORDER BY 1",
            (run.id, *keys, run.id, *keys),
        )
        places = [_place(row) for row in rows]
    sql = f"SELECT {_ANSWER} FROM answers a WHERE settings_id = ? AND key IN ({marks})"
    rows = store.query(sql, (settings_id, *keys))
    answers = {(answer.key, answer.digest): answer for answer in map(read_answer, rows)}
    found = [
        StoredRecord(place=place, answer=answers.pop((place.key or "", place.digest or b""), None)) for place in places
    ]
    return found + [StoredRecord(place=None, answer=answer) for answer in answers.values()]


def answer_of(store: RunStore, settings_id: int, key: str, digest: bytes) -> AnswerRow | None:
    """The answer to one text of a record under these settings."""
    sql = f"SELECT {_ANSWER} FROM answers a WHERE settings_id = ? AND key = ? AND digest = ?"
    rows = store.query(sql, (settings_id, key, digest))
    return read_answer(rows[0]) if rows else None


def failed_records(store: RunStore, run: StoredRun | None, settings_id: int, *, most: int) -> list[StoredRecord]:
    """Records that failed or could not be read, in the order of the input; without one, in the order of ids."""
    if run is None:
        sql = f"SELECT {_ANSWER} FROM answers a WHERE settings_id = ? AND ok = 0 ORDER BY key LIMIT ?"
        rows = store.query(sql, (settings_id, most))
        return [StoredRecord(place=None, answer=read_answer(row)) for row in rows]
    rows = store.query(
        f"SELECT {_PLACE}, {_ANSWER} FROM inputs i LEFT JOIN answers a "
        f"ON a.settings_id = ?1 AND a.key = i.key AND a.digest = i.digest {rescued('?4', '?5')} "
        "WHERE i.run_id = ?2 AND (a.ok = 0 OR i.error IS NOT NULL) AND b.ok IS NULL ORDER BY i.position LIMIT ?3",
        (settings_id, run.id, most, *rescue_values(store, run.id)),
    )
    return [
        StoredRecord(place=_place(row[:6]), answer=None if row[6] is None else read_answer(row[6:])) for row in rows
    ]


def failed_by_second(store: RunStore, run: StoredRun | None, *, most: int) -> list[StoredRecord]:
    """Records that a second model failed, and whose first answer stands, with that failure, in the input's order."""
    columns = f"{_PLACE}, {_ANSWER.replace('a.', 'b.')}"
    rows = _failed_by_second(store, run, columns, f"ORDER BY i.position LIMIT {most:d}")
    return [StoredRecord(place=_place(row[:6]), answer=read_answer(row[6:])) for row in rows]


def count_failed_by_second(store: RunStore, run: StoredRun | None) -> int:
    """How many there are."""
    return sum(count for (count,) in _failed_by_second(store, run, "count(*)"))


def _failed_by_second(
    store: RunStore, run: StoredRun | None, columns: str, how: str = ""
) -> list[tuple[Any, ...]]:  # fmt: skip
    second = None if run is None else store.second_run(run.id)
    if run is None or second is None:
        return []
    had, of_had = had_by_second("a", second)
    return store.query(
        f"SELECT {columns} FROM inputs i "
        "JOIN answers a ON a.settings_id = ? AND a.key = i.key AND a.digest = i.digest AND a.ok = 1 "
        "JOIN answers b ON b.settings_id = ? AND b.key = i.key AND b.digest = i.digest AND b.ok = 0 "
        f"WHERE i.run_id = ? AND {had} {how}",
        (run.settings_id, second.settings_id, run.id, *of_had),
    )


def calls(store: RunStore, numbers: Sequence[int]) -> list[CallRow]:
    """These requests, in the order of `numbers`, as far as they are stored."""
    marks = ", ".join("?" * len(numbers))
    columns = ", ".join(CallRow.__struct_fields__)
    rows = store.query(f"SELECT {columns} FROM calls WHERE id IN ({marks})", tuple(numbers))
    found = {}
    for row in rows:
        values = dict(zip(CallRow.__struct_fields__, row, strict=True))
        found[row[0]] = CallRow(**values | {"estimated": bool(values["estimated"])})
    return [found[number] for number in numbers if number in found]


def answers(store: RunStore, settings_id: int) -> Iterator[AnswerRow]:
    """All answers by key, for stores without a list of inputs, a thousand at a time."""
    after: tuple[str, bytes] = ("", b"")
    while True:
        rows = store.query(
            f"SELECT {_ANSWER} FROM answers a WHERE settings_id = ? AND (key, digest) > (?, ?) "
            "ORDER BY key, digest LIMIT 1000",
            (settings_id, *after),
        )
        if not rows:
            return
        yield from map(read_answer, rows)
        after = (rows[-1][0], rows[-1][1])


def size_of(path: str | os.PathLike[str]) -> int:
    """Bytes of a store, what is not folded in yet included."""
    files = (Path(path), Path(f"{os.fspath(path)}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _place(row: Sequence[Any]) -> InputRow:
    position, line, id_, key, digest, error = row
    return InputRow(position=position, line=line, id=id_, key=key, digest=digest, error=error)
