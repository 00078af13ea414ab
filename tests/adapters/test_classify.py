"""What an error reply is: bodies as the world's endpoints send them, and anything else without an exception."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.providers.classify import EXCERPT, MAX_RETRY_AFTER_S, classify, retry_after_s
from engine.vocabulary.values import Fault, FaultKind

URL = "https://llm.example/v1/chat/completions"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
K = FaultKind


def openai(message: str, code: str | None = None, param: str | None = None, kind: str = "invalid_request_error") -> Any:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def gemini(code: int, message: str, status: str, **more: Any) -> Any:
    """Gemini's OpenAI endpoint puts its error into a list."""
    return [{"error": {"code": code, "message": message, "status": status, **more}}]


def vllm(message: str, kind: str, code: int) -> Any:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


def page(title: str) -> bytes:
    head = f"<html>\r\n<head><title>{title}</title></head>\r\n"
    return f"{head}<body><center><h1>{title}</h1></center><hr></body></html>".encode()


# What an endpoint sent: who, status, body, what it is, the parameter that it does not take.
REAL: list[tuple[str, int, Any, FaultKind, str | None]] = [
    ("OpenAI, wrong key", 401, openai("Incorrect API key provided: sk-1***2.", "invalid_api_key"), K.AUTH, None),
    ("OpenAI, country", 403, openai("Country, region, or territory not supported", "unsupported_country"),
     K.AUTH, None),
    ("OpenAI, model", 404, openai("The model `gpt-9` does not exist or you do not have access to it.",
     "model_not_found"), K.MODEL, None),
    ("OpenAI, rate", 429, openai("Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit "
     "30000, Used 29500, Requested 1200. Please try again in 1.4s.", "rate_limit_exceeded", kind="tokens"),
     K.RATE_LIMIT, None),
    ("OpenAI, quota", 429, openai("You exceeded your current quota, please check your plan and billing details.",
     "insufficient_quota", kind="insufficient_quota"), K.QUOTA, None),
    ("OpenAI, context", 400, openai("This model's maximum context length is 128000 tokens. However, your messages "
     "resulted in 130000 tokens. Please reduce the length of the messages.", "context_length_exceeded", "messages"),
     K.CONTEXT, None),
    ("OpenAI, string", 400, openai("Invalid 'messages[1].content': string too long. Expected a string with maximum "
     "length 10485760, but got a string with length 10485761 instead.", "string_above_max_length",
     "messages[1].content"), K.CONTEXT, None),
    ("OpenAI, o-series limit", 400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
     "'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens"), K.UNSUPPORTED, "max_tokens"),
    ("OpenAI, old limit", 400, openai("Unrecognized request argument supplied: max_completion_tokens"),
     K.UNSUPPORTED, "max_completion_tokens"),
    ("OpenAI, limit too high", 400, openai("max_tokens is too large: 100000. This model supports at most 16384 "
     "completion tokens, whereas you provided 100000.", "invalid_value", "max_tokens"), K.REJECTED, None),
    ("OpenAI, temperature", 400, openai("Unsupported value: 'temperature' does not support 0 with this model. Only the "
     "default (1) value is supported.", "unsupported_value", "temperature"), K.UNSUPPORTED, "temperature"),
    ("OpenAI, format", 400, openai("Invalid parameter: 'response_format' of type 'json_schema' is not supported with "
     "this model.", None, "response_format"), K.UNSUPPORTED, "response_format"),
    ("OpenAI, schema", 400, openai("Invalid schema for response_format 'results': In context=('properties', 'x'), "
     "'minimum' is not permitted.", "invalid_json_schema", "text.format.schema"), K.UNSUPPORTED, "response_format"),
    ("OpenAI, flagged", 400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage "
     "policy.", "invalid_prompt"), K.FILTERED, None),
    ("OpenAI, server", 500, openai("The server had an error while processing your request. Sorry about that!", None,
     kind="server_error"), K.SERVER, None),
    ("OpenAI, overloaded", 503, openai("The engine is currently overloaded, please try again later", None), K.SERVER,
     None),
    ("Azure, filter", 400, {"error": {"message": "The response was filtered due to the prompt triggering Azure "
     "OpenAI's content management policy. Please modify your prompt and retry.", "type": None, "param": "prompt",
     "code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation",
     "content_filter_result": {"hate": {"filtered": True, "severity": "high"}}}}}, K.FILTERED, None),
    ("Azure, deployment", 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this "
     "resource does not exist."}}, K.MODEL, None),
    ("Azure, key", 401, {"statusCode": 401, "message": "Access denied due to invalid subscription key."}, K.AUTH, None),
    ("Azure, rate", 429, {"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have "
     "exceeded token rate limit of your current pricing tier. Please retry after 7 seconds."}}, K.RATE_LIMIT, None),
    ("vLLM, context", 400, vllm("This model's maximum context length is 4096 tokens. However, you requested 5000 "
     "tokens (4000 in the messages, 1000 in the completion).", "BadRequestError", 400), K.CONTEXT, None),
    ("vLLM, limit", 400, vllm("'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum "
     "context length is 4096 tokens.", "BadRequestError", 400), K.CONTEXT, None),
    ("vLLM, model", 404, vllm("The model `foo` does not exist.", "NotFoundError", 404), K.MODEL, None),
    ("vLLM, grammar", 400, vllm("Failed to convert the grammar from JSON schema", "BadRequestError", 400),
     K.UNSUPPORTED, "response_format"),
    ("vLLM, newer shape", 400, {"error": {"message": "1 validation error: temperature must be non-negative", "type":
     "BadRequestError", "param": None, "code": 400}}, K.REJECTED, None),
    ("FastAPI", 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "response_format", "json_schema"], "msg":
     "Extra inputs are not permitted"}]}, K.UNSUPPORTED, "response_format"),
    ("Mistral", 422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body",
     "max_completion_tokens"], "msg": "Extra inputs are not permitted", "input": 500}]}, "type":
     "invalid_request_error"}, K.UNSUPPORTED, "max_completion_tokens"),
    ("llama.cpp, context", 400, {"error": {"code": 400, "message": "the request exceeds the available context size, "
     "try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}},
     K.CONTEXT, None),
    ("llama.cpp, loading", 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
     K.SERVER, None),
    ("llama.cpp, grammar", 400, {"error": {"code": 400, "message": "Failed to parse grammar", "type":
     "invalid_request_error"}}, K.UNSUPPORTED, "response_format"),
    ("llama.cpp, schema", 400, {"error": {"code": 400, "message": "JSON schema conversion failed:\nUnrecognized "
     "schema: {}", "type": "invalid_request_error"}}, K.UNSUPPORTED, "response_format"),
    ("llama.cpp, key", 401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
     K.AUTH, None),
    ("Ollama, model", 404, openai("model 'llama9' not found", None, kind="not_found_error"), K.MODEL, None),
    ("Ollama, plain", 404, {"error": "model \"llama9\" not found, try pulling it first"}, K.MODEL, None),
    ("Ollama, runner", 500, openai("llama runner process has terminated: exit status 2", None, kind="api_error"),
     K.SERVER, None),
    ("Ollama, context", 500, {"error": "the input length exceeds the context length"}, K.CONTEXT, None),
    ("LiteLLM, parameter", 400, openai("litellm.UnsupportedParamsError: bedrock does not support parameters: "
     "['response_format'], for model=x. To drop these, set `litellm.drop_params=True`", "400"),
     K.UNSUPPORTED, "response_format"),
    ("LiteLLM, context", 400, openai("litellm.ContextWindowExceededError: litellm.BadRequestError: prompt is longer",
     "400"), K.CONTEXT, None),
    ("LiteLLM, budget", 400, openai("Budget has been exceeded! Current cost: 20.1, Max budget: 20.0", "400",
     kind="budget_exceeded"), K.QUOTA, None),
    ("LiteLLM, model", 400, openai("/chat/completions: Invalid model name passed in model=foo. Call `/v1/models` to "
     "view available models for your key.", "400"), K.MODEL, None),
    ("LiteLLM, key", 401, openai("Authentication Error, Invalid proxy server token passed.", "401", kind="auth_error"),
     K.AUTH, None),
    ("LiteLLM, cooling", 429, openai("No deployments available for selected model, Try again in 60 seconds.", "429"),
     K.RATE_LIMIT, None),
    ("TGI, context", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
     "Given: 5000 `inputs` tokens and 100 `max_new_tokens`", "error_type": "validation"}, K.CONTEXT, None),
    ("TGI, overloaded", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, K.RATE_LIMIT, None),
    ("TGI, generation", 424, {"error": "Request failed during generation: CUDA error", "error_type": "generation"},
     K.SERVER, None),
    ("TGI, format", 422, b"Failed to deserialize the JSON body into the target type: response_format: unknown variant "
     b"`json_schema`, expected one of `json`, `json_object`, `regex` at line 1 column 300",
     K.UNSUPPORTED, "response_format"),
    ("Gemini, key", 400, gemini(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"), K.AUTH,
     None),
    ("Gemini, rate", 429, gemini(429, "You exceeded your current quota, please check your plan and billing details. "
     "Please retry in 34.07s.", "RESOURCE_EXHAUSTED"), K.RATE_LIMIT, None),
    ("Gemini, context", 400, gemini(400, "The input token count (1200000) exceeds the maximum number of tokens allowed "
     "(1048576).", "INVALID_ARGUMENT"), K.CONTEXT, None),
    ("Gemini, field", 400, gemini(400, 'Invalid JSON payload received. Unknown name "max_completion_tokens": Cannot '
     'find ' "field.", "INVALID_ARGUMENT"), K.UNSUPPORTED, "max_completion_tokens"),
    ("Gemini, schema", 400, gemini(400, "Invalid JSON payload received. Unknown name \"additionalProperties\" at "
     "'generation_config.response_schema': Cannot find field.", "INVALID_ARGUMENT"), K.UNSUPPORTED, "response_format"),
    ("Gemini, overloaded", 503, gemini(503, "The model is overloaded. Please try again later.", "UNAVAILABLE"),
     K.SERVER, None),
    ("Gemini, model", 404, gemini(404, "models/gemini-9 is not found for API version v1main", "NOT_FOUND"), K.MODEL,
     None),
    ("OpenRouter, credits", 402, {"error": {"code": 402, "message": "Insufficient credits. Add more using https://x"}},
     K.QUOTA, None),
    ("OpenRouter, moderation", 403, {"error": {"code": 403, "message": "openai/gpt-4o requires moderation. Your input "
     "was flagged for \"violence\".", "metadata": {"reasons": ["violence"], "flagged_input": "..."}}},
     K.FILTERED, None),
    ("OpenRouter, upstream", 400, {"error": {"code": 400, "message": "Provider returned error", "metadata": {
     "provider_name": "OpenAI", "raw": json.dumps(openai("Unsupported parameter: 'max_tokens' is not supported with "
     "this model. Use 'max_completion_tokens' instead.", "unsupported_parameter", "max_tokens"))}}},
     K.UNSUPPORTED, "max_tokens"),
    ("OpenRouter, model", 400, {"error": {"code": 400, "message": "foo/bar is not a valid model ID"}}, K.MODEL, None),
    ("OpenRouter, provider", 502, {"error": {"code": 502, "message": "Provider returned error"}}, K.SERVER, None),
    ("DeepSeek, model", 400, openai("Model Not Exist", "invalid_request_error"), K.MODEL, None),
    ("DeepSeek, limit", 400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"), K.REJECTED,
     None),
    ("Groq, limit", 400, openai("`max_tokens` cannot be greater than 8192"), K.REJECTED, None),
    ("Anthropic, overloaded", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
     K.SERVER, None),
    ("nginx, too large", 413, page("413 Request Entity Too Large"), K.CONTEXT, None),
    ("nginx, bad gateway", 502, page("502 Bad Gateway"), K.SERVER, None),
    ("nginx, timeout", 504, page("504 Gateway Time-out"), K.TIMEOUT, None),
    ("nginx, not here", 404, page("404 Not Found"), K.MODEL, None),
    ("nginx, wrong method", 405, page("405 Not Allowed"), K.MODEL, None),
    ("Cloudflare, origin", 522, page("llm.example | 522: Connection timed out"), K.SERVER, None),
    ("Cloudflare, rate", 429, b"error code: 1015", K.RATE_LIMIT, None),
    ("Cloudflare, denied", 403, page("Attention Required! | Cloudflare"), K.AUTH, None),
    ("nobody", 418, b"", K.REJECTED, None),
    ("no content", 204, b"", K.SERVER, None),
]  # fmt: skip


def fault_of(status: int, body: Any, headers: dict[str, str] | None = None) -> Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(status, headers or {}, raw, url=URL, now=NOW)


@pytest.mark.parametrize(
    ("status", "body", "kind", "parameter"), [row[1:] for row in REAL], ids=[row[0] for row in REAL]
)
def test_real_replies(status: int, body: Any, kind: FaultKind, parameter: str | None) -> None:
    """Each endpoint's own words lead to the kind of fault that they mean, with a message of one line."""
    fault = fault_of(status, body)
    assert (fault.kind, fault.parameter, fault.status) == (kind, parameter, status)
    assert fault.message
    assert "\n" not in fault.message
    assert len(fault.message) < EXCERPT + 200


def test_messages_are_in_the_endpoints_own_words() -> None:
    """HTML is reduced to its title, JSON to its message; a fatal fault adds what to check."""
    assert fault_of(502, page("502 Bad Gateway")).message == "502 Bad Gateway"
    assert fault_of(500, {"detail": "out of memory"}).message == "out of memory"
    assert fault_of(500, b"").message == "(empty reply)"
    assert "--model" in fault_of(404, b"no").message
    assert URL in fault_of(404, b"no").message
    assert "ANNOTATE_API_KEY" in fault_of(401, b"no").message


def test_a_redirect_names_where_to() -> None:
    """A redirect is a wrong address, and its target tells which would be right."""
    fault = fault_of(301, b"", {"Location": "https://other.example/v1"})
    assert fault.kind is FaultKind.MODEL
    assert "https://other.example/v1" in fault.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"RETRY-AFTER": " 3 "}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:30"}, 30.0),
        ({"Retry-After": "Sun, 01 Mar 2026 13:00:30 +0100"}, 30.0),
        ({"Retry-After": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "nan"}, 0.0),
        ({"Retry-After": "inf"}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "9" * 400}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_RETRY_AFTER_S),
        ({"Retry-After": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}, None),
        ({"Retry-After": "in a while"}, None),
        ({"Retry-After": ""}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds or a date, in any case; bounded from both sides; None for what says nothing."""
    assert retry_after_s(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ('{"retryDelay": "34s"}', 34.0),
        ("Please try again in 1.4s. Visit ...", 1.4),
        ("Please try again in 20ms.", 0.02),
        ("Please try again in 7m12.5s.", 432.5),
        ("Please retry in 34.07s.", 34.07),
        ("try again in 99m0s", MAX_RETRY_AFTER_S),
        ("try again in " + "9" * 5_000 + "m1s", None),
        ("try again later", None),
    ],
)
def test_a_wait_in_words_counts_where_no_header_says_it(text: str, seconds: float | None) -> None:
    """Gemini and Groq write the wait into the body; a header goes before."""
    assert retry_after_s({}, now=NOW, body=text.encode()) == seconds
    assert retry_after_s({"Retry-After": "2"}, now=NOW, body=text.encode()) == 2.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "code", "type", "param", "metadata", "raw", "x"]), inner
        )
    ),
    max_leaves=12,
)
bodies = st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode())


@settings(max_examples=300, deadline=None)
@given(
    status=st.integers(100, 999),
    headers=st.dictionaries(
        st.sampled_from(["Retry-After", "retry-after-ms", "Location", "x"]), st.text(max_size=40), max_size=3
    ),
    body=bodies,
)
def test_anything_is_some_fault(status: int, headers: dict[str, str], body: bytes) -> None:
    """No status, header or body raises; the message is one line, the wait a bounded number."""
    fault = classify(status, headers, body, url=URL)
    assert fault.message
    assert fault.retry_after_s is None or 0 <= fault.retry_after_s <= MAX_RETRY_AFTER_S
    assert (fault.parameter is not None) == (fault.kind is FaultKind.UNSUPPORTED)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"error":' * 50_000,
        b'{"error":{"code":' + b"[" * 900 + b"]" * 900 + b"}}",
        b"<title>" * 100_000,
        b"<" * 1_000_000,
        b'{"error":{"message":"\\ud800"}}',
        b"\xff\xfe" * 1_000,
    ],
    ids=["deep list", "deep object", "deep code", "open titles", "open tags", "half a character", "no text"],
)
def test_hostile_bodies_cost_little(body: bytes) -> None:
    """Deep nesting and endless tags neither raise nor stall."""
    began = time.process_time()
    assert fault_of(400, body).kind in (FaultKind.REJECTED, FaultKind.UNSUPPORTED)
    assert time.process_time() - began < 0.5
