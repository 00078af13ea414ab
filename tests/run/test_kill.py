"""SIGKILL of a real process. The benchmark of the same name does it more often; this holds the rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kills import FAULTS, LABELS, PROMISES, Kill, kill_and_resume
from engine.testing.simulator.command import SimulatorConfig


@pytest.mark.parametrize(
    "kills",
    [
        [Kill(after_s=0.9), Kill(after_s=1.4, batch_size=3)],
        [Kill(moment="opening", after_s=0.005), Kill(after_s=2.0)],
        [Kill(moment="noting", after_s=0.01), Kill(moment="writing", after_s=0.0, batch_size=25)],
    ],
)
async def test_a_killed_run_goes_on_without_loss(tmp_path: Path, kills: list[Kill]) -> None:
    """Killed at any moment and run again: every id once, right, nothing stored as ok is sent again, the output is whole
    at every moment and without debris at the end, and the store's account of all runs holds every request that the
    endpoint had."""
    config = SimulatorConfig(labels=LABELS, delay_s=0.05, faults=FAULTS, strike="first_sends=2")
    done = await kill_and_resume(tmp_path, records=1000, kills=kills, config=config)
    assert {name: getattr(done, name) for name in PROMISES} == dict.fromkeys(PROMISES, 0)
    assert any(one.struck for one in done.kills)
    assert done.requests_over <= sum(one.kill.concurrency for one in done.kills)
