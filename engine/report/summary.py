"""The report of a run: made from its counters and its store, written as `report.json` and `report.html`.

True to the endpoint's own ledger: every HTTP attempt that ended is a request, and tokens are those of every reply that
carried usage, whether an answer came of it or not. See docs/design/report.md.
"""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec

from engine.adapters.files.atomic import replacing
from engine.adapters.store import RunStore
from engine.decide.pricing import cost_usd
from engine.report.document import (
    REPORT_VERSION,
    BatchSize,
    Cost,
    Latencies,
    LimitsUse,
    LimitUse,
    Quality,
    QueueWait,
    Report,
    Requests,
    Saving,
    StopReason,
    Throughput,
    Tokens,
)
from engine.report.html import render
from engine.report.ledger import Ledger
from engine.report.metrics import Counters
from engine.vocabulary.config import Prices, RunConfig
from engine.vocabulary.errors import EngineError, RunStopped

JSON_NAME = "report.json"
HTML_NAME = "report.html"
SAVING_FORMULA = "static_tokens * (answers - calls)"

_BOUND_SHARE = 0.1  # of the time that requests were held, below which a limit did not shape the run
_CAUSES = {"requests": "rpm", "tokens": "tpm", "window": "window", "pause": "pause"}


def make_report(
    counters: Counters,
    store: RunStore,
    *,
    run_id: int,
    settings_id: int,
    config: RunConfig,
    prices: Prices | None,
    model: str,
    endpoint: str,
    task_name: str,
    started_at: float,
    ended_at: float,
    simulated: bool,
    stopped: RunStopped | None = None,
    static_tokens: int | None = None,
) -> Report:
    """The report of a run that has ended. Reads the whole run from the store: blocks, some seconds for a million rows.

    :param endpoint: base URL (credentials and query are left out) or the name of a provider.
    :param started_at: wall time, as `ended_at`.
    :param stopped: why the run ended before its input did.
    :param static_tokens: of the static prompt, for the estimate of what minibatches saved; None leaves it out.
    :raises StoreError: the store cannot be read.
    """
    ledger = Ledger(store, run_id=run_id, settings_id=settings_id)
    valid, span_s = ledger.ended()
    waits = QueueWait(**{name: round(counters.wait_s[cause], 6) for cause, name in _CAUSES.items()})
    return Report(
        report_version=REPORT_VERSION,
        mode="simulated" if simulated else "real",
        simulated=simulated,
        task=_clean(task_name),
        model=_clean(model),
        endpoint=without_credentials(_clean(endpoint)),
        started_at=_iso(started_at),
        ended_at=_iso(ended_at),
        wall_s=round(ended_at - started_at, 3),
        stop=None if stopped is None else StopReason(kind=stopped.kind, message=_clean(str(stopped))),
        records=ledger.records(counters),
        failures=ledger.failures(),
        requests=_requests(counters, ledger),
        tokens=_tokens(counters, ledger, static_tokens),
        cost=_cost(counters, ledger, prices, valid),
        throughput=_throughput(ledger, valid, span_s),
        latency_s=Latencies(request=ledger.request_latencies(), record=ledger.record_latencies()),
        queue_wait_s=waits,
        limits=_limits(counters, ledger, config, waits),
        batch_size=_batch_size(counters, ledger, config),
        quality=_quality(counters),
        over_time=ledger.over_time(span_s),
        all_runs=ledger.all_runs(prices),
        notices=[_clean(notice) for notice in (*counters.notices, *_unconfirmed(counters))],
        seed=config.seed,
        settings=msgspec.to_builtins(config),
        versions={"annotation-engine": version("annotation-engine"), "python": platform.python_version()},
    )


def write_report(folder: str | Path, report: Report) -> Path:
    """Write `report.json` and `report.html`, each whole or not at all, for the owner only; the path of the latter.

    A report that is there already is of another run, and is kept as `report-1`, `report-2` and so on.

    :raises EngineError: the folder cannot be made or written to.
    """
    target = Path(folder)
    document = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    page = render(report).encode()
    try:
        target.mkdir(parents=True, exist_ok=True)
        _keep_earlier(target)
        for name, content in ((JSON_NAME, document), (HTML_NAME, page)):
            with replacing(target / name) as stream:
                stream.write(content)
    except OSError as error:
        raise EngineError(f"the report cannot be written to {folder}: {error.strerror or error}") from error
    return target / HTML_NAME


def _keep_earlier(folder: Path) -> None:
    number = next(number for number in count(1) if not list(folder.glob(f"report-{number}.*")))
    for name in (JSON_NAME, HTML_NAME):
        earlier = folder / name
        if earlier.exists():
            earlier.rename(folder / f"{earlier.stem}-{number}{earlier.suffix}")


def without_credentials(endpoint: str) -> str:
    """An address without user, password and query: keys hide in all three."""
    if "://" not in endpoint:
        return endpoint
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return endpoint.partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _requests(counters: Counters, ledger: Ledger) -> Requests:
    return Requests(
        total=counters.requests,
        complete=ledger.calls.complete,
        http_429=counters.http_429,
        retried=counters.retried,
        malformed=counters.malformed,
        splits=counters.splits,
        causes=dict(counters.causes.most_common()),
        by_status=ledger.statuses(),
        peak_in_flight=counters.peak_in_flight,
        foreign_ids=counters.foreign_ids,
    )


