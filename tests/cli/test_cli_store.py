"""`annotate show`, `export` and `retry`: what a store holds, and asking again for some of it."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_support import PATIENCE_S, command, make_files, rows_of, served, start_command, wait_until

from engine import Endpoint, Task, annotate_sync
from engine.adapters.store import CallRow, open_store, read_store
from engine.adapters.stored import OutcomeCount, outcome_counts
from engine.testing.simulator.answers import stable_number

POISONED = (3, 7)


def _text(number: int) -> str:
    return f"text {number} POISON" if number in POISONED else f"text {number}"


def run_poisoned(folder: Path, url: str, *options: str | Path, count: int = 12) -> Path:
    """A finished run in which the records of `POISONED` failed, where the endpoint knows the marker."""
    out = folder / "out.jsonl"
    files = make_files(folder, count, text=_text)
    result = command("run", *files, "--base-url", url, "--model", "m", "--output", out, *options)
    assert result.exit_code in (0, 3), result.output
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The output of such a run, its store beside it; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    with served(poison_marker="POISON") as (url, _):
        yield run_poisoned(folder, url)


# -- show --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".store.sqlite"])
def test_show_sums_up_a_store(finished: Path, suffix: str) -> None:
    """Without an id: task, model, input, answers by kind, requests, tokens and runs; by store or by output."""
    shown = command("show", f"{finished}{suffix}")
    assert shown.exit_code == 0, shown.output
    for part in ("Say which colour", "red, green, blue", "12 in the input, 10 ok, 2 failed", "#1", "done"):
        assert part in shown.stdout


def test_show_sums_up_for_programs(finished: Path) -> None:
    """`--json`: the same as one document, true to the calls in the store."""
    view = json.loads(command("show", finished, "--json").stdout)
    assert view["records"] == {"total": 12, "ok": 10, "failed": 2, "unusable": 0}
    assert {answer["kind"] is None: answer["count"] for answer in view["answers"]} == {True: 10, False: 2}
    store = read_store(f"{finished}.store.sqlite")
    ((calls, tokens),) = store.query("SELECT count(*), sum(input_tokens + output_tokens) FROM calls")
    store.close()
    assert sum(one["requests"] for one in view["requests"]) == calls
    assert sum(one["input_tokens"] + one["output_tokens"] for one in view["requests"]) == tokens


def test_show_tells_why_a_record_failed(finished: Path) -> None:
    """With an id: the error, the input as it was read, and every call that asked for it, in order, raw replies too."""
    (story,) = map(json.loads, command("show", finished, "r3", "--json").stdout.splitlines())
    assert (story["status"], story["line"], story["input"]) == ("failed", 4, "text 3 POISON")
    numbers = [call["number"] for call in story["calls"]]
    assert numbers == sorted(numbers)
    assert len(numbers) >= 3
    assert [call["records"] for call in story["calls"]][-1] == 1
    assert story["cost_tokens"] == pytest.approx(
        sum((call["input_tokens"] + call["output_tokens"]) / call["records"] for call in story["calls"]), abs=0.1
    )
    assert all(call["raw"] for call in story["calls"])
    text = command("show", finished, "r3").stdout
    assert "text 3 POISON" in text
    assert "reply: " in text


def test_show_tells_how_a_record_was_answered(finished: Path) -> None:
    """A done record shows its output and the size of the request that answered it."""
    row = next(row for row in rows_of(finished) if row["id"] == "r5")
    text = command("show", finished, "r5").stdout
    assert f"output     {row['output']}" in text
    assert "answered in a request of" in text


def test_show_of_an_unknown_record(finished: Path) -> None:
    """An id that is not there is a user's mistake."""
    result = command("show", finished, "R5")
    assert result.exit_code == 2
    assert "'R5'" in result.stderr


