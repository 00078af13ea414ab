"""Records that the first model failed, and a second one is asked about."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.adapters.store import read_store
from engine.adapters.stored import failed_records, input_count, newest_input, runs
from engine.report.ledger import Ledger
from engine.report.metrics import Counters
from engine.run.export import write_newest
from engine.run.inspection import tell
from engine.run.session import Engine
from engine.testing import virtual_time
from engine.vocabulary.config import Escalation, Prices, RunConfig
from engine.vocabulary.errors import ConfigError
from tests.run.test_escalation import Models, label, rows, run
from tests.support import SAMPLING, make_config, make_task

SEVENS = {f"r{number}" for number in (7, 17, 27)}


def refuses_sevens(model: str, text: str, times: int) -> str | None:
    """The small model says nothing of texts that end in 7, and the large one of number 17 neither."""
    if model == "large":
        return None if text.endswith("17") else "blue"
    return None if text.endswith("7") else "red"


def config(batch_size: int = 8, **changes: Any) -> RunConfig:
    given = {"escalation": Escalation(failed=True, model="large")} | changes
    return msgspec.structs.replace(make_config(batch_size, concurrency=1), **given)


def test_failed_records_go_to_the_second_model_and_no_others() -> None:
    """Its answers count, as its own; what it fails too stays failed, with both reasons; no votes are needed for it."""
    models = Models(refuses_sevens)
    outcome = run(models, 30, config())
    assert set(models.asked["large"]) == {f"text number {id_[1:]}" for id_ in SEVENS}
    by_id = {result.id: result for result in outcome.results}
    assert len(outcome.results) == len(by_id) == 30
    assert {id_: (by_id[id_].output, by_id[id_].model) for id_ in ("r7", "r27", "r6")} == {
        "r7": ("blue", "large"), "r27": ("blue", "large"), "r6": ("red", "simulated"),
    }  # fmt: skip
    assert [result.id for result in outcome.failed] == ["r17"]
    error = by_id["r17"].error
    assert error.kind == "no-json"
    assert error.message.count("asked alone 3 times") == 2
    assert "; the second model (large) failed too, no-json: " in error.message
    use = outcome.counters.escalation.use(None)
    assert (use.records, use.failed, use.rescued, use.answered, use.changed, use.unknown) == (3, 3, 2, 2, 0, 0)
    assert use.below is None
    assert (outcome.counters.records_ok, outcome.counters.records_failed) == (29, 1)


def test_without_being_asked_to_failures_stay() -> None:
    """The default, beside a confidence under which answers go."""
    models = Models(refuses_sevens)
    outcome = run(models, 30, config(votes=2, escalation=Escalation(below=0.9, model="large")))
    assert models.asked["large"] == {}
    assert {result.id for result in outcome.failed} == SEVENS


def test_unsure_answers_and_failures_go_together() -> None:
    """Both options at once: what changed is counted of answers, what was rescued of failures."""

    def say(model: str, text: str, times: int) -> str | None:
        if text.endswith("5") and model == "simulated":
            return ["red", "green"][times % 2]
        return refuses_sevens(model, text, times)

    models = Models(say)
    outcome = run(models, 20, config(votes=2, escalation=Escalation(below=0.9, failed=True, model="large")))
    by_id = {result.id: (result.output, result.model) for result in outcome.results}
    assert {by_id[id_] for id_ in ("r5", "r15", "r7")} == {("blue", "large")}
    use = outcome.counters.escalation.use(None)
    assert (use.records, use.failed, use.rescued, use.answered, use.changed) == (4, 2, 1, 3, 2)


def test_output_export_show_and_report_tell_the_same(tmp_path: Path) -> None:
    """A record that was rescued is done for all of them, and one that both failed has both reasons, whose first is
    counted."""
    done = label(Models(refuses_sevens), tmp_path, config())
    assert done.run is not None
    told = {row["id"]: row for row in rows(tmp_path)}
    assert {id_ for id_, row in told.items() if row["error"]} == {"r17"}
    assert (told["r7"]["output"], told["r7"]["model"]) == ("blue", "large")
    assert "the second model (large) failed too" in told["r17"]["error"]["message"]
    with closing(read_store(tmp_path / "s.sqlite")) as store:
        write_newest(store, str(tmp_path / "again.csv"))
        newest = newest_input(store)
        assert newest is not None
        counts = input_count(store, newest)
        assert (counts.ok, counts.failed, counts.pending) == (29, 1, 0)
        failed = failed_records(store, newest, newest.settings_id, most=10)
        assert [one.place.id for one in failed if one.place] == ['"r17"']
        (story,) = tell(store, tmp_path / "s.sqlite", newest, failed)
        assert (story.status, story.model) == ("failed", "simulated")
        assert story.error is not None
        assert "the second model (large) failed too" in story.error.message
        ledger = Ledger(store, run_id=done.run.run_id, settings_id=done.run.settings_id)
        records = ledger.records(Counters())
        assert (records.ok, records.failed, records.pending) == (29, 1, 0)
        assert [(one.kind, one.count) for one in ledger.failures()] == [("no-json", 1)]
        assert len(runs(store)) == 1
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize("dies_after", range(1, 22, 2))
def test_a_run_that_ends_at_any_request_pays_nothing_twice(tmp_path: Path, dies_after: int) -> None:
    """Whichever model was being asked: no record is asked more often, over both runs, than in one that never ended; and
    the output is the same."""
    whole = Models(refuses_sevens)
    (tmp_path / "whole").mkdir()
    label(whole, tmp_path / "whole", config(batch_size=5), count=20)
    first = Models(refuses_sevens, dies_after=dies_after)
    label(first, tmp_path, config(batch_size=5), count=20)
    again = Models(refuses_sevens)
    label(again, tmp_path, config(batch_size=5), count=20)
    for model in ("simulated", "large"):
        asked = first.asked[model] + again.asked[model]
        answered = [number for number in range(20) if refuses_sevens(model, f"text number {number}", 0)]
        assert all(asked[f"text number {number}"] == whole.asked[model][f"text number {number}"] for number in answered)
    kinds = {row["id"]: (row["output"], row.get("model"), bool(row["error"])) for row in rows(tmp_path)}
    assert kinds == {
        row["id"]: (row["output"], row.get("model"), bool(row["error"])) for row in rows(tmp_path / "whole")
    }


def test_what_ran_before_costs_nothing_and_without_the_option_it_fails_again(tmp_path: Path) -> None:
    """The same run again asks neither model, also of what both failed. Without a second model the store gives what the
    first one said."""
    label(Models(refuses_sevens), tmp_path, config())
    before = rows(tmp_path)
    again = Models(refuses_sevens)
    done = label(again, tmp_path, config())
    assert again.transport.requests == []
    assert rows(tmp_path) == before
    assert (done.counters.records_ok, done.counters.records_failed) == (29, 1)
    label(Models(refuses_sevens), tmp_path, config(escalation=None))
    assert {row["id"] for row in rows(tmp_path) if row["error"]} == SEVENS
    label(Models(refuses_sevens), tmp_path, config(votes=2, escalation=Escalation(below=0.5, model="large")))
    assert {row["id"] for row in rows(tmp_path) if row["error"]} == SEVENS


def test_identical_failed_records_are_asked_once() -> None:
    """And each of them has the second model's answer."""
    models = Models(lambda model, text, times: "blue" if model == "large" else None)
    outcome = run(models, 0, config(recovery=make_config(max_failed=1.0).recovery), records=_twins(5))
    assert models.asked["large"] == Counter({"the same": 1})
    assert [(result.output, result.model) for result in outcome.results] == [("blue", "large")] * 5
    assert (outcome.counters.records_ok, outcome.counters.records_failed) == (5, 0)


