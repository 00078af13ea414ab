"""The event log: what one can find out from it alone, that each event is one line, and that it is in nobody's way."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, make_files, served

from engine.run import log as run_log
from engine.run.log import LOGGER, Event, RunLog
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.config import RunConfig
from support import make_config, make_records, simulate

COMMON = {"at", "level", "event", "run"}


def events_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged_run(
    folder: Path, *more: Any, simulator: dict[str, Any], count: int = 30
) -> tuple[int, list[dict[str, Any]]]:
    """A run against a simulated endpoint: its exit code and its log."""
    log = folder / "log.jsonl"
    with served(**({"labels": ("red", "green", "blue")} | simulator)) as (url, _):
        words = ["run", *make_files(folder, count), "--output", folder / "o.jsonl", "--base-url", url, "--model", "m"]
        result = command(*words, "--log-json", log, *more)
    return result.exit_code, events_of(log)


# -- what a log tells ------------------------------------------------------------------------------------------------


def test_each_event_is_a_line_with_its_time_level_and_run(tmp_path: Path) -> None:
    """From the start, with its settings, to the end, with its counts; at debug every call between them."""
    code, events = logged_run(tmp_path, "--log-level", "debug", simulator={})
    assert code == 0
    assert all(set(event) >= COMMON for event in events)
    assert len({event["run"] for event in events}) == 1
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("run-started", "run-ended")
    started, ended = events[0], events[-1]
    assert started["settings"]["packing"]["look_ahead"] == 512
    assert (ended["status"], ended["ok"], ended["failed"]) == ("done", 30, 0)
    calls = [event for event in events if event["event"] == "call-ended"]
    assert len(calls) == ended["requests"]
    assert sum(call["accepted"] for call in calls) == 30
    assert sum(call["input_tokens"] for call in calls) == ended["input_tokens"]
    assert {call["level"] for call in calls} == {"debug"}


def test_the_default_level_leaves_out_calls_that_went_well(tmp_path: Path) -> None:
    """What went well is in the last line."""
    _, events = logged_run(tmp_path, simulator={})
    assert "call-ended" not in {event["event"] for event in events}


_STOPS = {
    "auth": ({"api_key": "another"}, ["--max-concurrency", "1"]),
    "brake": ({"mode": "never_format"}, ["--max-concurrency", "2"]),
    "budget": ({}, ["--budget-tokens", "900"]),
}


@pytest.mark.parametrize("kind", _STOPS)
def test_the_log_of_a_failed_run_alone_says_why(kind: str, tmp_path: Path) -> None:
    """The cause, the call that it came with, and the records in it: no store and no report is needed."""
    simulator, words = _STOPS[kind]
    code, events = logged_run(tmp_path, *words, simulator=simulator)
    assert code == 4
    stopping = next(event for event in events if event["event"] == "stopping")
    assert (stopping["kind"], stopping["level"]) == (kind, "warning")
    assert events[-1]["status"] == kind
    if kind == "budget":
        assert "900 tokens" in stopping["message"]
        return
    before = events[: events.index(stopping)]
    call = [event for event in before if event["event"] == "call-ended"][-1]
    assert call["outcome"] in ("auth", "no-json")
    assert call["says"]
    assert set(call["records"]) <= {f"r{number}" for number in range(30)}
    assert call["records"]
    assert call["call"] > 0


def test_a_record_that_is_given_up_is_a_warning_with_its_reason(tmp_path: Path) -> None:
    """Its id, kind and message; the calls before it, each with what was done about it."""
    code, events = logged_run(
        tmp_path, "--attempts", "2", "--max-failed", "1", "--batch-size", "2",
        simulator={"faults": {"off_label": 0.3}, "strike": "every", "seed": 3},
    )  # fmt: skip
    assert code == 3
    failed = {one["id"]: one for event in events for one in event.get("given_up", ())}
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert set(failed) == {row["id"] for row in rows if row["error"]}
    assert all(one["kind"] and one["message"] for one in failed.values())
    levels = {event["level"] for event in events if "given_up" in event}
    assert levels == {"warning"}
    assert {event["remedy"] for event in events if "remedy" in event} >= {"asked again", "given up"}


def test_every_fault_is_told_with_its_remedy(tmp_path: Path) -> None:
    """As many as the run counts by cause in its last line, at info."""
    _, events = logged_run(tmp_path, simulator={"faults": {"http_500": 0.2, "http_429": 0.1, "drop": 0.2}, "seed": 2})
    told: dict[str, int] = {}
    for event in events:
        if event["event"] == "call-ended":
            assert event["remedy"]
            told[event["outcome"]] = told.get(event["outcome"], 0) + 1
    assert told == events[-1]["causes"]
    assert len(told) >= 3
    assert {event["cause"] for event in events if event["event"] == "paused"} >= {"rate-limit"}


def test_a_broken_input_and_a_wrong_store_are_told(tmp_path: Path) -> None:
    """Errors before anything is sent are in the log as well."""
    task, data = make_files(tmp_path)
    Path(data).write_text('{"id": 1, "text": "x"}\n{broken\n')
    log = tmp_path / "log.jsonl"
    words = ["run", task, data, "--output", tmp_path / "o.jsonl", "--base-url", "http://127.0.0.1:9", "--model", "m"]
    assert command(*words, "--log-json", log).exit_code == 2
    last = events_of(log)[-1]
    assert (last["event"], last["level"], last["error"]) == ("failed", "error", "InputError")
    assert "line 2" in last["message"]


# -- what the controllers do -------------------------------------------------------------------------------------------


def heard(config: RunConfig, simulator: SimulatorConfig, caplog: pytest.LogCaptureFixture, count: int) -> list[Event]:
    """Events of a run on virtual time."""
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        simulate(make_records(count), config, simulator)
    return [record.msg for record in caplog.records if isinstance(record.msg, Event)]


def test_moves_of_the_controllers_are_told_once_with_their_reasons(caplog: pytest.LogCaptureFixture) -> None:
    """Window, size, and a limit that was found; the last of each is where the run ended up."""
    simulator = SimulatorConfig(rpm=600, labels=("red", "green", "blue"), delay_s=0.5)
    events = heard(RunConfig(), simulator, caplog, 4_000)
    for name in ("window-moved", "size-moved", "limit-found"):
        moves = [event.fields for event in events if event.name == name]
        assert moves, name
        assert all(move["reason"] for move in moves)
        assert len(moves) <= 200
    sizes = [event.fields for event in events if event.name == "size-moved"]
    assert [move["old"] for move in sizes[1:]] == [move["new"] for move in sizes[:-1]], "each once, in order"
    assert any(event.name == "guard-verdict" for event in events)


# -- in nobody's way ---------------------------------------------------------------------------------------------------


def test_importing_and_running_installs_no_handler_and_prints_nothing() -> None:
    """In a program that has not set up logging, a run that is stopped prints nothing of its own."""
    program = """
