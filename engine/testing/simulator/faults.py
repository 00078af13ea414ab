"""Which fault strikes which call and which record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from .rates import ALL_FAULTS, RECORD_FAULTS, FaultRates

CONNECTION_FAULTS = ("http_429", "http_500", "http_502_html", "reset", "hang")
"""Of these at most one strikes a call, the first in this order; the model then never answers."""


@dataclass(frozen=True, slots=True)
class Strikes:
    """The faults of one call.

    :ivar connection: the one fault that replaces the reply, or None.
    :ivar call: faults of the whole reply.
    :ivar records: fault -> positions (from 0) of the records that it strikes.
    """

    connection: str | None = None
    call: frozenset[str] = frozenset()
    records: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def at(self, fault: str) -> frozenset[int]:
        """Positions of the records struck by a fault."""
        return self.records.get(fault, _NOWHERE)

    def without(self, fault: str) -> Strikes:
        """The same but for one fault of records."""
        return replace(self, records={name: at for name, at in self.records.items() if name != fault})


_NOWHERE: frozenset[int] = frozenset()


def parse_strike_mode(text: str) -> int | None:
    """``every`` -> None; ``first_sends=N`` -> N.

    :raises ValueError: for anything else.
    """
    if text == "every":
        return None
    name, _, number = text.partition("=")
    if name != "first_sends" or not number.isdigit():
        raise ValueError(f"strike mode is 'every' or 'first_sends=N', not {text!r}")
    return int(number)


class FaultDice:
    """Draws the faults of each call.

    :param first_sends: a fault strikes a record only in its first so many sends, and a call only where that holds for
        all of its records, so that a run with faults must end with every record ok. None: at every send.
    """

    def __init__(self, rates: FaultRates, rng: Random, *, first_sends: int | None = None) -> None:
        self._rates = rates
        self._rng = rng
        self._first_sends = first_sends
        named = [fault for fault in ALL_FAULTS if fault in rates.rates and rates.rates[fault] != 0]
        self._record_faults = [fault for fault in named if fault in RECORD_FAULTS]
        self._call_faults = [fault for fault in named if fault not in RECORD_FAULTS]

    def throw(self, sends: Sequence[int], elapsed_s: float) -> Strikes:
        """The faults of one call.

        :param sends: for each of its records, how often it was sent, this time included.
        """
        size = len(sends)
        call = self._drawn_for_call(sends, elapsed_s)
        records = {
            fault: frozenset(self._drawn_for_records(sends, self._rates.of(fault, size, elapsed_s)))
            for fault in self._record_faults
        }
        connection = next((fault for fault in CONNECTION_FAULTS if fault in call), None)
        return Strikes(connection, frozenset(call).difference(CONNECTION_FAULTS), records)

    def _drawn_for_call(self, sends: Sequence[int], elapsed_s: float) -> list[str]:
        if not self._call_faults or not all(map(self._may_strike, sends)):
            return []
        draw, of, size = self._rng.random, self._rates.of, len(sends)
        return [fault for fault in self._call_faults if draw() < of(fault, size, elapsed_s)]

    def _drawn_for_records(self, sends: Sequence[int], rate: float) -> list[int]:
        draw: Callable[[], float] = self._rng.random
        return [index for index, sent in enumerate(sends) if draw() < rate and self._may_strike(sent)]

    def _may_strike(self, sent: int) -> bool:
        return self._first_sends is None or sent <= self._first_sends
