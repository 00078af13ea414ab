"""Which answer form requests ask in: compact until the labels cap its size, keyed where that is better by evidence.

Keyed answers repeat the first words of their input. On some tasks that keeps the labels what they are in larger
batches (measured at B=20: .74 right against .45), on others it harms them (.70 against .87), and it costs some 14
output tokens a record. So nothing is believed: the keyed form is tried on finished records only, in batches of the
largest size, against the lone answers that the compact form gave; and what such a batch took is what it will take.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from engine.decide.size_worth import Allowed, SlotTimes, Tried, Work, Worth, faded
from engine.vocabulary.config import AnswerForm, Objective

_TRIALS = 3  # requests of a trial before it says what the form is worth
_MOST_TRIALS = 16  # after which a gain that is not clear is none
_GAIN = 1.05  # a change of the form must promise so much more
_TOO_NOISY = 0.3  # a worth that is known no better says nothing
_IGNORED = 2  # replies without any key: the endpoint does not follow the form

Outcome = Literal["untried", "taken", "ignored", "changes", "not worth it", "given back"]


class FormMove(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the form, with its reason in words.

    :ivar size: records a request at which the new form is known to hold.
    """

    at_s: float
    form: AnswerForm
    size: int
    reason: str


class AnswerForms:
    """Holds the form in use and what is known of the other one. Pure: outcomes and time come in."""

    def __init__(self, *, has_keyed: bool, objective: Objective = "records-per-second") -> None:
        """:param has_keyed: whether the keyed form may be used at all."""
        self.has_keyed = has_keyed
        self._objective: Objective = objective
        self._form: AnswerForm = "compact"
        self._trials: dict[int, Tried] = {}
        self._times = SlotTimes()
        self._unkeyed = 0
        self._gain = 1.0
        self.outcome: Outcome = "untried"
        self.history: list[FormMove] = []

    def __repr__(self) -> str:
        return f"AnswerForms({self._form}, {self.outcome})"

    @property
    def form(self) -> AnswerForm:
        """What production asks in."""
        return self._form

    @property
    def may_try(self) -> bool:
        """Whether the keyed form may still be tried."""
        return self.has_keyed and self._form == "compact" and self.outcome == "untried"

    def observe_trial(self, work: Work) -> None:
        """A request of finished records in the keyed form has ended."""
        self._trials.setdefault(work.size, Tried()).add(work, timed=True)
        self._times.observe(work.size, work.slot_s)

    def observe_unkeyed(self) -> None:
        """A keyed reply came in which no result has a key."""
        self._unkeyed += 1
        if self._unkeyed >= _IGNORED and self._form == "compact":
            self.outcome = "ignored"

    def observe_changes(self) -> None:
        """The labels do not hold in the keyed form either, at any size that would be a gain."""
        if self._form == "compact":
            self.outcome = "changes"

    def decide(
        self, *, compact_size: int, compact: Worth | None, keyed_size: int, allowed: Allowed, now: float
    ) -> FormMove | None:
        """Change the form, or not.

        :param compact_size: the largest size that the labels bear in the compact form.
        :param compact: what that size is worth.
        :param keyed_size: the largest size that is shown to hold in the keyed form; 0 for none.
        """
        if self._form == "keyed":
            if keyed_size > compact_size:
                return None
            self.outcome = "given back"
            return self._move("compact", compact_size, f"keyed answers hold at B={max(1, keyed_size)} only", now)
        trial = self._trials[max(self._trials)] if self._trials else None
        if not self.may_try or compact is None or trial is None or trial.requests < faded(_TRIALS):
            return None
        keyed = trial.worth(allowed, self._objective, self._times)
        noise = math.hypot(keyed.noise, compact.noise)
        gain = keyed.rate / compact.rate
        if noise > _TOO_NOISY:
            return None
        pays = gain >= _GAIN * (1.0 + noise)
        if gain * (1.0 + noise) < _GAIN or (not pays and trial.requests >= faded(_MOST_TRIALS)):
            # Said before more is spent on what it does to the labels. One endless reply in four is no reason to.
            self.outcome, self._gain = "not worth it", gain
        if not pays or keyed_size <= compact_size:
            return None
        self.outcome = "taken"
        reason = (
            f"keyed answers hold at B={keyed_size}, compact ones at B={compact_size} only; "
            f"{gain:.1f} x the valid records for the same {keyed.binding}"
        )
        return self._move("keyed", keyed_size, reason, now)

    def _move(self, form: AnswerForm, size: int, reason: str, now: float) -> FormMove:
        self._form = form
        self.history.append(FormMove(at_s=now, form=form, size=size, reason=reason))
        return self.history[-1]

    @property
    def sentence(self) -> str:
        """One line for a person; "" where nothing was tried."""
        match self.outcome:
            case "taken" | "given back":
                return f"answer form: {self.history[-1].reason}."
            case "ignored":
                return "answer form: keyed answers were asked for on trial, and the model ignores the form."
            case "changes":
                return "answer form: keyed answers change with their batch as well, so the compact form stayed."
            case "not worth it":
                return (
                    "answer form: keyed answers in larger batches would not pay for their output tokens: "
                    f"{self._gain:.2f} x the valid records."
                )
            case "untried":
                return ""