def test_the_budget_is_one_for_both() -> None:
    """What the second model may take is what the first left; what is not asked for any more stays failed."""
    prices = Prices(input=1.0, output=1.0)
    escalation = Escalation(failed=True, model="large", prices=Prices(input=1000.0, output=1000.0))
    models = Models(refuses_sevens)
    outcome = run(models, 30, config(prices=prices, budget_usd=0.05, escalation=escalation))
    assert getattr(outcome.stopped, "kind", None) == "budget"
    use = outcome.counters.escalation.use(outcome.counters.tokens_input / 1e6 + outcome.counters.tokens_output / 1e6)
    assert use.together_usd <= 0.05
    assert models.asked["large"] == {}
    assert SEVENS & {result.id for result in outcome.failed}
    assert all(result.model is None for result in outcome.failed)


def test_a_run_that_escalates_failures_only_does_not_end_without_probabilities() -> None:
    """They were asked for, and never came; nothing hangs on them here."""
    models = Models(refuses_sevens)
    outcome = run(models, 30, config(confidence="logprobs"))
    assert outcome.stopped is None
    assert [result.id for result in outcome.failed] == ["r17"]


def test_too_long_for_both_is_not_asked() -> None:
    """Both may have as many tokens a request, so what the first cannot be sent the second cannot either."""
    models = Models(lambda model, text, times: "red")
    long = [{"id": "long", "text": "and so on " * 2_000}, {"id": "short", "text": "a text"}]
    settings = config(packing=msgspec.structs.replace(make_config().packing, max_input_tokens=1_000))
    outcome = run(models, 0, settings, records=long)
    assert [(result.id, result.error.kind) for result in outcome.failed] == [("long", "too-long")]
    assert outcome.counters.escalation.use(None).records == 0


def test_a_live_failure_goes_to_the_second_model_too() -> None:
    """Its caller has the second model's answer."""
    models = Models(refuses_sevens)

    async def live() -> Any:
        async with Engine(SAMPLING, config(), transport=models.transport, virtual_time=True) as engine:
            return [await engine.submit(f"text number {number}", task=make_task()) for number in (6, 7)]

    six, seven = virtual_time.run(live)
    assert (six.output, six.model, seven.output, seven.model) == ("red", "simulated", "blue", "large")


def test_a_second_model_that_gets_nothing_is_one_error() -> None:
    """Neither a confidence nor failures: told before anything is sent, with what to give."""
    models = Models(refuses_sevens)
    with pytest.raises(ConfigError, match="--escalate-below, or --escalate-failed"):
        run(models, 3, config(escalation=Escalation(model="large")))
    assert models.transport.requests == []


def _twins(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{number}", "text": "the same"} for number in range(count)]
