"""What the command does where standard output cannot be written, what it makes folders like, and what it prints raw."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, ended, make_files, rows_of, served, start_command

from engine.adapters.files import check_output_path
from engine.adapters.files.atomic import make_folder
from engine.cli.console import plain
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.values import Fault, FaultKind

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def on_a_full_disk(*words: Any) -> tuple[int, str]:
    """Exit code and standard error of a command whose standard output takes nothing."""
    with FULL.open("wb") as full:
        code, _, err = ended(start_command(*words, stdout=full))
    return code, err


@needs_full
@pytest.mark.parametrize("what", ["export", "csv", "show", "prompt", "plan", "profiles", "simulate", "version"])
def test_standard_output_that_takes_nothing(what: str, tmp_path: Path) -> None:
    """One line with the reason and exit code 2, at the write or at the flush: no trace, no bug, no word of the
    interpreter at its end."""
    files, out = make_files(tmp_path), tmp_path / "out.jsonl"
    if what in ("export", "csv", "show"):
        with served() as (url, _):
            assert command("run", *files, "--base-url", url, "--model", "m", "--output", out).exit_code == 0
    words: dict[str, list[Any]] = {
        "export": ["export", out, "-o", "-"],
        "csv": ["export", out, "-o", "-", "--csv-safe"],
        "show": ["show", out],
        "prompt": ["run", *files, "--show-prompt", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"],
        "plan": ["plan", *files],
        "profiles": ["simulate", "--list-profiles"],
        "simulate": ["simulate"],
        "version": ["--version"],
    }
    code, err = on_a_full_disk(*words[what])
    assert (code, err) == (2, "annotate: standard output cannot be written: No space left on device\n")


@needs_full
@pytest.mark.parametrize("store", [[], ["--store", "kept.sqlite"]])
def test_a_run_into_standard_output_that_takes_nothing(
    tmp_path: Path, store: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers were paid for: exit code 4, and not the interpreter's own 120; what has become of them is told."""
    monkeypatch.chdir(tmp_path)
    with served() as (url, _):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", "-", *store]
        code, err = on_a_full_disk(*words)
    assert ("The answers are lost" in err) == (not store)
    assert ("The answers are in the run store" in err) == bool(store)
    assert code == 4, err
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@needs_full
def test_standard_error_that_takes_nothing(tmp_path: Path) -> None:
    """Nobody can be told; the exit code is that of the mistake, not that of a bug."""
    with FULL.open("wb") as full:
        assert ended(start_command("show", tmp_path / "none", stderr=full))[0] == 2


def test_a_closed_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """`>&-` is told in words."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ConfigError, match="standard output is closed"):
        check_output_path("-")


# -- folders -----------------------------------------------------------------------------------------------------------


def mode_of(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_every_folder_that_is_made_is_its_owners(tmp_path: Path) -> None:
    """With a umask of 0 too, and the ones above it; one that was there stays as it is."""
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    files = make_files(tmp_path)
    earlier = os.umask(0)
    try:
        make_folder(there / "a" / "b")
        assert command("plan", *files, "--report", there / "plan" / "deep").exit_code == 0
        with served() as (url, _):
            words = ["run", *files, "--base-url", url, "--model", "m", "--output", tmp_path / "o.jsonl"]
            assert command(*words, "--report", there / "x" / "y" / "rep").exit_code == 0
    finally:
        os.umask(earlier)
    made = [folder for folder in there.rglob("*") if folder.is_dir()]
    assert len(made) == 7
    assert {mode_of(folder) for folder in made} == {0o700}
    assert mode_of(there) == 0o755


# -- half characters ------------------------------------------------------------------------------------------------


def test_half_a_surrogate_pair_in_a_file(tmp_path: Path) -> None:
    """In a text or an id of a file it fails its record by name, as it does from a program; a field that is not asked
    about costs nothing."""
    task, data, out = tmp_path / "task.toml", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    task.write_text('instructions = "Which?"\nlabels = ["red", "green"]\ninput = ["text"]\n')
    records = [("a", "fine", ""), ("b", "x\ud800y", ""), ("c\udfff", "fine too", ""), ("d", "also", "\ud800")]
    data.write_text("".join(json.dumps({"id": i, "text": t, "more": m}) + "\n" for i, t, m in records))
    with served() as (url, endpoint):
        words = ["run", task, data, "--base-url", url, "--model", "m", "--output", out]
        result = command(*words, "--on-bad-record", "fail-record")
        assert result.exit_code == 3, result.output
        assert "\ufffd" not in "".join(map(str, endpoint.ledger.sends))
    rows = rows_of(out)
    assert [row["id"] for row in rows] == ["a", "b", None, "d"]
    assert [(row["error"] or {}).get("kind") for row in rows] == [None, "bad-record", "bad-record", None]
    assert "field 'text' holds half of a surrogate pair" in rows[1]["error"]["message"]
    assert "the id in 'id' holds half of a surrogate pair" in rows[2]["error"]["message"]


def test_half_a_surrogate_pair_in_the_name_of_a_field(tmp_path: Path) -> None:
    """Where all fields are sent it fails its record by name, and is not sent, nor written, as another name."""
    task, data, out = tmp_path / "task.toml", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    task.write_text('instructions = "Which?"\nlabels = ["red", "green"]\n')
    records = [{"id": "a", "text": "fine", "more": ""}, {"id": "b", "text": "fine too", "mo\ud800re": ""}]
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    with served() as (url, endpoint):
        words = ["run", task, data, "--base-url", url, "--model", "m", "--output", out]
        result = command(*words, "--on-bad-record", "fail-record")
        assert result.exit_code == 3, result.output
        assert "fine too" not in "".join(map(str, endpoint.ledger.sends))
    rows = rows_of(out)
    assert [(row["error"] or {}).get("kind") for row in rows] == [None, "bad-record"]
    assert "the name of field 'mo\ufffdre' holds half of a surrogate pair" in rows[1]["error"]["message"]


# -- what is printed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\u200e", "\u200f", "\u061c", "\u202e", "\x1b"])
def test_nothing_that_breaks_or_turns_a_line_is_printed_raw(char: str) -> None:
    """Line and paragraph separators and marks of direction are spelled out."""
    assert plain(f"a{char}b") == f"a\\u{ord(char):04x}b"


def test_a_status_is_said_once() -> None:
    """A message that begins with its status is not given a second one."""
    for message in ("HTTP 200, but no chat completion: x", "no"):
        fault = Fault(kind=FaultKind.BAD_REPLY, message=message, status=200)
        assert fault.text.count("HTTP 200") == 1
