"""A `reasoning_effort` that an endpoint refuses: what it would take, in its own words, and how to go on. Pure."""

from __future__ import annotations

import re

_VALUES = re.compile(
    r"(?:supported|allowed|valid|possible|permitted|accepted) values?\W|(?:must|should) be (?:one of|either)\W"
    r"|expected one of\W|input should be\W|choose from\W",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"['\"`]([a-z]{2,12})['\"`]")
_KNOWN = re.compile(r"\b(none|minimal|low|medium|high|xhigh|max|default)\b")
_MOST_SHOWN = 8


def taken_efforts(message: str) -> list[str]:
    """The words that a refusal says it would take; empty where it does not say so.

    ``Supported values are: 'low', 'medium', and 'high'.``, ``must be one of `none` or `default```.
    """
    found = _VALUES.search(message)
    if found is None:
        return []
    rest = message[found.end() :]
    words = _QUOTED.findall(rest) or _KNOWN.findall(rest.lower())
    return list(dict.fromkeys(words))[:_MOST_SHOWN]


def refused_effort(effort: str, message: str) -> str:
    """The words of an endpoint that does not take it, and what to do: the same again would be refused again."""
    taken = [word for word in taken_efforts(message) if word != effort]
    remedy = f"give one that it takes ({', '.join(taken)}), or leave it out" if taken else "leave it out"
    return f"{message}; {_refused(effort)}: {remedy}"


def is_refused(effort: str | None, stopped: str) -> bool:
    """Whether a run was stopped for that word."""
    return effort is not None and _refused(effort) in stopped


def without_effort(command: str) -> str:
    """A command line, the option taken out."""
    return re.sub(r" --reasoning-effort[ =]\S+", "", command)


def _refused(effort: str) -> str:
    return f"--reasoning-effort {effort} is not taken here"
