"""The report as one page that opens offline: no script, no font, nothing fetched, and nothing in it can fetch.

Whatever came from outside (records, replies, names, the endpoint's words) goes through `shown`: escaped, its controls
and direction marks made visible, and isolated so that it cannot reorder what stands beside it.
"""

from __future__ import annotations

from typing import Any

import jinja2
import msgspec
from markupsafe import Markup, escape

from engine.report import sentences, words
from engine.report.document import Moment, Report

_WIDTH, _HEIGHT = 600, 150
_FEWEST_MOMENTS = 3  # a curve through less says nothing


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Records ended by time: corners of two lines in a box of `width` x `height`, the origin at the top left."""

    width: int
    height: int
    done: str
    failed: str
    most: int
    seconds: float


def render(report: Report) -> str:
    """The page."""
    return _template().render(
        report=report,
        headline=sentences.headline(report),
        pace=sentences.pace(report),
        chart=chart(report.over_time),
        binding=sentences.BINDING,
    )


def chart(moments: list[Moment]) -> Chart | None:
    """The curve of records ended, or None when there is too little of it to draw."""
    ended = [moment.ok + moment.failed for moment in moments]
    most = sum(ended)
    if sum(map(bool, ended)) < _FEWEST_MOMENTS:
        return None
    until_s = moments[-1].at_s
    done, failed = [(0.0, 0)], [(0.0, 0)]
    for moment in moments:
        done.append((moment.at_s, done[-1][1] + moment.ok + moment.failed))
        failed.append((moment.at_s, failed[-1][1] + moment.failed))
    return Chart(
        width=_WIDTH,
        height=_HEIGHT,
        done=_corners(done, until_s, most),
        failed=_corners(failed, until_s, most) if failed[-1][1] else "",
        most=most,
        seconds=until_s,
    )


def _corners(points: list[tuple[float, int]], until_s: float, most: int) -> str:
    return " ".join(f"{_WIDTH * at / until_s:.1f},{_HEIGHT * (1 - count / most):.1f}" for at, count in points)


def shown(value: Any) -> Markup:
    """A text from outside, made safe to show (see the module)."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    inner = Markup("").join(
        Markup('<span class="hidden">{}</span>').format(piece) if named else escape(piece)
        for piece, named in words.pieces(text)
    )
    return Markup("<bdi>{}</bdi>").format(inner)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("engine.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "number": lambda value: "–" if value is None else words.number(value),
        "short": words.short_number,
        "rate": lambda value: "–" if value is None else words.three_digits(value),
        "digits": lambda value: "–" if value is None else words.three_digits(value),
        "seconds": words.seconds,
        "duration": words.duration,
        "usd": lambda value: "–" if value is None else words.usd(value),
        "moment": lambda value: value.replace("T", " ").replace("+00:00", " UTC"),
        "price": words.price,
        "share": words.share,
        "cause": sentences.cause,
        "failure": sentences.failure,
    }
    return environment.get_template("report.html.jinja")
