"""Keys and files of the command line: no key is given, written or shown, and nothing made is open to others."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_support import command, ended, make_files, served, start_command

from engine.adapters.files import FileSource
from engine.adapters.providers.known import PROVIDERS

KEY = "kq7Hunter2ZZtopsecret"
"""Of no known form, so that nothing but knowing it keeps it out."""


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = ["ANNOTATE_API_KEY", "ANNOTATE_API_KEY_FILE", *(one.key_variable for one in PROVIDERS.values())]
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)


# -- the command line is no place for a key ----------------------------------------------------------------------

_REFUSED = {
    "a header": (["--header", f"Authorization=Bearer {KEY}"], "ANNOTATE_API_KEY"),
    "another header": (["--header", f"api-key={KEY}"], "api-key=env:VARIABLE"),
    "a header by its form": (["--header", "X-Gate=sk-hunter2hunter2"], "X-Gate=env:VARIABLE"),
    "the body": (["--extra-body", json.dumps({"metadata": {"api_key": KEY}})], "env:VARIABLE"),
    "the address": (["--base-url", f"http://127.0.0.1:9/v1?api-key={KEY}"], "api-key"),
    "a user in the address": (["--base-url", f"http://u:{KEY}@127.0.0.1:9/v1"], "ANNOTATE_API_KEY"),
    "of the second model": (["--escalate-base-url", f"http://u:{KEY}@127.0.0.1:9/v1"], "ANNOTATE_ESCALATE_API_KEY"),
    "no address at all": (["--base-url", f"ftp://u:{KEY}@h/v1?k={KEY}"], "http://localhost"),
    "a variable that is not set": (["--header", "api-key=env:NOT_SET"], "NOT_SET"),
    "a file that is not there": (["--header", "api-key=file:/no/such"], "/no/such"),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_a_key_on_the_command_line_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    """Others could see it; it is not repeated, and nothing is made."""
    words, remedy = _REFUSED[name]
    address = [] if "--base-url" in words else ["--base-url", "http://127.0.0.1:9/v1"]
    result = command("run", *make_files(tmp_path), "--output", tmp_path / "o.jsonl", "--model", "m", *address, *words)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    assert remedy in result.stderr
    assert "unter2" not in result.output
    assert list(tmp_path.glob("o*")) == []


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option and by variable, with the command that mends it."""
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o644)
    words = [
        *make_files(tmp_path),
        "--output",
        tmp_path / "o.jsonl",
        "--model",
        "m",
        "--base-url",
        "http://127.0.0.1:9",
    ]
    refused = command("run", *words, "--key-file", key)
    monkeypatch.setenv("ANNOTATE_API_KEY_FILE", str(key))
    for result in (refused, command("run", *words)):
        assert result.exit_code == 2
        assert f"chmod 600 {key}" in result.stderr
        assert KEY not in result.output


def test_a_key_file_gives_the_key_to_run_retry_and_show_prompt(tmp_path: Path) -> None:
    """A retry finds it again where the run found it; a key that is refused is named by its file."""
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    out = tmp_path / "o.jsonl"
    with served(api_key=KEY, labels=("red", "green", "blue")) as (url, endpoint):
        words = [*make_files(tmp_path), "--output", out, "--model", "m", "--base-url", url, "--key-file", key]
        assert command("run", *words).exit_code == 0
        again = command("retry", out, "--id", "r3")
        assert again.exit_code == 0, again.output
        assert endpoint.ledger.by_status.get(401) is None
        key.write_text("not-the-key")
        stopped = command("run", *words[:2], "--output", tmp_path / "p.jsonl", *words[4:])
    assert stopped.exit_code == 4
    assert f"Write the right one into {key}" in stopped.stderr


# -- nothing that is written holds the key ---------------------------------------------------------------------------

