"""SIGTERM, SIGHUP and the end of a terminal: what is in flight is kept, and the output written."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_support import PATIENCE_S, ended, make_files, rows_of, served, start_command, wait_until

from engine.testing.simulator.endpoint import SimulatedEndpoint

ON_A_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # standard input becomes the terminal that this session hangs on
from engine.cli.main import main
main()
"""


def words_for(folder: Path, url: str, count: int = 60) -> list[str | Path]:
    words: list[str | Path] = ["run", *make_files(folder, count), "--base-url", url, "--model", "m"]
    return [*words, "--output", folder / "out.jsonl", "--batch-size", "2", "--max-concurrency", "3"]


def assert_kept(folder: Path, endpoint: SimulatedEndpoint) -> None:
    """Every answer that was asked for is in the output, none was asked for twice, and it is not the whole yet."""
    assert endpoint.ledger.in_flight == 0
    assert len(rows_of(folder / "out.jsonl")) == sum(endpoint.ledger.sends.values()) < 60


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP]])
def test_sigterm_and_sighup_are_ctrl_c_once(tmp_path: Path, numbers: list[signal.Signals]) -> None:
    """What is in flight is finished and the output written, exit code 4; a hang-up is no second signal; the same
    command then asks for the rest only."""
    with served(delay_s=0.3) as (url, endpoint):
        words = words_for(tmp_path, url)
        process = start_command(*words)
        wait_until(lambda: endpoint.ledger.requests >= 5)
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.02)  # two signals, not one: a process that waits does not count them
        code, _, err = ended(process)
        assert code == 4, err
        assert "Go on with the same command: annotate run" in err
        assert "Traceback" not in err
        assert_kept(tmp_path, endpoint)
        assert ended(start_command(*words, "--batch-size", "20"))[0] == 0
        assert max(endpoint.ledger.sends.values()) == 1


def test_a_second_sigterm_gives_up_what_is_in_flight(tmp_path: Path) -> None:
    """A supervisor that insists does not wait for a slow endpoint; the output is written all the same."""
    with served(delay_s=25.0) as (url, endpoint):
        process = start_command(*words_for(tmp_path, url))
        wait_until(lambda: endpoint.ledger.requests >= 1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        next(line for line in process.stderr if "once more" in line)
        process.send_signal(signal.SIGTERM)
        code, _, err = ended(process)
    assert code == 4, err
    assert "Traceback" not in err
    assert rows_of(tmp_path / "out.jsonl") == []


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_the_producer_is_silent_ends_the_process(tmp_path: Path, by: signal.Signals) -> None:
    """Standard input is open and nothing more comes: what was answered is written, and the process ends by itself."""
    with served(labels=("red", "green", "blue")) as (url, endpoint):
        task, data = make_files(tmp_path, 10)
        out = tmp_path / "out.jsonl"
        words = ["run", task, "-", "--base-url", url, "--model", "m", "--output", out]
        process = start_command(*words, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(Path(data).read_text())
        process.stdin.flush()
        wait_until(lambda: len(endpoint.ledger.sends) == 10)
        process.send_signal(by)
        code = process.wait(timeout=PATIENCE_S)
        _, err = process.communicate()
    assert code == 4, err
    assert "Fatal Python error" not in err
    assert len(rows_of(out)) == 10


def test_nohup_is_obeyed(tmp_path: Path) -> None:
    """A run whose SIGHUP is ignored goes on to its end."""
    with served(delay_s=0.05) as (url, endpoint):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited, as from nohup
        try:
            process = start_command(*words_for(tmp_path, url))
        finally:
            signal.signal(signal.SIGHUP, before)
        wait_until(lambda: endpoint.ledger.requests >= 3)
        process.send_signal(signal.SIGHUP)
        code, _, err = ended(process)
    assert code == 0, err
    assert len(rows_of(tmp_path / "out.jsonl")) == 60


def test_a_terminal_that_goes_away(tmp_path: Path) -> None:
    """The window is closed, or the connection lost: nothing can be printed any more, and all that was asked for is
    stored and written, exit code 4."""
    with served(delay_s=0.3) as (url, endpoint):
        ours, theirs = pty.openpty()
        line = [sys.executable, "-c", ON_A_TERMINAL, *map(str, words_for(tmp_path, url))]
        streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        process = subprocess.Popen(line, start_new_session=True, **streams)
        os.close(theirs)
        wait_until(lambda: endpoint.ledger.requests >= 5)
        os.close(ours)
        assert process.wait(30) == 4
        assert_kept(tmp_path, endpoint)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))])
def test_ctrl_c_at_any_moment_shows_no_trace(tmp_path: Path, seed: int) -> None:
    """From the opening of the store to the last line: Ctrl-C ends a run with a code of ours and without a stack trace,
    and the next one goes on."""
    rng = random.Random(seed)
    holder = tmp_path / "out.jsonl.store.sqlite.holder"

    def has_begun(process: subprocess.Popen[str]) -> bool:
        return holder.exists() or process.poll() is not None

    with served(delay_s=0.02) as (url, _):
        words = words_for(tmp_path, url)
        for _ in range(3):
            process = start_command(*words)
            wait_until(partial(has_begun, process))
            time.sleep(rng.uniform(0.0, 1.0))  # real time: another process works meanwhile
            process.send_signal(signal.SIGINT)
            code, _, err = ended(process)
            assert code in (0, 4), err
            assert "Traceback" not in err
        assert ended(start_command(*words))[0] == 0
    assert len(rows_of(tmp_path / "out.jsonl")) == 60
