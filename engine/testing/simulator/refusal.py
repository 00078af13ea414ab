"""Requests that the endpoint refuses by its rules, with the words of the real one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from . import wire
from .limits import Denial
from .request import ChatRequest


class SchemaSupport(StrEnum):
    """The best ``response_format`` that the endpoint takes."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    NONE = "none"


class MaxTokensField(StrEnum):
    """The name under which the endpoint takes the output limit."""

    EITHER = "either"
    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"


class LimitsTold(StrEnum):
    """What an endpoint says of its rate limits: in every reply, only where it refuses, or not even there."""

    HEADERS = "headers"
    REFUSALS = "refusals"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the endpoint takes.

    :ivar model: the only model it knows; None: any.
    :ivar api_key: the bearer token that it wants; None: none.
    :ivar schema_support: the best response format.
    :ivar context_tokens: input and output together may not exceed this; None: no limit.
    :ivar takes_temperature: whether a temperature other than 1 is accepted.
    :ivar limits_told: what it says of its rate limits.
    :ivar refuses_all: every request is answered 400.
    :ivar efforts: the values of ``reasoning_effort`` that it takes; none: it does not know the parameter.
    """

    model: str | None = None
    api_key: str | None = None
    schema_support: SchemaSupport = SchemaSupport.JSON_SCHEMA
    max_tokens_field: MaxTokensField = MaxTokensField.EITHER
    context_tokens: int | None = None
    takes_temperature: bool = True
    limits_told: LimitsTold = LimitsTold.HEADERS
    refuses_all: bool = False
    efforts: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply."""

    status: int
    body: bytes
    headers: Mapping[str, str] | None = None


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> Refusal:
    """A 400."""
    return Refusal(400, wire.error_body(message, kind="invalid_request_error", param=param, code=code))


def unauthorised(headers: Mapping[str, str], rules: Rules) -> Refusal | None:
    """The key is looked at before anything else."""
    if rules.api_key is None:
        return None
    given = headers.get("Authorization") or headers.get("authorization") or ""
    if given == f"Bearer {rules.api_key}":
        return None
    kind = "invalid_request_error"
    return Refusal(401, wire.error_body("Incorrect API key provided.", kind=kind, code="invalid_api_key"))


def unacceptable(request: ChatRequest, format_kind: str, rules: Rules) -> Refusal | None:
    """The first rule that a request breaks, in this order: model, stream, output limit, temperature, format."""
    if rules.model is not None and request.model != rules.model:
        message = f"The model `{request.model}` does not exist or you do not have access to it."
        body = wire.error_body(message, kind="invalid_request_error", code="model_not_found")
        return Refusal(404, body)
    if request.stream:
        return invalid("Streaming is not supported by this endpoint.", param="stream", code="unsupported_value")
    return (
        _wrong_limit_field(request, rules)
        or _wrong_effort(request, rules)
        or _wrong_temperature(request, rules)
        or _wrong_format(request, format_kind, rules)
    )


