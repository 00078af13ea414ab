"""Gold that measures what it should: no record tells its own answer, stands in its own prompt, or counts twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.decide.gold_records import ID_FIELD, Gold
from engine.decide.scores import cohen_kappa
from engine.report import words
from engine.tuning.gold import check_gold
from engine.vocabulary.config import OnBadRecord
from engine.vocabulary.errors import ConfigError, InputError
from engine.vocabulary.task import LABELLED, Example, Task
from engine.vocabulary.values import Input

_NAMES = frozenset({"label", "labels", "output", "answer", "gold", "target"})
"""Under which right answers are kept by custom."""

_TELLS = 0.7
"""Agreement with the right answers beyond chance (Cohen's kappa), from which on a field is no input: a second person's
labels mostly reach it."""
_STANDS_FOR = 0.9
"""The same for values that are no labels but stand for them, such as a number for each."""
_EACH = 10  # records for each such value, below which it may be chance
_TWO = 2  # outputs, with fewer of which there is nothing to tell
_MOST_KEYS = 100  # of an object in a record, that are looked at
_SHOWN = 3

_encode = msgspec.json.Encoder(order="sorted").encode


class Fair(msgspec.Struct, frozen=True, kw_only=True):
    """Gold without what cannot be measured.

    :ivar notes: what was left out and why, for people.
    """

    gold: Gold
    notes: list[str]


def fair_gold(gold: Gold, task: Task, shown: Iterable[Example], *, name: str, on_bad_record: OnBadRecord) -> Fair:
    """The records that may be measured. A second time it has nothing to leave out.

    :param shown: examples that stand in some prompt.
    :raises ConfigError: the task sends every field, and one of them tells the right answer.
    :raises InputError: a text has two right answers and bad records stop; or no record is left.
    """
    _check_fields(gold, task, name)
    gold = _without_conflicts(gold, task)
    check_gold(gold, name=name, on_bad_record=on_bad_record)
    once, notes = [], []
    seen: set[bytes] = set()
    for place, record in enumerate(gold.records):
        text = _text(input_of(record, task))
        if text not in seen:
            once.append(place)
        seen.add(text)
    if len(once) < len(gold.records):
        many = len(gold.records) - len(once)
        notes.append(
            f"{words.plural(many, 'gold record')} {'is' if many == 1 else 'are'} the same as another one, and measured "
            "once"
        )
    in_prompt = _Shown(shown)
    kept = [place for place in once if not in_prompt.holds(input_of(gold.records[place], task))]
    if len(kept) < len(once):
        many = len(once) - len(kept)
        one = many == 1
        notes.append(
            f"{words.plural(many, 'gold record')} {'is an example' if one else 'are examples'} of the task, with the "
            f"right answer in the prompt, and {'is' if one else 'are'} not measured"
        )
    if not kept:
        raise InputError(f"{name} holds no record that could be measured: {'; '.join(notes) or 'all are left out'}")
    return Fair(gold=_only(gold, kept), notes=notes)


def input_of(record: dict[str, Any], task: Task) -> Input:
    """What is sent of a record."""
    sent = {key: value for key, value in record.items() if key in (task.input or record)}
    if task.input is None:
        sent.pop(task.id or ID_FIELD, None)
    only = next(iter(sent.values())) if len(sent) == 1 else None
    return only if isinstance(only, str) else sent


# -- fields that tell the answer --------------------------------------------------------------------------------------


def _check_fields(gold: Gold, task: Task, name: str) -> None:
    """Who names the fields to be sent has decided; who does not sends whatever else the file holds."""
    if task.input is not None:
        return
    fields = list(dict.fromkeys(key for record in gold.records for key in record if key != (task.id or ID_FIELD)))
    if len(fields) < 2:
        return
    telling = [field for field in fields if field.casefold() in _NAMES or _tells(field, gold, task)]
    if not telling:
        return
    quoted = " and ".join(f"'{field}'" for field in telling[:_SHOWN])
    left = [field for field in fields if field not in telling] or ["..."]
    raise ConfigError(
        f"{name}: the task sends every field of a record, and {quoted} beside '{gold.field}' would tell the model the "
        f"right answer; name the fields to be sent in the task: input = {msgspec.json.encode(left).decode()}"
    )


def _tells(field: str, gold: Gold, task: Task) -> bool:
    """Whether it, or what stands in it under one key, tells the answer."""
    column = [record.get(field) for record in gold.records]
    inner = dict.fromkeys(key for value in column if isinstance(value, dict) for key in value)
    columns = [column, *([value.get(key) if isinstance(value, dict) else None for value in column] for key in inner)]
    return any(_column_tells(each, gold, task) for each in columns[: _MOST_KEYS + 1])


def _column_tells(column: Sequence[Any], gold: Gold, task: Task) -> bool:
    """Whether it holds the right output, that of one variable, or what stands for it."""
    filled = [
        (output, _plain(value)) for value, output in zip(column, gold.outputs, strict=True) if value not in (None, "")
    ]
    if len(filled) < min(_SHOWN, len(gold.records)):
        return False
    if task.is_object and _agrees([(_plain(output), value) for output, value in filled]):
        return True
    for name, variable in task.variables.items():
        pairs = [(_plain(output.get(name) if name else output), value) for output, value in filled]
        if _agrees(pairs) or (variable.type in LABELLED and _stands_for(pairs)):
            return True
    return False


def _agrees(pairs: Sequence[tuple[str, str]]) -> bool:
    return cohen_kappa(Counter(pairs)) >= _TELLS


def _stands_for(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether each value goes with one output: a number for each label, or finer labels."""
    outputs: dict[str, Counter[str]] = defaultdict(Counter)
    for output, value in pairs:
        outputs[value][output] += 1
    stands = {value: counts.most_common(1)[0][0] for value, counts in outputs.items()}
    if len(set(stands.values())) < _TWO or len(pairs) < _EACH * len(stands):
        return False
    return cohen_kappa(Counter((output, stands[value]) for output, value in pairs)) >= _STANDS_FOR


def _plain(value: Any) -> str:
    """As people would call it the same: cells of CSV are texts, and labels may differ in case."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = msgspec.json.decode(text)
        except (msgspec.MsgspecError, RecursionError):
            return text.casefold()
        if isinstance(value, str):
            return value.casefold()
    return _encode(value).decode().casefold()


# -- records that stand in the prompt, or twice in the file -----------------------------------------------------------


class _Shown:
    """Inputs of examples. A text is the same whatever its blanks and its case are, and as the only field or not."""

    def __init__(self, examples: Iterable[Example]) -> None:
        inputs = [_bare(example.input) for example in examples]
        self._whole = {_folded(input_) for input_ in inputs}
        self._texts = {_folded(input_) for input_ in inputs if isinstance(input_, str)}

    def holds(self, input_: Input) -> bool:
        """Whether a record is one of them."""
        bare = _bare(input_)
        if _folded(bare) in self._whole:
            return True
        return isinstance(bare, dict) and any(_folded(value) in self._texts for value in bare.values())


def _bare(input_: Input) -> Any:
    """One field is sent as a plain text, in whatever way it was written."""
    return next(iter(input_.values())) if isinstance(input_, dict) and len(input_) == 1 else input_


def _folded(value: Any) -> bytes:
    return _text(value).decode().casefold().encode()


def _text(value: Any) -> bytes:
    """What is the same input has the same: runs of blanks are one blank."""
    return _encode(_squeezed(value))


def _squeezed(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        return {key: _squeezed(inner) for key, inner in value.items()}
    return value


def _without_conflicts(gold: Gold, task: Task) -> Gold:
    """Without the records that are the same text with other right outputs: whichever is right, one is wrong."""
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, record in enumerate(gold.records):
        places[_text(input_of(record, task))].append(place)
    torn = [each for each in places.values() if len({_encode(gold.outputs[place]) for place in each}) > 1]
    if not torn:
        return gold
    dropped = {place for each in torn for place in each}
    problems = [*gold.problems, *(problem for each in torn for problem in _conflicts(gold, each))][:_SHOWN]
    kept = _only(gold, [place for place in range(len(gold.records)) if place not in dropped])
    return msgspec.structs.replace(kept, unusable=gold.unusable + len(dropped), problems=problems)


def _conflicts(gold: Gold, places: Sequence[int]) -> list[str]:
    """One problem for each of the records, all of which are the same text."""
    if not gold.lines:
        return ["the same record stands twice, with different right outputs"] * len(places)
    lines = sorted(gold.lines[place] for place in places)
    others = [*lines[1:], lines[0]]
    return [
        f"line {line}: the same record as line {other}, with different right outputs"
        for line, other in zip(lines, others, strict=True)
    ]


def _only(gold: Gold, places: Sequence[int]) -> Gold:
    return msgspec.structs.replace(
        gold,
        records=[gold.records[place] for place in places],
        outputs=[gold.outputs[place] for place in places],
        lines=[gold.lines[place] for place in places] if gold.lines else [],
    )
