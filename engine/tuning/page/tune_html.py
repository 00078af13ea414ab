"""`tune.html`: one offline file in the look of the report, drawn from what `tune.json` holds, and nothing else."""

from __future__ import annotations

from pathlib import Path

from engine.report.charts.gallery import gallery_of, together
from engine.report.html import template
from engine.tuning import tune_sentences as sentences
from engine.tuning.page.tune_front import front_plot
from engine.tuning.page.written import write_both
from engine.tuning.tune_document import Tuned


def render(tuned: Tuned) -> str:
    """The page."""
    return template("tune.html.jinja", "engine.tuning.page").render(
        tuned=tuned,
        headline=together(sentences.headline(tuned)),
        why=[together(line) for line in sentences.why(tuned)],
        spending=sentences.spending(tuned),
        dimensions=tuned.dimensions or ["batch_size"],
        cell=sentences.cell,
        ended_by=sentences.ended_by,
        variable=sentences.variable,
        gallery=gallery_of([front_plot(tuned)]),
        priced=any(row.usd_per_1000 is not None for row in tuned.rows),
    )


def write_tuned(folder: Path, tuned: Tuned) -> Path:
    """Write `tune.json` and `tune.html`, each whole or not at all, for the owner only; the path of the latter.

    :raises EngineError: the folder cannot be made or written to.
    """
    return write_both(folder, "tune", tuned, render(tuned), what="the search")
