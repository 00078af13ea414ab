"""Fuzzing of what comes from outside: replies, task files, run stores, input files.

python -m benchmarks.fuzz --target replies|tasks|store|inputs [--minutes 1] [--seed 1] [--cases N]

Structured generators and edits, seeded: the same seed makes the same cases. Counts crashes, wrong assignments and other
broken promises, and measures the slowest case and the most memory. Each case that breaks something is written to
out/fuzz/TARGET; mended, it belongs into tests/fuzz/corpus, which the tests replay.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from benchmarks.common import versions, write_json
from benchmarks.fuzz_common import Target, keep, most_memory_mib
from benchmarks.fuzz_inputs import Inputs
from benchmarks.fuzz_replies import Replies, kept
from benchmarks.fuzz_store import Stores
from benchmarks.fuzz_tasks import Tasks

TARGETS: dict[str, Callable[[], Target]] = {"replies": Replies, "tasks": Tasks, "store": Stores, "inputs": Inputs}
MOST_KEPT = 50


def verdict_on(target: Target, case: dict[str, Any]) -> str | None:
    """What is wrong with how a case is treated; a crash is told by its last line and place."""
    try:
        return target.check(case)
    except Exception as error:  # noqa: BLE001 - a crash is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"crash: {type(error).__name__}: {error!s:.200} at {place.filename.rpartition('/')[2]}:{place.lineno}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=sorted(TARGETS), default="replies")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--cases", type=int, default=None)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(vars(options), versions(), flush=True)
    target, rng = TARGETS[options.target](), Random(f"{options.target} {options.seed}")
    started = told = time.monotonic()
    start_mib = most_memory_mib()
    problems: Counter[str] = Counter()
    count = 0
    while time.monotonic() - started < options.minutes * 60 and count != options.cases:
        case = target.make(rng)
        problem = verdict_on(target, case)
        count += 1
        if problem is not None:
            problems["crashes" if problem.startswith("crash") else "broken promises"] += 1
            if problems.total() <= MOST_KEPT:
                path = keep(options.target, kept(case) if options.target == "replies" else case, problem)
                print(f"case {count:,}: {problem}; kept as {path}", flush=True)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{count:,} cases, {dict(problems)}, at most {most_memory_mib():.0f} MiB", flush=True)
    figures = {
        "cases": count,
        "seconds": round(time.monotonic() - started, 1),
        "crashes": problems["crashes"],
        "broken promises": problems["broken promises"],
        "most memory, MiB": round(most_memory_mib(), 1),
        "memory at the start, MiB": round(start_mib, 1),
        **getattr(target, "figures", dict)(),
    }
    for name, value in figures.items():
        print(f"{name:<28} {value:,}")
    write_json(f"fuzz-{options.target}", {"settings": vars(options), "figures": figures})


if __name__ == "__main__":
    main()
