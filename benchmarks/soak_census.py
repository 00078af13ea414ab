"""How much of everything a process holds: memory, open files, tasks, and every collection that an object leads to."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MethodType
from typing import Any

_OURS = "engine."
_NOT_OURS = "engine.testing."
_COLLECTIONS = (dict, list, set, tuple, deque, frozenset)
_MOST_OBJECTS = 400_000
_DEEPEST = 14


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - descriptors are names, not paths


def tasks() -> int:
    """Tasks of the running loop."""
    return len(asyncio.all_tasks())


def census(root: object) -> dict[str, int]:
    """The length of every collection that `root` leads to, by its path; those of equal paths are added up.

    Follows attributes of the engine's own objects, bound methods, and what stands in collections.
    """
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    ahead: deque[tuple[str, Any, int]] = deque([(type(root).__name__, root, 0)])
    while ahead and len(seen) < _MOST_OBJECTS:
        path, value, depth = ahead.popleft()
        if id(value) in seen or depth > _DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, _COLLECTIONS):
            sizes[path] += len(value)
            members: Iterator[Any] = iter(value.values()) if isinstance(value, Mapping) else iter(value)
            ahead.extend((f"{path}[]", member, depth + 1) for member in list(members) if _leads_on(member))
            continue
        if isinstance(value, MethodType):
            ahead.append((path, value.__self__, depth + 1))
            continue
        if hasattr(value, "__len__"):  # a container of another library, or our own
            sizes[f"{path}#"] += len(value)
        ahead.extend((f"{path}.{name}", member, depth + 1) for name, member in _attributes(value) if _leads_on(member))
    return dict(sizes)


def _leads_on(value: Any) -> bool:
    if isinstance(value, (*_COLLECTIONS, MethodType)):
        return True
    module = type(value).__module__
    return (
        module.startswith((_OURS, "anyio", "array"))
        and not module.startswith(_NOT_OURS)
        and not isinstance(value, type)
    )


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    names = [*getattr(value, "__dict__", ()), *getattr(type(value), "__struct_fields__", ())]
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    for name in dict.fromkeys(names):
        found = getattr(value, name, None)
        if found is not None:
            yield name, found
