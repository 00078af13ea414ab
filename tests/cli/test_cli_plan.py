"""`annotate plan`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from cli_support import command, make_files, served


def test_a_plan_is_a_table_and_costs_nothing(tmp_path: Path) -> None:
    """No endpoint, no key, no file written: a line for each batch size, each smaller in tokens than the one before."""
    done = command("plan", *make_files(tmp_path, 200), "--batch-sizes", "1,5,20")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines() if line[:1] == " " and line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "5", "20"]
    assert "200 records" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "task.toml"]


def test_money_and_time_are_there_where_they_are_known(tmp_path: Path) -> None:
    """Prices and limits make columns; without them there are none."""
    files = make_files(tmp_path, 200)
    given = command("plan", *files, "--price-input", "1", "--price-output", "4", "--rpm", "60")
    assert "cost" in given.stdout
    assert "requests/min" in given.stdout
    plain = command("plan", *files)
    assert "cost" not in plain.stdout
    assert "least time" not in plain.stdout


def test_the_report_is_private_and_whole(tmp_path: Path) -> None:
    """plan.json holds what the table shows, plan.html is one file, both for the owner only."""
    done = command("plan", *make_files(tmp_path, 50), "--report", tmp_path / "plan")
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "plan/plan.json").read_text())
    assert document["records"] == document["asked"] == document["counted"] == 50
    assert [each["batch_size"] for each in document["forecasts"]] == [1, 2, 5, 10, 20, 32]
    page = (tmp_path / "plan/plan.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "plan").iterdir()} == {0o600}


def test_a_first_run_teaches_the_plan(tmp_path: Path) -> None:
    """With the store of a run of some records, what the endpoint counts is known, and how long it takes."""
    files = make_files(tmp_path, 300)
    out = tmp_path / "out.jsonl"
    with served(labels=["red", "green", "blue"]) as (url, _):
        where = ("--base-url", url, "--model", "m")
        assert command("run", *files, *where, "--output", out, "--limit", "60", "--batch-size", "5").exit_code == 0
    learned = command("plan", *files, *where, "--store", f"{out}.store.sqlite", "--report", tmp_path / "plan")
    assert learned.exit_code == 0, learned.output
    assert "learned from" in learned.stdout
    document = json.loads((tmp_path / "plan/plan.json").read_text())
    assert document["learned"]["matched"] >= 10
    assert document["terms"]["input_ratio"] != 1.09


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    """A store of something else, no store, a report that is a file, a prompt above the budget."""
    files = make_files(tmp_path, 5)
    (tmp_path / "file").write_text("x")
    for words, said in (
        (("--store", tmp_path / "none.sqlite"), "there is no run store"),
        (("--store", tmp_path / "file"), "no run store"),
        (("--report", tmp_path / "file"), "is a file"),
        (("--max-input-tokens", "20"), "the static prompt alone"),
        (("--batch-sizes", "a"), "not a list of numbers"),
    ):
        done = command("plan", *files, *words)
        assert done.exit_code == 2, (words, done.output)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
