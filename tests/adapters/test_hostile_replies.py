"""Replies that are HTTP and hostile all the same: a typed fault or a completion, and no key in it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.providers.classify import MAX_RETRY_AFTER_S, classify
from engine.adapters.providers.openai_chat import OpenAIChat
from engine.adapters.providers.quota import read_quotas
from engine.adapters.providers.redaction import Redaction
from engine.testing.scripted import ScriptedReply, ScriptedTransport
from engine.testing.virtual_time import run
from engine.vocabulary.config import Endpoint
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import HIDDEN, Secret
from engine.vocabulary.values import Completion, Fault, FaultKind, Usage

URL = "https://llm.example/v1"
KEY = "sk-proj/never+to=be&shown_1234567890"
K = FaultKind


def ask(reply: ScriptedReply | BaseException, **endpoint: Any) -> Completion | Fault:
    chat = OpenAIChat(
        transport=ScriptedTransport([reply]),
        endpoint=Endpoint(**({"base_url": URL, "model": "m", "api_key": Secret(KEY)} | endpoint)),
        system="s",
        schema=None,
    )
    return run(lambda: chat.complete(user="u", max_output_tokens=10, items=1))


def fault(status: int, body: bytes = b"", **headers: str) -> Fault:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    outcome = ask(ScriptedReply(status=status, headers=headers, body=body))
    assert isinstance(outcome, Fault)
    return outcome


def completion(body: bytes) -> Completion:
    outcome = ask(ScriptedReply(body=body))
    assert isinstance(outcome, Completion)
    return outcome


def chat(choice: str, more: str = "") -> bytes:
    return f'{{"choices":[{choice}]{more}}}'.encode(errors="surrogatepass")


def saying(content: str, more: str = "") -> bytes:
    return chat(f'{{"message":{{"content":{content}}},"finish_reason":"stop"}}', more)


HTML = "text/html; charset=utf-8"
GATEWAY = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body></html>"
LOGIN = b"<!doctype html><title>Sign in to Wi-Fi</title><form action=/login><script>alert(1)</script></form>"
EVENTS = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "words"),
    [
        (502, GATEWAY, {"Content_Type": HTML}, K.SERVER, "502 Bad Gateway"),
        (407, GATEWAY, {}, K.REJECTED, "502 Bad Gateway"),
        (200, LOGIN, {"Content_Type": HTML}, K.BAD_REPLY, "Sign in to Wi-Fi; that is a web page: is base_url"),
        (200, EVENTS, {"Content_Type": "text/event-stream"}, K.BAD_REPLY, "it streams, which was not asked for"),
        (200, EVENTS, {}, K.BAD_REPLY, "it streams, which was not asked for"),
        (200, b"", {}, K.BAD_REPLY, "(empty reply)"),
        (200, b'{"error":"out of memory"}', {}, K.BAD_REPLY, "out of memory"),
        (200, b'{"error":{"code":429,"message":"slow"}}', {}, K.RATE_LIMIT, "slow"),
        (200, b'{"choices":[]}', {}, K.BAD_REPLY, "no chat completion"),
        (200, b'{"choices":null}', {}, K.BAD_REPLY, "no chat completion"),
        (204, b"", {}, K.SERVER, "(empty reply)"),
        (202, b"{}", {}, K.SERVER, "{}"),
        (101, b"", {}, K.SERVER, "(empty reply)"),
        (999, b"{}", {}, K.SERVER, "{}"),
        (500, b"\xff\xfe\x00", {}, K.SERVER, "\ufffd"),
        (400, b"[" * 5_000, {}, K.REJECTED, "[[["),
        (400, b'{"error":{"message":{"deep":null},"code":[],"param":3,"metadata":[]}}', {}, K.REJECTED, "deep"),
        (400, b'{"error":{"message":"no","code":' + b"9" * 10_000 + b"}}", {}, K.REJECTED, "no"),
    ],
)
def test_what_is_no_answer_says_what_it_is(
    status: int, body: bytes, headers: dict[str, str], kind: FaultKind, words: str
) -> None:
    """A page, a stream, nothing, an error inside a 200, odd statuses: each its kind, and words that help."""
    outcome = fault(status, body, **headers)
    assert outcome.kind is kind
    assert words in outcome.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (saying('"x"'), "x"),
        (saying("null"), ""),
        (saying("17"), ""),
        (saying("1e999"), ""),
        (saying("9" * 10_000), None),
        (saying('["a",{"text":"b"},null]'), "b"),
        (saying('{"text":"b"}'), ""),
        (saying('"\\ud800 half"'), "? half"),
        (saying('"\xff\xfe"').replace(b"\xc3", b""), "\ufffd\ufffd"),
        (saying('"x"', ',"choices":[]'), None),
        (b'{"choices":[],' + saying('"second"')[1:], "second"),
        (chat('{"message":{"content":"one"}},{"message":{"content":"two"}}'), "one"),
        (chat('{"message":{"content":null,"tool_calls":[{"function":{"arguments":"{}"}}]}}'), ""),
        (chat('{"message":{"content":null,"refusal":"no"}}'), ""),
        (chat('{"message":{"content":"x","content":"y"}}'), "y"),
        (saying('"x"', ',"x":' + "[" * 500 + "]" * 500), "x"),
        (saying('"x"', ',"x":' + "[" * 100_000), None),
        (saying('"x"', ',"x":NaN,"y":1e999,"z":-Infinity'), "x"),
        (saying('"x"', ',"created":' + "9" * 4_000), "x"),
    ],
)
def test_an_odd_envelope_is_read_or_refused(body: bytes, text: str | None) -> None:
    """Duplicate keys, many choices, tools, huge numbers, broken characters: a completion, or a bad reply."""
    outcome = ask(ScriptedReply(body=body))
    if text is None:
        assert isinstance(outcome, Fault)
        assert outcome.kind is FaultKind.BAD_REPLY
    else:
        assert isinstance(outcome, Completion)
        assert outcome.text == text


def test_a_reason_for_the_end_is_a_word() -> None:
    """It is stored with every call that it ended: a megabyte of it is not."""
    said = '{"message":{"content":"x"},"finish_reason":"' + "y" * 10_000 + '"}'
    assert completion(chat(said)).finish_reason == "other"


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ('{"prompt_tokens":50,"completion_tokens":5}', (50, 5)),
        ('{"prompt_tokens":50,"completion_tokens":60000}', (50, 60_000, 60_000)),
        ('{"prompt_tokens":50,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":3}}', (50, 5, 3)),
        (
            '{"prompt_tokens":50,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":9000}}',
            (50, 5, 5),
        ),
        ('{"prompt_tokens":50,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":-3}}', (50, 5)),
        ('{"prompt_tokens":50,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":1e999}}', (50, 5)),
        ('{"prompt_tokens":50,"completion_tokens":5,"completion_tokens_details":[3]}', (50, 5)),
        ('{"prompt_tokens":50,"completion_tokens":5,"total_tokens":9000000}', None),
        ('{"prompt_tokens":-50,"completion_tokens":5}', None),
        ('{"prompt_tokens":50,"completion_tokens":-5}', None),
        ('{"prompt_tokens":1e999,"completion_tokens":5}', None),
        ('{"prompt_tokens":NaN,"completion_tokens":5}', None),
        ('{"prompt_tokens":"fifty","completion_tokens":5}', None),
        ('{"prompt_tokens":{"n":null},"completion_tokens":[[null]]}', None),
        ('{"prompt_tokens":' + "9" * 3_000 + ',"completion_tokens":5}', None),
        ('{"prompt_tokens":9000000,"completion_tokens":5}', None),
        ('{"prompt_tokens":50,"completion_tokens":9000000}', None),
        ('{"prompt_tokens":50,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":1e999}}', (50, 5)),
        ("null", None),
        ("[]", None),
    ],
)
def test_usage_that_cannot_be_true_does_not_count(usage: str, read: tuple[int, ...] | None) -> None:
    """Tokens below nothing, or more than bytes were sent and a provider can add to them: our own estimate counts.
    Reasoning is part of the output, never more than it."""
    wanted = (
        None if read is None else Usage(input_tokens=read[0], output_tokens=read[1], reasoning_tokens=sum(read[2:]))
    )
    assert completion(saying('"x"', f',"usage":{usage}')).usage == wanted


# -- waits -----------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait_s", "words"),
    [
        ({"Retry-After": "31536000"}, MAX_RETRY_AFTER_S, "it asks to wait 365 days; no more than 600 s are waited"),
        ({"Retry-After": "86400"}, MAX_RETRY_AFTER_S, "it asks to wait 86,400 s; no more than 600 s are waited"),
        ({"Retry-After": "1e999"}, MAX_RETRY_AFTER_S, "it asks to wait for ever; no more than 600 s are waited"),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_RETRY_AFTER_S, "days; no more than 600 s are waited"),
        ({"Retry-After-Ms": "9e99"}, MAX_RETRY_AFTER_S, "600 s are waited"),
        ({"Retry-After": "600"}, 600.0, ""),
        ({"Retry-After": "-5"}, 0.0, ""),
        ({"Retry-After": "-inf"}, 0.0, ""),
        ({"Retry-After": "NaN"}, 0.0, ""),
        ({"Retry-After": "Mon, 01 Jan 1900 00:00:00 GMT"}, 0.0, ""),
        ({"Retry-After": "Mon, 01 Jan 99999 00:00:00 GMT"}, None, ""),
        ({"Retry-After": "soon"}, None, ""),
        ({"Retry-After": ""}, None, ""),
        ({"Retry-After": "9" * 5_000}, MAX_RETRY_AFTER_S, "for ever"),
    ],
)
def test_no_reply_makes_us_wait_beyond_the_bound(headers: dict[str, str], wait_s: float | None, words: str) -> None:
    """A wait of a year is one of ten minutes, and the message says both; nonsense is no wait."""
    outcome = classify(429, headers, b"", url=URL, now=NOW)
    assert (outcome.kind, outcome.retry_after_s) == (FaultKind.RATE_LIMIT, wait_s)
    assert words in outcome.message
    assert bool(words) == ("it asks to wait" in outcome.message)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("tokens-minute", "0.001"),
        ("tokens-minute", "3"),
        ("req-minute", "0.001"),
        ("req-minute", "0"),
        ("req-minute", "-1"),
        ("req-minute", "NaN"),
        ("req-minute", "1e999"),
        ("req-minute", "9" * 400),
        ("req-minute", "many"),
        ("tokens", "3"),
        ("requests", "1e-300"),
    ],
)
def test_limits_that_nobody_sells_are_not_believed(name: str, limit: str) -> None:
    """A limit of three tokens a minute would hold a run up for weeks: such a header says nothing."""
    headers = {
        f"x-ratelimit-limit-{name}": limit,
        f"x-ratelimit-remaining-{name}": "0",
        f"x-ratelimit-reset-{name}": "60s",
    }
    assert read_quotas(headers) == ()


# -- where to --------------------------------------------------------------------------------------------------------

OTHER = "https://other.example/v2/chat/completions"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "place", "advice"),
    [
        (OTHER, OTHER, "set base_url (--base-url) to https://other.example/v2"),
        (f"{OTHER}?key=sk-x#sk-x", OTHER, "set base_url (--base-url) to https://other.example/v2"),
        ("https://u:sk-x@other.example/login", "https://other.example/login", "check base_url (--base-url)"),
        ("//other.example/login", "https://other.example/login", "check base_url (--base-url)"),
        ("/v2/chat/completions", "https://llm.example/v2/chat/completions", "to https://llm.example/v2"),
        ("javascript:alert(1)", "javascript:alert(1)", "check base_url (--base-url)"),
        ("https://[::1", "https://[::1", "check base_url (--base-url)"),
        ("", "nowhere", "check base_url (--base-url)"),
        ("https://x.example/\x1b[2J" + "a" * 9_000, "https://x.example/\ufffd[2Jaaa", "check base_url (--base-url)"),
    ],
)
def test_a_redirect_names_the_place_and_the_remedy(status: int, location: str, place: str, advice: str) -> None:
    """It stops the run, says where to, without what may be a key there, and what to set."""
    outcome = fault(status, b"", location=location)  # as gateways from HTTP/2 write it
    assert outcome.kind is FaultKind.MODEL
    assert outcome.message.startswith(f"redirected to {place}")
    assert "which is not followed: the key is sent to llm.example alone" in outcome.message
    assert outcome.message.endswith(advice)
    assert "sk-x" not in outcome.message
    assert len(outcome.message) < 700


# -- what is shown ---------------------------------------------------------------------------------------------------


def json_forms(key: str) -> list[str]:
    return [
        key,
        json.dumps(key)[1:-1],
        key.replace("/", "\\/"),
        "".join(f"\\u{ord(character):04x}" for character in key),
        "".join(f"%{ord(character):02X}" for character in key),
        key.replace("&", "&amp;").replace("+", "&#43;"),
        json.dumps(json.dumps(key.replace("/", "\\/")))[1:-1],
    ]


PADDED = (0, 270, 1_970)  # so that the cuts for message and excerpt go through the key
ECHOES: Mapping[str, str] = {
    "text": "{pad}your request: Authorization: Bearer {key}",
    "message": '{{"error":{{"message":"{pad}bad header Bearer {key}"}}}}',
    "error": '{{"error":"{pad}bad header Bearer {key}"}}',
    "detail": '{{"detail":[{{"input":"{pad}{key}"}}]}}',
    "upstream": '{{"error":{{"message":"no","metadata":{{"raw":"{pad}{key}"}}}}}}',
    "page": "<title>{pad}{key}</title>",
}


@pytest.mark.parametrize("pad", PADDED)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 429, 500, 502])
@pytest.mark.parametrize("echo", ECHOES)
def test_an_echo_of_the_key_is_hidden(echo: str, status: int, pad: int) -> None:
    """An endpoint that sends our Authorization header back, in whatever escapes: no part of the key is kept."""
    for form in json_forms(KEY):
        body = ECHOES[echo].format(pad="x" * pad, key=form).encode()
        outcome = fault(status, body, Location=f"https://other.example/{form}")
        shown = repr(outcome) + outcome.text
        assert not [part for part in (form, KEY, form[:8], KEY[:8], KEY[-8:]) if part in shown]


def disguises(key: str) -> dict[str, tuple[str, str]]:
    """A key as an endpoint may dress it, alone and as a part of something longer; and what of that must be gone."""

    def within(before: int) -> tuple[str, str]:
        coded = base64.b64encode(b"Bearer is "[10 - before :] + key.encode() + b"!" * (before % 4)).decode()
        return coded, coded[-(-8 * before // 6) : 8 * (before + len(key)) // 6]

    alone = within(0)[0]
    whole = {
        "backwards": key[::-1],
        "hexadecimal": key.encode().hex(),
        "HEXADECIMAL": key.encode().hex().upper(),
        "base64 for URLs": alone.replace("+", "-").replace("/", "_").rstrip("="),
        "base64 in a URL": quote(alone, safe=""),
        "base64 in JSON": alone.replace("/", "\\/"),
    }
    return {f"base64 after {n}": within(n) for n in range(10)} | {name: (form, form) for name, form in whole.items()}


STRANGE_KEY = "sk->>>???~~~>>?>-zzz>?>?>?"
assert all(
    sign in base64.b64encode(bytes(before) + STRANGE_KEY.encode()).decode() for before in range(3) for sign in "/+"
)


@pytest.mark.parametrize("pad", PADDED)
@pytest.mark.parametrize("key", [KEY, STRANGE_KEY, "short-12"])
@pytest.mark.parametrize("name", disguises(KEY))
def test_a_key_in_disguise_is_hidden(name: str, key: str, pad: int) -> None:
    """Base64, whatever stands before and after the key, hexadecimal, backwards: it is gone, wherever excerpts end."""
    dressed, core = disguises(key)[name]
    for echo in ("text", "message", "page"):
        body = ECHOES[echo].format(pad="x" * pad, key=dressed).encode()
        outcome = ask(ScriptedReply(status=500, body=body), api_key=Secret(key))
        assert isinstance(outcome, Fault)
        shown = repr(outcome) + outcome.text
        assert not [part for n in range(len(core) - 5) if (part := core[n : n + 6]) in shown]


@given(text=st.text(st.characters(codec="ascii"), max_size=300))
def test_what_is_no_key_stays(text: str) -> None:
    """Base64 and hexadecimal of other things, which error texts are full of, are left alone."""
    redaction = Redaction([KEY, "short-12"])
    for form in (text, base64.b64encode(text.encode()).decode(), text.encode().hex()):
        assert redaction.text(form) == form
        assert redaction.body(form.encode()) == form.encode()


def test_a_key_that_is_put_together_again_is_hidden() -> None:
    """Tabs are taken out of addresses when they are read."""
    outcome = fault(302, b"", Location=f"https://other.example/{KEY[:5]}\t{KEY[5:]}")
    assert outcome.message.startswith(f"redirected to https://other.example/{HIDDEN}, which is not followed")


@pytest.mark.parametrize(
    "endpoint",
    [
        {"api_key": None, "headers": {"X-Api-Key": KEY}},
        {"api_key": None, "headers": {"Authorization": f"Basic {KEY}"}},
        {"api_key": None, "headers": {"Cookie": KEY}},
        {"api_key": None, "headers": {"X-My": Secret(KEY)}},
        {"api_key": None, "base_url": f"https://llm.example/v1?api_key={KEY.replace('&', '%26').replace('+', '%2B')}"},
        {"api_key": None, "base_url": "https://me:" + KEY.replace("/", "%2F") + "@llm.example/v1"},
    ],
    ids=["header", "basic", "cookie", "any header", "query", "password"],
)
def test_other_keys_are_hidden_as_well(endpoint: dict[str, Any]) -> None:
    """A key in a header of the user's own, or in the address."""
    for reply in (
        ScriptedReply(status=500, body=f"you sent {KEY}".encode()),
        ConnectionResetError(f"Invalid header: {KEY}"),
        TimeoutError(f"no reply from {KEY}"),
    ):
        outcome = ask(reply, **endpoint)
        assert isinstance(outcome, Fault)
        assert HIDDEN in outcome.message
        assert KEY not in repr(outcome)


