"""The OpenAI shape: equal bytes first in every request, what an endpoint takes found out once, replies read safely."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.providers.openai_chat import EndpointKnowledge, OpenAIChat, chat_url, read_completion
from engine.adapters.providers.usage import read_usage
from engine.testing.scripted import (
    Outcome,
    RecordedRequest,
    ScriptedReply,
    ScriptedTransport,
    chat_reply,
    error_reply,
    json_reply,
)
from engine.testing.virtual_time import on_virtual_time, run
from engine.vocabulary.config import Endpoint
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import Secret
from engine.vocabulary.values import Completion, Fault, FaultKind, Usage

SCHEMA = {"type": "object", "properties": {"results": {"type": "array"}}, "required": ["results"]}
USER = 'Inputs:\n{"items":[{"id":"a","input":"naïve 漢字 \\"quoted\\""}]}'
KEY = "sk-very-secret"


def make_endpoint(**changes: Any) -> Endpoint:
    return Endpoint(**({"base_url": "http://llm.example/v1", "model": "m", "api_key": Secret(KEY)} | changes))


def make_chat(
    transport: ScriptedTransport,
    *,
    schema: Mapping[str, Any] | None = SCHEMA,
    system: str = "Be brief.",
    **changes: Any,
) -> OpenAIChat:
    return OpenAIChat(transport=transport, endpoint=make_endpoint(**changes), system=system, schema=schema)


class Recorder:
    """A transport that keeps the bytes of every request."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], **timeouts: float) -> ScriptedReply:
        self.bodies.append(body)
        self.headers.append(headers)
        return chat_reply("{}")


def picky(refuse: Callable[[Mapping[str, Any]], Outcome | None]) -> ScriptedTransport:
    """An endpoint that answers what it does not refuse."""
    return ScriptedTransport(lambda request: refuse(request.document) or chat_reply("{}", delay_s=1.0))


async def ask(chat: OpenAIChat, tokens: int = 50) -> tuple[Completion | Fault, int]:
    """The outcome once the provider asks for no other try, and how often it did."""
    for tries in range(20):
        outcome = await chat.complete(user=USER, max_output_tokens=tokens)
        if not isinstance(outcome, Fault) or outcome.kind is not FaultKind.UNSUPPORTED:
            return outcome, tries
    raise AssertionError("20 times UNSUPPORTED")


# -- what is sent --------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_request_has_the_shape_of_the_contract() -> None:
    """Model, temperature 0, a strict schema, one system and one user message, the limit: and nothing else."""
    recorder = Recorder()
    await OpenAIChat(transport=recorder, endpoint=make_endpoint(), system="Be brief.", schema=SCHEMA).complete(
        user=USER, max_output_tokens=50
    )
    assert json.loads(recorder.bodies[0]) == {
        "model": "m",
        "temperature": 0.0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "results", "strict": True, "schema": SCHEMA},
        },
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": USER}],
        "max_tokens": 50,
    }
    assert json.loads(USER.rpartition("\n")[2])["items"]
    assert recorder.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert recorder.headers[0]["Content-Type"] == "application/json"


@settings(max_examples=30, deadline=None)
@given(
    users=st.lists(st.tuples(st.text(), st.integers(1, 10_000)), min_size=2, max_size=5),
    system=st.text(),
    extra=st.dictionaries(st.sampled_from(["top_p", "seed", "x"]), st.none() | st.integers() | st.text(), max_size=3),
)
def test_requests_differ_only_after_the_static_head(
    users: list[tuple[str, int]], system: str, extra: dict[str, Any]
) -> None:
    """Everything up to the user's text is byte for byte the same in every request, so that a prefix cache hits; what
    follows is the text and the limit, and the whole is JSON."""
    recorder = Recorder()
    chat = OpenAIChat(transport=recorder, endpoint=make_endpoint(extra_body=extra), system=system, schema=SCHEMA)
    for user, tokens in users:
        run(lambda user=user, tokens=tokens: chat.complete(user=user, max_output_tokens=tokens))
    heads = set()
    for body, (user, tokens) in zip(recorder.bodies, users, strict=True):
        tail = msgspec.json.encode(user) + b'}],"max_tokens":%d}' % tokens
        assert body.endswith(tail)
        heads.add(body.removesuffix(tail))
        document = json.loads(body)
        assert [message["content"] for message in document["messages"]] == [system, user]
        assert {name: document[name] for name in extra} == extra
    assert len(heads) == 1


