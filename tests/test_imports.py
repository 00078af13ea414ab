"""The rooms of the house: imports go downwards only. Read from the source, so that no import can hide."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "engine").rglob("*.py"))

ALLOWED = {
    "vocabulary": set(),
    "decide": {"vocabulary"},
    "adapters": {"vocabulary"},
    "report": {"vocabulary", "decide", "adapters"},
    "run": {"vocabulary", "decide", "adapters", "report"},
    "bench": {"vocabulary", "decide", "adapters", "report", "run"},
    "tuning": {"vocabulary", "decide", "adapters", "report", "run"},
    "cli": {"vocabulary", "decide", "adapters", "report", "run", "bench", "tuning"},
    "testing": {"vocabulary", "decide", "adapters", "report", "run"},
}
"""Room -> other rooms of which it may import. `engine/__init__` may import all, and is imported by the command only."""

MAY_IMPORT_TESTING = {"engine.cli.simulate"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions and under TYPE_CHECKING."""
    package = list(path.relative_to(ROOT).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names |= {known if (known := f"{source}.{alias.name}") in MODULES else source for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


@cache
def engine_imports(module: str) -> frozenset[str]:
    return frozenset(name for name in imported(MODULES[module]) if name.split(".")[0] == "engine")


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "engine"])
def test_imports_go_downwards_only(module: str) -> None:
    """A room imports itself and the rooms below it, and never the public face of the package."""
    room = room_of(module)
    above = {name for name in engine_imports(module) if room_of(name) not in ALLOWED[room] | {room}}
    above -= {"engine"} if room == "cli" else set()
    above -= {name for name in above if module in MAY_IMPORT_TESTING and room_of(name) == "testing"}
    assert above == set(), f"{module} imports upwards or sideways"


def test_every_room_is_known() -> None:
    """A new room gets its place in the order before it gets its first file."""
    assert {room_of(module) for module in MODULES if module != "engine"} <= set(ALLOWED)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("engine.testing.simulator")])
def test_the_simulator_knows_nothing_of_the_engine(module: str) -> None:
    """An endpoint that shared code with its client would share its mistakes."""
    assert all(name.startswith("engine.testing.simulator") for name in engine_imports(module))


def test_the_fakes_are_not_part_of_the_product() -> None:
    """Only tests, the fakes themselves and the command that serves them import `engine.testing`."""
    importers = {module for module in MODULES if any(room_of(name) == "testing" for name in engine_imports(module))}
    assert {module for module in importers if room_of(module) != "testing"} <= MAY_IMPORT_TESTING


def test_there_is_no_import_cycle() -> None:
    """Every module can be read after those that it imports."""
    graph = {module: engine_imports(module) & set(MODULES) - {module} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_the_public_face_holds_no_logic() -> None:
    """`engine/__init__` is imports, `__all__`, a docstring and constants: nothing runs there."""
    for node in ast.parse(MODULES["engine"].read_text(encoding="utf-8")).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert is_text or isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign), ast.unparse(node)
        assert not any(isinstance(inner, ast.Call) for inner in ast.walk(node)), ast.unparse(node)


PURE = {"asyncio", "anyio", "time", "threading", "socket", "sqlite3", "subprocess", "aiohttp", "os", "pathlib", "io"}


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) in ("decide", "vocabulary")])
def test_decisions_are_pure(module: str) -> None:
    """No await, no clock, no IO in `decide` and `vocabulary`; `now` and `rng` come in as arguments."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert {name.split(".")[0] for name in imported(MODULES[module])} & PURE == set()
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert calls & {"open", "print", "input", "random.random", "random.choice", "random.SystemRandom"} == set()
    if room_of(module) == "decide":
        assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))