@pytest.mark.parametrize(
    "address",
    ["http://me:sk-word@x:port/v1?key=sk-q", "me:sk-word@x/v1?key=sk-q", "http://me:sk-word@[::1/v1?key=sk-q"],
)
def test_an_address_that_is_none_is_shown_without_its_key(address: str) -> None:
    """The words about a mistyped base URL leave out password and query."""
    with pytest.raises(ConfigError, match="is not a URL like") as caught:
        ask(ScriptedReply(), base_url=address)
    assert "sk-" not in str(caught.value)


def test_a_key_inside_an_answer_is_hidden() -> None:
    """A reply that goes on into parsing, into the store where it is bad, and into an output field: not with the key."""
    body = json.dumps({"choices": [{"message": {"content": f"it is {KEY}!", "refusal": f"no {KEY}"}}]}).encode()
    outcome = completion(body)
    assert (outcome.text, outcome.refusal) == (f"it is {HIDDEN}!", f"no {HIDDEN}")


def test_placeholders_and_other_headers_are_left_in_answers() -> None:
    """ "not-needed" as the key of a local server, and a title in a header, are words that texts are made of."""
    reply = ScriptedReply(body=saying('"a refund is not-needed, says billing"'))
    outcome = ask(reply, api_key=Secret("not-needed"), headers={"X-Title": "billing and more words"})
    assert isinstance(outcome, Completion)
    assert outcome.text == "a refund is not-needed, says billing"


