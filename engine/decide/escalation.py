"""Which records of the first model go to a second one. Pure; see docs/design/votes.md."""

from __future__ import annotations

from engine.vocabulary.values import Result

_ABOUT_ITS_REPLY = frozenset(
    {"invalid-output", "missing", "no-json", "cut-off", "refused", "filtered", "rejected", "overthought"}
)
"""Failures that are a model's, or its filter's: another one may answer. Not what the way there or the server did, which
the same command asks again, and not what no model can read."""
_ABOUT_LENGTH = frozenset({"too-long", "context"})


def failures_for_second(*, first_most_tokens: int, second_most_tokens: int) -> frozenset[str]:
    """Kinds of failure that another model may not share.

    :param first_most_tokens: that a request to the first model may have; `second_most_tokens` to the second. Too long
        for the first is too long for the second, unless that is known to take more.
    """
    return _ABOUT_ITS_REPLY | (_ABOUT_LENGTH if second_most_tokens > first_most_tokens else frozenset())


def goes_on(result: Result, *, below: float | None, failures: frozenset[str]) -> bool:
    """Whether a result of the first model is asked for again. An answer of unknown confidence is not.

    :param below: the confidence under which answers do; None: none does.
    :param failures: kinds of failure that do.
    """
    if result.error is not None:
        return result.error.kind in failures
    return below is not None and result.confidence is not None and result.confidence < below