@on_virtual_time
async def test_an_exact_count_goes_into_the_schema_where_it_is_wanted() -> None:
    """Only for an endpoint that is said to take it does the schema ask for as many results as there are items; for
    every other it is constant."""
    for exact, counts in ((True, [(3, 3), (5, 5)]), (False, [(None, None), (None, None)])):
        transport = picky(lambda document: None)
        chat = make_chat(transport, exact_count=exact)
        for items in (3, 5):
            await chat.complete(user=USER, max_output_tokens=5, items=items)
        schemas = [request.document["response_format"]["json_schema"]["schema"] for request in transport.requests]
        results = [schema["properties"]["results"] for schema in schemas]
        assert [(result.get("minItems"), result.get("maxItems")) for result in results] == counts
    assert SCHEMA["properties"] == {"results": {"type": "array"}}


@on_virtual_time
async def test_extra_body_adds_and_replaces() -> None:
    """Fields of the user's own are added at the top level, and go before ours where both say something."""
    recorder = Recorder()
    extra = {"temperature": 0.7, "max_completion_tokens": 9, "model": "other", "provider": {"order": ["x"]}}
    chat = OpenAIChat(transport=recorder, endpoint=make_endpoint(extra_body=extra), system="s", schema=None)
    await chat.complete(user=USER, max_output_tokens=50)
    document = json.loads(recorder.bodies[0])
    assert {name: document[name] for name in extra} == extra
    assert "max_tokens" not in document
    assert recorder.bodies[0].count(b'"temperature"') == 1


@pytest.mark.parametrize("name", ["messages", "stream", "n"])
def test_extra_body_cannot_take_over_the_request(name: str) -> None:
    """Fields that the engine lives by are refused at once, by name."""
    with pytest.raises(ConfigError, match=f"extra body: '{name}'"):
        make_chat(ScriptedTransport(), extra_body={name: 2})


@on_virtual_time
async def test_without_temperature_none_is_sent() -> None:
    """None leaves the temperature to the endpoint."""
    transport = picky(lambda document: None)
    await make_chat(transport, temperature=None).complete(user=USER, max_output_tokens=5)
    assert "temperature" not in transport.requests[0].document


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/", "http://localhost:8000/v1/chat/completions"),
        ("https://x.example/v1/", "https://x.example/v1/chat/completions"),
        ("https://x.example/openai/deployments/d", "https://x.example/openai/deployments/d/chat/completions"),
        ("https://x.example/v1/chat/completions", "https://x.example/v1/chat/completions"),
        ("https://x.example/v1?api-version=3", "https://x.example/v1/chat/completions?api-version=3"),
        (" http://[::1]:8000/v1 ", "http://[::1]:8000/v1/chat/completions"),
    ],
)
def test_addresses(base_url: str, url: str) -> None:
    """A bare host gets /v1, a full address is kept, a query too."""
    assert chat_url(base_url) == url


@pytest.mark.parametrize("base_url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://x:port/v1", "http://[::1"])
def test_what_is_no_address_is_said(base_url: str) -> None:
    """A mistyped base URL is the user's to mend, before anything is sent."""
    with pytest.raises(ConfigError, match="is not a URL like"):
        chat_url(base_url)


@on_virtual_time
async def test_headers_of_the_user_replace_ours() -> None:
    """Given headers are sent, and replace ours whatever their case: never two Authorization headers."""
    recorder = Recorder()
    endpoint = make_endpoint(headers={"authorization": "Basic x", "api-key": "k", "content-type": "application/json+x"})
    await OpenAIChat(transport=recorder, endpoint=endpoint, system="s", schema=None).complete(
        user=USER, max_output_tokens=5
    )
    lowered = [name.lower() for name in recorder.headers[0]]
    assert len(lowered) == len(set(lowered))
    assert recorder.headers[0]["authorization"] == "Basic x"


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": Secret("two\nlines")},
        {"headers": {"X": "a\r\nInjected: b"}},
        {"headers": {"X Y": "a"}},
        {"headers": {"": "a"}},
    ],
    ids=["key", "value", "name", "empty"],
)
def test_headers_that_no_request_can_carry_are_said(changes: dict[str, Any]) -> None:
    """A key pasted with its line end is a ConfigError when the run starts, without the key in its text."""
    with pytest.raises(ConfigError, match="holds a character that no header may hold") as caught:
        make_chat(ScriptedTransport(), **changes)
    assert "two" not in str(caught.value)


