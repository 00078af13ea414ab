"""What `benchmarks.admission` compares: the engine, and a plain pacer of some 25 lines. And how a run is measured."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import anyio
import msgspec

from engine import Endpoint, Engine, Limits, Packing, Quality, RunConfig, Task
from engine.adapters.tokens import TiktokenCounter
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.ledger import Ledger
from engine.vocabulary.ports import Transport

LABELS = ["world", "sports", "business", "science"]
TASK = Task(instructions="Say what the piece of news is about, by what it mostly tells. " * 4, labels=LABELS)
MINUTE_S = 60.0

_TEXT = (
    "the a minister team market price said of in on for new first report game court data year company city river "
    "agreement season growth player research yesterday between against million government after under small"
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One endpoint, and what is done with it.

    :ivar simulator: fields of `SimulatorConfig`.
    :ivar limits: what the engine and the pacer are told.
    :ivar batch_size: None: adaptive; the pacer takes 8 then.
    :ivar words: least and most words of a document.
    :ivar target: makespan over lower bound; 0: by the rule of DESIGN section 9, from the size of a request.
    :ivar schedule: as the simulator's `limit_schedule`.
    """

    name: str
    simulator: Mapping[str, Any]
    records: int
    limits: Limits = field(default_factory=Limits)
    batch_size: int | None = 4
    words: tuple[int, int] = (10, 30)
    target: float = 0.0
    schedule: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One run, by the endpoint's own ledger.

    :ivar ratio: makespan over the lower bound for what this run itself sent.
    :ivar of_limit: mean charge of a request over the tokens a minute; 0 without such a limit.
    :ivar most: the most within 60 s over the limit, refused requests included, of the limit that comes nearest.
    :ivar silence_s: the longest time between two requests that were accepted.
    :ivar recovered: accepted in the last fifth of the run, over what the limits allow in it.
    """

    cell: str
    arm: str
    seed: int
    makespan_s: float
    ratio: float
    requests: int
    refused: float
    of_limit: float
    most: float
    silence_s: float
    recovered: float
    failed: int
    target: float


def endpoint_of(cell: Cell, seed: int) -> SimulatedEndpoint:
    """The endpoint of a cell; its latency is the made-up one of a hosted model unless the cell names another."""
    settings: dict[str, Any] = {"labels": LABELS, "latency": "hosted", **cell.simulator, "seed": seed}
    return build_endpoint(SimulatorConfig(**settings))


def documents(count: int, words: tuple[int, int], seed: int) -> list[str]:
    """Texts of random words, all different."""
    rng, words_of = random.Random(seed), _TEXT.split()
    return [f"{number} " + " ".join(rng.choices(words_of, k=rng.randint(*words))) for number in range(count)]


async def by_engine(
    cell: Cell, texts: list[str], transport: Transport, base_url: str, seed: int, *, virtual_time: bool
) -> int:
    """Let the engine do it; how many records failed."""
    config = RunConfig(
        packing=Packing(batch_size=cell.batch_size),
        limits=cell.limits,
        quality=Quality(guard=cell.batch_size is None),
        seed=seed,
    )
    endpoint = Endpoint(base_url=base_url, model="simulated")
    async with Engine(endpoint, config, transport=transport, virtual_time=virtual_time) as engine:
        return sum([not result.ok async for result in engine.annotate(TASK, texts)])


class PlainPacer:
    """What one writes in an afternoon: a semaphore, one line that spaces requests by both limits, and Retry-After."""

    def __init__(self, transport: Transport, url: str, limits: Limits) -> None:
        self._transport, self._url = transport, url
        self._slots = anyio.Semaphore(limits.max_concurrency or 16)
        self._rpm, self._tpm = limits.requests_per_minute or inf, limits.tokens_per_minute or inf
        self._turn, self._next_s = anyio.Lock(), 0.0

    async def _paced(self, tokens: int) -> None:
        async with self._turn:
            await anyio.sleep_until(self._next_s)
            self._next_s = max(anyio.current_time(), self._next_s) + max(60 / self._rpm, 60 * tokens / self._tpm)

    async def ask(self, body: bytes, tokens: int) -> None:
        """Send until it is taken."""
        async with self._slots:
            while True:
                await self._paced(tokens)
                reply = await self._transport.post(
                    self._url, body=body, headers={}, connect_timeout_s=10.0, timeout_s=120.0
                )
                if reply.status != 429:
                    return
                await anyio.sleep(float(reply.headers.get("Retry-After", 1)))


async def by_pacer(cell: Cell, texts: list[str], transport: Transport, base_url: str) -> int:
    """Let the plain pacer do it, in batches of fixed size in the order of the input."""
    size, counter = cell.batch_size or 8, TiktokenCounter()
    pacer = PlainPacer(transport, f"{base_url}/chat/completions", cell.limits)
    system = f"{TASK.instructions}\nLabels: {', '.join(LABELS)}\nAnswer in JSON."
    async with anyio.create_task_group() as tasks:
        for start in range(0, len(texts), size):
            batch = texts[start : start + size]
            items = [{"id": f"p{start + index}", "input": text} for index, text in enumerate(batch)]
            last = msgspec.json.encode({"items": items}).decode()
            messages = [{"role": "system", "content": system}, {"role": "user", "content": last}]
            most = 40 + 20 * len(batch)
            body = msgspec.json.encode({"model": "simulated", "messages": messages, "max_tokens": most})
            tasks.start_soon(pacer.ask, body, counter.count(system) + counter.count(last) + most)
    return 0


def lower_bound_s(cell: Cell, ledger: Ledger) -> float:
    """DESIGN section 9: (charge by the endpoint's own rule / limit) + one latency, the opening bucket not used."""
    limits = cell.simulator
    served = [delay for delay, status in zip(ledger.delays_s, ledger.statuses, strict=True) if status == 200]
    admitted = sum(status != 429 for status in ledger.statuses)
    charges = {
        "rpm": admitted, "tpm": ledger.admitted_tokens, "itpm": ledger.prompt_tokens, "otpm": ledger.completion_tokens,
    }  # fmt: skip
    minutes = max((charge / limits[name] for name, charge in charges.items() if limits.get(name)), default=0.0)
    slots = limits.get("max_concurrency")
    busy_s = sum(served) / slots if slots else 0.0
    return max(_with_schedule(minutes * MINUTE_S, cell.schedule), busy_s) + sum(served) / max(1, len(served))


def _with_schedule(full_s: float, schedule: Sequence[tuple[float, float]]) -> float:
    """Seconds that something takes whose pace is at times another share of the full one."""
    at_s, share, left_s = 0.0, 1.0, full_s
    for start_s, factor in schedule:
        if left_s <= (start_s - at_s) * share:
            break
        left_s -= (start_s - at_s) * share
        at_s, share = start_s, factor
    return at_s + left_s / share


def measure(cell: Cell, arm: str, seed: int, endpoint: SimulatedEndpoint, failed: int) -> Figures:
    """The figures of a run that has ended."""
    ledger, limits = endpoint.ledger, cell.simulator
    ends = [at + delay for at, delay in zip(ledger.at_s, ledger.delays_s, strict=True)]
    makespan_s = max(ends) - ledger.at_s[0]
    accepted = [at for at, status in zip(ledger.at_s, ledger.statuses, strict=True) if status == 200]
    most_requests, most_tokens = ledger.most_in_window(MINUTE_S)
    shares = [most_requests / limits.get("rpm", inf), most_tokens / limits.get("tpm", inf)]
    charge = ledger.admitted_tokens / max(1, len(accepted))
    of_limit = charge / limits["tpm"] if limits.get("tpm") else 0.0
    since_s = accepted[-1] - 0.2 * makespan_s
    late = sum(at > since_s for at in accepted)
    allowed = min(limits.get("rpm", inf), limits.get("tpm", inf) / max(1.0, charge)) * 0.2 * makespan_s / MINUTE_S
    return Figures(
        cell=cell.name,
        arm=arm,
        seed=seed,
        makespan_s=round(makespan_s, 2),
        ratio=round(makespan_s / lower_bound_s(cell, ledger), 4),
        requests=ledger.requests,
        refused=round(ledger.http_429 / ledger.requests, 5),
        of_limit=round(of_limit, 4),
        most=round(max(shares), 4),
        silence_s=round(max(b - a for a, b in pairwise(accepted)), 2),
        recovered=round(late / allowed, 4),
        failed=failed,
        target=cell.target or (1.05 if of_limit <= 0.04 else 1 / (1 - of_limit) + 0.02),
    )
