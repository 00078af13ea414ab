"""Bodies as OpenAI's endpoint sends them: completions, errors, the list of models."""

from __future__ import annotations

from typing import Any

import msgspec

JSON = "application/json"
HTML = "text/html"

BAD_GATEWAY = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1>\
</center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"

encode = msgspec.json.Encoder().encode


class _CachedTokens(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int


class _ReasoningTokens(msgspec.Struct, frozen=True, gc=False):
    reasoning_tokens: int


class _Usage(msgspec.Struct, frozen=True, gc=False):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _CachedTokens
    completion_tokens_details: _ReasoningTokens | msgspec.UnsetType = msgspec.UNSET


class _Answer(msgspec.Struct, frozen=True, gc=False):
    content: str | None
    refusal: str | None
    role: str = "assistant"
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET


class _Choice(msgspec.Struct, frozen=True, gc=False):
    message: _Answer
    finish_reason: str
    index: int = 0
    logprobs: None = None


class _Completion(msgspec.Struct, frozen=True, omit_defaults=False):
    id: str
    model: str
    choices: tuple[_Choice]
    usage: _Usage | msgspec.UnsetType = msgspec.UNSET
    object: str = "chat.completion"
    created: int = 1_760_000_000  # the simulator has no clock of its own


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one reply; cached ones are part of the prompt's and reasoning of the completion's, as at OpenAI."""

    prompt: int
    cached: int
    completion: int
    reasoning: int = 0


def completion_body(
    number: int, model: str, *, content: str | None, refusal: str | None, finish_reason: str, tokens: Tokens | None,
    counts_reasoning: bool = False, thought: str | None = None,
) -> bytes:  # fmt: skip
    """A chat completion; without usage where `tokens` is None.

    :param counts_reasoning: reasoning tokens stand in the usage; `thought`: their text, beside the message.
    """
    usage = msgspec.UNSET if tokens is None else _usage(tokens, counts_reasoning=counts_reasoning)
    answer = _Answer(content, refusal, reasoning_content=msgspec.UNSET if thought is None else thought)
    choice = _Choice(answer, finish_reason)
    return encode(_Completion(f"chatcmpl-{number}", model, (choice,), usage))


def _usage(tokens: Tokens, *, counts_reasoning: bool) -> _Usage:
    total = tokens.prompt + tokens.completion
    reasoning = _ReasoningTokens(tokens.reasoning) if counts_reasoning else msgspec.UNSET
    return _Usage(tokens.prompt, tokens.completion, total, _CachedTokens(tokens.cached), reasoning)


def error_body(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error object."""
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def models_body(models: list[str]) -> bytes:
    """The answer to ``GET /v1/models``."""
    data: list[dict[str, Any]] = [{"id": model, "object": "model", "owned_by": "simulator"} for model in models]
    return encode({"object": "list", "data": data})
