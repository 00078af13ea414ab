"""What a search says in words, on a terminal, on its page and in the task file that it writes."""

from __future__ import annotations

from collections.abc import Iterator

from engine.report import words
from engine.tuning.space import value_of
from engine.tuning.tune_document import Row, Tuned

_NAMES = {
    "batch_size": "{} a request",
    "examples": "{} examples",
    "form": "{}",
    "wording": "wording {}",
    "order": "order {}",
    "temperature": "temperature {}",
    "model": "{}",
}


def named(tuned: Tuned, row: Row) -> str:
    """A setting by what it does not share with all others."""
    parts = []
    for dimension in tuned.dimensions or ["batch_size", "examples", "form"]:
        value = value_of(row.setting, dimension)
        if dimension == "schema":
            parts.append("with schema" if value else "no schema")
        elif dimension == "examples" and value == 1:
            parts.append("1 example")
        else:
            parts.append(_NAMES.get(dimension, dimension.removeprefix("body.") + " {}").format(value))
    return ", ".join(parts)


def score(row: Row) -> str:
    """A score with its interval; a share of right answers in per cent would hide that kappa is none."""
    return f"{row.score:.3f} ({row.interval.low:.3f} to {row.interval.high:.3f})"


def headline(tuned: Tuned) -> str:
    """The choice in one sentence."""
    choice = tuned.choice
    on = words.plural(choice.records, "record")
    return f"chosen: {named(tuned, choice)}: {tuned.metric} {score(choice)} on {on}"


def why(tuned: Tuned) -> Iterator[str]:
    """What was shown, or that nothing was, what was chosen then, and how much gold it would take."""
    margin, sure = f"{tuned.margin:g}", f"{100 * tuned.confidence:.0f} %"
    if tuned.is_clear:
        yield (
            f"It is the cheapest setting that is shown not to be worse than any other by more than {margin} "
            f"(confidence {sure} for each other one)" + ("." if tuned.threatening is None else f"; {_threat(tuned)}.")
        )
    else:
        yield (
            f"not distinguishable: no setting is shown to be within {margin} of all others at {sure} confidence. Taken "
            "is the cheapest that is estimated to be hardly behind the best"
            + ("." if tuned.threatening is None else f"; {_threat(tuned)}.")
        )
        yield _gold_needed(tuned)
    if tuned.stopped is not None:
        yield f"The search stopped early: {tuned.stopped}. The same command goes on, and pays for nothing twice."
    saved = _saving(tuned)
    if saved is not None:
        yield saved


def _gold_needed(tuned: Tuned) -> str:
    needs = (
        f"A margin of {tuned.margin:g} needs some {tuned.gold_needed:,} gold records for two settings that differ as "
        f"often as these and are equally good"
    )
    if tuned.gold_needed > tuned.records:
        return f"{needs}; there are {tuned.records:,}."
    return f"{needs}, and there are {tuned.records:,}: some are too near to the margin, or were asked about too few."


def _threat(tuned: Tuned) -> str:
    other = tuned.rows[tuned.threatening or 0]
    return (
        f"the one that may be ahead by most, {named(tuned, other)}, is estimated {tuned.behind:+.3f} from it, "
        f"{tuned.at_most:+.3f} at the most"
    )


def _saving(tuned: Tuned) -> str | None:
    """Beside the best setting that asks one record a request."""
    alone = [row for row in tuned.rows if row.setting.batch_size == 1]
    choice = tuned.choice
    if not alone or choice.setting.batch_size == 1:
        return None
    best = max(alone, key=lambda row: (row.score, -row.cost_per_record))
    saved = 1 - choice.input_per_record / max(1e-9, best.input_per_record)
    if saved <= 0:
        return None
    return (
        f"It takes {choice.input_per_record:,.0f} input tokens a record, {words.share(saved, 1)} fewer than the best "
        f"setting with one record a request ({named(tuned, best)}: {best.score:.3f} on {best.records:,})."
    )


def spending(tuned: Tuned) -> str:
    """What the search took."""
    usd = "" if tuned.spent_usd is None else f" ({words.usd(tuned.spent_usd)})"
    share = words.share(tuned.spent_tokens, tuned.grid_tokens)
    return (
        f"the search took {words.number(tuned.spent_tokens)} tokens{usd}, {share} of asking all "
        f"{len(tuned.rows)} settings about all {tuned.records:,} records"
    )
