"""The same search over stores that hold its answers, or those of another search over the same gold."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_tune import LABELS, ended, make_gold, search, trials_of

from engine.testing.scripted import RecordedRequest, ScriptedTransport, chat_reply, results_content
from engine.testing.simulator.answers import stable_label
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.testing.simulator.transport import InProcessTransport
from engine.tuning.gold import Gold
from engine.tuning.journal import Journal
from engine.tuning.rate import Rate
from engine.tuning.space import Space
from engine.tuning.tune import Search
from engine.tuning.tune_document import Tuned
from engine.vocabulary.config import Prices
from engine.vocabulary.errors import RunStopped

SPACE = Space(batch_size=(1, 2, 5), form=("compact", "keyed"), examples=(0,))


def noise(text: str) -> int:
    """0 to 99, the same for a text everywhere."""
    return zlib.crc32(text.encode()) % 100


def jittered() -> ScriptedTransport:
    """Some answers are wrong, some more in larger batches, and no two requests take the same number of tokens."""

    def reply(request: RecordedRequest) -> Any:
        size, number = len(request.items), len(transport.requests)

        def answer(text: str) -> str:
            wrong = noise(text) < 8 or noise(f"{text} {size}") < 2 * size
            return LABELS[(LABELS.index(stable_label(text, LABELS)) + wrong) % len(LABELS)]

        took = 60 + 15 * size + number * 37 % 91
        return chat_reply(results_content(request.items, answer), prompt_tokens=took, completion_tokens=5 * size + 3)

    transport = ScriptedTransport(reply)
    return transport


def searched(folder: Path, gold: Gold, space: Space = SPACE) -> tuple[Tuned, int, list[list[float]]]:
    """What came of it, how many requests it took, and the costs that the race was told, look by look."""
    transport, told = jittered(), []
    made = search(folder, build_endpoint(SimulatorConfig()), gold=gold, space=space, transport=transport)
    price = made._race.price

    def spy(costs: list[float], **more: Any) -> None:
        told.append(list(costs))
        price(costs, **more)

    made._race.price = spy  # type: ignore[method-assign, assignment]
    return ended(made), len(transport.requests), told


def test_the_same_search_again_takes_the_same_way_whatever_its_stores_hold_by_then(tmp_path: Path) -> None:
    """Requests that differ in tokens: no request, every figure of the document, and every look the same."""
    gold = make_gold(300)
    first, requests, looks = searched(tmp_path, gold)
    assert requests > 200
    assert len(looks) >= 3
    for _ in range(2):
        again, more, told = searched(tmp_path, gold)
        assert more == 0
        assert told == looks
        assert again == first


def test_a_search_over_fewer_records_counts_the_tokens_of_a_record_once(tmp_path: Path) -> None:
    """150 records are in the stores, and 60 of them are asked about: a record takes what it took, and no request."""
    gold, space = make_gold(150), Space(batch_size=(1, 5), form=("compact",), examples=(0,))
    fewer = Gold(records=gold.records[90:], outputs=gold.outputs[90:], field="label", unusable=0, problems=[])
    whole, _, _ = searched(tmp_path, gold, space)
    part, more, _ = searched(tmp_path, fewer, space)
    assert more == 0
    before = {row.setting.batch_size: row.input_per_record for row in whole.rows}
    after = {row.setting.batch_size: row.input_per_record for row in part.rows}
    assert after == pytest.approx(before)
    again, more, _ = searched(tmp_path, gold, space)
    assert (again, more) == (whole, 0)


def test_what_the_brake_stopped_is_not_paid_for_again(tmp_path: Path) -> None:
    """A setting whose replies make no sense stays stopped, and that is told; another folder asks anew."""

    def made(silent: Any) -> Search:
        new = search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(60))
        trials_of(new)[1]._transport = InProcessTransport(silent)
        return new

    silent = build_endpoint(SimulatorConfig(mode="never_format"))
    first = ended(made(silent))
    asked = silent.ledger.requests
    assert asked
    again = ended(made(silent))
    assert silent.ledger.requests == asked
    assert [row.broken for row in again.rows] == [row.broken for row in first.rows]
    assert any("not asked again" in note for note in again.notes)
    assert (again.choice, again.spent_tokens) == (first.choice, first.spent_tokens)


def test_where_the_brake_stopped_every_setting_the_same_search_asks_anew(tmp_path: Path) -> None:
    """The fault was the endpoint's or the task's: mended, nothing stays stopped."""
    silent, mended = build_endpoint(SimulatorConfig(mode="never_format")), build_endpoint(SimulatorConfig())
    with pytest.raises(RunStopped, match="no setting gets an answer"):
        ended(search(tmp_path, silent, gold=make_gold(60)))
    tuned = ended(search(tmp_path, mended, gold=make_gold(60)))
    assert mended.ledger.requests
    assert [row.broken for row in tuned.rows] == [None, None]


def test_a_kill_says_nothing_of_what_a_setting_takes(tmp_path: Path) -> None:
    """What was in flight may be billed: the budget counts it, and no record of the setting is dearer for it."""
    gold = make_gold(100)
    whole = ended(search(tmp_path / "whole", build_endpoint(SimulatorConfig()), gold=gold))
    folder = tmp_path / "killed"
    stopped = ended(search(folder, build_endpoint(SimulatorConfig()), gold=gold, budget_tokens=9_000))
    assert stopped.stop_kind == "budget"
    for store in folder.glob("*.sqlite"):
        with closing(sqlite3.connect(store)) as db, db:
            last = db.execute("SELECT max(id) FROM runs").fetchone()[0]
            db.executemany(
                "INSERT INTO calls (run_id, sent_at, latency_s, size, accepted, status, outcome, finish_reason, "
                "input_tokens, cached_tokens, output_tokens, estimated, unconfirmed_input, unconfirmed_output) "
                "VALUES (?, 0, 900, 5, 0, 0, 'killed', '', 0, 0, 0, 0, 40, 30)",
                [(last,)] * 100,
            )
    made = search(folder, build_endpoint(SimulatorConfig()), gold=gold)
    assert made.spent >= 14_000
    priced = search(folder, build_endpoint(SimulatorConfig()), gold=gold, prices=Prices(input=1.0, output=4.0))
    assert (priced._spent_usd() or 0) > 2 * (4_000 + 4 * 3_000) / 1e6
    again = ended(made)
    assert again.choice.setting == whole.choice.setting
    for row, other in zip(again.rows, whole.rows, strict=True):
        assert row.input_per_record == pytest.approx(other.input_per_record, rel=0.02)
        assert row.cost_per_record == pytest.approx(other.cost_per_record, rel=0.02)
        assert row.latency_s == pytest.approx(other.latency_s)
    assert again.spent_tokens == pytest.approx(whole.spent_tokens + 14_000, abs=2_500)


def test_half_a_line_of_the_journal_costs_no_other_line(tmp_path: Path) -> None:
    """The process died within a line: what was kept before and is kept later is found."""
    records = [[{"text": f"{number}"}] for number in range(3)]
    Journal(tmp_path).keep("s", records[0], Rate(latency_s=1.0), None)
    with (tmp_path / "looks.jsonl").open("ab") as stream:
        stream.write(b'\n{"setting": "s", "rec')
    Journal(tmp_path).keep("s", records[1], Rate(latency_s=2.0), "why")
    found = [Journal(tmp_path).look("s", each) for each in records]
    assert [look and (look.rate.latency_s, look.broken) for look in found] == [(1.0, None), (2.0, "why"), None]
