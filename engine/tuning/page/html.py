"""`plan.html`: one offline file in the look of the report, drawn from what `plan.json` holds, and nothing else."""

from __future__ import annotations

from pathlib import Path

from engine.report.charts.gallery import gallery_of, together
from engine.report.html import template
from engine.tuning import sentences
from engine.tuning.document import Plan
from engine.tuning.page.savings import savings_plot
from engine.tuning.page.written import write_both

_LIMITS = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "input_tokens_per_minute": "input tokens a minute",
    "output_tokens_per_minute": "output tokens a minute",
    "max_concurrency": "requests in flight",
}


def render(plan: Plan) -> str:
    """The page."""
    return template("plan.html.jinja", "engine.tuning.page").render(
        plan=plan,
        headline=together(sentences.headline(plan)),
        corpus=[together(line) for line in sentences.corpus(plan)],
        advice=[together(line) for line in sentences.advice(plan)][1:],
        worth=sentences.chosen(plan),
        bound=sentences.BOUND,
        limits={words: plan.limits[name] for name, words in _LIMITS.items() if plan.limits.get(name) is not None},
        thinks=any(each.reasoning_tokens for each in plan.forecasts),
        timed=any(each.time_s is not None for each in plan.forecasts),
        gallery=gallery_of([savings_plot(plan)]),
    )


def write_plan(folder: Path, plan: Plan) -> Path:
    """Write `plan.json` and `plan.html`, each whole or not at all, for the owner only; the path of the latter.

    :raises EngineError: the folder cannot be made or written to.
    """
    return write_both(folder, "plan", plan, render(plan), what="the plan")
