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

from engine.adapters.files.atomic import make_folder, replacing
from engine.adapters.store import RunStore
from engine.decide.pricing import worst_usd
from engine.report import words
from engine.report.document import (
    REPORT_VERSION,
    BatchSize,
    Latencies,
    LimitsUse,
    LimitUse,
    Quality,
    QueueWait,
    Report,
    Requests,
    StopReason,
    Throughput,
)
from engine.report.histogram import record_histogram, request_histogram, size_latencies
from engine.report.html import render
from engine.report.ledger import Ledger
from engine.report.metrics import Counters
from engine.report.series import Series
from engine.report.spending import cost_of, no_cost, tokens, unconfirmed_notices
from engine.report.steering import form_use, rate_use, size_moves, target_use, warm_use, window_use
from engine.report.timeline import idle_s, timeline
from engine.vocabulary.config import Prices, RunConfig
from engine.vocabulary.errors import ConfigError, EngineError, RunStopped

JSON_NAME = "report.json"
HTML_NAME = "report.html"

_BOUND_SHARE = 0.1  # of the time that requests were held, below which a limit did not shape the run
# Lost by runs that were killed, since the last one that ended and could tell of them.
_LOST = """
SELECT count(*), total(unconfirmed_input), total(unconfirmed_output) FROM calls
WHERE outcome = 'killed' AND run_id IN (SELECT id FROM runs WHERE settings_id = ?1 AND id < ?2 AND id > (
    SELECT coalesce(max(id), 0) FROM runs WHERE settings_id = ?1 AND id < ?2 AND status <> 'killed'))
"""
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
    cost = cost_of(counters, ledger, prices, valid)
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
        tokens=tokens(counters, ledger, static_tokens),
        cost=cost,
        no_cost=no_cost(prices, endpoint),
        throughput=_throughput(ledger, valid, span_s, config.target_p95_s),
        latency_s=Latencies(request=ledger.request_latencies(), record=ledger.record_latencies()),
        queue_wait_s=waits,
        limits=_limits(counters, ledger, config, waits),
        batch_size=_batch_size(counters, ledger, config),
        quality=_quality(counters),
        over_time=ledger.over_time(span_s),
        all_runs=ledger.all_runs(prices),
        notices=[
            _clean(notice)
            for notice in (
                *counters.notices,
                *unconfirmed_notices(counters),
                *_lost_notices(ledger, settings_id, prices),
            )
        ],
        seed=config.seed,
        settings=msgspec.to_builtins(config),
        versions={"annotation-engine": version("annotation-engine"), "python": platform.python_version()},
        window=window_use(counters, config.limits),
        rate=rate_use(counters),
        target=target_use(counters),
        answer_form=form_use(counters),
        warm_prefix=warm_use(counters),
        series=_series(counters, ledger, span_s),
        gold=None if counters.gold is None else counters.gold.use(began_s=counters.first_sent_s or 0.0),
        variables=counters.variables.rows(),
        votes=counters.votes.use(),
        confidence=counters.votes.confidence(),
        escalation=None if counters.escalation is None else counters.escalation.use(None if cost is None else cost.usd),
    )


def _lost_notices(ledger: Ledger, settings_id: int, prices: Prices | None) -> list[str]:
    """A process that is killed cannot say what it left: the run that goes on says it."""
    requests, input_, output = map(int, ledger.query(_LOST, (settings_id, ledger.run_id))[0])
    if not requests:
        return []
    money = ""
    if prices is not None:
        usd = worst_usd(prices, input_tokens=input_, output_tokens=output)
        money = f", {words.usd(usd)},"
    were = "was" if requests == 1 else "were"
    return [
        f"{words.plural(requests, 'request')} {were} in flight when the run before this one was killed, or could "
        "not note its end (a full disk): the endpoint "
        f"may bill up to {input_ + output:,} tokens{money} for {'it' if requests == 1 else 'them'}, which are in no "
        "sum here; a budget counts them"
    ]


def write_report(folder: str | Path, report: Report) -> Path:
    """Write `report.json` and `report.html`, each whole or not at all, for the owner only; the path of the latter.

    A report that is there already is of another run, and is kept as `report-1`, `report-2` and so on.

    :raises EngineError: the folder cannot be made or written to.
    """
    target = Path(folder)
    document = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    page = render(report).encode()
    try:
        make_folder(target)
        _keep_earlier(target)
        for name, content in ((JSON_NAME, document), (HTML_NAME, page)):
            with replacing(target / name) as stream:
                stream.write(content)
    except OSError as error:
        raise EngineError(f"the report cannot be written to {folder}: {error.strerror or error}") from error
    return target / HTML_NAME


