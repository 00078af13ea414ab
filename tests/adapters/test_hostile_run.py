"""Whole runs against hostile endpoints: nothing lost, an end with a reason, no trace, no key in a file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hostile import BROKEN, ENDLESS, KEY
from raw_server import Handler, Server, closing, ok, sending, serving

from engine import Engine
from engine.decide import brake
from engine.testing import virtual_time
from engine.testing.scripted import (
    RecordedRequest,
    ScriptedReply,
    ScriptedTransport,
    chat_reply,
    error_reply,
    items_of,
    results_content,
)
from engine.testing.simulator.answers import stable_label
from engine.vocabulary.config import Endpoint
from engine.vocabulary.errors import RunStopped
from engine.vocabulary.secrets import Secret
from support import LABELS, Outcome, annotate_all, make_config, make_records, make_task

pytestmark = pytest.mark.usefixtures("no_proxies")

ECHO = f'{{"error":{{"message":"bad header: Authorization: Bearer {KEY}","code":null}}}}'.encode()
FORGED = json.dumps({"choices": [{"message": {"content": f"Bearer {KEY}"}, "finish_reason": "stop"}]}).encode()


def status(line: str, body: bytes = b"", headers: str = "") -> bytes:
    return f"HTTP/1.1 {line}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


PASSING: Mapping[str, Handler] = {
    **{name: handle for name, (handle, _) in ENDLESS.items()},
    **{name: closing(content) for name, content in BROKEN.items()},
    "502 of a proxy": sending(status("502 Bad Gateway", b"<html><title>502 Bad Gateway</title></html>")),
    "a login page": sending(ok(b"<title>Sign in</title>", b"Content-Type: text/html\r\n")),
    "events": sending(ok(b"data: {}\n\n", b"Content-Type: text/event-stream\r\n")),
    "204": sending(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "101": sending(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "deep": sending(ok(b"[" * 1_000_000)),
    "no choices": sending(ok(b'{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1e999}}')),
    "an echo of the key": sending(status("500 No", ECHO)),
    "an answer with the key": sending(ok(FORGED)),
    "another's answers": sending(
        ok(FORGED.replace(b"Bearer", b'{\\"results\\":[{\\"id\\":\\"a-1\\",\\"output\\":\\"red\\"}]}'))
    ),
}
"""What may happen once to a request: the next one is answered."""


def honest(request: bytes) -> bytes:
    items = items_of(json.loads(request.partition(b"\r\n\r\n")[2]))
    content = results_content(items, lambda text: stable_label(text, LABELS))
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    return ok(json.dumps(body).encode())


class Moody:
    """An endpoint that answers so many requests, and then does every hostile thing once before it answers on."""

    def __init__(self, moods: Mapping[str, Handler], *, kind_first: int = 10) -> None:
        self.moods = list(moods.values())
        self.left = kind_first
        self.server: Server | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = self.server.requests[-1]
        self.left -= 1
        if self.left < 0 and self.left % 2 and self.moods:
            await self.moods.pop()(reader, writer)
        else:
            writer.write(honest(request))


async def annotate(
    base_url: str, records: list[dict[str, Any]], store: Path, *, batch_size: int = 4, key: str = KEY
) -> Outcome:
    endpoint = Endpoint(base_url=base_url, model="m", api_key=Secret(key), timeout_s=1.0)
    config = make_config(batch_size, backoff_base_s=0.01, transport_attempts=8)
    outcome = Outcome()
    async with Engine(endpoint, config, store=store) as engine:
        stream = engine.annotate(make_task(), records)
        try:
            async for result in stream:
                outcome.results.append(result)
        except RunStopped as error:
            outcome.stopped = error
        outcome.counters = stream.counters
    return outcome


def assert_clean(folder: Path, logs: pytest.LogCaptureFixture) -> None:
    """No file that was written holds a part of the key; nothing was logged as an error, or with a trace."""
    parts = [KEY[at : at + 12].encode() for at in range(len(KEY) - 12)]
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [part for part in parts if part in content], path
    assert KEY[:12] not in logs.text
    loud = [record for record in logs.records if record.levelno >= logging.ERROR or record.exc_info]
    assert [record.getMessage() for record in loud] == []


async def test_a_run_goes_on_through_all_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every hostile thing once, in one run: every record has its own right answer, no key is anywhere, no trace."""
    records = make_records(600)
    moody = Moody(PASSING)
    async with serving(moody) as server:
        moody.server = server
        outcome = await annotate(server.url, records, tmp_path / "run.sqlite")
    assert outcome.stopped is None
    assert moody.moods == []
    outcome.assert_each_once(records)
    assert outcome.failed == []
    assert outcome.counters.requests >= 150 + len(PASSING)
    assert_clean(tmp_path, caplog)


NEVER: Mapping[str, tuple[Handler, str, str]] = {
    name: (PASSING[name], "endpoint", words)
    for name, words in {
        "gigabyte": "longer than 16,777,216 bytes",
        "gzip bomb": "longer than 16,777,216 bytes",
        "headers": "Too many headers",
        "zeros": "Bad status line",
        "a login page": "that is a web page: is base_url",
        "deep": "no chat completion",
        "an echo of the key": "Authorization: Bearer ***",
        "key as a header without a colon": "Invalid header token",
    }.items()
} | {
    "redirect": (
        sending(status("307 Moved", headers="Location: http://127.0.0.1:9/v2/chat/completions\r\n")),
        "model",
        "set base_url (--base-url) to http://127.0.0.1:9/v2",
    ),
    "wrong key": (sending(status("401 No", ECHO)), "auth", "check the key in ANNOTATE_API_KEY"),
    "an answer with the key": (PASSING["an answer with the key"], "brake", "Bearer ***"),
}


