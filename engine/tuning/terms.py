"""What asking takes besides the records: from the prompt as it will be sent, and from calls of an earlier run."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.adapters.measured_calls import MeasuredCall
from engine.decide.estimates import CALL_TOKENS
from engine.decide.forecast import Latency, Terms
from engine.decide.line_fit import fit_line
from engine.decide.prompts import Prompt, first_words, request_ids
from engine.decide.reasoning import SCATTER, WORTH
from engine.vocabulary.task import LABELLED, Field, FieldType, Task

_TEXT_TOKENS = 60  # of a free text or a list, where no example shows one
_SALT = "k3f"
_REASON = "the words of this input speak for it and nothing else"
_LEAST_CALLS = 3  # before which nothing is learned from them
SCATTER_WEIGHT = 8.0
"""Calls that the scatter of reasoning is believed for before it is known, as `decide.line` does in a run."""
_WORTH_TOKENS = 40.0  # of output, that a request takes as long for besides: .3 to .5 s at 80 to 120 tokens a second
_WILDEST = 2.0  # scatter of latencies that a run is played through with
_STILL = 1.2  # times as many at once in the later half of the calls: the window was still on its way up
_HURRY = 1.3  # times the pace of the limits: faster than that, they were what bound
_SETTLED_CALLS = 50  # before which the number in flight is still on its way up

UNKNOWN_RATIO = 1.09
"""A model's tokens for one of ours, where its tokenizer is another. Measured on English: SmolLM2 1.09."""

