"""Stable answers: a pseudo-random function of the input text alone, which a test can compute for itself.

An answer never depends on the request, on the batch mates or on a seed. So whatever the engine does, and however often
it asks, there is one right answer for each text, and a label that moved to another text shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

Answer = Callable[[str, str], Any]
"""``(text, salt) -> value``. The salt tells the fields of one output, and alternative outputs, apart."""


def record_text(value: Any) -> str:
    """The text that identifies an input: a string as it is, anything else as compact JSON with sorted keys."""
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def stable_number(text: str, salt: str = "") -> int:
    """A number below 2**64 that depends on nothing but the text and the salt."""
    data = f"{salt}\x00{text}" if salt else text
    return int.from_bytes(blake2b(data.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def stable_share(text: str, salt: str = "") -> float:
    """The same, as a number in [0, 1)."""
    return stable_number(text, salt) / 2**64


def stable_label(text: str, labels: Sequence[Any], salt: str = "") -> Any:
    """The answer of the simulated model to a text, from a set of labels."""
    return labels[stable_number(text, salt) % len(labels)]


def salt_of(seed: int) -> str:
    """What makes the right answers of one seed others than those of another; seed 0 leaves them as they are."""
    return f"seed {seed} " if seed else ""


def gold_label(value: Any, labels: Sequence[Any], *, seed: int = 0) -> Any:
    """The right label of an input: what an endpoint with these labels, no oracle and this `answers_seed` holds true.

    :param labels: in the order of the request's schema, or of the endpoint's own where the schema names none.
    """
    return stable_label(record_text(value), labels, salt_of(seed))


def stable_output(value: Any, schema: Mapping[str, Any], salt: str = "") -> Any:
    """The answer to an input for a JSON schema: what the model gives where no oracle is set.

    Fields of an object are salted with their path, ``"/topic"``: `stable_label(text, labels, "/topic")`.
    """
    return answer_of(schema)(record_text(value), salt)


def first_words(value: Any, words: int = 5) -> str:
    """The first words of an input, of its first field if it is an object: what a key in a result repeats."""
    text = next(iter(value.values()), "") if isinstance(value, dict) else value
    text = text if isinstance(text, str) else record_text(text)
    return " ".join(text.split(maxsplit=words)[:words])


def answer_of(schema: Mapping[str, Any]) -> Answer:
    """A function that makes values of a JSON schema (the part of it that structured outputs use)."""
    if "const" in schema:
        constant = schema["const"]
        return lambda text, salt: constant
    if schema.get("enum"):
        choices = list(schema["enum"])
        return lambda text, salt: stable_label(text, choices, salt)
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            options = [answer_of(option) for option in schema[key]]
            return lambda text, salt: stable_label(text, options, salt + "/?")(text, salt)
    return _TYPES.get(_type_of(schema), _string)(schema)


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    return str(kind)


def _object(schema: Mapping[str, Any]) -> Answer:
    fields = [(name, f"/{name}", answer_of(part)) for name, part in schema.get("properties", {}).items()]
    return lambda text, salt: {name: answer(text, salt + path) for name, path, answer in fields}


def _array(schema: Mapping[str, Any]) -> Answer:
    items = schema.get("items", {})
    least = int(schema.get("minItems", 0))
    most = int(schema.get("maxItems", max(3, least)))
    choices = items.get("enum")
    if choices:
        return lambda text, salt: _subset(choices, stable_number(text, salt), max(least, 1))
    answer = answer_of(items)

    def elements(text: str, salt: str) -> list[Any]:
        length = least + stable_number(text, salt) % (most - least + 1)
        return [answer(text, f"{salt}/{index}") for index in range(length)]

    return elements


def _subset(choices: Sequence[Any], number: int, least: int) -> list[Any]:
    """The choices whose bit is set in the number, and more, in order, where that are too few."""
    chosen = {index for index in range(len(choices)) if number >> (index % 64) & 1}
    for index in range(len(choices)):
        if len(chosen) >= least:
            break
        chosen.add((index + number) % len(choices))
    return [choices[index] for index in sorted(chosen)]


def _integer(schema: Mapping[str, Any]) -> Answer:
    low = int(schema.get("minimum", 0))
    span = int(schema.get("maximum", low + 9)) - low + 1
    return lambda text, salt: low + stable_number(text, salt) % span


def _number(schema: Mapping[str, Any]) -> Answer:
    low = float(schema.get("minimum", 0.0))
    span = float(schema.get("maximum", low + 1.0)) - low
    return lambda text, salt: round(low + span * (stable_number(text, salt) % 1001) / 1000, 6)


def _string(schema: Mapping[str, Any]) -> Answer:
    return lambda text, salt: f"{first_words(text, 3)} #{stable_number(text, salt) % 10_000}".lstrip()


def _boolean(schema: Mapping[str, Any]) -> Answer:
    return lambda text, salt: bool(stable_number(text, salt) & 1)


def _null(schema: Mapping[str, Any]) -> Answer:
    return lambda text, salt: None


_TYPES: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    "object": _object,
    "array": _array,
    "integer": _integer,
    "number": _number,
    "string": _string,
    "boolean": _boolean,
    "null": _null,
}
