"""What a search costs: each model its own price, what is said before, and what is measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_support import command, served
from test_cli_tune import make_gold

SPACE = 'batch_size = [5]\nform = ["compact"]\nexamples = [0]\nmodel = ["small", "large"]\n'
PRICES = """
[[lists]]
as_of = "2026-11"
source = "the user"
[lists.models]
"small" = { input = 1.0, output = 4.0 }
"large" = { input = 10.0, output = 40.0 }
"""


def made(folder: Path, count: int = 60) -> tuple[str, str, str, Path]:
    """A task, gold, a space with two models, and the price of each."""
    task, gold, space = make_gold(folder, count)
    Path(space).write_text(SPACE)
    prices = folder / "prices.toml"
    prices.write_text(PRICES)
    return task, gold, space, prices


@pytest.mark.parametrize("model", ["small", "other"])
def test_each_model_has_its_own_price(tmp_path: Path, model: str) -> None:
    """The large one costs ten times as much a record and is not taken; a budget in dollars is for both."""
    task, gold, space, prices = made(tmp_path)
    with served() as (url, endpoint):
        words = ("tune", task, gold, "--base-url", url, "--model", model, "--space", space, "--prices", prices)
        dry = command(*words, "--dry-run", "--budget-usd", "1")
        assert dry.exit_code == 0, dry.output
        assert endpoint.ledger.requests == 0
        done = command(*words, "--budget-usd", "1", "--report", tmp_path / "report")
        assert done.exit_code == 0, done.output
    assert re.search(r"tokens \(\$0\.\d+\) at the most", dry.stderr)
    assert "no bound" not in dry.stderr
    document = json.loads((tmp_path / "report" / "tune.json").read_text())
    small, large = document["rows"]
    assert (small["setting"]["model"], large["setting"]["model"]) == ("small", "large")
    each = [row["input_per_record"] + 4 * row["output_per_record"] for row in (small, large)]
    assert small["usd_per_1000"] == pytest.approx(each[0] / 1000)
    assert large["usd_per_1000"] == pytest.approx(10 * each[1] / 1000)
    assert document["spent_usd"] == pytest.approx(
        sum(row["usd_per_1000"] * row["records"] for row in (small, large)) / 1000
    )
    assert document["prices"]["input"] == 1.0
    assert "$/1,000" in done.stdout
    assert "without prices" not in done.stdout


def test_one_price_for_several_models_is_refused(tmp_path: Path) -> None:
    """It would be used for all of them; one model of the space takes it."""
    task, gold, space, _ = made(tmp_path)
    with served() as (url, endpoint):
        words = ("tune", task, gold, "--base-url", url, "--model", "small", "--space", space, "--dry-run")
        refused = command(*words, "--price-input", "1", "--price-output", "4")
        assert refused.exit_code == 2, refused.output
        assert "asks 2 models (small, large); give each its own in a file: --prices FILE" in refused.stderr
        Path(space).write_text(SPACE.replace('"small", ', ""))
        assert command(*words, "--price-input", "1", "--price-output", "4").exit_code == 0
        assert endpoint.ledger.requests == 0


def test_a_model_without_a_price_is_named(tmp_path: Path) -> None:
    """With a budget in dollars it ends the command; without one tokens decide, and that is said."""
    task, gold, space, prices = made(tmp_path)
    prices.write_text(PRICES.replace('"large"', '"huge"'))
    with served() as (url, _):
        words = ("tune", task, gold, "--base-url", url, "--model", "small", "--space", space, "--prices", prices)
        refused = command(*words, "--budget-usd", "1")
        assert refused.exit_code == 2, refused.output
        assert "none is known of 'large'" in refused.stderr
        done = command(*words, "--limit", "20")
        assert done.exit_code == 0, done.output
    assert "no price is known of large: settings are compared by tokens" in done.stdout


def test_thoughts_are_counted_where_they_are_told(tmp_path: Path) -> None:
    """So many a request and so many a record, in what is said before anything is sent."""
    task, gold, space = make_gold(tmp_path, 100)
    Path(space).write_text('batch_size = [5]\nform = ["compact"]\nexamples = [0]\n')
    words = ("tune", task, gold, "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--space", space, "--dry-run")
    plain, thought = command(*words), command(*words, "--reasoning-tokens", "500,20")
    most = [int(re.search(r"about ([\d,]+) tokens", done.stderr)[1].replace(",", "")) for done in (plain, thought)]  # type: ignore[index]
    assert most[1] - most[0] == 100 * (500 / 5 + 20)
    assert "comes on top" in plain.stderr
    assert "comes on top" not in thought.stderr
    assert command(*words, "--reasoning-tokens", "many").exit_code == 2
