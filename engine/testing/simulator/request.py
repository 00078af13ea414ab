"""A chat request as received, and the documents in it."""

from __future__ import annotations

from typing import Any

import msgspec

from .answers import record_text, stable_number


class BadRequest(Exception):
    """Not a chat request at all; the text says why."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message. Content is a string, or a list of parts of which those of type ``text`` count."""

    role: str = ""
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        parts = (part.get("text") for part in self.content or ())
        return "\n".join(part for part in parts if isinstance(part, str))


class ChatRequest(msgspec.Struct, frozen=True):
    """What a chat-completions endpoint looks at. Unknown keys are ignored, as most servers do."""

    messages: list[Message]
    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    response_format: msgspec.Raw = msgspec.Raw(b"null")
    stream: bool | None = None
    reasoning_effort: str | None = None


class _Item(msgspec.Struct, frozen=True, gc=False):
    id: str | int
    input: Any


class _Document(msgspec.Struct, frozen=True):
    items: list[_Item]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One input of a request. `key` identifies it by its text, over all requests."""

    id: str | int
    input: Any
    text: str
    key: int


_decode_request = msgspec.json.Decoder(ChatRequest).decode
_decode_document = msgspec.json.Decoder(_Document).decode


def parse_request(body: bytes) -> ChatRequest:
    """The request.

    :raises BadRequest: with the reason.
    """
    try:
        request = _decode_request(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"Invalid request body: {error}") from None
    if not request.messages:
        raise BadRequest("Invalid 'messages': empty array. Expected an array with minimum length 1.")
    return request


def last_line(text: str) -> str:
    """The line on which the items stand."""
    return text.rstrip("\n").rpartition("\n")[2]


def parse_records(text: str) -> list[Record]:
    """The records on the last line of the last message; none, if it is not a document of items."""
    line = last_line(text)
    if not line.startswith('{"items"'):
        return []
    try:
        items = _decode_document(line).items
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    return [record_of(item.id, item.input) for item in items]


def record_of(id_: str | int, value: Any) -> Record:
    """One input as a record."""
    text = record_text(value)
    return Record(id_, value, text, stable_number(text))
