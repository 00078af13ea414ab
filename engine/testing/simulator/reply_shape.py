"""The form in which results are asked for: by the schema of the request, else by its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from .answers import Answer, answer_of, first_words
from .request import Record

STARTS = "starts"
"""The key that a prompt alone may ask for: the first five words of the input."""


@dataclass(frozen=True, slots=True)
class ReplyShape:
    """What the results of one request look like.

    :ivar keys: properties of a result besides ``id`` and ``output``, in their order, before ``output``; a string
        property repeats the first five words of the input.
    :ivar output: the schema of an output, or None where the request has none.
    :ivar answer: what makes outputs of that schema.
    :ivar kind: ``response_format.type``: ``text``, ``json_object`` or ``json_schema``.
    :ivar whole: for a schema that is not one of results: the maker of a whole reply.
    """

    keys: tuple[tuple[str, Answer | None], ...] = ()
    output: Mapping[str, Any] | None = None
    answer: Answer | None = None
    kind: str = "text"
    whole: Answer | None = None

    def result(self, record: Record, output: Any) -> dict[str, Any]:
        """One result with this output."""
        made = {"id": record.id}
        for name, answer in self.keys:
            made[name] = first_words(record.input) if answer is None else answer(record.text, f"/{name}")
        made["output"] = output
        return made


_PLAIN = ReplyShape()
_KEYED = ReplyShape(keys=((STARTS, None),))


@lru_cache(maxsize=256)
def shape_of_format(response_format: bytes) -> ReplyShape:
    """The shape asked for by a ``response_format``, which is the same in every request of a run.

    :raises msgspec.MsgspecError: if it is not one.
    """
    try:
        return _shape(msgspec.json.decode(response_format, type=dict[str, Any] | None) or {})
    except (AttributeError, TypeError) as error:  # a list or number where an object should be
        raise msgspec.ValidationError(f"not a JSON schema: {error}") from None


def _shape(document: Mapping[str, Any]) -> ReplyShape:
    kind = str(document.get("type", "text"))
    if kind != "json_schema":
        return ReplyShape(kind=kind)
    schema = document.get("json_schema", {}).get("schema", {})
    result = schema.get("properties", {}).get("results", {}).get("items", {}).get("properties")
    if not result or "output" not in result:
        return ReplyShape(kind=kind, whole=answer_of(schema))
    keys = tuple(
        (name, None if part.get("type") == "string" and "enum" not in part else answer_of(part))
        for name, part in result.items()
        if name not in ("id", "output")
    )
    return ReplyShape(keys=keys, output=result["output"], answer=answer_of(result["output"]), kind=kind)


@lru_cache(maxsize=256)
def shape_of_words(system: str) -> ReplyShape:
    """The shape asked for by the words of the prompt alone."""
    return _KEYED if f'"{STARTS}"' in system else _PLAIN
