"""Tables, versions, and whether a file is ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engine.adapters.store.seals import seal
from engine.adapters.store.translate import NOT_OURS, damaged
from engine.vocabulary.errors import StoreError

VERSION = 5
APPLICATION_ID = 0x616E6E6F  # "anno"

_SCHEMA = """
CREATE TABLE settings (
    id INTEGER PRIMARY KEY, task_key TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL,
    seal INTEGER NOT NULL DEFAULT 0, UNIQUE (task_key, model));
-- `inputs`: how many records its list of inputs has; none before that is complete.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, settings_id INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, status TEXT,
    config TEXT NOT NULL, first_run INTEGER, below REAL, inputs INTEGER, seal INTEGER NOT NULL DEFAULT 0);
-- What the newest run's input holds, in order: duplicates are found, outputs ordered and exports made from it.
CREATE TABLE inputs (
    run_id INTEGER NOT NULL, position INTEGER NOT NULL, line INTEGER NOT NULL, id TEXT NOT NULL, key TEXT,
    digest BLOB, error TEXT, seal INTEGER NOT NULL, PRIMARY KEY (run_id, position)) WITHOUT ROWID;
CREATE UNIQUE INDEX inputs_key ON inputs (run_id, key) WHERE key IS NOT NULL;
CREATE TABLE answers (
    settings_id INTEGER NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, ok INTEGER NOT NULL, output TEXT,
    error_kind TEXT, error_message TEXT, calls TEXT NOT NULL, batch_size INTEGER NOT NULL, form TEXT NOT NULL,
    run_id INTEGER NOT NULL, answered_at REAL NOT NULL, latency_s REAL NOT NULL, copied INTEGER NOT NULL,
    redo INTEGER NOT NULL DEFAULT 0, seal INTEGER NOT NULL, confidence REAL, votes INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (settings_id, key, digest)) WITHOUT ROWID;
-- Only of answers that may be copied: the first that it gives is one.
CREATE INDEX answers_digest ON answers (digest, settings_id) WHERE ok = 1 AND redo = 0;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL, sent_at REAL NOT NULL, latency_s REAL NOT NULL,
    size INTEGER NOT NULL, accepted INTEGER NOT NULL, status INTEGER NOT NULL, outcome TEXT NOT NULL,
    finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL, message TEXT, raw TEXT,
    unconfirmed_input INTEGER NOT NULL DEFAULT 0, unconfirmed_output INTEGER NOT NULL DEFAULT 0,
    purpose TEXT NOT NULL DEFAULT 'ask', reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    written_tokens INTEGER NOT NULL DEFAULT 0);
"""
_BALLOTS = """
-- Answers of records that have not ended, asked several times or answered in part: paid for, so they outlive the
-- process. From format 5 on a round below 0 is of an answer in part, which older programs would take for a whole one.
CREATE TABLE ballots (
    settings_id INTEGER NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, round INTEGER NOT NULL, output TEXT NOT NULL,
    calls TEXT NOT NULL, batch_size INTEGER NOT NULL, form TEXT NOT NULL, confidence REAL, seal INTEGER NOT NULL,
    PRIMARY KEY (settings_id, key, digest, round)) WITHOUT ROWID;
"""


_OF_EVERY_FORMAT = {"settings", "runs", "inputs", "answers", "calls"}

_UPGRADES = {
    1: """
ALTER TABLE calls ADD COLUMN unconfirmed_input INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN unconfirmed_output INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN purpose TEXT NOT NULL DEFAULT 'ask';
""",
    2: """
ALTER TABLE answers ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inputs ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
UPDATE answers SET seal = seal_of(
    settings_id, key, digest, ok, output, error_kind, error_message, calls, batch_size, form, copied);
UPDATE inputs SET seal = seal_of(position, line, id, key, digest, error);
""",
    # An answer of one vote and no known confidence has the seal that it had before there were any.
    3: f"""
ALTER TABLE runs ADD COLUMN first_run INTEGER;
ALTER TABLE runs ADD COLUMN below REAL;
ALTER TABLE answers ADD COLUMN confidence REAL;
ALTER TABLE answers ADD COLUMN votes INTEGER NOT NULL DEFAULT 1;
ALTER TABLE calls ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
{_BALLOTS}
""",
    # Of a run that was killed it is not known whether its list was complete; a list before it is, as it was dropped
    # when the next one was complete. Positions have no gaps.
    4: """
ALTER TABLE calls ADD COLUMN written_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE settings ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN inputs INTEGER;
ALTER TABLE runs ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
UPDATE runs SET inputs = (SELECT max(position) + 1 FROM inputs WHERE run_id = runs.id)
    WHERE coalesce(status, 'killed') <> 'killed' OR id = (SELECT min(run_id) FROM inputs);
UPDATE settings SET seal = seal_of(id, task_key, model, task);
UPDATE runs SET seal = seal_of(id, settings_id, first_run, below, inputs,
    CASE WHEN first_run IS NULL THEN NULL ELSE config END);
""",
}
"""Version -> what makes the next one of it."""


def create(db: sqlite3.Connection) -> None:
    """Make the tables of a new store."""
    named = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
    db.executescript(f"BEGIN; {_SCHEMA} {_BALLOTS} {named} COMMIT;")


def bring_up_to_date(db: sqlite3.Connection, file: Path) -> None:
    """Make a store of this version of an older one, each step in one transaction.

    :raises StoreError: it is no run store, or one of a newer version.
    """
    check(db, file)
    db.create_function("seal_of", -1, lambda *values: seal(values), deterministic=True)
    while (version := _version(db)) < VERSION:
        if version not in _UPGRADES:
            raise damaged(file, f"no store has the format {version}")
        db.executescript(f"BEGIN; {_UPGRADES[version]} PRAGMA user_version = {version + 1}; COMMIT;")


def check_whole(db: sqlite3.Connection, file: Path | None) -> None:
    """Whether every page is where it should be: half a second for a million records.

    :raises StoreError: not so.
    """
    found = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise damaged(file, " ".join(str(found[0]).split()))


def check(db: sqlite3.Connection, file: Path) -> None:
    """:raises StoreError: the file is no run store, or one of a newer version."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        if {name for (name,) in db.execute("SELECT name FROM sqlite_master")} >= _OF_EVERY_FORMAT:
            raise damaged(file, "it does not say that it is a run store, and has the tables of one")
        raise StoreError(f"{file} is {NOT_OURS}")
    if _version(db) > VERSION:
        raise StoreError(
            f"{file} was made by a newer version of annotation-engine (store format {_version(db)}, this one knows "
            f"{VERSION}): install that version, or use another store (--store)"
        )


def check_readable(db: sqlite3.Connection, file: Path) -> None:
    """:raises StoreError: the file is no run store, or not one of this version."""
    check(db, file)
    if _version(db) < VERSION:
        raise StoreError(
            f"{file} was made by an older version of annotation-engine (store format {_version(db)}, this one reads "
            f"{VERSION}): run the same `annotate run` again, which brings it up to date and keeps every answer"
        )


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
