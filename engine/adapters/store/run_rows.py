"""Rows of runs and of settings, sealed: which answers count, and whose they are. See docs/design/store.md."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.store.rows import is_readable_task
from engine.adapters.store.seals import seal
from engine.adapters.store.translate import Damaged, damaged
from engine.vocabulary.errors import StoreError

SEALED_OF_RUN = "id, settings_id, first_run, below, inputs, config, seal"
SEALED_OF_SETTINGS = "id, task_key, model, task, seal"


class SecondPart(msgspec.Struct, frozen=True, kw_only=True):
    """What a second model is to have of a run: see `SecondRun`. The kinds of failure are in `config`."""

    settings_id: int
    config: str
    below: float | None


def seal_of_run(id_: Any, settings_id: Any, first_run: Any, below: Any, inputs: Any, config: Any) -> int:
    """The seal of a run. Of its note only where it is a second model's part: which failures it had stands there."""
    return seal((id_, settings_id, first_run, below, inputs, None if first_run is None else config))


def seal_of_settings(id_: Any, task_key: Any, model: Any, task: Any) -> int:
    """The seal of a task on a model."""
    return seal((id_, task_key, model, task))


def insert_run(
    db: sqlite3.Connection, *, settings_id: int, started_at: float, config: str, first_run: int | None,
    below: float | None,
) -> int:  # fmt: skip
    """A new run; its id."""
    below = None if below is None else float(below)
    cursor = db.execute(
        "INSERT INTO runs (settings_id, started_at, config, first_run, below) VALUES (?, ?, ?, ?, ?)",
        (settings_id, started_at, config, first_run, below),
    )
    id_ = int(cursor.lastrowid or 0)
    sealed = seal_of_run(id_, settings_id, first_run, below, None, config)
    db.execute("UPDATE runs SET seal = ? WHERE id = ?", (sealed, id_))
    return id_


def complete_list(db: sqlite3.Connection, run_id: int) -> None:
    """Note how many records a run's list of inputs has, now that it is complete."""
    inputs = db.execute("SELECT count(*) FROM inputs WHERE run_id = ?", (run_id,)).fetchone()[0]
    for row in db.execute(f"SELECT {SEALED_OF_RUN} FROM runs WHERE id = ?", (run_id,)).fetchall():
        id_, settings_id, first_run, below, _, config, _ = row
        sealed = seal_of_run(id_, settings_id, first_run, below, inputs, config)
        db.execute("UPDATE runs SET inputs = ?, seal = ? WHERE id = ?", (inputs, sealed, run_id))


def check_runs(rows: Iterable[Sequence[Any]], path: Path | None) -> None:
    """Look at the seals of all runs (`SEALED_OF_RUN`): one that is damaged may be part of any other.

    :raises StoreError: one is not what was written.
    """
    for *values, sealed in rows:
        if seal_of_run(*values) != sealed:
            raise damaged(path, f"the row of run {values[0]} is not what was written")


def check_settings(rows: Iterable[Sequence[Any]], path: Path | None) -> None:
    """Look at the seals of these settings (`SEALED_OF_SETTINGS`).

    :raises StoreError: one is not what was written.
    """
    for *values, sealed in rows:
        if seal_of_settings(*values) != sealed:
            raise Damaged(
                f"a task or model in the run store {path or '(temporary)'} is damaged: it is not what was written. Run "
                "the same `annotate run` again, which knows it and puts it right"
            )


# -- settings ----------------------------------------------------------------------------------------------------


