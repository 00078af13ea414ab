"""Votes, confidences and the second model's runs in the store: written with their call, sealed, kept over a kill."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.adapters.store import (
    VERSION,
    AnswerRow,
    BallotRow,
    InputRow,
    OutputRow,
    RunStore,
    Spent,
    open_store,
    salvage,
)
from engine.vocabulary.errors import StoreError
from tests.adapters.test_store import make_answer, make_call

TASK = '{"instructions":"Judge."}'
DIGEST = b"d" * 16

_FORMAT_3 = """
CREATE TABLE settings (
    id INTEGER PRIMARY KEY, task_key TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL,
    UNIQUE (task_key, model));
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, settings_id INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, status TEXT,
    config TEXT NOT NULL);
CREATE TABLE inputs (
    run_id INTEGER NOT NULL, position INTEGER NOT NULL, line INTEGER NOT NULL, id TEXT NOT NULL, key TEXT,
    digest BLOB, error TEXT, seal INTEGER NOT NULL, PRIMARY KEY (run_id, position)) WITHOUT ROWID;
CREATE UNIQUE INDEX inputs_key ON inputs (run_id, key) WHERE key IS NOT NULL;
CREATE TABLE answers (
    settings_id INTEGER NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, ok INTEGER NOT NULL, output TEXT,
    error_kind TEXT, error_message TEXT, calls TEXT NOT NULL, batch_size INTEGER NOT NULL, form TEXT NOT NULL,
    run_id INTEGER NOT NULL, answered_at REAL NOT NULL, latency_s REAL NOT NULL, copied INTEGER NOT NULL,
    redo INTEGER NOT NULL DEFAULT 0, seal INTEGER NOT NULL, PRIMARY KEY (settings_id, key, digest)) WITHOUT ROWID;
CREATE INDEX answers_digest ON answers (digest, settings_id) WHERE ok = 1 AND redo = 0;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL, sent_at REAL NOT NULL, latency_s REAL NOT NULL,
    size INTEGER NOT NULL, accepted INTEGER NOT NULL, status INTEGER NOT NULL, outcome TEXT NOT NULL,
    finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, estimated INTEGER NOT NULL, message TEXT, raw TEXT,
    unconfirmed_input INTEGER NOT NULL DEFAULT 0, unconfirmed_output INTEGER NOT NULL DEFAULT 0,
    purpose TEXT NOT NULL DEFAULT 'ask');
INSERT INTO settings VALUES (1, 't', 'm', '{"instructions":"Judge."}');
INSERT INTO runs VALUES (1, 1, 0.0, NULL, NULL, '{}');
INSERT INTO inputs VALUES (1, 0, 1, '"a"', '"a"', X'64646464646464646464646464646464', NULL, 1543420625);
INSERT INTO answers VALUES (1, '"a"', X'64646464646464646464646464646464', 1, '"x"', NULL, NULL, '[1]', 8, 'compact',
    1, 0.5, 0.25, 0, 0, 2662273054);
