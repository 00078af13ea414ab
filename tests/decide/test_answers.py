"""Reading replies: whatever happens to a reply, no id gets an output that the model did not give it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide.answers import MAX_TEXT, key_fits, read_answers
from engine.decide.outputs import NotAnOutput, output_check
from engine.vocabulary.task import Field, FieldType, Task

LABELS = ["red", "green", "blue"]
CHECK = output_check(Task(instructions="Say the colour.", labels=LABELS))
SALT = "k3f"
labels = st.sampled_from(LABELS)
truths = st.lists(labels, min_size=1, max_size=12).map(lambda said: {f"{SALT}-{n}": s for n, s in enumerate(said, 1)})


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def read(text: str, ids: Any, **options: Any) -> Any:
    return read_answers(text, dict.fromkeys(ids, ""), CHECK, **options)


def reply(truth: dict[str, str]) -> str:
    return dump({"results": [{"id": id_, "output": output} for id_, output in truth.items()]})


CLEAN = {
    "plain": lambda id_, output: dump({"id": id_, "output": output}),
    "spaced": lambda id_, output: json.dumps({"id": id_, "output": output}, indent=2),
    "other order": lambda id_, output: dump({"output": output, "id": id_}),
    "extra keys": lambda id_, output: dump({"id": id_, "why": 'a "quoted" {brace}', "output": output, "n": [1, {}]}),
    "other case": lambda id_, output: dump({"id": id_, "output": f" {output.upper()} "}),
    "comma": lambda id_, output: dump({"id": id_, "output": output})[:-1] + " , }",
    "comma in text": lambda id_, output: dump({"id": id_, "output": output})[:-1] + ',"why":"x,} \\" ,]",}',
    "python": lambda id_, output: repr({"id": id_, "sure": True, "why": 'it\'s "so"', "none": None, "output": output}),
    "raw newline": lambda id_, output: f'{{"id":"{id_}","why":"one\ntwo\tthree\x01","output":"{output}"}}',
    "surrogate": lambda id_, output: f'{{"id":"{id_}","why":"\ud800 \\ud801","output":"{output}"}}',
}
"""Ways to write a result from which it can be told what was answered."""

SPOILT = {
    "cut": lambda id_, output: dump({"id": id_, "output": output})[:-3],
    "no brace": lambda id_, output: dump({"id": id_, "output": output})[:-1],
    "no opening": lambda id_, output: dump({"id": id_, "output": output})[1:],
    "off label": lambda id_, output: dump({"id": id_, "output": output + "dish"}),
    "null": lambda id_, output: dump({"id": id_, "output": None}),
    "list": lambda id_, output: dump({"id": id_, "output": [output]}),
    "number": lambda id_, output: dump({"id": id_, "output": 1}),
    "no output": lambda id_, output: dump({"id": id_}),
    "twin outputs": lambda id_, output: f'{{"id":"{id_}","output":"{output}","output":"red"}}',
    "twin ids": lambda id_, output: f'{{"id":"other","output":"{output}","id":"{id_}"}}',
    "escaped twin": lambda id_, output: f'{{"\\u0069d":"other","id":"{id_}","output":"{output}"}}',
    "deep": lambda id_, output: f'{{"id":"{id_}","why":{"[" * 20_000},"output":"{output}"}}',
    "stale id": lambda id_, output: dump({"id": id_.replace(SALT, "zzz"), "output": output}),
    "number id": lambda id_, output: dump({"id": int(id_.rpartition("-")[2]), "output": output}),
    "two outputs": lambda id_, output: "".join(dump({"id": id_, "output": label}) for label in LABELS),
    "dropped": lambda id_, output: "",
}
"""Ways to write one from which it cannot: its id must go without an answer, and no other must suffer."""

CONTAINERS = {
    "document": '{{"results":[{}]}}',
    "bare list": "[{}]",
    "fenced": '```json\n{{"results": [{}]}}\n```',
    "prose": 'Sure! Here {{are}} the "results":\n{{"results":[{}]}}\nHope that {{helps}}, {{',
    "other key first": '{{"note":"{{}}","results":[{}],"done":true}}',
    "thought": '<think>Is {{"id":"k3f-1","output":"green"}} right? No.</think>\n{{"results":[{}]}}',
    "thought, not opened": 'hm {{"id":"k3f-1","output":"green"}}\n</think>{{"results":[{}]}}',
    "never closed": '{{"results":[{}',
}


@given(st.data(), truths, st.sampled_from(sorted(CONTAINERS)))
@settings(max_examples=250, deadline=None)
def test_what_was_untouched_is_answered_and_nothing_else(
    data: st.DataObject, truth: dict[str, str], container: str
) -> None:
    """In any order, wrapping and mixture of slips: answers are a subset of the truth, and hold all that can be told."""
    fates = {id_: data.draw(st.sampled_from([*CLEAN, *CLEAN, *SPOILT])) for id_ in truth}
    pieces = [(CLEAN | SPOILT)[fate](id_, truth[id_]) for id_, fate in fates.items()]
    again = data.draw(st.lists(st.sampled_from(sorted(truth)), max_size=3))
    pieces += [CLEAN["plain"](id_, truth[id_]) for id_ in again if fates[id_] in CLEAN]
    pieces += [dump({"id": f"{SALT}-99", "output": "red"}), dump({"id": "ex-1", "output": "red"})]
    text = CONTAINERS[container].format(",".join(data.draw(st.permutations(pieces))))
    answers = read(text, truth).answers
    whole = {id_ for id_, fate in fates.items() if fate in CLEAN}
    assert answers == {id_: truth[id_] for id_ in whole}


@given(truths, st.data())
@settings(max_examples=150, deadline=None)
def test_a_cut_reply_keeps_every_whole_item(truth: dict[str, str], data: st.DataObject) -> None:
    """Cut at any character, the items before the cut are answered, and the one that is cut is not."""
    writers = [CLEAN[data.draw(st.sampled_from(sorted(CLEAN)))] for _ in truth]
    text, ends = '{"results": [', {}
    for write, (id_, output) in zip(writers, truth.items(), strict=True):
        text += write(id_, output)
        ends[id_] = len(text)
        text += ", "
    cut = data.draw(st.integers(0, len(text)))
    assert read(text[:cut], truth).answers == {id_: truth[id_] for id_, end in ends.items() if end <= cut}


@given(truths, st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(list("{}[]\",:\\\n'x\ud800")), st.booleans())))
@settings(max_examples=200, deadline=None)
def test_no_corruption_raises_or_invents(truth: dict[str, str], edits: list[tuple[int, str, bool]]) -> None:
    """Whatever characters go astray, reading ends, and gives only labels of the task to ids that were asked."""
    text = reply(truth)
    for place, character, replaced in edits:
        at = place % (len(text) + 1)
        text = text[:at] + character + text[at + replaced :]
    reading = read(text, truth)
    assert set(reading.answers) <= set(truth)
    assert set(reading.answers.values()) <= set(LABELS)
    assert not set(reading.answers) & set(reading.defects)


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_read(text: str) -> None:
    """Text that is no reply is no answer, and no error."""
    assert read(text, ["k3f-1"]).answers == {}


odd_values = st.one_of(labels, st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(labels, max_size=2))
odd_results = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["k3f-1", "k3f-2", "k3f-3", "zzz-1", 1, None]),
        "output": odd_values,
        "x": odd_values,
    },
)


@given(st.lists(st.one_of(odd_results, odd_values), max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_well_formed_reply_reads_as_a_plain_parse_of_it(results: list[Any]) -> None:
    """For every JSON document the reader agrees with the obvious reading: parse it, go through `results`, count."""
    text = json.dumps({"results": results})
    asked = ["k3f-1", "k3f-2"]
    said: dict[str, list[Any]] = {id_: [] for id_ in asked}
    found = foreign = 0
    for result in json.loads(text)["results"]:
        if isinstance(result, dict) and "id" in result and "output" in result:
            found += 1
            if result["id"] in asked:
                said[result["id"]].append(result["output"])
            else:
                foreign += 1
    expected = {id_: outs[0].strip().lower() for id_, outs in said.items() if outs and all_one_label(outs)}
    reading = read(text, asked)
    assert (reading.answers, reading.found, reading.foreign) == (expected, found, foreign)
    assert set(reading.defects) == {id_ for id_, outs in said.items() if outs} - set(expected)


def all_one_label(outputs: list[Any]) -> bool:
    folded = {output.strip().casefold() if isinstance(output, str) else None for output in outputs}
    return len(folded) == 1 and folded <= set(LABELS)


def test_the_same_answer_twice_is_one_and_two_answers_are_none() -> None:
    """Twice the same value is an answer; different values, or one that is none, leave the record unresolved."""
    same = read('{"id":"a","output":"red"}{"id":"a","output":"RED"}', ["a"])
    differ = read('{"id":"a","output":"red"}{"id":"a","output":"blue"}{"id":"a","output":"red"}', ["a"])
    invalid = read('{"id":"a","output":"red"}{"id":"a","output":"mauve"}', ["a"])
    assert same.answers == {"a": "red"}
    assert differ.answers == {}
    assert differ.defects == {"a": "answered twice, differently"}
    assert invalid.answers == {}


def test_an_echo_of_the_items_is_no_answer() -> None:
    """A model that repeats its input, even input that looks like results, has not answered."""
    planted = {"id": "k3f-1", "output": "red"}
    echo = dump({"items": [{"id": "k3f-1", "input": dump({"results": [planted]})}, {"id": "k3f-2", "input": planted}]})
    assert read(echo, ["k3f-1", "k3f-2"]).answers == {}
    both = echo + '\n{"results":[{"id":"k3f-2","output":"blue"}]}'
    assert read(both, ["k3f-1", "k3f-2"]).answers == {"k3f-2": "blue"}


def test_a_draft_in_a_thought_that_was_cut_is_no_answer() -> None:
    """A reply that ends while the model still thinks holds no answers, however much like them its drafts look."""
    assert read('<think>Perhaps {"results":[{"id":"a","output":"red"}]}, but', ["a"]).found == 0


def test_a_closing_tag_inside_an_answer_ends_nothing() -> None:
    """`</think>` in a string of the reply is text."""
    check = output_check(Task(instructions="x", fields={"t": Field(type=FieldType.STRING)}))
    text = '{"results":[{"id":"a","output":{"t":"x"}},{"id":"b","output":{"t":"</think>"}}]}'
    assert read_answers(text, {"a": "", "b": ""}, check).answers == {"a": {"t": "x"}, "b": {"t": "</think>"}}


def test_twin_fields_of_an_output_are_no_answer() -> None:
    """An object that gives one variable two values gives it none."""
    check = output_check(Task(instructions="x", fields={"t": Field(labels=LABELS)}))
    reading = read_answers('{"results":[{"id":"a","output":{"t":"red","t":"blue"}}]}', {"a": ""}, check)
    assert reading.answers == {}
    assert "twice" in reading.defects["a"]


def test_an_honest_prose_with_many_braces_does_not_hide_the_reply() -> None:
    """Hundreds of braces before the reply, as in formulas or code, are passed over."""
    text = "So \\frac{a}{b} = {x} and {\n" * 300 + reply({"a": "red"})
    assert read(text, ["a"]).answers == {"a": "red"}


HOSTILE = {
    "open braces": "{" * MAX_TEXT,
    "open ids": '{"id"' * (MAX_TEXT // 5),
    "nested ids, long tail": '{"id":' * 900 + "[" + "1," * (MAX_TEXT // 2),
    "deep objects, long string": ('{"id":' * 900 + '["') * 150 + "x" * MAX_TEXT,
    "deep lists": "[" * (MAX_TEXT - 10) + '{"id":',
    "pairs": "{" + "{}" * (MAX_TEXT // 2),
    "quotes": "{'" * (MAX_TEXT // 2),
    "escapes": "{'\\" * (MAX_TEXT // 3),
    "new lines": "{\n" * (MAX_TEXT // 2),
    "near results": '{"id":"a","output":1,,' * (MAX_TEXT // 22),
    "near Python": ("{'id':'a','output':[" + "1," * 9_000 + "],,}") * 50,
    "white space": ('{"id":"a","output":1,' + " " * 19_000 + "x}") * 50,
    "long key": '{"id":"a","starts":"' + "ab " * 300_000 + '","output":"red"}',
    "digits": '{"id":"a","output":' + "9" * MAX_TEXT + "}",
    "ten times too long": reply({"a": "red"}) + "{" * 10 * MAX_TEXT,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_long(name: str) -> None:
    """The time for a reply is bounded whatever stands in it: some seconds of CPU at the very most."""
    started = time.process_time()
    read_answers(HOSTILE[name], {"a": "ab ab ab ab ab", "b": "other words than these"}, CHECK, keyed=name == "long key")
    assert time.process_time() - started < 2.0


# --- the keyed form

FIRST_WORDS = [
    "The delivery came two weeks",
    "My keyboard stopped working after",
    "Wonderful! I shall certainly buy",
    "Where is the manual of",
    "Ich habe die falsche Farbe",
    "这个产品的质量非常好我很满意",
]
ASKED = {f"k3f-{number}": words for number, words in enumerate(FIRST_WORDS, start=1)}


def keyed(keys: dict[str, Any], asked: dict[str, str] = ASKED) -> Any:
    results = [{"id": id_, "starts": key, "output": "red"} for id_, key in keys.items()]
    return read_answers(dump({"results": results}), asked, CHECK, keyed=True)


first_words = st.text("abc de,.!A", max_size=24)


@given(st.lists(first_words, min_size=2, max_size=5, unique=True), st.data())
@settings(max_examples=200, deadline=None)
def test_swapped_keys_are_always_rejected(words: list[str], data: st.DataObject) -> None:
    """Two records whose keys came with each other's ids get no answer, be they ever so alike; the rest do."""
    asked = {f"k3f-{number}": text for number, text in enumerate(words)}
    one, other = data.draw(st.permutations(sorted(asked)))[:2]
    reading = keyed(asked | {one: asked[other], other: asked[one]}, asked)
    assert set(reading.answers) == set(asked) - {one, other}
    assert set(reading.defects) == {one, other}


