"""Asks each address given once, and prints what came of it, how long it took, and how much memory at the most.

A process of its own, so that the memory is the client's alone: ``python hostile_client.py URL...``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from engine.adapters.http import HttpTransport
from engine.adapters.providers.openai_chat import OpenAIChat
from engine.vocabulary.config import Endpoint
from engine.vocabulary.values import Completion


def memory_mib(field: str) -> float:
    """A figure of the kernel about this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def forget_peak() -> None:
    """From now on the peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5")


async def main() -> None:
    async with HttpTransport(max_connections=2) as transport:
        for url in sys.argv[1:]:
            chat = OpenAIChat(
                transport=transport,
                endpoint=Endpoint(base_url=url, model="m", timeout_s=0.7),
                system="s",
                schema=None,
            )
            forget_peak()
            started = time.monotonic()
            outcome = await chat.complete(user="u", max_output_tokens=10)
            took_s = time.monotonic() - started
            peak = memory_mib("VmHWM")
            said = "completion" if isinstance(outcome, Completion) else f"{outcome.kind}: {outcome.message}"
            size = len(outcome.text if isinstance(outcome, Completion) else outcome.message + outcome.excerpt)
            print(json.dumps({"said": said, "size": size, "peak_mib": peak, "took_s": took_s}))  # noqa: T201


asyncio.run(main())
