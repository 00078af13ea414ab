"""Rows that say which answers count, and whose they are: damaged, they change no label and are paid for by nobody."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.store import InputRow, RunStore, open_store, read_store, salvage
from engine.adapters.store.run_rows import SecondPart
from engine.run.export import write_newest
from engine.vocabulary.errors import StoreError
from tests.adapters.test_stored import DIGEST, answer
from tests.support import make_task

TASK = msgspec.json.encode(make_task()).decode()
NOTE = '{"source":"escalation","failures":["missing"]}'


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with a run of two models that has ended."""
    file = tmp_path_factory.mktemp("sealed") / "s.sqlite"
    with contextlib.closing(open_store(file)) as store:
        first = store.settings(task_key="k", model="m1", task=TASK)
        second = store.settings(task_key="k", model="m2", task=TASK, allow_change=True)
        run_id = store.begin_run(
            settings_id=first, started_at=1.0, config="{}",
            second=SecondPart(settings_id=second, config=NOTE, below=0.9),
        )  # fmt: skip
        names = "abc"
        rows = [
            InputRow(position=n, line=n + 1, id=f'"{name}"', key=f'"{name}"', digest=DIGEST)
            for n, name in enumerate(names)
        ]
        store.add_inputs(run_id, rows)
        store.complete_inputs(run_id)
        failed = answer("c", output=None, error_kind="missing", error_message="nothing came")
        store.write(
            run_id, first, [], [answer("a", confidence=1.0, votes=3), answer("b", confidence=0.5, votes=2), failed]
        )
        store.write(run_id + 1, second, [], [answer(name, output='"blue"') for name in "bc"])
        store.end_run(run_id, ended_at=2.0, status="done")
    return file


def copy_of(path: Path, folder: Path) -> Path:
    file = folder / "copy.sqlite"
    for left in folder.glob("copy.sqlite*"):
        left.unlink()
    file.write_bytes(path.read_bytes())
    return file


