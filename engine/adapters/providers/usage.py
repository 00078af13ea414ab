"""What a reply says that it took: the spellings of several providers, brought to one meaning. Pure.

Cached tokens are counted inside the input and reasoning tokens inside the output, as OpenAI counts them; who counts them
beside is brought to that. Figures that cannot be true are not believed.

| provider | cached input | reasoning |
|---|---|---|
| OpenAI, vLLM, OpenRouter, Groq | `prompt_tokens_details.cached_tokens` | `completion_tokens_details.reasoning_tokens` |
| DeepSeek | `prompt_cache_hit_tokens` | the same details; the text in `reasoning_content` |
| Gemini, xAI | as OpenAI | beside the output; `total_tokens` has it |
| proxies to Anthropic | `cache_read_input_tokens`, beside the input or inside it | `reasoning_content`, without a count |
| the same, and OpenRouter, LiteLLM | written: `cache_creation_input_tokens`; `prompt_tokens_details.cache_write_tokens`, `.cache_creation_tokens` | |
| Together, some vLLM | `cached_tokens` | `reasoning` or `reasoning_content`, without a count |
"""  # noqa: E501 - a table

from __future__ import annotations

import re
from typing import Any

from engine.vocabulary.values import Usage

_MAX_TOKENS = 100_000_000  # beyond this a usage figure is absurd
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_THINKS = re.compile(r"\A\s*<(think|thinking|reasoning)>(.*?)(?:</\1>|\Z)", re.DOTALL)
_HIDDEN = 64
"""Tokens beyond one a byte of what is shown: so many were put out where nobody sees them. No tokenizer makes more."""
_BYTES_A_TOKEN = 3.0  # of what is shown, to tell how much of the output was hidden: JSON in English takes 3 to 4


def read_usage(usage: Any, *, most: Usage | None = None, message: Any = None) -> Usage | None:
    """Usage as the endpoint states it, or None when it is absent or cannot be true.

    :param most: usage above which its figures cannot be true.
    :param message: of the reply, for the text of its reasoning where that is not counted.
    """
    if not isinstance(usage, dict):
        return None
    prompt, output = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
    if not prompt or output is None:
        return None
    cached, beside = _cached(usage, prompt, output)
    hidden = _beside_output(usage, prompt + beside, output)
    prompt, output = prompt + beside, output + hidden
    if most is not None and (prompt > most.input_tokens or output > most.output_tokens):
        return None
    reasoning = _counted(usage.get("completion_tokens_details"), "reasoning_tokens")
    if reasoning is None:
        reasoning = _counted(usage, "reasoning_tokens")
    if reasoning is None:
        reasoning = hidden or _thought(message, output)
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cached_tokens=min(cached, prompt),
        reasoning_tokens=min(reasoning, output),
        written_tokens=min(_written(usage), prompt - min(cached, prompt)),
    )


def _written(usage: dict[str, Any]) -> int:
    """Input tokens that were written into the provider's cache; 0 where it says nothing of them."""
    details = usage.get("prompt_tokens_details")
    found = (
        _counted(usage, "cache_creation_input_tokens"),
        _counted(details, "cache_write_tokens"),
        _counted(details, "cache_creation_tokens"),
    )
    return next((count for count in found if count), 0)


def _cached(usage: dict[str, Any], prompt: int, output: int) -> tuple[int, int]:
    """Cached input tokens, and those that the prompt's count leaves out.

    Anthropic counts what is read from its cache, and what is written into it, beside the input. Some proxies add that
    up and some do not; which, the total tells, and that more was read than there was input.
    """
    cached = _counted(usage.get("prompt_tokens_details"), "cached_tokens")
    for name in ("prompt_cache_hit_tokens", "cached_tokens"):
        cached = cached or _counted(usage, name)
    read, written = _counted(usage, "cache_read_input_tokens"), _counted(usage, "cache_creation_input_tokens")
    beside = (read or 0) + (written or 0)
    if not beside:
        return cached or 0, 0
    is_beside = (read or 0) > prompt or _tokens(usage.get("total_tokens")) == prompt + output + beside
    return cached or read or 0, beside if is_beside else 0


def _beside_output(usage: dict[str, Any], prompt: int, output: int) -> int:
    """Reasoning tokens that the output's count leaves out, though they are billed as output: the total has them.

    So do Gemini (in OpenAI's shape) and xAI count.
    """
    total = _tokens(usage.get("total_tokens"))
    reasoning = _counted(usage.get("completion_tokens_details"), "reasoning_tokens")
    if total is None or total <= prompt + output:
        return 0
    beside = total - prompt - output
    return beside if reasoning in (None, beside) else 0


def _thought(message: Any, output: int) -> int:
    """Reasoning tokens of a reply that does not count them: by the share that its text has, or by what nobody sees."""
    if not isinstance(message, dict):
        return 0
    content = message.get("content")
    if content is not None and not isinstance(content, str):  # content parts: they may be anything
        return 0
    shown: str = content or ""
    said = [message.get(name) for name in _THOUGHTS]
    text = "".join(one for one in said if isinstance(one, str))
    within = _THINKS.match(shown)
    if not text and within is not None:
        text, shown = within[2], shown[within.end() :]
    if text:
        return round(output * len(text) / (len(text) + len(shown)))
    if message.get("refusal") or message.get("tool_calls"):
        return 0
    visible = len(shown.encode(errors="replace"))
    return max(0, output - round(visible / _BYTES_A_TOKEN)) if output > visible + _HIDDEN else 0


def _counted(details: Any, name: str) -> int | None:
    return _tokens(details.get(name)) if isinstance(details, dict) else None


def _tokens(number: Any) -> int | None:
    return number if type(number) is int and 0 <= number <= _MAX_TOKENS else None
