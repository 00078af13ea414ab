"""Keeps keys out of what an endpoint says of us. Pure.

An error page that quotes the request, a debug proxy and a hostile endpoint all send our own Authorization header back.
What they say is shown, logged and stored, so the key is taken out before it is cut to length: plain, as JSON, HTML or a
URL would escape it, or any mixture; in base64, alone or within something longer; in hexadecimal; and backwards. An
endpoint that wants to leak a key it was given can always dress it in a way that nobody recognises; this is against
echoes, and against what a filter for plain keys would let through.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from engine.adapters.providers.fragments import Fragments
from engine.vocabulary.config import Endpoint
from engine.vocabulary.secrets import HIDDEN, Secret, names_secret

_LEAST = 6
"""Characters: what is shorter ("EMPTY", "none") is a placeholder, and a word that errors are written with."""
_LEAST_IN_ANSWERS = 16
"""The same for what becomes an answer: no real key is shorter, and "not-needed" may be what a text is about."""
_LEAST_DISGUISED = 8
"""The same for base64, hexadecimal and backwards: a shorter one may turn up in any random text."""
_LEAST_PIECE = 8
"""Of a real key, so many characters in a row are hidden wherever they stand in an error."""
_IN_BASE64 = {"/": r"(?:\\?/|_|%2[Ff])", "+": r"(?:\+|-|%2[Bb])"}  # also in JSON, in a URL, in the alphabet for URLs
_EDGE = r"[A-Za-z0-9+/_=-]{0,3}"  # of base64: the rest of the last group, which holds bits of the key's last letters
_SCHEMES = re.compile(r"(?:bearer|basic|digest|token|apikey)\s+", re.IGNORECASE)


class Redaction:
    """Takes the secrets of one endpoint out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= _LEAST}, key=len, reverse=True)
        self._in_answers = tuple(secret for secret in known if len(secret) >= _LEAST_IN_ANSWERS)
        forms = "|".join("".join(map(_any_form, secret)) for secret in known)
        self._pattern = re.compile(forms) if known else None
        self._bytes = re.compile(forms.encode()) if known else None
        # One literal a pattern: that is searched for ten times as fast as alternatives.
        disguises = [form for secret in known if len(secret) >= _LEAST_DISGUISED for form in _disguises(secret)]
        self._disguised = [re.compile(form) for form in disguises]
        self._disguised_bytes = [re.compile(form.encode()) for form in disguises]
        self._disguised_in_answers = [re.compile(form) for secret in self._in_answers for form in _disguises(secret)]
        self._pieces = Fragments(self._in_answers, least=_LEAST_PIECE)
        self._pieces_in_answers = Fragments(self._in_answers, least=_LEAST_IN_ANSWERS, in_answers=True)

    def __repr__(self) -> str:
        return f"Redaction({len(self._in_answers)} secrets)"

    def body(self, body: bytes) -> bytes:
        """A body that is no answer, without them."""
        for disguise in self._disguised_bytes:
            body = disguise.sub(HIDDEN.encode(), body)
        body = self._bytes.sub(HIDDEN.encode(), body) if self._bytes else body
        return self._pieces.hide(body.decode(errors="surrogateescape")).encode(errors="surrogateescape")

    def text(self, text: str) -> str:
        """A text that is shown, without them."""
        for disguise in self._disguised:
            text = disguise.sub(HIDDEN, text)
        return self._pieces.hide(self._pattern.sub(HIDDEN, text) if self._pattern else text)

    def answer(self, text: str) -> str:
        """A model's words, without those that are long enough to be no words."""
        for secret in self._in_answers:
            text = text.replace(secret, HIDDEN)
        for disguise in self._disguised_in_answers:
            text = disguise.sub(HIDDEN, text)
        return self._pieces_in_answers.hide(text)


def redaction_of(endpoint: Endpoint, headers: Mapping[str, str]) -> Redaction:
    """What must not be shown of an endpoint: key, headers that carry one, and password and query of its address."""
    secrets = [endpoint.api_key.reveal()] if endpoint.api_key is not None else []
    for name, value in headers.items():
        if names_secret(name):
            secrets.append(_SCHEMES.sub("", value, count=1))
    secrets += [value.reveal() for value in endpoint.headers.values() if isinstance(value, Secret)]
    parts = urlsplit(endpoint.base_url)
    secrets.append(unquote(parts.password or ""))
    secrets += [value for name, value in parse_qsl(parts.query) if names_secret(name)]
    return Redaction(secret.strip() for secret in secrets)


def _disguises(secret: str) -> Iterable[str]:
    """Patterns for a secret backwards, in hexadecimal and in base64.

    Within a longer text ("Bearer ...") base64 depends on where the secret begins, modulo three bytes: each of the three
    has a middle that is always the same.
    """
    raw = secret.encode()
    yield from {re.escape(secret[::-1]), raw.hex(), raw.hex().upper()}
    for before in range(3):
        coded = base64.b64encode(bytes(before) + raw).decode()
        middle = coded[(0, 2, 3)[before] : (before + len(raw)) // 3 * 4]
        yield "".join(_IN_BASE64.get(character, character) for character in middle) + _EDGE


def _any_form(character: str) -> str:
    r"""A pattern for a character as it is, ``\u002d``, ``%2D``, ``&#45;``, ``&amp;`` or ``\/``.

    Every repetition is bounded: a body of backslashes would else take minutes.
    """
    number = ord(character)
    forms = [
        rf"\\{{1,4}}(?i:u{number:04x})",
        rf"&#0{{0,4}}{number};",
        rf"&#[xX]0{{0,4}}(?i:{number:x});",
        *(rf"%(?i:{byte:02x})" for byte in character.encode() if number < 128),
    ]
    if not character.isalnum():
        forms.append(rf"\\{{1,4}}{re.escape(character)}")
    if html.escape(character) != character:
        forms.append(re.escape(html.escape(character)))
    forms.append(re.escape(character))  # last: it is how the others of "&", "%" and "\\" begin
    return f"(?:{'|'.join(forms)})"
