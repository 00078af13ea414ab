"""Providers known by name: their addresses, and the environment variables that people keep their keys in."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import Secret

KEY_VARIABLE = "ANNOTATE_API_KEY"
"""The key of whatever endpoint the user names; it wins over a provider's own variable."""


class KnownProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A hosted API in OpenAI's shape.

    :ivar key_variable: where its own documentation tells people to keep the key.
    """

    name: str
    base_url: str
    key_variable: str

    @property
    def host(self) -> str:
        """The only host that its key is sent to."""
        return urlsplit(self.base_url).hostname or ""


_PROVIDERS = (
    KnownProvider(name="openai", base_url="https://api.openai.com/v1", key_variable="OPENAI_API_KEY"),
    KnownProvider(name="openrouter", base_url="https://openrouter.ai/api/v1", key_variable="OPENROUTER_API_KEY"),
    KnownProvider(name="mistral", base_url="https://api.mistral.ai/v1", key_variable="MISTRAL_API_KEY"),
    KnownProvider(name="groq", base_url="https://api.groq.com/openai/v1", key_variable="GROQ_API_KEY"),
    KnownProvider(name="together", base_url="https://api.together.xyz/v1", key_variable="TOGETHER_API_KEY"),
    KnownProvider(name="deepseek", base_url="https://api.deepseek.com/v1", key_variable="DEEPSEEK_API_KEY"),
    KnownProvider(
        name="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variable="GEMINI_API_KEY",
    ),
)

PROVIDERS: Mapping[str, KnownProvider] = {provider.name: provider for provider in _PROVIDERS}


class FoundKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key and the environment variable that it came from."""

    key: Secret
    variable: str


def provider_at(base_url: str) -> KnownProvider | None:
    """The known provider whose own host this address is.

    The whole host must be equal, and the connection encrypted: a key is never sent to a look-alike or in the clear.
    """
    parts = urlsplit(base_url.strip())
    if parts.scheme != "https":
        return None
    return next((provider for provider in _PROVIDERS if provider.host == parts.hostname), None)


def key_variables(base_url: str) -> list[str]:
    """The variables that may hold the key of this endpoint, the first to be looked at first."""
    provider = provider_at(base_url)
    return [KEY_VARIABLE] if provider is None else [KEY_VARIABLE, provider.key_variable]


def find_key(base_url: str, environment: Mapping[str, str]) -> FoundKey | None:
    """The key for this endpoint from the environment, if there is one; many local servers want none.

    :raises ConfigError: the variable holds what no header can carry; the text does not show it.
    """
    for variable in key_variables(base_url):
        key = environment.get(variable, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise ConfigError(f"the key in {variable} holds characters that no key has; copy it once more")
        if key:
            return FoundKey(key=Secret(key), variable=variable)
    return None