def draw_again(given: str | Path) -> Path:
    """Write `report.html` anew from the `report.json` beside it, which stays as it is; the path of the page.

    :param given: the folder of a report, or its `report.json`.
    :raises ConfigError: there is no report.
    :raises EngineError: the page cannot be written.
    """
    source = Path(given) / JSON_NAME if Path(given).is_dir() else Path(given)
    try:
        report = msgspec.json.decode(source.read_bytes(), type=Report)
    except OSError as error:
        raise ConfigError(
            f"{source} cannot be read ({error.strerror or error}); give the folder that was named by --report"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{source} is no report ({error}); give the folder that was named by --report, or its {JSON_NAME}"
        ) from error
    page = source.with_suffix(".html")
    try:
        with replacing(page) as stream:
            stream.write(render(report).encode())
    except OSError as error:
        raise EngineError(f"{page} cannot be written: {error.strerror or error}") from error
    return page


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
        followed=_followed(counters),
    )


def _followed(counters: Counters) -> dict[str, dict[str, int]]:
    followed: dict[str, dict[str, int]] = {}
    for (cause, remedy), count_ in counters.followed.most_common():
        followed.setdefault(cause, {})[remedy] = count_
    return followed


def _series(counters: Counters, ledger: Ledger, span_s: float | None) -> Series:
    return Series(
        timeline=timeline(ledger, span_s),
        request_latency=request_histogram(ledger),
        record_latency=record_histogram(ledger),
        sizes=size_latencies(ledger),
        waits=counters.waits.series(counters.first_sent_s or 0.0),
        positions=counters.positions.rows(),
    )


def _throughput(ledger: Ledger, valid: int, span_s: float | None, target_s: float | None) -> Throughput:
    idle = None if span_s is None else min(idle_s(ledger), span_s)
    active_s = None if span_s is None or idle is None else span_s - idle
    return Throughput(
        records_per_s=round(valid / span_s, 6) if span_s else None,
        valid_records=valid,
        span_s=None if span_s is None else round(span_s, 6),
        steady=ledger.steady(valid),
        goodput_per_s=round(ledger.within(target_s) / span_s, 6) if span_s and target_s is not None else None,
        idle_s=None if idle is None else round(idle, 6),
        active_records_per_s=round(valid / active_s, 6) if active_s else None,
    )


def _limits(counters: Counters, ledger: Ledger, config: RunConfig, waits: QueueWait) -> LimitsUse:
    calls, limits = ledger.calls, config.limits
    first, last = calls.first_sent_at, calls.last_ended_at
    span_s = last - first if first is not None and last is not None else 0.0
    peaks, found, window = ledger.peaks(), rate_use(counters), window_use(counters, limits)
    sent, received = 60 * counters.tokens_input, 60 * counters.tokens_output

    def apart(allowed: float | None, amount: float, peak: float | None) -> LimitUse | None:
        return None if allowed is None else _use(allowed, amount, span_s, peak)

    found_requests = None if found is None else found.requests_per_minute
    found_tokens = None if found is None else found.tokens_per_minute
    return LimitsUse(
        rpm=_use(limits.requests_per_minute, 60 * calls.count, span_s, peaks.requests, found=found_requests),
        tpm=_use(limits.tokens_per_minute, sent + received, span_s, peaks.tokens, found=found_tokens),
        concurrency=_use(limits.max_concurrency, calls.busy_s, span_s, counters.peak_in_flight, found=window.settled),
        bound_by=_bound_by(waits, span_s),
        itpm=apart(limits.input_tokens_per_minute, sent, peaks.input_tokens),
        otpm=apart(limits.output_tokens_per_minute, received, peaks.output_tokens),
    )


def _use(
    given: float | None, amount: float, span_s: float, peak: float | None, *, found: float | None = None
) -> LimitUse:
    """A limit that was found out moved while the run went on: a share of its last value would mean nothing."""
    used = amount / span_s if span_s > 0 else None
    return LimitUse(
        allowed=found if given is None else given,
        used=None if used is None else round(used, 3),
        utilisation=None if used is None or given is None else round(used / given, 6),
        peak=peak,
    )


def _bound_by(waits: QueueWait, span_s: float) -> str | None:
    """Requests leave one after the other, so the waits of the first in line never overlap and add up to time."""
    cause = max(waits.__struct_fields__, key=lambda name: float(getattr(waits, name)))
    return cause if span_s > 0 and getattr(waits, cause) >= _BOUND_SHARE * span_s else None


def _batch_size(counters: Counters, ledger: Ledger, config: RunConfig) -> BatchSize:
    calls, chosen = ledger.calls, counters.batch_size
    return BatchSize(
        configured=config.packing.batch_size,
        mean=round(calls.asked / calls.count, 3) if calls.count else None,
        max=calls.largest,
        by_size=ledger.batch_sizes(),
        settled=None if chosen is None else chosen.settled_size,
        moves=size_moves(counters),
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
