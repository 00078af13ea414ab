"""What the endpoint of the state machine may do to a request, and what the engine must then have on its books."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.testing.scripted import DrivenRequest, Outcome, RecordedRequest, ScriptedReply, chat_reply, error_reply
from engine.vocabulary.task import Field, FieldType, Task

TEXTS = 24
"""Texts that records are made of, each with a label that no other has."""


def text_of(number: int) -> str:
    """Every third begins like its neighbours, so that the keyed form cannot tell them apart."""
    begins = "one and the same beginning" if number % 3 == 0 else f"text {number * 7919} of the pool"
    return f"{begins}, and it ends with {number}"


_SIDE = 40


def make_tasks() -> dict[str, Task]:
    """Three tasks over the same texts, in each of which a text has an answer that no other has: a label, a digest as a
    free string, and a pair of labels.
    """
    digest = Field(type=FieldType.STRING, description="The digest.")
    halves = {name: Field(labels=[f"{name}{number}" for number in range(_SIDE)]) for name in ("row", "column")}
    return {
        "labels": Task(instructions="Task labels. Name it.", labels=[label_of(text_of(n)) for n in range(TEXTS)]),
        "digests": Task(instructions="Task digests. Give the digest.", fields={"digest": digest}),
        "pairs": Task(instructions="Task pairs. Give the place.", fields=halves),
    }


def label_of(text: str) -> str:
    """The label that only this text can have."""
    return f"ends-{text.rpartition(' ')[2]}"


def truth(task: str, text: str) -> Any:
    """The one right output."""
    if task == "labels":
        return label_of(text)
    if task == "digests":
        return {"digest": hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}
    row, column = divmod(int(text.rpartition(" ")[2]), _SIDE)
    return {"row": f"row{row}", "column": f"column{column}"}


@dataclass(frozen=True)
class Move:
    """One thing that an endpoint does. `pick` chooses the records, places or seconds that it is done to."""

    kind: str
    pick: int = 0

    def __repr__(self) -> str:
        return f"{self.kind}/{self.pick}"


@dataclass(frozen=True)
class Booked:
    """What the store must hold of a call that was ended so.

    :ivar tokens: input and output as the endpoint counted them; None where it did not say.
    :ivar unconfirmed: it may be billed though nothing came back.
    """

    status: int
    tokens: tuple[int, int] | None = None
    estimated: bool = False
    unconfirmed: bool = False


UNANSWERED = Booked(status=0, tokens=(0, 0), unconfirmed=True)


def task_of(request: RecordedRequest) -> str:
    """Which task a request is of."""
    system: str = request.document["messages"][0]["content"]
    return system.removeprefix("Task ").partition(".")[0]


def is_keyed(request: RecordedRequest) -> bool:
    """Whether results are to repeat the first words of their input."""
    return '"starts"' in request.document["messages"][0]["content"]


Results = list[dict[str, Any]]


def right_results(request: RecordedRequest) -> Results:
    """The honest results."""
    task, keyed = task_of(request), is_keyed(request)
    return [
        {
            "id": item["id"],
            **({"starts": _starts(item["input"])} if keyed else {}),
            "output": truth(task, item["input"]),
        }
        for item in request.items
    ]


def _starts(text: str) -> str:
    return " ".join(text.split()[:5])


# -- replies with status 200 -----------------------------------------------------------------------------------


def _masked(results: Results, pick: int) -> list[bool]:
    return [bool(pick >> (index % 8) & 1) for index in range(len(results))]


def _dropped(results: Results, pick: int, other: Results) -> Results:
    return [result for result, gone in zip(results, _masked(results, pick), strict=True) if not gone]


def _repeated(results: Results, pick: int, other: Results) -> Results:
    return [*results, *_dropped(results, pick, other)]


def _contradicted(results: Results, pick: int, other: Results) -> Results:
    """Some ids a second time, with the output of a neighbour."""
    outputs = [result["output"] for result in results]
    second = [result | {"output": outputs[index - 1]} for index, result in enumerate(results)]
    return [*results, *_dropped(second, pick, other)]


def _reversed(results: Results, pick: int, other: Results) -> Results:
    turn = pick % max(1, len(results))
    return [*results[turn:], *results[:turn]][::-1]


def _foreign_ids(results: Results, pick: int, other: Results) -> Results:
    mask = _masked(results, pick)
    return [result | ({"id": f"0zz-{n}"} if mask[n] else {}) for n, result in enumerate(results)][::-1]


def _others_ids(results: Results, pick: int, other: Results) -> Results:
    """Our outputs under the ids of another batch."""
    if not other:
        return []
    return [result | {"id": other[n % len(other)]["id"]} for n, result in enumerate(results)][::-1]


def _mixed(results: Results, pick: int, other: Results) -> Results:
    """Some of ours, and another batch's whole reply."""
    return [*other, *_dropped(results, pick, other)]


