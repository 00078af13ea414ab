"""What the model answers, before any fault strikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from .answers import Answer, answer_of, salt_of
from .behaviour import WRONG, BatchBehaviour, Behaviour, Drift
from .gullible import Gullibility
from .reply_shape import ReplyShape
from .request import Record, record_of

PROSE = "I am a simulated model. I answer documents of items, and to anything else I say this."
UNABLE = "I have looked at each of these, and most of them are quite interesting, I think. Shall I go on?"

Oracle = Callable[[Any], Any]
"""From an input (string or object) to the right output."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request came: seconds since the first one, and requests before it."""

    elapsed_s: float = 0.0
    requests: int = 0


START = Moment()


class ChatModel:
    """From records to outputs, in the order of the items.

    :param oracle: the right output of an input; None takes a stable pseudo-random one.
    :param labels: the label set where the request's schema names none.
    :param output_schema: the same for outputs with several fields.
    :param behaviour: how the answers in a batch differ from the right ones; None: not at all.
    :param gullibility: whether orders that stand in the records are obeyed; None: not at all.
    :param seed: of the right answers (where no oracle gives them) and of what batches do to them.
    """

    def __init__(
        self,
        *,
        oracle: Oracle | None = None,
        labels: Sequence[str] = (),
        output_schema: Mapping[str, Any] | None = None,
        behaviour: Behaviour | Drift | None = None,
        gullibility: Gullibility | None = None,
        seed: int = 0,
    ) -> None:
        self._oracle = oracle
        self._gullibility = gullibility
        self._behaviour = behaviour.seeded(seed) if isinstance(behaviour, BatchBehaviour | Drift) else behaviour
        self._salt = salt_of(seed)
        self._schema = output_schema or ({"type": "string", "enum": list(labels)} if labels else None)
        self._answer = answer_of(self._schema) if self._schema else None

    def can_answer(self, shape: ReplyShape) -> bool:
        """Whether there is anything to answer with; with no labels anywhere the model can only chat."""
        return self._oracle is not None or self._maker(shape) is not None

    def outputs(self, records: Sequence[Record], shape: ReplyShape, rng: Random, moment: Moment = START) -> list[Any]:
        """One output for each record."""
        outputs = self._judged(records, shape, rng, moment)
        if self._gullibility is None:
            return outputs
        return self._gullibility.obeyed(records, outputs, self._schema_for(shape))

    def _judged(self, records: Sequence[Record], shape: ReplyShape, rng: Random, moment: Moment) -> list[Any]:
        truths = self._truths(records, shape)
        behaviour = self._behaviour_at(moment)
        if behaviour is None:
            return truths

        def other(index: int, salt: str) -> Any:
            return self.other(records[index], shape, truths[index], salt)

        favourite = self._favourite(shape, truths)
        return behaviour.answer(records, truths, other=other, favourite=favourite, keyed=shape.keyed, rng=rng)

    def truth(self, value: Any, shape: ReplyShape) -> Any:
        """The right output of an input."""
        return self._truths([record_of("", value)], shape)[0]

    def lone(self, value: Any, shape: ReplyShape, moment: Moment = START) -> Any:
        """What the model answers to an input that is asked alone, but for the noise."""
        record, truth, behaviour = record_of("", value), self.truth(value, shape), self._behaviour_at(moment)
        if isinstance(behaviour, BatchBehaviour):
            right = behaviour.is_right_alone(record, keyed=shape.keyed)
            output = truth if right else self.other(record, shape, truth, WRONG)
            obeyed = self._gullibility.obeyed if self._gullibility else None
            return obeyed([record], [output], self._schema_for(shape))[0] if obeyed else output
        return self.outputs([record], shape, Random(0), moment)[0]

    def _behaviour_at(self, moment: Moment) -> Behaviour | None:
        behaviour = self._behaviour
        return behaviour.at(moment.elapsed_s, moment.requests) if isinstance(behaviour, Drift) else behaviour

    def _favourite(self, shape: ReplyShape, truths: Sequence[Any]) -> Any:
        maker = self._maker(shape)
        return truths[0] if maker is None else maker("", f"{self._salt}favourite")

    def other(self, record: Record, shape: ReplyShape, output: Any, salt: str) -> Any:
        """A valid output that is not this one, as stable as the first; the same where there is no other."""
        maker = self._maker(shape)
        if maker is None:
            return output
        values = (maker(record.text, f"{self._salt}~{salt}{attempt}") for attempt in range(8))
        return next((value for value in values if value != output), output)

    def outputs_are_labels(self, shape: ReplyShape) -> bool:
        """Whether an output is one label, so that any other string is off the labels."""
        return "enum" in (self._schema_for(shape) or {})

    def _truths(self, records: Sequence[Record], shape: ReplyShape) -> list[Any]:
        if self._oracle is not None:
            return [self._oracle(record.input) for record in records]
        maker = self._maker(shape)
        assert maker is not None, "ask can_answer first"  # noqa: S101
        return [maker(record.text, self._salt) for record in records]

    def _uses_own_schema(self, shape: ReplyShape) -> bool:
        """The request's schema counts, unless it leaves a plain string open (a label set too large for a schema)."""
        asked = shape.output
        return asked is None or (self._schema is not None and asked.get("type") == "string" and "enum" not in asked)

    def _schema_for(self, shape: ReplyShape) -> Mapping[str, Any] | None:
        return self._schema if self._uses_own_schema(shape) else shape.output

    def _maker(self, shape: ReplyShape) -> Answer | None:
        return self._answer if self._uses_own_schema(shape) else shape.answer
