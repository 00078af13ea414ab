"""SIGKILL at random moments of real runs, then resume: what was lost, doubled, mislabelled or paid for twice.

python -m benchmarks.kills [--kills 20] [--records 800] [--seed 1] [--no-faults] [--votes 3]

Each round starts `annotate run` in a process of its own against a simulated endpoint over sockets, kills it, looks
into the store and at the output, and starts it again with another batch size and window: killed again, up to three
times, then left to its end. A kill strikes some time after the start (`any`), or soon after the store is opened
(`opening`), the input is being noted in it (`noting`), the first request is sent (`labelling`), or the output is being
written (`writing`). A process that ends before its kill is due is not counted as a kill. Faults strike the first two
sends of a record. With --votes every second round asks each record up to so many times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio
import anyio.abc

from benchmarks.common import versions, write_json
from engine.testing.simulator.answers import stable_label, stable_number
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.rates import FaultRates
from engine.testing.simulator.server import serving

LABELS = ["red", "green", "blue"]
MOMENTS = ("any", "opening", "noting", "labelling", "labelling", "labelling", "labelling", "writing")
FAULTS = FaultRates(
    {"drop": 0.03, "duplicate": 0.02, "conflict": 0.02, "off_label": 0.02, "foreign_id": 0.02, "reorder": 0.05}
    | dict.fromkeys(("cut", "fence", "prose", "http_500", "http_502_html", "reset", "cut_body", "bad_envelope"), 0.02)
)


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a process is killed, and how it is started.

    :ivar moment: what is waited for: one of `MOMENTS`.
    :ivar after_s: seconds after that.
    """

    moment: str = "any"
    after_s: float
    batch_size: int = 10
    concurrency: int = 8
    votes: int = 1


@dataclass(frozen=True, kw_only=True)
class Struck:
    """What a kill came to.

    :ivar struck: False where the process had ended by itself.
    :ivar stored: ok answers in the store after it.
    """

    kill: Kill
    struck: bool
    stored: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """Kills of one run, and its end. From `lost` to `requests_short` all should be 0.

    :ivar broken_outputs: kills after which the output was there and not whole.
    :ivar debris: files that nobody needs, left beside the output at the end.
    :ivar requests_short: requests that the endpoint received and the store does not know of, over all processes.
    :ivar requests_over: requests that the store knows of and the endpoint never had whole: killed while being sent.
    """

    kills: list[Struck] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    mislabelled: int = 0
    stored_sent_again: int = 0
    broken_outputs: int = 0
    debris: int = 0
    requests_short: int = 0
    requests_over: int = 0
    resent: int = 0


PROMISES = ("lost", "doubled", "mislabelled", "stored_sent_again", "broken_outputs", "debris", "requests_short")


def write_corpus(folder: Path, records: int) -> None:
    """A task and a corpus of distinct texts."""
    (folder / "task.toml").write_text(f'instructions = "Say which colour it is."\nlabels = {json.dumps(LABELS)}\n')
    lines = (json.dumps({"id": number, "text": f"text number {number}"}) for number in range(records))
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")


def command(folder: Path, base_url: str, kill: Kill) -> list[str]:
    """The same command each time, but for the size of batches and window."""
    return [
        *(sys.executable, "-m", "engine.cli.main", "run"),
        *(str(folder / "task.toml"), str(folder / "corpus.jsonl"), "--output", str(folder / "out.jsonl")),
        *("--base-url", base_url, "--model", "simulated", "--batch-size", str(kill.batch_size)),
        *("--max-concurrency", str(kill.concurrency), "--max-failed", "1"),
        *(("--votes", str(kill.votes)) if kill.votes > 1 else ()),
    ]


def stored_ids(folder: Path) -> set[int]:
    """Ids that the store holds an ok answer for."""
    store = folder / "out.jsonl.store.sqlite"
    if not store.exists():
        return set()
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)  # the next process finds everything as it was left
    try:
        return {int(key) for (key,) in connection.execute("SELECT key FROM answers WHERE ok = 1")}
    finally:
        connection.close()


def requests_noted(folder: Path) -> int:
    """Requests that the store knows of, over all runs, those that were in flight at a kill included."""
    connection = sqlite3.connect(folder / "out.jsonl.store.sqlite")
    try:
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])
    finally:
        connection.close()


def sends(endpoint: SimulatedEndpoint, records: int) -> dict[int, int]:
    """How often each record was sent."""
    return {number: endpoint.ledger.sends[stable_number(f"text number {number}")] for number in range(records)}


def has_come(folder: Path, moment: str, *, started_ns: int) -> bool:
    """Whether a run that started then is where it is to be killed."""

    def is_new(name: str) -> bool:
        file = folder / f"out.jsonl.store.sqlite{name}"
        return file.exists() and file.stat().st_mtime_ns > started_ns

    if moment == "opening":
        return is_new(".holder")
    if moment == "noting":
        return is_new("-wal")
    if moment == "writing":
        return any(file.name.startswith(".out.jsonl.") for file in folder.iterdir())
    return True


