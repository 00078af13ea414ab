"""A store that is looked at where nothing may be written."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from engine.adapters.store import RunStore, open_store, opening, read_store
from engine.vocabulary.errors import StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.store.sqlite"
    with contextlib.closing(open_store(path)) as store:
        store.settings(task_key="t", model="m", task="{}")
    return path


def refusing(code: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """SQLite fails so, unless it need not agree with a writer; what was tried. (A test that runs as root may write.)"""
    read, tried = opening._read, list[str]()

    def refuses(file: Path, how: str) -> RunStore:
        tried.append(how)
        if "immutable" not in how:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = code
            raise error
        return read(file, how)

    monkeypatch.setattr(opening, "_read", refuses)
    return tried


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CANTOPEN_ISDIR])
def test_without_a_log_there_is_no_writer_to_agree_with(code: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a read-only folder a store that nobody writes to is read as it stands."""
    tried = refusing(code, monkeypatch)
    with contextlib.closing(read_store(path)) as store:
        assert store.query("SELECT task_key FROM settings") == [("t",)]
    assert tried == ["mode=ro", "mode=ro&immutable=1"]


def test_with_a_log_it_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the log would be missed, without a word; an empty log holds nothing."""
    log = Path(f"{path}-wal")
    log.write_bytes(b"x")
    refusing(sqlite3.SQLITE_CANTOPEN, monkeypatch)
    with pytest.raises(StoreError, match="may not be written to"):
        read_store(path)
    log.write_bytes(b"")
    read_store(path).close()


def test_another_failure_is_not_got_round(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not work is said, whatever could be read of it."""
    tried = refusing(sqlite3.SQLITE_IOERR, monkeypatch)
    with pytest.raises(StoreError, match="disk does not work"):
        read_store(path)
    assert tried == ["mode=ro"]
