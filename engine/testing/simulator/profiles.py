"""Endpoints by name: which are measured, and how well they fit; which are made up. See docs/design/simulator.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from . import made_up, measured
from .command import SimulatorConfig
from .ledger import Prices


class Origin(StrEnum):
    """Where the numbers of a profile come from."""

    MEASURED = "measured"
    MADE_UP = "made up"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named set-up.

    :ivar says: what it is, in one line.
    :ivar evidence: of a measured one, the rows of the recording, the fit and its error.
    :ivar settings: fields of `SimulatorConfig`.
    :ivar prices: to tell what a run would have cost (`Ledger.cost_usd`); always made up.
    """

    name: str
    origin: Origin
    says: str
    evidence: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    prices: Prices | None = None

    def config(self, **changes: Any) -> SimulatorConfig:
        """The settings, with some of them changed.

        :raises TypeError: for a name that is no setting.
        """
        return SimulatorConfig(**{**self.settings, **changes})


_QWEN = {
    "latency": measured.QWEN_SERVER,
    "cache": "exact",
    "faults": measured.QWEN_FAULTS,
    "schema_faults": measured.QWEN_SCHEMA_FAULTS,
}
_QWEN_FITS = "server: sweep, R2 .962-.997; malformed: logit of 6,890 prompts"
_HOSTED = {"latency": made_up.HOSTED, "cache": "openai", "behaviour": made_up.HOLDS}


def _measured(name: str, says: str, evidence: str, **settings: Any) -> Profile:
    return Profile(name=name, origin=Origin.MEASURED, says=says, evidence=evidence, settings=settings)


def _made_up(name: str, says: str, prices: Prices = made_up.HOSTED_PRICES, **settings: Any) -> Profile:
    return Profile(name=name, origin=Origin.MADE_UP, says=says, settings={**_HOSTED, **settings}, prices=prices)


_ALL = (
    _measured(
        "agnews-compact",
        "four labels; copies the label before from B=10 on; keyed answers do not",
        f"position, cells, agreement, n 200-1,200; errors: accuracy .04, repeats by position .07; {_QWEN_FITS}",
        behaviour=measured.AGNEWS_COMPACT,
        **_QWEN,
    ),
    _measured(
        "agnews-reworded",
        "the same, each item judged by itself: copies only beyond B=10",
        f"table 5, n 100 (+-.10), B = 1, 10, 20; {_QWEN_FITS}",
        behaviour=measured.AGNEWS_REWORDED,
        **_QWEN,
    ),
    _measured(
        "sst2-compact",
        "two labels; copies from B=5 on; a key makes it worse",
        f"position, cells, n 200-800, one order; errors: accuracy .02, repeats by position .06; {_QWEN_FITS}",
        behaviour=measured.SST2_COMPACT,
        **_QWEN,
    ),
    _measured(
        "sst2-reworded",
        "the same, each item judged by itself: B=20 is as good as B=1",
        f"table 5, n 100 (+-.07), B = 1, 20; {_QWEN_FITS}",
        behaviour=measured.SST2_REWORDED,
        **_QWEN,
    ),
    _measured(
        "queueing-server",
        "llama.cpp on one GPU: never refuses, slows down; answers always right",
        "sweep, 1 to 64 in flight, 308-825 requests a row, R2 .997 .995 .992 .992 .988 .984 .962",
        latency=measured.QWEN_SERVER,
        cache="exact",
    ),
    _measured(
        "smol-cpu",
        "a small model on one CPU thread: slow, seldom right, often malformed without a schema",
        "smol_cpu, 184 requests, R2 .973, RMSE 347 ms; malformed: 338 requests; made up: that it has one slot",
        behaviour=measured.SMOL_ANSWERS,
        latency=measured.SMOL_SERVER,
        cache="exact",
        faults=measured.SMOL_FAULTS,
        schema_faults=measured.SMOL_SCHEMA_FAULTS,
        max_concurrency=1,
        queues=True,
    ),
    _made_up("holds", "accuracy .85 and the same answers at every batch size"),
    _made_up("changes", "answers change with their batch: .7 agree, as many are right", behaviour=made_up.CHANGES),
    _made_up("collapse-at-16", "in batches above 16 it copies, in silence", behaviour=made_up.COLLAPSES),
    _made_up("gullible", "an order in a record's text changes the answer to every record beside it", gullibility=1.0),
    _made_up("half-gullible", "the same for half of them", gullibility=0.5),
    _made_up("slightly-gullible", "the same for 15 in 100", gullibility=0.15),
    _made_up("cliff-at-16", "above 16 items it answers prose", faults=made_up.CLIFF_AT_16),
    _made_up("cliff-at-3", "above 3 items it answers prose", faults=made_up.CLIFF_AT_3),
    _made_up("fails-smoothly", "the larger the batch, the more results are missing", faults=made_up.FAILS_SMOOTHLY),
    _made_up("drifts", "good, bad from 120 s to 240 s, good again", behaviour=made_up.DRIFTS),
    _made_up(
        "drifts-by-requests",
        "good, bad from the 300th request to the 600th, good again",
        behaviour=made_up.DRIFTS_BY_REQUESTS,
    ),
    _made_up(
        "cheap-cached-prefix",
        "every prefix is cached, and a cached token costs a tenth",
        made_up.CHEAP_CACHE_PRICES,
        cache="exact",
    ),
    _made_up("reasons", "thinks before it answers: 400 tokens a request and 20 a record", reasoning=made_up.REASONS),
    _made_up("output-capped", "no reply is longer than 256 tokens", output_cap=256),
    _made_up(
        "hosted-requests-bound",
        "300 requests a minute, at most 10 a second; 2 million tokens a minute",
        rpm=300,
        rps=10,
        tpm=2_000_000,
    ),
    _made_up(
        "hosted-tokens-bound",
        "60,000 tokens a minute, input and max_tokens charged at once; 5,000 requests a minute",
        tpm=60_000,
        rpm=5_000,
        rps=100,
    ),
    _made_up(
        "hosted-halving",
        "600 requests and 150,000 tokens a minute, half of it from 60 s to 180 s",
        rpm=600,
        tpm=150_000,
        limit_window_s=10.0,
        limit_schedule=((60.0, 0.5), (180.0, 1.0)),
    ),
    _made_up(
        "vllm-like",
        "a server of 32 slots that queues the rest and caches every prefix",
        latency=made_up.VLLM_SERVER,
        cache="exact",
        max_concurrency=32,
        queues=True,
    ),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _ALL}
"""All of them, by name."""


def named_profile(name: str) -> Profile:
    """A profile.

    :raises ValueError: for an unknown name, with the known ones.
    """
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]
