"""A process that runs tests on request, each time in a fork that has the libraries loaded, and nothing of ours.

One request a line, ``{"root", "files", "limit_s"}``; one answer a line, ``{"status"}``, null where it took too long.
Importing pytest and Hypothesis anew for every mutant would cost as much as most of the tests.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Sequence

import anyio
import hypothesis
import msgspec
import pytest

LOADED = (anyio, hypothesis, msgspec, pytest)
_COSTLY = "tests/decide/test_rate.py::test_refusals_at_random_are_no_limit"
LEFT_OUT = tuple(f"--deselect={_COSTLY}[{share}]" for share in (0.1, 0.2, 0.3))  # at .02 and .05 it costs a tenth
OPTIONS = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-seed=1", *LEFT_OUT)
LOADED_BEFORE = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def run(root: str, files: Sequence[str], limit_s: float) -> int | None:
    """The exit status of the tests; None if they had to be killed."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.chdir(root)
        sys.path[0] = root
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        os._exit(int(pytest.main([*OPTIONS, *LOADED_BEFORE, *files])))
    ended = os.pidfd_open(child)
    try:
        in_time, _, _ = select.select([ended], [], [], limit_s)
        if not in_time:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(status) if in_time else None


def main() -> None:
    for line in sys.stdin:
        print(json.dumps({"status": run(**json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