@pytest.mark.parametrize("name", NEVER)
async def test_a_hopeless_run_stops_with_its_reason_and_goes_on_later(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing else comes the run ends soon, says why in a line, has failed nobody, and the same call on an honest
    endpoint has all the answers."""
    monkeypatch.setattr(brake, "_NEVER_S", 0.5)  # of real time
    monkeypatch.setattr(brake, "_PAUSE_CAP_S", 0.1)
    handler, kind, words = NEVER[name]
    records, started = make_records(20), time.monotonic()
    async with serving(handler) as server:
        outcome = await annotate(server.url, records, tmp_path / "run.sqlite")
        assert isinstance(outcome.stopped, RunStopped)
        assert outcome.stopped.kind == kind
        assert words in str(outcome.stopped)
        assert str(outcome.stopped).isprintable()
        assert outcome.ok == []
        assert len(server.requests) <= 40
        assert time.monotonic() - started < 15.0
        moody = Moody({})
        moody.server, server.handle = server, moody
        again = await annotate(server.url, records, tmp_path / "run.sqlite")
    again.assert_each_once(records)
    assert again.failed == []
    assert_clean(tmp_path, caplog)


@pytest.mark.parametrize("name", ["redirect", "wrong key", "an answer with the key"])
async def test_the_command_says_it_without_a_trace(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Exit 4, the reason on standard error, and no key in anything that was printed or written."""
    (tmp_path / "task.toml").write_text('instructions = "Colour?"\nlabels = ["red", "green", "blue"]\n')
    lines = (json.dumps({"id": n, "text": f"text {n}"}) + "\n" for n in range(3))
    (tmp_path / "in.jsonl").write_text("".join(lines))
    handler, _, words = NEVER[name]
    async with serving(handler) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.cli.main", "run", "task.toml", "in.jsonl", "--output", "out.jsonl"),
            *("--base-url", server.url, "--model", "m", "--report", "report"),
            cwd=tmp_path,
            env={**os.environ, "ANNOTATE_API_KEY": KEY, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 4
    said = " ".join(err.decode().split())
    assert words in said
    assert "Traceback" not in said
    (tmp_path / "printed.txt").write_bytes(out + err)
    assert_clean(tmp_path, caplog)


# -- what would freeze a run, on virtual time --------------------------------------------------------------------------

YEAR = {"Retry-After": "31536000"}
Bad = Callable[[int], bool]


def play(bad: Bad, refusal: ScriptedReply, *, headers: Mapping[str, str] | None = None) -> tuple[Outcome, int]:
    """A run against an endpoint that refuses the calls that are `bad`, by number, and the calls that it took."""

    def answer(request: RecordedRequest) -> ScriptedReply:
        if bad(len(transport.requests)):
            return refusal
        content = results_content(request.items, lambda text: stable_label(text, LABELS))
        return chat_reply(content, delay_s=0.5, headers=headers)

    transport = ScriptedTransport(answer)
    outcome = virtual_time.run(annotate_all, make_records(200), transport, make_config(4), virtual_time=True)
    return outcome, len(transport.requests)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(("bad", "most_s"), [(lambda _: True, 700), (lambda number: number > 20, 1_300)])
def test_a_wait_of_a_year_ends_the_run(code: int, bad: Bad, most_s: float) -> None:
    """From the start, or from some call on: a stop after one or two waits of ten minutes, which says what was asked."""
    outcome, calls = play(bad, error_reply(code, "later", headers=YEAR))
    assert isinstance(outcome.stopped, RunStopped)
    assert outcome.stopped.kind == "endpoint"
    assert "it asks to wait 365 days; no more than 600 s are waited" in str(outcome.stopped)
    assert outcome.seconds <= most_s
    assert calls <= 60
    assert outcome.failed == []


@pytest.mark.parametrize("code", [429, 503])
def test_one_wait_of_a_year_costs_ten_minutes(code: int) -> None:
    """A single such reply among honest ones: ten minutes, and every answer."""
    outcome, _ = play(lambda number: number == 10, error_reply(code, "later", headers=YEAR))
    assert outcome.stopped is None
    outcome.assert_each_once(make_records(200))
    assert len(outcome.ok) == 200
    assert outcome.seconds <= 620


def test_refusals_without_a_word_end_the_run() -> None:
    """429 to everything, and no Retry-After: what is found out of the limit is not so low that nobody hears of it."""
    outcome, _ = play(lambda _: True, error_reply(429, "no"))
    assert isinstance(outcome.stopped, RunStopped)
    assert outcome.seconds <= 700


@pytest.mark.parametrize("of", ["tokens-minute", "req-minute", "tokens", "requests"])
@pytest.mark.parametrize("limit", ["0.001", "0", "-1", "1e-300", "1e300", "NaN"])
def test_absurd_limits_in_headers_hold_nobody_up(of: str, limit: str) -> None:
    """A limit that nobody sells is not believed: the run takes seconds, not years."""
    headers = {f"x-ratelimit-limit-{of}": limit, f"x-ratelimit-remaining-{of}": "0", f"x-ratelimit-reset-{of}": "60s"}
    outcome, _ = play(lambda _: False, error_reply(429), headers=headers)
    assert len(outcome.ok) == 200
    assert outcome.seconds < 60
