"""The power goes: what is left of a run store and an output, by replaying what a real run wrote and synced.

python -m benchmarks.power_loss [--disks 2000] [--seed 1] [--histories plain,votes,large] [--without full|sync|...]
python -m benchmarks.power_loss --protections [--disks 400]

Needs strace, and Linux. Real processes label a corpus against a simulated endpoint over loopback, under strace: a
program with the library's API that notes each answer it is given and is killed (SIGKILL), then `annotate run` to its
end, then the same over a corpus that has grown, then the library again, which stops half way. What they wrote and
synced is known then, in order (the replay of all of it must be the folder as it is, byte for byte). The power goes at a
random moment: on the disk is what was synced, and of what was not, some (`power_loss_disk`: pages or torn sectors,
names as POSIX or as journalling file systems keep them). Each such disk is given to the engine: `annotate show`, then
the same run again to its end. Counted are answers that had been given out before that moment and are not in the store,
are others, or are asked again; records lost, doubled or mislabelled; stores that cannot be opened; outputs and reports
that are neither the old nor the new one. All should be 0. In some, the power goes a second time while the run that goes
on is under way.

--without takes a protection out of the watched processes, --protections tries each: the losses must be found. The seed
draws the losses; the processes are real, and no two traces are alike.
Not tried: a disk that lies about fsync, one that turns bits, a write that spoils what stands beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from click.testing import CliRunner

from benchmarks.common import endpoint_in_thread, versions, write_json
from benchmarks.power_loss_disk import PAGE, SECTOR, Loss, Made, Moved, Picture, Removed, Synced, Told
from benchmarks.power_loss_history import (
    HISTORIES,
    LABELS,
    MEMORY,
    History,
    Step,
    made_history,
    outputs_of,
    text_of,
)
from benchmarks.power_loss_run import MODEL, OUTPUT, STORE, TASK, TOLD, WITHOUT
from benchmarks.power_loss_trace import NotUnderstoodError
from engine import Endpoint, Engine, Limits, Packing, RunConfig
from engine.adapters.task_file import load_task
from engine.cli.main import annotate
from engine.testing import virtual_time
from engine.testing.simulator.answers import stable_label, stable_number
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.vocabulary.values import Result

# -- the disk after it -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Owed:
    """What had been told to somebody when the power went.

    :ivar given: answers by id.
    :ivar left: what each output may be.
    """

    given: dict[int, Any]
    left: dict[str, list[bytes | None]]


def owed_at(history: History, cut: int) -> Owed:
    """What must be there if the power goes after so many operations."""
    given = dict(history.given)
    for one in history.reader.operations[:cut]:
        if isinstance(one, Told) and one.what.startswith("["):
            id_, output = json.loads(one.what)
            given[id_] = output
    ended = [left for end, left in history.ends if end <= cut]
    coming = [left for end, left in history.ends if end > cut][:1]
    left = {name: [(ended or [history.before])[-1][name], *(one[name] for one in coming)] for name in history.before}
    return Owed(given=given, left=left)


def drawn(history: History, rng: Random) -> Loss:
    """A moment, and what luck the disk has: any moment, or one beside a sync, a new name, or something told."""
    operations = history.reader.operations
    cut = rng.randint(history.start, len(operations))
    if rng.random() < 0.5:
        turns = [
            index
            for index, one in enumerate(operations)
            if index >= history.start and isinstance(one, Made | Moved | Removed | Synced | Told)
        ]
        cut = min(len(operations), rng.choice(turns) + rng.randint(0, 1))
    return Loss(
        cut=cut,
        names=rng.choice(("strict", "ordered")),
        piece=rng.choice((PAGE, SECTOR)),
        luck=rng.choice((0.0, 0.0, 0.1, 0.5, 0.5, 0.9, 1.0)),
        seed=rng.getrandbits(32),
    )


def put(picture: Picture, root: str, folder: Path) -> None:
    """Make the folder that the disk holds."""
    for path in sorted(picture.folders):
        (folder / Path(path).relative_to(root)).mkdir()
    for path, content in picture.files.items():
        if Path(path).name == TOLD:
            continue
        (folder / Path(path).relative_to(root)).write_bytes(content)


def problems_of(folder: Path, owed: Owed, last: Step) -> list[str]:
    """What a user who comes back finds wrong; the folder is changed by it.

    :param last: the run that goes on.
    """
    found = [
        f"{name}: neither the old nor the new one"
        for name, content in outputs_of(folder).items()
        if content not in owed.left[name]
    ]
    shown = CliRunner().invoke(annotate, ["show", str(folder / OUTPUT)])
    nothing_yet = "holds no run yet" in shown.output or "neither a run store nor" in shown.output
    if shown.exit_code and not (nothing_yet and not owed.given):
        found.append(f"show: {shown.output or shown.exception!r}")
    try:
        results, sends = went_on(folder, last)
    except Exception as error:  # noqa: BLE001 - whatever keeps a run from going on is a finding
        return [*found, f"goes on: {type(error).__name__}: {error}"]
    by_id = {int(str(result.id)): result for result in results}
    if len(results) != last.records or by_id.keys() != set(range(last.records)):
        found.append("lost or doubled: not every record ended once")
    wrong = [id_ for id_, one in by_id.items() if one.output != stable_label(text_of(id_), LABELS)]
    if wrong:
        found.append(f"mislabelled: {wrong}")
    for id_, output in owed.given.items():
        if not by_id[id_].stored or by_id[id_].output != output:
            found.append("given out: it is not in the store, or is another")
        if sends[stable_number(text_of(id_))]:
            found.append("asked again: it had been given out")
    with closing(sqlite3.connect(folder / STORE)) as store:
        if store.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            found.append("integrity: the store that went on is damaged")
    return found


def went_on(folder: Path, last: Step) -> tuple[list[Result], Counter[int]]:
    """The same run again, to its end, on virtual time: results, and how often each text was sent."""
    endpoint = build_endpoint(SimulatorConfig(labels=LABELS))
    results: list[Result] = []

    async def main() -> None:
        config = RunConfig(
            packing=Packing(batch_size=20), limits=Limits(max_concurrency=4), votes=last.votes, votes_stop="never"
        )
        records = [{"id": id_, "text": text_of(id_)} for id_ in range(last.records)]
        transport = InProcessTransport(endpoint)
        at = Endpoint(base_url="http://simulated/v1", model=MODEL)
        async with Engine(at, config, store=folder / STORE, transport=transport, virtual_time=True) as engine:
            async for result in engine.annotate(load_task(str(folder / TASK)), records):
                results.append(result)

    virtual_time.run(main)
    return results, endpoint.ledger.sends


# -- all of it ---------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Tally:
    """Counts.

    :ivar disks: losses of power.
    :ivar looked_at: of them, disks that were not the same as one before with the same answers given out.
    :ivar owing: of those, disks with answers that had been given out.
    :ivar with_output: disks with an output that had been promised.
    :ivar left_out: second runs whose trace was not understood.
    """

    disks: int = 0
    looked_at: int = 0
    owing: int = 0
    with_output: int = 0
    left_out: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)


def lose(history: History, count: int, rng: Random, tally: Tally, *, most_told: int) -> None:
    """So many losses of power."""
    for _ in range(count):
        loss = drawn(history, rng)
        picture, owed = history.disk.after(loss), owed_at(history, loss.cut)
        tally.disks += 1
        key = digest_of(picture, owed)
        if key in tally.seen:
            continue
        tally.seen.add(key)
        tally.looked_at += 1
        tally.owing += bool(owed.given)
        tally.with_output += None not in owed.left[OUTPUT]
        with tempfile.TemporaryDirectory(dir=MEMORY) as name:
            put(picture, history.reader.root, Path(name))
            problems = problems_of(Path(name), owed, history.steps[-1])
        tally.problems.update({problem.partition(":")[0] for problem in problems})
        if problems and tally.problems.total() <= most_told:
            print(f"  {loss}\n    " + "\n    ".join(sorted(set(problems))), flush=True)


def digest_of(picture: Picture, owed: Owed) -> bytes:
    """What is on the disk and what is owed; of the memory that is mapped, which is anything, only that it is there."""
    found = hashlib.blake2b(digest_size=16)
    for path, content in sorted(picture.files.items()):
        found.update(path.encode() + b"\0" + (b"" if path.endswith("-shm") else content) + b"\0")
    found.update(repr((sorted(owed.given.items()), owed.left)).encode())
    return found.digest()


def again(history: History, rng: Random, tally: Tally, *, base_url: str, options: argparse.Namespace) -> None:
    """The power goes, the run goes on from what is left, and the power goes again."""
    loss = drawn(history, rng)
    last = history.steps[-1]
    step = Step(
        records=last.records, batch_size=3, votes=last.votes, kill_after=rng.randint(last.records // 2, last.records)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        put(history.disk.after(loss), history.reader.root, folder)
        given = owed_at(history, loss.cut).given
        try:
            second = made_history([step], folder, base_url, options.without, given=given)
        except NotUnderstoodError as error:
            print(f"  a trace is left out, and is in out/power_loss.trace: {error}", flush=True)
            tally.left_out += 1
            return
        lose(second, options.disks // 10, rng, tally, most_told=options.most_told)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One history, and its losses."""
    rng, tally, started = Random(f"{name} {options.seed}"), Tally(), time.monotonic()
    endpoint = build_endpoint(SimulatorConfig(labels=LABELS, delay_s=0.01))
    with tempfile.TemporaryDirectory() as made, endpoint_in_thread(endpoint) as base_url:
        history = made_history(HISTORIES[name], Path(made).resolve(), base_url, options.without)
        lose(history, options.disks, rng, tally, most_told=options.most_told)
        for _ in range(0 if options.without else options.second):
            again(history, rng, tally, base_url=base_url, options=options)
    operations = Counter(type(one).__name__ for one in history.reader.operations[history.start :])
    figures = {
        "history": name, "without": options.without, "operations": operations.total(), "syncs": operations["Synced"],
        "answers given out": operations["Told"] - len(history.steps), "losses of power": tally.disks,
        "different disks": tally.looked_at, "with answers given out": tally.owing, "with an output": tally.with_output,
        "traces left out": tally.left_out, "problems": dict(tally.problems),
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    print(figures, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disks", type=int, default=2000, help="losses of power, of each history")
    parser.add_argument(
        "--second", type=int, default=3, help="second losses while the run goes on: so many, disks/10 each"
    )
    parser.add_argument("--histories", default=",".join(HISTORIES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--without", choices=WITHOUT, help="; ".join(f"{name}: {text}" for name, text in WITHOUT.items())
    )
    parser.add_argument("--protections", action="store_true", help="take each out, one after the other")
    parser.add_argument("--most-told", type=int, default=5, help="findings told in full")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        raise SystemExit("this needs strace (and Linux): it shows what a process writes and syncs")
    print(vars(options), versions() | {"sqlite": sqlite3.sqlite_version}, "simulated endpoint, 10 ms", flush=True)
    rows = []
    for without in list(WITHOUT) if options.protections else [options.without]:
        options.without = without
        rows += [measure(name, options) for name in options.histories.split(",")]
    write_json("power_loss", {"simulated": True, "settings": vars(options), "rows": rows})


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
