"""How the model's reply is written: its results, then what the faults of the call make of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from . import damage, tokens
from .faults import Strikes
from .model import PROSE, UNABLE, ChatModel
from .reply_shape import ReplyShape
from .request import Record

DEFAULT_MAX_TOKENS = 4096
"""Where an endless list ends if the request sets no limit."""


class Poison(StrEnum):
    """What a poisoned record does, always."""

    DROP = "drop"
    BREAK = "break"
    OFF_LABEL = "off_label"


class Mode(StrEnum):
    """How the whole endpoint behaves, always."""

    NORMAL = "normal"
    NEVER_FORMAT = "never_format"
    ALWAYS_400 = "always_400"
    STALE = "stale"
    ECHO_ITEMS = "echo_items"
    SWAP = "swap"


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's message, and the faults that left a mark on it (one entry for each record struck)."""

    content: str | None
    refusal: str | None = None
    finish_reason: str = "stop"
    struck: tuple[str, ...] = ()


class ReplyWriter:
    """Writes replies. It keeps the ids of earlier requests, and the last reply, to send them where they do not belong.

    :param poison: marker -> what a record does whose text contains it.
    """

    def __init__(
        self,
        model: ChatModel,
        rng: Random,
        *,
        mode: Mode = Mode.NORMAL,
        poison_marker: str | None = None,
        poison: Poison = Poison.DROP,
    ) -> None:
        self._model = model
        self._rng = rng
        self._mode = mode
        self._marker = poison_marker
        self._poison = poison
        self._earlier_ids: deque[list[str | int]] = deque(maxlen=32)
        self._last_content: str | None = None

    def write(
        self, records: Sequence[Record], line: str, shape: ReplyShape, strikes: Strikes, max_tokens: int | None
    ) -> Reply:
        """The reply to one request.

        :param line: the last line of the request.
        :param max_tokens: where the reply is cut, by the endpoint's own count.
        """
        reply = self._unlimited(records, line, shape, strikes, max_tokens or DEFAULT_MAX_TOKENS)
        if max_tokens is None or reply.content is None:
            return reply
        content = tokens.truncate(reply.content, max_tokens)
        if len(content) == len(reply.content):
            return reply
        return Reply(content, finish_reason="length", struck=reply.struck)

    def _unlimited(
        self, records: Sequence[Record], line: str, shape: ReplyShape, strikes: Strikes, max_tokens: int
    ) -> Reply:
        if not records or not self._model.can_answer(shape):
            return Reply(_chat(line, shape))
        if self._mode is Mode.NEVER_FORMAT:
            return Reply(UNABLE)
        if "refuse" in strikes.call:
            return self._refused()
        if self._poison is Poison.BREAK and any(map(self._is_poisoned, records)):
            return Reply(damage.GARBAGE)
        struck: list[str] = []
        content = self._results_text(records, shape, strikes, max_tokens, struck)
        content = self._replaced(content, line, strikes, struck)
        return self._dressed(content, strikes, struck)

    def _refused(self) -> Reply:
        if self._rng.random() < 0.5:
            return Reply(None, refusal="I'm sorry, I can't help with that.", struck=("refuse",))
        return Reply(None, finish_reason="content_filter", struck=("refuse",))

    def _is_poisoned(self, record: Record) -> bool:
        return self._marker is not None and self._marker in record.text

    def _results_text(
        self, records: Sequence[Record], shape: ReplyShape, strikes: Strikes, max_tokens: int, struck: list[str]
    ) -> str:
        results = self._results(records, shape, strikes, struck)
        if "reorder" in strikes.call and len(results) > 1:
            results = damage.reordered(results, self._rng)
            struck.append("reorder")
        if "endless" in strikes.call and results:
            results.extend(_more(results[-1], max_tokens))
            struck.append("endless")
        self._earlier_ids.append([record.id for record in records])
        parts = [damage.encode(result) for result in results]
        if "trailing_comma" not in strikes.call or not parts:
            return damage.join(parts)
        struck.append("trailing_comma")
        return damage.slightly_broken(parts, self._rng)

    def _results(
        self, records: Sequence[Record], shape: ReplyShape, strikes: Strikes, struck: list[str]
    ) -> list[damage.Result]:
        outputs = self._model.outputs(records, shape, self._rng)
        made = [shape.result(record, output) for record, output in zip(records, outputs, strict=True)]
        if (self._mode is Mode.SWAP or "swap" in strikes.call) and damage.swap_ids(made, self._rng):
            struck.append("swap")
        if not strikes.records and self._marker is None:
            return made
        results: list[damage.Result] = []
        for index, (record, result) in enumerate(zip(records, made, strict=True)):
            results.extend(self._with_record_faults(index, record, result, shape, strikes, struck))
        results.extend(self._foreign(records, made, strikes, struck))
        return results

    def _with_record_faults(
        self, index: int, record: Record, result: damage.Result, shape: ReplyShape, strikes: Strikes, struck: list[str]
    ) -> list[damage.Result]:
        """What stands in the reply for one record. The first of drop, off_label, conflict, duplicate counts."""
        poison = self._poison if self._is_poisoned(record) else None
        if poison is Poison.DROP or index in strikes.at("drop"):
            struck.append("drop" if poison is None else "poison")
            return []
        if poison is Poison.OFF_LABEL or index in strikes.at("off_label"):
            struck.append("off_label" if poison is None else "poison")
            labels = self._model.outputs_are_labels(shape)
            return [{**result, "output": damage.spoiled(result["output"], self._rng, labels=labels)}]
        if index in strikes.at("conflict"):
            other = self._model.other(record, shape, result["output"], "conflict")
            if other != result["output"]:
                struck.append("conflict")
                return self._rng.sample([result, {**result, "output": other}], 2)
        if index in strikes.at("duplicate"):
            struck.append("duplicate")
            return [result, result]
        return [result]

    def _foreign(
        self, records: Sequence[Record], made: Sequence[damage.Result], strikes: Strikes, struck: list[str]
    ) -> list[damage.Result]:
        extra = []
        for index in sorted(strikes.at("foreign_id")):
            id_ = damage.foreign_id((record.id for record in records), self._earlier_ids, self._rng)
            if id_ is not None:
                struck.append("foreign_id")
                extra.append({**made[index], "id": id_})
        return extra

    def _replaced(self, content: str, line: str, strikes: Strikes, struck: list[str]) -> str:
        """The reply of the request before, or the request's own items, in place of the reply."""
        last, self._last_content = self._last_content, content
        if (self._mode is Mode.STALE or "stale" in strikes.call) and last is not None:
            struck.append("stale")
            return last
        if self._mode is Mode.ECHO_ITEMS or "echo_items" in strikes.call:
            struck.append("echo_items")
            return line
        return content

    def _dressed(self, content: str, strikes: Strikes, struck: list[str]) -> Reply:
        if "fence" in strikes.call:
            struck.append("fence")
            content = damage.fenced(content)
        if "prose" in strikes.call:
            struck.append("prose")
            content = damage.wrapped(content, self._rng)
        if "cut" in strikes.call:
            struck.append("cut")
            return Reply(damage.cut(content, self._rng), finish_reason="length", struck=tuple(struck))
        return Reply(content, struck=tuple(struck))


def _chat(line: str, shape: ReplyShape) -> str:
    """The reply to anything that is not a document of items."""
    if shape.whole is not None:
        return damage.encode(shape.whole(line, "")).decode()
    return '{"answer":"simulated"}' if shape.kind == "json_object" else PROSE


def _more(result: damage.Result, max_tokens: int) -> list[dict[str, Any]]:
    """Results for made-up ids, for ever: as many as `max_tokens` can hold, at three tokens each or more."""
    return [{**result, "id": f"{result['id']}-{number}"} for number in range(max_tokens // 3)]
