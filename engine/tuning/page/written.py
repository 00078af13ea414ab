"""A document and the page that draws it, side by side in one folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.adapters.files.atomic import make_folder, replacing
from engine.vocabulary.errors import EngineError


def write_both(folder: Path, name: str, document: msgspec.Struct, page: str, *, what: str) -> Path:
    """Write ``NAME.json`` and ``NAME.html``, each whole or not at all, for the owner only; the path of the latter.

    :param what: what they are of, for the message: "the plan".
    :raises EngineError: the folder cannot be made or written to.
    """
    figures, drawn = folder / f"{name}.json", folder / f"{name}.html"
    content = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    try:
        make_folder(folder)
        for file, written in ((figures, content), (drawn, page.encode())):
            with replacing(file) as stream:
                stream.write(written)
    except OSError as error:
        raise EngineError(f"{what} cannot be written to {folder}: {error.strerror or error}") from error
    return drawn
