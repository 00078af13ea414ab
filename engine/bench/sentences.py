"""What a bench found, in words: the same on a terminal and on its page. Pure."""

from __future__ import annotations

from collections import Counter

from engine.bench.document import Bench, Best, ClosedPoint
from engine.bench.knee import NEAR_BEST, Knee
from engine.report import words

LIMITS = {"window": "requests in flight", "rpm": "requests a minute", "tpm": "tokens a minute"}
"""Limits of the utilisation, in words."""


_REFUSED = 0.02
"""Of the requests of a cell, refused with 429: from there on they say what binds."""


def place(batch_size: int, concurrency: int) -> str:
    """``4 a request and 16 in flight``."""
    return f"{batch_size} a request and {concurrency} in flight"


def rate(point: ClosedPoint) -> float:
    """Valid records a second of a cell, the median of its repeats; 0 where it has none."""
    found = point.summary.records_per_s
    return 0.0 if found is None else found.median


def p95_s(point: ClosedPoint) -> float | None:
    """Request p95 of a cell, the median of its repeats; None where nothing was answered."""
    found = point.summary.request_latency_s.get("p95")
    return None if found is None else found.median


def best_point(document: Bench) -> ClosedPoint | None:
    """The cell that is called best."""
    best = document.best
    wanted = None if best is None else (best.batch_size, best.concurrency)
    return next((point for point in document.closed if (point.batch_size, point.concurrency) == wanted), None)


def knee_of(document: Bench, batch_size: int) -> Knee | None:
    """The knee of one batch size."""
    return next((knee for knee in document.knees if knee.batch_size == batch_size), None)


def most(document: Bench, best: Best) -> str:
    """``42.6 records/s within 3 s with 4 a request and 16 in flight``."""
    within = "" if best.by == "records_per_s" else f" within {document.target_p95_s or 0.0:g} s"
    return f"{words.three_digits(best.value)} records/s{within} with {place(best.batch_size, best.concurrency)}"


def headline(document: Bench) -> str:
    """The sweep in one line."""
    best = document.best
    if not document.closed:
        return "Nothing was measured"
    if best is None:
        cells = "The only cell" if len(document.closed) == 1 else f"None of {len(document.closed)} cells"
        return f"{cells} brought {'no' if len(document.closed) == 1 else 'a'} valid record"
    found = most(document, best)
    if best.by != "records_per_s":
        value = f"{words.three_digits(best.value)} records/s with {place(best.batch_size, best.concurrency)}"
        return f"Most in requests of at most {document.target_p95_s or 0.0:g} s: {value}"
    if document.target_p95_s is not None:
        return f"Nothing came within {document.target_p95_s:g} s; the most was {found}"
    return f"{found}, the only cell measured" if len(document.closed) == 1 else f"Most: {found}"


def within_target(document: Bench) -> str | None:
    """Which cell gives most of those whose request p95 keeps the latency target; None without a target."""
    target_s = document.target_p95_s
    if target_s is None:
        return None
    kept = [point for point in document.closed if (found := p95_s(point)) is not None and found <= target_s]
    if not kept:
        return f"no cell keeps the request p95 within {target_s:g} s"
    best = max(kept, key=rate)
    return (
        f"within the target (request p95 <= {target_s:g} s): {best.batch_size} a request, {best.concurrency} in "
        f"flight, {words.three_digits(rate(best))} records/s"
    )


def of_knee(knee: Knee) -> str:
    """What a knee says, after its place: ``16 in flight, the fewest with 95% of the best throughput``."""
    power = knee.power_concurrency
    more = f"; most throughput / latency at {power}" if power not in (None, knee.concurrency) else ""
    end = "; the most that was tried, so there may be more beyond" if knee.at_end else ""
    return f"{knee.concurrency} in flight, the fewest with {NEAR_BEST:.0%} of the best throughput{more}{end}"


def used_at_best(document: Bench) -> str | None:
    """Which share of each limit the best cell used, and which limit binds."""
    point = best_point(document)
    if point is None or not point.summary.utilisation:
        return None
    found = point.summary
    used = ", ".join(f"{LIMITS.get(name, name)} {share.median:.0%}" for name, share in found.utilisation.items())
    if found.http_429 > _REFUSED * found.requests:
        refused = f"{words.number(found.http_429)} of {words.plural(found.requests, 'request')}"
        return f"{used}; what binds: a limit a minute or a second ({refused} were refused with 429)"
    return used + (f"; what binds: {LIMITS.get(found.bound, found.bound)}" if found.bound else "")


def sent(document: Bench) -> str:
    """What the whole bench sent, the warm-up included."""
    totals = document.totals
    cost = "" if totals.usd is None else f", {words.usd(totals.usd)}"
    cached = words.share(totals.cached_tokens, totals.input_tokens)
    return (
        f"{words.plural(totals.requests, 'request')}, {words.plural(totals.records_ok, 'valid record')}, "
        f"{words.short_number(totals.input_tokens)} input tokens ({cached} cached), "
        f"{words.short_number(totals.output_tokens)} output{cost}, in {words.duration(document.wall_s)}"
    )


def errors(document: Bench) -> dict[str, int]:
    """Why attempts left records unanswered -> attempts, over all cells, the commonest first."""
    found: Counter[str] = Counter()
    for summary in [point.summary for point in document.closed] + [point.summary for point in document.open]:
        found.update(summary.errors)
    return dict(found.most_common())


def visits(document: Bench) -> tuple[int, int]:
    """How many visits were made, and how many the plan had."""
    planned = document.planned
    cells = len(planned.batch_sizes) * len(planned.concurrencies) + len(planned.rates or planned.rate_shares)
    made = sum(len(point.visits) for point in document.closed) + sum(len(point.visits) for point in document.open)
    return made, planned.repeats * cells
