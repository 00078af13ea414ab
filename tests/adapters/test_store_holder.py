"""Two runs on one store, and stores in odd places: one holder at a time, who it is, and nothing kept nowhere."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.store import AnswerRow, RunStore, open_store, read_store
from engine.adapters.store.holder import Holder, _command
from engine.vocabulary.errors import StoreError

HOLD = """
import sys
from engine.adapters.store import open_store
sys.argv = ["/usr/bin/annotate", "run", "task.toml", "in put.jsonl", "--header", "X-Key=secret-of-mine", "--rpm", "5"]
store = open_store(sys.stdin.readline().strip())
print(1, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.store.sqlite"


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """The store in the hands of another process, which is killed at the end if it is still there."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(f"{path}\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "1\n"
        yield holder
        holder.kill()


def test_the_second_is_told_who_holds_the_store(path: Path) -> None:
    """Process, host, since when, and the command as far as it holds no secrets; nothing is waited for long."""
    with held(path) as holder:
        with pytest.raises(StoreError) as refused:
            open_store(path)
        said = str(refused.value)
        assert "is in use by another run; wait for it, or stop it" in said
        assert f"process {holder.pid} on {socket.gethostname()}, since 20" in said
        assert "annotate run task.toml" in said
        assert "in put.jsonl" in said
        written = Path(f"{path}.holder").read_text()
        assert "secret" not in said + written
        assert "rpm" not in said
        assert json.loads(written)["pid"] == holder.pid
        assert oct(Path(f"{path}.holder").stat().st_mode)[-3:] == "600"


def test_a_stale_lock_holds_nobody_up(path: Path) -> None:
    """A killed holder leaves lock file and note; the next one has the store at once, and its note is its own."""
    with held(path) as holder:
        holder.kill()
        holder.wait()
        assert Path(f"{path}.holder").exists()
        with contextlib.closing(open_store(path)):
            assert json.loads(Path(f"{path}.holder").read_text())["pid"] == os.getpid()
            with pytest.raises(StoreError, match="it is in this very process, since 20"):
                open_store(path)
    assert not Path(f"{path}.holder").exists()


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"pid":"x"}', b"\xff\xfe", None])
def test_a_note_that_cannot_be_read_is_none(path: Path, note: bytes | None) -> None:
    """It is refused all the same, without who."""
    with held(path):
        file = Path(f"{path}.holder")
        file.unlink()
        if note is not None:
            file.write_bytes(note)
        with pytest.raises(StoreError, match=r"is in use by another run; wait for it, or stop it$"):
            open_store(path)


def test_a_note_of_a_process_that_is_gone_is_not_believed(path: Path) -> None:
    """Between taking the lock and writing its own note, a holder would be told as the one that was killed before."""
    with held(path) as holder:
        gone = Holder(pid=2**22 - 1, host=socket.gethostname(), since=1.0, command="old")
        Path(f"{path}.holder").write_bytes(
            json.dumps(dict(zip(gone.__struct_fields__, (gone.pid, gone.host, 1.0, "old"), strict=True))).encode()
        )
        with pytest.raises(StoreError, match=r"wait for it, or stop it$"):
            open_store(path)
        assert holder.poll() is None


def test_a_look_at_the_lock_is_not_taken_for_a_run(path: Path) -> None:
    """`annotate show` has the lock, shared, for an instant, to say whether a run goes on; one that starts then is let
    in as soon as it is free."""
    open_store(path).close()
    looks = os.open(f"{path}.lock", os.O_RDONLY)
    fcntl.flock(looks, fcntl.LOCK_SH | fcntl.LOCK_NB)
    ends = threading.Timer(0.05, os.close, [looks])  # real time: locks are the system's
    ends.start()
    try:
        open_store(path).close()
    finally:
        ends.join()


@given(st.lists(st.text(min_size=1)))
def test_a_command_is_told_without_its_options(words: list[str]) -> None:
    """Options may hold keys and headers: nothing from the first one on is written down."""
    secret = "SECRET-" * 2
    told = _command(["annotate", *[word for word in words if not word.startswith("-")], "--header", secret, secret])
    assert secret not in told
    assert len(told) <= 300


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "python"),
        ([""], "python"),
        (["/usr/bin/annotate"], "annotate"),
        (["annotate", "run", "a b.toml"], "annotate run 'a b.toml'"),
        (["annotate", "run", "--header", "x"], "annotate run ..."),
        (["annotate", "-h"], "annotate ..."),
        (["annotate", "a" * 291], "annotate " + "a" * 291),
        (["annotate", "a" * 292], "annotate " + "a" * 288 + "..."),
    ],
    ids=["none", "empty", "path", "words", "option", "option only", "300", "301"],
)
def test_a_command_in_words(argv: list[str], told: str) -> None:
    """The program without its folder, what stands before the first option, 300 characters at the most."""
    assert _command(argv) == told


def test_a_store_that_is_removed_under_a_run_is_said(path: Path) -> None:
    """What is written into a file without a name is nowhere in the end: the run stops with the first answer after it.
    So it is with the log."""
    for suffix in ("", "-wal"):
        with contextlib.closing(open_store(path)) as store:
            settings_id = store.settings(task_key="t", model="m", task="{}")
            run_id = store.begin_run(settings_id=settings_id, started_at=1.0, config="{}")
            Path(f"{path}{suffix}").unlink()
            with pytest.raises(StoreError, match="was removed while the run went on"):
                store.write(run_id, settings_id, [], [AnswerRow(key='"a"', digest=b"d" * 16, output='"x"')])
        path.unlink(missing_ok=True)
        Path(f"{path}-wal").unlink(missing_ok=True)


def test_a_second_hard_link_is_refused(path: Path) -> None:
    """Two names of one file have two locks and two logs; the message says how to part them."""
    open_store(path).close()
    other = path.with_name("other.sqlite")
    other.hardlink_to(path)
    for name in (path, other):
        with pytest.raises(StoreError, match=r"has a second name .* cp .* && mv "):
            open_store(name)
    other.unlink()
    open_store(path).close()


# -- names ---------------------------------------------------------------------------------------------------------

ODD = [
    "a b.sqlite",
    'it\'s "quoted".sqlite',
    "question?mark#hash%20.sqlite",
    "漢字 é\u0301 😀.sqlite",
    "file:other?mode=memory",
    ":memory:",
    "-rf",
    "new\nline",
    "ünï.sqlite; DROP TABLE answers",
    os.fsdecode(b"not \xff utf-8"),
    "$(touch x) `id`",
]


def put_and_get(path: str | Path) -> None:
    """Write an answer, close, read it by both ways."""
    answer = AnswerRow(key='"a"', digest=b"d" * 16, output='"x"')

    def fill(store: RunStore) -> None:
        settings_id = store.settings(task_key="t", model="m", task="{}")
        run_id = store.begin_run(settings_id=settings_id, started_at=1.0, config="{}")
        store.write(run_id, settings_id, [], [answer])

    with contextlib.closing(open_store(path)) as store:
        fill(store)
    for opener in (open_store, read_store):
        with contextlib.closing(opener(path)) as store:
            assert store.find(1, keys=['"a"'], digests=[]).by_key == {'"a"': [answer]}


@pytest.mark.parametrize("name", ODD)
def test_a_store_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is kept in a file of just that name, whatever SQLite would make of it (``:memory:`` would be kept nowhere)."""
    put_and_get(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    put_and_get(name)
    assert all(file.name.startswith(name) for file in Path().iterdir())


def test_a_name_that_cannot_be_is_said(tmp_path: Path) -> None:
    """Too long, or with a NUL: an error of ours."""
    for name in ("x" * 300, "x\0y"):
        with pytest.raises(StoreError):
            open_store(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_one_store_by_two_names_is_one_store(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """By a link in another folder: the same lock, the same log, the same note of what is in flight."""
    folder = tmp_path_factory.mktemp("links")
    (folder / "there").mkdir()
    (folder / "here").mkdir()
    real, link = folder / "there" / "real.sqlite", folder / "here" / "link.sqlite"
    link.symlink_to(real)
    one, other = data.draw(st.permutations([real, link]))
    with contextlib.closing(open_store(one)), pytest.raises(StoreError, match="in use"):
        open_store(other)
    put_and_get(other)
    with contextlib.closing(read_store(one)) as store:
        assert store.query("SELECT count(*) FROM answers") == [(1,)]
    assert {file.name for file in link.parent.iterdir()} == {"link.sqlite"}
