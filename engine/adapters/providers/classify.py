"""What an error reply *is*; `decide.recovery` says what follows from it. The only place that reads error texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from engine.vocabulary.values import Fault, FaultKind

EXCERPT = 300
MAX_RETRY_AFTER_S = 600.0

_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
_CONTEXT_CODES = {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"}
_FILTER_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
_CONTEXT = re.compile(
    r"context (length|window|size)|maximum context|too many (input )?tokens|prompt is too long|exceeds? the available"
    r"|input is too long|reduce the length",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content (filter|management|policy)|flagged|moderation", re.IGNORECASE)
_NOT_TAKEN = re.compile(
    r"unsupported|not support|does not support|unknown|unrecogni[sz]ed|not permitted|not allowed|unexpected|extra"
    r"|invalid (type|value|parameter|argument|schema)|deprecated|instead|only the default|cannot|failed to",
    re.IGNORECASE,
)
# The longer name first: "max_tokens" also occurs in texts about "max_completion_tokens".
_PARAMETERS = ("response_format", "json_schema", "json_object", "grammar", "temperature", "max_completion_tokens")


class ErrorText(msgspec.Struct, frozen=True):
    """The error of a reply: OpenAI's shape, or whatever stands in its place."""

    message: str
    code: str = ""
    parameter: str = ""


def error_text(body: bytes) -> ErrorText:
    """The words of an error body: ``{"error": {...}}``, ``{"error": "..."}``, ``{"detail": ...}``, HTML or text."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return ErrorText(message=_plain(body))
    if not isinstance(document, dict):
        return ErrorText(message=_plain(body))
    error = document.get("error") or document.get("detail") or document.get("message") or document
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail")
        code = error.get("code") or error.get("type") or ""
        return ErrorText(
            message=_short(message if isinstance(message, str) else _plain(body)),
            code=str(code).lower(),
            parameter=str(error.get("param") or ""),
        )
    return ErrorText(message=_short(error if isinstance(error, str) else _plain(body)))


def _plain(body: bytes) -> str:
    text = body[:20_000].decode(errors="replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    text = title.group(1) if title else re.sub(r"<[^>]+>", " ", text)
    return _short(text) or "(empty reply)"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "..."


def classify(status: int, headers: Mapping[str, str], body: bytes, *, url: str, now: datetime | None = None) -> Fault:
    """The fault that a reply with an error status is."""
    error = error_text(body)
    kind, parameter = _kind(status, error)
    message = error.message
    if kind is FaultKind.MODEL:
        message = f"{message} ({url}); check --base-url and --model"
    elif kind is FaultKind.AUTH:
        message = f"{message}; check the key in ANNOTATE_API_KEY"
    return Fault(
        kind=kind,
        message=message,
        status=status,
        retry_after_s=retry_after_s(headers, now=now or datetime.now(UTC)),
        parameter=parameter,
        excerpt=body[:2_000].decode(errors="replace"),
    )


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
    425: FaultKind.SERVER,
    429: FaultKind.RATE_LIMIT,
    504: FaultKind.TIMEOUT,
}


def _kind(status: int, error: ErrorText) -> tuple[FaultKind, str | None]:
    if status in (403, 429) and error.code in _QUOTA_CODES:
        return FaultKind.QUOTA, None  # no wait mends it
    if status in _BY_STATUS:
        return _BY_STATUS[status], None
    if 300 <= status < 400:
        return FaultKind.MODEL, None  # a redirect: the address is wrong, and the key stays here
    if status < 500 and (error.code in _CONTEXT_CODES or _CONTEXT.search(error.message)):
        return FaultKind.CONTEXT, None
    parameter = _parameter(error)
    if parameter is not None:
        return FaultKind.UNSUPPORTED, parameter
    if not 400 <= status < 500:
        return FaultKind.SERVER, None
    filtered = error.code in _FILTER_CODES or _FILTER.search(error.message)
    return (FaultKind.FILTERED if filtered else FaultKind.REJECTED), None


def _parameter(error: ErrorText) -> str | None:
    """The request parameter that the endpoint says it does not take, if the text is about one."""
    about = f"{error.parameter} {error.message}"
    if error.code != "unsupported_parameter" and not _NOT_TAKEN.search(f"{error.code} {error.message}"):
        return None
    # "'max_tokens' is not supported, use 'max_completion_tokens' instead" names both: param decides, then order.
    if error.parameter == "max_tokens" or re.search(r"['\"`]?max_tokens\b.*max_completion_tokens", about):
        return "max_tokens"
    for parameter in _PARAMETERS:
        if parameter in about:
            return "response_format" if parameter in ("json_schema", "json_object", "grammar") else parameter
    return "max_tokens" if "max_tokens" in about else None


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds that a reply asks us to wait: ``retry-after-ms``, or ``Retry-After`` as seconds or as a date."""
    lowered = {name.lower(): value for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return _bounded(float(lowered[name]) / unit)
        except (KeyError, ValueError):
            continue
    try:
        when = parsedate_to_datetime(lowered["retry-after"])
    except (KeyError, ValueError, TypeError):
        return None
    return _bounded((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now.timestamp())


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else 0.0  # noqa: PLR0124 - NaN