def _tokens(counters: Counters, ledger: Ledger, static_tokens: int | None) -> Tokens:
    both = counters.tokens_input + counters.tokens_output
    return Tokens(
        input=counters.tokens_input,
        cached=counters.tokens_cached,
        output=counters.tokens_output,
        wasted=counters.tokens_wasted,
        wasted_share=round(counters.tokens_wasted / both, 6) if both else None,
        estimated=counters.tokens_estimated,
        unconfirmed=counters.unconfirmed_input + counters.unconfirmed_output,
        saved=_saving(counters.tokens_input, ledger, static_tokens),
    )


def _unconfirmed(counters: Counters) -> list[str]:
    tokens = counters.unconfirmed_input + counters.unconfirmed_output
    if not tokens:
        return []
    return [
        f"some requests ended without any reply (timeouts, resets, given up): the endpoint may bill up to {tokens:,} "
        "tokens for them, which are in no other figure here; a budget counts them"
    ]


def _saving(input_tokens: int, ledger: Ledger, static_tokens: int | None) -> Saving | None:
    """One record a call would have sent the static prompt once an answer, instead of once a call.

    Kind to the other side: our re-asks and failed attempts count against us, and it is assumed to have none.
    """
    answers, calls = ledger.calls.accepted, ledger.calls.billed
    if static_tokens is None or not answers:
        return None
    saved = static_tokens * (answers - calls)
    return Saving(
        input=saved,
        share=round(saved / max(1, input_tokens + saved), 6),
        static_tokens=static_tokens,
        answers=answers,
        calls=calls,
        formula=SAVING_FORMULA,
    )


def _unconfirmed_usd(prices: Prices, counters: Counters) -> float:
    """What attempts without a reply may cost at the most."""
    usd = cost_usd(
        prices,
        input_tokens=counters.unconfirmed_input,
        cached_tokens=0,
        output_tokens=counters.unconfirmed_output,
    )
    return round(usd, 6)


def _cost(counters: Counters, ledger: Ledger, prices: Prices | None, valid: int) -> Cost | None:
    if prices is None:
        return None
    usd = cost_usd(
        prices,
        input_tokens=counters.tokens_input,
        cached_tokens=counters.tokens_cached,
        output_tokens=counters.tokens_output,
    )
    calls = ledger.calls
    wasted = cost_usd(
        prices,
        input_tokens=calls.wasted_input,
        cached_tokens=calls.wasted_cached,
        output_tokens=calls.wasted_output,
    )
    cached = prices.input if prices.cached_input is None else prices.cached_input
    return Cost(
        usd=round(usd, 9),
        unconfirmed_usd=_unconfirmed_usd(prices, counters),
        per_1000_valid_usd=round(1000 * usd / valid, 9) if valid else None,
        wasted_usd=round(wasted, 9),
        prices={"input": prices.input, "cached_input": cached, "output": prices.output},
    )


def _throughput(ledger: Ledger, valid: int, span_s: float | None) -> Throughput:
    return Throughput(
        records_per_s=round(valid / span_s, 6) if span_s else None,
        valid_records=valid,
        span_s=None if span_s is None else round(span_s, 6),
        steady=ledger.steady(valid),
        goodput_per_s=None,
    )


def _limits(counters: Counters, ledger: Ledger, config: RunConfig, waits: QueueWait) -> LimitsUse:
    calls, limits = ledger.calls, config.limits
    first, last = calls.first_sent_at, calls.last_ended_at
    span_s = last - first if first is not None and last is not None else 0.0
    peak_requests, peak_tokens = ledger.peaks()
    tokens = counters.tokens_input + counters.tokens_output
    return LimitsUse(
        rpm=_use(limits.requests_per_minute, 60 * calls.count, span_s, peak_requests),
        tpm=_use(limits.tokens_per_minute, 60 * tokens, span_s, peak_tokens),
        concurrency=_use(limits.most_in_flight, calls.busy_s, span_s, counters.peak_in_flight),
        bound_by=_bound_by(waits, span_s),
    )


def _use(allowed: float | None, amount: float, span_s: float, peak: float | None) -> LimitUse:
    used = amount / span_s if span_s > 0 else None
    return LimitUse(
        allowed=allowed,
        used=None if used is None else round(used, 3),
        utilisation=None if used is None or allowed is None else round(used / allowed, 6),
        peak=peak,
    )


def _bound_by(waits: QueueWait, span_s: float) -> str | None:
    """Requests leave one after the other, so the waits of the first in line never overlap and add up to time."""
    cause = max(waits.__struct_fields__, key=lambda name: float(getattr(waits, name)))
    return cause if span_s > 0 and getattr(waits, cause) >= _BOUND_SHARE * span_s else None


def _batch_size(counters: Counters, ledger: Ledger, config: RunConfig) -> BatchSize:
    calls, chosen = ledger.calls, counters.batch_size
    began_s = counters.first_sent_s or 0.0
    return BatchSize(
        configured=config.packing.batch_size,
        mean=round(calls.asked / calls.count, 3) if calls.count else None,
        max=calls.largest,
        by_size=ledger.batch_sizes(),
        settled=None if chosen is None else chosen.settled_size,
        moves=[]
        if chosen is None
        else [msgspec.structs.replace(move, at_s=round(max(0.0, move.at_s - began_s), 3)) for move in chosen.history],
    )


def _quality(counters: Counters) -> Quality | None:
    auditor, chosen = counters.auditor, counters.batch_size
    if auditor is None or chosen is None or not counters.requests:
        return None
    share = auditor.cost / auditor.cost_at_one if auditor.asks and auditor.cost_at_one > 0 else None
    return Quality(
        guarded=auditor.asks,
        verdict=auditor.guard.verdict(chosen.settled_size),
        curve=auditor.guard.curve(),
        requests=auditor.requests,
        tokens=auditor.tokens_input + auditor.tokens_output,
        share_of_one=None if share is None else round(share, 6),
    )


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _clean(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
