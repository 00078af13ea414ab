"""Where a key comes from: the environment, or a file that nobody else can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from engine.adapters.providers.known import KEY_VARIABLE, FoundKey, find_key
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import Secret

KEY_FILE_VARIABLE = "ANNOTATE_API_KEY_FILE"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MOST_BYTES = 1 << 16


def key_for(base_url: str, environment: Mapping[str, str], *, key_file: str | None = None) -> FoundKey | None:
    """The key for an endpoint: of the file named, else as the environment has it; many local servers want none.

    In the environment `ANNOTATE_API_KEY` comes first, then the file that `ANNOTATE_API_KEY_FILE` names, then the
    variable of the provider whose host it is.

    :raises ConfigError: a key cannot be used, or the mode of its file lets others read it; the text does not show it.
    """
    if key_file is not None:
        return FoundKey(key=read_secret(key_file), variable=key_file)
    named = environment.get(KEY_FILE_VARIABLE, "").strip()
    if named and not environment.get(KEY_VARIABLE, "").strip():
        return FoundKey(key=read_secret(named), variable=named)
    return find_key(base_url, environment)


def read_secret(path: str) -> Secret:
    """The one line of a file that only its owner can read. A pipe will do: ``--key-file <(pass show key)``.

    The mode is that of the file that has been opened, so that none can be put in its place in between.

    :raises ConfigError: it cannot be read, others could read it as well, or it is not one line of printable ASCII.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if status.st_mode & _OTHERS:
                raise ConfigError(
                    f"the key file {path} can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}); "
                    f"close it with: chmod 600 {path}"
                )
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be read: {error.strerror or error}") from None
    return _secret(content.strip(), path)


def _secret(content: bytes, path: str) -> Secret:
    if not content:
        raise ConfigError(f"the key file {path} is empty; write the key into it, and nothing else")
    text = content.decode("ascii", "replace")
    if len(content) > _MOST_BYTES or not (text.isascii() and text.isprintable()):
        raise ConfigError(
            f"the key file {path} holds more than one line of plain characters; write just the key into it"
        )
    return Secret(text)
