"""`tune.html`: one offline file in the look of the report, drawn from what `tune.json` holds, and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.adapters.files.atomic import make_folder, replacing
from engine.report.charts.gallery import gallery_of, together
from engine.report.html import template
from engine.tuning import tune_sentences as sentences
from engine.tuning.page.tune_front import front_plot
from engine.tuning.space import value_of
from engine.tuning.tune_document import Tuned
from engine.vocabulary.errors import EngineError

JSON_NAME, HTML_NAME = "tune.json", "tune.html"


def render(tuned: Tuned) -> str:
    """The page."""
    return template("tune.html.jinja", "engine.tuning.page").render(
        tuned=tuned,
        headline=together(sentences.headline(tuned)),
        why=[together(line) for line in sentences.why(tuned)],
        spending=sentences.spending(tuned),
        dimensions=tuned.dimensions or ["batch_size"],
        value_of=value_of,
        gallery=gallery_of([front_plot(tuned)]),
        priced=any(row.usd_per_1000 is not None for row in tuned.rows),
    )


def write_tuned(folder: Path, tuned: Tuned) -> Path:
    """Write `tune.json` and `tune.html`, each whole or not at all, for the owner only; the path of the latter.

    :raises EngineError: the folder cannot be made or written to.
    """
    document = msgspec.json.format(msgspec.json.encode(tuned), indent=2) + b"\n"
    page = render(tuned).encode()
    try:
        make_folder(folder)
        for name, content in ((JSON_NAME, document), (HTML_NAME, page)):
            with replacing(folder / name) as stream:
                stream.write(content)
    except OSError as error:
        raise EngineError(f"the search cannot be written to {folder}: {error.strerror or error}") from error
    return folder / HTML_NAME