def test_a_password_in_the_address_and_a_key_are_one_too_many() -> None:
    """The HTTP client would refuse every request; so it is said before the first."""
    with pytest.raises(ConfigError, match="leave one of them out"):
        make_chat(ScriptedTransport(), base_url="http://user:word@llm.example/v1")


@on_virtual_time
async def test_the_key_shows_nowhere() -> None:
    """No repr and no fault holds the key, nor what in the address may be one."""
    transport = ScriptedTransport(
        [error_reply(404, "no such model"), error_reply(500), OSError("broken"), TimeoutError()]
    )
    chat = make_chat(transport, base_url="http://llm.example/v1?key=sk-in-query")
    with_password = make_chat(ScriptedTransport(), base_url="http://u:sk-word@llm.example/v1", api_key=None)
    shown = [repr(chat), repr(with_password), repr(make_endpoint())]
    for _ in range(4):
        shown.append(repr(await chat.complete(user=USER, max_output_tokens=5)))
    assert not [text for text in shown if "sk-" in text]
    assert "llm.example" in shown[0]


# -- what an endpoint takes ----------------------------------------------------------------------------------------


def format_of(document: Mapping[str, Any]) -> str | None:
    wanted: str | None = document.get("response_format", {}).get("type")
    return wanted


def refuses_formats(*refused: str, explained: bool = True) -> Callable[[Mapping[str, Any]], Outcome | None]:
    def refuse(document: Mapping[str, Any]) -> Outcome | None:
        if format_of(document) not in refused:
            return None
        if not explained:
            return error_reply(400, "Bad Request", delay_s=1.0)
        text = f"response_format of type {format_of(document)} is not supported"
        return error_reply(400, text, param="response_format", delay_s=1.0)

    return refuse


@pytest.mark.parametrize("explained", [True, False])
@pytest.mark.parametrize(
    ("refused", "kept"),
    [((), "json_schema"), (("json_schema",), "json_object"), (("json_schema", "json_object"), None)],
)
@on_virtual_time
async def test_the_format_is_found_out_once(refused: tuple[str, ...], kept: str | None, explained: bool) -> None:
    """json_schema, else json_object, else the prompt alone: one refused request for each step down, also where the
    endpoint does not say why, and none later."""
    transport = picky(refuses_formats(*refused, explained=explained))
    chat = make_chat(transport)
    outcome, tries = await ask(chat)
    assert isinstance(outcome, Completion)
    assert tries == len(refused)
    for _ in range(3):
        assert (await ask(chat))[1] == 0
    assert [format_of(request.document) for request in transport.requests[-3:]] == [kept] * 3
    assert chat.capabilities.response_format == kept


@pytest.mark.parametrize("explained", [True, False])
@on_virtual_time
async def test_many_refusals_at_once_are_one_step_down(explained: bool) -> None:
    """16 requests in flight are refused for the same reason: json_object is tried next, not skipped."""
    transport = picky(refuses_formats("json_schema", explained=explained))
    chat = make_chat(transport)
    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(ask, chat)
    assert transport.peak_in_flight == 16
    assert [format_of(request.document) for request in transport.requests[16:]] == ["json_object"] * 16
    assert len(transport.requests) == 32


@on_virtual_time
async def test_without_a_schema_no_format_is_asked() -> None:
    """No schema, no response_format."""
    transport = picky(refuses_formats("json_schema", "json_object"))
    assert (await ask(make_chat(transport, schema=None)))[1] == 0


def refuses_limit(name: str, words: str) -> Callable[[Mapping[str, Any]], Outcome | None]:
    return lambda document: error_reply(400, words, delay_s=1.0) if name in document else None


