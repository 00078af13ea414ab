"""Values that programs build by hand answer a wrong keyword with the nearest right one, as task files do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import msgspec

from engine.vocabulary.errors import ConfigError


class UnknownKeyword(ConfigError, TypeError):
    """A constructor has no such keyword. A `TypeError` too, as Python's own is."""


class NamesKeywords(msgspec.StructMeta):
    """The metaclass of what users construct: it says what msgspec's "Unexpected keyword argument" leaves out.

    A metaclass, because the constructor of a Struct is C and asks no `__init__`. It costs 0.3 us a value, so what flows
    through the pipeline stays plain; decoding does not pass here at all.
    """

    if not TYPE_CHECKING:  # a checker would take these arguments for those of every constructor

        def __call__(cls, *args: Any, **keywords: Any) -> Any:  # noqa: N805 - a metaclass, which ruff does not see
            try:
                return super().__call__(*args, **keywords)
            except TypeError:
                problem = _problem(cls, keywords)
                if problem is None:
                    raise
                raise UnknownKeyword(problem) from None


def _problem(kind: type[msgspec.Struct], keywords: Iterable[str]) -> str | None:
    known = kind.__struct_fields__
    wrong = next((name for name in keywords if name not in known), None)
    if wrong is None:
        return None
    near = get_close_matches(wrong, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(known)}"
    return f"{kind.__name__} has no '{wrong}'; {hint}"
