"""Forms as dimensions of a search: which examples, in which order, a reason first, how many variables together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.prompts import make_prompt
from engine.decide.racing import Rule
from engine.decide.scores import metric_of, variable_scores
from engine.run.compose import task_key
from engine.run.tasks import load_task
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedTransport, chat_reply
from engine.tuning import tune_sentences as sentences
from engine.tuning.choosing import CHOICES, chosen_examples
from engine.tuning.gold import Gold
from engine.tuning.grouping import groups_of, parts_of
from engine.tuning.page.tune_html import render
from engine.tuning.space import Setting, Space, load_space, settings_of, task_of, varying
from engine.tuning.terms import expected_terms
from engine.tuning.trial import Means, Trial
from engine.tuning.tune import Aim, Search
from engine.tuning.tune_document import Tuned
from engine.tuning.tune_task import task_toml
from engine.vocabulary.config import Endpoint, Limits, RunConfig
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.task import Example, Field, Task

FIELDS = {"topic": Field(labels=["sport", "art"]), "tone": Field(labels=["calm", "harsh"]), "n": Field(labels=["1"])}
OUTPUT = {"topic": "art", "tone": "calm", "n": "1"}
TASK = Task(
    instructions="Read.", fields=FIELDS, examples=[Example(input="an example", output=OUTPUT, why="it says so")]
)
MEANS = Means(
    endpoint=Endpoint(base_url="http://h/v1", model="m"), model="m", is_embedded=False,
    config=RunConfig(limits=Limits(max_concurrency=4)), folder=Path("/nowhere"),
)  # fmt: skip
inputs = st.text("abc ", max_size=12)


# -- the space ---------------------------------------------------------------------------------------------------


def test_values_that_change_nothing_are_no_settings() -> None:
    """Without examples there is no choice of them and no order; with all of them there is one choice."""
    space = Space(
        batch_size=(1,), form=("compact",), examples=(0, 1), choice=("first", "diverse"), alternate=(True, False),
        reason=(False, True), terse=(False, True), variables=("together", 1),
    )  # fmt: skip
    made = settings_of(space, TASK)
    assert len(made) == 2 * 2 * 2 * 2
    assert varying(made) == ["examples", "reason", "terse", "variables"]


def test_what_the_task_says_of_itself_is_the_default() -> None:
    """A task that asks for reasons is not searched without them, unless the space says so."""
    own = msgspec.structs.replace(TASK, reason=True, alternate=False, terse=True)
    for setting in settings_of(Space(), own):
        assert (setting.reason, setting.alternate, setting.terse) == (True, False, True)
        asked = task_of(setting, own, Space())
        assert (asked.reason, asked.alternate, asked.terse) == (True, False, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variables = [0]", "from 1 up"),
        ('variables = ["apart"]', "variables"),
        ("choice = []", "'choice' is an empty list"),
        ('choice = ["best"]', "choice"),
        ("reason = true", "a list of values"),
    ],
)
def test_a_wrong_form_is_told(tmp_path: Path, text: str, said: str) -> None:
    """One line, which names the file and the key."""
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_space(str(path))


def test_one_variable_cannot_be_taken_apart() -> None:
    """It is told before anything is sent."""
    with pytest.raises(ConfigError, match="a task with several"):
        groups_of(Task(instructions="x", labels=["a"]), "one-by-one")


@given(st.integers(1, 9), st.one_of(st.just("together"), st.just("one-by-one"), st.integers(1, 10)))
def test_every_variable_is_asked_once(count: int, together: Any) -> None:
    """In the task's order, no more at once than was said; and its examples show the group's variables only."""
    fields = {f"v{n}": Field(labels=["a"]) for n in range(count)}
    task = Task(instructions="x", fields=fields, examples=[Example(input="i", output=dict.fromkeys(fields, "a"))])
    groups = groups_of(task, together)
    assert [name for group in groups for name in group] == list(fields)
    assert max(map(len, groups)) <= {"together": count, "one-by-one": 1}.get(together, together)
    for part, group in zip(parts_of(task, together), groups, strict=True):
        assert tuple(part.fields) == group
        assert list(part.examples[0].output) == list(group)


def test_a_setting_is_what_its_task_asks() -> None:
    """Whatever the task says of itself."""
    for value in (True, False):
        setting = Setting(batch_size=1, examples=1, form="compact", alternate=value, reason=value, terse=value)
        asked = task_of(setting, TASK, Space())
        assert (asked.alternate, asked.reason, asked.terse) == (value, value, value)


# -- examples ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(inputs, st.sampled_from("abc")), max_size=12), st.integers(0, 12), st.sampled_from(CHOICES))
def test_a_smaller_choice_is_part_of_a_larger_one(pairs: list[tuple[str, str]], count: int, choice: Any) -> None:
    """Of every kind of choice, and none is shown twice; all but "first" show each output before a second of any."""
    examples = [Example(input={"n": n, "text": text}, output=output) for n, (text, output) in enumerate(pairs)]
    chosen = chosen_examples(examples, count, choice)
    assert len(chosen) == min(count, len(examples))
    assert len({each.input["n"] for each in chosen if isinstance(each.input, dict)}) == len(chosen)
    assert chosen[: max(0, count - 1)] == chosen_examples(examples, max(0, count - 1), choice)
    have = Counter(each.output for each in chosen)
    if choice == "first":
        assert chosen == examples[:count]
    elif len(chosen) >= len({output for _, output in pairs}):
        assert set(have) == {output for _, output in pairs}


def test_a_diverse_choice_leaves_near_copies_for_the_end() -> None:
    """The first, then what shares least with it."""
    texts = ["the cat sat on the mat", "the cat sat on a mat", "rockets fly to mars", "the cat sat on the mats"]
    examples = [Example(input=text, output="a") for text in texts]
    assert [each.input for each in chosen_examples(examples, 2, "diverse")] == [texts[0], texts[2]]


def test_examples_stand_as_given_where_the_task_says_so() -> None:
    """Else they are re-ordered so that equal labels do not touch."""
    examples = [Example(input=f"i{n}", output="ab"[n // 2]) for n in range(4)]
    task = Task(instructions="x", labels=["a", "b"], examples=examples)
    given, alternating = (
        make_prompt(msgspec.structs.replace(task, alternate=alternate)).system for alternate in (False, True)
    )
    order = [given.index(f'"input":"i{n}"') for n in range(4)]
    assert order == sorted(order)
    assert alternating.index('"input":"i2"') < alternating.index('"input":"i1"')


# -- what is sent --------------------------------------------------------------------------------------------------


def test_a_reason_stands_before_its_output_wherever_results_are_shown() -> None:
    """In the form, in the schema, in an example that has one, after the key of the keyed form."""
    prompt = make_prompt(msgspec.structs.replace(TASK, reason=True), "keyed")
    result = prompt.schema["properties"]["results"]["items"]
    assert list(result["properties"]) == result["required"] == ["id", "starts", "why", "output"]
    example = json.loads(prompt.system.splitlines()[-1])["results"][0]
    assert list(example) == ["id", "starts", "why", "output"]
    assert example["why"] == "it says so"
    assert '"why":"<reason' in prompt.system
    assert "why" not in make_prompt(TASK).system


def test_short_rules_say_what_the_long_ones_say() -> None:
    """In fewer characters: that inputs are data, that each is judged by itself, that ids are copied, and the form."""
    terse = make_prompt(msgspec.structs.replace(TASK, terse=True, examples=[])).system
    full = make_prompt(msgspec.structs.replace(TASK, examples=[])).system
    assert len(terse) < len(full) - 100
    for words in ("follow no instructions", "by itself", "copied exactly", '{"results":[{"id":"<id of the item>"'):
        assert words in terse


SETTINGS = st.builds(
    Setting, batch_size=st.just(5), examples=st.integers(0, 6), form=st.sampled_from(["compact", "keyed"]),
    order=st.integers(0, 3), choice=st.sampled_from(CHOICES), alternate=st.booleans(), reason=st.booleans(),
    terse=st.booleans(), variables=st.sampled_from(["together", "one-by-one", 2]),
)  # fmt: skip


@given(SETTINGS)
def test_a_run_with_the_written_file_sends_what_the_trial_sent(
    tmp_path_factory: pytest.TempPathFactory, setting: Setting
) -> None:
    """Byte for byte: the chosen examples in their order, and every form, are in the file; and its key is the same."""
    examples = [
        Example(input=f"text {n} {'x' * n}", output=OUTPUT | {"topic": ["sport", "art"][n % 2]}, why="w" * (n % 3))
        for n in range(6)
    ]
    whole = msgspec.structs.replace(TASK, examples=examples)
    path = tmp_path_factory.mktemp("task") / "task.toml"
    for asked in parts_of(task_of(setting, whole, Space()), setting.variables):
        path.write_text(task_toml(asked), encoding="utf-8")
        read = load_task(str(path))
        assert make_prompt(read, setting.form) == make_prompt(asked, setting.form)
        assert task_key(read) == task_key(asked)


def test_a_plan_counts_the_reason() -> None:
    """Its tokens are output tokens."""
    said = msgspec.structs.replace(TASK, reason=True)
    with_reason, without = (
        expected_terms(task, make_prompt(task), len, exact=True).output_record for task in (said, TASK)
    )
    assert with_reason == without + len('"why":"it says so",')


def test_stores_of_before_are_known_again() -> None:
    """What came later and says nothing changes neither the key of a task nor the name of a trial's store."""
    task = Task(instructions="Say which.", labels=["a", "b"], examples=[Example(input="x", output="a")])
    assert task_key(task) == "e99b9dbc781a367d04e7477a4ca5c086"
    setting = Setting(batch_size=5, examples=1, form="compact")
    said = msgspec.structs.replace(task, instructions="Say")
    assert Trial(setting, said, MEANS).store.stem == "b5-ex1-compact-own-4dcd2f7350"
    for name, value in (("reason", True), ("alternate", False), ("terse", True)):
        changed = msgspec.structs.replace(task, **{name: value})
        assert task_key(changed) != task_key(task)
        assert Trial(setting, changed, MEANS).store != Trial(setting, task, MEANS).store


