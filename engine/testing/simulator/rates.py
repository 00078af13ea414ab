"""How often a fault strikes: a number, or a function of the batch size and the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import exp, log2

Rate = float | Callable[[int, float], float]
"""A probability, or ``(batch size, seconds since the first request) -> probability``."""

CALL_FAULTS = (
    "http_429", "http_500", "http_502_html", "reset", "hang", "cut_body", "bad_envelope", "delay",
    "refuse", "cut", "fence", "prose", "trailing_comma", "reorder",
)  # fmt: skip
"""Faults that strike a whole call, those of the connection first."""

RECORD_FAULTS = ("drop", "duplicate", "conflict", "off_label", "foreign_id")
"""Faults that strike one record of a call."""

SPECIAL_FAULTS = ("endless", "extra", "short", "babble", "swap", "stale", "echo_items")
"""Faults that only strike when they are named: `swap` cannot be detected in compact answers, the others are whole
replies gone wrong. `extra`: results beyond those asked; `short`: half of them; `babble`: prose instead of any."""

ALL_FAULTS = (*CALL_FAULTS, *RECORD_FAULTS, *SPECIAL_FAULTS)


@dataclass(frozen=True, slots=True)
class FaultRates:
    """The rate of each fault, by name. Names left out never strike.

    :raises ValueError: for a name that is no fault.
    """

    rates: Mapping[str, Rate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rates) - set(ALL_FAULTS))
        if unknown:
            raise ValueError(f"no such fault: {', '.join(unknown)}; known: {', '.join(ALL_FAULTS)}")

    @classmethod
    def all(cls, rate: Rate) -> FaultRates:
        """Every fault of a call and of a record at one rate, each drawn for itself."""
        return cls(dict.fromkeys((*CALL_FAULTS, *RECORD_FAULTS), rate))

    def of(self, fault: str, batch_size: int, elapsed_s: float) -> float:
        """The probability of a fault in a call of this size, this long after the first."""
        return _value(self.rates.get(fault, 0.0), batch_size, elapsed_s)


def logistic(intercept: float, slope: float) -> Rate:
    """logit P = intercept + slope * log2 B. Measured: any deviation -8.62, 1.17; a lost item -10.67, 1.28."""
    return lambda batch_size, elapsed_s: 1 / (1 + exp(-intercept - slope * log2(max(batch_size, 1))))


def scaled(share: float, rate: Rate) -> Rate:
    """A share of a rate: one kind among several."""
    return lambda batch_size, elapsed_s: share * _value(rate, batch_size, elapsed_s)


def without(rate: Rate, part: Rate) -> Rate:
    """What is left of a rate without a part of it."""
    return lambda batch_size, elapsed_s: max(
        0.0, _value(rate, batch_size, elapsed_s) - _value(part, batch_size, elapsed_s)
    )


def _value(rate: Rate, batch_size: int, elapsed_s: float) -> float:
    return rate(batch_size, elapsed_s) if callable(rate) else rate


def cliff(at: int, *, below: float = 0.0, above: float = 1.0) -> Rate:
    """One rate for batches smaller than `at`, another from there on. Made up."""
    return lambda batch_size, elapsed_s: above if batch_size >= at else below


def between(start_s: float, end_s: float, rate: Rate, *, otherwise: Rate = 0.0) -> Rate:
    """One rate within a span of time since the first request, another outside it. Made up."""

    def chosen(batch_size: int, elapsed_s: float) -> float:
        return _value(rate if start_s <= elapsed_s < end_s else otherwise, batch_size, elapsed_s)

    return chosen
