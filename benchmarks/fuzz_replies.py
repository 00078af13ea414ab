"""Fuzzing of replies: the envelope of the provider, then `read_answers` with a task's check.

The right output of every record is known, and no two records of a batch have the same one, so an output that reaches
another id is seen. What holds for an accepted pair (id, output):

- *edits of whole results* (written oddly, spoilt, repeated, reordered, invented, quoted in a draft): the output is the
  record's own. Where two results exchange their ids, which no reader of the compact form can see, it may be the
  other's; in the keyed form the exchange must be found out.
- *edits of the text* (cut, spliced, unquoted...): the text states exactly this pair in the braces of one object. A
  reader of its own, written for this, says so: a scan of tokens from each brace that knows nothing of `decide.answers`.
- a text that is valid JSON is read as a plain parse of it reads.
"""

from __future__ import annotations

import json
import time
from random import Random
from typing import Any

import msgspec

from benchmarks.fuzz_common import edited, packed, unpacked
from benchmarks.fuzz_reader import canonical, stated
from engine.adapters.providers.openai_chat import read_completion
from engine.decide.answers import MAX_TEXT, Reading, read_answers
from engine.decide.outputs import NotAnOutput, output_check
from engine.decide.recovery import judge_reply
from engine.vocabulary.config import Recovery
from engine.vocabulary.task import Field, FieldType, Task
from engine.vocabulary.values import Batch, Completion, Item, Record

LABELS = [
    "red", "green", "blue", "not sure", "Null", "it's", 'a "quoted" one', "{brace}", "[list]", "a,b", "1", "True",
    "rojo", "été", "straße", "红色", "🙂", "back\\slash", "a:b", "x}", "very long label with many words in it",
    "id", "output",
]  # fmt: skip
TASKS = {
    "labels": Task(instructions="?", labels=LABELS),
    "object": Task(
        instructions="?",
        fields={
            "colour": Field(type=FieldType.LABEL, labels=LABELS),
            "count": Field(type=FieldType.INTEGER),
            "words": Field(type=FieldType.STRINGS),
        },
    ),
    "text": Task(
        instructions="?", fields={"note": Field(type=FieldType.STRING), "share": Field(type=FieldType.NUMBER)}
    ),
    "several": Task(instructions="?", labels=LABELS, multiple=True),
}
CHECKS = {name: output_check(task) for name, task in TASKS.items()}
WORDS = (
    "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "seven", "grey", "whales", "sing", "of",
    "rain", "and", "late", "trains",
)  # fmt: skip
MOST_S = 5.0
"""CPU time that a reply may take at most, a huge and hostile one included."""

_encode = msgspec.json.encode
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class Base:
    """A batch that was asked: ids, first words, and the one right output of each."""

    def __init__(self, rng: Random) -> None:
        self.task = rng.choice(("labels", "labels", "labels", "object", "text", "several"))
        self.keyed = rng.random() < 0.3
        count = min(int(rng.paretovariate(0.9)), len(LABELS)) if rng.random() < 0.9 else 20
        salt = "".join(rng.choices(_ALPHABET, k=3))
        ids = [f"{salt}-{number}" for number in range(1, count + 1)]
        self.asked = {id_: f"{' '.join(rng.sample(WORDS, 4))} {number}" for number, id_ in enumerate(ids)}
        labels = rng.sample(LABELS, count)
        self.truth = {
            id_: self._output(label, number) for number, (id_, label) in enumerate(zip(ids, labels, strict=True))
        }
        self.plain = _encode({"results": [self.result(id_) for id_ in ids]}).decode()

    def _output(self, label: str, number: int) -> Any:
        match self.task:
            case "object":
                return {"colour": label, "count": number, "words": [label, "w"]}
            case "text":
                return {"note": f"{label} {number}", "share": number + 0.5}
            case "several":
                return [label]
        return label

    def result(self, id_: str, output: Any = None) -> dict[str, Any]:
        """A result as a model should write it."""
        starts = {"starts": self.asked[id_]} if self.keyed else {}
        return {"id": id_, **starts, "output": self.truth[id_] if output is None else output}


def _spaced(result: dict[str, Any], rng: Random) -> str:
    return json.dumps(result, indent=rng.choice((None, 0, 2)), ensure_ascii=rng.random() < 0.5)