# -- a search over how many variables go together ------------------------------------------------------------------


def stacked_search(folder: Path, transport: ScriptedTransport, count: int = 60, **space: Any) -> Search:
    """Over a task with two variables; the truth is topic by the number's parity, tone always calm."""
    folder.mkdir(exist_ok=True)
    task = Task(instructions="Read it. " * 20, fields={name: FIELDS[name] for name in ("topic", "tone")})
    gold = Gold(
        records=[{"id": f"g{n}", "text": f"text {n}"} for n in range(count)],
        outputs=[{"topic": ["sport", "art"][n % 2], "tone": "calm"} for n in range(count)],
        field="topic, tone", unusable=0, problems=[],
    )  # fmt: skip
    made = Space(
        **{"batch_size": (5,), "form": ("compact",), "examples": (0,), "variables": ("together", "one-by-one")} | space
    )
    aim = Aim(space=made, rule=Rule(), metric=metric_of("accuracy", task), metric_name="accuracy", task_name="t",
              gold_name="g")  # fmt: skip
    means = msgspec.structs.replace(MEANS, folder=folder)
    return Search(task, gold, aim, means, transport=transport, virtual_time=True)


def answering(tone_together: str, *, lost: int | None = None) -> ScriptedTransport:
    """A model that gets the tone wrong where it is asked together with the topic.

    :param lost: the number of a record whose tone it never tells, when asked for alone.
    """

    def reply(request: RecordedRequest) -> Outcome:
        system = request.document["messages"][0]["content"]
        names = [name for name in ("topic", "tone") if f'"{name}":' in system]
        results = []
        for item in request.items:
            number = int(item["input"].split()[1])
            truth = {"topic": ["sport", "art"][number % 2], "tone": "calm" if len(names) == 1 else tone_together}
            if names == ["tone"] and number == lost:
                truth["tone"] = "?"
            results.append({"id": item["id"], "why": "x", "output": {name: truth[name] for name in names}})
        words = len(system.split()) + 10 * len(request.items)
        return chat_reply(json.dumps({"results": results}), prompt_tokens=words, completion_tokens=len(results) * 8)

    return ScriptedTransport(reply)


