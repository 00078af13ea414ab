"""Mutation testing of decide/ and of the run store: which small errors in the code would no test see?

python -m benchmarks.mutation [--sample 300] [--each 20] [--seed 1] [--only decide/answers ...] [--minutes 30] [--list]

Mutates comparisons, boolean operators, conditions, arithmetic, constants, returns, and leaves statements out; one at
a time, a seeded sample (of all, or so many of each module), in a copy of the repository. A mutant is killed when the
tests that match its module fail or last four times as long as before; the score is the share killed. Some survivors
are equivalent: look at each. Messages for people (texts, `__repr__`) are not mutated.

Why not a library: mutmut 3.8 wraps each function, and tests that bound CPU time fail for that; cosmic-ray 8.7 knows no
left-out statements and mutates annotations, so that much of what survives does nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from benchmarks.common import versions, write_json
from benchmarks.mutation_edits import Mutant, mutants_of

ROOT = Path(__file__).parents[1]
PLACES = ("engine/decide/*.py", "engine/adapters/store/*.py", "engine/adapters/stored.py")
COPIED = ("engine", "tests", "benchmarks", "pyproject.toml")
SLACK_S = 15.0
_STORE, _DAMAGE = "tests/adapters/test_store.py", "tests/adapters/test_store_damage.py"
_HOLDER, _IN_FLIGHT = "tests/adapters/test_store_holder.py", "tests/adapters/test_in_flight.py"
TESTS_OF_THE_STORE = {
    "holder": (_HOLDER, _STORE),
    "in_flight": (_IN_FLIGHT, _STORE),
    "run_store": (_STORE, _DAMAGE, _IN_FLIGHT, _HOLDER),
    "salvage": (_DAMAGE, "tests/cli/test_cli_store_damage.py"),
    "stored": ("tests/adapters/test_stored.py",),
}
"""Those that are nearest, of the modules that have such; the others have all."""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``killed``, ``timeout`` or ``survived``."""

    mutant: Mutant
    fate: str
    seconds: float


def matching_tests(module: str, root: Path) -> list[str]:
    """Test files of a module: those of its name and of its name's first word; else those that import it."""
    path = Path(module)
    if "adapters" in path.parts:
        names = TESTS_OF_THE_STORE.get(path.stem, (_STORE, _DAMAGE, _IN_FLIGHT))
        return [name for name in names if (root / name).exists()]
    own = root / "tests/decide" / f"test_{path.stem}.py"
    part = own.with_name(f"test_{path.stem.partition('_')[0]}.py")  # of quality_judge: those of quality
    named = [str(file.relative_to(root)) for file in dict.fromkeys((own, part)) if file.exists()]
    if named:
        return named
    imports = re.compile(rf"engine\.decide\.{path.stem}\b")
    found = [file for file in sorted(own.parent.glob("test_*.py")) if imports.search(file.read_text())]
    return [str(file.relative_to(root)) for file in found]


class Tester:
    """Runs tests in a copy of the repository. A context manager."""

    def __init__(self, root: Path) -> None:
        self.root = root
        argv = [sys.executable, str(ROOT / "benchmarks/mutation_tests.py")]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._usual_s: dict[str, float] = {}

    def __enter__(self) -> Tester:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def run(self, files: Sequence[str], limit_s: float) -> tuple[str, float]:
        """``passed``, ``failed`` or ``timeout``, and how long it took."""
        assert self._process.stdin is not None  # noqa: S101 - both pipes were asked for
        assert self._process.stdout is not None  # noqa: S101
        started = time.monotonic()
        print(
            json.dumps({"root": str(self.root), "files": files, "limit_s": limit_s}),
            file=self._process.stdin,
            flush=True,
        )
        status = json.loads(self._process.stdout.readline())["status"]
        fate = "timeout" if status is None else "failed" if status else "passed"
        return fate, time.monotonic() - started

    def limit_s(self, files: Sequence[str]) -> float:
        """How long the tests may take with a mutant; found out by running them without one."""
        for file in files:
            if file not in self._usual_s:
                fate, self._usual_s[file] = self.run([file], 600.0)
                if fate != "passed":
                    raise SystemExit(f"without any mutant: {fate}: {file}")
        return 4 * sum(self._usual_s[file] for file in files) + SLACK_S

    def fate(self, mutant: Mutant) -> Outcome:
        """Put the mutant in place, run its tests, and put the code back."""
        files = matching_tests(mutant.module, self.root)
        limit_s = self.limit_s(files)
        path = self.root / mutant.module
        whole = path.read_bytes()
        path.write_bytes(mutant.applied(whole))
        try:
            fate, took_s = self.run(files, limit_s)
        finally:
            path.write_bytes(whole)
        return Outcome(mutant, {"passed": "survived", "failed": "killed"}.get(fate, fate), round(took_s, 1))


