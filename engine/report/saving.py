"""What minibatches saved of the input, and beside what."""

from __future__ import annotations

from engine.report import words
from engine.report.document import Report, Saving
from engine.report.ledger import Ledger

FORMULA = "static_tokens * (answers - calls)"


def saving(input_tokens: int, ledger: Ledger, static_tokens: int | None, *, voted: int) -> Saving | None:
    """One record a call would have sent the static prompt once an answer, instead of once a call.

    Kind to the other side: our re-asks and failed attempts count against us, and it is assumed to have none.

    :param static_tokens: of the static prompt, as the endpoint counts it.
    :param voted: records that were asked for several votes, and answered; 0 where each was asked once.
    """
    answers, calls = ledger.calls.accepted, ledger.calls.billed
    if static_tokens is None or not answers:
        return None
    saved = static_tokens * (answers - calls)
    alone = max(1, input_tokens + saved)
    return Saving(
        input=saved,
        share=round(saved / alone, 6),
        static_tokens=static_tokens,
        answers=answers,
        calls=calls,
        formula=FORMULA,
        once_share=round(1 - input_tokens / (alone * voted / answers), 6) if voted else None,
    )


def saved_words(report: Report) -> str | None:
    """The share that was saved, for the last lines of a run; None where nothing was."""
    saved = report.tokens.saved
    if saved is None or saved.input <= 0:
        return None
    share = words.share(saved.input, report.tokens.input + saved.input)
    if saved.once_share is None:
        return f"about {share} of the input saved against one record a call"
    return f"about {share} of the input saved against the same asks one record a call, {once_words(saved.once_share)}"


def once_words(share: float) -> str:
    """Beside a run without votes: each record asked once and alone."""
    one = "one ask of each record alone"
    return f"{words.share(share, 1)} against {one}" if share >= 0 else f"{words.share(-share, 1)} more than {one}"