def _without_ids(results: Results, pick: int, other: Results) -> Results:
    return [{key: value for key, value in result.items() if key != "id"} for result in results][::-1]


def _swapped(results: Results, pick: int, other: Results) -> Results:
    """Answers under each other's ids. Only the keyed form can see that: its key goes with its answer."""
    if not all("starts" in result for result in results):
        return results
    turned = [*results[1:], *results[:1]]
    return [taken | {"id": result["id"]} for result, taken in zip(results, turned, strict=True)]


def _invalid(results: Results, pick: int, other: Results) -> Results:
    mask = _masked(results, pick)
    wrong: Sequence[Any] = (None, 7, "no such label", [], {})
    made = []
    for number, result in enumerate(results):
        output = wrong[pick % len(wrong)]
        if isinstance(result["output"], dict):
            output = result["output"] | {next(iter(result["output"])): wrong[pick % 2]}
        made.append(result | ({"output": output} if mask[number] else {}))
    return made


_EDITS: Mapping[str, Callable[[Results, int, Results], Results]] = {
    "honest": lambda results, pick, other: results,
    "drop": _dropped,
    "repeat": _repeated,
    "contradict": _contradicted,
    "reorder": _reversed,
    "foreign-ids": _foreign_ids,
    "others-ids": _others_ids,
    "others-whole": lambda results, pick, other: other,
    "mixed": _mixed,
    "without-ids": _without_ids,
    "swap": _swapped,
    "invalid": _invalid,
}


def _json(results: Results) -> str:
    return json.dumps({"results": results})


def _draft(results: Results) -> str:
    """Wrong answers thought aloud, before the right ones."""
    turned = [*results[1:], *results[:1]]
    drafts = [result | {"output": other["output"]} for result, other in zip(results, turned, strict=True)]
    return f"<think>{_json(drafts)}</think>{_json(results)}"


