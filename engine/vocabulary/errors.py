"""One rooted tree of exceptions. A user's mistake is a `ConfigError` or `InputError` and never shows a stack trace."""

from __future__ import annotations


class EngineError(Exception):
    """The root of everything that this package raises on purpose. Its text is written for the user."""


class ConfigError(EngineError):
    """A task file, a flag or an option is wrong; nothing was sent. The command line exits with 2."""


class InputError(EngineError):
    """A record of the input cannot be used: a broken line, a missing field, an id that occurs twice."""


class StoreError(EngineError):
    """The run store cannot be used: held by another run, of another task, made by a newer version, not a store."""


class RunStopped(EngineError):
    """The run ended before its input did, with everything kept; the same command goes on. Exit code 4.

    :ivar kind: a short word for programs: ``auth``, ``quota``, ``model``, ``brake``, ``endpoint``, ``input``,
        ``budget``, ``interrupted``.
    :ivar by_second: the second model's endpoint is the reason, and not the first one's.
    """

    def __init__(self, kind: str, message: str, *, by_second: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.by_second = by_second


class MissingExtra(ConfigError):
    """An optional part is not installed; the text holds the one command that installs it."""
