"""A run that is killed while it notes its input, or between its notes: what stands in the output stays in it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing.simulator import made_up
from tests.cli.cli_support import PATIENCE_S, command, make_files, rows_of, served

COUNT = 30

_KILLED = """
import os, signal
from engine.adapters.store.run_store import RunStore
from engine.run import compose, corpus, pipeline
corpus._VALIDATED_AT_ONCE = pipeline.CHUNK = 10
def die(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)
{moment}
from engine.cli.main import main
main()
"""
NOTING = """
noted, add = [], RunStore.add_inputs
def add_inputs(self, *args):
    noted.append(1)
    return die() if len(noted) == 2 else add(self, *args)
RunStore.add_inputs = add_inputs
"""
"""Ten records of the input are noted by then."""
NOTED = "RunStore.complete_inputs = die"
"""All of them are, and nothing says so yet."""
BEGUN = "compose.Workbench._open_second = die"
"""The run is about to ask its first record."""


def killed(moment: str, *words: str | Path, stdin: str = "") -> None:
    """Run `annotate` in a process that is killed at this moment."""
    line = [sys.executable, "-c", _KILLED.format(moment=moment), *(str(word) for word in words)]
    done = subprocess.run(line, input=stdin, text=True, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", [NOTING, NOTED])
def test_a_kill_while_the_input_is_noted_cuts_nothing(tmp_path: Path, moment: str) -> None:
    """Until the new list is complete the old one is the input: `export` writes all rows and says of which run, `retry`
    refuses a part of the input, `run` tells how many rows will go; and the same command goes on, and pays nothing."""
    task, data = make_files(tmp_path, COUNT)
    out, part, again = tmp_path / "out.jsonl", tmp_path / "part.jsonl", tmp_path / "again.jsonl"
    part.write_text("".join(Path(data).read_text().splitlines(keepends=True)[:10]))
    with served() as (url, endpoint):
        words = ["run", task, data, "--base-url", url, "--model", "m", "--output", out]
        assert command(*words).exit_code == 0
        before, sent = out.read_bytes(), endpoint.ledger.requests
        killed(moment, *words)
        exported = command("export", out, "--output", again)
        assert (exported.exit_code, again.read_bytes()) == (0, before)
        assert "are the records of run 1" in exported.stderr
        refused = command("retry", out, "--id", "r3", "--input", part)
        assert refused.exit_code == 2
        assert "lacks 20 records that the run did" in refused.stderr
        assert "20 records that are done are not in this input" in command(*words[:2], part, *words[3:]).stderr
        assert command(*words).exit_code == 0
        assert (out.read_bytes(), endpoint.ledger.requests) == (before, sent)
        exported = command("export", out, "--output", again)
        assert "annotate:" not in exported.stderr
        assert again.read_bytes() == before


def test_a_killed_stream_cuts_nothing(tmp_path: Path) -> None:
    """What came of it by then is less than what is known; without an earlier list it is all that there is, and said."""
    task, data = make_files(tmp_path, COUNT)
    whole = Path(data).read_text()
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    with served() as (url, endpoint):
        words = ["run", task, "-", "--base-url", url, "--model", "m", "--output", out]
        killed(NOTING, *words, stdin=whole)
        first = command("export", f"{out}.store.sqlite", "--output", again)
        assert first.exit_code == 0
        assert "killed before its input had ended" in first.stderr
        assert command(*words, stdin=whole).exit_code == 0
        before, sent = out.read_bytes(), endpoint.ledger.requests
        killed(NOTING, *words, stdin=whole)
        exported = command("export", out, "--output", again)
        assert (exported.exit_code, again.read_bytes()) == (0, before)
        assert "are the records of run 2" in exported.stderr
        assert command(*words, stdin=whole).exit_code == 0
        assert (out.read_bytes(), endpoint.ledger.requests) == (before, sent)


def test_a_salvaged_store_whose_run_was_killed_while_it_noted_is_not_exported(tmp_path: Path) -> None:
    """Its answers are to more records than the part of a list that is there."""
    task, data = make_files(tmp_path, COUNT)
    out, new = tmp_path / "out.jsonl", tmp_path / "new.sqlite"
    with served() as (url, _):
        words = ["run", task, data, "--base-url", url, "--model", "m", "--output", out]
        assert command(*words).exit_code == 0
        assert command("salvage", f"{out}.store.sqlite", new).exit_code == 0
        before = out.read_bytes()
        killed(NOTING, *words, "--store", new)
        refused = command("export", new, "--output", out)
        assert (refused.exit_code, out.read_bytes()) == (2, before)
        assert "but not which records" in refused.stderr


def escalated(tmp_path: Path, url: str) -> list[str | Path]:
    """A run of two models, of which the second has some records."""
    return [
        "run", *make_files(tmp_path, COUNT), "--output", tmp_path / "out.jsonl", "--base-url", url, "--model", "small",
        "--batch-size", "6", "--votes", "3", "--votes-stop", "agreed", "--escalate-below", "0.9",
        "--escalate-model", "large", "--neighbour-guard", "off",
    ]  # fmt: skip


def test_a_kill_before_the_second_model_begins_takes_none_of_its_labels(tmp_path: Path) -> None:
    """Its part is noted with the run, so an export never gives the first model's labels in their place."""
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    with served(labels=["red", "green", "blue"], behaviour=made_up.CHANGES) as (url, endpoint):
        words = escalated(tmp_path, url)
        assert command(*words).exit_code == 0
        before, sent = out.read_bytes(), endpoint.ledger.requests
        assert any(row["model"] == "large" for row in rows_of(out))
        killed(BEGUN, *words)
        assert command("export", out, "--output", again).exit_code == 0
        assert again.read_bytes() == before
        assert command(*words).exit_code == 0
        assert (out.read_bytes(), endpoint.ledger.requests) == (before, sent)


def test_the_second_model_s_answers_bind_nobody_to_it(tmp_path: Path) -> None:
    """The store is the first model's: the second alone is another one, and wants --allow-change."""
    out = tmp_path / "out.jsonl"
    with served(labels=["red", "green", "blue"], behaviour=made_up.CHANGES) as (url, endpoint):
        words = escalated(tmp_path, url)
        assert command(*words).exit_code == 0
        before, sent = out.read_bytes(), endpoint.ledger.requests
        alone = [*words[:3], "--output", out, "--base-url", url, "--model", "large", "--neighbour-guard", "off"]
        refused = command(*alone)
        assert refused.exit_code == 2
        assert "holds answers of model 'small', not 'large'" in refused.stderr
        assert (out.read_bytes(), endpoint.ledger.requests) == (before, sent)
        assert command(*alone, "--allow-change").exit_code == 0
        assert [row["id"] for row in rows_of(out)] == [f"r{number}" for number in range(COUNT)]
