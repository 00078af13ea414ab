"""Answers in whose place a second model's stand, in the questions that are asked of a store."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.adapters.store import RunStore, SecondRun


def rescued(settings: str, failures: str) -> str:
    """SQL that joins, to a failed answer `a` of the first model, the one `b` of the second that takes its place.

    :param settings: the place of the first of `rescue_values`, such as ``?3``; `failures` of the other.
    """
    return (
        f"LEFT JOIN answers b ON b.settings_id = {settings} AND b.key = a.key AND b.digest = a.digest AND b.ok = 1 "
        f"AND a.ok = 0 AND a.error_kind IN (SELECT value FROM json_each({failures}))"
    )


def rescue_values(store: RunStore, run_id: int) -> tuple[int | None, str]:
    """The second model's settings in a run, and the kinds of failure that it was asked about; none without one."""
    second = store.second_run(run_id)
    if second is None:
        return None, "[]"
    return second.settings_id, msgspec.json.encode(second.failures).decode()


def had_by_second(answer: str, second: SecondRun) -> tuple[str, list[Any]]:
    """SQL that says whether the second model had the record of an answer of the first, and its values.

    :param answer: the name of the table in which the first model's answer is.
    """
    failed = f"{answer}.ok = 0 AND {answer}.error_kind IN (SELECT value FROM json_each(?))"
    unsure = f"{answer}.ok = 1 AND {answer}.confidence < ?"
    return f"coalesce({failed} OR {unsure}, 0)", [msgspec.json.encode(second.failures).decode(), second.below]