@pytest.mark.parametrize(
    "words",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "please use max_completion_tokens instead of max_tokens",
        "Unknown field: max_tokens",
    ],
)
@on_virtual_time
async def test_the_name_of_the_limit_is_found_out_once(words: str) -> None:
    """An endpoint that wants max_completion_tokens gets it after one refusal, in whatever words."""
    transport = picky(refuses_limit("max_tokens", words))
    chat = make_chat(transport)
    assert [(await ask(chat, 77))[1] for _ in range(3)] == [1, 0, 0]
    assert transport.requests[-1].document["max_completion_tokens"] == 77


@pytest.mark.parametrize(
    "words",
    [
        "Unrecognized request argument supplied: reasoning_effort",
        "Unsupported value: 'reasoning_effort' does not support 'low' with this model. Supported values are: 'high'.",
    ],
)
@on_virtual_time
async def test_an_effort_that_is_not_taken_ends_the_run(words: str) -> None:
    """It is sent as asked for; refused, it is not left out in silence, since the model would then think at will."""
    transport = picky(lambda document: error_reply(400, words) if "reasoning_effort" in document else None)
    outcome, tries = await ask(make_chat(transport, reasoning_effort="low"))
    assert transport.requests[0].document["reasoning_effort"] == "low"
    assert isinstance(outcome, Fault)
    assert (outcome.kind, tries) == (FaultKind.MODEL, 0)
    assert "--reasoning-effort low is not taken here" in outcome.message
    answered, _ = await ask(make_chat(transport))
    assert isinstance(answered, Completion)
    assert "reasoning_effort" not in transport.requests[-1].document


@on_virtual_time
async def test_a_limit_refused_under_both_names_ends() -> None:
    """Switching to and fro for ever would not help: it ends as REJECTED."""
    words = "Unknown parameter: max_tokens / max_completion_tokens"
    outcome, tries = await ask(make_chat(picky(lambda document: error_reply(400, words))))
    assert isinstance(outcome, Fault)
    assert (outcome.kind, tries) == (FaultKind.REJECTED, 1)


@on_virtual_time
async def test_everything_is_found_out_together() -> None:
    """An endpoint that takes neither temperature, nor schema, nor max_tokens: three refusals, with 16 in flight at
    most three each, then nothing but answers."""

    def refuse(document: Mapping[str, Any]) -> Outcome | None:
        for name, words in (
            ("temperature", "Unsupported value: 'temperature' does not support 0 with this model."),
            ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        ):
            if name in document:
                return error_reply(400, words, code="unsupported_value", param=name, delay_s=1.0)
        return refuses_formats("json_schema")(document)

    transport = picky(refuse)
    chat = make_chat(transport)
    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(ask, chat)
    assert len(transport.requests) == 4 * 16
    document = transport.requests[-1].document
    assert "temperature" not in document
    assert (format_of(document), "max_completion_tokens" in document) == ("json_object", True)


@on_virtual_time
async def test_what_the_user_asked_for_is_not_given_up() -> None:
    """A parameter of --extra-body that is refused is not ours to leave out: REJECTED, in the endpoint's words."""
    transport = picky(lambda document: error_reply(400, "temperature is not supported", param="temperature"))
    outcome, tries = await ask(make_chat(transport, extra_body={"temperature": 0.5}))
    assert isinstance(outcome, Fault)
    assert (outcome.kind, outcome.message, tries) == (FaultKind.REJECTED, "temperature is not supported", 0)


@pytest.mark.parametrize(
    "words",
    ["no", "temperature is not supported", "response_format is not supported", "unknown: max_tokens, temperature"],
)
@on_virtual_time
async def test_an_endpoint_that_refuses_everything_is_not_asked_for_ever(words: str) -> None:
    """Always a 400, in whatever words: after a bounded number of tries every request is REJECTED at once."""
    transport = picky(lambda document: error_reply(400, words))
    chat = make_chat(transport)
    outcome, tries = await ask(chat)
    assert isinstance(outcome, Fault)
    assert outcome.kind is FaultKind.REJECTED
    assert tries <= 4
    await ask(chat)
    assert (await ask(chat))[1] == 0