@settings(deadline=None, max_examples=200)
@given(
    key=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=6, max_size=20),
    ways=st.lists(st.integers(0, 4), min_size=20, max_size=20),
)
def test_a_key_is_found_in_any_mixture_of_escapes(key: str, ways: list[int]) -> None:
    """However each of its characters is escaped, the whole of it is replaced."""

    def escaped(character: str, way: int) -> str:
        forms = (
            f"\\u{ord(character):04X}",
            f"%{ord(character):02x}",
            f"&#{ord(character)};",
            f"&#x{ord(character):x};",
        )
        return character if way == 4 else forms[way]

    echo = "".join(map(escaped, key, ways))
    redaction = Redaction([key])
    assert redaction.text(f" {echo} ") == f" {HIDDEN} "
    assert redaction.body(f" {echo} ".encode()) == f" {HIDDEN} ".encode()


@pytest.mark.parametrize(
    "piece", [b"\\", b"\\u", b"&#0", b"%73", b"sk-proj/", b"s", b"&", b"<", b"<title>", b"retry in 9"]
)
def test_looking_for_keys_and_words_takes_no_time(piece: bytes) -> None:
    """No expression runs away on a body that is made for it."""
    started = time.process_time()
    fault(429, piece * (4_000_000 // len(piece)))
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("nasty", ["\x1b]0;owned\x07\x1b[2J", "\u202eetirw", "\0", "\x85", "\u2028", "a\r\nb\tc"])
def test_a_message_is_one_line_that_can_be_shown(nasty: str) -> None:
    """No escape sequence reaches a terminal, no mark turns the writing round, no line ends early."""
    for outcome in (
        fault(500, json.dumps({"error": {"message": f"x{nasty}y"}}).encode()),
        fault(302, b"", Location=f"https://other.example/{nasty}"),
        ask(ConnectionResetError(f"x{nasty}y")),
    ):
        assert isinstance(outcome, Fault)
        assert outcome.message.isprintable()
