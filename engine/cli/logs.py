"""`--log-json` and `--log-level`: the events of a run as lines, in a file or on standard error. See docs/logs.md.

Lines are made and written in a thread of their own: a terminal that is stopped, or a slow disk, holds up no request.
"""

from __future__ import annotations

import json
import logging
import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import Any

import click
import msgspec

from engine.run.log import LOGGER, PROCESS, Event, log_error
from engine.vocabulary.config import Endpoint
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import HIDDEN, Secret, has_secret_form, names_secret, revealed

STANDARD_ERROR = "-"
LEVELS = ("debug", "info", "warning", "error")

_QUEUED = 100_000  # lines that wait for their disk; more are counted and left out
_LEAST_SECRET = 6  # characters: a key like `x`, for servers that want any, would blot out half of every line


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be logged, and where.

    :ivar json: the file, `-` for standard error; None: as text, on standard error.
    :ivar level: None: nothing, unless `json` is given; then ``info``.
    """

    json: str | None = None
    level: str | None = None

    @property
    def fills_standard_error(self) -> bool:
        """Whether standard error is for a program to read, and no place for a progress display."""
        return self.json == STANDARD_ERROR


class _Lines(logging.Formatter):
    """An event as a line. What is known to be secret is taken out, wherever it may have come from."""

    def __init__(self, *, as_json: bool, secrets: Sequence[str]) -> None:
        super().__init__()
        self._as_json = as_json
        self._secrets = [json.dumps(secret)[1:-1] for secret in secrets if len(secret) >= _LEAST_SECRET]

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event, level = record.msg, record.levelname.lower()
        if not isinstance(event, Event):
            event = Event(name="message", run=PROCESS, fields={"text": record.getMessage()})
        if self._as_json:
            named = {"at": at, "level": level, "event": event.name, "run": event.run}
            line = json.dumps(named | event.fields, default=str)  # ASCII, whatever an endpoint wrote: never two lines
        else:
            line = f"{at} {level} {event}"
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return line


class _Queue(QueueHandler):
    """Passes records on as they are: what they say is put into words by whoever writes them."""

    def __init__(self) -> None:
        super().__init__(queue.Queue(_QUEUED))
        self.left_out = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        self.left_out += 1


class _Writer(logging.Handler):
    """Writes lines until that fails; a log that cannot be written ends no run."""

    def __init__(self, formatter: logging.Formatter, file: int | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._file = file
        self._is_broken = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_broken:
            return
        try:
            line = self.format(record)
            if self._file is None:
                click.echo(line, err=True)
            else:
                _write_whole(self._file, line.encode() + b"\n")
        except (OSError, ValueError) as error:
            self._is_broken = True
            if self._file is not None:
                click.echo(f"annotate: the log cannot be written ({error}); the run goes on without it", err=True)


@contextmanager
def logging_as(wish: Wish, *, endpoint: Endpoint | None = None) -> Iterator[None]:
    """Log while the block runs.

    :param endpoint: whose key and headers are taken out of every line.
    :raises ConfigError: the file cannot be written, or holds something else.
    """
    if wish.json is None and wish.level is None:
        yield
        return
    file = None if wish.json in (None, STANDARD_ERROR) else _opened(str(wish.json))
    handler = _Queue()
    writer = _Writer(_Lines(as_json=wish.json is not None, secrets=_secrets(endpoint)), file)
    listener = QueueListener(handler.queue, writer)
    earlier = LOGGER.level
    LOGGER.setLevel((wish.level or "info").upper())
    LOGGER.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(earlier)
        listener.stop()
        if handler.left_out:
            click.echo(f"annotate: {handler.left_out:,} lines of the log were left out: writing was too slow", err=True)
        if file is not None:
            os.close(file)


@contextmanager
def logging_refusals(options: Mapping[str, Any], *files: str | None) -> Iterator[None]:
    """Log what ends the block before the log is open: a missing file, options that do not go together.

    :param options: of the command line; the values of `headers` are taken out.
    :param files: that the command reads or writes: none of them is taken for a log because an error names it.
    """
    try:
        yield
    except (click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        wish = Wish(json=options["log_json"], level=options["log_level"])
        if not (wish.json is not None and _is_one_of(wish.json, files)):
            told = ConfigError(error.format_message()) if isinstance(error, click.ClickException) else error
            shown = Endpoint(base_url="", model="", headers=dict(options.get("headers") or {}))
            with suppress(ConfigError), logging_as(wish, endpoint=shown):
                log_error(told)
        raise


class LoggedCommand(click.Command):
    """A command whose log also has what its own words were refused for, before there were any options."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line."""
        words = list(args)  # click takes them out of its own
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            given = {name: _value_of(f"--{name.replace('_', '-')}", words) for name in ("log_json", "log_level")}
            if given["log_level"] not in LEVELS:
                given["log_level"] = None
            shown_as_hidden = {str(number): word for number, word in enumerate(words)}  # those that look like keys
            options = given | {"headers": shown_as_hidden}
            others = [part for word in words for part in (word, word.partition("=")[2])]
            if given["log_json"] in others:
                others.remove(given["log_json"])  # once: a second time it is another file's name too
            with suppress(click.ClickException, OSError, ValueError), logging_refusals(options, *others):
                raise error
            raise


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """What an option was given on a command line that cannot be read as a whole; `-` where it was given nothing."""
    for word, after in reversed([*zip(words, [*words[1:], "-"], strict=True)]):
        if word == option:
            return STANDARD_ERROR if after.startswith("-") else after
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _is_one_of(path: str, files: Sequence[str | None]) -> bool:
    return path != STANDARD_ERROR and Path(path).resolve() in {Path(file).resolve() for file in files if file}


def _opened(path: str) -> int:
    """The file, for lines to be added to: an earlier log is kept. A new one is for its owner only."""
    try:
        if Path(path).is_file() and not _is_log(path):
            raise ConfigError(f"--log-json: {path} is there and is no log; name another file")
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"--log-json: {path} cannot be written: {error.strerror or error}") from None
    with suppress(OSError):  # a full disk, or a process that was killed, left half a line: ours begins on its own
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")
    return file


def _write_whole(file: int, line: bytes) -> None:
    """:raises OSError: not all of it could be written: a disk that is all but full takes a part, and says so."""
    while line:
        line = line[os.write(file, line) :]


def _is_log(path: str) -> bool:
    with Path(path).open("rb") as stream:
        return stream.read(6) in (b"", b'{"at":')


def _secrets(endpoint: Endpoint | None) -> list[str]:
    if endpoint is None:
        return []
    key = [] if endpoint.api_key is None else [endpoint.api_key.reveal()]
    headers = [
        revealed(value)
        for name, value in endpoint.headers.items()
        if isinstance(value, Secret) or names_secret(name) or has_secret_form(value)
    ]
    return key + headers + [word for text in headers for word in text.split()]
