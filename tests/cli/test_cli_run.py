"""`annotate run`: exit codes, what is found before anything is spent, and what is left behind at every stop."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_support import TASK, command, ended, make_files, rows_of, served, start_command, wait_until

from engine.adapters.store import RunStore
from engine.vocabulary.errors import EngineError, StoreError


def test_run_labels_everything_in_input_order_and_exits_0(tmp_path: Path) -> None:
    """Every record annotated is exit code 0; the output has the order of the input."""
    out = tmp_path / "out.jsonl"
    with served() as (url, _):
        result = command("run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", out)
    assert result.exit_code == 0, result.output
    assert [row["id"] for row in rows_of(out)] == [f"r{n}" for n in range(12)]
    assert all(row["error"] is None and row["output"] in ("red", "green", "blue") for row in rows_of(out))


def test_same_command_again_sends_nothing(tmp_path: Path) -> None:
    """The same command again sends nothing, for another output of the same store as well."""
    words = ["run", *make_files(tmp_path), "--model", "m", "--store", tmp_path / "s.sqlite"]
    with served() as (url, endpoint):
        assert command(*words, "--base-url", url, "--output", tmp_path / "a.jsonl").exit_code == 0
        sent = endpoint.ledger.requests
        assert command(*words, "--base-url", url, "--output", tmp_path / "a.jsonl").exit_code == 0
        assert command(*words, "--base-url", url, "--output", tmp_path / "b.jsonl").exit_code == 0
        assert endpoint.ledger.requests == sent
    assert rows_of(tmp_path / "a.jsonl") == rows_of(tmp_path / "b.jsonl")


def test_failed_records_exit_3(tmp_path: Path) -> None:
    """Finished with some failed records is exit code 3, and each has its reason."""
    files = make_files(tmp_path, text=lambda n: f"text {n} POISON" if n == 3 else f"text {n}")
    out = tmp_path / "out.jsonl"
    with served(poison_marker="POISON") as (url, _):
        result = command("run", *files, "--base-url", url, "--model", "m", "--output", out)
    assert result.exit_code == 3, result.output
    failed = [row for row in rows_of(out) if row["error"]]
    assert [row["id"] for row in failed] == ["r3"]
    assert failed[0]["error"]["kind"]
    assert failed[0]["error"]["message"]


def test_missing_key_exits_4_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that wants a key stops the run at once; the message names the variable, the output is there."""
    monkeypatch.delenv("ANNOTATE_API_KEY", raising=False)
    out = tmp_path / "out.jsonl"
    with served(api_key="sesame") as (url, endpoint):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", out]
        result = command(*words)
        assert result.exit_code == 4, result.output
        assert "export ANNOTATE_API_KEY" in result.stderr
        assert "No key was sent" in result.stderr
        assert endpoint.ledger.requests <= 2
        assert out.read_text() == ""
        monkeypatch.setenv("ANNOTATE_API_KEY", "wrong")
        assert "refused the key in ANNOTATE_API_KEY" in command(*words).stderr
        monkeypatch.setenv("ANNOTATE_API_KEY", "sesame")
        assert command(*words).exit_code == 0


