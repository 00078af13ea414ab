"""Helpers of the command-line tests: files, a served endpoint, and the command in this process or in its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from engine.cli.main import annotate
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.server import serving

TASK = 'instructions = "Say which colour it is."\nlabels = ["red", "green", "blue"]\n'
PATIENCE_S = 30.0


def make_files(folder: Path, count: int = 12, *, text: Callable[[int], str] = "text number {}".format) -> list[str]:
    """A task file and an input of so many records, as the two arguments of `annotate run`."""
    task, data = folder / "task.toml", folder / "in.jsonl"
    task.write_text(TASK)
    data.write_text("".join(json.dumps({"id": f"r{n}", "text": text(n)}) + "\n" for n in range(count)))
    return [str(task), str(data)]


def command(*words: str | Path, stdin: str | None = None) -> Result:
    """Run `annotate` in this process."""
    return CliRunner().invoke(annotate, [str(word) for word in words], input=stdin)


def start_command(*words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start `annotate` in a process of its own."""
    line = [sys.executable, "-m", "engine.cli.main", *(str(word) for word in words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(line, text=True, **(pipes | options))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def wait_until(condition: Callable[[], Any]) -> None:
    """Poll another process; the only way to know how far it is."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@contextlib.contextmanager
def served(**config: Any) -> Iterator[tuple[str, SimulatedEndpoint]]:
    """A simulated endpoint on a loopback port, in a thread: its base URL, and itself with its ledger."""
    endpoint = build_endpoint(SimulatorConfig(**({"delay_s": 0.0} | config)))
    loop = asyncio.new_event_loop()
    started: list[str] = []
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with serving(endpoint) as base_url:
            started.append(base_url)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield started[0], endpoint
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    """The lines of an output."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
