"""The fakes share no code with what they test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import engine.testing

ROOT = Path(engine.testing.__file__).parent
SIMULATOR = ROOT / "simulator"


def _imported(path: Path, package: str) -> Iterator[str]:
    """Full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            yield ".".join(part for part in (base, node.module) if part)


def test_the_simulator_imports_nothing_else_from_the_engine() -> None:
    """Else an error shared by both sides would pass for agreement."""
    files = list(SIMULATOR.rglob("*.py"))
    names = {name for path in files for name in _imported(path, "engine.testing.simulator")}
    assert len(files) > 10
    assert "engine.testing.simulator.endpoint" in names
    outside = {name for name in names if name.split(".")[0] == "engine"}
    assert {name for name in outside if not name.startswith("engine.testing.simulator")} == set()


def test_the_other_fakes_import_nothing_from_the_engine() -> None:
    """They serve the tests of every room, so they may depend on none."""
    for name in ("virtual_time.py", "scripted.py", "__init__.py"):
        assert not [made for made in _imported(ROOT / name, "engine.testing") if made.startswith("engine")]
