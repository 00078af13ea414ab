"""What an endpoint says of its limits in the headers of a reply. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.vocabulary.values import Quota, QuotaOf

_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_MINUTE_S = 60.0
_FULL_S = 65.0  # a bucket of a minute's worth needs no longer until it is full
_MOST_PERIOD_S = 90.0
_LEAST_PERIOD_S = 20.0
_LEAST_USED = 3.0
_LEAST_LIMITS: Mapping[QuotaOf, float] = {"requests": 1.0, "tokens": 1_000.0}
"""A minute. Nobody sells less; believed, one such header would hold a run up for years."""
_NAMES: tuple[tuple[QuotaOf, str, bool], ...] = (
    ("requests", "requests", False),
    ("tokens", "tokens", False),
    ("requests", "req-minute", True),
    ("requests", "requests-minute", True),
    ("tokens", "tokens-minute", True),
)


def read_quotas(headers: Mapping[str, str]) -> tuple[Quota, ...]:
    """The limits in ``x-ratelimit-limit-*``, ``-remaining-*`` and ``-reset-*``; empty where there are none.

    OpenAI's names do not say the period: the same header is a minute's limit at one provider and a day's at another.
    So it is computed from what is used and the time until it is full again, and a limit of another period is left out.
    """
    found = []
    for of, name, is_minute in _NAMES:
        limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
        if limit is None or limit < _LEAST_LIMITS[of]:
            continue
        remaining = _number(headers.get(f"x-ratelimit-remaining-{name}"))
        reset_s = _seconds(headers.get(f"x-ratelimit-reset-{name}"))
        if is_minute or is_of_a_minute(limit, remaining, reset_s):
            found.append(Quota(of=of, per_minute=limit, remaining=remaining))
    return tuple(found)


def is_of_a_minute(limit: float, remaining: float | None, reset_s: float | None) -> bool:
    """Whether a limit is one a minute: what is used flows back in `reset_s`, all of it would in limit/used times that.

    Rounded and fixed resets make that inexact, so anything from 20 to 90 s is taken for a minute.
    """
    if remaining is None or reset_s is None or not 0 <= remaining <= limit or reset_s > _FULL_S:
        return False
    used = limit - remaining
    return used >= _LEAST_USED and _LEAST_PERIOD_S <= reset_s * limit / used <= _MOST_PERIOD_S


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e15 else None


def _seconds(text: str | None) -> float | None:
    """``12ms``, ``7.66s``, ``6m0s``, ``1h2m3s``, or a bare number of seconds."""
    if not text:
        return None
    if (number := _number(text)) is not None:
        return number
    found = _SPAN.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return 86_400 * days + 3_600 * hours + _MINUTE_S * minutes + seconds + milliseconds / 1_000