def _backwards(result: dict[str, Any], rng: Random) -> str:
    return json.dumps(dict(reversed(result.items())), ensure_ascii=False)


def _talkative(result: dict[str, Any], rng: Random) -> str:
    why: Any = rng.choice(
        ('a "quoted" {brace}', "{'id': 'x', 'output': 'red'}", '{"id":"k","output":"red"}', "]}", [{}], {"id": 1})
    )
    return json.dumps({"id": result["id"], "why": why, **result})


def _comma(result: dict[str, Any], rng: Random) -> str:
    return json.dumps(result)[:-1] + ",}"


def _python(result: dict[str, Any], rng: Random) -> str:
    return repr(result | {"sure": True, "note": None})


def _raw(result: dict[str, Any], rng: Random) -> str:
    return json.dumps(result | {"why": "@"}).replace("@", "one\ntwo\x01\ud800")


CLEAN = (_spaced, _backwards, _talkative, _comma, _python, _raw)


def _spoilt(result: dict[str, Any], rng: Random) -> str:
    """A result from which nothing can be told."""
    text = json.dumps(result)
    wrong = json.dumps(rng.choice((None, 7, "no label of it", [[1]], {"colour": None}, 1e999)))
    cut = text.index('"output"') + len('"output"')  # no further: what ends a reply could make a whole value of the rest
    return rng.choice((
        text[: rng.randrange(1, cut)], text[1:], json.dumps({"id": result["id"]}),
        f'{{"id": "{result["id"]}", "output": {wrong}}}', f'{text[:-1]}, "output": {wrong}}}',
        f'{text[:-1]}, "id": "other"}}', f'{{"\\u0069d": "other", {text[1:]}', json.dumps(result | {"id": 3}),
        json.dumps(result | {"id": result["id"].replace("-", "x-")}), f'{{"id":{"[" * 5_000},{text[1:]}', "",
    ))  # fmt: skip


CONTAINERS = (
    '{"results":[@]}', "[@]", '```json\n{"results": [@]}\n```',
    'Sure! {Here} "it is":\n{"results":[@]}\nHope {this} helps, {',
    '{"note":"{}","results":[@],"done":true}', '{"results":[@', "@", '{"results": [@]} {"results": []}',
)  # fmt: skip


class Replies:
    """See `benchmarks.fuzz_common.Target`."""

    def __init__(self) -> None:
        self._base: Base | None = None
        self._left = 0
        self._texts = ["{}"] * 64
        self.slowest_s = 0.0
        self.accepted = 0
        self.faults = 0

    def make(self, rng: Random) -> dict[str, Any]:
        """A reply, as bytes of a body that are kept as surrogate-escaped text."""
        if not self._left:
            self._base, self._left = Base(rng), 40
        self._left -= 1
        base = self._base
        assert base is not None  # noqa: S101 - made above
        draw = rng.random()
        exact = draw < 0.4
        text, allowed = _by_results(base, rng) if exact or draw > 0.75 else (base.plain, {})
        if not exact:
            for _ in range(1 + int(rng.random() * 4)):
                text = edited(text, rng.choice(self._texts), rng, huge=draw > 0.9999)
        self._texts[int(rng.random() * 64)] = text[:4000]
        body, whole = _enveloped(text, rng)
        exact &= whole
        return {
            "task": base.task, "keyed": base.keyed, "asked": base.asked, "truth": base.truth, "exact": exact,
            "allowed": allowed, "body": body,
        }  # fmt: skip

    def check(self, case: dict[str, Any]) -> str | None:
        """Read the reply, and look whether every accepted pair is allowed."""
        body = (
            case["body"]
            if isinstance(case["body"], bytes)
            else unpacked(case["body"]).encode("utf-8", "surrogateescape")
        )
        check, asked = CHECKS[case["task"]], case["asked"]
        started = time.process_time()
        outcome = read_completion(body)
        if not isinstance(outcome, Completion):
            self.faults += 1
            return None if len(outcome.message) < 2_000 else "a fault with an endless message"
        reading = read_answers(outcome.text, asked, check, keyed=case["keyed"])
        took_s = time.process_time() - started
        self.slowest_s = max(self.slowest_s, took_s)
        self.accepted += len(reading.answers)
        if "answers" in case and reading.answers != case["answers"]:  # of the corpus only
            return f"read {dict(reading.answers)!r:.300}, and not {case['answers']!r:.300}"
        problem = _unsound(case, outcome, reading) or _wrong(case, outcome.text, reading)
        return problem or (f"{took_s:.1f} s for one reply" if took_s > MOST_S else None)

    def figures(self) -> dict[str, Any]:
        """What is worth telling at the end."""
        return {"accepted": self.accepted, "not completions": self.faults, "slowest_s": round(self.slowest_s, 3)}