Reply = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def answering(reply: Callable[[str, dict[str, Any]], Reply | None]) -> Iterator[str]:
    """A server of ours; None closes the connection. Gets what came in `Authorization`, and the document."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made = reply(self.headers.get("Authorization", ""), document)
            if made is None:
                self.close_connection = True
                return
            status, headers, body = made
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def failing(status: int, **headers: str) -> Callable[[str, dict[str, Any]], Reply]:
    """An error that quotes the key in all that it says."""

    def reply(authorization: str, document: dict[str, Any]) -> Reply:
        error = {
            "message": f"Incorrect API key provided: {authorization}",
            "code": KEY,
            "type": f"x {KEY}",
            "param": KEY,
        }
        more = {name.replace("_", "-"): value.replace("KEY", KEY) for name, value in headers.items()}
        return status, {"X-Echo": authorization} | more, json.dumps({"error": error}).encode()

    return reply


def completed(content: Callable[[str], str], finish_reason: str = "stop") -> Callable[[str, dict[str, Any]], Reply]:
    """A completion with this content, made of the last message."""

    def reply(authorization: str, document: dict[str, Any]) -> Reply:
        text = content(document["messages"][-1]["content"])
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        usage = {"prompt_tokens": 10, "completion_tokens": 10}
        return 200, {"X-Echo": authorization}, json.dumps({"choices": [choice], "usage": usage, "id": KEY}).encode()

    return reply


def labelled(output: Any) -> Callable[[str], str]:
    """Every record answered with this."""

    def content(message: str) -> str:
        ids = [entry["id"] for entry in json.loads(message[message.index("[") : message.rindex("]") + 1])]
        return json.dumps({"results": [{"id": id_, "output": output} for id_ in ids]})

    return content


_ENDPOINTS: dict[str, Callable[[str, dict[str, Any]], Reply | None]] = {
    "refuses the key": failing(401),
    "has no money": failing(402),
    "knows no model": failing(404),
    "rejects": failing(400),
    "limits": failing(429, Retry_After="0", X_RateLimit_Limit_Requests="KEY"),
    "breaks": failing(500),
    "sends on": failing(302, Location="http://127.0.0.1:9/v1/KEY?key=KEY"),
    "babbles": completed(lambda _: f"I shall not tell that the key is {KEY}."),
    "labels with it": completed(labelled(KEY)),
    "refuses": completed(lambda _: f"{KEY} {KEY}", "content_filter"),
    "is no API": lambda authorization, _: (200, {"Content-Type": "text/html"}, f"<html>{authorization}".encode()),
    "is garbage": lambda authorization, _: (200, {}, authorization.encode() + b"\xff\x00{"),
    "cuts it in two": lambda authorization, _: (500, {}, (" " * 380 + authorization).encode()),
    "breaks off": lambda authorization, _: (200, {"Content-Length": "9999"}, authorization.encode()),
    "hangs up": lambda authorization, _: None,
}


_ENDLESS = {"limits", "breaks", "is no API", "is garbage", "cuts it in two", "breaks off", "hangs up"}
"""Asked again and again, until the test interrupts it."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _ENDLESS else []) for name in _ENDPOINTS]
)
def test_no_failing_run_writes_the_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output, error, store, its log, the list of what is in flight, reports, event log: none holds the key or its half.

    The endpoint quotes it in messages, codes, headers, addresses and answers.
    """
    monkeypatch.setenv("ANNOTATE_API_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", f"other-{KEY}")
    with answering(_ENDPOINTS[name]) as url:
        words = ["run", *make_files(tmp_path, 4), "--output", tmp_path / "o.jsonl", "--model", "m", "--base-url", url]
        words += ["--report", tmp_path / "report", "--log-json", tmp_path / "log.jsonl", "--log-level", "debug"]
        words += ["--header", "X-Other-Key=env:OTHER_KEY", "--extra-body", '{"user": {"api_key": "env:OTHER_KEY"}}']
        process = start_command(
            *words, "--attempts", "1", "--timeout-s", "5", env=os.environ | {"PYTHONFAULTHANDLER": "1"}
        )
        watched = process_files(process, tmp_path)
        code, out, err = ended(process)
    assert code in (3, 4), err
    assert (tmp_path / "report" / "report.html").exists()
    assert "failed" in (tmp_path / "log.jsonl").read_text() or "stopping" in (tmp_path / "log.jsonl").read_text()
    shown = [
        command("show", tmp_path / "o.jsonl", *words).output for words in ([], ["--failed"], ["r1"], ["r1", "--json"])
    ]
    everything = watched | files_of(tmp_path) | {"stdout": out.encode(), "stderr": err.encode()}
    everything |= {f"show {number}": text.encode() for number, text in enumerate(shown)}
    half = KEY[:12].encode()
    found = [place for place, content in everything.items() if half.lower() in content.lower()]
    assert found == []


def process_files(process: Any, folder: Path) -> dict[str, bytes]:
    """What lies there while the process runs: the store's log and the list of requests in flight come and go.

    One that goes on asking an endpoint that never works is interrupted some time after its first call.
    """
    seen: dict[str, bytes] = {}
    patience_s = math.inf
    while process.poll() is None:
        if time.monotonic() > patience_s:
            process.send_signal(signal.SIGINT)
            patience_s = math.inf
        elif patience_s == math.inf and any(b"call-ended" in content for content in seen.values()):
            patience_s = time.monotonic() + 1.5
        for place, content in files_of(folder).items():
            if content and seen.get(place) != content:
                seen[place] = seen.get(place, b"") + content if KEY[:12].encode() in content else content
        with contextlib.suppress(Exception):
            process.wait(0.02)
    return {f"while running: {place}": content for place, content in seen.items()}


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below, with its content, whatever it is."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found[str(path)] = path.read_bytes()
    return found


def test_the_store_keeps_where_a_key_is_and_never_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a retry can fetch it again; it does, in the body that it sends."""
    monkeypatch.setenv("OTHER_KEY", KEY)
    came: list[str] = []

    def reply(authorization: str, document: dict[str, Any]) -> Reply:
        came.append(document["user"]["api_key"])
        return completed(labelled("red"))(authorization, document)

    with answering(reply) as url:
        words = [*make_files(tmp_path, 2), "--output", tmp_path / "o.jsonl", "--model", "m", "--base-url", url]
        ran = command("run", *words, "--extra-body", '{"user": {"api_key": "env:OTHER_KEY"}}')
        assert ran.exit_code == 0, ran.output
        assert command("retry", tmp_path / "o.jsonl", "--id", "r1").exit_code == 0
    assert set(came) == {KEY}
    with contextlib.closing(sqlite3.connect(tmp_path / "o.jsonl.store.sqlite")) as store:
        notes = str(store.execute("SELECT config FROM runs").fetchall())
    assert "env:OTHER_KEY" in notes
    assert KEY not in notes