def test_secrets_are_neither_stored_nor_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and the values of headers are in no file and in no message; "go on with" leaves them out."""
    monkeypatch.setenv("ANNOTATE_API_KEY", "sk-key-secret")
    header = "X-Gate=header-secret"
    with served(api_key="another") as (url, _):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", tmp_path / "o.jsonl"]
        result = command(*words, "--header", header, f"--header={header}")
    assert result.exit_code == 4
    assert "X-Gate=..." in result.stderr
    for secret in ("sk-key-secret", "header-secret"):
        assert secret not in result.output
        assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())


_MISTAKES = {
    "model alone": ("TASK DATA --model m --output OUT", "--base-url"),
    "base url alone": ("TASK DATA --base-url http://127.0.0.1:1/v1 --output OUT", "--model"),
    "no output": ("TASK DATA", "--output"),
    "wrong option": ("TASK DATA --modle m --output OUT", "--model"),
    "no such input": ("TASK DIR/no.jsonl --output OUT", "no.jsonl"),
    "no such task": ("DIR/no.toml DATA --output OUT", "annotate init"),
    "output without a folder": ("TASK DATA --output DIR/no/o.jsonl", "mkdir -p"),
    "output of no format": ("TASK DATA --output DIR/o.xyz", ".jsonl"),
    "output is the input": ("TASK DATA --output DATA", "is the input"),
    "store is the output": ("TASK DATA --output OUT --store OUT", "another name"),
    "store without a folder": ("TASK DATA --base-url http://h/v1 --model m --output OUT --store DIR/no/s", "folder"),
    "report is a file": ("TASK DATA --output OUT --report TASK", "--report"),
    "bad url": ("TASK DATA --base-url ftp://x --model m --output OUT", "http://localhost"),
    "broken url": ("TASK DATA --base-url http://[::1 --model m --output OUT", "http://localhost"),
    "password in url": ("TASK DATA --base-url http://u:hush@h/v1 --model m --output OUT", "--header"),
    "unknown provider": ("TASK DATA --provider opnai --model m --output OUT", "openai"),
    "not finite": ("TASK DATA --rpm nan --output OUT", "--rpm"),
    "budget without prices": ("TASK DATA --budget-usd 1 --output OUT", "--price-input"),
    "one price": ("TASK DATA --price-input 1 --output OUT", "--price-output"),
    "bad header": ("TASK DATA --header Authorization:hush --output OUT", "NAME=VALUE"),
    "bad extra body": ("TASK DATA --extra-body [1] --output OUT", "--extra-body"),
    "too large a batch": ("TASK DATA --batch-size 50 --max-batch-size 10 --output OUT", "--max-batch-size 10"),
}


@pytest.mark.parametrize("name", _MISTAKES)
def test_users_mistakes_exit_2_in_one_line(name: str, tmp_path: Path) -> None:
    """A user's mistake is exit code 2 and one line that names the remedy; nothing is written."""
    line, remedy = _MISTAKES[name]
    task, data = make_files(tmp_path)
    places = {"TASK": task, "DATA": data, "OUT": str(tmp_path / "out.jsonl"), "DIR": str(tmp_path)}
    words = [places.get(word, word.replace("DIR/", f"{tmp_path}/")) for word in line.split()]
    result = command("run", *words)
    assert result.exit_code == 2, result.output
    assert remedy in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hush" not in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_bad_lines_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    """The validating pass names broken lines and repeated ids, and what an earlier run wrote stays."""
    task, data = make_files(tmp_path)
    out = tmp_path / "out.jsonl"
    with served() as (url, endpoint):
        words = ["run", task, data, "--base-url", url, "--model", "m", "--output", out]
        assert command(*words, "--limit", "3").exit_code == 0
        before = out.read_text(), endpoint.ledger.requests
        with Path(data).open("a") as file:
            file.write('{"id": "r1", "text": "again"}\n{"id": 1,\n')
        result = command(*words)
        assert result.exit_code == 2
        assert "line 13" in result.stderr
        assert "line 14" in result.stderr
        assert "Traceback" not in result.stderr
        assert (out.read_text(), endpoint.ledger.requests) == before


def test_columns_that_the_task_does_not_use_are_not_read(tmp_path: Path) -> None:
    """A column that cannot be unpacked beside the text: the run, and later the text in `show`, do without it."""
    table = pa.table({"id": ["a", "b"], "picture": [b"picture" * 400] * 2, "text": ["one", "two"]})
    task, data, out = tmp_path / "task.toml", tmp_path / "in.parquet", tmp_path / "out.jsonl"
    task.write_text(TASK + 'input = ["text"]\n')
    pq.write_table(table, data, compression="snappy", use_dictionary=False)
    chunk = pq.read_metadata(data).row_group(0).column(1)
    with data.open("r+b") as file:
        file.seek(chunk.data_page_offset + chunk.total_compressed_size - 20)
        file.write(b"\xff" * 20)
    with served() as (url, _):
        whom = ["--base-url", url, "--model", "m", "--output", out]
        assert command("run", task, data, *whom).exit_code == 0
        assert "damaged" in command("run", make_files(tmp_path)[0], data, *whom, "--show-prompt").stderr
    assert [row["id"] for row in rows_of(out)] == ["a", "b"]
    assert "two" in command("show", out, "b").stdout


def test_another_task_is_refused_and_the_output_kept(tmp_path: Path) -> None:
    """A store of another task is exit code 2 before anything is sent, and the output of the first stays."""
    task, data = make_files(tmp_path)
    out = tmp_path / "out.jsonl"
    with served() as (url, endpoint):
        words = ["run", task, data, "--base-url", url, "--model", "m", "--output", out]
        assert command(*words).exit_code == 0
        before = out.read_text(), endpoint.ledger.requests
        Path(task).write_text('instructions = "Another."\nlabels = ["a", "b"]\n')
        result = command(*words)
        assert result.exit_code == 2
        assert "--allow-change" in result.stderr
        assert (out.read_text(), endpoint.ledger.requests) == before


def test_output_to_standard_output(tmp_path: Path) -> None:
    """`--output -` puts nothing but the records on standard output."""
    with served() as (url, _):
        files = make_files(tmp_path, 5)
        result = command("run", *files, "--base-url", url, "--model", "m", "--output", "-")
    assert result.exit_code == 0
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [f"r{n}" for n in range(5)]
    assert not list(tmp_path.glob("*.sqlite"))


def test_standard_input_stops_at_its_bad_line_with_everything_kept(tmp_path: Path) -> None:
    """A live stream stops at its bad line, exit code 4; what came before is written."""
    task, data = make_files(tmp_path, 8)
    out = tmp_path / "out.jsonl"
    with served() as (url, _):
        stdin = Path(data).read_text() + "broken\n"
        result = command("run", task, "-", "--base-url", url, "--model", "m", "--output", out, stdin=stdin)
    assert result.exit_code == 4, result.output
    assert "line 9" in result.stderr
    assert all(row["error"] is None for row in rows_of(out) if row["id"] is not None)


def test_store_that_fails_stops_the_run_and_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails in mid-run is exit code 4, and what it holds is written."""
    written, write = itertools.count(1), RunStore.write

    def failing(store: RunStore, *rows: Any) -> None:
        if next(written) > 2:
            raise StoreError("the disk is full")
        write(store, *rows)

    monkeypatch.setattr(RunStore, "write", failing)
    out = tmp_path / "out.jsonl"
    with served() as (url, _):
        words = ["run", *make_files(tmp_path, 60), "--base-url", url, "--model", "m", "--output", out]
        result = command(*words, "--max-concurrency", "1")
    assert result.exit_code == 4, result.output
    assert "the disk is full" in result.stderr
    assert 0 < len(rows_of(out)) < 60


