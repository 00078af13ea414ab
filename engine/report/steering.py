"""What the run found out about its endpoint, and how it moved: the batch size, the window and the rates."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from engine.decide import batch_size, concurrency, rate
from engine.report.metrics import Counters
from engine.vocabulary.config import Limits

AnyMove = TypeVar("AnyMove", batch_size.Move, concurrency.Move, rate.RateMove)


class WindowUse(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that may be in flight at once.

    :ivar configured: the most that the run was told; None where it finds out by itself.
    :ivar settled: when the run ended.
    :ivar moves: the newest changes, oldest first, `at_s` after the first send.
    """

    configured: int | None
    settled: int | None
    moves: list[concurrency.Move]


class RateUse(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and tokens a minute as they were found out when the run ended; None: no limit was seen.

    :ivar moves: the newest changes, oldest first, `at_s` after the first send; the way up between them is a curve.
    """

    requests_per_minute: float | None
    tokens_per_minute: float | None
    moves: list[rate.RateMove]


def size_moves(counters: Counters) -> list[batch_size.Move]:
    """Changes of the batch size."""
    chosen = counters.batch_size
    return [] if chosen is None else [_since_first_send(move, counters) for move in chosen.history]


def window_use(counters: Counters, limits: Limits) -> WindowUse:
    """The window, given or found."""
    window = counters.window
    if window is None:
        return WindowUse(configured=limits.max_concurrency, settled=limits.max_concurrency, moves=[])
    moves = [_since_first_send(move, counters) for move in window.history]
    return WindowUse(configured=limits.max_concurrency, settled=window.size, moves=moves)


def rate_use(counters: Counters) -> RateUse | None:
    """The rates that were found; None where nobody looked."""
    found = counters.rate
    if found is None:
        return None
    requests, tokens = found.per_minute("requests"), found.per_minute("tokens")
    return RateUse(
        requests_per_minute=None if requests is None else round(requests, 3),
        tokens_per_minute=None if tokens is None else round(tokens, 3),
        moves=[_since_first_send(move, counters) for move in found.history],
    )


def _since_first_send(move: AnyMove, counters: Counters) -> AnyMove:
    began_s = counters.first_sent_s or 0.0
    return msgspec.structs.replace(move, at_s=round(max(0.0, move.at_s - began_s), 3))