# -- files ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_to_all(folder: Path) -> Iterator[Callable[..., None]]:
    """Does commands with umask 0 and looks at what they make, also while they run; then nothing may be open."""
    modes: dict[str, int] = {}
    ledger = folder / "ledger.json"
    server = start_command("simulate", "--labels", "red,green,blue", "--delay-s", "0.02", "--ledger", ledger, umask=0)
    assert server.stdout is not None
    url = server.stdout.readline().strip()

    def do(*words: Any) -> None:
        process = start_command(*(url if word == "URL" else word for word in words), umask=0)
        for path, mode in modes_while(process, folder).items():
            modes[path] = modes.get(path, 0) | mode
        code, _, err = ended(process)
        assert code == 0, err

    try:
        yield do
    finally:
        server.terminate()
        ended(server)
    modes |= modes_of(folder)
    assert {name: f"{mode:o}" for name, mode in modes.items() if mode & 0o077} == {}
    assert str(ledger) in modes


def test_everything_made_is_for_its_owner_only(tmp_path: Path) -> None:
    """Whatever the umask: stores and what lies beside them, outputs, reports, logs, ledgers, task files."""
    mine = tmp_path / "made"
    mine.mkdir(mode=0o700)
    files = make_files(tmp_path, 40)
    seen: set[str] = set()
    with open_to_all(mine) as do:
        words = ["run", *files, "--base-url", "URL", "--model", "m", "--output", mine / "o.csv"]
        do(*words, "--report", mine / "report", "--log-json", mine / "log.jsonl")
        seen |= {path.name for path in mine.rglob("*")}
        do("export", mine / "o.csv", "--output", mine / "exported.parquet")
        do("export", mine / "o.csv", "--output", mine / "exported.tsv.gz")
        do("retry", mine / "o.csv", "--id", "r1")
        do("init", files[1], "--output", mine / "task.toml")
    assert seen >= {"o.csv", "o.csv.store.sqlite", "o.csv.store.sqlite.lock", "report.json", "report.html", "log.jsonl"}


