"""A second model for records of which the first is unsure: who goes to it, what stands in the output, what is paid."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.adapters.files import FileSource
from engine.adapters.store import open_store, read_store
from engine.adapters.stored import runs
from engine.run.compose import open_workbench
from engine.run.corpus import CorpusRun
from engine.run.export import write_newest
from engine.run.journal import at_once
from engine.run.second import SECOND_KEY_VARIABLE, second_model
from engine.run.session import Engine
from engine.testing import virtual_time
from engine.testing.scripted import Outcome, RecordedRequest, ScriptedReply, ScriptedTransport, chat_reply
from engine.vocabulary.config import Endpoint, Escalation, Packing, Prices, Quality, RunConfig
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import Secret
from tests.support import SAMPLING, annotate_all, make_config, make_records, make_task

Say = Callable[[str, str, int], Any]
"""From a model, a text and how often it asked that text before to an output; None for no result at all."""


class Models:
    """An endpoint with two models, whose answers a test decides."""

    def __init__(self, say: Say, *, dies_after: int | None = None) -> None:
        self.asked: dict[str, Counter[str]] = {"simulated": Counter(), "large": Counter()}
        self.transport = ScriptedTransport(self._reply)
        self._say = say
        self._dies_after = dies_after

    def _reply(self, request: RecordedRequest) -> Outcome:
        if self._dies_after is not None and len(self.transport.requests) > self._dies_after:
            return ScriptedReply(status=401, body=b'{"error":{"message":"the key has expired"}}')
        model = request.document["model"]
        results = []
        for item in request.items:
            output = self._say(model, item["input"], self.asked[model][item["input"]])
            self.asked[model][item["input"]] += 1
            results += [] if output is None else [{"id": item["id"], "output": output}]
        return chat_reply(json.dumps({"results": results}))


def unsure_of_sevens(model: str, text: str, times: int) -> str:
    """The small model changes its mind about every text that ends in 7; the large one knows."""
    if model == "large":
        return "blue"
    return ["red", "green", "green"][min(times, 2)] if text.endswith("7") else "red"


SEVENS = {f"r{number}" for number in (7, 17, 27)}


def config(batch_size: int = 8, **changes: Any) -> RunConfig:
    given = {"votes": 3, "escalation": Escalation(below=0.9, model="large")} | changes
    return msgspec.structs.replace(make_config(batch_size, concurrency=1), **given)


def run(models: Models, count: int, settings: RunConfig, *, records: Any = None, **engine: Any) -> Any:
    """The small model changes its mind about the very same question, as it may above temperature 0."""
    given = {"endpoint": SAMPLING, "virtual_time": True} | engine
    return virtual_time.run(annotate_all, records or make_records(count), models.transport, settings, **given)


def label(models: Models, folder: Path, settings: RunConfig, *, count: int = 30) -> CorpusRun:
    """A file from end to end, with its output as CSV and JSONL."""
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in make_records(count)))

    async def corpus() -> CorpusRun:
        async with open_workbench(
            SAMPLING, settings, store=folder / "s.sqlite", transport=models.transport, run_sync=at_once
        ) as bench:
            run = CorpusRun(bench, make_task(), FileSource(str(source)))
            await run.annotate(note={})
            run.write_output(str(folder / "out.jsonl"))
            run.write_output(str(folder / "out.csv"))
            return run

    done: CorpusRun = virtual_time.run(corpus)
    return done


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_only_unsure_records_go_to_the_second_model() -> None:
    """Each of them once; its answer takes the place of the first one's, and each result says who gave it."""
    models = Models(unsure_of_sevens)
    outcome = run(models, 30, config())
    assert models.asked["large"] == Counter({f"text number {id_[1:]}": 1 for id_ in SEVENS})
    assert {result.id: (result.output, result.model) for result in outcome.results} == {
        f"r{number}": ("blue", "large") if f"r{number}" in SEVENS else ("red", "simulated") for number in range(30)
    }
    assert len(outcome.results) == 30
    use = outcome.counters.escalation.use(None)
    assert (use.records, use.answered, use.changed, use.stored, use.unknown) == (3, 3, 3, 0, 0)
    assert use.requests == len([one for one in models.transport.requests if one.document["model"] == "large"])
    assert outcome.counters.records_ok == 30


def test_where_the_second_model_fails_the_first_one_s_answer_stands() -> None:
    """An unsure answer is better than none, and says whose it is."""
    models = Models(lambda model, text, times: None if model == "large" else unsure_of_sevens(model, text, times))
    outcome = run(models, 10, config())
    by_id = {result.id: result for result in outcome.results}
    assert (by_id["r7"].output, by_id["r7"].model, by_id["r7"].ok) == ("green", "simulated", True)
    assert outcome.failed == []