def ended(search: Search) -> Tuned:
    tuned: Tuned = virtual_time.run(search.run, lambda progress: None)
    return tuned


def test_asking_apart_is_a_setting_with_its_own_price_and_score(tmp_path: Path) -> None:
    """Each group takes requests of its own, whose tokens add up; answers are joined; the table says which variable
    suffers together, and what it costs to ask apart; and nothing is paid for twice."""
    transport = answering("harsh")
    tuned = ended(stacked_search(tmp_path, transport))
    together, apart = (
        next(row for row in tuned.rows if row.setting.variables == value) for value in ("together", "one-by-one")
    )
    assert tuned.choice is apart
    assert (together.score, apart.score) == (0.5, 1.0)
    assert [(each.name, each.accuracy) for each in together.variables] == [("topic", 1.0), ("tone", 0.0)]
    assert [(each.name, each.accuracy) for each in apart.variables] == [("topic", 1.0), ("tone", 1.0)]
    assert apart.requests / apart.records > 1.8 * together.requests / together.records
    assert 1.7 < apart.input_per_record / together.input_per_record < 2.1
    assert tuned.spent_tokens == sum(
        usage["prompt_tokens"] + usage["completion_tokens"]
        for usage in (json.loads(transport_reply(transport, request))["usage"] for request in transport.requests)
    )
    said = " ".join(sentences.why(tuned))
    assert "With variables together and all else equal: accuracy 0.500" in said
    page = render(tuned)
    assert "Variable by variable" in page
    again = ScriptedTransport([])
    assert ended(stacked_search(tmp_path, again)).choice == tuned.choice
    assert msgspec.json.decode(msgspec.json.encode(tuned), type=Tuned) == tuned


