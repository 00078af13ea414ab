"""The report is true: to the endpoint's own ledger, to the output file, and to itself."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reporting import STARTED_AT, hand_made, make_answer, make_call, report_run, reported

from engine.adapters.store import InputRow, temporary_store
from engine.report.document import Percentiles, Report
from engine.report.metrics import Counters
from engine.report.summary import draw_again, without_credentials, write_report
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.config import Limits, Prices, RunConfig
from engine.vocabulary.errors import ConfigError, EngineError, RunStopped
from support import make_config, make_records

PRICES = Prices(input=1.0, output=4.0, cached_input=0.5)
FAULTS: dict[str, Any] = {
    "drop": 0.03,
    "http_500": 0.05,
    "http_429": 0.03,
    "off_label": 0.03,
    "reset": 0.03,
    "cut": 0.03,
}


def nearest_rank(values: Sequence[float], percent: int) -> float:
    """The definition, by sorting."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def test_the_report_has_every_key_of_the_contract(tmp_path: Path) -> None:
    """Others read these keys; more may come, none may go."""
    write_report(tmp_path, report_run(tmp_path).report)
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["records"].keys() >= {"total", "ok", "failed"}
    assert document["requests"].keys() >= {"total", "http_429", "retried", "malformed", "splits"}
    assert document["tokens"].keys() >= {"input", "cached", "output", "wasted"}
    assert "records_per_s" in document["throughput"]
    for latencies in (document["latency_s"]["request"], document["latency_s"]["record"]):
        assert latencies.keys() >= {"p50", "p90", "p95", "p99", "max"}
    assert document.keys() >= {"limits", "batch_size", "cost", "seed", "settings", "versions", "all_runs", "stop"}
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report).records.total == 200


def test_the_report_agrees_with_the_endpoint_s_ledger(tmp_path: Path) -> None:
    """Counts and tokens exactly, failed attempts included; latencies to the step of the virtual clock."""
    simulator = SimulatorConfig(faults=FAULTS, seed=5, delay_s=0.5)
    made = report_run(tmp_path, make_records(600), make_config(10), simulator)
    report, ledger = made.report, made.endpoint.ledger
    assert report.requests.total == ledger.requests
    assert report.requests.http_429 == ledger.by_status[429] > 0
    assert report.requests.by_status == {str(status): count for status, count in ledger.by_status.items() if count}
    assert report.tokens.input == ledger.prompt_tokens
    assert report.tokens.output == ledger.completion_tokens
    assert report.requests.complete + report.requests.malformed == ledger.by_status[200]
    assert sum(report.requests.causes.values()) + report.requests.complete == ledger.requests
    assert report.latency_s.request.count == ledger.requests
    for percent in (50, 90, 95, 99):
        measured = getattr(report.latency_s.request, f"p{percent}")
        assert measured == pytest.approx(nearest_rank(list(ledger.delays_s), percent), abs=1e-3)
    assert report.limits.concurrency.peak == ledger.peak_in_flight
    assert report.limits.rpm.peak == ledger.most_in_window(60.0)[0]


def test_the_report_agrees_with_the_output_file(tmp_path: Path) -> None:
    """Ok and failed are the lines of the output, whatever a stopped run had reached."""
    config = msgspec.structs.replace(make_config(10), prices=PRICES, budget_usd=0.01)
    first = report_run(tmp_path, make_records(1000), config)
    assert isinstance(first.stopped, RunStopped)
    assert first.report.stop is not None
    assert first.report.stop.kind == "budget"
    counts = first.report.records
    assert counts.ok == len(first.output.read_text().splitlines())
    assert (counts.total, counts.pending) == (1000, 1000 - counts.ok)
    second = report_run(tmp_path, make_records(1000))
    assert second.report.records.stored == counts.ok
    assert second.report.records.ok == 1000
    assert second.report.throughput.valid_records == 1000 - counts.ok
    runs = second.report.all_runs
    assert runs.runs == 2
    assert runs.requests == first.report.requests.total + second.report.requests.total
    assert runs.input_tokens == first.report.tokens.input + second.report.tokens.input


