"""What is watched: a labelling run as its users do it. One process, one of two ways; started by `power_loss`.

library: a program with the library's API. It notes each answer that it is given in a file of its own, so that the trace
says by when, and may be killed (SIGKILL) or stop after so many.
command: `annotate` with the words that follow.
`--without` takes a protection out, to see that its loss is found.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import anyio

from engine import Endpoint, Engine, Limits, Packing, RunConfig
from engine.adapters.files import atomic
from engine.adapters.store import opening
from engine.adapters.task_file import load_task
from engine.cli import main as cli
from engine.run import journal

MODEL = "simulated"
TASK, TOLD, OUTPUT, STORE, REPORT = (
    "task.toml", "told", "out.jsonl", "out.jsonl.store.sqlite", "report",
)  # fmt: skip
"""Names in the folder."""

WITHOUT = {
    "full": "PRAGMA synchronous = NORMAL in place of FULL",
    "sync": "PRAGMA synchronous = OFF in place of FULL",
    "output": "no fsync of the output before it is renamed",
    "folder": "no fsync of a folder in which something was renamed or made",
    "order": "answers are given out before they are stored",
}
"""What can be taken out."""


class _Lax(sqlite3.Connection):
    """A connection that syncs less than it was told to."""

    instead = ""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous = FULL", f"synchronous = {self.instead}"), *values)


def take_out(what: str) -> None:
    """Break one protection of this process."""
    if what in ("full", "sync"):
        _Lax.instead = "NORMAL" if what == "full" else "OFF"
        opening._connect = lambda path: sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, timeout=30.0, factory=_Lax
        )
    elif what == "output":
        fsync = os.fsync

        def only_folders(fd: Any) -> None:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                fsync(fd)

        os.fsync = only_folders
    elif what == "folder":
        for module in (atomic, opening):
            setattr(module, "sync_folder", lambda folder: None)  # noqa: B010 - it is none of theirs to a type checker
    elif what == "order":
        commit = journal.Journal._commit

        async def later(self: journal.Journal, group: Any) -> None:
            threading.Timer(0.02, lambda: anyio.run(commit, self, group)).start()

        journal.Journal._commit = later  # type: ignore[method-assign]


async def label(options: argparse.Namespace) -> None:
    """Label the corpus, and note what is given out."""
    folder = Path(options.folder)
    records = [json.loads(line) for line in (folder / options.corpus).read_text().splitlines()]
    config = RunConfig(
        packing=Packing(batch_size=options.batch_size),
        limits=Limits(max_concurrency=options.window),
        votes=options.votes,
        votes_stop="never",
    )
    told = os.open(folder / TOLD, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    endpoint = Endpoint(base_url=options.base_url, model=MODEL)
    taken = 0
    async with Engine(endpoint, config, store=folder / STORE) as engine:
        async for result in engine.annotate(load_task(str(folder / TASK)), records):
            os.write(told, f"{json.dumps([result.id, result.output])}\n".encode())
            taken += 1
            if taken == options.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if taken == options.stop_after:
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", choices=WITHOUT)
    ways = parser.add_subparsers(dest="way", required=True)
    library = ways.add_parser("library")
    library.add_argument("folder")
    library.add_argument("corpus")
    library.add_argument("base_url")
    library.add_argument("--batch-size", type=int, default=4)
    library.add_argument("--window", type=int, default=4)
    library.add_argument("--votes", type=int, default=1)
    library.add_argument("--kill-after", type=int, default=0)
    library.add_argument("--stop-after", type=int, default=0)
    ways.add_parser("command").add_argument("words", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.without:
        take_out(options.without)
    if options.way == "library":
        anyio.run(label, options)
    else:
        sys.argv = ["annotate", *options.words]
        cli.main()


if __name__ == "__main__":
    main()
