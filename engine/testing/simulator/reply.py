"""How the model's reply is written: its results, then what the faults of the call make of the whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from . import damage, tokens
from .draft import Draft, Poison, PoisonRule
from .faults import Strikes
from .model import PROSE, START, UNABLE, ChatModel, Moment
from .reply_shape import ReplyShape
from .request import Record

DEFAULT_MAX_TOKENS = 4096
"""Where an endless list ends if the request sets no limit."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a reply has to answer.

    :ivar line: the last line of the request.
    :ivar max_tokens: where the reply is cut, by the endpoint's own count; None: nowhere.
    :ivar moment: when it came.
    """

    records: Sequence[Record]
    line: str
    shape: ReplyShape
    max_tokens: int | None
    moment: Moment = START


class ReplyWriter:
    """Writes replies. It keeps the ids of earlier requests, and the last reply, to send them where they do not belong.

    :param poison: records that always fail.
    """

    def __init__(
        self, model: ChatModel, rng: Random, *, mode: Mode = Mode.NORMAL, poison: PoisonRule | None = None
    ) -> None:
        self.model = model
        self._rng = rng
        self._mode = mode
        self._poison = poison or PoisonRule()
        self._earlier_ids: deque[list[str | int]] = deque(maxlen=32)
        self._last_content: str | None = None

    def write(self, asked: Asked, strikes: Strikes) -> Reply:
        """The reply to one request."""
        if not asked.records or not self.model.can_answer(asked.shape):
            return _limited(Reply(_chat(asked)), asked.max_tokens)
        reply = self._reply(asked, strikes)
        if reply.finish_reason == "length" and "conflict" in reply.struck:
            # A cut between two conflicting answers would leave the wrong one alone: no client could tell.
            reply = self._reply(asked, strikes.without("conflict"))
        self._earlier_ids.append([record.id for record in asked.records])
        return reply

    def _reply(self, asked: Asked, strikes: Strikes) -> Reply:
        special = self._special(asked, strikes)
        return _limited(special or self._dressed(self._results(asked, strikes), strikes), asked.max_tokens)

    def _special(self, asked: Asked, strikes: Strikes) -> Reply | None:
        """A reply that holds no results of this request."""
        if self._mode is Mode.NEVER_FORMAT:
            return Reply(UNABLE)
        if "babble" in strikes.call:
            return Reply(UNABLE, struck=("babble",))
        if "refuse" in strikes.call:
            return self._refused()
        if any(self._poison.of(record) is Poison.BREAK for record in asked.records):
            return Reply(damage.GARBAGE, struck=("poison",))
        if (self._mode is Mode.STALE or "stale" in strikes.call) and self._last_content is not None:
            return self._stale(asked, strikes, self._last_content)
        if self._mode is Mode.ECHO_ITEMS or "echo_items" in strikes.call:
            return Reply(asked.line, struck=("echo_items",))
        return None

    def _refused(self) -> Reply:
        if self._rng.random() < 0.5:
            return Reply(None, refusal="I'm sorry, I can't help with that.", struck=("refuse",))
        return Reply(None, finish_reason="content_filter", struck=("refuse",))

    def _stale(self, asked: Asked, strikes: Strikes, last: str) -> Reply:
        self._results(asked, strikes)  # what this request would have got is what the next one gets
        return Reply(last, struck=("stale",))

    def _results(self, asked: Asked, strikes: Strikes) -> Reply:
        draft = Draft(
            model=self.model,
            rng=self._rng,
            records=asked.records,
            shape=asked.shape,
            strikes=strikes,
            poison=self._poison,
            swaps=self._mode is Mode.SWAP or "swap" in strikes.call,
            earlier_ids=self._earlier_ids,
            moment=asked.moment,
        )
        content = draft.text(asked.max_tokens or DEFAULT_MAX_TOKENS)
        if "endless" in strikes.call and asked.max_tokens is None:
            content = tokens.truncate(content, DEFAULT_MAX_TOKENS)
        self._last_content = content
        return Reply(content, struck=tuple(draft.struck))

    def _dressed(self, reply: Reply, strikes: Strikes) -> Reply:
        content, struck = reply.content or "", list(reply.struck)
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


def _limited(reply: Reply, max_tokens: int | None) -> Reply:
    """Cut exactly at the limit, by the endpoint's own count."""
    # A token is one character or more, so most replies need no count.
    if max_tokens is None or reply.content is None or len(reply.content) <= max_tokens:
        return reply
    if tokens.count(reply.content) <= max_tokens:
        return reply
    return replace(reply, content=tokens.truncate(reply.content, max_tokens), finish_reason="length")


def _chat(asked: Asked) -> str:
    """The reply to anything that is not a document of items."""
    if asked.shape.whole is not None:
        return damage.encode(asked.shape.whole(asked.line, "")).decode()
    return '{"answer":"simulated"}' if asked.shape.kind == "json_object" else PROSE
