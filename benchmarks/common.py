"""What the benchmarks share: a simulated endpoint in a process of its own, settings and spreads in print, JSON out."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal

from engine.testing.simulator.command import SimulatorConfig
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.server import serve_forever, serving


def _serve(config: SimulatorConfig, pipe: Connection) -> None:
    with suppress(KeyboardInterrupt):
        anyio.run(lambda: serve_forever(config, announce=pipe.send))


@contextmanager
def simulated_endpoint(config: SimulatorConfig) -> Iterator[str]:
    """A simulated endpoint over real sockets, in a process of its own; gives the base URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(config, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


@contextmanager
def endpoint_in_thread(endpoint: SimulatedEndpoint) -> Iterator[str]:
    """A simulated endpoint over real sockets, on a loop and a thread of its own, with its ledger here at hand."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving(endpoint)) as base_url:
        yield base_url


def versions() -> dict[str, str]:
    """What was measured: Python, packages, machine."""
    packages = ("annotation-engine", "aiohttp", "anyio", "aiolimiter", "msgspec", "tiktoken")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "cores": str(os.cpu_count()), **found}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(title: str, values: Sequence[float], unit: str = "") -> None:
    """One line: median and spread."""
    figures = spread(values)
    print(f"{title:<58} {figures['median']:9.3f} {unit:<9} ({figures['min']:.3f} to {figures['max']:.3f})")


def write_json(name: str, document: dict[str, Any]) -> None:
    """Write the figures to ``out/benchmarks/NAME.json``."""
    path = Path("out/benchmarks") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | {"versions": versions(), "argv": sys.argv[1:]}, indent=2))
    print(f"written: {path}")