def test_a_run_that_sends_nothing_has_no_latencies(tmp_path: Path) -> None:
    """A second call of the same command: everything stored, nothing measured, nothing divided by zero."""
    report_run(tmp_path)
    again = report_run(tmp_path, config=msgspec.structs.replace(make_config(10), prices=PRICES)).report
    assert (again.records.ok, again.records.stored, again.requests.total) == (200, 200, 0)
    assert again.latency_s.request == again.latency_s.record == Percentiles()
    assert again.throughput.records_per_s is None
    assert again.cost is not None
    assert (again.cost.usd, again.cost.per_1000_valid_usd) == (0.0, None)
    assert again.over_time == []
    assert again.tokens.wasted_share is None


def test_copies_are_told_apart(tmp_path: Path) -> None:
    """Records with the same input share an answer: they count as ok, and as copied."""
    records = make_records(100, lambda number: f"text {number % 40}")
    report = report_run(tmp_path, records).report
    assert (report.records.ok, report.records.copied) == (100, 60)
    assert report.throughput.valid_records == 100


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 100, 101])
def test_percentiles_are_nearest_rank(count: int) -> None:
    """Each is one of the measured values, for any number of them."""
    values = [float((number * 37) % count + 1) for number in range(count)]
    calls = [make_call(number, latency_s=value) for number, value in enumerate(values, start=1)]
    answers = [make_answer(f"r{number}", latency_s=value) for number, value in enumerate(values)]
    report = hand_made(calls, answers)
    expected = {f"p{percent}": nearest_rank(values, percent) for percent in (50, 90, 95, 99)}
    for found in (report.latency_s.request, report.latency_s.record):
        assert found == Percentiles(**expected, max=max(values), count=count)


def test_record_latency_leaves_out_what_was_never_asked() -> None:
    """Neither a record refused before it was sent nor one taken over from an earlier run has a latency."""
    answers = [
        make_answer("asked", latency_s=3.0),
        make_answer("follower", latency_s=2.0, copied=True),
        make_answer("taken over", latency_s=0.0, copied=True, answered_at=50.0),
        make_answer("refused", latency_s=0.0, calls=(), output=None, error_kind="too-long", error_message="long"),
    ]
    report = hand_made([make_call(1)], answers)
    assert report.latency_s.record.count == 2
    assert report.latency_s.record.max == 3.0
    assert report.throughput.valid_records == 2


def test_throughput_is_from_first_send_to_last_result() -> None:
    """Set-up and validation are not in it; the steady part leaves out ramp and tail."""
    times = [100.0 + number for number in range(1, 101)]
    answers = [make_answer(f"r{number}", answered_at=at) for number, at in enumerate(times)]
    report = hand_made([make_call(1, sent_at=100.0)], [*answers, make_answer("slow", answered_at=400.0)])
    assert report.throughput.span_s == 300.0
    assert report.throughput.records_per_s == pytest.approx(101 / 300, abs=1e-6)
    assert report.throughput.steady is not None
    assert report.throughput.steady.records_per_s == pytest.approx(1.0)
    assert sum(moment.ok for moment in report.over_time) == 101
    assert report.over_time[-1].at_s == pytest.approx(300.0)


def test_goodput_is_what_was_valid_in_time() -> None:
    """Failed records and late ones are not in it; without a target there is none."""
    late = [make_answer(f"r{seconds}", latency_s=float(seconds), answered_at=110.0) for seconds in range(1, 11)]
    failed = make_answer("f", latency_s=1.0, output=None, error_kind="missing", error_message="gone")
    config = RunConfig(target_p95_s=4.0)
    assert hand_made([make_call(1)], [*late, failed], config=config).throughput.goodput_per_s == pytest.approx(0.4)
    assert hand_made([make_call(1)], late).throughput.goodput_per_s is None


def test_the_peak_of_a_limit_is_over_sixty_seconds() -> None:
    """Two requests just 60 s apart are in different minutes; two 59 s apart are in the same one."""
    calls = [
        make_call(number, sent_at=at, input_tokens=10, output_tokens=number)
        for number, at in enumerate([100.0, 160.0, 219.0, 300.0], start=1)
    ]
    counters = Counters(requests=4, tokens_input=40, tokens_output=10)
    config = RunConfig(limits=Limits(requests_per_minute=2.0))
    report = hand_made(calls, [], counters=counters, config=config)
    assert report.limits.rpm.peak == 2
    assert report.limits.tpm.peak == 20 + 2 + 3
    assert report.limits.rpm.utilisation == pytest.approx(4 / (201 / 60) / 2, abs=1e-4)
    assert report.limits.tpm.utilisation is None