_WORDINGS: Mapping[str, Callable[[Results, int], str]] = {
    "fence": lambda results, pick: f"Here you are:\n```json\n{_json(results)}\n```\nDone.",
    "think": lambda results, pick: _draft(results),
    "python": lambda results, pick: repr({"results": results}).replace("}]", "},]"),
    "lines": lambda results, pick: "\n".join(json.dumps(result) for result in results),
    "cut-unsaid": lambda results, pick: _json(results)[: len(_json(results)) * (pick % 16) // 16],
    "prose": lambda results, pick: "I cannot say. {" * (1 + pick % 3),
    "empty": lambda results, pick: "",
}

_STATUSES: Mapping[str, Callable[[int], ScriptedReply]] = {
    "429": lambda pick: error_reply(429, "slow down"),
    "429-after": lambda pick: error_reply(429, "slow down", headers={"Retry-After": str(pick % 8)}),
    "429-tokens": lambda pick: error_reply(429, "Rate limit reached on tokens per min (TPM). Try again in 900ms"),
    "500": lambda pick: error_reply(500, "broken"),
    "503-after": lambda pick: error_reply(503, "busy", headers={"Retry-After": str(pick % 40)}),
    "400": lambda pick: error_reply(400, "bad request"),
    "400-format": lambda pick: error_reply(
        400, "response_format json_schema is not supported", param="response_format"
    ),
    "400-filter": lambda pick: error_reply(400, "flagged", code="content_filter"),
    "400-context": lambda pick: error_reply(400, "maximum context length", code="context_length_exceeded"),
    "401": lambda pick: error_reply(401, "no such key"),
    "429-quota": lambda pick: error_reply(429, "pay first", code="insufficient_quota"),
    "302": lambda pick: ScriptedReply(status=302, headers={"Location": "http://elsewhere/"}),
}

_BROKEN: Mapping[str, Callable[[], BaseException]] = {
    "reset": lambda: ConnectionResetError("reset"),
    "incomplete": lambda: asyncio.IncompleteReadError(b"{", 100),
    "timeout": lambda: TimeoutError("timed out on the way"),
    "refused": lambda: ConnectionRefusedError("refused"),
}

MILD = ("honest", "drop", "repeat", "reorder", "fence", "foreign-ids", "no-usage")
HARSH = (*_EDITS, *_WORDINGS, *_STATUSES, *_BROKEN, "cut", "refusal", "no-usage", "absurd-usage", "html", "500-inside")
FATAL = ("401", "429-quota", "302")
LYING = ("contradict", "others-ids", "others-whole", "mixed", "swap", "think", "foreign-ids", "without-ids")
KINDS = (*MILD, *LYING, *(kind for kind in HARSH if kind not in FATAL), *MILD, *LYING)
"""What is drawn from; what ends a run at once is drawn apart, or no run would come far."""


def outcome_of(driven: DrivenRequest, move: Move, other: DrivenRequest | None) -> tuple[Outcome, Booked]:
    """The outcome that a move makes of a request.

    :param other: another request, earlier or waiting at the same time, whose honest reply may be mixed in.
    """
    request, kind, pick = driven.request, move.kind, move.pick
    if kind in _STATUSES:
        reply = _STATUSES[kind](pick)
        return reply, Booked(status=reply.status, tokens=(0, 0))
    if kind in _BROKEN:
        return _BROKEN[kind](), Booked(status=0, tokens=(0, 0), unconfirmed=kind != "refused")
    if kind == "html":
        return ScriptedReply(body=b"<html>welcome</html>"), Booked(status=200, tokens=(0, 0), unconfirmed=True)
    if kind == "500-inside":
        body = b'{"error": {"code": 500, "message": "upstream broke"}}'
        return ScriptedReply(body=body), Booked(status=500, tokens=(0, 0))
    results = right_results(request)
    theirs = right_results(other.request) if other is not None else []
    if kind in _EDITS:
        return _completed(request, _json(_EDITS[kind](results, pick, theirs)))
    if kind in _WORDINGS:
        return _completed(request, _WORDINGS[kind](results, pick))
    text = _json(results)
    if kind == "cut":
        return _completed(request, text[: len(text) * (pick % 17) // 16], finish_reason="length")
    if kind == "refusal":
        return _completed(request, None, refusal="I would rather not.")
    if kind == "no-usage":
        return chat_reply(text, prompt_tokens=None), Booked(status=200, estimated=True)
    assert kind == "absurd-usage"
    absurd = (-5, 10**15)[pick % 2]
    return chat_reply(text, prompt_tokens=absurd), Booked(status=200, estimated=True)


def _completed(
    request: RecordedRequest, content: str | None, *, finish_reason: str = "stop", refusal: str | None = None
) -> tuple[Outcome, Booked]:
    prompt = sum(len(message["content"]) for message in request.document["messages"]) // 4
    completion = len(content or "") // 4
    reply = chat_reply(
        content, prompt_tokens=prompt, completion_tokens=completion, finish_reason=finish_reason, refusal=refusal
    )
    return reply, Booked(status=200, tokens=(prompt, completion))
