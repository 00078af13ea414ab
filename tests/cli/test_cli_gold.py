"""`annotate run --gold`: from the file to the report, over a socket."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, make_files, served

from engine.adapters.measured_calls import measured_calls
from engine.adapters.store import read_store
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
        (["--gold", "GOLD", "--gold-output", "-"], "--gold-output takes a file"),
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


def run_with_answers(folder: Path, url: str, gold: Path, answers: Path, *more: str, count: int = 200) -> Any:
    return command(
        "run", *make_files(folder, count), "-o", folder / "out.jsonl", "--base-url", url, "--model", "m",
        "--batch-size", "8", "--gold", gold, "--gold-rate", "0.2", "--gold-output", answers, *more,
    )  # fmt: skip


def test_answers_to_gold_are_added_and_never_taken_away(tmp_path: Path) -> None:
    """A run that sends nothing, a retry and a run that goes on leave what earlier ones have paid for where it is, also
    where the last line lacks its end."""
    gold, answers = make_gold_file(tmp_path), tmp_path / "gold-answers.jsonl"
    with served() as (url, _):
        assert run_with_answers(tmp_path, url, gold, answers).exit_code == 0
        first, made = answers.read_bytes(), answers.stat()
        assert first.count(b"\n") > 5
        assert run_with_answers(tmp_path, url, gold, answers).exit_code == 0
        assert answers.read_bytes() == first
        assert answers.stat().st_ino == made.st_ino  # it was not even written again
        answers.write_bytes(first[:-1])
        assert command("retry", tmp_path / "out.jsonl", "--id", "r3").exit_code == 0
        assert answers.read_bytes().startswith(first[:-1])
        assert run_with_answers(tmp_path, url, gold, answers, count=400).exit_code == 0
    grown = answers.read_bytes()
    assert grown.startswith(first)
    assert grown.count(b"\n") > first.count(b"\n")
    assert all("right" in json.loads(line) for line in grown.splitlines())


@pytest.mark.parametrize("held", ["my notes\n", '{"id":"r1","output":"red","error":null}\n', '{"line":1}\n', "\xff\n"])
def test_answers_to_gold_go_into_no_file_of_somebody_else(tmp_path: Path, held: str) -> None:
    """It is named before anything is sent, and stays as it is."""
    gold, answers = make_gold_file(tmp_path), tmp_path / "notes.txt"
    answers.write_text(held, encoding="latin-1")
    with served() as (url, endpoint):
        result = run_with_answers(tmp_path, url, gold, answers)
        assert result.exit_code == 2
        assert "notes.txt: line 1 is no answer to gold" in result.stderr
        assert endpoint.ledger.requests == 0
    assert answers.read_text(encoding="latin-1") == held


@pytest.mark.parametrize("streamed", [False, True])
def test_gold_with_other_fields_is_a_mistake_of_the_command(tmp_path: Path, streamed: bool) -> None:
    """It is found before anything is sent, so nothing went on that the same command could go on with."""
    gold = make_gold_file(tmp_path, annotator="me")
    task, input_ = make_files(tmp_path, 50)
    with served() as (url, endpoint):
        result = command(
            "run", task, "-" if streamed else input_, "-o", tmp_path / "out.jsonl", "--base-url", url, "--model", "m",
            "--gold", gold, stdin=Path(input_).read_text() if streamed else None,
        )  # fmt: skip
        assert result.exit_code == 2, result.stderr
        assert "annotator" in result.stderr
        assert "same command" not in result.stderr
        assert endpoint.ledger.requests == 0
    with closing(read_store(tmp_path / "out.jsonl.store.sqlite")) as store:  # a file was looked at before the run began
        assert store.query("SELECT status FROM runs") == [("input",)] * streamed  # a mistake, and no crash of ours


@pytest.mark.parametrize("votes", ["1", "3"])
def test_a_plan_learns_the_same_from_a_run_with_gold(tmp_path: Path, votes: str) -> None:
    """A request with gold in it asked for more than its records: it is measured by all that it asked, or not at all."""
    gold, output = make_gold_file(tmp_path, 200), tmp_path / "out.jsonl"
    files = make_files(tmp_path, 300)
    with served() as (url, _):
        where = ("--base-url", url, "--model", "m")
        ran = command(
            "run", *files, "-o", output, *where, "--batch-size", "5", "--answer-form", "compact", "--votes", votes,
            "--votes-stop", "never", "--gold", gold, "--gold-rate", "0.3",
        )  # fmt: skip
        assert ran.exit_code == 0, ran.output
    with closing(read_store(Path(f"{output}.store.sqlite"))) as store:
        carried = store.query("SELECT count(*) FROM calls WHERE size < 5 AND purpose = 'ask'")[0][0]
        calls = measured_calls(store, 1, most=1_000)
    assert carried > 20
    assert len(calls) > 10
    shares = [call.output_tokens / call.size for call in calls if call.size >= 4]
    assert max(shares) < 1.15 * min(shares)
    assert all(len(call.digests) in (0, call.size) for call in calls)


@pytest.mark.parametrize(("rate", "told"), [("0.05", True), ("0.3", False)])
def test_gold_that_is_too_little_is_told(tmp_path: Path, rate: str, told: bool) -> None:
    """The input is too short for gold at its usual rate, and the user reads it."""
    gold, answers = make_gold_file(tmp_path), tmp_path / "gold-answers.jsonl"
    with served() as (url, _):
        result = run_with_answers(tmp_path, url, gold, answers, "--gold-rate", rate)
    assert ("not even a loss of 15 points" in result.stderr) is told