@on_virtual_time
async def test_a_bad_record_does_not_cost_a_proven_format() -> None:
    """Once a request has worked, an unexplained 400 is about its content, not about the format."""
    replies: list[Outcome] = [chat_reply("{}"), error_reply(400, "Bad Request"), chat_reply("{}")]
    transport = ScriptedTransport(replies)
    chat = make_chat(transport)
    kinds = [(await ask(chat))[0] for _ in range(3)]
    assert isinstance(kinds[1], Fault)
    assert kinds[1].kind is FaultKind.REJECTED
    assert {format_of(request.document) for request in transport.requests} == {"json_schema"}


def refuses_content(marker: str) -> Callable[[Mapping[str, Any]], Outcome | None]:
    """Another 400 without a reason, of what stands in the input."""
    return lambda document: (
        error_reply(400, "Bad Request", delay_s=1.0) if marker in document["messages"][1]["content"] else None
    )


async def ask_for(chat: OpenAIChat, user: str) -> Completion | Fault:
    for _ in range(20):
        outcome = await chat.complete(user=user, max_output_tokens=50)
        if not isinstance(outcome, Fault) or outcome.kind is not FaultKind.UNSUPPORTED:
            return outcome
    raise AssertionError("20 times UNSUPPORTED")


@pytest.mark.parametrize("bad_first", [1, 2, 4])
@on_virtual_time
async def test_a_bad_record_at_the_start_does_not_cost_the_format(bad_first: int) -> None:
    """Leaving the format out has to help: a batch that is refused without it as well was not refused for it."""
    transport = picky(refuses_content("BAD"))
    chat = make_chat(transport)
    for _ in range(bad_first):
        outcome = await ask_for(chat, "BAD")
        assert isinstance(outcome, Fault)
        assert outcome.kind is FaultKind.REJECTED
    assert isinstance(await ask_for(chat, "good"), Completion)
    assert format_of(transport.requests[-1].document) == "json_schema"
    assert len(transport.requests) == bad_first + 2 * min(bad_first, 2) + 1


@pytest.mark.parametrize("good_first", [False, True])
@on_virtual_time
async def test_a_bad_record_beside_a_good_one_does_not_cost_the_format(good_first: bool) -> None:
    """Two probes at once: the good one had the format and worked, whichever of them ends first."""

    def refuse(document: Mapping[str, Any]) -> Outcome | None:
        if "BAD" in document["messages"][1]["content"]:
            return error_reply(400, "Bad Request", delay_s=1.5 if good_first else 0.4)
        return None

    transport = picky(refuse)
    chat = make_chat(transport)
    async with anyio.create_task_group() as tasks:
        for user in ("BAD", "good"):
            tasks.start_soon(ask_for, chat, user)
    assert isinstance(await ask_for(chat, "good"), Completion)
    assert format_of(transport.requests[-1].document) == "json_schema"


@on_virtual_time
async def test_a_format_and_a_record_refused_without_a_reason_are_told_apart() -> None:
    """The first batch is bad in any format, and the endpoint takes json_object only: the second finds that out."""
    bad, schema = refuses_content("BAD"), refuses_formats("json_schema", explained=False)
    transport = picky(lambda document: bad(document) or schema(document))
    chat = make_chat(transport)
    assert isinstance(await ask_for(chat, "BAD"), Fault)
    assert isinstance(await ask_for(chat, "good"), Completion)
    assert isinstance(await ask_for(chat, "BAD"), Fault)
    assert isinstance(await ask_for(chat, "good"), Completion)
    formats = [format_of(request.document) for request in transport.requests]
    assert formats == ["json_schema", "json_object", None, "json_schema", "json_object", "json_object", "json_object"]


@on_virtual_time
async def test_prompts_on_one_endpoint_share_what_was_found_out() -> None:
    """What one prompt found out, another does not ask again; one without a schema spoils nothing for the others."""
    transport = picky(refuses_formats("json_schema"))
    known = EndpointKnowledge()
    first, second, plain = (
        OpenAIChat(transport=transport, endpoint=make_endpoint(), system=system, schema=schema, known=known)
        for system, schema in (("1", SCHEMA), ("2", SCHEMA), ("3", None))
    )
    assert [(await ask(chat))[1] for chat in (plain, first, second, plain)] == [0, 1, 0, 0]
    formats = [format_of(request.document) for request in transport.requests]
    assert formats == [None, "json_schema", "json_object", "json_object", None]


