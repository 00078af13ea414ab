"""The corpus of the fuzzers, replayed: what once broke something, and what is known to be hard, never does so again."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.fuzz import TARGETS, verdict_on
from benchmarks.fuzz_common import packed, unpacked

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("*/*.json"))
made: dict[str, Any] = {}


def target(name: str) -> Any:
    """One of each is enough: making a store takes a second."""
    if name not in made:
        made[name] = TARGETS[name]()
    return made[name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_case_of_the_corpus_is_treated_well(path: Path) -> None:
    """No crash, no wrong assignment, no broken promise: each file says in `why` what it is about."""
    assert verdict_on(target(path.parent.name), json.loads(path.read_text())) is None


@pytest.mark.parametrize(("name", "cases"), [("replies", 3000), ("tasks", 300), ("inputs", 1500), ("store", 40)])
def test_fresh_cases_are_treated_well(name: str, cases: int) -> None:
    """A seeded sample of what `python -m benchmarks.fuzz` does for an hour."""
    rng = Random(f"{name} in the tests")
    for _ in range(cases):
        case = target(name).make(rng)
        assert verdict_on(target(name), case) is None


def test_every_target_has_a_corpus() -> None:
    """A folder that nobody reads, or a target without cases, would look like safety."""
    assert {path.parent.name for path in FILES} == set(TARGETS)


def test_the_fuzzer_sees_what_it_looks_for() -> None:
    """A reader that matches by position, one that crashes: the oracles tell both."""
    case = json.loads((CORPUS / "replies" / "id-of-another-request.json").read_text())
    del case["answers"]
    text = unpacked(case["body"]).replace("zzz-1", "k3f-1")
    assert "wrong assignment" in (verdict_on(target("replies"), case | {"body": packed(text)}) or "")
    assert (verdict_on(target("replies"), case | {"task": "none"}) or "").startswith("crash: KeyError")


@pytest.mark.parametrize(
    "text", ["", "a", "a" * 500, "x" + "[" * 300 + "y", "a{'b" * 999 + "a", "[" * 201 + "]" * 201, "é\ud800" * 3]
)
def test_a_packed_text_is_the_text(text: str) -> None:
    """Huge cases are kept small and come back whole."""
    assert unpacked(json.loads(json.dumps(packed(text)))) == text
    assert len(json.dumps(packed(text))) < 400
