"""A retry that was stopped is gone on with, and one of a row of the second model asks that model."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.testing.simulator import made_up
from engine.testing.simulator.answers import stable_number
from engine.testing.simulator.endpoint import SimulatedEndpoint
from tests.cli.cli_support import PATIENCE_S, command, make_files, rows_of, served

COUNT = 12
_STOPPED = """
import os, signal
from engine.adapters.store.run_store import RunStore
from engine.cli import retry
def die(*args, **more):
    os.kill(os.getpid(), signal.{by})
{moment}
from engine.cli.main import main
main()
"""
SETTLED = """
settled, write = [], RunStore.write
def write_and_die(self, run_id, settings_id, calls, answers, ballots=()):
    write(self, run_id, settings_id, calls, answers, ballots)
    settled.extend(answers)
    if len(settled) >= 6 and not die.__dict__.get("once"):
        die.once = True
        die()
RunStore.write = write_and_die
"""
"""Six records of twelve are answered."""
FAILED = SETTLED.replace("extend(answers)", "extend(row for row in answers if not row.ok)").replace(">= 6", ">= 1")
"""One has failed."""
BEGUN = "retry.mark_again = die"
"""Nothing is marked yet."""
ENDING = "RunStore.end_run = die"
"""Everything is answered, and nothing says so."""
MOMENTS = [(SETTLED, "SIGKILL"), (SETTLED, "SIGINT"), (BEGUN, "SIGKILL"), (ENDING, "SIGKILL")]


def stopped(moment: str, by: str, *words: str | Path) -> None:
    """Run `annotate` in a process of its own, stopped at this moment: at once, or as by one Ctrl-C."""
    line = [sys.executable, "-c", _STOPPED.format(moment=moment, by=by), *(str(word) for word in words)]
    done = subprocess.run(line, text=True, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == (4 if by == "SIGINT" else -signal.SIGKILL), done.stderr


def finished(folder: Path, url: str) -> Path:
    """A run of one request after the other."""
    out = folder / "out.jsonl"
    options = ["--batch-size", "3", "--max-concurrency", "1", "--neighbour-guard", "off"]
    assert command("run", *make_files(folder, COUNT), "--base-url", url, "--model", "m", "--output", out, *options)
    return out


def sends(endpoint: SimulatedEndpoint) -> list[int]:
    """How often each record was sent."""
    return [endpoint.ledger.sends[stable_number(f"text number {number}")] for number in range(COUNT)]


@pytest.mark.parametrize(("moment", "by"), MOMENTS)
@pytest.mark.parametrize("selection", ["--batch-size-above", "--id"])
def test_a_retry_that_was_stopped_is_gone_on_with(tmp_path: Path, moment: str, by: str, selection: str) -> None:
    """The same command asks for what is left and for nothing twice, and writes the output; once it has ended, the same
    command is a new wish."""
    with served() as (url, endpoint):
        out = finished(tmp_path, url)
        before = rows_of(out)
        ids = [word for number in range(COUNT) for word in ("--id", f"r{number}")]
        words = ["retry", out, *(["--batch-size-above", "0"] if selection != "--id" else ids)]
        stopped(moment, by, *words)
        out.write_text("")  # as if the kill had come before the output, whenever it came
        again = command(*words)
        assert again.exit_code == 0, again.output
        assert "the retry that began as run 2 did not end: it is gone on with" in again.stderr
        assert (sends(endpoint), rows_of(out)) == ([2] * COUNT, before)
        assert "12 records are asked again: 12 done" in command(*words).stderr
        assert sends(endpoint) == [3] * COUNT


def test_a_run_may_end_what_a_retry_began(tmp_path: Path) -> None:
    """Whatever runs next asks for what was marked, with another selection too. The same retry after that ends it, and
    asks for nothing: a third one is a new wish."""
    with served() as (url, endpoint):
        out = finished(tmp_path, url)
        words = ["retry", out, "--batch-size-above", "0"]
        stopped(SETTLED, "SIGKILL", *words)
        assert "did not end" not in command("retry", out, "--id", "r0").stderr
        assert sends(endpoint) == [3, *[2] * (COUNT - 1)]  # what was marked before is asked by whatever runs next
        again = command(*words)
        assert "nothing of it is left" in again.stderr
        assert again.exit_code == 0
        assert sends(endpoint) == [3, *[2] * (COUNT - 1)]
        assert "12 records are asked again: 12 done" in command(*words).stderr
        assert sends(endpoint) == [4, *[3] * (COUNT - 1)]


def test_an_answer_whose_new_ask_failed_is_not_asked_by_the_next_run(tmp_path: Path) -> None:
    """A retry is stopped after some of its records failed, and their answers stay. A plain run that asks for the rest
    does not pay for these again, nor does one after it; nor does the same retry."""
    with served() as (url, _):
        out = finished(tmp_path, url)
        before = rows_of(out)
    with served(poison_marker="number 1") as (url, endpoint):  # of 1, 10 and 11
        where = ("--base-url", url, "--max-failed", "1", "--attempts", "1")
        words = ["retry", out, "--batch-size-above", "0", "--batch-size", "1", "--max-concurrency", "1", *where]
        stopped(FAILED, "SIGKILL", *words)
        asked = sends(endpoint)
        assert asked[1] > 0
        plain = ["run", *make_files(tmp_path, COUNT), "--model", "m", "--output", out, "--batch-size", "1", *where]
        assert command(*plain).exit_code == 3  # of 10 and 11, which it was the first to ask again
        assert sends(endpoint)[1] == asked[1]
        once = sends(endpoint)
        assert command(*plain).exit_code == 0
        assert (sends(endpoint), rows_of(out)) == (once, before)
        assert "nothing of it is left" in command(*words).stderr
        assert (sends(endpoint), rows_of(out)) == (once, before)


def test_what_failed_once_more_is_not_asked_a_third_time_by_the_same_retry(tmp_path: Path) -> None:
    """Of a retry of failed records too."""
    with served(poison_marker="number 1") as (url, endpoint):  # of 1, 10 and 11
        out = tmp_path / "out.jsonl"
        options = ["--batch-size", "1", "--max-concurrency", "1", "--neighbour-guard", "off", "--max-failed", "1"]
        files = make_files(tmp_path, COUNT)
        assert command("run", *files, "--base-url", url, "--model", "m", "--output", out, *options).exit_code == 3
        stopped(SETTLED.replace(">= 6", ">= 1"), "SIGKILL", "retry", out, "--failed")
        with closing(sqlite3.connect(f"{out}.store.sqlite")) as db:
            ((key,),) = db.execute("SELECT key FROM answers WHERE run_id = 2").fetchall()
        number = int(key.strip('"r'))
        sent = sends(endpoint)
        assert command("retry", out, "--failed").exit_code == 3
        more = [after - before for before, after in zip(sent, sends(endpoint), strict=True)]
        assert more[number] == 0
        assert all(more[other] > 0 for other in {1, 10, 11} - {number})


def asked(out: Path) -> dict[str, int]:
    """How many records were in all requests to each model."""
    with closing(sqlite3.connect(f"{out}.store.sqlite")) as db:
        sql = (
            "SELECT s.model, sum(c.size) FROM calls c JOIN runs r ON r.id = c.run_id "
            "JOIN settings s ON s.id = r.settings_id GROUP BY s.model"
        )
        return dict(db.execute(sql).fetchall())


def of_two_models(folder: Path, url: str) -> list[str | Path]:
    """A run whose first model is unsure of some records."""
    return [
        "run", *make_files(folder, 30), "--output", folder / "out.jsonl", "--base-url", url, "--model", "small",
        "--votes", "3", "--votes-stop", "agreed", "--batch-size", "6", "--escalate-below", "0.9",
        "--escalate-model", "large", "--neighbour-guard", "off",
    ]  # fmt: skip


def test_a_retry_of_a_row_of_the_second_model_asks_that_model(tmp_path: Path) -> None:
    """And not the first one, whose answer does not count; the retry of all others asks the first."""
    out = tmp_path / "out.jsonl"
    with served(labels=["red", "green", "blue"], behaviour=made_up.CHANGES) as (url, _):
        words = of_two_models(tmp_path, url)
        assert command(*words).exit_code == 0
        large = [row["id"] for row in rows_of(out) if row["model"] == "large"]
        before = asked(out)
        result = command("retry", out, "--id", large[0])
        assert result.exit_code == 0, result.output
        assert "1 record is asked again: 1 done; 1 of the second model, large" in result.stderr
        assert asked(out) == before | {"large": before["large"] + 1}
        assert [row["id"] for row in rows_of(out) if row["model"] == "large"] == large
        result = command("retry", out, "--batch-size-above", "0")
        assert f"30 records are asked again: 30 done; {len(large)} of the second model, large" in result.stderr
        assert asked(out)["large"] >= before["large"] + 1 + len(large)
        sent = asked(out)
        assert command(*words).exit_code == 0  # no mark is left
        assert asked(out) == sent


def test_a_row_of_the_second_model_that_fails_anew_keeps_its_label(tmp_path: Path) -> None:
    """And is not asked yet again by whatever runs next."""
    out = tmp_path / "out.jsonl"
    with served(labels=["red", "green", "blue"], behaviour=made_up.CHANGES) as (url, _):
        words = of_two_models(tmp_path, url)
        assert command(*words).exit_code == 0
        before = rows_of(out)
        with served(poison_marker="text") as (other, _):  # every record fails there
            id_ = next(row["id"] for row in before if row["model"] == "large")
            result = command("retry", out, "--id", id_, "--base-url", other)
        assert "1 keep their earlier answer" in result.stderr
        assert rows_of(out) == before
        sent = asked(out)
        assert command(*words).exit_code == 0
        assert (asked(out), rows_of(out)) == (sent, before)
