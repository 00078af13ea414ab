"""Live progress: a display on a terminal, plain lines elsewhere. It reads counters and owns nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import anyio
import click

from engine.decide.pricing import cost_usd
from engine.report.metrics import Counters
from engine.vocabulary.config import Prices

_EVERY_S = 5.0


class PlainProgress:
    """A line every few seconds."""

    def __init__(self, counters: Counters, prices: Prices | None) -> None:
        self._counters = counters
        self._prices = prices

    async def keep_drawing(self) -> None:
        """Print until cancelled."""
        while True:
            await anyio.sleep(_EVERY_S)
            counters = self._counters
            total = "" if counters.records_total is None else f" of {counters.records_total:,}"
            cost = ""
            if self._prices is not None:
                usd = cost_usd(
                    self._prices,
                    input_tokens=counters.tokens_input,
                    cached_tokens=counters.tokens_cached,
                    output_tokens=counters.tokens_output,
                )
                cost = f", ${usd:.4f}"
            click.echo(
                f"{counters.records_done:,}{total} done, {counters.records_failed:,} failed, "
                f"{counters.in_flight} in flight, {counters.tokens_input + counters.tokens_output:,} tokens{cost}",
                err=True,
            )


@contextlib.contextmanager
def make_progress(counters: Counters, *, prices: Prices | None) -> Iterator[PlainProgress]:
    """The progress display that fits where standard error goes."""
    yield PlainProgress(counters, prices)
