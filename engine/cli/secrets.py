"""Keys on the command line: refused, since every process on the machine can read it, and the shell keeps it.

A header or a part of the body that needs one names where it is: ``env:VARIABLE`` or ``file:PATH``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from engine.adapters.key_file import read_secret
from engine.adapters.providers.known import KEY_VARIABLE
from engine.vocabulary.secrets import Secret, has_secret_form, names_secret, secret_place

_PLACES = ("env:", "file:")


def header_value(name: str, value: str) -> str | Secret:
    """The value of a header, from where it says that it is; then it is a key, whatever the header is called.

    :raises click.BadParameter: it is a key, or the variable is not set; the text does not show it.
    :raises ConfigError: the file cannot be used.
    """
    if value.startswith(_PLACES):
        return Secret(_fetched(name, value))
    if names_secret(name) or has_secret_form(value):
        ours = f"set the key in {KEY_VARIABLE} or give --key-file" if name == "Authorization" else "keep it elsewhere"
        raise click.BadParameter(
            f"{name} looks like a key, and a command line is no place for one: others can see it; {ours}, or say where "
            f"it is: {name}=env:VARIABLE or {name}=file:PATH"
        )
    return value


def check_body(document: Mapping[str, Any]) -> None:
    """
    :raises click.BadParameter: something in it looks like a key.
    """
    place = secret_place(_without_places(document))
    if place is not None:
        raise click.BadParameter(
            f'{place} looks like a key, and a command line is no place for one; say where it is: "{place}": '
            '"env:VARIABLE" or "file:PATH"'
        )


def body_with_secrets(document: Mapping[str, Any]) -> dict[str, Any]:
    """The body, with the keys that it names in their places. Other texts may well begin with ``env:``."""
    return {name: _filled(name, value) for name, value in document.items()}


def _filled(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return body_with_secrets(value)
    if isinstance(value, list):
        return [_filled(name, one) for one in value]
    return _fetched(name, value) if _is_place(name, value) else value


def _is_place(name: str, value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_PLACES) and names_secret(name)


def _without_places(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_places(value) if isinstance(value, Mapping) else value
        for name, value in document.items()
        if not _is_place(name, value)
    }


def _fetched(name: str, place: str) -> str:
    kind, _, where = place.partition(":")
    if kind == "file":
        return read_secret(where).reveal()
    value = os.environ.get(where, "").strip()
    if not value:
        raise click.UsageError(f"{name} is to come from the environment variable {where or '?'}, which is not set")
    if not (value.isascii() and value.isprintable()):
        raise click.UsageError(f"the value of {where} holds characters that no key has; copy it once more")
    return value
