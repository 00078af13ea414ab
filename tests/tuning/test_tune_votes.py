"""Votes as a dimension of the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_tune import LABELS, TASK, ended, make_gold, search, trials_of

from engine.testing.scripted import RecordedRequest, ScriptedTransport, chat_reply, results_content
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.tuning.space import Space, load_space, settings_of
from engine.tuning.tune import Search, options_of
from engine.tuning.tune_sentences import in_full
from engine.tuning.voting import with_a_point
from engine.vocabulary.config import Endpoint, RunConfig
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.task import Field, FieldType, Task

SPACE = Space(batch_size=(5,), form=("compact",), examples=(0,), votes=(1, 3))
WHERE = Endpoint(base_url="http://simulated/v1", model="simulated")


def test_a_voted_answer_is_what_is_judged_and_all_its_rounds_are_paid_for(tmp_path: Path) -> None:
    """Answers that change with the batch: three votes are right more often, for two to three times the tokens."""
    behaviour = BatchBehaviour(accuracy=0.75, redraw=Redraw(share={1: 0.0, 2: 0.8}, accuracy={1: 0.75}))
    endpoint = build_endpoint(SimulatorConfig(behaviour=behaviour, labels=LABELS))
    tuned = ended(search(tmp_path, endpoint, gold=make_gold(300), space=SPACE))
    once, often = sorted(tuned.rows, key=lambda row: row.setting.votes)
    assert (once.setting.votes, often.setting.votes) == (1, 3)
    assert often.records == 300
    assert once.records >= 100  # it is stopped where it is shown to be worse
    assert often.score > once.score + 0.04
    for name in ("input_per_record", "output_per_record", "cost_per_record"):
        assert 2.0 <= getattr(often, name) / getattr(once, name) <= 3.0, name
    ledger = endpoint.ledger
    assert tuned.spent_tokens == ledger.prompt_tokens + ledger.completion_tokens
    assert tuned.dimensions == ["votes"]
    assert tuned.choice is often
    assert tuned.options[-2:] == ["--votes", "3"]


def counted(
    asked: Counter[str] | None = None, *, after: int = 0, stops: Sequence[Callable[[], None]] = ()
) -> tuple[ScriptedTransport, Counter[str]]:  # fmt: skip
    """A model that says half of the records otherwise every second time, and how often it was asked about each.

    :param stops: are called when so many requests have come.
    """
    asked = Counter() if asked is None else asked.copy()

    def answer(text: str) -> str:
        asked[text] += 1
        away = int(text.rpartition(" ")[2]) % 2 and asked[text] % 2
        return LABELS[(LABELS.index(stable_label(text, LABELS)) + bool(away)) % len(LABELS)]

    def reply(request: RecordedRequest) -> Any:
        if len(transport.requests) == after:
            for stop in stops:
                stop()
        return chat_reply(results_content(request.items, answer))

    transport = ScriptedTransport(reply)
    return transport, asked


def test_a_search_that_is_stopped_between_rounds_pays_for_no_vote_twice(tmp_path: Path) -> None:
    """Whatever it had when it was stopped: both together ask each record as often as one search alone."""
    gold, space = make_gold(60), msgspec.structs.replace(SPACE, votes=(3,))

    def made(folder: Path, transport: ScriptedTransport) -> Search:
        return search(folder, build_endpoint(SimulatorConfig()), gold=gold, space=space, transport=transport)

    whole, every = counted()
    ended(made(tmp_path / "whole", whole))
    total = every.total()
    assert total > 2 * 60
    for after in (8, 14, 18):
        folder = tmp_path / str(after)
        stops: list[Callable[[], None]] = []
        first, asked = counted(after=after, stops=stops)
        stopped = made(folder, first)
        stops.append(stopped.stop)
        with pytest.raises(RunStopped, match="interrupted"):
            ended(stopped)
        assert 0 < asked.total() < total
        second, asked = counted(asked)
        assert ended(made(folder, second)).choice.records == 60
        assert asked == every
        third, _ = counted()
        ended(made(folder, third))
        assert not third.requests


def test_votes_of_a_lone_record_at_temperature_zero_are_no_setting(tmp_path: Path) -> None:
    """Left out, and said once; at another temperature they are one, and where nothing is left it is an error."""
    space = Space(batch_size=(1, 5), form=("compact",), examples=(0,), votes=(1, 3, 5))
    kept, said = with_a_point(settings_of(space, TASK), WHERE)
    assert [(each.batch_size, each.votes) for each in kept] == [(1, 1), (5, 1), (5, 3), (5, 5)]
    assert said is not None
    assert said.startswith("2 settings with votes")
    made = search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(20), space=space)
    assert len(trials_of(made)) == 4
    assert [note for note in ended(made).notes if "votes" in note] == [said]
    warm = msgspec.structs.replace(space, temperature=(0.7,))
    assert with_a_point(settings_of(warm, TASK), WHERE) == (settings_of(warm, TASK), None)
    for hot in (
        msgspec.structs.replace(WHERE, temperature=0.7),
        msgspec.structs.replace(WHERE, extra_body={"temperature": 1.0}),
    ):
        assert with_a_point(settings_of(space, TASK), hot)[1] is None
    with pytest.raises(ConfigError, match="say nothing"):
        with_a_point(settings_of(Space(batch_size=(1,), votes=(3,)), TASK), WHERE)


def test_the_command_s_votes_count_where_the_space_has_none() -> None:
    """And the rule to stop by is among the options of the choice."""
    assert {each.votes for each in settings_of(Space(), TASK)} == {1}
    settings = settings_of(Space(batch_size=(5,)), TASK, votes=5)
    assert {each.votes for each in settings} == {5}
    assert options_of(settings[0], RunConfig(votes_stop="agreed"))[-4:] == ["--votes", "5", "--votes-stop", "agreed"]
    assert "5 votes" in in_full(settings[0])


def test_votes_in_a_space_file(tmp_path: Path) -> None:
    """Numbers from 1 up, each once."""
    path = tmp_path / "space.toml"
    for line, said in (("votes = [0, 3]", "from 1 up"), ("votes = [3, 3]", "has 3 twice"), ("votes = 3", "list")):
        path.write_text(line)
        with pytest.raises(ConfigError, match=said):
            load_space(str(path))
    path.write_text("votes = [1, 3]")
    assert load_space(str(path)).votes == (1, 3)


def test_votes_and_their_rule_have_stores_of_their_own(tmp_path: Path) -> None:
    """An answer of three votes is not one of five, or of one that was agreed on early; without votes names stay."""
    names = set()
    for votes, stop in ((1, "decided"), (1, "agreed"), (3, "decided"), (3, "agreed"), (5, "decided")):
        space = msgspec.structs.replace(SPACE, votes=(votes,))
        made = search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(20), space=space, votes_stop=stop)
        names.add(trials_of(made)[0].store.name)
    assert len(names) == 4
    assert sum("-v3-" in name for name in names) == 2


def test_nothing_to_vote_on_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    """A variable of free text, asked by itself."""
    task = Task(
        instructions="Say.",
        fields={"note": Field(type=FieldType.STRING), "mood": Field(type=FieldType.LABEL, labels=["good", "bad"])},
    )
    space = Space(batch_size=(5,), form=("compact",), examples=(0,), votes=(3,), variables=("one-by-one",))
    with pytest.raises(ConfigError, match="nothing to vote on"):
        search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(20), space=space, task=task)