def test_the_output_says_which_model_answered(tmp_path: Path) -> None:
    """In input order, with a key of its own in JSONL and a column in CSV, from this run and from an export."""
    label(Models(unsure_of_sevens), tmp_path, config())
    assert rows(tmp_path) == [
        {"id": f"r{number}", "output": "blue", "error": None, "model": "large"}
        if f"r{number}" in SEVENS
        else {"id": f"r{number}", "output": "red", "error": None, "confidence": 1.0, "model": "simulated"}
        for number in range(30)
    ]
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "id,output,error_kind,error_message,confidence,model"
    assert lines[6:8] == ["r6,red,,,1.0,simulated", "r7,blue,,,,large"]
    with closing(read_store(tmp_path / "s.sqlite")) as store:
        write_newest(store, str(tmp_path / "again.csv"))
        assert [one.model for one in runs(store)] == ["simulated"]  # one run, for people
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "out.csv").read_text()


def test_without_a_second_model_no_row_names_one(tmp_path: Path) -> None:
    """The key is there only where there are two; a later run without escalation gives the first one's answers."""
    label(Models(unsure_of_sevens), tmp_path, config())
    again = Models(unsure_of_sevens)
    label(again, tmp_path, config(escalation=None))
    assert again.transport.requests == []
    assert {tuple(row) for row in rows(tmp_path)} == {("id", "output", "error", "confidence")}
    assert {row["output"] for row in rows(tmp_path)} == {"red", "green"}


@pytest.mark.parametrize("dies_after", range(1, 12))
def test_a_run_that_ends_at_any_request_pays_nothing_twice(tmp_path: Path, dies_after: int) -> None:
    """Whichever model was being asked: what was answered is kept, the output holds what there is, and the same run
    again asks only for the rest."""
    first = Models(unsure_of_sevens, dies_after=dies_after)
    stopped = label(first, tmp_path, config(batch_size=5), count=20)
    assert stopped.run is not None
    assert {row["output"] for row in rows(tmp_path)} <= {"red", "green", "blue"}
    again = Models(lambda model, text, times: unsure_of_sevens(model, text, first.asked[model][text] + times))
    label(again, tmp_path, config(batch_size=5), count=20)
    small = first.asked["simulated"] + again.asked["simulated"]
    assert small == Counter({f"text number {number}": 3 if number % 10 == 7 else 2 for number in range(20)})
    assert first.asked["large"] + again.asked["large"] == Counter({"text number 7": 1, "text number 17": 1})
    assert [row["id"] for row in rows(tmp_path) if row["model"] == "large"] == ["r7", "r17"]
    assert len(rows(tmp_path)) == 20


def test_what_ran_before_costs_nothing(tmp_path: Path) -> None:
    """The same run again asks neither model."""
    label(Models(unsure_of_sevens), tmp_path, config())
    before = rows(tmp_path)
    again = Models(unsure_of_sevens)
    done = label(again, tmp_path, config())
    assert again.transport.requests == []
    assert rows(tmp_path) == before
    assert done.counters.escalation is not None
    use = done.counters.escalation.use(None)
    assert (use.records, use.stored, use.answered) == (3, 3, 3)


def test_a_higher_bar_sends_more_to_the_second_model(tmp_path: Path) -> None:
    """The first model's answers are kept, so that a higher bar asks only the second one, about what is new; and with a
    lower one they count again."""
    label(Models(unsure_of_sevens), tmp_path, config(escalation=Escalation(below=0.5, model="large")))
    assert {row["model"] for row in rows(tmp_path)} == {"simulated"}
    again = Models(unsure_of_sevens)
    label(again, tmp_path, config())
    assert again.asked["simulated"] == {}
    assert [row["id"] for row in rows(tmp_path) if row["model"] == "large"] == sorted(
        SEVENS, key=lambda id_: int(id_[1:])
    )
    label(Models(unsure_of_sevens), tmp_path, config(escalation=Escalation(below=0.5, model="large")))
    assert {row["model"] for row in rows(tmp_path)} == {"simulated"}


def test_an_answer_of_unknown_confidence_stays(tmp_path: Path) -> None:
    """Answers of a run without votes have none: they are not sent to a dear model by the thousand; it is counted."""
    label(Models(unsure_of_sevens), tmp_path, config(votes=1, escalation=None))
    again = Models(unsure_of_sevens)
    done = label(again, tmp_path, config())
    assert again.transport.requests == []
    assert done.counters.escalation is not None
    assert done.counters.escalation.unknown == 30