# -- what comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), FaultKind.TIMEOUT),
        (ConnectionResetError("reset"), FaultKind.TRANSPORT),
        (OSError(113, "No route to host"), FaultKind.TRANSPORT),
    ],
)
@on_virtual_time
async def test_transport_errors_are_faults(error: OSError, kind: FaultKind) -> None:
    """What the transport raises comes back as a fault with words, and is not raised."""
    outcome = await make_chat(ScriptedTransport([error])).complete(user=USER, max_output_tokens=5)
    assert isinstance(outcome, Fault)
    assert outcome.kind is kind
    assert outcome.message


def completion(**message: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize(
    ("message", "text", "refusal"),
    [
        ({"content": "hello"}, "hello", None),
        ({"content": None}, "", None),
        ({}, "", None),
        ({"content": ["x", {"type": "text", "text": "a"}, {"type": "image"}, {"text": 3}, {"text": "b"}]}, "ab", None),
        ({"content": 3}, "", None),
        ({"content": None, "refusal": "I cannot help with that"}, "", "I cannot help with that"),
        ({"content": "x", "refusal": ""}, "x", None),
        ({"content": "x", "refusal": True}, "x", None),
        ({"content": "half \ud800 a character"}, "half ? a character", None),
    ],
)
def test_contents_in_all_their_forms(message: dict[str, Any], text: str, refusal: str | None) -> None:
    """A string, parts, null or nothing; half characters are replaced, since nothing can store them."""
    outcome = read_completion(completion(**message))
    assert isinstance(outcome, Completion)
    assert (outcome.text, outcome.refusal, outcome.usage) == (text, refusal, None)


@pytest.mark.parametrize(
    ("said", "reason", "refusal"),
    [
        ("stop", "stop", None),
        ("LENGTH", "length", None),
        (None, "", None),
        (7, "", None),
        ("content_filter", "content_filter", "content filter"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter", "content filter"),
    ],
)
def test_reasons_for_the_end(said: Any, reason: str, refusal: str | None) -> None:
    """In lower case; a content filter counts as a refusal, also as Gemini spells it."""
    body = json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": said}]}).encode()
    outcome = read_completion(body)
    assert isinstance(outcome, Completion)
    assert (outcome.finish_reason, outcome.refusal) == (reason, refusal)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":{}}',
        b'{"choices":"x"}',
        b'{"choices":[null]}',
        b'{"choices":[{"message":"x"}]}',
        b'{"choices":[{"text":"x"}]}',
        b"<html><title>Welcome</title></html>",
        b"data: {}\n\n",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"choices":' * 20_000,
        b'{"error":"out of memory"}',
        b'{"x":' + b"9" * 10_000 + b"}",
    ],
)
def test_a_200_that_is_no_completion_is_a_bad_reply(body: bytes) -> None:
    """Whatever stands there instead: a fault that quotes it."""
    outcome = read_completion(body)
    assert isinstance(outcome, Fault)
    assert outcome.kind is FaultKind.BAD_REPLY
    assert outcome.message.startswith("HTTP 200, but no chat completion: ")
    assert len(outcome.excerpt) <= 2_000


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 402, "message": "Insufficient credits"}, FaultKind.QUOTA),
        ({"code": 429, "message": "Rate limited upstream"}, FaultKind.RATE_LIMIT),
        ({"code": 502, "message": "Provider disconnected"}, FaultKind.SERVER),
        ({"code": 200, "message": "odd"}, FaultKind.BAD_REPLY),
        ({"code": "x", "message": "odd"}, FaultKind.BAD_REPLY),
        ({"code": True, "message": "odd"}, FaultKind.BAD_REPLY),
    ],
)
@on_virtual_time
async def test_an_error_inside_a_200_is_taken_at_its_word(error: dict[str, Any], kind: FaultKind) -> None:
    """OpenRouter says 200 and puts the status into the body: it counts as if it stood outside."""
    outcome = await make_chat(ScriptedTransport([json_reply({"error": error})])).complete(
        user=USER, max_output_tokens=5
    )
    assert isinstance(outcome, Fault)
    assert outcome.kind is kind


