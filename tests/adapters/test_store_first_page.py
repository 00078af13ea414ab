"""The first page of a store says what its tables are: with any of its bits turned, every answer is saved."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from test_store_damage import ANSWERS, COUNT, NAME, closed, files, fill, killed, said, turned, used

from engine.adapters.store import (
    AnswerRow,
    BallotRow,
    NotByRun,
    RunStore,
    Saved,
    first_page,
    open_store,
    read_store,
    salvage,
)
from engine.vocabulary.errors import StoreError

PAGE = 4096
HEADER = 100
BITS = [(position, bit) for position in range(PAGE) for bit in range(8)]
TOLD = [(position, bit) for position, bit in BITS if position in {*range(HEADER + 30), *used(closed())}]
LENGTH = [(31, bit) for bit in range(4)]  # of the number of pages: fewer of them, too
INDEX = (closed().index(b"indexanswers_digestanswers") + 26, 3)  # where it begins; the table is whole
SEEDED = sorted({*random.Random(7).sample(TOLD, 50), *random.Random(8).sample(TOLD[: 8 * HEADER], 20), *LENGTH, INDEX})


def assert_saved(path: Path) -> Saved:
    """All answers are in the new store as they were written, and nothing else is left in its folder."""
    before, content = {file.name for file in path.parent.iterdir()}, path.read_bytes()
    new, log = path.with_name("new.sqlite"), Path(f"{path}-wal")
    beside_log = {f"{path.name}-shm"} if log.exists() else set()  # SQLite's, for whoever reads beside a writer
    saved = salvage(path, new)
    assert saved.answers == COUNT
    assert not saved.damaged
    assert not saved.is_part
    assert path.read_bytes() == content
    assert {file.name for file in path.parent.iterdir()} - before - beside_log == {new.name, f"{new.name}.lock"}
    with contextlib.closing(open_store(new)) as store:
        found = store.find(1, keys=[row.key for row in ANSWERS], digests=[]).by_key
        assert [[said(answer) for answer in found[row.key]] for row in ANSWERS] == [[row] for row in ANSWERS]
        assert store.query("SELECT task_key, model FROM settings") == [("t", "m")]
        assert store.query("SELECT count(*) FROM calls") == [(COUNT // 4,)]
    return saved


@pytest.mark.parametrize(("position", "bit"), SEEDED)
def test_a_turned_bit_of_the_first_page_loses_no_answer(position: int, bit: int) -> None:
    """Wherever it is: the header, the names of columns, where a table begins."""
    with files(turned(closed(), position, 1 << bit)) as path:
        assert_saved(path)


@pytest.mark.slow
def test_no_turned_bit_of_the_first_page_loses_an_answer() -> None:
    """One of each byte, another from byte to byte; `ANNOTATE_EVERY_BIT=1` tries all 32,768, for five minutes."""
    every = "ANNOTATE_EVERY_BIT" in os.environ
    for position, bit in BITS:
        if not (every or bit == position % 8):
            continue
        with files(turned(closed(), position, 1 << bit)) as path:
            assert_saved(path)


@pytest.mark.parametrize("content", [b"\0", b"\xff", b"ab"])
def test_without_the_first_page_every_answer_is_saved(content: bytes) -> None:
    """Nothing of it is left: the tables begin where we put them."""
    with files((content * PAGE)[:PAGE] + closed()[PAGE:]) as path:
        assert assert_saved(path).first_page_damaged


@pytest.mark.parametrize("position", [16, 24, 28, 60, 68, 103, 2000, 3200, 3900])
@pytest.mark.parametrize("bits", [1, 128])
def test_what_the_log_of_a_killed_run_holds_is_saved(position: int, bits: int) -> None:
    """The first page is damaged, and the answers are in the log."""
    content, log = killed()
    with files(turned(content, position, bits), log) as path:
        assert_saved(path)


@pytest.mark.parametrize("damage", ["nothing", "column", "name", "root"])
def test_tables_that_begin_elsewhere_are_found(tmp_path: Path, damage: str) -> None:
    """As in a store that somebody compacted: by their names, or where most of their rows can be read."""
    path = tmp_path / NAME
    with contextlib.closing(open_store(path)) as store:
        fill(store)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")
        ((root,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'answers'").fetchall()
    content, listed = path.read_bytes(), b"tableanswersanswers"
    assert root != 7  # where a new store has it
    assert content.count(listed) == 1
    start = content.index(listed)
    at = {"column": content.index(b"error_kind", start), "name": start + 7, "root": start + len(listed)}.get(damage)
    if at is not None:
        path.write_bytes(turned(content, at, 1))
    assert_saved(path)


@pytest.mark.parametrize("damage", ["beginning", "length"])
def test_a_part_of_a_table_is_not_taken_for_all_of_it(tmp_path: Path, damage: str) -> None:
    """One turned bit of where it begins may name a later page of the same table; one of the number of pages hides the
    last ones."""
    path, count = tmp_path / NAME, 1000
    rows = [AnswerRow(key=f'"{n:05}"', digest=n.to_bytes(16, "big"), output='"red"') for n in range(count)]
    with contextlib.closing(open_store(path)) as store:
        settings_id = store.settings(task_key="t", model="m", task="{}")
        store.write(store.begin_run(settings_id=settings_id, started_at=1.0, config="{}"), settings_id, [], rows)
    content, listed = path.read_bytes(), b"tableanswersanswers"
    leaf = content.index(rows[500].key.encode() + rows[500].digest) // PAGE + 1
    at = content.index(listed) + len(listed)
    assert content[at] != leaf
    pages = int.from_bytes(content[28:32], "big")
    if damage == "beginning":
        path.write_bytes(content[:at] + bytes([leaf]) + content[at + 1 :])
    else:
        path.write_bytes(content[:28] + (pages - 8).to_bytes(4, "big") + content[32:])
    saved = salvage(path, tmp_path / "new.sqlite")
    assert (saved.answers, saved.is_part, saved.first_page_damaged) == (count, False, True)


@pytest.mark.parametrize("other", ["sqlite", "text"])
def test_what_is_no_run_store_is_left_as_it_is(tmp_path: Path, other: str) -> None:
    """Without a word of salvage, and with nothing new."""
    path = tmp_path / "other"
    if other == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE settings (a, b)")
            db.execute("CREATE TABLE t (a PRIMARY KEY) WITHOUT ROWID")
            db.commit()
    else:
        path.write_text("text\n" * 10_000)
    content = path.read_bytes()
    with pytest.raises(StoreError, match="is no run store of annotation-engine; it was left as it is"):
        salvage(path, tmp_path / "new")
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_votes_alone_are_no_success_where_answers_are_left_behind(tmp_path: Path) -> None:
    """No answer could be saved and there were some: that is said, and no new store is left."""
    path = tmp_path / NAME
    with contextlib.closing(open_store(path)) as store:
        run_id, settings_id = fill(store)
        ballot = BallotRow(key='"v"', digest=bytes(16), round=1, output='"red"', calls=(1,), batch_size=1, form="index")
        store.write(run_id, settings_id, [], [], ballots=[ballot])
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE answers SET seal = seal + 1")
        db.commit()
    with pytest.raises(StoreError, match="none of its answers can be read"):
        salvage(path, tmp_path / "new.sqlite")
    assert not (tmp_path / "new.sqlite").exists()


@pytest.mark.parametrize("version", [4, 7])
def test_another_number_of_the_format_with_tables_of_this_one(version: int) -> None:
    """It is the number that is damaged; that it was is said."""
    with files(closed()[:60] + version.to_bytes(4, "big") + closed()[64:]) as path:
        assert assert_saved(path).first_page_damaged


@pytest.mark.parametrize("opener", [open_store, read_store])
@pytest.mark.parametrize("what", [b"error_kind TEXT", b"settings_id, key, digest)", b"anno", b"CREATE TABLE answers"])
def test_tables_that_are_not_ours_name_salvage(opener: Callable[[Path], RunStore], what: bytes) -> None:
    """Whatever SQLite says of it; never that the same command goes on."""
    content = closed()
    with (
        files(turned(content, content.index(what), 2)) as path,
        pytest.raises(StoreError) as raised,
        contextlib.closing(opener(path)) as store,
    ):
        store.find(1, keys=['"r1"'], digests=[])
    assert "annotate salvage" in str(raised.value)
    assert isinstance(raised.value, NotByRun)


@pytest.mark.parametrize(
    ("change", "version", "said"),
    [
        ("ALTER TABLE calls DROP COLUMN written_tokens", 4, "older version.*`annotate salvage` of that version may do"),
        ("ALTER TABLE calls ADD COLUMN other", 9, "made by a newer version"),
    ],
)
@pytest.mark.parametrize("position", [None, 21])
def test_a_store_of_another_format_is_not_read_as_one_of_this(
    tmp_path: Path, change: str, version: int, said: str, position: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is read where it lies, and not copied for that, or, with a damaged header, from a copy; nothing new is
    left."""
    path = tmp_path / NAME
    path.write_bytes(closed())
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(change)
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    if position is None:
        monkeypatch.setattr(first_page, "_copy", None)
    else:
        path.write_bytes(turned(path.read_bytes(), position, 1))
    with pytest.raises(StoreError, match=said):
        salvage(path, tmp_path / "new")
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_answers_that_cannot_be_read_at_all_are_told(tmp_path: Path) -> None:
    """How many were on a lost page is not known; that something was is said."""
    path = tmp_path / NAME
    rows = [AnswerRow(key=f'"{n:05}"', digest=n.to_bytes(16, "big"), output='"red"') for n in range(1000)]
    with contextlib.closing(open_store(path)) as store:
        settings_id = store.settings(task_key="t", model="m", task="{}")
        store.write(store.begin_run(settings_id=settings_id, started_at=1.0, config="{}"), settings_id, [], rows)
    content = path.read_bytes()
    page = content.index(rows[500].key.encode() + rows[500].digest) // PAGE
    path.write_bytes(content[: page * PAGE] + bytes(PAGE) + content[(page + 1) * PAGE :])
    saved = salvage(path, tmp_path / "new.sqlite")
    assert saved.is_part
    assert not saved.first_page_damaged
    assert 0 < saved.answers < len(rows)