def test_what_bound_is_what_held_requests_longest() -> None:
    """Below a tenth of the time nothing bound."""
    calls = [make_call(1, sent_at=100.0, latency_s=100.0)]
    held = hand_made(calls, [], counters=Counters(wait_s=Counter(tokens=60.0, window=20.0)))
    assert held.limits.bound_by == "tpm"
    assert held.queue_wait_s.tpm == 60.0
    free = hand_made(calls, [], counters=Counters(wait_s=Counter(tokens=6.0)))
    assert free.limits.bound_by is None


def test_failures_are_by_kind_with_a_few_examples() -> None:
    """The commonest kind first; of each a few, in the order of the input; broken records beside them."""
    answers = [
        make_answer(f'"r{number}"', output=None, error_kind="missing", error_message=f"no {number}", calls=(1, 2))
        for number in range(9)
    ]
    answers.append(make_answer("7", output=None, error_kind="too-long", error_message="x" * 5_000, calls=()))
    keys = [f'"r{number}"' for number in range(8, -1, -1)]
    inputs = [
        InputRow(position=place, line=place + 1, id=key, key=key, digest=key.encode())
        for place, key in enumerate([*keys, "7"])
    ]
    inputs.append(InputRow(position=10, line=11, id="null", key=None, digest=None, error="not JSON"))
    report = hand_made([make_call(1)], answers, inputs=inputs)
    assert [(kind.kind, kind.count, len(kind.examples)) for kind in report.failures] == [
        ("missing", 9, 5),
        ("bad-record", 1, 1),
        ("too-long", 1, 1),
    ]
    first = report.failures[0].examples[0]
    assert (first.id, first.line, first.message, first.calls) == ("r8", 1, "no 8", [1, 2])
    assert report.failures[1].examples[0].line == 11
    assert report.failures[2].examples[0].id == 7
    assert len(report.failures[2].examples[0].message) == 600
    assert (report.records.total, report.records.failed) == (11, 11)


def test_without_a_noted_input_the_counters_count() -> None:
    """Single records of many callers are noted nowhere as an input."""
    answers = [make_answer("a"), make_answer("b", output=None, error_kind="missing", error_message="gone")]
    report = hand_made([make_call(1)], answers, counters=Counters(records_ok=1, records_failed=1))
    assert (report.records.total, report.records.ok, report.records.failed) == (2, 1, 1)
    assert report.failures[0].examples[0].id == "b"


def test_cost_is_priced_with_cached_and_wasted_tokens() -> None:
    """Cached tokens are inside input; unknown prices are no cost, rather than none."""
    calls = [
        make_call(1, input_tokens=1_000_000, cached_tokens=500_000, output_tokens=100_000),
        make_call(2, accepted=0, outcome="no-json", input_tokens=100_000, output_tokens=10_000),
    ]
    counters = Counters(tokens_input=1_100_000, tokens_cached=500_000, tokens_output=110_000)
    report = hand_made(calls, [make_answer("a"), make_answer("b")], counters=counters, prices=PRICES)
    assert report.cost is not None
    assert report.cost.usd == pytest.approx(0.6 + 0.25 + 0.44)
    assert report.cost.per_1000_valid_usd == pytest.approx(report.cost.usd * 500)
    assert report.cost.wasted_usd == pytest.approx(0.1 + 0.04)
    assert report.all_runs.usd == pytest.approx(report.cost.usd)
    unpriced = hand_made(calls, [])
    assert (unpriced.cost, unpriced.all_runs.usd) == (None, None)


