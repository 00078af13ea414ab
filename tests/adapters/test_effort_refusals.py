"""A refused `reasoning_effort`."""

from __future__ import annotations

import pytest

from engine.adapters.providers.efforts import is_refused, refused_effort, taken_efforts, without_effort


@pytest.mark.parametrize(
    ("message", "taken"),
    [
        ("'reasoning_effort' does not support 'low' with this model. Supported values are: 'high'.", ["high"]),
        ("No 'low'. Supported values are: 'minimal', 'medium', and 'high'", ["minimal", "medium", "high"]),
        ("`reasoning_effort` must be one of `none` or `default`", ["none", "default"]),
        ("Input should be 'low', 'medium' or 'high'", ["low", "medium", "high"]),
        ("Allowed values: low, high", ["low", "high"]),
        ("Unrecognized request argument supplied: reasoning_effort", []),
        ("the value 'low' is not supported", []),
    ],
)  # fmt: skip
def test_what_it_would_take_is_read_from_its_words(message: str, taken: list[str]) -> None:
    """Only where it says that it speaks of them."""
    assert taken_efforts(message) == taken


def test_a_refusal_is_told_with_a_way_that_works() -> None:
    """One of the words that it takes, or none at all; it is known again by what ended the run."""
    told = refused_effort("low", "Supported values are: 'low', 'high'.")
    assert told.endswith("--reasoning-effort low is not taken here: give one that it takes (high), or leave it out")
    plain = refused_effort("low", "Unrecognized request argument supplied: reasoning_effort")
    assert plain.endswith("is not taken here: leave it out")
    assert is_refused("low", f"model: {plain}")
    assert not is_refused("high", plain)
    assert not is_refused(None, plain)


@pytest.mark.parametrize("option", ["--reasoning-effort low", "--reasoning-effort=low"])
def test_the_option_is_taken_out_of_a_command(option: str) -> None:
    """Wherever it stands, and nothing else."""
    assert (
        without_effort(f"annotate run t.toml i.jsonl {option} --output o") == "annotate run t.toml i.jsonl --output o"
    )
    assert without_effort(f"annotate run t.toml {option}") == "annotate run t.toml"
