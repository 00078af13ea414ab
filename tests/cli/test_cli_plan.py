"""`annotate plan`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cli_support import command, make_files, served

from engine.testing.simulator.reasoning import Reasoning


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


def test_what_a_model_thinks_is_in_the_plan(tmp_path: Path) -> None:
    """Told on the command line: a column of its own, part of the output, less of it in larger batches."""
    files = make_files(tmp_path, 200)
    done = command("plan", *files, "--reasoning-tokens", "400,20", "--report", tmp_path / "plan")
    assert done.exit_code == 0, done.output
    assert "reasoning" in done.stdout
    assert "thinks for some 400 tokens a request and 20 a record" in done.stdout
    document = json.loads((tmp_path / "plan/plan.json").read_text())
    thought = {each["batch_size"]: each["reasoning_tokens"] for each in document["forecasts"]}
    assert (thought[1], thought[10]) == (200 * 420, 20 * 600)
    assert "of it reasoning" in (tmp_path / "plan/plan.html").read_text()
    plain = command("plan", *files)
    assert "reasoning" not in plain.stdout


@pytest.mark.parametrize("wrong", ["many", "1,x", "-5", "nan", "1,2,3"])
def test_reasoning_that_is_no_number_is_refused(tmp_path: Path, wrong: str) -> None:
    """One line that names the option, and no plan."""
    done = command("plan", *make_files(tmp_path, 20), "--reasoning-tokens", wrong)
    assert done.exit_code == 2
    assert "--reasoning-tokens" in done.output


def test_a_run_of_a_thinking_model_teaches_the_plan(tmp_path: Path) -> None:
    """The store holds reasoning apart: the plan says what a request thinks, and its report tells of it too."""
    files = make_files(tmp_path, 300)
    out = tmp_path / "out.jsonl"
    thinks = Reasoning(call_tokens=400, record_tokens=20, variation=0.0)
    with served(labels=["red", "green", "blue"], reasoning=thinks) as (url, _):
        where = ("--base-url", url, "--model", "m")
        ran = command("run", *files, *where, "--output", out, "--batch-size", "5", "--report", tmp_path / "report",
                      "--reasoning-effort", "medium")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    report = json.loads((tmp_path / "report/report.json").read_text())
    tokens = report["tokens"]
    assert 0 < tokens["reasoning"] < tokens["output"]
    assert sum(tokens["parts"].values()) == tokens["input"] + tokens["output"]
    assert tokens["parts"]["reasoning"] > 0
    assert report["all_runs"]["reasoning_tokens"] == tokens["reasoning"]
    assert "of it reasoning" in (tmp_path / "report/report.html").read_text()
    assert "reasoning" in command("show", out).stdout
    learned = command("plan", *files, *where, "--store", f"{out}.store.sqlite", "--report", tmp_path / "plan")
    assert learned.exit_code == 0, learned.output
    terms = json.loads((tmp_path / "plan/plan.json").read_text())["terms"]
    assert terms["reasoning_call"] == pytest.approx(400, abs=60)
    assert terms["reasoning_record"] == pytest.approx(20, abs=12)
    assert terms["output_record"] < 30


def test_votes_are_planned_with_their_range(tmp_path: Path) -> None:
    """Asks of a record from two on, as assumed, as given and as a store tells; alone, one ask, and it says so."""
    files = make_files(tmp_path, 200)
    assumed = command("plan", *files, "--votes", "3", "--report", tmp_path / "plan")
    assert assumed.exit_code == 0, assumed.output
    assert "3 votes (decided) ask a record between 2 and 3 times, some 2.20" in assumed.stdout
    assert "assumed" in assumed.stdout
    assert assumed.stdout.count("is planned with one ask") == 1
    document = json.loads((tmp_path / "plan/plan.json").read_text())
    assert [each["rounds"]["most"] for each in document["forecasts"]] == [1, 3, 3, 3, 3, 3]
    assert "asks of a record" in (tmp_path / "plan/plan.html").read_text()
    given = command("plan", *files, "--votes", "3", "--vote-agreement", "0.6", "--temperature", "0.7")
    assert "some 2.40" in given.stdout
    assert "one ask" not in given.stdout
    Path(files[0]).write_text('instructions = "Say."\n[fields.note]\ntype = "string"\n')
    texts = command("plan", *files, "--votes", "3")
    assert texts.exit_code == 2
    assert "nothing to vote on" in texts.stderr


def test_a_run_with_votes_tells_how_often_they_agree(tmp_path: Path) -> None:
    """Answers that never change: two rounds of three, and what the store says counts, not what is assumed."""
    files = make_files(tmp_path, 100)
    out = tmp_path / "out.jsonl"
    with served(labels=["red", "green", "blue"]) as (url, _):
        where = ("--base-url", url, "--model", "m")
        ran = command("run", *files, *where, "--output", out, "--votes", "3", "--batch-size", "5")
        assert ran.exit_code == 0, ran.output
    learned = command("plan", *files, *where, "--votes", "5", "--store", f"{out}.store.sqlite")
    assert learned.exit_code == 0, learned.output
    assert "some 3.0" in learned.stdout
    assert "as in the store" in learned.stdout