import logging, anyio
from engine import Engine, Endpoint, RunConfig, Task
assert logging.getLogger().handlers == []
logger = logging.getLogger("annotation_engine")
assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
assert logger.level == logging.NOTSET

async def main():
    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", model="m")
    async with Engine(endpoint, RunConfig(budget_tokens=1)) as engine:
        try:
            async for _ in engine.annotate(Task(instructions="x", labels=["a", "b"]), ["one"]):
                pass
        except Exception as error:
            assert "budget" in str(error)
        else:
            raise AssertionError

anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_put_into_words_while_the_level_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a listener no event is made, and no history of a controller is read."""
    assert not LOGGER.isEnabledFor(logging.INFO)
    monkeypatch.setattr(run_log, "Event", None)
    monkeypatch.setattr(RunLog, "moves", None)
    monkeypatch.setattr(run_log, "_trouble", None)
    outcome = simulate(make_records(50), make_config(5), SimulatorConfig(faults={"drop": 0.2, "http_500": 0.2}, seed=1))
    assert len(outcome.ok) == 50


def test_without_a_file_it_goes_to_standard_error_without_a_progress_display(tmp_path: Path) -> None:
    """What is left of standard error is the end of the run; standard output holds the results alone."""
    with served(labels=("red", "green", "blue"), delay_s=0.3) as (url, _):
        words = ["run", *make_files(tmp_path), "--output", "-", "--base-url", url, "--model", "m"]
        result = command(*words, "--log-json", "--max-concurrency", "1")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert (events[0], events[-1]) == ("run-started", "run-ended")
    assert not [line for line in lines if "in flight" in line and line.startswith(("0 of", "1 of", "12 of"))]
    assert all("output" in json.loads(line) for line in result.stdout.splitlines())


def test_a_level_alone_logs_text(tmp_path: Path) -> None:
    """One line an event: time, level, name, fields."""
    with served(labels=("red", "green", "blue")) as (url, _):
        words = ["run", *make_files(tmp_path), "--output", tmp_path / "o.jsonl", "--base-url", url, "--model", "m"]
        result = command(*words, "--log-level", "info")
    line = next(line for line in result.stderr.splitlines() if " run-ended " in line)
    assert " info run-ended run=" in line
    assert "ok=12" in line.split()


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    """Neither an id nor an endpoint's words can begin a line of their own or steer a terminal."""
    text = str(Event(name="n", run="r", fields={"id": "a\nb\x1b[31m\u202e\u2028\ud800", "n": 1}))
    assert len(text.splitlines()) == 1
    assert text.isascii()
    assert text.isprintable()


