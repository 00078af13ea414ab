"""The static prompt is the same byte for byte in every request of a run; the first one may go ahead for the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from engine.run.session import Engine
from engine.testing import virtual_time
from engine.testing.simulator.cache import CacheRule
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.transport import InProcessTransport, SimulatedReply
from engine.vocabulary.config import Limits, Packing, Prices, Quality, RunConfig
from tests.support import ENDPOINT, LABELS, annotate_all, make_records, make_task

MARK = b'"content":"{\\"items\\":[{\\"id\\":\\"'
"""What stands before the first record's id: everything before it is to be the same."""

LONG = "Say which colour it is, by what it mostly tells of. " * 200


class Recorder(InProcessTransport):
    """Keeps what was sent and when, and what was answered."""

    def __init__(self, endpoint: SimulatedEndpoint) -> None:
        super().__init__(endpoint)
        self.bodies: list[bytes] = []
        self.sent_s: list[float] = []
        self.cached: list[int] = []

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> SimulatedReply:
        self.bodies.append(body)
        self.sent_s.append(anyio.current_time())
        reply = await super().post(
            url, body=body, headers=headers, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s
        )
        if reply.status == 200:
            self.cached.append(json.loads(reply.body)["usage"]["prompt_tokens_details"]["cached_tokens"])
        return reply


def prefix(body: bytes) -> bytes:
    """All bytes before the first record."""
    before, mark, _ = body.partition(MARK)
    assert mark, body[:300]
    return before


def sent_by(
    config: RunConfig, simulator: SimulatorConfig, *, records: int = 300, store: Path | None = None, **task: Any
) -> Recorder:
    recorder = Recorder(build_endpoint(simulator))
    outcome = virtual_time.run(
        annotate_all, make_records(records), recorder, config, virtual_time=True, store=store, task=make_task(**task)
    )
    assert len(outcome.results) == records
    return recorder


TROUBLED = {"drop": 0.05, "off_label": 0.03, "cut": 0.03, "http_500": 0.03, "duplicate": 0.03}


@pytest.mark.parametrize("form", ["compact", "keyed"])
def test_every_request_begins_with_the_same_bytes(form: Any) -> None:
    """First asks, re-asks, halves, retries, lone asks and canaries: one prefix, whatever the batch holds."""
    config = RunConfig(
        packing=Packing(batch_size=8), limits=Limits(max_concurrency=8), answer_form=form,
        quality=Quality(neighbours="canaries"),
    )  # fmt: skip
    recorder = sent_by(config, SimulatorConfig(faults=TROUBLED, seed=3))
    sizes = {body.count(b'{\\"id\\":') for body in recorder.bodies}
    assert min(sizes) < 8 < max(sizes)  # of what failed, and with canaries among them
    assert len({prefix(body) for body in recorder.bodies}) == 1


def test_audits_and_the_other_form_have_one_prefix_each() -> None:
    """What is only compared begins as production does; the keyed form, where it is tried, has a prefix of its own."""
    config = RunConfig(limits=Limits(max_concurrency=8), objective="cost")
    recorder = sent_by(config, SimulatorConfig(behaviour="agnews-compact", latency="hosted"), records=3_000)
    prefixes = [prefix(body) for body in recorder.bodies]
    assert len(set(prefixes)) == 2
    assert sum(b"starts" in one for one in set(prefixes)) == 1


def test_a_second_run_on_the_same_store_begins_with_the_same_bytes(tmp_path: Path) -> None:
    """A restart pays for nothing that the provider's cache still holds."""
    config = RunConfig(packing=Packing(batch_size=8), limits=Limits(max_concurrency=4))
    first = sent_by(config, SimulatorConfig(), records=100, store=tmp_path / "store.sqlite")
    second = sent_by(config, SimulatorConfig(), records=300, store=tmp_path / "store.sqlite")
    assert second.bodies
    assert {prefix(body) for body in first.bodies} == {prefix(body) for body in second.bodies}


_HEAD = textwrap.dedent(
    """
    import asyncio, hashlib, sys
    import msgspec
    from engine import Task
    from engine.adapters.providers.openai_chat import OpenAIChat
    from engine.decide.prompts import make_prompt
    from engine.vocabulary.config import Endpoint

    class Transport:
        async def post(self, url, *, body, **rest):
            print(hashlib.sha256(body).hexdigest())
            raise TimeoutError

    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    for form in ("compact", "keyed"):
        prompt = make_prompt(task, form)
        endpoint = Endpoint(
            base_url="http://x/v1", model="m", extra_body={"user": "u", "top_p": 1, "metadata": {"b": 1, "a": 2}}
        )
        chat = OpenAIChat(transport=Transport(), endpoint=endpoint, system=prompt.system, schema=prompt.schema)
        asyncio.run(chat.complete(user="", max_output_tokens=10))
    """
)


