"""Admission: makespan over the lower bound, refusals, and the most in any minute, beside a plain pacer. Simulated.

python -m benchmarks.admission [--parts known,unknown,changing,sockets] [--cells TEXT] [--seeds 3] [--minutes 6]

Lower bound of DESIGN section 9: (charge by the endpoint's own rule / limit) + one request latency, the opening bucket
not used. All figures are by the endpoint's own ledger, over what each arm itself sent; so packing is left out. Targets:
a makespan of 1.05 where a request is at most 4 % of the tokens a minute, else 1/(1 - b/limit) + 0.02; 1.25 where the
quota is not known; 429s on 0.5 % of the requests; never more than the limit in 60 s; no silence longer than 15 s where
the quota halves and comes back. The batch size is fixed, so that admission alone is measured, but for the cell "auto".
Seeds are those of texts, jitter and look-ahead; the arms of one seed run one after the other. Servers that queue:
`benchmarks.admission_window`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import anyio

from benchmarks.admission_arms import Cell, Figures, by_engine, by_pacer, documents, endpoint_of, measure
from benchmarks.common import endpoint_in_thread, spread, versions, write_json
from engine import Limits
from engine.adapters.http import HttpTransport
from engine.testing import virtual_time
from engine.testing.simulator.latency import LinearLatency, load_row
from engine.testing.simulator.transport import InProcessTransport

BASE_URL = "http://simulated/v1"
APART = "input_tokens_per_minute" in Limits.__struct_fields__
HALVES = ((120.0, 0.5), (240.0, 1.0))
LONG = (900, 1_500)
SLOW = LinearLatency((load_row(1, 6_000.0, 0.0, 10.0, 0.3),))


def _limits(rpm: float | None = None, tpm: float | None = None, window: int = 64, **apart: Any) -> Limits:
    return Limits(requests_per_minute=rpm, tokens_per_minute=tpm, max_concurrency=window, **apart)


def _cell(name: str, simulator: dict[str, Any], records: int, **more: Any) -> Cell:
    """A cell whose engine is told what the endpoint enforces."""
    limits = _limits(simulator.get("rpm"), simulator.get("tpm"))
    return Cell(name=name, simulator=simulator, records=records, **({"limits": limits} | more))


def known(minutes: float) -> list[Cell]:
    """Quotas that the engine is told. Records are chosen for runs of so many minutes."""
    requests = round(300 * minutes)
    tokens = round(60_000 * minutes)
    cells = [
        _cell("requests, bucket of a minute", {"rpm": 300}, 4 * requests),
        _cell("requests, bucket of 1 s", {"rpm": 300, "limit_window_s": 1.0}, 4 * requests),
        _cell("requests, one a second", {"rpm": 60, "limit_window_s": 1.0}, 4 * requests // 5),
        _cell("requests, long documents", {"rpm": 120}, round(120 * minutes), words=LONG, batch_size=1),
        _cell("requests, slow replies", {"rpm": 300, "latency": SLOW}, 4 * requests),
        _cell("requests, auto", {"rpm": 300}, 16 * requests, batch_size=None),
        _cell("tokens, bucket of a minute", {"tpm": 60_000}, tokens // 90),
        _cell("tokens, bucket of 1 s", {"tpm": 120_000, "limit_window_s": 1.0}, 2 * tokens // 90),
        _cell("tokens, slow replies", {"tpm": 60_000, "limit_window_s": 5.0, "latency": SLOW}, tokens // 90),
        _cell("tokens, long documents", {"tpm": 200_000}, round(200_000 * minutes) // 1_450, words=LONG, batch_size=1),
        _cell("tokens, a request is 6 %", {"tpm": 30_000}, round(30_000 * minutes) // 1_450, words=LONG, batch_size=1),
        _cell("tokens, a request is 20 %", {"tpm": 30_000}, round(30_000 * minutes) // 1_300, words=LONG),
        _cell("tokens, auto", {"tpm": 60_000}, tokens // 50, batch_size=None),
        _cell("requests and tokens", {"rpm": 150, "tpm": 60_000}, tokens // 90),
        _cell("window", {"max_concurrency": 16}, round(6_400 * minutes), limits=_limits(window=16)),
        _cell("window, long documents", {"max_concurrency": 8}, round(500 * minutes), limits=_limits(window=8),
              words=LONG, batch_size=1),
    ]  # fmt: skip
    if APART:
        limits = _limits(input_tokens_per_minute=60_000, output_tokens_per_minute=6_000)
        apart = {"itpm": 60_000, "otpm": 6_000}
        # What a request holds of the output limit until it ends, and gives back then, is not in the bound.
        held: dict[str, Any] = {"limits": limits, "target": 1.08}
        cells.append(_cell("input and output apart, output binds", apart, round(6_000 * minutes) // 16, **held))
        limits = _limits(input_tokens_per_minute=60_000, output_tokens_per_minute=30_000)
        apart = {"itpm": 60_000, "otpm": 30_000}
        cells.append(_cell("input and output apart, input binds", apart, tokens // 70, limits=limits))
    return cells


def unknown(minutes: float) -> list[Cell]:
    """Quotas that nobody is told; at least ten minutes."""
    minutes = max(10.0, minutes)
    requests, tokens = round(600 * minutes), round(200_000 * minutes)
    same: dict[str, Any] = {"limits": Limits(), "target": 1.25}
    one: dict[str, Any] = {**same, "batch_size": 1}
    unsaid, nothing = {"limits_told": "refusals"}, {"limits_told": "nothing"}
    second, five = {"limit_window_s": 1.0}, {"limit_window_s": 5.0}
    return [
        _cell("unknown, 600 requests, in headers", {"rpm": 600}, requests, **one),
        _cell("unknown, 600 requests", {"rpm": 600, **unsaid}, requests, **one),
        _cell("unknown, 600 requests, bucket of 1 s", {"rpm": 600, **second, **unsaid}, requests, **one),
        _cell("unknown, 600 requests, nothing said", {"rpm": 600, **five, **nothing}, requests, **one),
        _cell("unknown, 60 requests", {"rpm": 60, **unsaid}, 4 * requests // 10, **same),
        _cell("unknown, 3,000 requests", {"rpm": 3_000, **unsaid}, 5 * requests, **one),
        _cell("unknown, 200,000 tokens, in headers", {"tpm": 200_000}, tokens // 90, **same),
        _cell("unknown, 200,000 tokens", {"tpm": 200_000, **unsaid}, tokens // 90, **same),
        _cell("unknown, 200,000 tokens, bucket of 5 s", {"tpm": 200_000, **five, **unsaid}, tokens // 90, **same),
        _cell("unknown, 200,000 tokens, nothing said", {"tpm": 200_000, **five, **nothing}, tokens // 90, **same),
        _cell("unknown, 200,000 tokens, auto", {"tpm": 200_000, **unsaid}, tokens // 50, **same | {"batch_size": None}),
    ]


def changing(minutes: float) -> list[Cell]:
    """A quota that halves after two minutes and comes back after four; told at its full height, or not at all."""
    seconds = max(8.0, minutes) * 60 - 60
    full: dict[str, Any] = {"rpm": 600, "limit_window_s": 10.0, "limit_schedule": HALVES}
    records = round(10 * seconds)
    same: dict[str, Any] = {"schedule": HALVES, "target": 1.25, "batch_size": 1}
    found: dict[str, Any] = {**same, "limits": Limits()}
    second, unsaid = {"limit_window_s": 1.0}, {"limits_told": "refusals"}
    return [
        _cell("halves, told", full, records, **same),
        _cell("halves, in headers", full, records, **found),
        _cell("halves, not told", {**full, **unsaid}, records, **found),
        _cell("halves, not told, bucket of 1 s", {**full, **second, **unsaid}, records, **found),
        _cell("halves, nothing said", {**full, "limits_told": "nothing"}, records, **found),
    ]


def run(cell: Cell, arm: str, seed: int) -> Figures:
    """One run on virtual time."""
    endpoint = endpoint_of(cell, seed)
    texts, transport = documents(cell.records, cell.words, seed), InProcessTransport(endpoint)
    if arm == "engine":
        failed = virtual_time.run(partial(by_engine, virtual_time=True), cell, texts, transport, BASE_URL, seed)
    else:
        failed = virtual_time.run(by_pacer, cell, texts, transport, BASE_URL)
    return measure(cell, arm, seed, endpoint, failed)


async def _on_sockets(cell: Cell, arm: str, texts: list[str], base_url: str, seed: int) -> int:
    async with HttpTransport(max_connections=64) as transport:
        if arm == "engine":
            return await by_engine(cell, texts, transport, base_url, seed, virtual_time=False)
        return await by_pacer(cell, texts, transport, base_url)


def run_on_sockets(cell: Cell, arm: str, seed: int) -> Figures:
    """One run over real sockets, in real time."""
    endpoint = endpoint_of(cell, seed)
    texts = documents(cell.records, cell.words, seed)
    with endpoint_in_thread(endpoint) as base_url:
        failed = anyio.run(_on_sockets, cell, arm, texts, base_url, seed)
    return measure(cell, arm, seed, endpoint, failed)


def verdict(figures: list[Figures]) -> str:
    """What is missed, in words; empty if nothing is."""
    missed = []
    if max(each.ratio for each in figures) > min(each.target for each in figures):
        missed.append(f"makespan > {figures[0].target:.3f}")
    part = figures[0].cell.split(",")[0].split()[0]
    if part not in ("unknown", "halves"):
        if max(each.refused for each in figures) > 0.005:
            missed.append("429s > 0.5 %")
        if max(each.most for each in figures) > 1:
            missed.append("above the limit within 60 s")
    if part == "halves" and (
        max(each.silence_s for each in figures) > 15 or min(each.recovered for each in figures) < 0.9
    ):
        missed.append("stalled, or not recovered")
    if any(each.failed for each in figures):
        missed.append("records failed")
    return "" if not missed else "MISSED: " + ", ".join(missed)


def show(figures: list[Figures]) -> None:
    """One line for an arm in a cell, over the seeds."""
    ratio = spread([each.ratio for each in figures])
    worst = {name: max(getattr(each, name) for each in figures) for name in ("refused", "most", "silence_s")}
    first = figures[0]
    print(
        f"{first.cell:<44} {first.arm:<6} {first.makespan_s:7.1f} s  ratio {ratio['median']:.3f} ({ratio['min']:.3f}-"
        f"{ratio['max']:.3f})  b {first.of_limit:.3f}  429 {worst['refused']:.2%}  most {worst['most']:.3f}  silence "
        f"{worst['silence_s']:.1f} s  end {min(each.recovered for each in figures):.2f}  {verdict(figures)}",
        flush=True,
    )


def compare(cell: Cell, seeds: int, how: Callable[[Cell, str, int], Figures]) -> list[Figures]:
    """Both arms, interleaved, over the seeds."""
    made = [how(cell, arm, seed) for seed in range(seeds) for arm in ("engine", "pacer")]
    for arm in ("engine", "pacer"):
        show([each for each in made if each.arm == arm])
    return made


def sockets(seconds: float) -> list[Cell]:
    """Cells in real time, so short ones."""
    tokens = 240_000 / 60 * seconds
    return [
        _cell("requests, real sockets", {"rpm": 600, "limit_window_s": 1.0}, round(4 * 10 * seconds)),
        _cell("tokens, real sockets", {"tpm": 240_000, "limit_window_s": 5.0}, round(tokens / 90)),
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="known,unknown,changing,sockets")
    parser.add_argument("--cells", default="", help="only cells whose name holds this")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6.0, help="simulated")
    parser.add_argument("--socket-seconds", type=float, default=75.0, help="of each of the four runs in real time")
    options = parser.parse_args()
    print("simulated endpoint, virtual time but for real sockets", vars(options), versions())
    parts = options.parts.split(",")
    made = []
    for part, cells in (("known", known), ("unknown", unknown), ("changing", changing)):
        for cell in cells(options.minutes) if part in parts else ():
            if options.cells in cell.name:
                made += compare(cell, options.seeds, run)
    for cell in sockets(options.socket_seconds) if "sockets" in parts else ():
        made += compare(cell, 1, run_on_sockets)
    write_json("admission", {"simulated": True, "settings": vars(options), "runs": [asdict(each) for each in made]})


if __name__ == "__main__":
    main()
