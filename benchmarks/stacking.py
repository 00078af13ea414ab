"""Several variables at once, some of them not valid: what keeping the valid ones saves. Simulated.

python -m benchmarks.stacking [--records 2000] [--seeds 5]

A scripted model answers k variables of each record; each is spoiled by itself with a probability, anew at every ask.
The engine runs on virtual time with ten records a request: as it is, and with what is valid of a reply thrown away
unless all of a record is (the rule before). Tokens are made up: 500 a prompt, 46 a record, 12 a result, 8 a variable in
it. Below it, what one re-ask takes with the prompt as it is, and with one for the missing variable only, by our own
count of the words that are sent and said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
from collections.abc import Iterator
from typing import Any
from unittest import mock

import msgspec

from benchmarks.common import write_json
from engine import Endpoint, Engine, Limits, Packing, Quality, Recovery, RunConfig, Task
from engine.adapters.tokens import TiktokenCounter
from engine.decide.answers import Reading, read_answers
from engine.decide.prompts import make_prompt
from engine.run import call
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedTransport, chat_reply
from engine.vocabulary.task import Example, Field

_LABELS = ("positive", "negative", "neutral", "mixed")
_INSTRUCTIONS = "Read the customer's message and judge it in each of the variables below. " * 3
_STATIC, _INPUT, _OUTPUT, _PER_VARIABLE = 500, 46, 12, 8  # tokens: of a prompt, a record, a result, a variable in it
_CONFIG = RunConfig(
    packing=Packing(batch_size=10), limits=Limits(max_concurrency=8), recovery=Recovery(max_failed=1.0),
    quality=Quality(guard=False, neighbours="off"),
)  # fmt: skip


def make_task(variables: int, examples: int = 0) -> Task:
    """So many label variables."""
    names = [f"variable_{number}" for number in range(variables)]
    fields = {name: Field(labels=list(_LABELS), description="How the customer feels about it.") for name in names}
    shown = [
        Example(
            input=f"It came late, and the box of order {n} was open. " * 4, output=dict.fromkeys(names, _LABELS[n % 4])
        )
        for n in range(examples)
    ]  # fmt: skip
    return Task(instructions=_INSTRUCTIONS, fields=fields, examples=shown)


def transport_of(task: Task, spoiled: float, seed: int) -> ScriptedTransport:
    """The model."""
    rng = random.Random(seed)

    def reply(request: RecordedRequest) -> Outcome:
        results = [
            {
                "id": item["id"],
                "output": {name: "?" if rng.random() < spoiled else rng.choice(_LABELS) for name in task.fields},
            }
            for item in request.items
        ]
        tokens = len(results) * (_OUTPUT + _PER_VARIABLE * len(task.fields))
        prompt = _STATIC + _INPUT * len(results)
        return chat_reply(json.dumps({"results": results}), prompt_tokens=prompt, completion_tokens=tokens)

    return ScriptedTransport(reply)


@contextlib.contextmanager
def rule(*, keeps: bool) -> Iterator[None]:
    """The engine as it is, or with the valid part of a record's answer thrown away."""

    def read_whole(*args: Any, **kwargs: Any) -> Reading:
        return msgspec.structs.replace(read_answers(*args, **kwargs), partial={})

    with mock.patch.object(call, "read_answers", read_answers if keeps else read_whole):
        yield


async def _run(task: Task, records: int, spoiled: float, seed: int) -> dict[str, int]:
    transport = transport_of(task, spoiled, seed)
    endpoint = Endpoint(base_url="http://scripted/v1", model="scripted")
    async with Engine(endpoint, _CONFIG, transport=transport, virtual_time=True) as engine:
        stream = engine.annotate(task, [{"id": n, "text": f"record {n}"} for n in range(records)])
        results = [result async for result in stream]
        counters = stream.counters
    return {
        "requests": counters.requests,
        "tokens": counters.tokens_input + counters.tokens_output,
        "failed": sum(not result.ok for result in results),
    }


def simulated(records: int, seeds: int) -> list[dict[str, Any]]:
    """Every cell, with both rules."""
    rows = []
    for variables in (2, 4, 8):
        for spoiled in (0.01, 0.05, 0.2):
            task = make_task(variables)
            row: dict[str, Any] = {"variables": variables, "spoiled": spoiled}
            for name, keeps in (("kept", True), ("whole", False)):
                with rule(keeps=keeps):
                    runs = [virtual_time.run(_run, task, records, spoiled, seed) for seed in range(seeds)]
                for key in ("requests", "tokens", "failed"):
                    row[f"{name}_{key}"] = statistics.median(run[key] for run in runs)
            rows.append(row)
            print(
                f"{variables} variables, {spoiled:.0%} spoiled: kept {row['kept_requests']:.0f} requests, "
                f"{row['kept_tokens']:,.0f} tokens, {row['kept_failed']:.0f} failed; "
                f"whole {row['whole_requests']:.0f}, {row['whole_tokens']:,.0f}, {row['whole_failed']:.0f}",
                flush=True,
            )
    return rows


def prompts() -> list[dict[str, Any]]:
    """Of one record asked again alone for one of four variables: both prompts, cold and from a cache at 10 %."""
    count = TiktokenCounter("gpt-4o").count
    rows = []
    for examples in (0, 20):
        task = make_task(4, examples)
        name = next(iter(task.fields))
        shown = [msgspec.structs.replace(one, output={name: one.output[name]}) for one in task.examples]
        narrow = msgspec.structs.replace(task, fields={name: task.fields[name]}, examples=shown)
        row: dict[str, Any] = {"examples": examples}
        for label, asked in (("same", task), ("narrow", narrow)):
            answer = json.dumps(
                {"id": "k3f-1", "output": dict.fromkeys(asked.fields, "negative")}, separators=(",", ":")
            )
            row[f"{label}_static"], row[f"{label}_output"] = count(make_prompt(asked).system), count(answer)
        row["same_cold"] = row["same_static"] + 4 * row["same_output"]
        row["same_cached"] = 0.1 * row["same_static"] + 4 * row["same_output"]
        row["narrow_cold"] = row["narrow_static"] + 4 * row["narrow_output"]
        rows.append(row)
        print(row)
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = simulated(options.records, options.seeds)
    write_json("stacking", {"options": vars(options), "simulated": rows, "prompts": prompts()})


if __name__ == "__main__":
    main()