def kept(case: dict[str, Any]) -> dict[str, Any]:
    """The case as JSON holds it."""
    return case | {"body": packed(case["body"].decode("utf-8", "surrogateescape"))}


def _by_results(base: Base, rng: Random) -> tuple[str, dict[str, list[Any]]]:
    """A reply of whole results, each written in its own way; and what may be read for an id beside the truth."""
    results = [base.result(id_) for id_ in base.asked]
    allowed: dict[str, list[Any]] = {}
    exchanged: list[dict[str, Any]] = []
    if len(results) > 1 and rng.random() < 0.15:
        exchanged = rng.sample(results, 2)
        exchanged[0]["id"], exchanged[1]["id"] = exchanged[1]["id"], exchanged[0]["id"]
        if not base.keyed:  # the key would give it away
            allowed = {result["id"]: [result["output"]] for result in exchanged}
    pieces = []
    for result in results:
        odd = rng.random()
        write = _spoilt if odd < 0.2 else rng.choice(CLEAN) if odd < 0.6 else None
        pieces.append(_encode(result).decode() if write is None else write(result, rng))
        if odd > 0.97:
            pieces.append(_encode(result).decode())
        elif odd > 0.95 and result not in exchanged:  # said again, and otherwise
            other = rng.choice(results)["output"]
            allowed.setdefault(result["id"], []).append(other)
            pieces.append(_encode(result | {"output": other}).decode())
    if rng.random() < 0.2:
        rng.shuffle(pieces)
    text = rng.choice(CONTAINERS).replace("@", rng.choice((",", ", ", "\n")).join(pieces))
    if rng.random() < 0.1:  # a draft, thought aloud, says something else
        id_, label = rng.choice(list(base.asked)), rng.choice(list(base.truth.values()))
        draft = _encode(base.result(id_, label)).decode()
        text = rng.choice((f"<think>Is it {draft}? No.</think>\n", f"Hm: {draft}\n</think>")) + text
    return text, allowed


_ABSURD: tuple[Any, ...] = (None, -1, 0, 10**12, 2**70, "12", 1.5, True, [], {"prompt_tokens": 3})


def _enveloped(text: str, rng: Random) -> tuple[bytes, bool]:
    """The body of a reply, and whether it holds the text as it is."""
    draw = rng.random()
    content: Any = text
    finish: Any = "stop"
    usage: Any = {"prompt_tokens": 120, "completion_tokens": 30}
    extra: dict[str, Any] = {}
    if draw > 0.85:
        content = rng.choice((text, [{"type": "text", "text": text}], [text, {"text": text}, {"text": 1}], None, 3))
        finish = rng.choice(("stop", "length", "content_filter", None, 7))
        usage = rng.choice(({"prompt_tokens": rng.choice(_ABSURD), "completion_tokens": rng.choice(_ABSURD)}, *_ABSURD))
        extra = rng.choice(({}, {"refusal": "no"}, {"refusal": {}}, {"tool_calls": [{}]}))
    document = {"choices": [{"message": {"content": content, **extra}, "finish_reason": finish}], "usage": usage}
    try:
        body = _encode(document)
    except (UnicodeEncodeError, ValueError, OverflowError):  # a lone surrogate, as some servers send it
        body = json.dumps(document).encode() if rng.random() < 0.5 else _surrogate_bytes(document)
    if draw > 0.95:
        other = bytes([int(rng.random() * 256)])
        for _ in range(1 + int(rng.random() * 3)):
            at = int(rng.random() * (len(body) + 1))
            match int(rng.random() * 4):
                case 0:
                    body = body[:at] + other + body[at + 1 :]
                case 1:
                    body = body[:at]
                case 2:
                    body = body[:at] + body[max(0, at - 30) :]
                case _:
                    body = body[:at] + b"[" * (20_000 if rng.random() < 0.001 else 3) + body[at:]
    return body, draw <= 0.95


