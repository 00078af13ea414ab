"""What is watched by `power_loss`: real processes, one after the other over one folder, each under strace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.power_loss_disk import Disk, Made, Mapped
from benchmarks.power_loss_run import MODEL, OUTPUT, REPORT, TASK, TOLD
from benchmarks.power_loss_trace import TRACED, NotUnderstoodError, Reader

LABELS = ["red", "green", "blue"]
MEMORY = "/dev/shm"  # noqa: S108 - a name in it is made by mkdtemp
REPORTED = f"{REPORT}/report.json"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One process.

    :ivar records: in its corpus.
    :ivar command: `annotate run`, with output and report; else the library.
    """

    records: int
    batch_size: int
    command: bool = False
    kill_after: int = 0
    stop_after: int = 0
    votes: int = 1


HISTORIES = {
    "plain": [
        Step(records=60, batch_size=4, kill_after=23),
        Step(records=60, batch_size=7, command=True),
        Step(records=90, batch_size=5, command=True),
        Step(records=110, batch_size=2, stop_after=100),
    ],
    "votes": [
        Step(records=40, batch_size=5, votes=3, kill_after=13),
        Step(records=40, batch_size=4, votes=3, command=True),
        Step(records=60, batch_size=5, votes=2, stop_after=50),
    ],
    "large": [  # the log grows until it is written back in the middle of a run
        Step(records=700, batch_size=1, kill_after=620),
        Step(records=700, batch_size=1, command=True),
    ],
}


@dataclass(kw_only=True)
class History:
    """What was watched.

    :ivar start: operations before it began.
    :ivar given: answers that had been given out by then.
    :ivar before: output and report then.
    :ivar ends: of each process, how many operations there were when it had ended, and the output and report then.
    """

    reader: Reader
    steps: list[Step]
    start: int
    given: dict[int, Any] = field(default_factory=dict)
    before: dict[str, bytes | None] = field(default_factory=lambda: dict.fromkeys((OUTPUT, REPORTED)))
    ends: list[tuple[int, dict[str, bytes | None]]] = field(default_factory=list)
    disk: Disk = None  # type: ignore[assignment]


def text_of(number: int) -> str:
    """The text of a record."""
    return f"text number {number}"


def corpus_of(step: int) -> str:
    """The name of a step's input."""
    return f"corpus-{step}.jsonl"


def write_files(folder: Path, steps: list[Step]) -> None:
    """The task and each step's corpus."""
    (folder / TASK).write_text(f'instructions = "Say which colour it is."\nlabels = {json.dumps(LABELS)}\n')
    for number, step in enumerate(steps):
        lines = (json.dumps({"id": id_, "text": text_of(id_)}) for id_ in range(step.records))
        (folder / corpus_of(number)).write_text("\n".join(lines) + "\n")


def argv_of(folder: Path, number: int, step: Step, base_url: str, without: str | None) -> list[str]:
    """The process of a step."""
    size, window = ["--batch-size", str(step.batch_size)], 4
    program = [sys.executable, "-m", "benchmarks.power_loss_run", *(["--without", without] if without else [])]
    votes = ["--votes", str(step.votes)] if step.votes > 1 else []
    if step.command:
        return [
            *(*program, "command", "run", str(folder / TASK), str(folder / corpus_of(number))),
            *("--output", str(folder / OUTPUT), "--report", str(folder / REPORT), "--max-concurrency", str(window)),
            *("--base-url", base_url, "--model", MODEL, *size, *votes, *(["--votes-stop", "never"] if votes else [])),
        ]
    ends = ["--kill-after", str(step.kill_after), "--stop-after", str(step.stop_after)]
    return [
        *program,
        "library",
        str(folder),
        corpus_of(number),
        base_url,
        "--window",
        str(window),
        *size,
        *votes,
        *ends,
    ]


def watch(history: History, folder: Path, number: int, step: Step, *, base_url: str, without: str | None) -> None:
    """Run a process under strace, and read what it did."""
    with tempfile.NamedTemporaryFile(dir=MEMORY, suffix=".trace") as trace:
        strace = ["strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "1000000"]
        strace += ["-e", f"trace={TRACED}", "-o", trace.name]
        argv = argv_of(folder, number, step, base_url, without)
        ended = subprocess.run([*strace, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if ended.returncode not in (0, -9, 137):
            raise SystemExit(f"{argv} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
        try:
            with open(trace.name, encoding="ascii") as lines:  # noqa: PTH123
                history.reader.read(lines)
            history.disk = Disk(history.reader.operations, root=history.reader.root)
            check_replay(history, folder)
        except NotUnderstoodError:
            Path("out").mkdir(exist_ok=True)
            shutil.copyfile(trace.name, "out/power_loss.trace")
            raise
    history.reader.tell(f"ended {number}")
    history.ends.append((len(history.reader.operations), outputs_of(folder)))


def check_replay(history: History, folder: Path) -> None:
    """All that was read, played, is the folder as it is: else something was read wrong, and nothing below counts."""
    mapped = {one.node for one in history.reader.operations if isinstance(one, Mapped)}
    names = {one.path for one in history.reader.operations if isinstance(one, Made) and one.node in mapped}
    played = {path: content for path, content in history.disk.whole().files.items() if path not in names}
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and str(path) not in names}
    found.pop(str(folder / TOLD), None)
    played.pop(str(folder / TOLD), None)
    if played != found:
        wrong = [path for path in played.keys() | found.keys() if played.get(path) != found.get(path)]
        raise NotUnderstoodError(f"the replay is not what is there: {wrong}")


def outputs_of(folder: Path) -> dict[str, bytes | None]:
    """Output and report. A new report is written when the old one has been given another name."""
    report = content_of(folder / REPORTED)
    return {
        OUTPUT: content_of(folder / OUTPUT),
        REPORTED: content_of(folder / REPORT / "report-1.json") if report is None else report,
    }


def content_of(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def made_history(
    steps: list[Step], folder: Path, base_url: str, without: str | None, *, given: dict[int, Any] | None = None
) -> History:
    """Run all processes of a history, from the folder as it is."""
    write_files(folder, steps)
    reader = Reader(str(folder), TOLD)
    for file in sorted(folder.rglob("*")):
        reader.there(str(file), None if file.is_dir() else file.read_bytes())
    history = History(
        reader=reader, steps=steps, start=len(reader.operations), given=given or {}, before=outputs_of(folder)
    )
    for number, step in enumerate(steps):
        watch(history, folder, number, step, base_url=base_url, without=without)
    return history
