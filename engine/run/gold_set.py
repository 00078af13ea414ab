"""Records with known answers, read and checked before anything is sent. See docs/design/gold.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.decide.gold_pool import MOST_TOKENS, GoldEntry
from engine.decide.gold_records import Gold, read_gold
from engine.decide.gold_tally import judged_variables
from engine.run.readers import Prepare
from engine.vocabulary.config import OnBadRecord
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.task import Task
from engine.vocabulary.values import BadRecord, Input, RawRecord, Record

_encode = msgspec.json.Encoder(order="sorted").encode


class GoldSet(msgspec.Struct, frozen=True, kw_only=True):
    """What may ride in the batches of a run.

    :ivar unusable: records of the file that are left out; `problems` are the first of them, in words.
    :ivar keeps_answers: every answer is kept, for whoever wants to see them.
    """

    entries: list[GoldEntry]
    unusable: int = 0
    problems: list[str] = []
    keeps_answers: bool = False


def make_gold_set(
    raws: Iterable[RawRecord], task: Task, prepare: Prepare, *, name: str, field: str | None = None,
    on_bad_record: OnBadRecord = "stop", keeps_answers: bool = False,
) -> GoldSet:  # fmt: skip
    """Read gold for a run.

    :param prepare: a function of its own, that has seen no record of the input.
    :param field: that holds what is right; see `read_gold`.
    :raises ConfigError: the field is not there, or gold cannot judge the task.
    :raises InputError: a record is bad and bad records stop the run; or none is left.
    """
    judged_variables(task)
    gold = read_gold(raws, task, name=name, field=field, seed=0)
    entries, problems = _entries(gold, task, prepare)
    unusable = gold.unusable + len(problems)
    shown = [*gold.problems, *problems][:3]
    if unusable and on_bad_record == "stop":
        raise InputError(_listed(name, unusable, shown))
    if not entries:
        raise InputError(f"{name} holds no record that could be used; {shown[0]}")
    return GoldSet(entries=entries, unusable=unusable, problems=shown, keeps_answers=keeps_answers)


def check_fields(gold: GoldSet, records: Sequence[Record]) -> None:
    """Refuse gold that a model could tell from the records of the input by what is sent of it.

    :param records: the first of the input.
    :raises ConfigError: none of the gold has the fields of any of these records.
    """
    shapes = {shape(record.input) for record in records}
    if records and not any(shape(entry.record.input) in shapes for entry in gold.entries):
        ours, theirs = gold.entries[0].record.input, records[0].input
        raise ConfigError(
            f"of the gold {_fields(ours)} would be sent, and of the input {_fields(theirs)}: the model could tell "
            'them apart; name the fields to be sent in the task: input = ["..."]'
        )


def shape(input_: Input) -> frozenset[str] | None:
    """The fields that are sent; None for a plain text."""
    return frozenset(input_) if isinstance(input_, dict) else None


def _fields(input_: Input) -> str:
    return f"the fields {', '.join(sorted(input_))}" if isinstance(input_, dict) else "one field"


def _entries(gold: Gold, task: Task, prepare: Prepare) -> tuple[list[GoldEntry], list[str]]:
    examples = {_encode(_bare(example.input)) for example in task.examples}
    entries: list[GoldEntry] = []
    problems: list[str] = []
    seen: dict[bytes, int] = {}
    for data, output, line in zip(gold.records, gold.outputs, gold.lines, strict=True):
        record = prepare(RawRecord(position=len(entries), line=line, data=data))
        if isinstance(record, BadRecord):
            problems.append(f"line {line}: {record.message}")
        elif _encode(_bare(record.input)) in examples:
            problems.append(f"line {line}: it is one of the task's examples, so its answer is in every request")
        elif record.input_tokens > MOST_TOKENS:
            takes = f"it takes some {record.input_tokens:,} tokens, and {MOST_TOKENS:,} may ride along"
            problems.append(f"line {line}: {takes}")
        elif record.digest in seen:
            problems.append(f"line {line}: it is the same as line {seen[record.digest]}")
        else:
            seen[record.digest] = line
            entries.append(GoldEntry(record=record, output=output, line=line))
    return entries, problems


def _bare(input_: Input) -> Any:
    """One field is sent as a plain text, in whatever way it was written."""
    return next(iter(input_.values())) if isinstance(input_, dict) and len(input_) == 1 else input_


def _listed(name: str, unusable: int, shown: list[str]) -> str:
    more = f"\n  and {unusable - len(shown):,} more" if unusable > len(shown) else ""
    bad = "1 bad gold record" if unusable == 1 else f"{unusable:,} bad gold records"
    return (
        f"{name} has {bad}; nothing was sent.\n  " + "\n  ".join(shown) + more + "\nMend the file, or go on without "
        'them: on_bad_record="fail-record" (--on-bad-record fail-record)'
    )
