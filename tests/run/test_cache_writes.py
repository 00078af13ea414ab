"""What a provider takes more for writing into its cache: in the cost, over runs, and in a budget that holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.adapters.store import open_store
from engine.decide.pricing import cost_usd
from engine.testing import virtual_time
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.transport import InProcessTransport, SimulatedReply
from engine.vocabulary.config import Limits, Packing, Prices, Quality, RunConfig
from tests.support import annotate_all, make_records, make_task

PRICES = Prices(input=1.0, cached_input=0.1, cache_write=5.0, output=0.0)


class Writes(InProcessTransport):
    """Every prompt is written into the cache as a whole, and that is said and billed."""

    def __init__(self, endpoint: SimulatedEndpoint) -> None:
        super().__init__(endpoint)
        self.written = 0

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> SimulatedReply:
        reply = await super().post(
            url, body=body, headers=headers, connect_timeout_s=connect_timeout_s, timeout_s=timeout_s
        )
        if reply.status != 200:
            return reply
        document = json.loads(reply.body)
        document["usage"]["prompt_tokens_details"]["cache_write_tokens"] = document["usage"]["prompt_tokens"]
        self.written += document["usage"]["prompt_tokens"]
        return SimulatedReply(reply.status, reply.headers, json.dumps(document).encode())


def run(store: Path, *, budget_usd: float | None = None) -> tuple[Writes, int]:
    transport = Writes(build_endpoint(SimulatorConfig(cache="off")))
    config = RunConfig(
        packing=Packing(batch_size=5), limits=Limits(max_concurrency=4), quality=Quality(guard=False), prices=PRICES,
        budget_usd=budget_usd,
    )  # fmt: skip
    outcome = virtual_time.run(
        annotate_all, make_records(60), transport, config, virtual_time=True, store=store, task=make_task()
    )
    return transport, len(outcome.ok)


def test_written_tokens_are_kept_and_priced(tmp_path: Path) -> None:
    """As the endpoint told them, in the store, at their own price."""
    transport, _ = run(tmp_path / "s.sqlite")
    store = open_store(tmp_path / "s.sqlite")
    spent = store.spent()
    store.close()
    assert spent.written_tokens == transport.written == spent.input_tokens > 0
    usd = cost_usd(
        PRICES, input_tokens=spent.input_tokens, cached_tokens=spent.cached_tokens, output_tokens=spent.output_tokens,
        written_tokens=spent.written_tokens,
    )  # fmt: skip
    assert usd == pytest.approx(5.0 * transport.written / 1e6)


def test_a_budget_holds_though_all_is_written(tmp_path: Path) -> None:
    """Over two runs on one store: no more is billed than it allows, and most of it is used."""
    whole, _ = run(tmp_path / "whole.sqlite")
    budget_usd = 0.6 * 5.0 * whole.written / 1e6
    first, answered = run(tmp_path / "s.sqlite", budget_usd=budget_usd)
    again, more = run(tmp_path / "s.sqlite", budget_usd=budget_usd)
    billed = 5.0 * (first.written + again.written) / 1e6
    assert 0 < answered < 60
    assert billed <= budget_usd
    assert billed > 0.6 * budget_usd
    assert more <= answered + 5
