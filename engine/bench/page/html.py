"""`bench.html`: one offline file in the look of the report, drawn from what `bench.json` holds, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.files.atomic import replacing
from engine.bench import sentences
from engine.bench.document import Bench
from engine.bench.figures import Spread
from engine.bench.page.arrivals import arrivals_plot
from engine.bench.page.curve import curve_plot
from engine.bench.page.load import load_plot
from engine.bench.page.use import cost_plot, used_plot, waste_plot
from engine.report import words
from engine.report.charts.gallery import gallery_of, together
from engine.report.html import template
from engine.report.summary import JSON_NAME as REPORT_NAME
from engine.vocabulary.errors import ConfigError, EngineError

JSON_NAME = "bench.json"

PLOTS = (curve_plot, load_plot, arrivals_plot, used_plot, waste_plot, cost_plot)

_SETTINGS = {
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
    "limit_share": "Used of these limits at most",
    "max_input_tokens": "Input tokens a request, at most",
    "max_output_tokens": "Output tokens a request, at most",
    "max_wait_s": "Wait for a fuller batch, s",
    "answer_form": "Answer form",
    "temperature": "Temperature",
    "timeout_s": "Timeout, s",
    "extra_body": "Extra fields of the request",
    "prices": "Prices, dollars a million tokens",
    "budget_usd": "Budget, dollars",
    "budget_tokens": "Budget, tokens",
    "requests_per_visit": "Requests a visit, at most",
    "visit_s": "Seconds a visit, at most",
    "quick": "Quick",
}


def render(document: Bench) -> str:
    """The page."""
    return template("bench.html.jinja", "engine.bench.page").render(
        bench=document,
        headline=together(sentences.headline(document)),
        lead=together(_lead(document)),
        best=sentences.best_point(document),
        knees={knee.batch_size: knee for knee in document.knees},
        said=sentences,
        shares=", ".join(f"{100 * share:.0f} %" for share in document.planned.rate_shares),
        settings=dict(_settings(document)),
        gallery=gallery_of([plot(document) for plot in PLOTS]),
        middle=_middle,
        seconds_of=_seconds_of,
        plus_minus=_plus_minus,
    )


def write_page(document: Bench, source: Path) -> Path:
    """Write the page beside its figures, whole or not at all, for the owner only; its path.

    :param source: the file that holds the figures.
    :raises EngineError: it cannot be written.
    """
    page = source.with_suffix(".html")
    try:
        with replacing(page) as stream:
            stream.write(render(document).encode())
    except OSError as error:
        raise EngineError(f"{page} cannot be written: {error.strerror or error}") from error
    return page


def is_bench(given: str | Path) -> bool:
    """Whether this is the file of a bench, or a folder with a `bench.json` and no `report.json`."""
    source = Path(given)
    if source.is_dir():
        return (source / JSON_NAME).is_file() and not (source / REPORT_NAME).is_file()
    try:
        return msgspec.json.decode(source.read_bytes(), type=_Kind).bench_version is not None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return False


class _Kind(msgspec.Struct):
    bench_version: int | None = None


def draw_again(given: str | Path) -> Path:
    """Write the page anew from its figures, which stay as they are; its path.

    :param given: as `is_bench` takes it.
    :raises ConfigError: the figures cannot be read. :raises EngineError: the page cannot be written.
    """
    source = Path(given) / JSON_NAME if Path(given).is_dir() else Path(given)
    try:
        document = msgspec.json.decode(source.read_bytes(), type=Bench)
    except OSError as error:
        raise ConfigError(f"{source} cannot be read ({error.strerror or error}); check its path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{source} does not hold a whole bench ({error}); measure again with annotate bench"
        ) from error
    return write_page(document, source)


def _lead(document: Bench) -> str:
    """What stands there besides throughput; where nothing was answered, why."""
    point = sentences.best_point(document)
    if point is None:
        causes = ", ".join(f"{count} {name}" for name, count in sentences.errors(document).items())
        return f"Attempts ended as: {words.visible(causes)}." if causes else "No attempt ended."
    p50, p95 = (point.summary.request_latency_s.get(rank) for rank in ("p50", "p95"))
    said = [] if p50 is None or p95 is None else [
        f"There half of the requests came back within {words.seconds(p50.median)}, 95 % within "
        f"{words.seconds(p95.median)}."
    ]  # fmt: skip
    rates = f" and {words.plural(len(document.open), 'arrival rate')}" if document.open else ""
    said.append(f"Measured: {words.plural(len(document.closed), 'cell')}{rates}, in {words.duration(document.wall_s)}.")
    return " ".join(said)


def _middle(value: Spread | None) -> str:
    return "–" if value is None else words.three_digits(value.median)


def _plus_minus(value: Spread | None) -> str:
    """Least to greatest of the repeats; nothing where there is one."""
    if value is None or value.min == value.max:
        return ""
    return f"{words.three_digits(value.min)} to {words.three_digits(value.max)}"


def _seconds_of(found: dict[str, Spread], rank: str) -> str:
    return words.seconds(found[rank].median) if rank in found else "–"


def _settings(document: Bench) -> Iterator[tuple[str, str]]:
    for name, value in document.settings.items():
        yield _SETTINGS.get(name, name), _shown(value)


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