def all_mutants(root: Path, only: Sequence[str]) -> Iterator[Mutant]:
    """Every mutant of the rooms, or of the modules whose path holds one of `only`."""
    for place in PLACES:
        for path in sorted(root.glob(place)):
            module = str(path.relative_to(root))
            wanted = not only or any(part in module for part in only)
            if wanted and path.name != "__init__.py" and matching_tests(module, root):
                yield from mutants_of(module, path.read_bytes())


def sample_of(found: Sequence[Mutant], *, most: int, each: int | None, seed: int) -> list[Mutant]:
    """A seeded sample: so many of all, or so many of each module."""
    if each is None:
        return Random(seed).sample(found, min(most, len(found)))
    by_module: dict[str, list[Mutant]] = {}
    for mutant in found:
        by_module.setdefault(mutant.module, []).append(mutant)
    return [
        mutant
        for module, mutants in sorted(by_module.items())
        for mutant in Random(f"{seed} {module}").sample(mutants, min(each, len(mutants)))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--each", type=int, default=None, help="of each module, in place of --sample of all")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    options = parser.parse_args()
    print(vars(options), versions(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        found = list(all_mutants(root, options.only))
        sample = sample_of(found, most=options.sample, each=options.each, seed=options.seed)
        print(f"{len(sample)} of {len(found)} mutants", flush=True)
        if options.list:
            print(*sample, sep="\n")
            return
        with Tester(root) as tester:
            outcomes = _fates(tester, sample, options.minutes)
    _tell(outcomes, len(found), vars(options))


def _fates(tester: Tester, sample: Sequence[Mutant], minutes: float) -> list[Outcome]:
    outcomes: list[Outcome] = []
    until = time.monotonic() + minutes * 60
    for mutant in sample:
        if time.monotonic() > until:
            break
        outcomes.append(tester.fate(mutant))
        if outcomes[-1].fate == "survived" or len(outcomes) % 10 == 0:
            print(f"{len(outcomes):>4} {outcomes[-1].seconds:>6} s {outcomes[-1].fate:<9} {mutant}", flush=True)
    return outcomes


def _tell(outcomes: Sequence[Outcome], all_of_them: int, settings: dict[str, object]) -> None:
    by_module: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        by_module.setdefault(outcome.mutant.module, Counter())[outcome.fate] += 1
    for module, fates in sorted(by_module.items()):
        print(f"{module:<45} {fates.total() - fates['survived']:>4} of {fates.total()}")
    survived = [outcome for outcome in outcomes if outcome.fate == "survived"]
    score = 1 - len(survived) / max(1, len(outcomes))
    print(f"score {score:.1%}: {len(outcomes) - len(survived)} of {len(outcomes)} killed, of {all_of_them} mutants")
    rows = [asdict(outcome) for outcome in outcomes]
    write_json("mutation", {"settings": settings, "score": score, "mutants": all_of_them, "outcomes": rows})


if __name__ == "__main__":
    main()