Count = Callable[[str], int]


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What calls of an earlier run taught.

    :ivar calls: whole ones that were looked at; `matched` of them held records of this corpus, and gave the ratio.
    :ivar sizes: records that they held, from least to most.
    """

    calls: int
    matched: int
    sizes: tuple[int, int]


def expected_terms(task: Task, prompt: Prompt, count: Count, *, exact: bool) -> Terms:
    """Before anything is known of the endpoint: tokens of the prompt and of a reply.

    Labels are taken for equally frequent, or as frequent as in the task's examples where it has ten and more.

    :param exact: the model's tokens are the ones that are counted.
    """
    ratio = 1.0 if exact else UNKNOWN_RATIO
    outputs = _outputs(task)
    starts = {"starts": _starts(task)} if prompt.form == "keyed" else {}
    if task.reason:
        starts["why"] = next((example.why for example in task.examples if example.why), _REASON)
    sizes = [count(_result(starts, output)) + 1 for output in outputs]
    return Terms(
        static_tokens=count(prompt.system) + CALL_TOKENS,
        output_call=ratio * count('{"results":[]}'),
        output_record=ratio * (statistics.fmean(sizes) + _unknown_tokens(task)),
        output_deviation=ratio * statistics.pstdev(sizes),
        input_ratio=ratio,
    )


def learned_terms(
    terms: Terms, calls: Sequence[MeasuredCall], found: Mapping[bytes, int]
) -> tuple[Terms, Learned | None]:
    """The terms, corrected by what an earlier run of this task on this model measured.

    :param found: entry tokens of the calls' records, by digest, as far as they are in this corpus.
    """
    if len(calls) < _LEAST_CALLS:
        return terms, None
    matched = [call for call in calls if call.digests and all(digest in found for digest in call.digests)]
    if len(matched) >= _LEAST_CALLS:
        ours = sum(terms.static_tokens + sum(found[digest] for digest in call.digests) for call in matched)
        terms = msgspec.structs.replace(terms, input_ratio=sum(call.input_tokens for call in matched) / ours)
    said = [(each.size, float(each.output_tokens - each.reasoning_tokens)) for each in calls]
    call, record = _line(said, terms.output_call)
    spread = [output / size - record - call / size for size, output in said]
    terms = msgspec.structs.replace(
        terms,
        output_call=call,
        output_record=record,
        output_deviation=statistics.pstdev(spread),
    )
    terms = _with_reasoning(terms, calls)
    terms = msgspec.structs.replace(terms, latency=_latency(terms, calls))
    sizes = [each.size for each in calls]
    return terms, Learned(calls=len(calls), matched=len(matched), sizes=(min(sizes), max(sizes)))


def _with_reasoning(terms: Terms, calls: Sequence[MeasuredCall]) -> Terms:
    """What a request thinks and what a record adds; where all calls are of one size, as is believed of others.

    The scatter is as a run will believe it after these calls: it is what a limit on tokens charges for. Of twenty calls
    by themselves it is mostly too small: the wildest thoughts are rare.
    """
    if not any(each.reasoning_tokens for each in calls):
        return terms
    line = fit_line([(float(each.size), float(each.reasoning_tokens)) for each in calls], worth=WORTH)
    return msgspec.structs.replace(
        terms,
        reasoning_call=line.base,
        reasoning_record=line.each,
        reasoning_scatter=line.scatter(before=SCATTER, weight=SCATTER_WEIGHT),
    )


def _latency(terms: Terms, calls: Sequence[MeasuredCall]) -> Latency:
    """By the tokens that are put out, thought or said: they take the time, and vary where sizes do not."""
    said = fit_line([(max(1.0, float(each.output_tokens)), each.latency_s) for each in calls], worth=_WORTH_TOKENS)
    call, record = terms.output_call + terms.reasoning_call, terms.output_record + terms.reasoning_record
    made = Latency(base_s=said.base + said.each * call, per_record_s=said.each * record, token_s=said.each)
    off = [each.latency_s / max(1e-9, made.of(each.size)) - 1 for each in calls]
    return msgspec.structs.replace(made, scatter=min(_WILDEST, math.sqrt(statistics.fmean(one * one for one in off))))


def with_reasoning(terms: Terms, *, call: float, record: float) -> Terms:
    """The terms of a model that thinks so many tokens a request and a record, and takes its time for them."""
    latency = terms.latency
    if latency is not None:
        more, each = call - terms.reasoning_call, record - terms.reasoning_record
        latency = msgspec.structs.replace(
            latency,
            base_s=max(0.0, latency.base_s + latency.token_s * more),
            per_record_s=max(0.0, latency.per_record_s + latency.token_s * each),
        )
    return msgspec.structs.replace(terms, reasoning_call=call, reasoning_record=record, latency=latency)


def in_flight(calls: Sequence[MeasuredCall], *, every_s: float = 0.0) -> int | None:
    """The most requests at once that the endpoint bore; None where that was not what held the run.

    A run begins with two: of few calls, or of calls that were still becoming more, nobody knows. Where they came about
    as fast as the limits allow, it was these.

    :param every_s: seconds from one such call to the next that the limits allow.
    """
    if len(calls) < _SETTLED_CALLS:
        return None
    half = len(calls) // 2
    first, last = _most_at_once(calls[:half]), _most_at_once(calls[half:])
    apart_s = (calls[-1].sent_at - calls[half].sent_at) / max(1, len(calls) - half - 1)
    if last > _STILL * first or apart_s < _HURRY * every_s:
        return None
    return max(first, last)


def _most_at_once(calls: Sequence[MeasuredCall]) -> int:
    changes = sorted(change for call in calls for change in ((call.sent_at, 1), (call.sent_at + call.latency_s, -1)))
    return max(itertools.accumulate(change for _, change in changes))


def _line(points: Sequence[tuple[int, float]], intercept: float) -> tuple[float, float]:
    """Least squares of value = a + b size, neither below zero; `intercept` is a where one size cannot tell."""
    sizes, values = [float(size) for size, _ in points], [value for _, value in points]
    if len(set(sizes)) == 1:
        return intercept, max(0.0, statistics.fmean(values) - intercept) / sizes[0]
    slope, start = statistics.linear_regression(sizes, values)
    if slope <= 0:
        return statistics.fmean(values), 0.0
    if start < 0:
        return 0.0, sum(map(math.prod, zip(sizes, values, strict=True))) / sum(size * size for size in sizes)
    return start, slope


def _result(starts: Mapping[str, str], output: Any) -> str:
    return msgspec.json.encode({"id": request_ids(_SALT, 10)[-1], **starts, "output": output}).decode()


def _starts(task: Task) -> str:
    return first_words(task.examples[0].input) if task.examples else "the first words of it"


def _outputs(task: Task) -> list[Any]:
    """Outputs as they may come: the examples' own where they are many, else every label once."""
    if len(task.examples) >= 10 or (task.examples and not _all_labelled(task)):
        return [example.output for example in task.examples]
    columns = {name: _values(field, task.abstain) for name, field in task.variables.items()}
    rows = max(map(len, columns.values()))
    made = [{name: values[row % len(values)] for name, values in columns.items()} for row in range(rows)]
    return made if task.is_object else [row[""] for row in made]


def _values(field: Field, abstain: str | None) -> list[Any]:
    if field.type in LABELLED:
        labels: list[Any] = list(field.labels)
        return [[label] for label in labels] if field.type is FieldType.LABELS else labels
    plain: dict[FieldType, list[Any]] = {
        FieldType.BOOLEAN: [True, False],
        FieldType.INTEGER: [10],
        FieldType.NUMBER: [0.5],
        FieldType.STRINGS: [[]],
    }
    return plain.get(field.type, [""])


def _all_labelled(task: Task) -> bool:
    return all(field.type not in (FieldType.STRING, FieldType.STRINGS) for field in task.variables.values())


def _unknown_tokens(task: Task) -> float:
    """Of texts, where no example shows how long they are."""
    if task.examples:
        return 0.0
    texts = (FieldType.STRING, FieldType.STRINGS)
    return float(_TEXT_TOKENS * sum(field.type in texts for field in task.variables.values()))
