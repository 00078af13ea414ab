"""The wall clock jumps while a run is under way: an hour is changed, a machine wakes, time comes from the network."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, make_files, rows_of, served

from engine.testing.simulator.answers import stable_label

DAY_S = 86_400.0
JUMPS = {
    "back": [0.0, 0.0, -DAY_S],
    "forward": [0.0, 0.0, 10 * 365 * DAY_S],
    "to and fro": [0.0, -DAY_S, DAY_S, -10 * 365 * DAY_S, 5.0],
    "to the epoch": [0.0, -time.time()],
}


def numbers(value: Any) -> list[float]:
    """All numbers in a document."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in numbers(part)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.mark.parametrize("jumps", JUMPS.values(), ids=JUMPS)
def test_a_clock_that_jumps_moves_no_label_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: list[float]
) -> None:
    """Each look at the wall clock is some days off the last one: every record ends once with its own label, durations
    and rates in the report come from a clock that cannot jump, the newest run is the newest whatever its date, and the
    same command again sends nothing."""
    real, off = time.time, itertools.cycle(jumps)
    monkeypatch.setattr(time, "time", lambda: real() + next(off))
    out, report = tmp_path / "out.jsonl", tmp_path / "report"
    with served(delay_s=0.01) as (url, endpoint):
        words = ["run", *make_files(tmp_path, 40), "--base-url", url, "--model", "m", "--output", out]
        words += ["--batch-size", "4", "--report", report]
        result = command(*words)
        assert result.exit_code == 0, result.output
        document = json.loads((report / "report.json").read_text())
        assert 0 < document["throughput"]["records_per_s"] < 1e5
        assert all(0 <= number < 60 for number in numbers(document["latency_s"]))
        sent = endpoint.ledger.requests
        assert command(*words).exit_code == 0
        assert endpoint.ledger.requests == sent
        shown = json.loads(command("show", out, "--json").stdout)
        assert [run["status"] for run in shown["runs"]] == ["done", "done"]
    rows = rows_of(out)
    assert [row["output"] for row in rows] == [
        stable_label(f"text number {n}", ["red", "green", "blue"]) for n in range(40)
    ]
