"""`annotate simulate`: an endpoint to try things out on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from cli_support import command, ended, make_files, rows_of, start_command


def test_simulate_serves_until_ctrl_c(tmp_path: Path) -> None:
    """The base URL is the first line of standard output; Ctrl-C ends it well, the ledger written."""
    ledger, out = tmp_path / "ledger.json", tmp_path / "out.jsonl"
    process = start_command("simulate", "--labels", "red,green,blue", "--delay-s", "0", "--ledger", ledger)
    assert process.stdout is not None
    base_url = process.stdout.readline().strip()
    assert base_url.startswith("http://127.0.0.1:")
    run = command("run", *make_files(tmp_path), "--base-url", base_url, "--model", "m", "--output", out)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert (run.exit_code, code) == (0, 0), run.output + err
    assert len(rows_of(out)) == 12
    assert json.loads(ledger.read_text())["records"]["distinct"] == 12


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--fault", "drip=0.1"], "drop"),
        (["--fault", "drop=2"], "0 to 1"),
        (["--mode", "strange"], "strange"),
        (["--strike", "never"], "first_sends=N"),
        (["--host", "256.0.0.1"], "--port"),
        (["--ledger", "/no/such/folder/ledger.json"], "--ledger"),
    ],
)
def test_simulate_tells_wrong_settings(words: list[str], remedy: str) -> None:
    """A wrong name or number is exit code 2, with what would be right."""
    result = command("simulate", *words)
    assert result.exit_code == 2, result.output
    assert remedy in result.stderr
    assert len(result.stderr.splitlines()) == 1