def test_output_that_cannot_be_written_in_the_end_names_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full when the output is written loses nothing: the store has it, and the message says how."""

    def full(path: str, rows: Any, **options: Any) -> int:
        raise EngineError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("engine.run.corpus.write_rows", full)
    out = tmp_path / "out.jsonl"
    with served() as (url, _):
        files = make_files(tmp_path)
        result = command("run", *files, "--base-url", url, "--model", "m", "--output", out)
    assert result.exit_code == 4
    assert "annotate export" in result.stderr
    monkeypatch.undo()
    assert command("export", out, "--output", tmp_path / "else.csv").exit_code == 0
    assert len((tmp_path / "else.csv").read_text().splitlines()) == 13


def test_bug_shows_its_trace_and_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a bug shows a stack trace; it asks to be reported."""

    def broken(path: str) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr("engine.cli.run.load_task", broken)
    result = command("run", *make_files(tmp_path), "--output", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "ZeroDivisionError: unforeseen" in result.stderr
    assert "report" in result.stderr.splitlines()[-1]


def test_unknown_command_names_the_nearest() -> None:
    """A wrong command names the nearest right one."""
    result = command("rum")
    assert result.exit_code == 2
    assert "'run'" in result.stderr


# -- --show-prompt -----------------------------------------------------------------------------------------------


def test_show_prompt_prints_the_request_and_sends_nothing(tmp_path: Path) -> None:
    """The first request as it would be sent: messages, format, model and size; no output, no store, no call."""
    task, data = make_files(tmp_path)
    with served() as (url, endpoint):
        result = command("run", task, data, "--base-url", url, "--model", "some-model", "--show-prompt")
        assert endpoint.ledger.requests == 0
    assert result.exit_code == 0, result.output
    assert 'model: "some-model"' in result.stdout
    assert "response_format: {" in result.stdout
    assert "max_tokens: " in result.stdout
    assert "input tokens" in result.stdout
    last = json.loads(result.stdout.splitlines()[-1])
    assert [item["input"] for item in last["items"]] == [f"text number {n}" for n in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "task.toml"]


def test_show_prompt_starts_no_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an endpoint nothing is started either; `--limit` bounds the records."""
    monkeypatch.setattr("engine.adapters.local._start", lambda *_: pytest.fail("the model was started"))
    result = command("run", *make_files(tmp_path), "--show-prompt", "--limit", "2", "--answer-form", "keyed")
    assert result.exit_code == 0, result.output
    assert "the embedded model" in result.stdout
    assert "starts" in result.stdout
    assert len(json.loads(result.stdout.splitlines()[-1])["items"]) == 2


def test_show_prompt_tells_a_bad_record(tmp_path: Path) -> None:
    """A record that cannot be read is a user's mistake here too."""
    task, data = make_files(tmp_path)
    Path(data).write_text("oh no\n")
    result = command("run", task, data, "--show-prompt")
    assert result.exit_code == 2
    assert "line 1" in result.stderr


# -- signals and pipes, in processes of their own ----------------------------------------------------------------


def test_ctrl_c_once_keeps_what_is_in_flight(tmp_path: Path) -> None:
    """The first Ctrl-C sends nothing more and keeps every answer in flight; going on sends no record twice."""
    out = tmp_path / "out.jsonl"
    with served(delay_s=0.15) as (url, endpoint):
        words = ["run", *make_files(tmp_path, 60), "--base-url", url, "--model", "m", "--output", out]
        words += ["--batch-size", "2", "--max-concurrency", "3"]
        process = start_command(*words)
        wait_until(lambda: endpoint.ledger.requests >= 5)
        midway = command("export", out, "--output", tmp_path / "midway.jsonl")
        assert midway.exit_code == 0, midway.output
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
        assert code == 4, err
        assert "Go on with the same command: annotate run" in err
        assert "Traceback" not in err
        assert endpoint.ledger.in_flight == 0
        done = rows_of(out)
        assert len(done) == sum(endpoint.ledger.sends.values()) < 60
        assert 0 < len(rows_of(tmp_path / "midway.jsonl")) <= len(done)
        assert command(*words).exit_code == 0
        assert max(endpoint.ledger.sends.values()) == 1
    assert len(rows_of(out)) == 60


def test_ctrl_c_twice_stops_now(tmp_path: Path) -> None:
    """The second Ctrl-C gives up what is in flight; the output is written all the same."""
    out = tmp_path / "out.jsonl"
    with served(delay_s=25.0) as (url, endpoint):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", out]
        process = start_command(*words)
        wait_until(lambda: endpoint.ledger.requests >= 1)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        first = next(line for line in process.stderr if "once more" in line)
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
    assert code == 4, first + err
    assert "Traceback" not in err
    assert out.read_text() == ""


def test_ctrl_c_while_the_input_is_checked(tmp_path: Path) -> None:
    """Ctrl-C in the validating pass is exit code 4, with nothing sent."""
    out, store = tmp_path / "out.jsonl", tmp_path / "out.jsonl.store.sqlite"
    with served() as (url, endpoint):
        words = ["run", *make_files(tmp_path, 150_000), "--base-url", url, "--model", "m", "--output", out]
        process = start_command(*words)
        wait_until(lambda: _inputs_noted(store))
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
        assert endpoint.ledger.requests == 0
    assert code == 4, err
    assert "Traceback" not in err
    assert out.read_text() == ""


def _inputs_noted(store: Path) -> bool:
    if not store.exists():
        return False
    db = sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)
    try:
        return bool(db.execute("SELECT 1 FROM inputs LIMIT 1").fetchone())
    except sqlite3.OperationalError:
        return False
    finally:
        db.close()


