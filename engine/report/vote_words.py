"""What the last lines of a run say of votes and of how sure its answers are."""

from __future__ import annotations

from engine.report import words
from engine.report.document import Report

_UNSURE = 0.6


def escalation_values(report: Report) -> list[str]:
    """How many records went to the second model, what it changed, and what it took."""
    use = report.escalation
    if use is None:
        return []
    ended = report.records.ok + use.failed - use.rescued
    share = words.share(use.records, ended)
    said = [f"{words.number(use.records)} of {words.number(ended)} ({share}) to {words.visible(use.model)}"]
    if use.failed:
        said.append(f"{words.number(use.failed)} of them had failed, {words.number(use.rescued)} of these answered")
    if use.answered > use.rescued:
        said.append(f"{words.number(use.changed)} of {words.number(use.answered - use.rescued)} answered otherwise")
    if use.records > use.answered:
        said.append(f"{words.number(use.records - use.answered)} not answered, and as they were")
    if use.requests:
        said.append(
            f"{words.plural(use.requests, 'request')}, {words.number(use.input_tokens + use.output_tokens)} tokens"
        )
    if use.usd is not None and use.requests:
        both = "" if use.together_usd is None else f", {words.usd(use.together_usd)} with the first model"
        said.append(f"{words.usd(use.usd)}{both}")
    if use.unknown:
        said.append(f"{words.number(use.unknown)} of unknown confidence stayed (annotate retry asks them again)")
    return said


def votes_values(report: Report) -> list[str]:
    """In which round records were settled, what that took more, and how sure the answers are."""
    said: list[str] = []
    votes, confidence = report.votes, report.confidence
    if votes is not None:
        settled = sum(votes.settled_by_round)
        rounds = [
            f"{words.share(count, settled)} settled with {words.plural(number, 'vote')}"
            for number, count in enumerate(votes.settled_by_round, start=1)
            if count
        ]
        tokens = votes.input_tokens + votes.output_tokens
        more = words.share(tokens, report.tokens.input + report.tokens.output)
        said += [*rounds, *([f"{more} of the tokens for further rounds"] if tokens else [])]
        if votes.repeats:
            said.append(f"{words.number(votes.repeats)} asked no more, alone at temperature 0")
    if confidence is not None:
        unsure = sum(confidence.tenths[: round(10 * _UNSURE)])
        said.append(f"mean confidence {confidence.mean:.2f}, under {_UNSURE:g} for {words.number(unsure)}")
    return said
