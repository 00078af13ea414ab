"""What a search says in words, on a terminal, on its page and in the task file that it writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from engine.decide.scores import VariableScore
from engine.report import words
from engine.tuning.space import Setting, value_of
from engine.tuning.tune_document import Row, Tuned

_NAMES = {
    "batch_size": "{} a request",
    "examples": "{} examples",
    "form": "{}",
    "wording": "wording {}",
    "order": "order {}",
    "temperature": "temperature {}",
    "model": "{}",
    "choice": "{} choice",
    "variables": "variables {}",
    "votes": "{} votes",
}
_ONE = {"examples": "1 example", "votes": "one ask"}
_WAYS_ON = {
    "budget": "The same command with more of it goes on",
    "interrupted": "The same command goes on",
}
_EITHER = {
    "schema": ("with schema", "no schema"),
    "alternate": ("labels alternate", "examples as given"),
    "reason": ("reason first", "no reason"),
    "terse": ("terse rules", "full rules"),
}


def named(tuned: Tuned, row: Row) -> str:
    """A setting by what it does not share with all others."""
    dimensions = tuned.dimensions or ["batch_size", "examples", "form"]
    return ", ".join(_named(dimension, _shown(row, dimension)) for dimension in dimensions)


def named_value(row: Row, dimension: str) -> str:
    """One dimension of a setting, as `named` has it."""
    return _named(dimension, _shown(row, dimension))


def cell(row: Row, dimension: str) -> str:
    """A setting's value in a table."""
    return str(_shown(row, dimension))


def _shown(row: Row, dimension: str) -> Any:
    """Records a request as they were: a budget of tokens, or the gold, may have held fewer."""
    if dimension == "batch_size":
        return words.batch_size(row.setting.batch_size, row.mean_size)
    return value_of(row.setting, dimension)


def _named(dimension: str, value: Any) -> str:
    if dimension in _EITHER:
        return _EITHER[dimension][0 if value else 1]
    if value == 1 and dimension in _ONE:
        return _ONE[dimension]
    return _NAMES.get(dimension, dimension.removeprefix("body.") + " {}").format(value)


def in_full(setting: Setting) -> str:
    """The usual dimensions of a setting, and what it has that is not usual."""
    usual = {field.name: field.default for field in msgspec.structs.fields(Setting)}
    first = ("batch_size", "examples", "form")
    more = [name for name in Setting.__struct_fields__ if name not in (*first, "body")]
    names = [*first, *(name for name in more if getattr(setting, name) != usual[name])]
    keys = [f"{key} {value}" for key, value in setting.body.items()]
    return ", ".join([*(_named(name, getattr(setting, name)) for name in names), *keys])


def score(row: Row) -> str:
    """A score with its interval; a share of right answers in per cent would hide that kappa is none."""
    return f"{row.score:.3f} ({row.interval.low:.3f} to {row.interval.high:.3f})"


def ended(row: Row) -> str:
    """Why a setting was asked no further, in a word or two; nothing where that was not by its own doing."""
    if row.broken is not None:
        return "broken"
    if row.stopped_by is None:
        return ""
    return "worse" if row.is_worse else "no gain"


def ended_by(tuned: Tuned, row: Row) -> str:
    """The same, with the other setting."""
    if row.broken is not None:
        return f"broken: {row.broken}"
    if row.stopped_by is None:
        return ""
    other = named(tuned, tuned.rows[row.stopped_by])
    return f"worse than {other}" if row.is_worse else f"no better than {other}, which is cheaper"


def variable(each: VariableScore) -> str:
    """How right one variable is."""
    other = "" if each.score is None else f"; {each.score:.3f}"
    return f"{each.accuracy:.3f} ({each.interval.low:.3f} to {each.interval.high:.3f}{other})"


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
        on = _WAYS_ON.get(tuned.stop_kind or "", "Once that is mended, the same command goes on")
        yield f"The search stopped early: {tuned.stopped}. {on}, and pays for nothing twice."
    saved = _saving(tuned)
    if saved is not None:
        yield saved
    yield from _stacking(tuned)


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
    """Beside the best setting that asks one record a request, and beside the one that is else the same: the former may
    show other examples, which is no saving of a minibatch."""
    alone = [row for row in tuned.rows if row.setting.batch_size == 1 and row.records]
    choice = tuned.choice
    if not alone or choice.setting.batch_size == 1:
        return None
    best = max(alone, key=lambda row: (row.score, -row.cost_per_record))
    same = next((row for row in alone if _but_for_size(row, choice)), None)
    said = [_fewer(tuned, choice, row) for row in (same, best) if row is not None]
    told = [each for each in dict.fromkeys(said) if each is not None]
    if not told:
        return None
    return f"It takes {choice.input_per_record:,.0f} input tokens a record, {', and '.join(told)}."


def _but_for_size(row: Row, other: Row) -> bool:
    return msgspec.structs.replace(row.setting, batch_size=other.setting.batch_size) == other.setting


def _fewer(tuned: Tuned, choice: Row, row: Row) -> str | None:
    """How many fewer input tokens it takes than one with one record a request; None where it is none."""
    saved = 1 - choice.input_per_record / max(1e-9, row.input_per_record)
    if saved <= 0:
        return None
    which = "one record a request and all else equal" if _but_for_size(row, choice) else (
        "the best setting with one record a request"
    )  # fmt: skip
    return f"{words.share(saved, 1)} fewer than {which} ({named(tuned, row)}: {row.score:.3f} on {row.records:,})"


def _stacking(tuned: Tuned) -> Iterator[str]:
    """What it takes and brings to ask more or fewer variables at once, all else equal."""
    choice = tuned.choice
    for row in tuned.rows:
        same = msgspec.structs.replace(row.setting, variables=choice.setting.variables) == choice.setting
        if row is choice or not same or not row.records or choice.cost_per_record <= 0:
            continue
        yield (
            f"With variables {row.setting.variables} and all else equal: {tuned.metric} {score(row)} on "
            f"{words.plural(row.records, 'record')}, for {row.cost_per_record / choice.cost_per_record:.2f} x the cost."
        )


def spending(tuned: Tuned) -> str:
    """What the search took."""
    usd = "" if tuned.spent_usd is None else f" ({words.usd(tuned.spent_usd)})"
    share = words.share(tuned.spent_tokens, tuned.grid_tokens)
    return (
        f"the search took {words.number(tuned.spent_tokens)} tokens{usd}, {share} of asking all "
        f"{len(tuned.rows)} settings about all {tuned.records:,} records"
    )
