"""SIGKILL of a real process. The benchmark of the same name does it more often; this holds the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kills import CONCURRENCY, LABELS, kill_and_resume
from engine.testing.simulator.command import SimulatorConfig
from engine.testing.simulator.rates import FaultRates


@pytest.mark.parametrize("kill_after_s", [0.9, 1.4, 2.0])
async def test_a_killed_run_goes_on_without_loss(tmp_path: Path, kill_after_s: float) -> None:
    """Killed at any moment and run again: every id once, right, nothing stored as ok is sent again, and the store's
    account of both runs holds every request that the endpoint had."""
    faults = FaultRates({"drop": 0.05, "cut": 0.05, "http_500": 0.05, "reset": 0.02})
    config = SimulatorConfig(labels=LABELS, delay_s=0.05, faults=faults, strike="first_sends=2")
    done = await kill_and_resume(tmp_path, records=1500, kill_after_s=kill_after_s, config=config)
    assert (done.lost, done.doubled, done.mislabelled, done.stored_sent_again) == (0, 0, 0, 0)
    assert done.requests_short == 0
    assert done.requests_over <= CONCURRENCY