DETAILS = {"completion_tokens_details": {"reasoning_tokens": 40}}
ANTHROPIC = {"cache_read_input_tokens": 900, "cache_creation_input_tokens": 30}


@pytest.mark.parametrize(
    ("usage", "message", "read"),
    [
        ({"prompt_tokens": 99, "completion_tokens": 50} | DETAILS, {}, (99, 50, 0, 40)),
        ({"prompt_tokens": 99, "completion_tokens": 10, "total_tokens": 149} | DETAILS, {}, (99, 50, 0, 40)),
        ({"prompt_tokens": 99, "completion_tokens": 10, "total_tokens": 149}, {}, (99, 50, 0, 40)),
        ({"prompt_tokens": 99, "completion_tokens": 50, "total_tokens": 149} | DETAILS, {}, (99, 50, 0, 40)),
        ({"prompt_tokens": 99, "completion_tokens": 50, "total_tokens": 120}, {}, (99, 50, 0, 0)),
        ({"prompt_tokens": 99, "completion_tokens": 50}, {"content": "1" * 20, "reasoning": "2" * 80}, (99, 50, 0, 40)),
        ({"prompt_tokens": 9, "completion_tokens": 50}, {"content": "", "reasoning_content": "2"}, (9, 50, 0, 50)),
        (
            {"prompt_tokens": 9, "completion_tokens": 50},
            {"content": "<think>" + "2" * 80 + "</think>" + "1" * 20},
            (9, 50, 0, 40),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 50}, {"content": "<think>" + "2" * 80}, (9, 50, 0, 50)),
        ({"prompt_tokens": 9, "completion_tokens": 900}, {"content": "1" * 30}, (9, 900, 0, 890)),
        ({"prompt_tokens": 9, "completion_tokens": 90}, {"content": "1" * 30}, (9, 90, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 900}, {"content": None, "tool_calls": [{}]}, (9, 900, 0, 0)),
        ({"prompt_tokens": 999, "completion_tokens": 3, "prompt_cache_hit_tokens": 640}, {}, (999, 3, 640, 0)),
        ({"prompt_tokens": 999, "completion_tokens": 3, "cached_tokens": 640}, {}, (999, 3, 640, 0)),
        ({"prompt_tokens": 70, "completion_tokens": 3} | ANTHROPIC, {}, (1_000, 3, 900, 0)),
        ({"prompt_tokens": 970, "completion_tokens": 3, "total_tokens": 1_903} | ANTHROPIC, {}, (1_900, 3, 900, 0)),
        ({"prompt_tokens": 1_000, "completion_tokens": 3, "total_tokens": 1_003} | ANTHROPIC, {}, (1_000, 3, 900, 0)),
        ({"prompt_tokens": 1_000, "completion_tokens": 3} | ANTHROPIC, {}, (1_000, 3, 900, 0)),
    ],
)
def test_every_provider_s_count_comes_to_one_meaning(usage: Any, message: Any, read: tuple[int, ...]) -> None:
    """Cached tokens are part of the input and reasoning of the output, whoever counts them beside or not at all."""
    wanted = Usage(
        input_tokens=read[0], output_tokens=read[1], cached_tokens=read[2], reasoning_tokens=read[3],
        written_tokens=usage.get("cache_creation_input_tokens", 0),
    )  # fmt: skip
    assert read_usage(usage, message=message) == wanted