def test_ctrl_c_before_the_run_begins(tmp_path: Path) -> None:
    """Ctrl-C while the task is still being read is exit code 4, without a trace."""
    _, data = make_files(tmp_path)
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    process = start_command("run", pipe, data, "--output", tmp_path / "out.jsonl")
    writer = os.open(pipe, os.O_WRONLY)  # returns when the command has opened it
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    os.close(writer)
    assert code == 4, err
    assert "Traceback" not in err


def test_nobody_reads_standard_output(tmp_path: Path) -> None:
    """A closed pipe on standard output is quiet: `annotate run --output - | head`, `annotate show | head`."""
    out = tmp_path / "out.jsonl"
    with served() as (url, _):
        words = ["run", *make_files(tmp_path, 200), "--base-url", url, "--model", "m"]
        assert command(*words, "--output", out).exit_code == 0
        for line in (["show", out, "--sample", "150"], ["export", out, "--output", "-"], [*words, "--output", "-"]):
            process = start_command(*line)
            assert process.stdout is not None
            process.stdout.close()
            process.stdout = None
            code, _, err = ended(process)
            assert code == 0, err
            assert "Error" not in err
            assert "Traceback" not in err


def test_a_report_is_written_over_no_other_file(tmp_path: Path) -> None:
    """A file in the place of the folder, or an output or input of a report's name in it: refused, nothing sent."""
    task, data = make_files(tmp_path)
    named = tmp_path / "report.json"
    Path(data).rename(named)
    before = named.read_bytes()
    with served() as (url, endpoint):
        words = ["run", task, named, "--base-url", url, "--model", "m", "--output", tmp_path / "o.jsonl"]
        a_file = command(*words, "--report", named)
        assert a_file.exit_code == 2
        assert "is a file; name a folder" in a_file.stderr
        its_input = command(*words, "--report", tmp_path)
        assert its_input.exit_code == 2
        assert "is INPUT and report.json of --report at once" in its_input.stderr
        assert endpoint.ledger.requests == 0
    assert named.read_bytes() == before