SLIPS = {
    "exact": lambda words: words,
    "case": str.upper,
    "no punctuation": lambda words: words.replace("!", "").replace(",", ""),
    "spaces": lambda words: f"  {words.replace(' ', '  ')} ",
    "fewer words": lambda words: words[: len(words) * 3 // 4],
    "more words": lambda words: words + " late and broken",
    "a letter lost": lambda words: words[:6] + words[7:],
    "dots": lambda words: words + "...",
}


@given(st.lists(st.sampled_from(sorted(SLIPS)), min_size=len(ASKED), max_size=len(ASKED)))
def test_near_copies_are_accepted(slips: list[str]) -> None:
    """Small slips of a copy do not cost the answer."""
    reading = keyed({id_: SLIPS[slip](words) for slip, (id_, words) in zip(slips, ASKED.items(), strict=True)})
    assert reading.defects == {}


def test_a_near_copy_of_a_neighbour_is_the_neighbours() -> None:
    """Where inputs begin alike, the key belongs to the one that it fits best."""
    asked = {"a": "Patient 12 was seen on", "b": "Patient 13 was seen on"}
    assert keyed({"a": "patient 13 was seen on", "b": "PATIENT 12 was seen on"}, asked).answers == {}
    assert set(keyed({"a": "patient 12 was seen on", "b": "Patient 13 was seen"}, asked).answers) == {"a", "b"}
    assert keyed({"a": "Hello world", "b": "Hello, World!"}, {"a": "Hello, World!", "b": "Hello world"}).answers == {}


def test_equal_beginnings_do_not_reject_each_other() -> None:
    """Records that begin with the same words cannot be told apart by them, and are accepted by their ids."""
    asked = {"a": "I bought this because I", "b": "I bought this because I"}
    assert set(keyed({"a": "I bought this because I", "b": "I bought this because"}, asked).answers) == {"a", "b"}


def test_an_empty_input_has_nothing_to_repeat() -> None:
    """Any words may stand for an empty input, except those of another record."""
    asked = {"a": "", "b": FIRST_WORDS[0]}
    for nothing in ("", "(empty)", "none"):
        assert set(keyed({"a": nothing, "b": FIRST_WORDS[0]}, asked).answers) == {"a", "b"}
    assert set(keyed({"a": FIRST_WORDS[0], "b": FIRST_WORDS[0]}, asked).answers) == {"b"}


def test_inputs_without_words_are_told_apart() -> None:
    """A single emoji is a key too."""
    assert key_fits("😀", "😀")
    assert not key_fits("😡", "😀")


@pytest.mark.parametrize("key", [None, 3, [], {"a": 1}, "quite other words"])
def test_a_key_that_is_none_or_fits_nothing_is_rejected(key: Any) -> None:
    """No key, a key of a wrong type, or words of no record: not an answer."""
    reading = keyed({"k3f-1": key})
    assert reading.answers == {}
    assert "k3f-1" in reading.defects


def test_missing_keys_are_counted() -> None:
    """`unkeyed` counts results that came without a key, so that an endpoint which ignores the form is noticed."""
    assert read_answers(reply({"k3f-1": "red", "k3f-2": "red"}), ASKED, CHECK, keyed=True).unkeyed == 2


def test_the_check_decides_what_is_an_output() -> None:
    """A reason that the check gives is the defect of that record alone."""

    def check(value: Any) -> Any:
        if value == "red":
            raise NotAnOutput("never red")
        return value

    reading = read_answers(reply({"a": "red", "b": "blue"}), {"a": "", "b": ""}, check)
    assert (reading.answers, reading.defects) == ({"b": "blue"}, {"a": "never red"})


def test_one_short_word_is_no_beginning() -> None:
    """Many records begin with "I" or "the": only a beginning of some length tells which one is meant."""
    assert not key_fits("I", "I bought this because I")
    assert not key_fits("I bought this because I", "I")
    assert key_fits("I bought it", "I bought it because I")


def test_results_that_came_without_their_key_are_counted() -> None:
    """A model that ignores the keyed form is found out by this number."""
    results = [{"id": "k3f-1", "output": "red"}, {"id": "k3f-2", "starts": None, "output": "red"}]
    assert read_answers(dump({"results": results}), ASKED, CHECK, keyed=True).unkeyed == 1
    assert read_answers(dump({"results": results}), ASKED, CHECK).unkeyed == 0


def test_a_copy_of_a_neighbour_is_its_own_although_it_begins_the_record_too() -> None:
    """A beginning speaks for a record less than a whole copy, in any case, speaks for another."""
    asked = {"k3f-1": "Hello world and all", "k3f-2": "hello world"}
    assert keyed({"k3f-1": "Hello, World", "k3f-2": "Hello, World"}, asked).answers == {"k3f-2": "red"}
