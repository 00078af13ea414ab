"""Votes, confidence and a second model on the command line, over sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.testing.simulator import made_up
from tests.cli.cli_support import command, make_files, rows_of, served

COUNT = 60
TOGETHER = "--escalate-model goes together with --escalate-below or --escalate-failed"


def test_votes_and_a_second_model_from_end_to_end(tmp_path: Path) -> None:
    """Output, report, last lines, `show` and `export` tell the same: how sure, of how many votes, and whose."""
    out = tmp_path / "out.jsonl"
    with served(labels=["red", "green", "blue"], behaviour=made_up.CHANGES) as (base_url, _):
        words = [
            "run", *make_files(tmp_path, COUNT), "--output", out, "--base-url", base_url, "--model", "small",
            "--batch-size", "6", "--votes", "3", "--votes-stop", "agreed", "--escalate-below", "0.9",
            "--escalate-model", "large", "--report", tmp_path / "report", "--price-input", "1", "--price-output", "2",
            "--escalate-price-input", "10", "--escalate-price-output", "20",
        ]  # fmt: skip
        done = command(*words)
        assert done.exit_code == 0, done.output
        again = command(*words)
        assert again.exit_code == 0, again.output
    rows = rows_of(out)
    large = [row["id"] for row in rows if row["model"] == "large"]
    assert 0 < len(large) < COUNT  # of 60 records whose answers change with the batch, by far
    assert all("confidence" not in row for row in rows if row["model"] == "large")
    assert all(row["confidence"] >= 0.9 for row in rows if row["model"] == "small")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["votes"]["rounds"] == 3
    assert sum(report["votes"]["settled_by_round"]) == COUNT == report["confidence"]["answers"]
    assert report["escalation"]["records"] == len(large) == report["escalation"]["answered"]
    assert report["escalation"]["usd"] > 0
    assert f"{len(large)} of {COUNT}" in done.output
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<h2>Votes</h2>" in page
    assert "<h2>Second model</h2>" in page
    shown = json.loads(command("show", out, large[0], "--json").output)
    assert (shown["model"], shown["status"]) == ("large", "ok")
    assert shown["first_output"] is not None
    assert command("export", out, "--output", tmp_path / "again.jsonl").exit_code == 0
    assert rows_of(tmp_path / "again.jsonl") == rows


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--escalate-below", "0.9"], TOGETHER),
        (["--escalate-model", "large"], TOGETHER),
        (["--escalate-failed"], TOGETHER),
        (["--escalate-base-url", "http://127.0.0.1:1/v1"], TOGETHER),
        (["--escalate-below", "0.9", "--escalate-model", "large"], "--votes 3, or for token probabilities"),
        (["--votes", "0"], "--votes"),
        (["--votes", "3", "--batch-size", "1"], "give a --temperature above 0"),
        (["--votes", "3", "--escalate-below", "0.9", "--escalate-model", "small"], "the model that is unsure"),
        (
            ["--votes", "3", "--escalate-below", "0.9", "--escalate-model", "large", "--budget-usd", "1",
             "--price-input", "1", "--price-output", "1"],
            "--escalate-price-input",
        ),
        (
            ["--votes", "3", "--escalate-below", "0.9", "--escalate-model", "large", "--escalate-price-input", "1"],
            "--escalate-price-input and --escalate-price-output go together",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_error_with_its_remedy(tmp_path: Path, options: list[str], said: str) -> None:
    """Told before anything is sent, with exit code 2."""
    done = command(
        "run", *make_files(tmp_path, 3), "--output", tmp_path / "out.jsonl", "--base-url", "http://127.0.0.1:1/v1",
        "--model", "small", *options,
    )  # fmt: skip
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output


def test_failed_records_go_to_a_second_model_from_end_to_end(tmp_path: Path) -> None:
    """What the first endpoint never answers the second one does: exit code, output, report, page and `show` say so, and
    the same command again asks neither."""
    out = tmp_path / "out.jsonl"
    labels = ["red", "green", "blue"]
    with served(labels=labels, poison_marker="7") as (first, _), served(labels=labels) as (second, ledger):
        words = [
            "run", *make_files(tmp_path, COUNT), "--output", out, "--base-url", first, "--model", "small",
            "--batch-size", "6", "--escalate-failed", "--escalate-model", "large", "--escalate-base-url", second,
            "--report", tmp_path / "report",
        ]  # fmt: skip
        done = command(*words)
        assert done.exit_code == 0, done.output
        asked = ledger.ledger.requests
        again = command(*words)
        assert again.exit_code == 0, again.output
        assert ledger.ledger.requests == asked
    rows = rows_of(out)
    sevens = [row["id"] for row in rows if "7" in row["id"]]
    assert [row["id"] for row in rows if row["model"] == "large"] == sevens
    assert all(row["output"] in labels and row["error"] is None for row in rows)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["records"]["ok"], report["records"]["failed"], report["failures"]) == (COUNT, 0, [])
    use = report["escalation"]
    assert (use["records"], use["failed"], use["rescued"], use["below"]) == (len(sevens),) * 3 + (None,)
    assert f"{len(sevens)} of them had failed" in done.output
    page = (tmp_path / "report" / "report.html").read_text()
    assert "that the first model failed went to" in page
    shown = json.loads(command("show", out, sevens[0], "--json").output)
    assert (shown["model"], shown["status"], shown["error"], shown["first_output"]) == ("large", "ok", None, None)
    assert json.loads(command("show", out, "--failed", "--json").output or "[]") == []