def is_whole(output: Path, rows: int) -> bool:
    """Whether an output that is there has whole lines, each id once, and right labels only."""
    if not output.exists():
        return True
    text = output.read_text()
    try:
        found = [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return False
    right = all(
        row["error"] is not None or row["output"] == stable_label(f"text number {row['id']}", LABELS) for row in found
    )
    return right and len({row["id"] for row in found}) == len(found) <= rows and text.endswith(("\n", ""))


def debris(folder: Path) -> int:
    """Files that nobody needs once a run has ended."""
    return sum(file.name.endswith((".tmp", ".new", ".new-journal", ".holder")) for file in folder.iterdir())


async def struck(argv: list[str], folder: Path, kill: Kill, endpoint: SimulatedEndpoint) -> bool:
    """Start a process and kill it at its moment; whether it was still there."""
    async with await anyio.open_process(argv, stdout=None, stderr=-3) as process:
        started_ns, sent = time.time_ns(), endpoint.ledger.requests

        def waits() -> bool:
            if kill.moment == "labelling":
                return endpoint.ledger.requests == sent
            return not has_come(folder, kill.moment, started_ns=started_ns)

        while process.returncode is None and waits():  # noqa: ASYNC110
            await anyio.sleep(0.001)  # another process: there is nothing to wait for but its files
        with anyio.move_on_after(kill.after_s):
            await process.wait()
        if process.returncode is None:
            process.kill()
            return await process.wait() < 0  # it may have ended in this very instant
    return False


async def kill_and_resume(
    folder: Path, *, records: int, kills: list[Kill], last: Kill | None = None, config: SimulatorConfig
) -> Round:
    """One round in an empty folder.

    :param last: how the process is started that is left to its end.
    """
    write_corpus(folder, records)
    endpoint = build_endpoint(config)
    stored_sends: list[tuple[set[int], dict[int, int]]] = []
    done: list[Struck] = []
    broken = 0
    async with serving(endpoint) as base_url:
        for kill in kills:
            was_struck = await struck(command(folder, base_url, kill), folder, kill, endpoint)
            await anyio.sleep(2 * config.delay_s)  # requests that were on their way arrive
            stored = stored_ids(folder)
            stored_sends.append((stored, sends(endpoint, records)))
            done.append(Struck(kill=kill, struck=was_struck, stored=len(stored)))
            broken += not is_whole(folder / "out.jsonl", records)
        argv = command(folder, base_url, last or kills[-1])
        async with await anyio.open_process(argv, stdout=None, stderr=-3) as process:
            status = await process.wait()
        if status not in (0, 3):
            raise SystemExit(f"the resumed run ended with {status}")
        after = sends(endpoint, records)
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    ids = [row["id"] for row in rows]
    noted = requests_noted(folder)
    return Round(
        kills=done,
        lost=records - len(set(ids)) + sum(row["error"] is not None for row in rows),
        doubled=len(ids) - len(set(ids)),
        mislabelled=sum(
            row["error"] is None and row["output"] != stable_label(f"text number {row['id']}", LABELS) for row in rows
        ),
        stored_sent_again=sum(after[number] > before[number] for stored, before in stored_sends for number in stored),
        broken_outputs=broken,
        debris=debris(folder),
        resent=sum(after[number] > stored_sends[0][1][number] > 0 for number in range(records)),
        requests_short=max(0, endpoint.ledger.requests - noted),
        requests_over=max(0, noted - endpoint.ledger.requests),
    )


def drawn(rng: random.Random, longest_s: float, *, votes: int = 1) -> Kill:
    """A kill at random: soon after its moment, or anywhere."""
    moment = rng.choice(MOMENTS)
    longest = {"any": longest_s, "opening": 0.05, "noting": 0.1, "labelling": 1.5, "writing": 0.03}[moment]
    return Kill(
        moment=moment,
        after_s=round(rng.uniform(0.8 if moment == "any" else 0.0, longest), 4),
        batch_size=rng.choice((2, 5, 10, 25)),
        concurrency=rng.choice((4, 8, 16)),
        votes=votes,
    )


async def rounds(options: argparse.Namespace) -> list[Round]:
    """Rounds, one after the other, until there were enough kills, or the time is over."""
    rng = random.Random(options.seed)
    done: list[Round] = []
    killed = 0
    ends_at = time.monotonic() + options.most_s
    while killed < options.kills and time.monotonic() < ends_at:
        with tempfile.TemporaryDirectory() as folder:
            config = SimulatorConfig(
                labels=LABELS, delay_s=0.05, seed=len(done), strike="first_sends=2",
                faults=FAULTS if options.faults else {},
            )  # fmt: skip
            votes = options.votes if len(done) % 2 else 1
            kills = [drawn(rng, options.longest_s, votes=votes) for _ in range(rng.randint(1, 3))]
            last = drawn(rng, options.longest_s, votes=votes)
            done.append(
                await kill_and_resume(Path(folder), records=options.records, kills=kills, last=last, config=config)
            )
        killed += sum(one.struck for one in done[-1].kills)
        print(len(done), killed, {name: getattr(done[-1], name) for name in PROMISES}, flush=True)
        for one in done[-1].kills:
            print("   ", one, flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--records", type=int, default=800)
    parser.add_argument("--votes", type=int, default=1)
    parser.add_argument("--longest-s", type=float, default=4.0, help="of a kill at any time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--most-s", type=float, default=7200.0, help="begin no round after so many seconds")
    options = parser.parse_args()
    print(vars(options), versions(), "simulated endpoint, 50 ms")
    done = anyio.run(rounds, options)
    kills = [one for each in done for one in each.kills if one.struck]
    moments = dict(Counter(one.kill.moment for one in kills))
    print(f"{'rounds':<28} {len(done)}\n{'kills':<28} {len(kills)} {moments}")
    print(f"{'with answers stored':<28} {sum(one.stored > 0 for one in kills)}")
    sums = {name: sum(getattr(one, name) for one in done) for name in (*PROMISES, "requests_over")}
    for name, value in sums.items():
        print(f"{name:<28} {value}")
    figures = {"simulated": True, "settings": vars(options), "kills": len(kills), "moments": moments, "sums": sums}
    write_json("kills", figures | {"rounds": [asdict(one) for one in done]})


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
