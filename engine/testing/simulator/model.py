"""What the model answers, before any fault strikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from .answers import Answer, answer_of
from .behaviour import Behaviour
from .reply_shape import ReplyShape
from .request import Record

PROSE = "I am a simulated model. I answer documents of items, and to anything else I say this."
UNABLE = "I have looked at each of these, and most of them are quite interesting, I think. Shall I go on?"

Oracle = Callable[[Any], Any]
"""From an input (string or object) to the right output."""


class ChatModel:
    """From records to outputs, in the order of the items.

    :param oracle: the right output of an input; None takes a stable pseudo-random one.
    :param labels: the label set where the request's schema names none.
    :param output_schema: the same for outputs with several fields.
    :param behaviour: how the answers in a batch differ from the right ones; None: not at all.
    """

    def __init__(
        self,
        *,
        oracle: Oracle | None = None,
        labels: Sequence[str] = (),
        output_schema: Mapping[str, Any] | None = None,
        behaviour: Behaviour | None = None,
    ) -> None:
        self._oracle = oracle
        self._behaviour = behaviour
        self._schema = output_schema or ({"type": "string", "enum": list(labels)} if labels else None)
        self._answer = answer_of(self._schema) if self._schema else None

    def can_answer(self, shape: ReplyShape) -> bool:
        """Whether there is anything to answer with; with no labels anywhere the model can only chat."""
        return self._oracle is not None or self._maker(shape) is not None

    def outputs(self, records: Sequence[Record], shape: ReplyShape, rng: Random) -> list[Any]:
        """One output for each record."""
        truths = self._truths(records, shape)
        if self._behaviour is None:
            return truths

        def other(index: int, salt: str) -> Any:
            return self.other(records[index], shape, truths[index], salt)

        return self._behaviour.answer(records, truths, other=other, keyed=bool(shape.keys), rng=rng)

    def other(self, record: Record, shape: ReplyShape, output: Any, salt: str) -> Any:
        """A valid output that is not this one, as stable as the first; the same where there is no other."""
        maker = self._maker(shape)
        if maker is None:
            return output
        values = (maker(record.text, f"~{salt}{attempt}") for attempt in range(8))
        return next((value for value in values if value != output), output)

    def outputs_are_labels(self, shape: ReplyShape) -> bool:
        """Whether an output is one label, so that any other string is off the labels."""
        return "enum" in (self._schema_for(shape) or {})

    def _truths(self, records: Sequence[Record], shape: ReplyShape) -> list[Any]:
        if self._oracle is not None:
            return [self._oracle(record.input) for record in records]
        maker = self._maker(shape)
        assert maker is not None, "ask can_answer first"  # noqa: S101
        return [maker(record.text, "") for record in records]

    def _uses_own_schema(self, shape: ReplyShape) -> bool:
        """The request's schema counts, unless it leaves a plain string open (a label set too large for a schema)."""
        asked = shape.output
        return asked is None or (self._schema is not None and asked.get("type") == "string" and "enum" not in asked)

    def _schema_for(self, shape: ReplyShape) -> Mapping[str, Any] | None:
        return self._schema if self._uses_own_schema(shape) else shape.output

    def _maker(self, shape: ReplyShape) -> Answer | None:
        return self._answer if self._uses_own_schema(shape) else shape.answer
