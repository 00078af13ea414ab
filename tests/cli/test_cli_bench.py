"""`annotate bench` as a user sees it: over real sockets, with its files, words and exit codes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, ended, make_files, served, start_command, wait_until

FAST = [
    "--batch-sizes", "1,4", "--concurrency", "1,4", "--requests", "8", "--repeats", "2", "--minutes", "1",
    "--rates", "40",
]  # fmt: skip


def bench(folder: Path, base_url: str, *words: str) -> Any:
    output = ["--output", str(folder / "bench.json")]
    return command("bench", *make_files(folder), "--base-url", base_url, "--model", "m", *output, *words)


def test_a_bench_prints_the_curve_and_writes_every_figure(tmp_path: Path) -> None:
    """Exit 0; the table, the knee and what was sent are shown, simulated is called simulated, the file holds it all."""
    with served(delay_s=0.02) as (base_url, endpoint):
        done = bench(tmp_path, base_url, *FAST, "--target-p95-s", "1", "--price-input", "1", "--price-output", "2")
        requests = endpoint.ledger.requests
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "bench.json").read_text())
    assert (document["partial"], document["simulated"]) == (False, True)
    assert [(point["batch_size"], point["concurrency"]) for point in document["closed"]] == [
        (1, 1), (1, 4), (4, 1), (4, 4),
    ]  # fmt: skip
    assert all(len(point["visits"]) == 2 for point in document["closed"])
    assert document["open"][0]["records_per_s"] == 40
    assert document["totals"]["requests"] == requests
    assert document["totals"]["usd"] > 0
    assert document["closed"][0]["summary"]["request_latency_s"]["p95"]["median"] >= 0.02
    for words in ("SIMULATED endpoint, complete", "closed loop", "open loop", "knee (<)", "within the target", "$"):
        assert words in done.stdout
    assert document["planned"]["at_most"]["requests"] >= requests
    assert "at most" in done.stderr
    page = tmp_path / "bench.html"
    assert f"drawn: {page}" in done.stdout
    drawn = page.read_bytes()
    page.unlink()
    again = command("report", tmp_path)
    assert (again.exit_code, again.stdout.strip()) == (0, str(page))
    assert page.read_bytes() == drawn


def test_what_run_refuses_before_it_sends_bench_refuses_too(tmp_path: Path) -> None:
    """A provider without a key, and an example that the task does not allow; a look at the plan needs no key."""
    files = make_files(tmp_path)
    refused = command("bench", *files, "--provider", "openai", "--model", "m", "--output", tmp_path / "b.json")
    assert refused.exit_code == 2
    assert "export OPENAI_API_KEY=" in refused.stderr
    words = ["--provider", "openai", "--model", "m", "--output", tmp_path / "b.json", "--dry-run"]
    assert command("bench", *files, *words).exit_code == 0
    task = Path(files[0])
    task.write_text(task.read_text() + '\n[[examples]]\ninput = "0"\noutput = "no such label"\n')
    wrong = command("bench", *files, "--base-url", "http://127.0.0.1:9/v1", "--model", "m", *words[4:6])
    assert wrong.exit_code == 2
    assert "example" in wrong.stderr
    assert "'no such label' is not one of the labels" in wrong.stderr


def test_a_page_that_cannot_be_written_costs_a_message(tmp_path: Path) -> None:
    """The figures are what was paid for: they are there, and the exit code is theirs."""
    (tmp_path / "bench.html").mkdir()
    small = ["--batch-sizes", "1", "--concurrency", "2", "--requests", "8", "--repeats", "1", "--no-open-loop"]
    with served(delay_s=0.0) as (base_url, _):
        done = bench(tmp_path, base_url, *small)
    assert done.exit_code == 0, done.output
    assert "bench.html cannot be written" in done.stderr
    assert json.loads((tmp_path / "bench.json").read_text())["closed"]


def test_an_earlier_bench_is_kept(tmp_path: Path) -> None:
    """A second bench of the same name stands beside the first, not over it, and so does its page."""
    small = ["--batch-sizes", "1", "--concurrency", "2", "--requests", "8", "--repeats", "1", "--no-open-loop"]
    with served(delay_s=0.0) as (base_url, _):
        assert bench(tmp_path, base_url, *small, "--seed", "1").exit_code == 0
        assert bench(tmp_path, base_url, *small, "--seed", "2").exit_code == 0
    assert json.loads((tmp_path / "bench.json").read_text())["seed"] == 2
    assert json.loads((tmp_path / "bench-1.json").read_text())["seed"] == 1
    assert "Seed</th><td><bdi>2<" in (tmp_path / "bench.html").read_text()
    assert "Seed</th><td><bdi>1<" in (tmp_path / "bench-1.html").read_text()


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(tmp_path: Path) -> None:
    """The plan, the most that it may send and cost, and no file."""
    with served() as (base_url, endpoint):
        done = bench(tmp_path, base_url, "--dry-run", "--quick", "--price-input", "1", "--price-output", "2")
        assert endpoint.ledger.requests == 0
    assert done.exit_code == 0
    assert "at most" in done.stderr
    assert "within 9 min" in done.stderr
    assert "cost          about $" in done.stderr
    assert not (tmp_path / "bench.json").exists()


def test_a_budget_in_tokens_is_said_and_kept(tmp_path: Path) -> None:
    """One that no request fits in: nothing is sent, and it is told why."""
    with served() as (base_url, endpoint):
        said = bench(tmp_path, base_url, "--dry-run", "--quick", "--budget-tokens", "20000").stderr
        assert "budget        it stops at 20,000 tokens" in said
        done = bench(tmp_path, base_url, "--quick", "--budget-tokens", "10")
        assert endpoint.ledger.requests == 0
    assert done.exit_code == 4, done.output
    assert "budget_tokens (--budget-tokens)" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch-sizes", "1,x"], "is not a list of numbers from 1 up"),
        (["--concurrency", "0"], "is not a list of numbers from 1 up"),
        (["--rates", "-3"], "is not a list of records a second above 0"),
        (["--rates", "nan"], "is not a list of records a second above 0"),
        (["--budget-usd", "1"], "needs prices"),
        (["--target-p95-s", "nan"], "is not a finite number"),
        (["--minutes", "inf"], "is not a finite number"),
        (["--output", "/nowhere/bench.json"], "does not exist"),
        (["--output", "sweep.html"], "name the file of figures: sweep.json"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(tmp_path: Path, words: list[str], said: str) -> None:
    """Exit 2, nothing sent, no trace."""
    with served() as (base_url, endpoint):
        done = bench(tmp_path, base_url, *words)
        assert endpoint.ledger.requests == 0
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_model_alone_is_refused(tmp_path: Path) -> None:
    """As in `run`: nobody gets the small model by accident."""
    done = command("bench", *make_files(tmp_path), "--model", "m", "--output", tmp_path / "bench.json")
    assert done.exit_code == 2
    assert "--base-url" in done.stderr


def test_an_endpoint_that_refuses_the_key_is_an_error_at_once(tmp_path: Path) -> None:
    """Exit 4 with the endpoint's words; no file that looks like a measurement."""
    with served(api_key="right") as (base_url, _):
        done = bench(tmp_path, base_url, *FAST)
    assert done.exit_code == 4
    assert "key" in done.stderr
    assert not (tmp_path / "bench.json").exists()


