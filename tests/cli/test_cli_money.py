"""Budgets and prices on the command line, from the option to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, ended, make_files, served, start_command

from engine.report.spending import no_cost
from engine.vocabulary.config import Prices

LABELS = ("red", "green", "blue")


def own_prices(folder: Path) -> Path:
    """A table of prices for the model `m` at any host."""
    path = folder / "prices.toml"
    listed = '[[lists]]\nas_of = "2026-11"\nsource = "our <b>contract</b>"\n'
    path.write_text(f"{listed}[lists.models]\nm = {{ input = 100.0, output = 400.0 }}\n")
    return path


def report_of(folder: Path) -> dict[str, Any]:
    """The report as a document."""
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_a_budget_on_listed_prices_says_which_and_of_when(tmp_path: Path) -> None:
    """Before anything is sent, at the end, in report.json and on the page."""
    with served(labels=LABELS) as (url, endpoint):
        words = ["run", *make_files(tmp_path, 60), "--base-url", url, "--model", "m", "--output", tmp_path / "o.jsonl"]
        words += ["--prices", own_prices(tmp_path), "--report", tmp_path / "report", "--max-concurrency", "2"]
        result = command(*words, "--budget-usd", "0.25")
        ledger = endpoint.ledger
        billed = (100 * ledger.prompt_tokens + 400 * ledger.completion_tokens) / 1e6
    assert result.exit_code == 4
    assert "budget of $0.25" in result.stderr
    assert 0.1 < billed <= 0.25
    first = result.stderr.splitlines()[0]
    assert "$100 and $400 per million tokens" in first
    assert "as of 2026-11" in first
    assert "prices as of 2026-11 from our <b>contract</b>" in result.stderr
    report = report_of(tmp_path / "report")
    assert (report["cost"]["source"], report["cost"]["as_of"], report["no_cost"]) == (
        "our <b>contract</b>",
        "2026-11",
        None,
    )
    assert report["cost"]["usd"] == pytest.approx(billed)
    assert "as of 2026-11 from our &lt;b&gt;contract&lt;/b&gt;" in (tmp_path / "report" / "report.html").read_text()


def test_prices_given_are_not_called_listed(tmp_path: Path) -> None:
    """What the user says needs no date."""
    with served(labels=LABELS) as (url, _):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", tmp_path / "o.jsonl"]
        words += ["--price-input", "1", "--price-output", "2", "--prices", own_prices(tmp_path), "--budget-usd", "5"]
        result = command(*words, "--report", tmp_path / "report")
    assert result.exit_code == 0
    assert "as of" not in result.stderr
    assert report_of(tmp_path / "report")["cost"]["source"] is None


def test_a_budget_in_tokens_needs_no_prices_and_is_the_stores(tmp_path: Path) -> None:
    """The same command has but the rest left (a small request may still fit); a larger one goes on and is done."""
    with served(labels=LABELS) as (url, endpoint):
        words = ["run", *make_files(tmp_path, 60), "--base-url", url, "--model", "m", "--output", tmp_path / "o.jsonl"]
        first = command(*words, "--budget-tokens", "2500", "--max-concurrency", "2")
        again = command(*words, "--budget-tokens", "2500", "--max-concurrency", "2")
        billed = endpoint.ledger.prompt_tokens + endpoint.ledger.completion_tokens
        done = command(*words, "--budget-tokens", "100000")
    assert (first.exit_code, again.exit_code, done.exit_code) == (4, 4, 0)
    assert "budget of 2,500 tokens" in first.stderr
    assert "by earlier runs" in again.stderr
    assert 1_000 < billed <= 2_500


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("the embedded model", "embedded"),
        ("http://localhost:8000/v1", "local"),
        ("http://127.0.0.1/v1", "local"),
        ("http://192.168.1.5:8000/v1", "local"),
        ("http://[::1]:8000/v1", "local"),
        ("https://api.example.com/v1", "unpriced"),
        ("https://8.8.8.8/v1", "unpriced"),
    ],
)
def test_without_a_cost_one_word_says_why(endpoint: str, why: str) -> None:
    """A machine of one's own is none that a price is missing for."""
    assert no_cost(None, endpoint) == why
    assert no_cost(Prices(input=1, output=1), endpoint) is None


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])  # noqa: S104
def test_simulate_warns_where_others_can_reach_it(host: str, warned: bool) -> None:
    """Loopback unless told otherwise; told otherwise, it says what that means."""
    process = start_command("simulate", "--host", host)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    _, _, err = ended(process)
    assert ("not this machine alone" in err) == warned
