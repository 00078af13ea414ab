"""Parameters that nobody measured: models, faults and quotas as hosted ones might have them. Measured: `.measured`."""

from __future__ import annotations

from .behaviour import BatchBehaviour, CopyTable, Drift, Redraw
from .latency import LinearLatency, load_row
from .ledger import Prices
from .rates import Rate, cliff, logistic
from .reasoning import Reasoning

HOSTED = LinearLatency((load_row(1, 350.0, 0.02, 8.0, 0.25),))
"""A hosted service that does not feel our load."""

VLLM_SERVER = LinearLatency((load_row(1, 30.0, 0.03, 8.0, 0.08), load_row(32, 90.0, 0.20, 16.0, 0.12)))
"""A server of one's own with 32 slots: twice as slow a token when they are full."""

HOLDS = BatchBehaviour(accuracy=0.85, noise=0.0025)
"""A model whose answers do not change with the batch."""

CHANGES = BatchBehaviour(accuracy=0.75, noise=0.0025, redraw=Redraw(share={1: 0.0, 2: 0.8}, accuracy={1: 0.75}))
"""From B=2 on .7 of the answers agree with the lone ones, and as many are right: of the .8 drawn anew,
.75^2 + .25^2 = .625 agree all the same."""

COLLAPSES = BatchBehaviour(
    accuracy=0.85, noise=0.0025, copying=CopyTable(rows={16: [(2, 0.0)], 17: [(2, 0.0), (3, 0.9)]})
)
"""Perfect up to B=16; beyond, in silence, it copies."""

COPIES = BatchBehaviour(accuracy=0.85, noise=0.0025, copying=CopyTable(rows={1: [(2, 0.0)], 2: [(2, 0.0), (3, 0.7)]}))
"""It copies in every batch of three or more, from the third answer on."""

DRIFTS = Drift(steps=[(0.0, HOLDS), (120.0, COPIES), (240.0, HOLDS)], by="seconds")
"""Good, bad from 120 s after the first request, good again from 240 s on."""

DRIFTS_BY_REQUESTS = Drift(steps=[(0, HOLDS), (300, COPIES), (600, HOLDS)], by="requests")
"""The same from the 300th request to the 600th, however long that takes."""

CLIFF_AT_3: dict[str, Rate] = {"babble": cliff(4)}
CLIFF_AT_16: dict[str, Rate] = {"babble": cliff(17)}
"""Prose instead of results for more items than that."""

FAILS_SMOOTHLY: dict[str, Rate] = {"drop": logistic(-7.0, 1.2), "trailing_comma": logistic(-8.0, 1.3)}
"""A result is left out in .1 % of the cases at B=1, 3 % at 8, 10 % at 16, 27 % at 32; and whole replies break."""

REASONS = Reasoning(call_tokens=400.0, record_tokens=20.0, variation=0.4)
"""Thinks for 400 tokens a request and 20 a record: a batch of ten takes 600 in place of 4,200."""

HOSTED_PRICES = Prices(input_usd=0.15, cached_usd=0.075, output_usd=0.60)
CHEAP_CACHE_PRICES = Prices(input_usd=0.15, cached_usd=0.015, output_usd=0.60)
"""A cached token costs a tenth."""