def test_ctrl_c_writes_what_there_is_and_marks_it_partial(tmp_path: Path) -> None:
    """Exit 4; what was measured is in the file, and both file and screen say that it is not all."""
    output = tmp_path / "bench.json"
    with served(delay_s=0.1) as (base_url, endpoint):
        words = ["--base-url", base_url, "--model", "m", "--output", str(output), "--concurrency", "1,2,4"]
        process = start_command("bench", *make_files(tmp_path), *words, "--requests", "20")
        wait_until(lambda: endpoint.ledger.requests > 150)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert code == 4, err
    document = json.loads(output.read_text())
    assert document["partial"]
    assert document["stopped"] == "interrupted"
    assert document["closed"]
    assert document["totals"]["requests"] == endpoint.ledger.requests
    assert "PARTIAL (interrupted)" in out


def test_the_findings_name_the_limit_that_binds(tmp_path: Path) -> None:
    """Sixty requests a minute allow one a second: requests a minute, not the requests in flight, are used up."""
    with served(delay_s=0.0) as (base_url, endpoint):
        done = bench(
            tmp_path, base_url, "--rpm", "300", "--batch-sizes", "1", "--concurrency", "4", "--repeats", "1",
            "--requests", "20", "--minutes", "1", "--no-open-loop",
        )  # fmt: skip
        assert endpoint.ledger.most_in_window(60.0)[0] <= 300
    assert done.exit_code == 0, done.output
    assert "what binds: requests a minute" in done.stdout
