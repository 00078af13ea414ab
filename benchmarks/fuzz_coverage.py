"""Fuzzing of replies led by coverage: what reaches new lines of the reader is kept and edited further.

pip install atheris && python -m benchmarks.fuzz_coverage [--minutes 5] [--seed 1]

libFuzzer under atheris (3.0; wheels for Linux) chooses what to edit; half of the edits are its own, of bytes, and
half are those of `benchmarks.fuzz`. It starts from the corpus. The oracle is that of edited texts: an accepted pair is
stated by an object of the reply. A find ends the run with a trace, and libFuzzer writes the input beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris
import msgspec

with atheris.instrument_imports(include=["engine.decide", "engine.adapters.providers"]):
    from benchmarks.fuzz_common import edited, unpacked
    from benchmarks.fuzz_replies import Replies

CORPUS = Path("tests/fuzz/corpus/replies")
ASKED = {"k3f-1": "the quick brown fox", "k3f-2": "seven grey whales sing"}
MOST_BYTES = 20_000


class Found(Exception):
    """A broken promise."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    target = Replies()

    def check(data: bytes) -> None:
        """One reply. Its first byte chooses the task and the form."""
        kind = data[0] if data else 0
        document = {"choices": [{"message": {"content": data[1:].decode(errors="replace")}}]}
        case = {
            "task": ("labels", "object", "text", "several")[kind % 4],
            "keyed": kind % 8 > 3,
            "asked": ASKED,
            "truth": dict.fromkeys(ASKED),
            "exact": False,
            "allowed": {},
            "body": msgspec.json.encode(document),
        }
        problem = target.check(case)
        if problem is not None:
            raise Found(problem)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """An edit of the fuzzer's own, or one of ours."""
        rng = Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        text = edited(data[1:].decode(errors="replace"), rng.choice(texts), rng)
        return (data[:1] or b"\0") + text.encode(errors="replace")[: most - 1]

    cases = [json.loads(path.read_text()) for path in sorted(CORPUS.glob("*.json"))]
    bodies = [unpacked(case["body"])[:MOST_BYTES] for case in cases]
    texts = [_content(body) for body in bodies]
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            (Path(folder) / str(number)).write_bytes(bytes([number % 8]) + text.encode(errors="replace"))
        seconds = int(options.minutes * 60)
        argv = [sys.argv[0], folder, f"-max_total_time={seconds}", f"-seed={options.seed}", f"-max_len={MOST_BYTES}"]
        atheris.Setup(
            [*argv, "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"], check, custom_mutator=mutate
        )
        atheris.Fuzz()


def _content(body: str) -> str:
    try:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return body


if __name__ == "__main__":
    main()