def test_what_comes_and_goes_while_a_run_writes_is_for_its_owner_only(tmp_path: Path) -> None:
    """The log of the store, and the list of what is in flight."""
    mine = tmp_path / "made"
    mine.mkdir(mode=0o700)
    with served(labels=("red", "green", "blue"), delay_s=0.5) as (url, _):
        words = ["run", *make_files(tmp_path), "--base-url", url, "--model", "m", "--output", mine / "o.jsonl"]
        process = start_command(*words, "--batch-size", "2", umask=0)
        modes = modes_while(process, mine)
        assert ended(process)[0] == 0
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}
    for part in ("-wal", "-shm", "in-flight", ".lock"):
        assert any(part in path for path in modes), part


@pytest.mark.slow
def test_a_bench_is_for_its_owner_only(tmp_path: Path) -> None:
    """Its figures and its page, the earlier ones too."""
    mine = tmp_path / "made"
    mine.mkdir(mode=0o700)
    with open_to_all(mine) as do:
        for _ in range(2):
            do(
                "bench", *make_files(tmp_path), "--base-url", "URL", "--model", "m", "--output", mine / "bench.json",
                "--batch-sizes", "2", "--concurrency", "2", "--repeats", "1", "--no-open-loop", "--requests", "3",
                "--minutes", "0.2",
            )  # fmt: skip
        assert {path.name for path in mine.glob("bench*")} == {
            "bench.json",
            "bench.html",
            "bench-1.json",
            "bench-1.html",
        }


def modes_of(folder: Path) -> dict[str, int]:
    """Of every file and folder below."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found[str(path)] = stat.S_IMODE(path.lstat().st_mode)
    return found


def modes_while(process: Any, folder: Path) -> dict[str, int]:
    """The most open mode that each file had while the process ran."""
    seen: dict[str, int] = {}
    while process.poll() is None:
        for path, mode in modes_of(folder).items():
            seen[path] = seen.get(path, 0) | mode
        with contextlib.suppress(Exception):
            process.wait(0.005)
    return seen


# -- spreadsheets --------------------------------------------------------------------------------------------------


def test_csv_safe_marks_formulas_and_nothing_else(tmp_path: Path) -> None:
    """`--csv-safe` in run and export; without it texts stay as they are. One mark taken off gives every text back."""
    task, data = tmp_path / "task.toml", tmp_path / "in.jsonl"
    task.write_text('instructions = "Repeat it."\n[fields.said]\ntype = "string"\n[fields.n]\ntype = "integer"\n')
    ids = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'quoted", "plain", "a=b", -7]
    data.write_text("".join(json.dumps({"id": id_, "text": f"t{n}"}) + "\n" for n, id_ in enumerate(ids)))
    safe, plain = tmp_path / "safe.csv", tmp_path / "plain.csv"
    with answering(completed(labelled({"said": '=cmd|" /C calc"!A1', "n": -5}))) as url:
        words = ["run", task, data, "--base-url", url, "--model", "m"]
        ran = command(*words, "--output", safe, "--csv-safe")
        assert ran.exit_code == 0, ran.output
    exported = command("export", tmp_path / "safe.csv.store.sqlite", "--output", plain)
    assert exported.exit_code == 0, exported.output
    again = command("export", tmp_path / "safe.csv.store.sqlite", "--output", tmp_path / "again.csv", "--csv-safe")
    assert again.exit_code == 0
    assert (tmp_path / "again.csv").read_bytes() == safe.read_bytes()
    marked = [row.data for row in FileSource(str(safe)) if row.data is not None]
    original = [row.data for row in FileSource(str(plain)) if row.data is not None]
    assert [row["id"] for row in original] == [str(id_) for id_ in ids]
    assert {row["n"] for row in marked} == {"-5"}, "a number is no formula"
    dangerous = tuple("=+-@\t\r\n")
    assert not [
        cell
        for row in marked
        for name, cell in row.items()
        if name != "n" and cell != "-7" and cell.startswith(dangerous)
    ]
    assert marked[-1]["id"] == "-7", "nor is one among texts"
    assert [{name: cell.removeprefix("'") for name, cell in row.items()} for row in marked] == original
