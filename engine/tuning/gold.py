"""Records whose right output is known, as a search uses them; the run uses them as well, see `decide.gold_records`."""

from __future__ import annotations

from engine.decide.gold_records import Gold, read_gold
from engine.vocabulary.config import OnBadRecord
from engine.vocabulary.errors import InputError

__all__ = ["Gold", "check_gold", "left_out", "read_gold"]


def check_gold(gold: Gold, *, name: str, on_bad_record: OnBadRecord) -> None:
    """As a run does with the records of its gold.

    :raises InputError: some cannot be used, and bad records stop.
    """
    if gold.unusable and on_bad_record == "stop":
        bad = "1 bad gold record" if gold.unusable == 1 else f"{gold.unusable:,} bad gold records"
        more = f"\n  and {gold.unusable - len(gold.problems):,} more" if gold.unusable > len(gold.problems) else ""
        raise InputError(
            f"{name} has {bad} of {gold.unusable + len(gold.records):,}; nothing was sent.\n  "
            + "\n  ".join(gold.problems)
            + f"{more}\nMend the file, or go on without them: --on-bad-record fail-record"
        )


def left_out(gold: Gold) -> str | None:
    """How many records are left out, and why; None where all can be used."""
    if not gold.unusable:
        return None
    more = "; ..." if gold.unusable > len(gold.problems) else ""
    of = f"{gold.unusable:,} of {gold.unusable + len(gold.records):,}"
    return f"{of} gold records {'is' if gold.unusable == 1 else 'are'} left out ({'; '.join(gold.problems)}{more})"