def test_every_process_begins_with_the_same_bytes() -> None:
    """The order of keys in the schema and the body depends on no hash seed."""
    task = json.dumps(
        {
            "instructions": "Judge.",
            "abstain": "none",
            "fields": {
                "topic": {"type": "labels", "labels": ["b", "a", "d", "c"]},
                "tone": {"type": "label", "labels": LABELS},
                "count": {"type": "integer"},
                "why": {"type": "string"},
            },
        }
    ).encode()
    heads = set()
    for seed in ("0", "1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", _HEAD], input=task, env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            capture_output=True,
        )  # fmt: skip
        heads.add(done.stdout)
    assert len(heads) == 1
    assert len(heads.pop().split()) == 2


# -- the first request ahead of the others -----------------------------------------------------------------------------

CACHED = Prices(input=1.0, output=4.0, cached_input=0.1)


def warmed(**changes: Any) -> tuple[Recorder, float]:
    config = RunConfig(packing=Packing(batch_size=8), limits=Limits(max_concurrency=8), prices=CACHED, **changes)
    recorder = sent_by(config, SimulatorConfig(latency="fixed", delay_s=0.5), instructions=LONG)
    return recorder, recorder.sent_s[1] - recorder.sent_s[0]


def test_the_first_request_goes_alone_where_cached_input_is_cheaper() -> None:
    """All others find the prompt in the cache; the answers of the first are used: no record is asked twice for it."""
    recorder, gap_s = warmed()
    assert gap_s >= 0.5
    assert recorder.sent_s[2] - recorder.sent_s[1] < 0.1
    assert [cached > 0 for cached in recorder.cached].count(False) == 1
    sends = recorder.endpoint.ledger.sends
    assert set(sends.values()) == {1}


def test_a_cache_that_takes_seconds_is_waited_for() -> None:
    """Two at once until a reply has read from it; at once with all others most of a short run would pay in full."""
    settings = SimulatorConfig(latency="fixed", delay_s=0.5, cache=CacheRule(write_delay_s=2.0))
    config = RunConfig(packing=Packing(batch_size=8), limits=Limits(max_concurrency=16), prices=CACHED)
    warm = sent_by(config, settings, records=800, instructions=LONG)
    plain = sent_by(msgspec.structs.replace(config, warm_prefix=False), settings, records=800, instructions=LONG)
    assert warm.cached.count(0) <= 12
    assert plain.cached.count(0) >= 30


def test_without_it_the_first_requests_go_together() -> None:
    """And each of them pays for the whole prompt."""
    recorder, gap_s = warmed(warm_prefix=False)
    assert gap_s < 0.1
    assert [cached > 0 for cached in recorder.cached].count(False) == 2


def test_a_first_request_that_takes_long_is_not_waited_for() -> None:
    """A model that thinks for a minute has read the prompt long ago."""
    config = RunConfig(packing=Packing(batch_size=8), limits=Limits(max_concurrency=8), warm_prefix=True)
    recorder = sent_by(config, SimulatorConfig(latency="fixed", delay_s=60.0), records=300)
    assert recorder.sent_s[1] - recorder.sent_s[0] == pytest.approx(5.0, abs=0.1)


def test_a_first_request_that_fails_holds_nobody_up() -> None:
    """Whatever becomes of it, the others go then."""
    config = RunConfig(packing=Packing(batch_size=8), limits=Limits(max_concurrency=8), warm_prefix=True)
    recorder = sent_by(
        config, SimulatorConfig(latency="fixed", delay_s=0.5, faults={"http_500": 1.0}, strike="first_sends=1"),
        records=300,
    )  # fmt: skip
    assert recorder.sent_s[1] - recorder.sent_s[0] < 0.5


def test_an_engine_s_live_records_are_not_held_up() -> None:
    """Who waits for one answer does not wait for a cache."""

    async def run() -> float:
        recorder = Recorder(build_endpoint(SimulatorConfig(latency="fixed", delay_s=0.5)))
        config = RunConfig(prices=CACHED, limits=Limits(max_concurrency=4))
        task = make_task(instructions=LONG)
        async with (
            Engine(ENDPOINT, config, transport=recorder, virtual_time=True) as engine,
            anyio.create_task_group() as tasks,
        ):
            for record in make_records(12):
                tasks.start_soon(lambda record=record: engine.submit(record, task=task))
        return recorder.sent_s[1] - recorder.sent_s[0]

    assert virtual_time.run(run) < 0.4
