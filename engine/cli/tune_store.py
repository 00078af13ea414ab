"""A damaged store of `annotate tune`: nobody names its stores, of which each setting that is tried has one."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

from engine.adapters.store import Broken
from engine.vocabulary.errors import EngineError, StoreError


@contextlib.contextmanager
def trials_told() -> Iterator[None]:
    """A damaged store is told with the file to put right or to take away; `tune` has no --store.

    What fails while a setting is asked comes as a group of one.
    """
    try:
        yield
    except (EngineError, ExceptionGroup) as raised:
        error = _only(raised)
        broken = error if isinstance(error, Broken) else error.__cause__
        if isinstance(broken, Broken) and broken.path is not None:
            raise StoreError(_told(broken, str(broken.path))) from error
        if error is not raised and isinstance(error, EngineError):
            raise error from None
        raise


def _only(error: Exception) -> Exception:
    return _only(error.exceptions[0]) if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1 else error


def _told(broken: Broken, path: str) -> str:
    file, saved, log = (shlex.quote(f"{path}{suffix}") for suffix in ("", ".saved", "-wal"))
    return (
        f"the answers of one setting that was tried, {path}, are damaged ({broken.what}); the file was left as it is. "
        f"Save what can be read of it: annotate salvage {file} {saved} && rm -f {log} && mv {saved} {file}; or take it "
        f"away, and all that this setting was asked is asked again: rm -f {file} {log}. Then the same command goes on; "
        "what the other settings answered is kept"
    )