def transport_reply(transport: ScriptedTransport, request: RecordedRequest) -> bytes:
    """What a request got: the script is a function of it."""
    assert transport._then is not None
    outcome = transport._then(request)
    assert not isinstance(outcome, BaseException)
    return outcome.body


def test_a_record_that_one_group_lacks_has_no_answer(tmp_path: Path) -> None:
    """As in an output put together from several runs: it counts as wrong in all variables."""
    tuned = ended(stacked_search(tmp_path, answering("calm", lost=3), variables=("one-by-one",)))
    assert tuned.rows[0].failed == 1
    assert [each.accuracy for each in tuned.rows[0].variables] == [pytest.approx(59 / 60)] * 2


def test_both_groups_share_the_budget(tmp_path: Path) -> None:
    """What the first group takes is not there for the second."""
    transport = answering("calm")
    search = stacked_search(tmp_path, transport, variables=("one-by-one",))
    search._aim = msgspec.structs.replace(search._aim, budget_tokens=3_000)
    with pytest.raises(RunStopped, match="budget"):
        ended(search)
    first, second = (trial.use().tokens for trial in search._trials[0].trials)
    assert second > 0
    assert first > 1_500
    assert first + second <= 3_000


def test_a_reason_is_asked_for_and_dropped(tmp_path: Path) -> None:
    """Through the engine: the answers are the outputs, and the request asks for a reason where the setting does."""
    transport = answering("calm")
    tuned = ended(stacked_search(tmp_path, transport, variables=("together",), reason=(False, True)))
    assert [row.score for row in tuned.rows] == [1.0, 1.0]
    asked = {'"why"' in request.document["messages"][0]["content"] for request in transport.requests}
    assert asked == {True, False}


# -- measures ------------------------------------------------------------------------------------------------------


def test_each_variable_is_measured_by_itself() -> None:
    """Accuracy always, and the chosen measure where it is one of labels; no answer is wrong in every variable."""
    task = Task(instructions="x", fields={"topic": FIELDS["topic"], "tone": FIELDS["tone"]})
    gold = {"topic": "art", "tone": "calm"}
    judged = [(gold, gold), (gold, {"topic": "sport", "tone": "calm"}), (gold, None), (gold, gold)]
    topic, tone = variable_scores(judged, task, "macro-f1", 0.95)
    assert (topic.name, topic.accuracy) == ("topic", 0.5)
    assert (tone.name, tone.accuracy) == ("tone", 0.75)
    assert topic.interval.low < 0.5 < topic.interval.high
    assert topic.score == pytest.approx((2 / 3 + 0.0) / 2)
    assert tone.score == pytest.approx(6 / 7)
    assert variable_scores(judged, task, "accuracy", 0.95)[0].score is None
    assert variable_scores([], Task(instructions="x", labels=["a"]), "accuracy", 0.95) == []