def _wrong_limit_field(request: ChatRequest, rules: Rules) -> Refusal | None:
    wanted = rules.max_tokens_field
    if wanted is MaxTokensField.MAX_COMPLETION_TOKENS and request.max_tokens is not None:
        return invalid(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if wanted is MaxTokensField.MAX_TOKENS and request.max_completion_tokens is not None:
        return invalid("Unrecognized request argument supplied: max_completion_tokens")
    limit = request.max_completion_tokens if request.max_tokens is None else request.max_tokens
    if limit is not None and limit < 1:
        return invalid(f"Invalid 'max_tokens': expected a value >= 1, but got {limit} instead.", param="max_tokens")
    return None


def _wrong_effort(request: ChatRequest, rules: Rules) -> Refusal | None:
    effort = request.reasoning_effort
    if effort is None or effort in rules.efforts:
        return None
    if not rules.efforts:
        return invalid("Unrecognized request argument supplied: reasoning_effort")
    known = ", ".join(f"'{each}'" for each in rules.efforts)
    return invalid(
        f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model. "
        f"Supported values are: {known}.",
        param="reasoning_effort",
        code="unsupported_value",
    )


def _wrong_temperature(request: ChatRequest, rules: Rules) -> Refusal | None:
    if rules.takes_temperature or request.temperature in (None, 1):
        return None
    return invalid(
        f"Unsupported value: 'temperature' does not support {request.temperature:g} with this model. "
        "Only the default (1) value is supported.",
        param="temperature",
        code="unsupported_value",
    )


def _wrong_format(request: ChatRequest, kind: str, rules: Rules) -> Refusal | None:
    allowed = {
        SchemaSupport.JSON_SCHEMA: ("text", "json_object", "json_schema"),
        SchemaSupport.JSON_OBJECT: ("text", "json_object"),
        SchemaSupport.NONE: ("text",),
    }[rules.schema_support]
    if kind not in allowed:
        message = f"Invalid parameter: 'response_format' of type '{kind}' is not supported with this model."
        return invalid(message, param="response_format")
    if kind == "json_object" and not any("json" in message.text.lower() for message in request.messages):
        return invalid(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            param="messages",
        )
    return None


def too_long(prompt: int, output: int | None, rules: Rules) -> Refusal | None:
    """Input and asked-for output do not fit into the context."""
    limit = rules.context_tokens
    if limit is None or prompt + (output or 0) <= limit:
        return None
    message = (
        f"This model's maximum context length is {limit} tokens. However, you requested {prompt + (output or 0)} "
        f"tokens ({prompt} in the messages, {output or 0} in the completion). "
        "Please reduce the length of the messages or completion."
    )
    return invalid(message, param="messages", code="context_length_exceeded")


def quota_spent() -> Refusal:
    """Not a rate limit, though it has the same status: waiting does not help."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return Refusal(429, wire.error_body(message, kind="insufficient_quota", code="insufficient_quota"))


def rate_limited(denial: Denial, tokens: int) -> Refusal:
    """A 429 for a limit."""
    if denial.retry_after_s == float("inf"):
        message = f"Request too large: Limit {denial.allowed:g}, Requested {tokens}. Please make it smaller."
        return _too_many(message, denial.limit, None)
    reached = f"Rate limit reached for {denial.limit} per {denial.per}"
    message = f"{reached}: Limit {denial.allowed:g}. Please try again in {denial.retry_after_s:.3f}s."
    return _too_many(message, denial.limit, denial.retry_after_s)


def bare_429() -> Refusal:
    """A 429 for a limit, from an endpoint that names neither the limit nor a time."""
    return Refusal(429, wire.error_body("Too many requests.", kind="error", code=None))


def overloaded(limit: int) -> Refusal:
    """A 429 for too many requests at once."""
    return _too_many(f"Too many concurrent requests: Limit {limit}.", "requests", 1.0)


def injected_429() -> Refusal:
    """A 429 out of the blue."""
    return _too_many("Rate limit reached. Please try again later.", "requests", 1.0)


def _too_many(message: str, limit: str, retry_after_s: float | None) -> Refusal:
    body = wire.error_body(message, kind=limit, code="rate_limit_exceeded")
    return Refusal(429, body, None if retry_after_s is None else retry_after(retry_after_s))


def retry_after(seconds: float) -> dict[str, str]:
    """Whole seconds, rounded up, for every client; milliseconds for those who know OpenAI's header."""
    whole = int(-(-seconds // 1))
    return {"Retry-After": str(max(whole, 1)), "retry-after-ms": str(int(-(-seconds * 1000 // 1)))}


def server_error() -> Refusal:
    """A 500 in JSON."""
    return Refusal(500, wire.error_body("The server had an error while processing your request.", kind="server_error"))


def bad_gateway() -> Refusal:
    """A 502 from a proxy, in HTML."""
    return Refusal(502, wire.BAD_GATEWAY, {"Content-Type": wire.HTML})


def format_error(error: msgspec.MsgspecError) -> Refusal:
    """A ``response_format`` that is none."""
    return invalid(f"Invalid 'response_format': {error}", param="response_format")


def unknown_path(path: str) -> Refusal:
    """A 404."""
    message = f"Invalid URL (POST {path})"
    return Refusal(404, wire.error_body(message, kind="invalid_request_error", code="unknown_url"))
