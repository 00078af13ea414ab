"""`--reasoning-effort` on the command line: what is said where it is refused, and where it does not help."""

from __future__ import annotations

from pathlib import Path

from cli_support import command, make_files, served

from engine.testing.simulator.reasoning import Reasoning

LABELS = ["red", "green", "blue"]


def test_a_refused_effort_is_not_told_to_go_on_as_it_was(tmp_path: Path) -> None:
    """The way on leaves it out, and works; words that the endpoint would take are named."""
    files = make_files(tmp_path)
    only_high = Reasoning(call_tokens=50, efforts={"high": 1.0})
    for number, (thinks, taken) in enumerate(((None, ": leave it out"), (only_high, "one that it takes (high), or"))):
        with served(labels=LABELS, reasoning=thinks) as (url, endpoint):
            words = ["run", *files, "--base-url", url, "--model", "m", "--output", str(tmp_path / f"{number}.jsonl")]
            done = command(*words, "--reasoning-effort", "low")
            assert done.exit_code == 4, done.output
            said = " ".join(done.output.split())
            assert taken in said
            assert "the same command" not in said
            way_on = said.partition("Go on without it: annotate ")[2]
            assert way_on.startswith("run ")
            assert "--reasoning-effort" not in way_on
            assert endpoint.ledger.completion_tokens == 0
            assert command(*words).exit_code == 0


def test_where_low_is_cut_low_is_not_advised(tmp_path: Path) -> None:
    """A model that thinks too long at low: minimal, or more room, and never what stands there already."""
    files = make_files(tmp_path, 4)
    with served(labels=LABELS, reasoning=Reasoning(call_tokens=8_000, variation=0.0)) as (url, _):
        where = ("--base-url", url, "--model", "m", "--max-output-tokens", "600")
        for effort, advised in (("low", "--reasoning-effort minimal"), (None, "--reasoning-effort low")):
            given = ("--reasoning-effort", effort) if effort else ()
            done = command("run", *files, *where, *given, "--output", tmp_path / f"{effort}.jsonl")
            said = " ".join(done.output.split())
            assert advised in said
            assert "--max-output-tokens" in said
            assert f"less reasoning (--reasoning-effort {effort})" not in said