def damage(file: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute(sql)
        db.commit()


def exported(file: Path) -> str:
    out = file.parent / "out.jsonl"
    out.unlink(missing_ok=True)
    with contextlib.closing(read_store(file)) as store:
        write_newest(store, str(out))
    return out.read_text()


def test_a_run_of_two_models_is_exported(path: Path, tmp_path: Path) -> None:
    """What the tests below must not see changed: two of three labels are the second model's."""
    text = exported(copy_of(path, tmp_path))
    assert (text.count('"m1"'), text.count('"m2"'), text.count("\n")) == (1, 2, 3)


@pytest.mark.parametrize(
    "said",
    [
        "settings_id = 2 WHERE id = 1", "settings_id = 1 WHERE id = 2", "first_run = NULL WHERE id = 2",
        "first_run = 3 WHERE id = 2", "first_run = 2 WHERE id = 1", "below = 0.4 WHERE id = 2",
        "below = NULL WHERE id = 2", "below = 'x' WHERE id = 2", "inputs = NULL WHERE id = 1",
        "inputs = 2 WHERE id = 1", "id = 5 WHERE id = 2", "id = 5 WHERE id = 1",
        """config = '{"source":"escalation","failures":["missinG"]}' WHERE id = 2""", "seal = 0 WHERE id = 1",
    ],
)  # fmt: skip
def test_a_damaged_row_of_a_run_is_found(path: Path, tmp_path: Path, said: str) -> None:
    """No export goes by it, and no run begins on it: the remedy is named, and saves every answer."""
    file, new = copy_of(path, tmp_path), tmp_path / "new.sqlite"
    damage(file, f"UPDATE runs SET {said}")  # noqa: S608
    with pytest.raises(StoreError, match="annotate salvage"):
        exported(file)
    with pytest.raises(StoreError, match="annotate salvage"):
        open_store(file)
    assert salvage(file, new).answers == 5
    open_store(new).close()  # its rows are sealed anew


@pytest.mark.parametrize(
    "said", ["task_key = 'j'", "model = 'm3'", f"task = '{TASK.replace('a', 'b', 1)}'", "task = '{'", "seal = 0"]
)
@pytest.mark.parametrize("id_", [1, 2])
@pytest.mark.parametrize("salvaged", [False, True])
def test_damaged_settings_are_known_again(path: Path, tmp_path: Path, said: str, id_: int, *, salvaged: bool) -> None:
    """No export goes by them; the same run knows its own by the seal, puts them right, and pays for nothing again."""
    file = copy_of(path, tmp_path)
    before = exported(file)
    damage(file, f"UPDATE settings SET {said} WHERE id = {id_}")  # noqa: S608
    with pytest.raises(StoreError, match="same `annotate run` again"):
        exported(file)
    if salvaged:
        salvage(file, file := tmp_path / "new.sqlite")
    with contextlib.closing(open_store(file)) as store:
        assert settings_of(store) == (1, 2)
        store.check_settings(1, 2)
    if not salvaged:
        assert exported(file) == before


def settings_of(store: RunStore) -> tuple[int, int]:
    """The settings of both models, as a run asks for them."""
    return (
        store.settings(task_key="k", model="m1", task=TASK),
        store.settings(task_key="k", model="m2", task=TASK, allow_change=True),
    )


def test_settings_that_nobody_can_tell_any_more_are_not_paid_for_again(path: Path, tmp_path: Path) -> None:
    """Two damages in one row: that its answers are another's is not taken for granted."""
    file = copy_of(path, tmp_path)
    damage(file, "UPDATE settings SET model = 'm3', task_key = 'j', seal = 5 WHERE id = 2")
    with contextlib.closing(open_store(file)) as store, pytest.raises(StoreError, match="cannot be told any more"):
        settings_of(store)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_turned_bit_of_these_rows_changes_a_label(path: Path, tmp_path_factory: Any, data: st.DataObject) -> None:
    """Of any bit of the two tables: the export is the same, or refused."""
    folder = tmp_path_factory.mktemp("bits")
    file = copy_of(path, folder)
    before = exported(file)
    content = bytearray(file.read_bytes())
    with contextlib.closing(sqlite3.connect(file)) as db:
        size = db.execute("PRAGMA page_size").fetchone()[0]
        pages = [row[0] for row in db.execute("SELECT rootpage FROM sqlite_master WHERE name IN ('runs', 'settings')")]
    used = [n for page in pages for n in range((page - 1) * size, page * size) if content[n]]
    at = data.draw(st.sampled_from(used), label="byte")
    content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    file.write_bytes(content)
    with contextlib.suppress(StoreError):
        assert exported(file) == before


@pytest.mark.parametrize(
    ("statuses", "complete"),
    [
        (("done",), {1: 2}), (("killed",), {1: 2}), (("done", "killed"), {1: 2}),
        (("done", "interrupted"), {1: 2, 2: 2}),
        (("killed", None), {1: 2}),
    ],
)  # fmt: skip
def test_a_store_of_format_4_is_sealed_and_knows_its_complete_lists(
    tmp_path: Path, statuses: tuple[str | None, ...], complete: dict[int, int]
) -> None:
    """There a list was dropped when a later one was complete, so one behind another, of a killed run, may be a part."""
    file = tmp_path / "s.sqlite"
    with contextlib.closing(open_store(file)) as store:
        settings_id = store.settings(task_key="k", model="m1", task=TASK)
        for status in statuses:
            run_id = store.begin_run(settings_id=settings_id, started_at=1.0, config="{}")
            store.add_inputs(
                run_id,
                [InputRow(position=n, line=n + 1, id=str(n), key=str(n), digest=DIGEST) for n in range(2)],
            )
            if status is not None:
                store.end_run(run_id, ended_at=2.0, status=status)
        store.write(1, settings_id, [], [answer("a")])
    for change in (
        "ALTER TABLE runs DROP COLUMN seal", "ALTER TABLE runs DROP COLUMN inputs",
        "ALTER TABLE settings DROP COLUMN seal", "ALTER TABLE calls DROP COLUMN written_tokens",
        "PRAGMA user_version = 4",
    ):  # fmt: skip
        damage(file, change)
    with contextlib.closing(open_store(file)) as store:
        store.check_runs()
        store.check_settings(settings_id)
        assert dict(store.query("SELECT id, inputs FROM runs WHERE inputs IS NOT NULL")) == complete
