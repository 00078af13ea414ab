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
from engine.report.charts.gallery import hang
from engine.report.document import Report
from engine.report.saving import once_words


def render(report: Report) -> str:
    """The page."""
    return template("report.html.jinja").render(
        report=report,
        headline=sentences.headline(report),
        pace=sentences.pace(report),
        gallery=hang(report),
        binding=sentences.BINDING,
        price_source=sentences.price_source(report),
    )


def shown(value: Any) -> Markup:
    """A text from outside, made safe to show (see the module)."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    inner = Markup("").join(
        Markup('<span class="hidden">{}</span>').format(piece) if named else escape(piece)
        for piece, named in words.pieces(text)
    )
    return Markup("<bdi>{}</bdi>").format(inner)


def template(name: str, package: str = "engine.report") -> jinja2.Template:
    """A template in the look of the report: its style, its parts, its filters.

    :param package: whose `templates` hold it; those of the report are there as well.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(of) for of in dict.fromkeys((package, "engine.report"))]),
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
        "once": once_words,
        "batch_size": words.batch_size,
    }
    return environment.get_template(name)