def test_show_lists_failed_records(finished: Path) -> None:
    """`--failed`: ids and reasons in the order of the input, bounded."""
    rows = [json.loads(line) for line in command("show", finished, "--failed", "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == ["r3", "r7"]
    assert all(row["error"]["kind"] and row["error"]["message"] for row in rows)
    assert "and more" in command("show", finished, "--failed", "--limit", "1").stdout


def test_show_samples_done_records(finished: Path) -> None:
    """`--sample N`: done records only, each with its own input; the seed draws the same ones again."""
    words = ["show", finished, "--sample", "4", "--seed", "5"]
    rows = [json.loads(line) for line in command(*words, "--json").stdout.splitlines()]
    outputs = {row["id"]: row["output"] for row in rows_of(finished)}
    assert len({row["id"] for row in rows}) == 4
    for row in rows:
        assert row["input"] == _text(int(row["id"][1:]))
        assert row["output"] == outputs[row["id"]] is not None
    assert command(*words).stdout == command(*words).stdout
    assert command("show", finished, "--sample", "99", "--json").stdout.count("\n") == 10


def test_show_never_gives_another_text(tmp_path: Path) -> None:
    """An input that changed since is told, and never shown as if it had been asked; a moved one is found."""
    with served() as (url, _):
        out = run_poisoned(tmp_path, url)
    data = tmp_path / "in.jsonl"
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join([json.dumps({"id": "r0", "text": "something else"}) + "\n", *lines[1:]]))
    shown = command("show", out, "r0").stdout
    assert "the file changed since" in shown
    assert "something else" not in shown
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in [data, out, tmp_path / "out.jsonl.store.sqlite"]:
        path.rename(moved / path.name)
    assert "text 1" in command("show", moved / "out.jsonl", "r1").stdout
    (moved / "in.jsonl").unlink()
    assert "no longer there" in command("show", moved / "out.jsonl", "r1").stdout


def test_show_tells_numbers_from_strings(tmp_path: Path) -> None:
    """An id given as 7 means the number and the string; in quotation marks the string only."""
    task, data = make_files(tmp_path)
    Path(data).write_text('{"id":7,"text":"a"}\n{"id":"7","text":"b"}\n{"id":"x","text":"a"}\n')
    with served() as (url, _):
        assert command("run", task, data, "--base-url", url, "--model", "m", "-o", tmp_path / "o.jsonl").exit_code == 0
    both = command("show", tmp_path / "o.jsonl", "7", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in both] == [7, "7"]
    (quoted,) = command("show", tmp_path / "o.jsonl", '"7"', "--json").stdout.splitlines()
    assert json.loads(quoted)["input"] == "b"
    copied = [json.loads(command("show", tmp_path / "o.jsonl", id_, "--json").stdout) for id_ in ("x",)]
    assert copied[0]["copied"]
    assert copied[0]["cost_tokens"] == 0


def test_show_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """Escape sequences in data are spelled out."""
    task, data = make_files(tmp_path, text=lambda n: f"\x1b[2J{n}")
    with served() as (url, _):
        assert command("run", task, data, "--base-url", url, "--model", "m", "-o", tmp_path / "o.jsonl").exit_code == 0
    for words in (["r1"], ["--sample", "3"]):
        shown = command("show", tmp_path / "o.jsonl", *words).stdout
        assert "\x1b" not in shown
        assert "\\u001b[2J" in shown


def test_show_tells_a_killed_run_and_what_was_in_flight(tmp_path: Path) -> None:
    """A killed process leaves its run open and its requests noted: shown as killed, before anything opens the store."""
    files, out = make_files(tmp_path, 40), tmp_path / "out.jsonl"
    with served(delay_s=2 * PATIENCE_S) as (url, _):
        words = ["run", *files, "--base-url", url, "--model", "m", "--output", out, "--batch-size", "4"]
        process = start_command(*words, "--max-concurrency", "1")
        try:
            wait_until(lambda: "in-flight" in command("show", out, "--json").output)
            going = json.loads(command("show", out, "--json").stdout)
        finally:
            process.kill()
            process.communicate()
    assert going["runs"][0]["status"] is None
    assert [(one["outcome"], one["requests"]) for one in going["requests"]] == [("in-flight", 1)]
    killed = json.loads(command("show", out, "--json").stdout)
    assert killed["runs"][0]["status"] == "killed"
    (lost,) = killed["requests"]
    assert (lost["outcome"], lost["requests"], lost["wasted_tokens"]) == ("killed", 1, 0)
    assert lost["unconfirmed_input_tokens"] > 0
    text = command("show", out).stdout
    assert "1: 1 killed" in text
    assert "killed: in flight when a process was killed" in text
    assert f"up to {lost['unconfirmed_input_tokens']:,} input" in text
    assert "killed: its process ended before it did" in text
    with closing(open_store(f"{out}.store.sqlite")) as store:
        assert outcome_counts(store) == [msgspec.convert(lost, OutcomeCount)], "the next opening changes no figure"


def test_requests_that_only_compare_waste_nothing(tmp_path: Path) -> None:
    """Audits bring no answer by design: they are counted apart, and their tokens are not wasted."""
    with closing(open_store(tmp_path / "s.sqlite")) as store:
        settings_id = store.settings(task_key="k", model="m", task="{}")
        run_id = store.begin_run(settings_id=settings_id, started_at=0.0, config="{}")
        common = {"sent_at": 0.0, "latency_s": 1.0, "size": 2, "status": 200, "outcome": "ok", "input_tokens": 100}
        asked = CallRow(id=1, accepted=2, **common)
        store.write(run_id, settings_id, [asked, CallRow(id=2, accepted=0, purpose="audit", **common)], [])
        (count,) = outcome_counts(store)
    assert (count.requests, count.audits, count.barren, count.wasted_tokens) == (2, 1, 0, 0)


def test_commands_say_where_a_store_is_looked_for(tmp_path: Path) -> None:
    """Something that is neither a store nor beside one: exit code 2 and what to give instead."""
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "b.sqlite").write_bytes(b"SQLite format 3\0" + bytes(100))
    (tmp_path / "folder").mkdir()
    assert "no run store is named" in command("show", "").stderr
    assert "is a folder" in command("show", tmp_path / "folder").stderr
    for name in ("a.jsonl", "b.sqlite", "none", "folder"):
        for words in (["show"], ["export", "--output", tmp_path / "x.jsonl"], ["retry"]):
            result = command(words[0], tmp_path / name, *words[1:])
            assert result.exit_code == 2, result.output
            assert name in result.stderr
            assert len(result.stderr.splitlines()) == 1


