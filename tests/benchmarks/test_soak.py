"""The soak: that it sees what grows, and that a run left alone for some hours does not grow."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.soak import compared, on_virtual_time
from benchmarks.soak_census import census
from engine.decide.brake import Brake
from engine.testing import virtual_time
from engine.vocabulary.config import Recovery


class _Holder:
    """Stands for an object of the engine, which a test cannot make grow."""

    def __init__(self) -> None:
        self.brake = Brake(Recovery())
        self.log: deque[Any] = deque()
        self.by_name: dict[str, list[int]] = {"a": [1, 2], "b": [3]}
        self.call = self.brake.__repr__


def test_the_census_finds_collections_wherever_they_are() -> None:
    """Attributes, dictionaries, slots and bound methods are followed; lists of equal paths are added up."""
    holder = _Holder()
    holder.log.extend(range(7))
    found = census(holder)
    assert found["_Holder.log"] == 7
    assert found["_Holder.by_name"] == 2
    assert found["_Holder.by_name[]"] == 3


def test_the_census_ends_where_objects_hold_each_other() -> None:
    """A cycle is gone through once."""
    cycle: dict[str, Any] = {}
    cycle["itself"] = cycle
    assert census(cycle) == {"dict": 1}


@pytest.mark.slow
def test_nothing_grows_in_five_hours_of_mixed_faults(tmp_path: Path) -> None:
    """After the first hour: memory within 5 %, no file and no task more, no collection that keeps growing."""
    samples = virtual_time.run(on_virtual_time, 5, 40.0, tmp_path / "run.sqlite")
    assert all(sample.records > 5_000 for sample in samples)
    assert samples[-1].resident_mib <= 1.05 * samples[0].resident_mib
    assert samples[-1].files == samples[0].files
    assert samples[-1].tasks <= samples[0].tasks + 4  # requests in flight at that moment
    last, before = (sample.collections for sample in (samples[-1], samples[-2]))
    assert {name: size for name, size in last.items() if size > 1.2 * before.get(name, 0) + 600} == {}
    assert msgspec.json.encode(compared(samples))
