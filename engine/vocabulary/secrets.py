"""What must not be shown: keys, and whatever looks like one by its name or by its form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

HIDDEN = "***"

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SECRET_WORDS = frozenset(
    {
        "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "key", "passwd", "password",
        "secret", "signature", "token",
    }
)  # fmt: skip
# Forms of keys that providers hand out, and tokens of the web (JWT begins with eyJ).
_SECRET_FORM = re.compile(
    r"(?i:\b(?:bearer|basic)\s+)\S{4,}|(?<![\w-])(?:sk-|gsk_|hf_|xai-|pplx-|AIza|AKIA|gh[pousr]_|eyJ)[\w-]{12,}"
)
_LEAST_CHARACTERS = 8


class Secret:
    """A string that does not show itself: not in a repr, a log or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string itself; call it only where a header is built."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> Any:
        """A copy in a file or in another process would be one that nobody looks after."""
        raise TypeError("a secret is not pickled")


def revealed(value: str | Secret) -> str:
    """A text, or the one that a secret holds; see `Secret.reveal`."""
    return value.reveal() if isinstance(value, Secret) else value


def names_secret(name: str) -> bool:
    """Whether a header or a parameter of that name most likely holds a key. The name of a cache entry is none."""
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word in _SECRET_WORDS for word in words) and words[-2:] != ["cache", "key"]


def has_secret_form(text: str) -> bool:
    """Whether a text holds something of the form of a key."""
    return _SECRET_FORM.search(text) is not None


def secret_place(document: Any, name: str = "") -> str | None:
    """The name of the first value in a document that looks like a key; None if there is none.

    Special tokens, such as ``"eos_token": "<|end|>"``, are none.
    """
    if isinstance(document, Mapping):
        return next((found for key, value in document.items() if (found := secret_place(value, str(key)))), None)
    if isinstance(document, list | tuple):
        return next((found for value in document if (found := secret_place(value, name))), None)
    return (name or "a value") if isinstance(document, str) and _looks_secret(name, document) else None


def hidden(document: Any, name: str = "") -> Any:
    """The document with what looks like a key left out."""
    if isinstance(document, Mapping):
        return {key: hidden(value, str(key)) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [hidden(value, name) for value in document]
    return HIDDEN if isinstance(document, str) and _looks_secret(name, document) else document


def _looks_secret(name: str, value: str) -> bool:
    if has_secret_form(value):
        return True
    return names_secret(name) and len(value) >= _LEAST_CHARACTERS and not value.startswith("<")


def shown_address(url: str) -> str:
    """An address without user, password and query: keys hide in all three."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def secret_parameter(url: str) -> str | None:
    """The name of a parameter in the query of an address that looks like a key."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return next((name for name, value in pairs if names_secret(name) or has_secret_form(value)), None)
