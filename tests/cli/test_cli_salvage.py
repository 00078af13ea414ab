"""`annotate salvage` where the first page of a store is damaged, and where nothing may be written beside it."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import command, make_files, rows_of, served
from test_cli_disk import read_only, unprivileged
from test_cli_tune import make_gold

COUNT = 40


@pytest.fixture
def words(tmp_path: Path) -> list[str | Path]:
    """A run, without its endpoint, whose store is in a folder of its own."""
    (tmp_path / "place").mkdir()
    store = tmp_path / "place" / "run.sqlite"
    return ["run", *make_files(tmp_path, COUNT), "--model", "m", "--store", store, "--output", tmp_path / "out.jsonl"]


def turn(store: Path, what: bytes) -> None:
    """Turn a bit of a text that stands in the first page once."""
    content = store.read_bytes()
    assert content[:4096].count(what) == 1
    at = content.index(what)
    store.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


@pytest.mark.parametrize("what", [b"error_kind TEXT", b"tableanswers", b"anno", b"SQLite format 3"])
def test_a_damaged_first_page_and_the_way_on(tmp_path: Path, words: list[str | Path], what: bytes) -> None:
    """Whichever command meets it names `annotate salvage`, none says that the same command goes on; and with what that
    saves the run goes on and asks for nothing."""
    store, new = tmp_path / "place" / "run.sqlite", tmp_path / "new.sqlite"
    with served() as (url, endpoint):
        assert command(*words, "--base-url", url).exit_code == 0
        before, sent = (tmp_path / "out.jsonl").read_bytes(), endpoint.ledger.requests
        turn(store, what)
        export = ("export", store, "--output", tmp_path / "other.jsonl")
        for command_words in ([*words, "--base-url", url], ["show", store], export):
            refused = command(*command_words)
            assert refused.exit_code in (2, 4), refused.output
            assert f"annotate salvage {shlex.quote(str(store))} NEW" in refused.output
            assert "same command" not in refused.output
        saved = command("salvage", store, new)
        assert saved.exit_code == 0, saved.output
        assert f"{COUNT} answers saved" in saved.stderr
        assert "first page was damaged" in saved.stderr
        again = command(*words, "--base-url", url, "--store", new)
        assert again.exit_code == 0, again.output
        assert endpoint.ledger.requests == sent
    assert (tmp_path / "out.jsonl").read_bytes() == before


def damage_answers(store: Path) -> None:
    """One of its answers is not what was written."""
    with contextlib.closing(sqlite3.connect(store)) as db:
        db.execute("UPDATE answers SET seal = seal + 1 WHERE key = (SELECT min(key) FROM answers)")
        db.commit()


@pytest.mark.parametrize("log", ["no log", "an empty log", "a log with answers"])
@pytest.mark.parametrize("closed", ["disk", "folder"])
def test_a_store_is_salvaged_where_nothing_may_be_written(
    tmp_path: Path, words: list[str | Path], closed: str, log: str
) -> None:
    """As `show` and `export` read it there; with a log too, which is read from a copy beside the new store."""
    store, new = tmp_path / "place" / "run.sqlite", tmp_path / "new.sqlite"
    with served() as (url, _):
        assert command(*words, "--base-url", url).exit_code == 0
    damage_answers(store)
    if log == "a log with answers":
        with contextlib.closing(sqlite3.connect(store)) as other:
            other.execute("UPDATE runs SET ended_at = 5")
            other.commit()
            kept = Path(f"{store}-wal").read_bytes(), store.read_bytes()
        Path(f"{store}-wal").write_bytes(kept[0])
        store.write_bytes(kept[1])
    elif log == "an empty log":
        Path(f"{store}-wal").touch()
    names = {file.name for file in store.parent.iterdir()}
    with contextlib.ExitStack() as shut:
        if closed == "disk":
            shut.enter_context(read_only(store.parent))
            line: list[str | Path] = [sys.executable, "-m", "engine.cli.main", "salvage", store, new]
            saved = subprocess.run(line, capture_output=True, text=True, check=False)
        else:
            shut.callback(store.parent.chmod, 0o755)
            store.parent.chmod(0o555)
            saved = unprivileged("salvage", store, new)
    assert saved.returncode == 0, saved.stderr
    assert f"{COUNT - 1} answers saved" in saved.stderr
    assert {file.name for file in store.parent.iterdir()} == names
    assert {file.name for file in tmp_path.iterdir() if "salvage" in file.name} == set()
    with contextlib.closing(sqlite3.connect(new)) as db:
        assert db.execute("SELECT ended_at FROM runs").fetchall()[0][0] == 5 or log != "a log with answers"


@pytest.mark.parametrize("remedy", [0, 1])
def test_a_damaged_store_of_tune_and_the_way_on(tmp_path: Path, remedy: int) -> None:
    """`tune` has no --store: the file to put right or to take away is named, both ways work as they stand, and what
    the other settings answered is not asked again."""
    task, gold, space = make_gold(tmp_path, 60)
    with served() as (url, endpoint):
        words = ("tune", task, gold, "--base-url", url, "--model", "m", "--space", space)
        assert command(*words).exit_code == 0
        sent = endpoint.ledger.requests
        stores = sorted((tmp_path / "task.tuned.toml.trials").glob("*.sqlite"))
        assert len(stores) > 1
        turn(stores[0], b"error_kind TEXT")
        turn(stores[0], b"outcome TEXT")
        refused = command(*words)
        assert refused.exit_code in (2, 4), refused.output
        assert "--store" not in refused.output
        assert str(stores[0]) in refused.output
        said = " ".join(refused.stderr.split())
        first = said[said.index("annotate salvage") : said.index("; or take it away")]
        second = said[said.index("rm -f", said.index("; or take it away")) : said.index(". Then the same command")]
        if remedy == 0:
            first = first.replace("annotate", f"{shlex.quote(sys.executable)} -m engine.cli.main", 1)
        subprocess.run((first, second)[remedy], shell=True, check=True)  # noqa: S602 - as somebody pastes it
        assert command(*words).exit_code == 0
        again = endpoint.ledger.requests - sent
        assert again == 0 if remedy == 0 else 0 < again < sent
    assert rows_of(Path(gold))
