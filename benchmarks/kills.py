"""SIGKILL at random moments of real runs, then resume: what was lost, doubled, mislabelled or paid for twice.

python -m benchmarks.kills [--kills 20] [--records 5000] [--seed 1]

Each round starts `annotate run` in a process of its own against a simulated endpoint over sockets, kills it at a random
moment, looks into the store, and runs the same command again to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio

from benchmarks.common import versions, write_json
from engine.testing.simulator.answers import stable_label, stable_number
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.server import serving

LABELS = ["red", "green", "blue"]
BATCH_SIZE, CONCURRENCY = 10, 8


@dataclass(frozen=True)
class Round:
    """One kill and resume. From `lost` to `requests_short` all should be 0.

    :ivar requests_short: requests that the endpoint received and the store does not know of, over both runs.
    :ivar requests_over: requests that the store knows of and the endpoint never had whole: killed while being sent.
    """

    killed_after_s: float
    stored_at_kill: int
    lost: int
    doubled: int
    mislabelled: int
    stored_sent_again: int
    resent_beyond_in_flight: int
    requests_short: int
    requests_over: int
    resent: int


def write_corpus(folder: Path, records: int) -> None:
    """A task and a corpus of distinct texts."""
    (folder / "task.toml").write_text(f'instructions = "Say which colour it is."\nlabels = {json.dumps(LABELS)}\n')
    lines = (json.dumps({"id": number, "text": f"text number {number}"}) for number in range(records))
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")


def command(folder: Path, base_url: str) -> list[str]:
    """The same command, first and again."""
    return [
        *(sys.executable, "-m", "engine.cli.main", "run"),
        *(str(folder / "task.toml"), str(folder / "corpus.jsonl"), "--output", str(folder / "out.jsonl")),
        *("--base-url", base_url, "--model", "simulated", "--batch-size", str(BATCH_SIZE)),
        *("--max-concurrency", str(CONCURRENCY)),
    ]


def stored_ids(folder: Path) -> set[int]:
    """Ids that the store holds an ok answer for."""
    store = folder / "out.jsonl.store.sqlite"
    if not store.exists():
        return set()
    connection = sqlite3.connect(store)
    try:
        return {int(key) for (key,) in connection.execute("SELECT key FROM answers WHERE ok = 1")}
    except sqlite3.OperationalError:  # killed before its tables were made
        return set()
    finally:
        connection.close()


def requests_noted(folder: Path) -> int:
    """Requests that the store knows of, over all runs, those that were in flight at the kill included."""
    connection = sqlite3.connect(folder / "out.jsonl.store.sqlite")
    try:
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    finally:
        connection.close()


def sends(endpoint: SimulatedEndpoint, records: int) -> dict[int, int]:
    """How often each record was sent."""
    return {number: endpoint.ledger.sends[stable_number(f"text number {number}")] for number in range(records)}


async def kill_and_resume(folder: Path, *, records: int, kill_after_s: float, config: SimulatorConfig) -> Round:
    """One round in an empty folder."""
    write_corpus(folder, records)
    endpoint = build_endpoint(config)
    async with serving(endpoint) as base_url:
        argv = command(folder, base_url)
        async with await anyio.open_process(argv, stdout=None, stderr=-3) as process:
            with anyio.move_on_after(kill_after_s):
                await process.wait()
            if process.returncode is None:
                process.kill()
        await anyio.sleep(2 * config.delay_s)  # requests that were on their way arrive
        stored, before = stored_ids(folder), sends(endpoint, records)
        async with await anyio.open_process(argv, stdout=None, stderr=-3) as process:
            status = await process.wait()
        if status not in (0, 3):
            raise SystemExit(f"the resumed run ended with {status}")
        after = sends(endpoint, records)
    output = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    ids = [row["id"] for row in output]
    noted = requests_noted(folder)
    resent = sum(after[number] > before[number] > 0 for number in range(records))
    return Round(
        killed_after_s=round(kill_after_s, 2),
        stored_at_kill=len(stored),
        lost=records - len(set(ids)) + sum(row["error"] is not None for row in output),
        doubled=len(ids) - len(set(ids)),
        mislabelled=sum(
            row["error"] is None and row["output"] != stable_label(f"text number {row['id']}", LABELS) for row in output
        ),
        stored_sent_again=sum(after[number] > before[number] for number in stored),
        resent=resent,
        requests_short=max(0, endpoint.ledger.requests - noted),
        requests_over=max(0, noted - endpoint.ledger.requests),
        resent_beyond_in_flight=max(0, resent - BATCH_SIZE * CONCURRENCY),
    )


async def rounds(options: argparse.Namespace) -> list[Round]:
    """All rounds, one after the other."""
    rng = random.Random(options.seed)
    done = []
    for number in range(options.kills):
        with tempfile.TemporaryDirectory() as folder:
            config = SimulatorConfig(labels=LABELS, delay_s=0.05, seed=number)
            kill_after_s = rng.uniform(0.3, options.longest_s)
            done.append(
                await kill_and_resume(Path(folder), records=options.records, kill_after_s=kill_after_s, config=config)
            )
            print(number + 1, done[-1], flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--longest-s", type=float, default=4.5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(vars(options), versions(), f"batch size {BATCH_SIZE}, {CONCURRENCY} in flight, simulated endpoint, 50 ms")
    done = anyio.run(rounds, options)
    for name in ("lost", "doubled", "mislabelled", "stored_sent_again", "resent_beyond_in_flight", "requests_short"):
        print(f"{name:<28} {sum(getattr(one, name) for one in done)}")
    most = max(one.resent for one in done)
    print(f"{'re-sent, most in a round':<28} {most} (in flight: up to {BATCH_SIZE * CONCURRENCY})")
    write_json("kills", {"simulated": True, "settings": vars(options), "rounds": [asdict(one) for one in done]})


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
