"""What voting came to: in which round records were settled, what it took, and how sure their answers are."""

from __future__ import annotations

from collections import Counter

import msgspec

from engine.vocabulary.values import Usage

TENTHS = 10
_ENOUGH = 3  # replies without probabilities, before the first with some, to say that there are none


class VotesUse(msgspec.Struct, frozen=True, kw_only=True):
    """The votes of one run.

    :ivar rounds: that a record could have at the most.
    :ivar settled_by_round: records with an answer that were settled with so many votes, from one on.
    :ivar tied: of them, those where two answers had equally many votes; the earlier one was taken.
    :ivar kept: of them, those whose last round brought no valid answer; the earlier ones stand.
    :ivar repeats: of them, those that were asked no more since it would have been the same question again: alone once
        more, at temperature 0.
    :ivar requests: that asked records again for votes; `input_tokens` and `output_tokens` are theirs, and in the run's.
    """

    rounds: int
    settled_by_round: tuple[int, ...]
    tied: int
    kept: int
    requests: int
    input_tokens: int
    output_tokens: int
    repeats: int = 0


class Confidence(msgspec.Struct, frozen=True, kw_only=True):
    """How sure the answers are that have a confidence.

    :ivar tenths: answers with a confidence under .1, under .2, ...; the last one holds 1.0 too.
    """

    answers: int
    mean: float
    tenths: tuple[int, ...]


class VoteLog:
    """Counts while a run goes on.

    :ivar repeats: records that were asked no more since it would have been the same question again.
    """

    def __init__(self) -> None:
        self.rounds = 1
        self.repeats = 0
        self._settled: Counter[int] = Counter()
        self._tenths: Counter[int] = Counter()
        self._sum = 0.0
        self._tied = self._kept = 0
        self._requests = self._input = self._output = 0
        self._with_logprobs = self._without_logprobs = 0

    def watch(self, rounds: int) -> None:
        """How many rounds there can be."""
        self.rounds = rounds

    def add_settled(self, *, votes: int, confidence: float | None, tied: bool, kept: bool) -> None:
        """A record has its answer."""
        self._settled[votes] += 1
        self._tied += tied
        self._kept += kept
        if confidence is not None:
            self._tenths[min(TENTHS - 1, int(confidence * TENTHS))] += 1
            self._sum += confidence

    def add_usage(self, usage: Usage) -> None:
        """A request asked for further votes."""
        self._requests += 1
        self._input += usage.input_tokens
        self._output += usage.output_tokens

    def note_logprobs(self, came: bool) -> None:
        """A reply that was asked for the probabilities of its tokens has them, or has not."""
        self._with_logprobs += came
        self._without_logprobs += not came

    @property
    def lacks_logprobs(self) -> bool:
        """Whether the endpoint seems never to send them."""
        return not self._with_logprobs and self._without_logprobs >= _ENOUGH

    def notices(self) -> list[str]:
        """What the user should read of it when the run has ended."""
        if not self.repeats:
            return []
        return [
            f"{self.repeats:,} records were settled with fewer votes: alone in a request once more, at temperature 0, "
            "would have been the same question again. Where that left one vote, the confidence is not known. Larger "
            "batches (--batch-size), or a --temperature above 0, bring votes that can differ"
        ]

    def use(self) -> VotesUse | None:
        """What the votes came to; None where there were none."""
        if self.rounds == 1:
            return None
        most = max(self.rounds, *self._settled, 1)
        return VotesUse(
            rounds=self.rounds,
            settled_by_round=tuple(self._settled[number] for number in range(1, most + 1)),
            tied=self._tied,
            kept=self._kept,
            requests=self._requests,
            input_tokens=self._input,
            output_tokens=self._output,
            repeats=self.repeats,
        )

    def confidence(self) -> Confidence | None:
        """How sure the answers are; None where nobody knows."""
        answers = self._tenths.total()
        if not answers:
            return None
        tenths = tuple(self._tenths[number] for number in range(TENTHS))
        return Confidence(answers=answers, mean=self._sum / answers, tenths=tenths)