def test_the_run_after_a_kill_says_what_was_lost() -> None:
    """Requests in flight at a kill may be billed: the next run that ends says so, in tokens and money; later ones not.

    A killed run says nothing itself, so what two of them lost in turn is said together.
    """
    store = temporary_store()
    settings_id = store.settings(task_key="t", model="m", task="{}")

    def run(status: str, *calls: int) -> int:
        run_id = store.begin_run(settings_id=settings_id, started_at=100.0, config="{}")
        rows = [
            make_call(number, accepted=0, outcome="killed", unconfirmed_input=300_000, unconfirmed_output=50_000)
            for number in calls
        ]
        store.write(run_id, settings_id, rows, [])
        if status:
            store.end_run(run_id, ended_at=101.0, status=status)
        return run_id

    def lost(run_id: int) -> list[str]:
        return [notice for notice in reported(store, run_id, settings_id, prices=PRICES).notices if "killed" in notice]

    with closing(store):
        assert lost(run("done")) == []
        run("killed", 1)
        run("killed", 2, 3)
        (said,) = lost(run("done"))
        assert said.startswith(
            "3 requests were in flight when the run before this one was killed, or could not note its end"
        )
        assert "up to 1,050,000 tokens, $1.50, for them" in said
        assert lost(run("done")) == []


def test_what_minibatches_saved_counts_repeated_calls_against_us() -> None:
    """static x (answers - calls that carried the prompt), of what one record a call would have sent."""
    calls = [
        make_call(1, size=10, accepted=9, outcome="missing", input_tokens=300),
        make_call(2, input_tokens=120),
        make_call(3, status=500, accepted=0, outcome="server"),
    ]
    report = hand_made(calls, [], counters=Counters(tokens_input=420), static_tokens=100)
    assert report.tokens.saved is not None
    assert (report.tokens.saved.answers, report.tokens.saved.calls, report.tokens.saved.input) == (10, 2, 800)
    assert report.tokens.saved.share == pytest.approx(800 / 1220, abs=1e-6)
    assert hand_made(calls, []).tokens.saved is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://user:secret@host:8000/v1?key=secret#secret", "https://host:8000/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://[broken?key=secret", "http://[broken"),
        ("embedded model", "embedded model"),
    ],
)
def test_no_credentials_of_an_address_are_shown(given: str, shown: str) -> None:
    """A report is passed on; keys in addresses are not."""
    assert without_credentials(given) == shown


def test_files_are_for_the_owner_only_and_folders_are_made(tmp_path: Path) -> None:
    """As the output is: it holds excerpts of the data."""
    page = write_report(tmp_path / "a" / "b", report_run(tmp_path).report)
    assert page == tmp_path / "a" / "b" / "report.html"
    for name in ("report.json", "report.html"):
        assert (tmp_path / "a" / "b" / name).stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="the report cannot be written to"):
        write_report(tmp_path / "file", report_run(tmp_path).report)


def test_what_cannot_be_encoded_is_replaced(tmp_path: Path) -> None:
    """A lone surrogate in an endpoint's words costs a character, not the report."""
    report = hand_made([], [], stopped=RunStopped("brake", "half \ud83d a pair"), task_name="\udc80.toml")
    write_report(tmp_path, report)
    assert json.loads((tmp_path / "report.json").read_text())["stop"]["message"] == "half � a pair"


def test_times_are_utc_and_settings_hold_what_was_run(tmp_path: Path) -> None:
    """Enough to run it again."""
    report = report_run(tmp_path, config=make_config(7, concurrency=3)).report
    assert report.started_at == "2025-10-09T08:53:20+00:00"
    assert report.wall_s == 90.0
    assert STARTED_AT == 1_760_000_000.0
    assert report.settings["packing"]["batch_size"] == report.batch_size.configured == 7
    assert report.settings["limits"]["max_concurrency"] == 3
    assert report.batch_size.max == 7
    assert sum(use.requests for use in report.batch_size.by_size) == report.requests.total
    assert (report.mode, report.simulated) == ("simulated", True)


def test_a_page_is_drawn_again_from_its_figures(tmp_path: Path) -> None:
    """The same page, by folder or by file, without the run or its store; the figures stay as they are."""
    page = write_report(tmp_path / "out", report_run(tmp_path).report)
    drawn, figures = page.read_text(), (tmp_path / "out" / "report.json").read_bytes()
    for given in (tmp_path / "out", tmp_path / "out" / "report.json"):
        page.unlink()
        assert draw_again(given) == page
        assert page.read_text() == drawn
    assert (tmp_path / "out" / "report.json").read_bytes() == figures


@pytest.mark.parametrize("content", [None, b"{}", b"[1", b"\xff\xfe", b'{"records": 1}'])
def test_what_is_no_report_is_told_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    """Which file, what is wrong with it, and what to give instead."""
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"report\.json .*give the folder that was named by --report"):
        draw_again(tmp_path)
