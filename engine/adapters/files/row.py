"""A row of the output: what the user gets for one record. And which fields of a row of the input are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from engine.vocabulary.values import RecordError, RecordId

Choose = Callable[[Sequence[str]], Sequence[str]]
"""From the names of all fields of a source to those that are used: what need not be read is left unread."""


class OutputRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the output file; the order of these fields is the order of the keys in JSON (contract).

    :ivar id: with the JSON type that it had in the input; None for a broken record, which has none.
    :ivar output: a label, a list of labels or an object of fields; None when `error` is set.
    :ivar confidence: from 0 to 1; not there where nothing makes one (no votes, no token probabilities).
    :ivar model: that answered; not there unless a second one is asked where the first is unsure.
    """

    id: RecordId | None
    output: Any = None
    error: RecordError | None = None
    confidence: float | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
