"""What an error reply *is*; `decide.recovery` says what follows from it. The only place that reads error texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from engine.adapters.providers.document import read_json
from engine.vocabulary.secrets import shown_address
from engine.vocabulary.values import Fault, FaultKind, QuotaOf

EXCERPT = 300
MAX_RETRY_AFTER_S = 600.0
"""The longest that one reply can make us wait. See docs/design/limits.md, "429"."""
MAX_ERROR_BYTES = 256 * 1024
"""What is looked at of an error: some quote the whole request."""
_STORED = 2_000
_DAY_S = 86_400.0

_QUOTA_CODES = {
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated", "budget_exceeded",
}  # fmt: skip
_AUTH_CODES = {"invalid_api_key", "api_key_invalid", "invalid_authentication"}
_CONTEXT_CODES = {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"}
_FILTER_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
_MODEL_CODES = {"model_not_found", "model_not_available"}
_MODEL = re.compile(
    r"not a valid model|invalid model name|model not exist|model\b.{0,60} does not exist", re.IGNORECASE
)
_KEY = re.compile(r"api.?key (is )?(not valid|invalid|expired)|(invalid|incorrect) api.?key", re.IGNORECASE)
_CONTEXT = re.compile(
    r"context.?(length|window|size)|maximum context|too many (input )?tokens|prompt is too long|exceeds? the available"
    r"|input is too long|reduce the length|token count.{0,30} exceeds|tokens?\W.{0,40}must be <=",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content (filter|management|policy)|flagged|moderation", re.IGNORECASE)
_NOT_TAKEN = re.compile(
    r"unsupported|not support|does not support|unknown|unrecogni[sz]ed|not permitted|not allowed|not enabled|unexpected"
    r"|extra"
    r"|invalid (type|value|parameter|argument|schema)|deprecated|instead|only the default|cannot|failed to"
    r"|conversion failed",
    re.IGNORECASE,
)
_TOO_MUCH = re.compile(r"too (large|high|big)|at most|less than|greater than|exceed|range|maximum|<=", re.IGNORECASE)
# The longer name first: "max_tokens" also occurs in texts about "max_completion_tokens".
_FORMATS = ("json_schema", "json_object", "json schema", "response_schema", "grammar")
_PARAMETERS = ("reasoning_effort", "response_format", *_FORMATS, "temperature", "logprobs", "max_completion_tokens")
_LIMITS: Mapping[QuotaOf, re.Pattern[str]] = {
    "requests": re.compile(r"requests?[ _-]?(per|/)[ _-]?(m|s)|\bRPM\b|\bRPS\b|\bon requests\b", re.IGNORECASE),
    "tokens": re.compile(r"tokens?[ _-]?(per|/)[ _-]?(m|s)|\bI?O?TPM\b|\bTPS\b|\btokens\b", re.IGNORECASE),
}
_IN_WORDS = re.compile(
    r"(?:retrydelay\W+|(?:try again|retry) in )(?:(\d{1,3})m)?(\d+(?:\.\d+)?)(ms|s)\b", re.IGNORECASE
)


class ErrorText(msgspec.Struct, frozen=True):
    """The error of a reply: OpenAI's shape, or whatever stands in its place.

    :ivar codes: everything in it that is a name rather than a text (``code``, ``type``, ``status``), in lower case.
    """

    message: str
    codes: frozenset[str] = frozenset()
    parameter: str = ""


def error_text(body: bytes) -> ErrorText:
    """The words of an error body: ``{"error": {...}}``, ``{"error": "..."}``, ``{"detail": ...}``, HTML or text."""
    document = error_document(body)
    error = document.get("error") or document.get("detail") or document.get("message")
    if not isinstance(error, dict):
        return ErrorText(message=_words(error, body), codes=_codes(document))
    text = _words(error.get("message") or error.get("detail"), body)
    upstream = _inner(error, "metadata").get("raw")  # OpenRouter's own message is "Provider returned error"
    if isinstance(upstream, str):
        text = f"{text}: {upstream}"
    parameter = error.get("param")
    return ErrorText(
        message=one_line(text),
        codes=_codes(error) | _codes(_inner(error, "innererror")) | _codes(document),
        parameter=parameter if isinstance(parameter, str) else "",
    )


def error_document(body: bytes) -> dict[str, Any]:
    """The JSON object that a reply is, out of its list where Gemini puts it into one; empty if it is none."""
    try:
        document = read_json(body)
    except ValueError:
        return {}
    if isinstance(document, list) and document:
        document = document[0]
    return document if isinstance(document, dict) else {}


def _codes(error: Mapping[str, Any]) -> frozenset[str]:
    names = (error.get(key) for key in ("code", "type", "status", "error_type"))
    return frozenset(str(name).lower() for name in names if isinstance(name, str | int))


def _inner(error: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = error.get(key)
    return inner if isinstance(inner, dict) else {}


def _words(message: Any, body: bytes) -> str:
    """The message, or the body where it is none."""
    return (one_line(message) if isinstance(message, str) else "") or _plain(body)


def _plain(body: bytes) -> str:
    text = body[:_STORED].decode(errors="replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    text = title.group(1) if title else re.sub(r"<[^>]+>", " ", text)
    return one_line(text) or "(empty reply)"


def one_line(text: str) -> str:
    """One line that can be shown: no escape sequences for a terminal, no marks that turn the writing round."""
    text = " ".join(text.split())
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "..."


def excerpt_of(body: bytes) -> str:
    """What is kept of a reply that failed."""
    return body[:_STORED].decode(errors="replace")


def classify(status: int, headers: Mapping[str, str], body: bytes, *, url: str, now: datetime | None = None) -> Fault:
    """The fault that a reply with an error status is.

    :param body: at most `MAX_ERROR_BYTES` of it.
    :param url: as it may be shown.
    """
    error = error_text(body)
    kind, parameter = _kind(status, error)
    message = error.message
    now = now or datetime.now(UTC)
    asked_s = _asked_s(headers, now=now, body=body)
    if asked_s is not None and asked_s > MAX_RETRY_AFTER_S:
        message = f"{message} (it asks to wait {_span(asked_s)}; no more than {MAX_RETRY_AFTER_S:.0f} s are waited)"
    if 300 <= status < 400:
        location = next((value for name, value in headers.items() if name.lower() == "location"), "")
        message = _redirected(location, url)
    elif kind is FaultKind.MODEL:
        message = f"{message} ({url}); check base_url (--base-url) and model (--model)"
    elif kind is FaultKind.AUTH:
        message = f"{message}; check the key in ANNOTATE_API_KEY"
    return Fault(
        kind=kind,
        message=message,
        status=status,
        retry_after_s=retry_after_s(headers, now=now, body=body),
        parameter=parameter,
        limit=_limit(error) if kind is FaultKind.RATE_LIMIT else None,
        excerpt=excerpt_of(body),
    )


def _redirected(location: str, url: str) -> str:
    """Where to, without what may be a key in it, and what to do."""
    try:
        place = one_line(shown_address(urljoin(url, location)))
    except ValueError:  # no address at all
        place = one_line(shown_address(location))
    advice = "check base_url (--base-url)"
    if location and place.startswith(("http://", "https://")) and place.endswith("/chat/completions"):
        advice = f"if you trust that place, set base_url (--base-url) to {place.removesuffix('/chat/completions')}"
    told = f"redirected to {place}" if location else "redirected to nowhere"
    return f"{told}, which is not followed: the key is sent to {urlsplit(url).netloc} alone; {advice}"


def _span(seconds: float) -> str:
    if seconds == math.inf:
        return "for ever"
    return f"{seconds:,.0f} s" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:,.0f} days"


def _limit(error: ErrorText) -> QuotaOf | None:
    """Which limit a 429 is about: ``Rate limit reached for ... on tokens per min (TPM): Limit 200000, ...``."""
    found = {name for name, words in _LIMITS.items() if words.search(error.message)}
    return found.pop() if len(found) == 1 else None


_BY_STATUS = {
    401: FaultKind.AUTH,
    402: FaultKind.QUOTA,
    403: FaultKind.AUTH,
    404: FaultKind.MODEL,
    405: FaultKind.MODEL,
    408: FaultKind.TIMEOUT,
    409: FaultKind.SERVER,
    410: FaultKind.MODEL,
    413: FaultKind.CONTEXT,
    421: FaultKind.SERVER,
    423: FaultKind.SERVER,
    424: FaultKind.SERVER,  # TGI: the generation failed
    425: FaultKind.SERVER,
    429: FaultKind.RATE_LIMIT,
    499: FaultKind.TIMEOUT,
    504: FaultKind.TIMEOUT,
}


def _kind(status: int, error: ErrorText) -> tuple[FaultKind, str | None]:
    """In order: what no wait mends; what the text says in place of a vague status; the status; the text."""
    if status in (400, 403, 429) and error.codes & _QUOTA_CODES:
        return FaultKind.QUOTA, None
    filtered = error.codes & _FILTER_CODES or (status in (400, 403, 422) and _FILTER.search(error.message))
    if status in (400, 403, 422, 451) and filtered:
        return FaultKind.FILTERED, None
    if status == 400 and (error.codes & _AUTH_CODES or _KEY.search(error.message)):
        return FaultKind.AUTH, None  # Gemini's 400 for a wrong key
    if status == 400 and (error.codes & _MODEL_CODES or _MODEL.search(error.message)):
        return FaultKind.MODEL, None
    if status in _BY_STATUS:
        return _BY_STATUS[status], None
    if 300 <= status < 400:
        return FaultKind.MODEL, None  # a redirect: the address is wrong, and the key stays here
    if status <= 500 and (error.codes & _CONTEXT_CODES or _CONTEXT.search(error.message)):
        return FaultKind.CONTEXT, None
    parameter = _parameter(error)
    if parameter is not None:
        return FaultKind.UNSUPPORTED, parameter
    return (FaultKind.REJECTED if 400 <= status < 500 else FaultKind.SERVER), None


def _parameter(error: ErrorText) -> str | None:
    """The request parameter that the endpoint says it does not take, if the text is about one."""
    if "unsupported_parameter" not in error.codes and not _NOT_TAKEN.search(f"{error.message} {' '.join(error.codes)}"):
        return None
    about = f"{error.parameter} {error.message}".lower()
    for parameter in _PARAMETERS:
        if parameter in about and not parameter.startswith("max"):
            return "response_format" if parameter in _FORMATS else parameter
    # "'max_tokens' is not supported, use 'max_completion_tokens' instead" names both; too high a value is no name.
    if not re.search(r"max_(completion_)?tokens", about) or _TOO_MUCH.search(error.message):
        return None
    if error.parameter in ("max_tokens", "max_completion_tokens"):
        return error.parameter
    return "max_tokens" if re.search(r"\bmax_tokens\b", about) else "max_completion_tokens"


def retry_after_s(headers: Mapping[str, str], *, now: datetime, body: bytes = b"") -> float | None:
    """Seconds that a reply asks us to wait: ``retry-after-ms``, ``Retry-After`` as seconds or date, or in its words.

    Never below 0 or above `MAX_RETRY_AFTER_S`.
    """
    asked_s = _asked_s(headers, now=now, body=body)
    return None if asked_s is None else _bounded(asked_s)


def _asked_s(headers: Mapping[str, str], *, now: datetime, body: bytes) -> float | None:
    lowered = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return float(lowered[name]) / unit
        except (KeyError, ValueError):
            continue
    try:
        when = parsedate_to_datetime(lowered["retry-after"])
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return _wait_in_words(body[:8_000].decode(errors="replace"))


def _wait_in_words(text: str) -> float | None:
    """Gemini's ``"retryDelay": "34s"``, OpenAI's and Groq's ``Please try again in 1m7.5s``."""
    found = _IN_WORDS.search(text)
    if found is None:
        return None
    minutes, number, unit = found.groups()
    return 60.0 * int(minutes or 0) + float(number) / (1000.0 if unit.lower() == "ms" else 1.0)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else 0.0  # noqa: PLR0124 - NaN