def test_an_earlier_log_is_added_to_and_another_file_is_left_alone(tmp_path: Path) -> None:
    """A log is kept; a task that was named by mistake is refused."""
    with served(labels=("red", "green", "blue")) as (url, _):
        task, data = make_files(tmp_path)
        words = ["run", task, data, "--output", tmp_path / "o.jsonl", "--base-url", url, "--model", "m", "--log-json"]
        assert command(*words, tmp_path / "log.jsonl").exit_code == 0
        assert command(*words, tmp_path / "log.jsonl").exit_code == 0
        for wrong in (task, data, tmp_path / "o.jsonl"):
            content = Path(wrong).read_bytes()
            assert command(*words, wrong).exit_code == 2
            assert Path(wrong).read_bytes() == content
    assert [event["event"] for event in events_of(tmp_path / "log.jsonl")].count("run-started") == 2


def test_a_log_goes_on_after_half_a_line(tmp_path: Path) -> None:
    """A full disk, or a kill, leaves half a line behind. The next run's lines are not glued to it."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"at": "2026-01-01T00:00:00Z", "level": "info", "eve')
    with served(labels=("red", "green", "blue")) as (url, _):
        words = ["run", *make_files(tmp_path), "--output", tmp_path / "o.jsonl", "--base-url", url, "--model", "m"]
        assert command(*words, "--log-json", log).exit_code == 0
    half, *lines = log.read_text().splitlines()
    assert half.endswith("eve")
    assert json.loads(lines[0])["event"] == "run-started"
    assert [json.loads(line)["event"] for line in lines][-1] == "run-ended"


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    """A full disk under the log is told once."""
    with served(labels=("red", "green", "blue")) as (url, _):
        words = ["run", *make_files(tmp_path), "--output", tmp_path / "o.jsonl", "--base-url", url, "--model", "m"]
        result = command(*words, "--log-json", "/dev/full")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("the log cannot be written") == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("task", "task.toml"),
        ("input", "in.jsonl"),
        ("price", "a budget in dollars needs prices"),
        ("output", "--output"),
    ],
)
def test_what_is_refused_before_anything_is_opened_is_logged(wrong: str, says: str, tmp_path: Path) -> None:
    """A missing file, a budget without a price, a missing option: one `failed` event, and no second one."""
    files, log = make_files(tmp_path), tmp_path / "log.jsonl"
    words: list[Any] = ["run", *files, "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--log-json", log]
    if wrong != "output":
        words += ["--output", tmp_path / "o.jsonl"]
    if wrong == "price":
        words += ["--budget-usd", "1"]
    if wrong in ("task", "input"):
        Path(files[wrong == "input"]).unlink()
    assert command(*words).exit_code == 2
    (event,) = events_of(log)
    assert (event["event"], event["level"]) == ("failed", "error")
    assert says in event["message"]
    assert "trace" not in event


@pytest.mark.parametrize("name", ["run", "retry", "bench", "tune"])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--rpm", "many"], "'many' is not a valid"),
        (["--no-such"], "--no-such"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["too", "many", "words"], "extra argument"),
        (["sk-1234567890abcdefgh", "extra", "words"], "extra argument"),
    ],
    ids=["value", "option", "level", "words", "key"],
)
def test_a_command_line_that_cannot_be_read_is_logged(name: str, wrong: list[str], says: str, tmp_path: Path) -> None:
    """What is refused before there are options is in the log that the words name, once, and no key with it."""
    for number, given in enumerate((["--log-json", tmp_path / "0.jsonl"], [f"--log-json={tmp_path / '1.jsonl'}"])):
        log = tmp_path / f"{number}.jsonl"
        assert command(name, "a", "b", *given, *wrong).exit_code == 2
        (event,) = events_of(log)
        assert (event["event"], event["level"]) == ("failed", "error")
        assert says in event["message"]
        assert "sk-1234" not in log.read_text()
        assert log.stat().st_mode & 0o777 == 0o600


def test_a_refused_command_line_writes_no_log_over_another_file(tmp_path: Path) -> None:
    """Neither over a file that is no log, nor into one that the line names besides; without the option nothing is made,
    and an option without a file is standard error."""
    task, empty = tmp_path / "task.toml", tmp_path / "empty.jsonl"
    task.write_text("x = 1")
    empty.touch()
    for words in (["--log-json", task], ["--log-json", empty, f"--output={empty}"], ["--log-json", "\0"], []):
        result = command("run", task, empty, *words, "--rpm", "many")
        assert result.exit_code == 2
        assert "is not a valid" in result.stderr
    assert (task.read_text(), empty.read_text()) == ("x = 1", "")
    assert {path.name for path in tmp_path.iterdir()} == {"task.toml", "empty.jsonl"}
    lines = command("run", task, empty, "--rpm", "many", "--log-json").stderr.splitlines()
    assert [json.loads(line)["event"] for line in lines if line.startswith("{")] == ["failed"]


def test_a_log_that_is_another_file_too_is_not_written(tmp_path: Path) -> None:
    """The file that an error names is not made by telling it."""
    log, out = tmp_path / "same.jsonl", tmp_path / "same.jsonl"
    words = ["run", *make_files(tmp_path), "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
    result = command(*words, "--output", out, "--log-json", log)
    assert result.exit_code == 2
    assert not log.exists()


def test_refusals_of_retry_and_bench_are_logged(tmp_path: Path) -> None:
    """They have the same options, and the same promise."""
    files, log = make_files(tmp_path), tmp_path / "log.jsonl"
    assert command("retry", tmp_path / "none.jsonl", "--log-json", log).exit_code == 2
    Path(files[0]).unlink()
    words = ["bench", *files, "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--log-json", log]
    assert command(*words, "--output", tmp_path / "bench.json").exit_code == 2
    assert [event["event"] for event in events_of(log)] == ["failed", "failed"]


def test_refusals_of_tune_are_logged_and_what_ends_it(tmp_path: Path) -> None:
    """A missing task, gold that cannot be used, a space that leaves nothing, a wrong key: one `failed` event each, none
    twice; a file that the command reads is never taken for a log."""
    files, log = make_files(tmp_path), tmp_path / "log.jsonl"
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"text": "a", "label": "red"}\n{"text": "b", "label": "blue"}\n')
    space = tmp_path / "space.toml"
    space.write_text("batch_size = [1]\nvotes = [3]\n")
    where = ("--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    for task, told, more in (
        ("none.toml", gold, ()), (files[0], files[1], ()), (files[0], gold, ("--space", space)),
    ):  # fmt: skip
        assert command("tune", tmp_path / task, told, *where, *more, "--log-json", log).exit_code == 2
    events = [(event["event"], event["message"]) for event in events_of(log)]
    assert [name for name, _ in events] == ["failed"] * 3
    for (_, message), says in zip(events, ("none.toml", "in.jsonl", "say nothing"), strict=True):
        assert says in message
    assert command("tune", tmp_path / "none.toml", gold, *where, "--log-json", gold).exit_code == 2
    assert gold.read_text().count("\n") == 2
    with served(api_key="another") as (url, _):
        other = tmp_path / "key.jsonl"
        words = ("tune", files[0], gold, "--base-url", url, "--model", "m", "--gold-field", "label")
        assert command(*words, "--log-json", other).exit_code == 4
        assert [event["event"] for event in events_of(other)].count("failed") <= 1
        assert any(event["level"] == "error" for event in events_of(other))
