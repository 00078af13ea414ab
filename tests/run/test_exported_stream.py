"""What an export writes after streams of the Python API: the newest list of an input that is complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.adapters.store import open_store
from engine.run.export import write_newest
from engine.testing import virtual_time
from engine.testing.scripted import ScriptedTransport, answer_all
from tests.support import annotate_all, make_config, make_records


def test_a_source_that_breaks_leaves_the_list_before_it(tmp_path: Path) -> None:
    """Its records are a part of an input, and the export is of a whole one; what they brought is in the store."""

    def broken() -> Iterator[dict[str, Any]]:
        yield from make_records(7)
        raise OSError("the disk is gone")

    store, out = tmp_path / "s.sqlite", tmp_path / "out.jsonl"
    transport = ScriptedTransport(answer_all(lambda text: "red"))
    for records in (make_records(20), broken()):
        outcome = virtual_time.run(annotate_all, records, transport, make_config(5), virtual_time=True, store=store)
    assert isinstance(outcome.stopped, OSError)
    with closing(open_store(store)) as opened:
        assert write_newest(opened, str(out)) == 20
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [f"r{number}" for number in range(20)]
