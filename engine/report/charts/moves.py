"""The moves of batch size, answer form, window, rates and latency target, in one numbered list."""

from __future__ import annotations

from engine.report.charts.axes import tick
from engine.report.charts.plot import Step
from engine.report.document import Report

SHOWN = 24
SIZE_STEPS = ("batch size", "the target", "answer form")
"""How steps begin that are about what is in a request."""


def steps_of(report: Report) -> list[Step]:
    """The newest moves of everything that moved, oldest first, numbered."""
    moves = [(move.at_s, f"batch size {move.old} → {move.new}", move.reason) for move in report.batch_size.moves]
    if report.window is not None:
        moves += [(move.at_s, f"window {move.old} → {move.new}", move.reason) for move in report.window.moves]
    if report.rate is not None:
        moves += [
            (move.at_s, f"{move.dimension} a minute {_rate(move.old)} → {_rate(move.new)}", move.reason)
            for move in report.rate.moves
        ]
    if report.target is not None:
        moves += [
            (move.at_s, f"the target allows {move.old} → {move.new} a request", move.reason)
            for move in report.target.moves
        ]
    if report.answer_form is not None:
        moves += [(move.at_s, f"answer form {move.form}", move.reason) for move in report.answer_form.moves]
    newest = sorted(moves)[-SHOWN:]
    return [Step(number=number, at_s=at_s, what=what, why=why) for number, (at_s, what, why) in enumerate(newest, 1)]


def _rate(value: float | None) -> str:
    return "unpaced" if value is None else tick(round(value))


def numbers(
    steps: list[Step], unit_s: float, times: set[float] | None, kind: str | tuple[str, ...]
) -> list[tuple[float, str]]:
    return [
        (step.at_s / unit_s, str(step.number))
        for step in steps
        if step.what.startswith(kind) and (times is None or step.at_s in times)
    ]
