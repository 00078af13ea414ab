"""What a setting was measured to take at each look, kept beside its answers: the same search again decides by the same
figures, and so takes the same way, however much more its stores hold by then."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.tuning.rate import Rate
from engine.vocabulary.errors import ConfigError

_NAME = "looks.jsonl"


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a setting has answered some records.

    :ivar setting: names of its stores. :ivar records: a digest of all records that it was asked about so far, in order.
    :ivar broken: why it answers nothing more.
    """

    setting: str
    records: str
    rate: Rate
    broken: str | None = None


class Journal:
    """Looks of all searches in one folder. A later line counts more; half a line, from a process that died, nothing."""

    def __init__(self, folder: Path) -> None:
        """:raises ConfigError: the file is there and cannot be read."""
        self._path = folder / _NAME
        self._looks: dict[tuple[str, str], Look] = {}
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        except OSError as error:
            raise ConfigError(f"--work: {self._path} cannot be read: {error.strerror}") from None
        for line in lines:
            self._take(line)

    def __repr__(self) -> str:
        return f"Journal({self._path}, {len(self._looks)} looks)"

    def look(self, setting: str, records: Sequence[dict[str, Any]]) -> Look | None:
        """What was kept of a setting and all records that it was asked about."""
        return self._looks.get((setting, _digest(records)))

    def keep(self, setting: str, records: Sequence[dict[str, Any]], rate: Rate, broken: str | None) -> None:
        """:raises ConfigError: it cannot be written."""
        self._put(Look(setting=setting, records=_digest(records), rate=rate, broken=broken))

    def forget_broken(self) -> None:
        """What the brake stopped is asked again: where it stopped every setting, the fault was hardly theirs."""
        for look in [look for look in self._looks.values() if look.broken is not None]:
            self._put(msgspec.structs.replace(look, broken=None))

    def _put(self, look: Look) -> None:
        self._looks[look.setting, look.records] = look
        self._append(msgspec.json.encode(look))

    def _take(self, line: bytes) -> None:
        try:
            look = msgspec.json.decode(line, type=Look)
        except msgspec.MsgspecError:
            return
        self._looks[look.setting, look.records] = look

    def _append(self, line: bytes) -> None:
        """A line break comes first as well: the last process may have died within a line."""
        try:
            with open(self._path, "ab", opener=_private) as stream:
                stream.write(b"\n" + line + b"\n")
        except OSError as error:
            raise ConfigError(f"--work: {self._path} cannot be written: {error.strerror}") from None


def _digest(records: Sequence[dict[str, Any]]) -> str:
    return hashlib.blake2b(msgspec.json.encode(list(records)), digest_size=10).hexdigest()


def _private(path: str, flags: int) -> int:
    """For the user alone, as the stores beside it are."""
    return os.open(path, flags, 0o600)