def known_settings(
    db: sqlite3.Connection, path: Path | None, *, task_key: str, model: str, task: str
) -> int | None:  # fmt: skip
    """The id of this task on this model, its row mended where it is damaged; None: it is new here.

    :raises StoreError: a damaged row, with answers, may be this one's, and that cannot be told any more.
    """
    rows = db.execute(f"SELECT {SEALED_OF_SETTINGS} FROM settings").fetchall()
    named = next((row for row in rows if (row[1], row[2]) == (task_key, model)), None)
    broken = [row for row in rows if seal_of_settings(*row[:4]) != row[4]]
    if named is not None and named not in broken and is_readable_task(named[3]):
        return int(named[0])
    ours = (task_key, model, task)
    mended = next((mend for row in broken if (mend := _mended(row, ours)) is not None), None)
    if mended is None and named is not None and (named[1:4] == ours or not is_readable_task(named[3])):
        mended = (named[0], *ours)  # the damage is in the seal, or in what it says: its names are right
    if mended is None:
        answered = [row for row in broken if db.execute(_HAS_ANSWERS, (row[0],)).fetchone()]
        if answered:
            raise StoreError(_not_to_be_told(path))
        if named is not None:  # nobody's answers: it may as well be ours
            mended = (named[0], *ours)
    if mended is None:
        return None
    id_, *values = mended
    db.execute(
        "UPDATE settings SET task_key = ?, model = ?, task = ?, seal = ? WHERE id = ?",
        (*values, seal_of_settings(id_, *values), id_),
    )
    return int(id_)


def insert_settings(db: sqlite3.Connection, *, task_key: str, model: str, task: str) -> int:
    """A new task on a model; its id."""
    cursor = db.execute("INSERT INTO settings (task_key, model, task) VALUES (?, ?, ?)", (task_key, model, task))
    id_ = int(cursor.lastrowid or 0)
    db.execute("UPDATE settings SET seal = ? WHERE id = ?", (seal_of_settings(id_, task_key, model, task), id_))
    return id_


def check_same(db: sqlite3.Connection, path: Path | None, known: int | None, *, task_key: str, model: str) -> None:
    """A store is of one task on one model, unless a change was asked for.

    A run that answered nothing (a wrong key, a typo) binds nobody, nor does a second model's part.

    :param known: the settings that are to be used; None: new ones.
    :raises StoreError: it holds answers of others, and none of these.
    """
    answered = db.execute(f"SELECT id, task_key, model FROM settings s WHERE {_ANSWERED_AS_FIRST}").fetchall()
    if answered and known not in (id_ for id_, _, _ in answered):
        raise StoreError(_changed(path, [names for _, *names in answered], task_key, model))


def _mended(row: Sequence[Any], ours: Sequence[str]) -> tuple[Any, ...] | None:
    """The row as it was written, if it is ours: with some of our values in place of its own its seal holds."""
    id_, *own, sealed = row
    for taken in itertools.product((False, True), repeat=len(ours)):
        values = [ours[n] if taken[n] else own[n] for n in range(len(ours))]
        if values[:2] == list(ours[:2]) and seal_of_settings(id_, *values) == sealed:
            return (id_, *values)
    return None


def _not_to_be_told(path: Path | None) -> str:
    return (
        f"the run store {path or '(temporary)'} is damaged: of which task or model some of its answers are cannot be "
        "told any more, and they may be this one's. Put a copy of it back; or use another store (--store), everything "
        "asked again"
    )


_HAS_ANSWERS = "SELECT 1 FROM answers WHERE settings_id = ? LIMIT 1"
_ANSWERED_AS_FIRST = """
EXISTS (SELECT 1 FROM answers a WHERE a.settings_id = s.id)
AND (EXISTS (SELECT 1 FROM runs r WHERE r.settings_id = s.id AND r.first_run IS NULL)
    OR NOT EXISTS (SELECT 1 FROM runs r WHERE r.settings_id = s.id))
"""  # without any run, as a salvaged store may be, they are taken for a first model's


def _changed(path: Path | None, others: Iterable[tuple[str, str]], task_key: str, model: str) -> str:
    models = sorted({other_model for other_key, other_model in others if other_key == task_key})
    what = f"model {models[0]!r}, not {model!r}" if models else "another task"
    return (
        f"{path} holds answers of {what}. Use another store (--output or --store); or allow_change (--allow-change), "
        "to keep both in this store and go on with the new one"
    )
