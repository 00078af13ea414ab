"""The optional package of this folder that is large: pyarrow is loaded only for a file that needs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from engine.vocabulary.errors import MissingExtra


def parquet_module() -> ModuleType:
    """`engine.adapters.files.parquet`, which costs a tenth of a second and 50 MB to import.

    :raises MissingExtra: pyarrow is not installed.
    """
    try:
        return importlib.import_module("engine.adapters.files.parquet")
    except ImportError:
        raise MissingExtra("Parquet needs one more package: pip install pyarrow") from None
