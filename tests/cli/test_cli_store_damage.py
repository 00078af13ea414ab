"""A store that was cut, damaged, salvaged or removed, by the commands: no good file is replaced by less, nothing is
missing without a word, and what is told to do next works."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import command, make_files, rows_of, served, start_command, wait_until

from engine.adapters.store import open_store, read_store, salvage

COUNT = 300
NAME = "out.jsonl.store.sqlite"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a finished run, not to be changed, and the address of its endpoint."""
    folder = tmp_path_factory.mktemp("finished")
    with served() as (url, _):
        assert command(*words_for(folder, url)).exit_code == 0
        yield folder, url


def words_for(folder: Path, url: str) -> list[str | Path]:
    """The command of that run."""
    files = make_files(folder, COUNT)
    return ["run", *files, "--base-url", url, "--model", "m", "--output", folder / "out.jsonl"]


@pytest.fixture
def folder(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def replace(store: Path, table: str, what: bytes, other: bytes) -> None:
    """Turn a byte of a text that stands in the file once, in a row of this table."""
    content = store.read_bytes()
    assert content.count(what) == 1, (table, content.count(what))
    store.write_bytes(content.replace(what, other))


def key_in_answers(store: Path, id_: str) -> int:
    """Where the key of a record's answer stands in the file."""
    with contextlib.closing(read_store(store)) as opened:
        key = f'"{id_}"'
        ((digest,),) = opened.query("SELECT digest FROM answers WHERE key = ?", (key,))
    content = store.read_bytes()
    stored = key.encode() + digest
    places = [n for n in range(len(content)) if content.startswith(stored, n)]
    (place,) = [n for n in places if not content[:n].endswith(key.encode())]  # a line of the input has the id before it
    return place


def test_an_export_of_a_salvaged_store_replaces_nothing(finished: tuple[Path, str], folder: Path) -> None:
    """A salvaged store does not know which records its answers are for: an export from it is refused with the remedy,
    the good output stays, and the remedy works."""
    out, new = folder / "out.jsonl", folder / "new.sqlite"
    before = out.read_bytes()
    assert salvage(folder / NAME, new).answers == COUNT
    refused = command("export", new, "--output", out)
    assert refused.exit_code == 2, refused.output
    assert "Run the same `annotate run` with this --store first" in refused.stderr
    assert out.read_bytes() == before
    assert command(*words_for(folder, finished[1]), "--store", new).exit_code == 0
    assert command("export", new, "--output", out).exit_code == 0
    assert len(rows_of(out)) == COUNT


def test_a_store_without_answers_is_exported_as_it_is(tmp_path: Path) -> None:
    """Where nothing was answered an empty output is right."""
    store = tmp_path / "s.sqlite"
    with contextlib.closing(open_store(store)) as opened:
        settings_id = opened.settings(task_key="t", model="m", task='{"instructions":"x","labels":["a"]}')
        opened.begin_run(settings_id=settings_id, started_at=1.0, config="{}")
    assert command("export", store, "--output", tmp_path / "o.jsonl").exit_code == 0
    assert not (tmp_path / "o.jsonl").read_bytes()


@pytest.mark.parametrize("pages", [1, 2, 5])
def test_a_store_cut_between_two_pages_is_salvaged(folder: Path, pages: int) -> None:
    """SQLite reads nothing of a file that is shorter than its header says. What is on the pages that are left is saved
    all the same, no copy is left lying about, and the damaged store stays as it is."""
    store, new = folder / NAME, folder / "new.sqlite"
    content = store.read_bytes()[: -pages * 4096]
    store.write_bytes(content)
    names = {path.name for path in folder.iterdir()}
    saved = command("salvage", store, new)
    assert saved.exit_code == 0, saved.output
    assert {path.name for path in folder.iterdir()} - names == {"new.sqlite", "new.sqlite.lock"}
    with contextlib.closing(read_store(new)) as opened:
        ((count,),) = opened.query("SELECT count(*) FROM answers")
    assert count >= COUNT - pages * 60
    assert store.read_bytes() == content


def test_a_salvage_that_saves_nothing_names_another_way(folder: Path) -> None:
    """Only the first page is left: the remedy is not the command that just failed, and nothing is left in its way."""
    store, new = folder / NAME, folder / "new.sqlite"
    store.write_bytes(store.read_bytes()[:4096])
    for _ in range(2):
        refused = command("salvage", store, new)
        assert refused.exit_code == 2
        assert "begin anew" in refused.stderr
        assert "annotate salvage" not in refused.stderr
        assert not new.exists()


def test_a_salvage_that_finds_no_answer_is_no_success(folder: Path) -> None:
    """The task can be read and no answer can: the new store would hold nothing, so none is left, and it is said."""
    store, new = folder / NAME, folder / "new.sqlite"
    content = store.read_bytes()
    store.write_bytes(content[: 4096 * (content.index(b"Say which colour") // 4096 + 1)])
    refused = command("salvage", store, new)
    assert refused.exit_code == 2, refused.output
    assert "none of its answers can be read" in refused.stderr
    assert "begin anew" in refused.stderr
    assert not new.exists()


@pytest.mark.parametrize(
    ("table", "what", "other", "said"),
    [
        ("runs", b'"input":"/', b'"input";"/', "Of 1 earlier runs"),
        ("runs", b'"input":"/', b'"inp\xf5t":"/', "Of 1 earlier runs"),
        ("settings", b'"input":null', b'"inpwt":null', "What the task said could not be read"),
    ],
)
def test_what_salvage_saves_can_be_shown(
    finished: tuple[Path, str], folder: Path, table: str, what: bytes, other: bytes, said: str
) -> None:
    """A run, or a task, that does not decode any more is neutralised and told; the new store can be shown, goes on
    without asking, and is then whole."""
    store, new = folder / NAME, folder / "new.sqlite"
    replace(store, table, what, other)
    saved = command("salvage", store, new)
    assert saved.exit_code == 0, saved.output
    assert said in saved.stderr
    assert f"{COUNT:,} answers saved" in saved.stderr
    assert command("show", new).exit_code == 0
    again = command(*words_for(folder, finished[1]), "--store", new)
    assert again.exit_code == 0
    assert f"{COUNT} stored earlier" in again.output
    assert "Say which colour it is" in command("show", new).output
    assert command("export", new, "--output", folder / "other.jsonl").exit_code == 0
    assert (folder / "other.jsonl").read_bytes() == (folder / "out.jsonl").read_bytes()


def test_a_task_whose_key_is_damaged_is_known_by_what_it_says(finished: tuple[Path, str], folder: Path) -> None:
    """A letter of the key is another one, which no seal covers: the same run is not refused as one of another task,
    pays for nothing again, and the key is right after it."""
    store, url = folder / NAME, finished[1]
    with contextlib.closing(read_store(store)) as opened:
        ((key,),) = opened.query("SELECT task_key FROM settings")
    turned = key[:-1] + ("0" if key[-1] != "0" else "1")
    with contextlib.closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE settings SET task_key = ?", (turned,))
    again = command(*words_for(folder, url))
    assert again.exit_code == 0, again.output
    assert f"{COUNT} stored earlier" in again.output
    with contextlib.closing(read_store(store)) as opened:
        assert opened.query("SELECT task_key FROM settings") == [(key,)]


@pytest.mark.parametrize("id_", ["r30", "r150", "r299"])
def test_an_answer_that_no_record_finds_is_not_left_out_in_silence(folder: Path, id_: str) -> None:
    """A bit of an answer's digest is turned, so that the order of the rows, which SQLite checks, is kept: its record
    finds none, and the answer's seal is looked at all the same."""
    store, out = folder / NAME, folder / "out.jsonl"
    before, content = out.read_bytes(), bytearray(store.read_bytes())
    content[key_in_answers(store, id_) + len(f'"{id_}"') + 15] ^= 1
    store.write_bytes(content)
    refused = command("export", store, "--output", out)
    assert refused.exit_code == 2, refused.output
    assert "is damaged" in refused.stderr
    assert out.read_bytes() == before


def test_a_run_that_only_salvage_mends_does_not_say_go_on(finished: tuple[Path, str], folder: Path) -> None:
    """SQLite finds its index at odds with the answers in the middle of a run: the message names the way on, and neither
    the same command nor an export of this store, which would fail, is offered."""
    store = folder / NAME
    content = bytearray(store.read_bytes())
    content[key_in_answers(store, "r150") + len('"r150"') + 3] ^= 1  # in the digest
    store.write_bytes(content)
    stopped = command(*words_for(folder, finished[1]))
    assert stopped.exit_code == 4, stopped.output
    assert "annotate salvage" in stopped.output
    assert "Go on with the same command" not in stopped.output
    assert "write them elsewhere with" not in stopped.output


def test_a_store_removed_under_a_run_and_the_way_on(tmp_path: Path) -> None:
    """The message names what to remove before the same command begins anew; done so, it does."""
    with served(delay_s=0.05) as (url, endpoint):
        words = [*words_for(tmp_path, url), "--batch-size", "2", "--max-concurrency", "2"]
        process = start_command(*words)
        wait_until(lambda: endpoint.ledger.requests >= 6)
        (tmp_path / NAME).unlink()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 4, said
        assert "Go on with the same command" not in said
        remedy = f"rm -f {shlex.quote(str(tmp_path / NAME))}-wal"
        assert remedy in " ".join(said.split()), said
        subprocess.run(shlex.split(remedy), check=True)
        assert command(*words_for(tmp_path, url)).exit_code == 0
    assert len(rows_of(tmp_path / "out.jsonl")) == COUNT