def test_show_and_export_of_a_programs_store(tmp_path: Path) -> None:
    """A store that a program wrote is shown and exported too; it cannot be retried from the command line."""
    store = tmp_path / "s.sqlite"
    with served() as (url, _):
        task = Task(instructions="Say which colour it is.", labels=["red", "green", "blue"])
        annotate_sync(task, ["one", "two"], endpoint=Endpoint(base_url=url, model="m"), store=store)
    assert "of a program" in command("show", store).stdout
    assert "not available" in command("show", store, "1").stdout
    assert command("export", store, "--output", tmp_path / "o.jsonl").exit_code == 0
    assert [row["id"] for row in rows_of(tmp_path / "o.jsonl")] == [1, 2]
    refused = command("retry", store)
    assert refused.exit_code == 2
    assert "retry_failed=True" in refused.stderr


# -- export ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv", "e.parquet", "e.jsonl.gz"])
def test_export_writes_any_format(finished: Path, tmp_path: Path, name: str) -> None:
    """What is done so far, in the format of the suffix."""
    result = command("export", finished, "--output", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert "12 records" in result.stderr
    assert (tmp_path / name).stat().st_size > 0
    if name == "e.jsonl":
        assert rows_of(tmp_path / name) == rows_of(finished)


def test_an_export_without_some_of_the_records_is_refused(tmp_path: Path) -> None:
    """Rows that somebody took out of the list of the input would be silently missing; the same run notes them again,
    without asking for anything."""
    with served() as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        before, sent, store = out.read_bytes(), endpoint.ledger.requests, tmp_path / "out.jsonl.store.sqlite"
        with closing(sqlite3.connect(store)) as db:
            db.execute("DELETE FROM inputs WHERE position IN (2, 5, 6)")
            db.commit()
        refused = command("export", store, "--output", out)
        assert refused.exit_code == 2
        assert "has 9 records of 12" in refused.stderr
        assert out.read_bytes() == before
        files = [tmp_path / "task.toml", tmp_path / "in.jsonl"]
        command("run", *files, "--base-url", url, "--model", "m", "--output", out)
        assert command("export", store, "--output", out).exit_code == 0
        assert (out.read_bytes(), endpoint.ledger.requests) == (before, sent)


def test_an_input_that_is_no_text_is_not_said_to_have_changed(tmp_path: Path) -> None:
    """What could not be used when it was read cannot be shown either, and its file is as it was."""
    task, data = make_files(tmp_path, 2)
    with Path(data).open("a") as stream:
        stream.write('{"id": "half", "text": "\\ud800"}\n')
    out = tmp_path / "out.jsonl"
    with served() as (url, _):
        words = ["run", task, data, "--base-url", url, "--model", "m", "--output", out]
        assert command(*words, "--on-bad-record", "fail-record").exit_code == 3
    shown = command("show", out, "half").stdout
    assert "changed since" not in shown
    assert "input      not shown: it could not be used as it is" in shown


def test_export_replaces_neither_store_nor_input(finished: Path) -> None:
    """The two files that cannot be made again are refused as an output."""
    for name in ("out.jsonl.store.sqlite", "in.jsonl"):
        assert command("export", finished, "--output", finished.parent / name).exit_code == 2


def test_export_replaces_no_input_of_an_earlier_run(tmp_path: Path) -> None:
    """Two runs of one store over two files: neither file may be written over, whichever run came last."""
    task, first = make_files(tmp_path)
    second, out = tmp_path / "second.jsonl", tmp_path / "o.jsonl"
    second.write_bytes(Path(first).read_bytes())
    before = Path(first).read_bytes()
    with served() as (url, _):
        for source in (first, second):
            words = ("run", task, source, "--output", out, "--base-url", url, "--model", "m")
            assert command(*words).exit_code == 0
    assert command("export", out, "--output", first).exit_code == 2
    assert Path(first).read_bytes() == before


# -- retry -------------------------------------------------------------------------------------------------------


def test_retry_asks_failed_records_again(tmp_path: Path) -> None:
    """By default the failed ones, with the settings of the run; what is done is not sent."""
    with served(poison_marker="POISON") as (url, _):
        out = run_poisoned(tmp_path, url, "--batch-size", "3", "--extra-body", '{"top_p": 1}')
    with served() as (url, healthy):
        result = command("retry", out, "--base-url", url)
        assert result.exit_code == 0, result.output
        assert "2 records are asked again" in result.stderr
        assert sum(healthy.ledger.sends.values()) == 2
        assert all(row["error"] is None for row in rows_of(out))
        again = command("retry", out)
        assert again.exit_code == 0
        assert "nothing is asked again" in again.stderr
        assert sum(healthy.ledger.sends.values()) == 2
    options = _options(out)
    assert (options["batch_size"], options["extra_body"]) == (3, {"top_p": 1})


def _options(out: Path) -> dict[str, Any]:
    store = read_store(f"{out}.store.sqlite")
    note = json.loads(store.query("SELECT config FROM runs ORDER BY id DESC LIMIT 1")[0][0])
    store.close()
    options: dict[str, Any] = note["options"]
    return options


def test_retry_of_large_batches_keeps_answers_until_new_ones_are_there(tmp_path: Path) -> None:
    """`--batch-size-above N --batch-size 1` redoes done records; one that fails now keeps the answer it had."""
    with served() as (url, _):
        out = run_poisoned(tmp_path, url, "--batch-size", "4")
    before = rows_of(out)
    with served(poison_marker="POISON") as (url, endpoint):
        result = command("retry", out, "--batch-size-above", "1", "--batch-size", "1", "--base-url", url)
        assert result.exit_code in (0, 3), result.output
        assert "2 keep their earlier answer" in result.stderr
        assert rows_of(out) == before
        sizes = {json.loads(command("show", out, f"r{n}", "--json").stdout)["batch_size"] for n in (0, 1, 2)}
        assert sizes == {1}
        sent = endpoint.ledger.requests
        files = [str(tmp_path / "task.toml"), str(tmp_path / "in.jsonl")]
        assert command("run", *files, "--base-url", url, "--model", "m", "--output", out).exit_code == 0
        assert endpoint.ledger.requests == sent


def test_retry_by_id_and_by_kind(tmp_path: Path) -> None:
    """Filters name records: an id, a kind of failure, and both together."""
    with served(poison_marker="POISON") as (url, _):
        out = run_poisoned(tmp_path, url)
    kind = next(row["error"]["kind"] for row in rows_of(out) if row["error"])
    with served() as (url, endpoint):
        assert command("retry", out, "--id", "r3", "--kind", kind, "--base-url", url).exit_code == 3
        assert sum(endpoint.ledger.sends.values()) == 1
        assert command("retry", out, "--id", "r5", "--kind", kind, "--base-url", url).exit_code == 0
        assert sum(endpoint.ledger.sends.values()) == 1
        unknown = command("retry", out, "--id", "r99", "--base-url", url)
        assert unknown.exit_code == 2
        assert "r99" in unknown.stderr
        assert command("retry", out, "--kind", kind, "--base-url", url).exit_code == 0
    assert all(row["error"] is None for row in rows_of(out))


def test_retry_of_a_kind_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    """A misspelled kind asks for nothing: it is refused with the kinds that are there; help shows no second filter."""
    with served(poison_marker="POISON") as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        (kind,) = {row["error"]["kind"] for row in rows_of(out) if row["error"]}
        sent = endpoint.ledger.requests
        refused = command("retry", out, "--kind", kind, "--kind", f"{kind}s")
        assert refused.exit_code == 2
        assert f"--kind {kind}s: no record" in refused.stderr
        assert refused.stderr.endswith(f"its failures are: {kind}\n")
        assert endpoint.ledger.requests == sent
    assert "--retry-failed" not in command("retry", "--help").stdout


def test_retry_asks_for_the_text_that_is_read_now(tmp_path: Path) -> None:
    """An id that has had several texts has several answers: marked is the one to the text in the input given now."""
    task, first = make_files(tmp_path, 6)
    second = tmp_path / "second.jsonl"
    second.write_text(Path(first).read_text().replace("text number 3", "another text"))
    out = tmp_path / "out.jsonl"
    with served() as (url, endpoint):
        for data in (first, second):
            command("run", task, data, "--base-url", url, "--model", "m", "--output", out)
        before = (
            endpoint.ledger.sends[stable_number("text number 3")],
            endpoint.ledger.sends[stable_number("another text")],
        )
        result = command("retry", out, "--id", "r3", "--input", first, "--base-url", url)
        after = (
            endpoint.ledger.sends[stable_number("text number 3")],
            endpoint.ledger.sends[stable_number("another text")],
        )
    assert result.exit_code == 0, result.output
    assert (after[0] - before[0], after[1] - before[1]) == (1, 0)
    assert "1 record is asked again: 1 done" in result.stderr


def test_retry_of_an_id_whose_text_is_gone_asks_nothing(tmp_path: Path) -> None:
    """The store has an answer, but not to what stands in this input: nothing is sent, and nothing is lost."""
    task, first = make_files(tmp_path, 6)
    out, other = tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    other.write_text(Path(first).read_text().replace("text number 5", "another text"))
    with served() as (url, endpoint):
        command("run", task, first, "--base-url", url, "--model", "m", "--output", out)
        rows, sent = rows_of(out), endpoint.ledger.requests
        result = command("retry", out, "--id", "r5", "--input", other, "--base-url", url)
        assert result.exit_code == 0, result.output
        assert "nothing is asked again" in result.stderr
        assert endpoint.ledger.requests == sent
    assert rows_of(out) == rows


def test_a_report_never_takes_the_place_of_another_run_s(tmp_path: Path) -> None:
    """A retry's report stands beside the run's; a run that sends nothing leaves the report as it is."""
    folder = tmp_path / "report"
    with served(poison_marker="POISON") as (url, _):
        out = run_poisoned(tmp_path, url, "--report", folder)
        first = json.loads((folder / "report.json").read_text())
        files = [str(tmp_path / "task.toml"), str(tmp_path / "in.jsonl")]
        again = command("run", *files, "--base-url", url, "--model", "m", "--output", out, "--report", folder)
        assert "report.html · of an earlier run" in again.stderr
        assert json.loads((folder / "report.json").read_text()) == first
    with served() as (url, _):
        command("retry", out, "--base-url", url)
    assert json.loads((folder / "report-1.json").read_text()) == first
    assert (folder / "report-1.html").exists()
    assert json.loads((folder / "report.json").read_text())["requests"]["total"] < first["requests"]["total"]


def test_a_limit_does_not_shorten_what_is_done(tmp_path: Path) -> None:
    """A look at the first few of a finished output would be written over it: refused, and nothing changes."""
    with served() as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        rows, sent = rows_of(out), endpoint.ledger.requests
        files = [str(tmp_path / "task.toml"), str(tmp_path / "in.jsonl")]
        words = ["run", *files, "--base-url", url, "--model", "m", "--output", out]
        refused = command(*words, "--limit", "5")
        assert refused.exit_code == 2
        assert "more than the first 5 records" in refused.stderr
        assert (rows_of(out), endpoint.ledger.requests) == (rows, sent)
        assert command(*words, "--limit", "12").exit_code == 0


def test_a_limit_is_for_another_output_of_the_same_store(tmp_path: Path) -> None:
    """A look into another file is let through and costs nothing; the long output is still guarded after it."""
    store = tmp_path / "out.jsonl.store.sqlite"
    with served() as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        rows, sent = rows_of(out), endpoint.ledger.requests
        files = [str(tmp_path / "task.toml"), str(tmp_path / "in.jsonl")]
        words = ["run", *files, "--base-url", url, "--model", "m", "--store", store]
        look = command(*words, "--limit", "3", "--output", tmp_path / "look.jsonl")
        assert look.exit_code == 0, look.output
        assert rows_of(tmp_path / "look.jsonl") == rows[:3]
        assert command(*words, "--limit", "3", "--output", "-").exit_code == 0
        assert command(*words, "--limit", "3", "--output", out).exit_code == 2
        assert command("run", *words[1:-1], tmp_path / "new.sqlite", "--limit", "3", "-o", out).exit_code == 2
        assert (rows_of(out), endpoint.ledger.requests) == (rows, sent)


def test_retry_goes_by_the_run_that_wrote_the_output(tmp_path: Path) -> None:
    """A later look at the first few, into another output, does not make the retry of the long one as short."""
    with served(poison_marker="POISON") as (url, _):
        out = run_poisoned(tmp_path, url)
        files = [str(tmp_path / "task.toml"), str(tmp_path / "in.jsonl")]
        words = ["run", *files, "--base-url", url, "--model", "m", "--store", f"{out}.store.sqlite"]
        assert command(*words, "--limit", "3", "--output", tmp_path / "look.jsonl").exit_code == 0
    with served() as (url, _):
        result = command("retry", out, "--base-url", url)
    assert result.exit_code == 0, result.output
    assert "2 records are asked again" in result.stderr
    assert len(rows_of(out)) == 12


def test_rows_that_leave_the_output_are_told(tmp_path: Path) -> None:
    """`run` on an input that was cut down says how many rows go; `retry`, whose input only moves, refuses it."""
    with served() as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        rows, sent = rows_of(out), endpoint.ledger.requests
        whole, part = tmp_path / "in.jsonl", tmp_path / "part.jsonl"
        part.write_text("".join(whole.read_text().splitlines(keepends=True)[:3]))
        refused = command("retry", out, "--id", "r1", "--input", part)
        assert refused.exit_code == 2
        assert "lacks 9 records" in refused.stderr
        assert (rows_of(out), endpoint.ledger.requests) == (rows, sent)
        assert '"runs":[{"id":1,' in command("show", out, "--json").stdout, "the run is taken back"
        words = ["run", tmp_path / "task.toml", "--base-url", url, "--model", "m", "--output", out]
        told = command(*words[:2], part, *words[2:])
        assert "9 records that are done are not in this input" in told.stderr
        assert command(*words[:2], whole, *words[2:]).exit_code == 0
        assert (rows_of(out), endpoint.ledger.requests) == (rows, sent)


@pytest.mark.parametrize("lines", [1, 3])
def test_rows_that_leave_the_output_with_a_stream_are_told(tmp_path: Path, lines: int) -> None:
    """A stream that is cut down shortens the output as such a file does, and says so; whole, it costs nothing.

    What came is known at its end only, so that is when it is told: also where a bad line stops it.
    """
    with served() as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        rows, sent = rows_of(out), endpoint.ledger.requests
        whole = (tmp_path / "in.jsonl").read_text()
        part = "".join(whole.splitlines(keepends=True)[:lines])
        words = ["run", tmp_path / "task.toml", "-", "--base-url", url, "--model", "m", "--output", out]
        told = command(*words, stdin=part)
        assert told.exit_code == 0, told.output
        assert f"{12 - lines} records that are done are not in this stream and will not be in {out}" in told.stderr
        assert len(rows_of(out)) == lines
        again = command(*words, stdin=whole)
        assert "not in this stream" not in again.stderr
        assert (rows_of(out), endpoint.ledger.requests) == (rows, sent)
        stopped = command(*words, stdin=part + "broken\n")
        assert stopped.exit_code == 4
        assert f"{12 - lines} records that are done are not in what came before the stop" in stopped.stderr


@pytest.mark.parametrize("store", ["its own", "another"])
@pytest.mark.parametrize(
    "given", ["a file", "a stream", "a stream that breaks", "words of an error", "words let through"]
)
def test_an_input_without_a_record_takes_no_row_away(tmp_path: Path, given: str, store: str) -> None:
    """What comes of a program that failed is an empty file. The rows stay, and so does the input that they are of: an
    export writes the same rows. A file is refused before there is a run; where nothing is lost, nothing is refused."""
    with served() as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        before, sent = out.read_bytes(), endpoint.ledger.requests
        empty = tmp_path / "empty.jsonl"
        empty.touch()
        breaks = tmp_path / "breaks.jsonl.gz"
        os.mkfifo(breaks)
        source = {"a file": empty, "a stream that breaks": breaks}.get(given, "-")
        words = ["run", tmp_path / "task.toml", "--base-url", url, "--model", "m"]
        more = [] if store == "its own" else ["--store", tmp_path / "another.sqlite"]
        if source is breaks:
            threading.Thread(target=breaks.write_bytes, args=(b"\x1f\x8b\x08\0",), daemon=True).start()
        words_only = given == "words of an error"
        let_through = given == "words let through"
        more = [*more, "--on-bad-record", "fail-record"] if let_through else more
        typed = "cat: corpus.jsonl: No such file or directory\n" if words_only or let_through else ""
        result = command(*words, source, "--output", out, *more, stdin=typed)
        stopped = words_only or source is breaks
        assert result.exit_code == (4 if stopped else 2), result.output
        assert ("holds no record that can be used, and" in result.stderr) == (not stopped)
        assert (f"so {out} stays as it was" in result.stderr) == stopped
        assert (out.read_bytes(), endpoint.ledger.requests) == (before, sent)
        exported = tmp_path / "exported.jsonl"
        assert command("export", out, "--output", exported).exit_code == 0
        assert exported.read_bytes() == before
        new = tmp_path / "new.jsonl"
        assert command(*words, empty, "--output", new).exit_code == 0
        assert new.read_bytes() == b""


def test_retry_says_what_moved(tmp_path: Path) -> None:
    """Task or input are gone: the option that says where they are is named. An output moves with its store."""
    with served(poison_marker="POISON") as (url, _):
        out = run_poisoned(tmp_path, url)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("task.toml", "in.jsonl", "out.jsonl", "out.jsonl.store.sqlite"):
        (tmp_path / name).rename(moved / name)
    store = moved / "out.jsonl.store.sqlite"
    assert "say where it is with --task" in command("retry", store).stderr
    assert "say where it is with --input" in command("retry", store, "--task", moved / "task.toml").stderr
    with served() as (url, _):
        files = ["--task", moved / "task.toml", "--input", moved / "in.jsonl"]
        result = command("retry", store, *files, "--base-url", url)
    assert result.exit_code == 0, result.output
    assert all(row["error"] is None for row in rows_of(moved / "out.jsonl"))
    assert not out.exists()


def test_retry_refuses_what_it_cannot_mend(tmp_path: Path) -> None:
    """A stream cannot be read twice; a line that could not be read was never sent, so its input is to be mended."""
    with served(poison_marker="POISON") as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        sent = endpoint.ledger.requests
        stream = command("retry", out, "--input", "-", stdin=(tmp_path / "in.jsonl").read_text())
        assert stream.exit_code == 2
        assert "is a stream" in stream.stderr
        bad = command("retry", out, "--kind", "bad-record")
        assert bad.exit_code == 2
        assert "mend the input" in bad.stderr
        assert endpoint.ledger.requests == sent


def test_a_retry_that_fails_names_the_retry(tmp_path: Path) -> None:
    """The same retry with --retry-failed would keep its filters: the advice is a retry of what failed."""
    with served(poison_marker="POISON") as (url, _):
        out = run_poisoned(tmp_path, url)
        result = command("retry", out, "--id", "r3", "--base-url", url)
    assert result.exit_code == 3
    assert f"Ask again for what failed: annotate retry {out}.store.sqlite" in result.stderr
    assert "--retry-failed" not in result.stderr


def test_a_retry_of_hopeless_records_does_not_promise_to_go_on(tmp_path: Path) -> None:
    """Where all that is left always fails, the brake ends the retry: the way on is to look why, not the same again."""
    with served(poison_marker="POISON") as (url, _):
        out = tmp_path / "out.jsonl"
        files = make_files(tmp_path, 60, text=lambda number: f"text {number}{' POISON' * (number % 2)}")
        options = ["--batch-size", "4", "--max-failed", "1"]
        assert command("run", *files, "--base-url", url, "--model", "m", "--output", out, *options).exit_code == 3
        result = command("retry", out)
    assert result.exit_code == 4
    assert "stopped (brake)" in result.stderr
    assert "Go on with the same command" not in result.stderr
    assert f"See: annotate show {out}.store.sqlite --failed" in result.stderr
    assert f"With the cause mended, ask again with: annotate retry {out}" in result.stderr
    assert len([row for row in rows_of(out) if row["error"] is None]) == 30


def test_retry_asks_for_headers_once_more(tmp_path: Path) -> None:
    """Values of headers are not stored, since they may be keys; retry wants them again and names them."""
    with served(poison_marker="POISON") as (url, _):
        out = run_poisoned(tmp_path, url, "--header", "X-Gate=hush")
        refused = command("retry", out)
        assert refused.exit_code == 2
        assert "--header X-Gate=..." in refused.stderr
    with served() as (url, _):
        assert command("retry", out, "--header", "X-Gate=hush", "--base-url", url).exit_code == 0


def test_retry_refuses_what_would_be_another_question(tmp_path: Path) -> None:
    """Another model, a changed task, or standard input: told before anything is marked or sent."""
    with served(poison_marker="POISON") as (url, endpoint):
        out = run_poisoned(tmp_path, url)
        sent = endpoint.ledger.requests
        assert "another --output" in command("retry", out, "--model", "other").stderr
        task = tmp_path / "task.toml"
        as_it_was = task.read_text()
        task.write_text('instructions = "Another."\nlabels = ["a", "b"]\n')
        changed = command("retry", out)
        assert changed.exit_code == 2
        assert "changed since" in changed.stderr
        task.write_text(as_it_was)
        (tmp_path / "in.jsonl").rename(tmp_path / "elsewhere.jsonl")
        assert command("retry", out).exit_code == 2
        assert endpoint.ledger.requests == sent
        piped = tmp_path / "piped.jsonl"
        lines = (tmp_path / "elsewhere.jsonl").read_text()
        command("run", task, "-", "--base-url", url, "--model", "m", "--output", piped, stdin=lines)
        assert "--retry-failed" in command("retry", piped).stderr
    with served() as (url, _):
        moved = tmp_path / "elsewhere.jsonl"
        assert command("retry", out, "--input", moved, "--base-url", url).exit_code == 0
