"""What votes will take: in how many rounds a record is asked, and how that is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from engine.adapters.store import RunStore
from engine.decide.quality_evidence import can_be_judged
from engine.decide.vote_rounds import ASSUMED_AGREEMENT, ONE, Rounds, agreement_of, rounds_of
from engine.tuning.space import Setting
from engine.vocabulary.config import Endpoint, VotesStop
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Task

_LEAST = 30  # voted answers, before which a store tells nothing of the agreement

_RULE = """
SELECT json_extract(config, '$.votes'), json_extract(config, '$.votes_stop') FROM runs
WHERE settings_id = ? AND first_run IS NULL ORDER BY id DESC LIMIT 1
"""
_ROUNDS = "SELECT count(*), avg(votes) FROM answers WHERE settings_id = ? AND ok = 1 AND copied = 0 AND votes > 1"

Source = Literal["given", "store", "assumed"]

IN_VAIN = (
    "votes of a record that is alone in its requests, at temperature 0, would be answers to the same question, and "
    "agree whether they are right or not"
)


class Voted(msgspec.Struct, frozen=True, kw_only=True):
    """The votes of a plan.

    :ivar agreement: the share of records whose answers in two rounds are the same; `source`: who says so.
    """

    votes: int
    stop: VotesStop
    agreement: float
    source: Source

    @property
    def rounds(self) -> Rounds:
        """In which a record is asked."""
        return rounds_of(self.votes, self.stop, agreement=self.agreement)


def voted(votes: int, stop: VotesStop, *, given: float | None, stored: float | None) -> Voted | None:
    """What is known of the votes; None where there are none.

    :param given: the agreement that the user gives; `stored`: that an earlier run had.
    """
    if votes == 1:
        return None
    if given is not None:
        return Voted(votes=votes, stop=stop, agreement=given, source="given")
    if stored is not None:
        return Voted(votes=votes, stop=stop, agreement=stored, source="store")
    return Voted(votes=votes, stop=stop, agreement=ASSUMED_AGREEMENT, source="assumed")


def rounds_alone(rounds: Rounds, temperature: float | None) -> Rounds:
    """Of records that are alone in their requests: one, where all would be the same question."""
    return ONE if temperature == 0 else rounds


def stored_agreement(store: RunStore, settings: int) -> float | None:
    """How often two answers to a record were the same in the last run, by its votes; None where it says nothing."""
    rule = store.query(_RULE, (settings,))
    if not rule or not isinstance(rule[0][0], int) or rule[0][1] not in ("decided", "agreed"):
        return None
    count, rounds = store.query(_ROUNDS, (settings,))[0]
    if count < _LEAST:
        return None
    return agreement_of(rounds, votes=rule[0][0], stop=rule[0][1])


def with_a_point(settings: Sequence[Setting], endpoint: Endpoint) -> tuple[list[Setting], str | None]:
    """The settings without those whose votes would say nothing, and a word about them.

    :raises ConfigError: there are no others.
    """
    kept = [setting for setting in settings if not _is_in_vain(setting, endpoint)]
    gone = len(settings) - len(kept)
    if not kept:
        raise ConfigError(
            f"every setting has votes of lone records, which say nothing: {IN_VAIN}; add a larger batch_size, votes = "
            "[1], or a temperature above 0"
        )
    if not gone:
        return kept, None
    return kept, (
        f"{gone} setting{'' if gone == 1 else 's'} with votes and one record a request {'is' if gone == 1 else 'are'} "
        f"left out: {IN_VAIN}"
    )


def _is_in_vain(setting: Setting, endpoint: Endpoint) -> bool:
    """As a run with this setting would judge it."""
    asked = endpoint.temperature if setting.temperature is None else setting.temperature
    asked = {"temperature": asked, **endpoint.extra_body, **setting.body}["temperature"]
    return setting.votes > 1 and setting.batch_size == 1 and asked == 0


def check_can_vote(task: Task, votes: int) -> None:
    """:raises ConfigError: the task has nothing to vote on."""
    if votes > 1 and not can_be_judged(task):
        raise ConfigError(
            "there is nothing to vote on: the task has free texts and numbers only; leave votes (--votes) out"
        )