INSERT INTO calls VALUES (1, 1, 0.0, 1.0, 1, 1, 200, 'ok', 'stop', 10, 0, 5, 0, NULL, NULL, 0, 0, 'ask');
PRAGMA application_id = 1634627183;
PRAGMA user_version = 3;
"""
"""The tables as format 3 made them, with rows and seals of that time."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    """A store with a run that has begun."""
    with_run = open_store(tmp_path / "s.sqlite")
    settings_id = with_run.settings(task_key="t", model="m", task=TASK)
    assert (settings_id, with_run.begin_run(settings_id=settings_id, started_at=0.0, config="{}")) == (1, 1)
    yield with_run
    with_run.close()


def make_ballot(number: int, key: str = '"a"', output: str = '"x"', **more: object) -> BallotRow:
    """A vote of a round."""
    return BallotRow(key=key, digest=DIGEST, round=number, output=output, calls=(number,), batch_size=4, **more)  # type: ignore[arg-type]


def test_a_store_of_format_3_is_brought_up_to_date_with_its_seals(tmp_path: Path) -> None:
    """Its rows are read as they are, their seals hold, and its next answers can have votes and a confidence."""
    path = tmp_path / "s.sqlite"
    old = sqlite3.connect(path)
    old.executescript(_FORMAT_3)
    old.close()
    store = open_store(path)
    record = InputRow(position=0, line=1, id='"a"', key='"a"', digest=DIGEST)
    answer = AnswerRow(
        key='"a"', digest=DIGEST, output='"x"', calls=(1,), batch_size=8, answered_at=0.5, latency_s=0.25
    )
    assert list(store.outputs(1, 1)) == [OutputRow(record=record, answer=answer)]
    assert store.spent("m") == Spent(input_tokens=10, output_tokens=5)
    better = AnswerRow(key='"a"', digest=DIGEST, output='"y"', calls=(1, 2), confidence=2 / 3, votes=3)
    store.write(1, 1, [make_call(2, reasoning_tokens=3)], [better], [make_ballot(1, '"b"')])
    assert store.spent("m").reasoning_tokens == 3
    assert list(store.outputs(1, 1)) == [OutputRow(record=record, answer=better)]
    assert store.query("PRAGMA user_version") == [(VERSION,)]
    store.close()


@pytest.mark.parametrize(("confidence", "votes"), [(0.5, 4), (None, 4), (0.75, 2), (None, 1)])
def test_a_damaged_confidence_is_found_out(store: RunStore, confidence: float | None, votes: int) -> None:
    """Who trusts an answer, and which model is asked again, hangs on it: it is sealed with the answer."""
    store.write(1, 1, [], [make_answer('"a"', confidence=0.75, votes=4)])
    store._db.execute("UPDATE answers SET confidence = ?, votes = ?", (confidence, votes))
    with pytest.raises(StoreError, match="damaged"):
        store.check_answers()


def test_a_confidence_that_appears_by_damage_is_found_out(store: RunStore) -> None:
    """An answer without one has an older seal, and may not be given one by a turned byte."""
    store.write(1, 1, [], [make_answer('"a"')])
    store.check_answers()
    store._db.execute("UPDATE answers SET confidence = 1.0")
    with pytest.raises(StoreError, match="damaged"):
        store.check_answers()


def test_votes_are_kept_until_their_record_ends(store: RunStore) -> None:
    """They come back in order after a kill, and go in the transaction that stores the answer; those of others stay."""
    store.write(1, 1, [make_call(1)], [], [make_ballot(2, output='"y"'), make_ballot(1, confidence=0.5)])
    store.write(1, 1, [make_call(2)], [], [make_ballot(1, '"b"')])
    found = store.find(1, keys=['"a"', '"b"', '"c"'], digests=[])
    assert found.ballots == {
        '"a"': [make_ballot(1, confidence=0.5), make_ballot(2, output='"y"')],
        '"b"': [make_ballot(1, '"b"')],
    }
    with pytest.raises(StoreError):
        store.write(1, 1, [make_call(2)], [AnswerRow(key='"a"', digest=DIGEST, output='"x"')])  # the call is there
    assert len(store.find(1, keys=['"a"'], digests=[]).ballots['"a"']) == 2
    store.write(1, 1, [make_call(3)], [AnswerRow(key='"a"', digest=DIGEST, output='"x"', votes=3)])
    assert store.find(1, keys=['"a"', '"b"'], digests=[]).ballots == {'"b"': [make_ballot(1, '"b"')]}


def test_votes_outlive_the_process(tmp_path: Path) -> None:
    """What a round brought is paid for: the next opening of the store knows it."""
    path = tmp_path / "s.sqlite"
    store = open_store(path)
    store.settings(task_key="t", model="m", task=TASK)
    store.begin_run(settings_id=1, started_at=0.0, config="{}")
    store.write(1, 1, [make_call(1)], [], [make_ballot(1)])
    store.close()
    again = open_store(path)
    assert again.find(1, keys=['"a"'], digests=[]).ballots == {'"a"': [make_ballot(1)]}
    again.close()


def test_a_damaged_vote_counts_for_nothing(store: RunStore) -> None:
    """It is not taken for an answer; the others of its record are."""
    store.write(1, 1, [], [], [make_ballot(1), make_ballot(2, output='"y"')])
    store._db.execute("""UPDATE ballots SET output = '"z"' WHERE round = 1""")
    assert store.find(1, keys=['"a"'], digests=[]).ballots == {'"a"': [make_ballot(2, output='"y"')]}


def test_what_is_salvaged_includes_votes(store: RunStore, tmp_path: Path) -> None:
    """Votes of records that have not ended are paid for as well, and confidences stand beside their answers."""
    answer = AnswerRow(key='"b"', digest=DIGEST, output='"x"', calls=(1,), confidence=0.5, votes=2)
    store.write(1, 1, [make_call(1, reasoning_tokens=2)], [answer], [make_ballot(1)])
    second = store.settings(task_key="t", model="large", task=TASK, allow_change=True)
    store.begin_run(settings_id=second, started_at=1.0, config="{}", first_run=1, below=0.75)
    salvage(store.path or "", tmp_path / "new.sqlite")
    saved = open_store(tmp_path / "new.sqlite")
    found = saved.find(1, keys=['"a"', '"b"'], digests=[])
    assert (found.by_key, found.ballots) == ({'"b"': [answer]}, {'"a"': [make_ballot(1)]})
    assert saved.query("SELECT first_run, below FROM runs ORDER BY id") == [(None, None), (1, 0.75)]
    assert saved.spent().reasoning_tokens == 2
    saved.close()
