"""SIGKILL of a real process between rounds of votes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from benchmarks.kills import LABELS, Kill, command, sends, write_corpus
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.server import serving

RECORDS = 120
ROUNDS = 3


def votes_stored(folder: Path) -> dict[int, int]:
    """Votes in the store, by id: of records that have ended, and of those that have not."""
    with closing(sqlite3.connect(f"file:{folder / 'out.jsonl.store.sqlite'}?mode=ro", uri=True)) as store:
        found = store.execute(
            "SELECT key, votes FROM answers UNION ALL SELECT key, count(*) FROM ballots GROUP BY key"
        ).fetchall()
    assert len(found) == len({key for key, _ in found})  # an answer ends the votes in the same transaction
    return {int(key): votes for key, votes in found}


@pytest.mark.parametrize("requests", [6, 24])
async def test_a_run_killed_between_rounds_pays_for_no_vote_twice(tmp_path: Path, requests: int) -> None:
    """Killed after so many requests and run again: each record is asked exactly as often as votes of it are missing."""
    write_corpus(tmp_path, RECORDS)
    config = SimulatorConfig(labels=LABELS, delay_s=0.02)
    kill = Kill(after_s=0.0, batch_size=10, concurrency=3)
    votes = ["--votes", str(ROUNDS), "--votes-stop", "never"]
    endpoint = build_endpoint(config)
    async with serving(endpoint) as base_url:
        argv = [*command(tmp_path, base_url, kill), *votes]
        async with await anyio.open_process(argv, stdout=None, stderr=-3) as process:
            while endpoint.ledger.requests < requests and process.returncode is None:  # noqa: ASYNC110
                await anyio.sleep(0.001)  # another process: there is nothing to wait for but what it sends
            process.kill()
            await process.wait()
    stored = votes_stored(tmp_path)
    assert stored
    again = build_endpoint(config)
    async with serving(again) as base_url:
        argv = [*command(tmp_path, base_url, kill), *votes]
        async with await anyio.open_process(argv, stdout=None, stderr=-3) as process:
            assert await process.wait() == 0
    assert sends(again, RECORDS) == {number: ROUNDS - stored.get(number, 0) for number in range(RECORDS)}
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(RECORDS))
    assert {row["confidence"] for row in rows} == {1.0}
    assert votes_stored(tmp_path) == dict.fromkeys(range(RECORDS), ROUNDS)
