"""The edits of mutation testing: each changes one place, and what it makes of it can be compiled."""

from __future__ import annotations

import ast

from benchmarks.mutation import sample_of
from benchmarks.mutation_edits import mutants_of

MODULE = b'''
"""A module."""
LIMIT: int = 3
NAMES = {"red": 0}

def decide(values: list[int], *, most: int = 10) -> bool | None:
    """Docstring 7."""
    if not values and most >= LIMIT:
        return None
    total = min(values) + 2 * len(values)
    total += 1
    for value in values:
        if value == 4 or value in (5, 6):
            continue
    print(f"{total} of {most}")
    return total < most
'''


def texts() -> list[str]:
    return [f"{mutant.old} -> {mutant.text}" for mutant in mutants_of("m.py", MODULE)]


def test_every_kind_of_error_is_made() -> None:
    """Comparisons, boolean operators, conditions, arithmetic, constants, returns, statements left out."""
    made = texts()
    for expected in (
        "most >= LIMIT -> (most > LIMIT)",
        "not values and most >= LIMIT -> (not values or most >= LIMIT)",
        "not values -> (values)",
        "not values and most >= LIMIT -> (not (not values and most >= LIMIT))",
        "min(values) -> (max(values))",
        "2 * len(values) -> (2 / len(values))",
        "total += 1 -> pass",
        "continue -> pass",
        "value in (5, 6) -> (value not in (5, 6))",
        "3 -> (6)",
        "return total < most -> return None",
        "total < most -> (total <= most)",
    ):
        assert expected in made


def test_what_does_nothing_is_not_made() -> None:
    """Docstrings, annotations and texts for people stay, and `return None` is no mutant of itself."""
    made = texts()
    assert not any("Docstring" in text or "module" in text or "bool" in text for text in made)
    assert "return None -> return None" not in made
    assert not any(text.startswith("f'") for text in made)


def test_a_mutant_differs_in_its_place_only() -> None:
    """What stands before and after is the module's, byte for byte, and the whole is a module again."""
    for mutant in mutants_of("m.py", MODULE):
        mutated = mutant.applied(MODULE)
        assert mutated != MODULE
        assert mutated.startswith(MODULE[: mutant.start])
        assert mutated.endswith(MODULE[mutant.end :])
        ast.parse(mutated)


def test_a_sample_of_each_module_leaves_none_out() -> None:
    """So many of each, all of a small one, the same for the same seed."""
    found = [mutant for name, times in (("a.py", 3), ("b.py", 1)) for mutant in mutants_of(name, MODULE * times)]
    small = [mutant for mutant in mutants_of("c.py", b"x = y = not z\n") if mutant.module == "c.py"]
    chosen = sample_of([*found, *small], most=1, each=5, seed=1)
    assert {name: sum(mutant.module == name for mutant in chosen) for name in ("a.py", "b.py", "c.py")} == {
        "a.py": 5,
        "b.py": 5,
        "c.py": len(small),
    }
    assert chosen == sample_of([*found, *small], most=1, each=5, seed=1)
    assert chosen != sample_of([*found, *small], most=1, each=5, seed=2)
    assert len(sample_of(found, most=7, each=None, seed=1)) == 7
