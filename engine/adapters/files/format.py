"""Which format and which compression a file has, told by its name."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

import msgspec

from engine.vocabulary.errors import ConfigError

Kind = Literal["jsonl", "csv", "tsv", "parquet"]
Compression = Literal["gzip", "bzip2", "xz", "zstd"]

STANDARD_STREAM = "-"

_KINDS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """How the bytes of a file are to be read.

    :ivar compression: around the whole file; None for Parquet, which compresses inside.
    """

    kind: Kind
    compression: Compression | None = None


def format_of(path: str, override: str | None = None, *, default: Kind | None = None) -> Format:
    """The format of `path`.

    :param override: a format named by the user, such as ``csv`` or ``jsonl.gz``; it wins over the name of the file,
        whose compression suffix still counts unless the override has one.
    :param default: the kind when the name tells nothing, as for standard input.
    :raises ConfigError: an unknown format or suffix, or a compressed Parquet file.
    """
    compression, suffix = _suffixes(path)
    if override is not None:
        own_compression, suffix = _suffixes(f"x.{override.lower().lstrip('.')}")
        compression = own_compression or compression
    kind = _KINDS.get(suffix) or (default if override is None else None)
    if kind is None:
        raise ConfigError(_unknown(path, override))
    if kind == "parquet" and compression:
        raise ConfigError(f"{path}: Parquet compresses its columns itself; unpack this file first")
    return Format(kind=kind, compression=compression)


def _suffixes(path: str) -> tuple[Compression | None, str]:
    name = PurePath(path.lower())
    compression = _COMPRESSIONS.get(name.suffix)
    return compression, name.with_suffix("").suffix if compression else name.suffix


def _unknown(path: str, override: str | None) -> str:
    known, packed = ", ".join(_KINDS), ", ".join(_COMPRESSIONS)
    if override is not None:
        return f"unknown format '{override}'; known: {known.replace('.', '')}, with {packed} after it when compressed"
    return f"{path}: the name does not say what format it has; it must end in {known}, then perhaps {packed}"