@pytest.mark.parametrize(
    ("usage", "written"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 800}}, 800),
        ({"prompt_tokens_details": {"cache_creation_tokens": 700}}, 700),
        ({"prompt_tokens_details": {"cached_tokens": 900, "cache_write_tokens": 800}}, 100),
        ({"cache_creation_input_tokens": 30, "cache_read_input_tokens": 0}, 30),
        ({"prompt_tokens_details": {"cache_write_tokens": -5}}, 0),
        ({"prompt_tokens_details": {"cache_write_tokens": "many"}}, 0),
        ({"prompt_tokens_details": None}, 0),
    ],
)
def test_what_is_written_into_a_cache_is_read_under_every_name(usage: Any, written: int) -> None:
    """Part of the input that was not read from it, and never more than that."""
    said = read_usage({"prompt_tokens": 1_000, "completion_tokens": 3} | usage)
    assert said is not None
    assert said.input_tokens == 1_000
    assert said.written_tokens == written


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 3}, (10, 3, 0)),
        ({"prompt_tokens": 10, "completion_tokens": 0}, (10, 0, 0)),
        ({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}, (10, 3, 8)),
        ({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99}}, (10, 3, 10)),
        ({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": -1}}, (10, 3, 0)),
        ({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}}, (10, 3, 0)),
        ({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": []}, (10, 3, 0)),
        ({"prompt_tokens": -10, "completion_tokens": 3}, None),
        ({"prompt_tokens": "10", "completion_tokens": 3}, None),
        ({"prompt_tokens": 10.5, "completion_tokens": 3}, None),
        ({"prompt_tokens": True, "completion_tokens": 3}, None),
        ({"prompt_tokens": 0, "completion_tokens": 3}, None),
        ({"prompt_tokens": 10**12, "completion_tokens": 3}, None),
        ({"prompt_tokens": 10}, None),
        ({"completion_tokens": 3}, None),
        ({}, None),
        (None, None),
        ([10, 3], None),
    ],
)
def test_usage_that_cannot_be_true_is_none(usage: Any, read: tuple[int, int, int] | None) -> None:
    """Figures are taken if they are whole and within reason; cached ones are part of the input."""
    wanted = None if read is None else Usage(input_tokens=read[0], output_tokens=read[1], cached_tokens=read[2])
    assert read_usage(usage) == wanted


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
keys = st.sampled_from(["choices", "message", "content", "refusal", "finish_reason", "usage", "text", "error", "code"])
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner), max_leaves=15
)
nearly = st.fixed_dictionaries(
    {
        "choices": anything
        | st.lists(st.fixed_dictionaries({"message": st.dictionaries(keys, anything), "finish_reason": anything})),
        "usage": anything | st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), scalars),
    }
)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | anything.map(lambda v: json.dumps(v).encode())
    | nearly.map(lambda v: json.dumps(v).encode())
)
def test_any_200_is_a_completion_or_a_fault(body: bytes) -> None:
    """Wrong types at any place, half characters, no JSON: never an exception, and every text can be stored."""
    outcome = read_completion(body)
    if isinstance(outcome, Completion):
        texts = [outcome.text, outcome.finish_reason, outcome.refusal or ""]
    else:
        texts = [outcome.message, outcome.excerpt]
    for text in texts:
        text.encode()


@settings(max_examples=150, deadline=None)
@given(status=st.integers(100, 999), body=st.binary(max_size=200) | anything.map(lambda v: json.dumps(v).encode()))
def test_any_reply_is_an_outcome(status: int, body: bytes) -> None:
    """Whatever status and body: `complete` returns, and asks for another try only a bounded number of times."""
    reply = ScriptedReply(status=status, body=body)

    def answer(request: RecordedRequest) -> Outcome:
        return reply

    outcome, tries = run(ask, make_chat(ScriptedTransport(answer)))
    assert isinstance(outcome, Completion | Fault)
    assert tries <= 4


@pytest.mark.parametrize("reason", ["sk-Secret-Key", "sk-secret-key", "stop " * 50, "x" * 10_000])
def test_a_reason_for_the_end_is_a_known_word_or_none(reason: str) -> None:
    """It goes into the store and the log, and an endpoint may put our key there."""
    choice = {"message": {"content": "{}"}, "finish_reason": reason}
    outcome = read_completion(msgspec.json.encode({"choices": [choice]}))
    assert isinstance(outcome, Completion)
    assert outcome.finish_reason == "other"
    known = read_completion(msgspec.json.encode({"choices": [choice | {"finish_reason": "LENGTH"}]}))
    assert isinstance(known, Completion)
    assert known.finish_reason == "length"
