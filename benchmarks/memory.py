"""A generator of a million records: peak memory, and how far the source is read ahead.

python -m benchmarks.memory [--records 1000000] [--batch-size 20]

Virtual time and an endpoint that keeps nothing, so that all memory is the engine's. Resident memory is read at ten
points of the run; the answers go to a temporary run store on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import versions, write_json
from engine import Endpoint, Engine, Limits, Packing, RunConfig, Task
from engine.adapters.http import Reply
from engine.testing import virtual_time

TASK = Task(instructions="Say which colour it is.", labels=["red", "green", "blue"])


class Answering:
    """Answers every item with the first label and keeps nothing."""

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> Reply:
        """See `engine.vocabulary.ports.Transport`."""
        items = json.loads(msgspec.json.decode(body)["messages"][-1]["content"])["items"]
        content = json.dumps({"results": [{"id": item["id"], "output": "red"} for item in items]})
        message = {"role": "assistant", "content": content}
        usage = {"prompt_tokens": 100 + 20 * len(items), "completion_tokens": 13 * len(items)}
        document = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        return Reply(status=200, headers={}, body=msgspec.json.encode(document))


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def annotate(records: int, batch_size: int) -> dict[str, Any]:
    """Annotate and watch."""
    read = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal read
        for number in range(records):
            read += 1
            yield {"id": number, "text": f"text number {number}, a short one"}

    config = RunConfig(packing=Packing(batch_size=batch_size), limits=Limits(max_concurrency=16))
    done = ahead = 0
    points: list[float] = []
    endpoint = Endpoint(base_url="http://answering/v1", model="m")
    async with Engine(endpoint, config, transport=Answering(), virtual_time=True) as engine:
        async for _ in engine.annotate(TASK, source()):
            done += 1
            ahead = max(ahead, read - done)
            if done % (records // 10) == 0:
                points.append(resident_mib())
                print(f"{done:>9,} done, {points[-1]:.1f} MiB resident, at most {ahead:,} read ahead", flush=True)
    return {"done": done, "most_read_ahead": ahead, "resident_mib": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=20)
    options = parser.parse_args()
    print("simulated endpoint, virtual time", vars(options), versions())
    started = time.process_time()
    figures = virtual_time.run(annotate, options.records, options.batch_size)
    cpu_us = (time.process_time() - started) / options.records * 1e6
    print(f"CPU a record, this toy endpoint included: {cpu_us:.0f} us")
    write_json("memory", {"simulated": True, "settings": vars(options), "cpu_us_a_record": cpu_us, **figures})


if __name__ == "__main__":
    main()