def _surrogate_bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


# -- what is looked at -------------------------------------------------------------------------------------------------


def _unsound(case: dict[str, Any], completion: Completion, reading: Reading) -> str | None:
    """What never holds of a sound reading, whatever the reply was."""
    asked, check = case["asked"], CHECKS[case["task"]]
    if not reading.answers.keys() <= asked.keys() or not reading.defects.keys() <= asked.keys():
        return "an id that was not asked"
    if reading.answers.keys() & reading.defects.keys():
        return "an answer with a defect"
    usage = completion.usage
    if usage is not None and not (0 < usage.input_tokens < 10**9 and 0 <= usage.output_tokens < 10**9):
        return f"absurd usage believed: {usage}"
    for output in reading.answers.values():
        if check(output) != output or msgspec.json.decode(_encode(output)) != output:
            return f"an output that does not stay what it is: {output!r:.200}"
    items = {id_: _item(id_) for id_ in asked}
    verdict = judge_reply(Batch(items=tuple(items.values())), items, reading, completion, Recovery())
    ends = [answer.item.record.key for answer in verdict.accepted] + [one.item.record.key for one in verdict.failed]
    ends += [item.record.key for child in verdict.children for item in child.items]
    return None if sorted(ends) == sorted(asked) else f"records lost or doubled by the verdict: {sorted(ends)}"


_ITEMS: dict[str, Item] = {}


def _item(id_: str) -> Item:
    if len(_ITEMS) > 1_000:
        _ITEMS.clear()
    if id_ not in _ITEMS:
        record = Record(position=0, line=1, id=id_, key=id_, input="", digest=b"")
        _ITEMS[id_] = Item(record=record, accepted_at_s=0.0)
    return _ITEMS[id_]


def _wrong(case: dict[str, Any], text: str, reading: Reading) -> str | None:
    """The first wrong assignment."""
    said: set[tuple[str, bytes]] | None = None
    for id_, output in reading.answers.items():
        if output == case["truth"][id_]:
            continue
        if case["exact"]:
            if output not in case["allowed"].get(id_, ()):
                return f"wrong assignment: {id_} -> {output!r:.80}, which is another record's"
            continue
        said = stated(text[:MAX_TEXT], CHECKS[case["task"]]) if said is None else said
        if (id_, canonical(output)) not in said:
            return f"wrong assignment: {id_} -> {output!r:.80}, which no object of the reply states"
    return _unlike_a_parse(case, text, reading)


def _unlike_a_parse(case: dict[str, Any], text: str, reading: Reading) -> str | None:
    """A reply that is one JSON document with results reads as a plain parse of it."""
    if not text.startswith('{"results":[') or case["keyed"] or len(text) > 20_000:
        return None
    try:
        document = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None
    if document.keys() & {"id", "output"} or not _has_distinct_keys(text):
        return None
    check = CHECKS[case["task"]]
    values: dict[str, Any] = {}
    bad: set[str] = set()
    for result in document["results"] if isinstance(document["results"], list) else ():
        if not isinstance(result, dict) or not {"id", "output"} <= result.keys():
            continue
        if not isinstance(result["id"], str) or result["id"] not in case["asked"]:
            continue
        try:
            output = check(result["output"])
        except NotAnOutput:
            bad.add(result["id"])
            continue
        if values.setdefault(result["id"], output) != output:
            bad.add(result["id"])
    expected = {id_: output for id_, output in values.items() if id_ not in bad}
    return None if reading.answers == expected else f"read {reading.answers!r:.300}, a parse says {expected!r:.300}"


def _has_distinct_keys(text: str) -> bool:
    doubled = False

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubled
        made = dict(pairs)
        doubled |= len(made) != len(pairs)
        return made

    try:
        json.loads(text, object_pairs_hook=hook)
    except (ValueError, RecursionError):
        return False
    return not doubled
