"""`annotate run --gold`: from the file to the report, over a socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, make_files, served

from engine.testing.simulator.answers import stable_label

LABELS = ["red", "green", "blue"]


def make_gold_file(folder: Path, count: int = 60, **more: Any) -> Path:
    path = folder / "gold.jsonl"
    rows = (
        {"id": f"secret{n}", "text": f"gold {n}", "label": stable_label(f"gold {n}", LABELS)} | more
        for n in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_gold_is_reported_and_not_put_out(tmp_path: Path) -> None:
    """The output has the records of the input alone; the report says what gold showed, the page as well; the answers to
    gold are in a file of their own, and the last lines name their price."""
    gold, output, answers = make_gold_file(tmp_path), tmp_path / "out.jsonl", tmp_path / "gold-answers.jsonl"
    with served() as (url, endpoint):
        result = command(
            "run", *make_files(tmp_path, 400), "-o", output, "--base-url", url, "--model", "m", "--batch-size", "8",
            "--gold", gold, "--gold-rate", "0.1", "--gold-output", answers, "--report", tmp_path / "report",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [f"r{n}" for n in range(400)]
        report = json.loads((tmp_path / "report" / "report.json").read_text())
        assert report["records"]["total"] == report["records"]["ok"] == 400
        assert report["requests"]["total"] == endpoint.ledger.requests
    seen = report["gold"]
    assert seen["given"] == 60
    assert 0 < seen["tokens"] < report["tokens"]["input"] + report["tokens"]["output"]
    told = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(told) == seen["rides"] + seen["alone"]
    assert all(one["right"] and one["gold"] == one["output"] for one in told)
    assert {one["batch_size"] for one in told} <= set(range(1, 9))
    assert "secret" not in json.dumps(report)
    assert " asked in batches, " in result.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<h2>Gold</h2>" in page
    assert "Right answers by place in the batch" in page
    assert "Accuracy by batch size" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "pink"}, "line 1: "),
        ({"label": None}, "line 1: "),
    ],
)
def test_bad_gold_is_told_with_its_line_before_anything_is_sent(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """As a bad record of the input is."""
    gold = make_gold_file(tmp_path, 3, **change)
    with served() as (url, endpoint):
        result = command(
            "run",
            *make_files(tmp_path),
            "-o",
            tmp_path / "out.jsonl",
            "--base-url",
            url,
            "--model",
            "m",
            "--gold",
            gold,
        )
        assert result.exit_code == 2
        assert said in result.stderr
        assert "Traceback" not in result.output
        assert endpoint.ledger.requests == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gold", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["--gold-output", "answers.jsonl"], "--gold-output needs --gold FILE"),
        (["--gold-field", "truth"], "--gold-field needs --gold FILE"),
        (["--gold", "-"], "--gold takes a file"),
        (["--gold", "GOLD", "--gold-field", "truth"], "no field 'truth'"),
        (["--gold", "GOLD", "--gold-output", "GOLD"], "GOLD"),
        (["--gold", "GOLD", "--gold-rate", "0"], "--gold-rate"),
        (["--gold", "GOLD", "--gold-rate", "0.9"], "--gold-rate"),
    ],
)
def test_options_of_gold_that_make_no_sense_are_refused(tmp_path: Path, words: list[str], said: str) -> None:
    """One clear line each, and nothing is sent."""
    gold = str(make_gold_file(tmp_path, 3))
    with served() as (url, endpoint):
        result = command(
            "run", *make_files(tmp_path), "-o", tmp_path / "out.jsonl", "--base-url", url, "--model", "m",
            *(word.replace("GOLD", gold) for word in words),
        )  # fmt: skip
        assert result.exit_code == 2
        assert said.replace("GOLD", gold) in result.stderr
        assert endpoint.ledger.requests == 0