def test_the_budget_is_one_for_both(tmp_path: Path) -> None:
    """Dollars of both models, each at its own price, count; a run that has spent them stops with everything kept."""
    prices = Prices(input=1.0, output=1.0)
    dear = Escalation(below=0.9, model="large", prices=Prices(input=1000.0, output=1000.0))
    settings = config(batch_size=5, prices=prices, escalation=dear, budget_usd=1.0, votes_stop="never")
    models = Models(lambda model, text, times: unsure_of_sevens(model, "text 7", times))
    outcome = run(models, 40, settings, store=tmp_path / "s.sqlite")
    assert getattr(outcome.stopped, "kind", None) == "budget"
    with closing(read_store(tmp_path / "s.sqlite")) as store:
        large, small = store.spent("large"), store.spent("simulated")
    assert large.input_tokens > 0
    spent = (large.input_tokens + large.output_tokens) * 1e-3 + (small.input_tokens + small.output_tokens) * 1e-6
    assert spent <= 1.0
    richer = msgspec.structs.replace(settings, budget_usd=100.0)
    again = Models(lambda model, text, times: unsure_of_sevens(model, "text 7", models.asked[model][text] + times))
    outcome = run(again, 40, richer, store=tmp_path / "s.sqlite")
    assert {result.model for result in outcome.results} == {"large"}
    assert set((models.asked["large"] + again.asked["large"]).values()) == {1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"votes": 1}, "--votes"),
        ({"escalation": Escalation(below=0.0, model="large")}, "--escalate-below"),
        ({"escalation": Escalation(below=0.5, model="simulated")}, "the model that is unsure"),
        ({"budget_usd": 1.0, "prices": Prices(input=1, output=1)}, "--escalate-price-input"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sent(changes: dict[str, Any], said: str) -> None:
    """One error that names the option and what to do."""
    models = Models(unsure_of_sevens)

    async def refused() -> None:
        async with Engine(SAMPLING, config(**changes), transport=models.transport, virtual_time=True) as engine:
            async for _ in engine.annotate(make_task(), make_records(3)):
                pass

    with pytest.raises(ConfigError, match=said):
        virtual_time.run(refused)
    assert models.transport.requests == []


def test_the_first_one_s_key_and_headers_stay_with_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """At another host the second model has a key of its own, or none: the first one's would be told to a stranger."""
    monkeypatch.setenv("ANNOTATE_API_KEY", "first-key")
    monkeypatch.delenv(SECOND_KEY_VARIABLE, raising=False)
    first = Endpoint(base_url="http://a/v1", model="small", api_key=Secret("first-key"), headers={"X-Team": "secret"})

    def second(base_url: str | None) -> Endpoint:
        settings = config(escalation=Escalation(below=0.5, model="large", base_url=base_url))
        return second_model(first, "small", settings)[0]

    for same in (None, "http://a/v1", "http://a/other/v1"):
        assert (second(same).api_key, dict(second(same).headers)) == (first.api_key, {"X-Team": "secret"})
    elsewhere = second("http://b/v1")
    assert (elsewhere.model, elsewhere.api_key, dict(elsewhere.headers)) == ("large", None, {})
    monkeypatch.setenv(SECOND_KEY_VARIABLE, "second-key")
    key = second("http://b/v1").api_key
    assert key is not None
    assert key.reveal() == "second-key"


def test_the_first_one_s_key_does_not_leave_its_encryption() -> None:
    """The same host without TLS is another place: whoever listens would read the key."""
    first = Endpoint(base_url="https://a/v1", model="small", api_key=Secret("first-key"), headers={"X-Team": "secret"})
    settings = config(escalation=Escalation(below=0.5, model="large", base_url="http://a/v1"))
    second = second_model(first, "small", settings)[0]
    assert (second.api_key, dict(second.headers)) == (None, {})


def test_a_stop_of_the_second_model_stops_the_first(tmp_path: Path) -> None:
    """A key that the second model's endpoint refuses ends the run; what the first model has settled until then is given
    out, that which was handed over included."""

    class Unsure(Models):
        def _reply(self, request: RecordedRequest) -> Outcome:
            if request.document["model"] == "large":
                return ScriptedReply(status=401, body=b'{"error":{"message":"no such key"}}')
            return super()._reply(request)

    models = Unsure(unsure_of_sevens)
    outcome = run(models, 2_000, config(), store=tmp_path / "s.sqlite")
    assert getattr(outcome.stopped, "kind", None) == "auth"
    assert str(outcome.stopped).startswith("the second model (large): ")  # or the wrong key would be mended
    assert SECOND_KEY_VARIABLE in str(outcome.stopped)
    assert {result.model for result in outcome.results} == {"simulated"}
    with closing(open_store(tmp_path / "s.sqlite")) as store:
        assert store.query("SELECT DISTINCT status FROM runs") == [("auth",)]
        settled = {json.loads(key) for (key,) in store.query("SELECT key FROM answers")}
    assert {result.id for result in outcome.results} == settled
    assert settled & {f"r{number}" for number in range(7, 2_000, 10)}
    assert len(models.asked["simulated"]) < 2_000


def test_a_second_model_with_few_records_is_not_audited() -> None:
    """How many records will come is not known; until there are a thousand, the guard of labels asks nothing for itself,
    as in any small run."""
    models = Models(unsure_of_sevens)
    settings = config(packing=Packing(batch_size=None, look_ahead=64), quality=Quality(neighbours="off"))
    outcome = run(models, 800, settings)
    assert set(models.asked["large"].values()) == {1}
    assert len(models.asked["large"]) == 80
    assert outcome.counters.escalation.counters.records_total == 80


def test_live_records_go_to_the_second_model_too() -> None:
    """Each caller has the second model's answer where the first was unsure."""
    models = Models(unsure_of_sevens)

    async def live() -> list[Any]:
        async with Engine(SAMPLING, config(), transport=models.transport, virtual_time=True) as engine:
            return [await engine.submit(f"text number {number}", task=make_task()) for number in (6, 7)]

    six, seven = virtual_time.run(live)
    assert (six.output, six.model) == ("red", "simulated")
    assert (seven.output, seven.model) == ("blue", "large")
