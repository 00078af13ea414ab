"""What the run found out about its endpoint, and how it moved: batch size, answer form, window, rates, the target."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from engine.decide import answer_form, batch_size, concurrency, latency_target, rate
from engine.report.metrics import Counters
from engine.vocabulary.config import AnswerForm, Limits

AnyMove = TypeVar(
    "AnyMove", batch_size.Move, concurrency.Move, rate.RateMove, latency_target.TargetMove, answer_form.FormMove
)


class WindowUse(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that may be in flight at once.

    :ivar configured: the most that the run was told; None where it finds out by itself.
    :ivar settled: when the run ended.
    :ivar moves: the newest changes, oldest first, `at_s` after the first send.
    """

    configured: int | None
    settled: int | None
    moves: list[concurrency.Move]


class WarmUse(msgspec.Struct, frozen=True, kw_only=True):
    """The first request went alone, and few until one had read the static prompt from the provider's cache.

    :ivar why: what told of a cache. :ivar waited_s: until as many went as else.
    """

    why: str
    waited_s: float


class RateUse(msgspec.Struct, frozen=True, kw_only=True):
    """Requests and tokens a minute as they were found out when the run ended; None: no limit was seen.

    :ivar moves: the newest changes, oldest first, `at_s` after the first send; the way up between them is a curve.
    """

    requests_per_minute: float | None
    tokens_per_minute: float | None
    moves: list[rate.RateMove]


class TargetUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a latency target did to the batches.

    :ivar target_s: from accepted to answered, for 95 % of the records.
    :ivar most_records: in a batch, as the target allowed when the run ended.
    :ivar is_out_of_reach: a request with one record alone takes longer.
    :ivar moves: the newest changes of `most_records`, oldest first, `at_s` after the first send.
    """

    target_s: float
    most_records: int
    is_out_of_reach: bool
    moves: list[latency_target.TargetMove]


class FormUse(msgspec.Struct, frozen=True, kw_only=True):
    """The answer form that was chosen, where the run was free to choose.

    :ivar form: in which production asked when the run ended.
    :ivar outcome: what became of the trial of the other form.
    :ivar sentence: the same for a person; "" where nothing was tried.
    """

    form: AnswerForm
    outcome: answer_form.Outcome
    sentence: str
    moves: list[answer_form.FormMove]


def target_use(counters: Counters) -> TargetUse | None:
    """The latency target; None where none was given."""
    target = counters.target
    if target is None:
        return None
    return TargetUse(
        target_s=target.target_s,
        most_records=target.most_records,
        is_out_of_reach=target.is_out_of_reach,
        moves=[_since_first_send(move, counters) for move in target.history],
    )


def form_use(counters: Counters) -> FormUse | None:
    """The answer form; None where there was nothing to choose."""
    forms = None if counters.auditor is None else counters.auditor.forms
    if forms is None or not forms.has_keyed:
        return None
    return FormUse(
        form=forms.form,
        outcome=forms.outcome,
        sentence=forms.sentence,
        moves=[_since_first_send(move, counters) for move in forms.history],
    )


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
    requests = found.per_minute("requests")
    # A refusal that names no limit slows both down. One of them is enough to tell of.
    tokens = found.per_minute("tokens") if found.is_named("tokens") or requests is None else None
    return RateUse(
        requests_per_minute=None if requests is None else round(requests, 3),
        tokens_per_minute=None if tokens is None else round(tokens, 3),
        moves=[_since_first_send(move, counters) for move in found.history],
    )


def warm_use(counters: Counters) -> WarmUse | None:
    """The requests that went ahead; None where none did."""
    warm = counters.warm_up
    return WarmUse(why=warm.why, waited_s=round(warm.waited_s, 3)) if warm is not None and warm.waited_s else None


def _since_first_send(move: AnyMove, counters: Counters) -> AnyMove:
    began_s = counters.first_sent_s or 0.0
    return msgspec.structs.replace(move, at_s=round(max(0.0, move.at_s - began_s), 3))
