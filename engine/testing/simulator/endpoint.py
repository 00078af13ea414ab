"""The simulated endpoint: a pure object between a request's bytes and the plan for its reply.

It has no clock, does no IO and never waits: `now` comes in, and how long a reply takes goes out as a number. So the
same object serves an in-process transport on virtual time and a real HTTP server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import msgspec

from . import refusal, tokens, wire
from .answers import answer_of
from .cache import OFF as NO_CACHE
from .cache import CacheRule, PrefixCache
from .faults import FaultDice, Strikes
from .latency import FixedLatency, Latency
from .ledger import Ledger
from .limits import RateLimits
from .model import START, Moment
from .rates import FaultRates
from .reasoning import DEFAULT_MOST, Reasoning, thought
from .refusal import LimitsTold, Refusal, Rules
from .reply import Asked, Reply, ReplyWriter
from .reply_shape import STARTS, ReplyShape, shape_of_format, shape_of_words
from .request import BadRequest, ChatRequest, Record, last_line, parse_records, parse_request
from .slots import Slots

Action = Literal["respond", "reset", "hang", "cut_body"]

ERROR_DELAY_S = 0.005
"""Errors come fast. Made up."""

_CLOCK_S = 1e-3
"""What a timer may be early by."""

SLOWED = 10
"""What the fault ``delay`` multiplies the latency by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes of one request.

    :ivar number: of the request, from 0, in the order of arrival.
    :ivar delay_s: seconds from its arrival to the first byte of the reply (or to the reset).
    :ivar action: ``respond``; ``reset`` the connection without a reply; ``hang`` until the client leaves;
        ``cut_body``: send half of the body, then close the connection.
    :ivar prefix: messages that the prefix cache knows once the reply is sent.
    :ivar unused_output: tokens that it was allowed to put out and did not.
    :ivar told: the usage that its body states; None where it states none, or nobody could read it.
    """

    number: int
    status: int
    headers: Mapping[str, str]
    body: bytes
    delay_s: float
    action: Action = "respond"
    prefix: tuple[str, ...] = ()
    unused_output: int = 0
    told: wire.Tokens | None = None


@dataclass(frozen=True, slots=True)
class _Chat:
    """A request that is understood."""

    request: ChatRequest
    texts: tuple[str, ...]
    shape: ReplyShape
    line: str
    records: list[Record]
    prompt_tokens: int
    prefix_tokens: int

    @property
    def max_tokens(self) -> int | None:
        request = self.request
        return request.max_completion_tokens if request.max_tokens is None else request.max_tokens


class SimulatedEndpoint:
    """An OpenAI-style chat-completions endpoint.

    :param writer: what it answers.
    :param rules: what it takes.
    :param limits: requests and tokens a minute.
    :param max_concurrency: requests at once; one more is answered 429, or waits its turn with `queues`.
    :param quota_tokens: tokens that may be billed altogether; then every request is answered ``insufficient_quota``.
    :param first_sends: see `FaultDice`.
    :param schema_faults: the faults of requests with a JSON schema; None: the same.
    :param output_cap: tokens at which every reply is cut, whatever the request allows.
    :param usage: whether replies carry ``usage``.
    :param reasoning: what the model thinks before it answers; None: nothing.
    :param follows_form: whether the model fills keys besides ``id`` and ``output``; else it answers the compact form.
    """

    def __init__(
        self,
        writer: ReplyWriter,
        *,
        seed: int = 0,
        rules: Rules | None = None,
        latency: Latency | None = None,
        cache: CacheRule = NO_CACHE,
        limits: RateLimits | None = None,
        faults: FaultRates | None = None,
        schema_faults: FaultRates | None = None,
        first_sends: int | None = None,
        max_concurrency: int | None = None,
        queues: bool = False,
        quota_tokens: int | None = None,
        output_cap: int | None = None,
        usage: bool = True,
        follows_form: bool = True,
        reasoning: Reasoning | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.rules = rules or Rules()
        self._rng = Random(seed)
        self._latency = latency or FixedLatency(0.0)
        self._cache = PrefixCache(cache)
        self._limits = limits or RateLimits()
        self._dice = FaultDice(faults or FaultRates(), self._rng, first_sends=first_sends)
        self._schema_dice = (
            self._dice if schema_faults is None else FaultDice(schema_faults, self._rng, first_sends=first_sends)
        )
        self._writer = writer
        self._max_concurrency = max_concurrency
        self._slots = Slots(max_concurrency) if queues and max_concurrency else None
        self._quota_tokens = quota_tokens
        self._output_cap = output_cap
        self._usage = usage
        self._follows_form = follows_form
        self._reasoning = reasoning
        self._thoughts = Random(f"{seed} reasoning")
        self._first_at: float | None = None

    def begin(self, body: bytes, headers: Mapping[str, str], now: float) -> Plan:
        """A request has come: what to do with it. Call `end` once it is done or its client is gone.

        :param now: seconds on any monotonic clock, the same for all calls.
        """
        if self._first_at is None:
            self._first_at = now
        number = self.ledger.arrive(now)
        plan = self._plan(number, body, headers, now)
        status = plan.status if plan.action in ("respond", "cut_body") else 0
        self.ledger.answer(number, status=status, delay_s=plan.delay_s)
        return plan

    def end(self, plan: Plan, now: float) -> None:
        """The reply was sent, or its client left."""
        arrived = self.ledger.leave(plan.number, now)
        is_whole = plan.action == "respond" and now - arrived > plan.delay_s - _CLOCK_S
        self.ledger.broken_off += plan.status == 200 and not is_whole
        if plan.told is not None and is_whole:
            self.ledger.tell(prompt=plan.told.prompt, cached=plan.told.cached, completion=plan.told.completion)
        self._limits.settle(plan.unused_output)
        if plan.prefix:
            self._cache.learn(plan.prefix, now)

    def truth(self, value: Any, *, output_schema: Mapping[str, Any] | None = None) -> Any:
        """The right output of an input, to score answers with.

        :param output_schema: as in the request; None: the endpoint's own labels or schema.
        :raises ValueError: if there is neither.
        """
        model, shape = self._writer.model, _shape_for(output_schema)
        if not model.can_answer(shape):
            raise ValueError("no labels: set `labels`, `output_schema` or `oracle`, or give the schema of the request")
        return model.truth(value, shape)

    def lone(
        self,
        value: Any,
        *,
        output_schema: Mapping[str, Any] | None = None,
        keyed: bool = False,
        moment: Moment = START,
    ) -> Any:
        """What the model answers to an input asked alone, but for the noise of repeats. See `truth`.

        :param moment: when, for a model that drifts.
        """
        self.truth(value, output_schema=output_schema)  # or why not
        return self._writer.model.lone(value, _shape_for(output_schema, keyed=keyed), moment)

    def models(self) -> bytes:
        """The body of ``GET /v1/models``."""
        return wire.models_body([self.rules.model or "simulated"])

    def _plan(self, number: int, body: bytes, headers: Mapping[str, str], now: float) -> Plan:
        chat = _parsed(body)
        # Before any rule, limit or fault: the ledger knows every record that came, whatever became of it.
        sends = [] if isinstance(chat, Refusal) else self.ledger.count_sends(record.key for record in chat.records)
        wrong = refusal.unauthorised(headers, self.rules)
        if wrong is not None:
            return self._error(number, wrong)
        if isinstance(chat, Refusal):
            return self._error(number, chat)
        denial = self._against_rules(chat) or self._denied(number, chat, now)
        if denial is not None:
            return self._error(number, denial)
        moment = Moment(now - (now if self._first_at is None else self._first_at), number)
        dice = self._schema_dice if chat.shape.kind == "json_schema" else self._dice
        strikes = dice.throw(sends, moment.elapsed_s)
        if strikes.connection is not None:
            self.ledger.strikes[strikes.connection] += 1
            return self._broken(number, strikes.connection)
        return self._answered(moment, chat, strikes, now)

    def _against_rules(self, chat: _Chat) -> Refusal | None:
        if self.rules.refuses_all:
            return refusal.invalid("Invalid request.")
        return refusal.unacceptable(chat.request, chat.shape.kind, self.rules) or refusal.too_long(
            chat.prompt_tokens, chat.max_tokens, self.rules
        )

    def _denied(self, number: int, chat: _Chat, now: float) -> Refusal | None:
        """Quota, then concurrency, then rates; what is charged is input and the most that may be put out."""
        ledger, most = self.ledger, self._max_concurrency
        if self._quota_tokens is not None and ledger.prompt_tokens + ledger.completion_tokens >= self._quota_tokens:
            return refusal.quota_spent()
        if most is not None and self._slots is None and ledger.in_flight > most:
            return refusal.overloaded(most)
        output = chat.max_tokens or self._output_cap or 0
        charge = chat.prompt_tokens + output
        ledger.charged_tokens[number] = charge
        denial = self._limits.admit(charge, now, output=output)
        if denial is None:
            return None
        says_nothing = self.rules.limits_told is LimitsTold.NOTHING
        return refusal.bare_429() if says_nothing else refusal.rate_limited(denial, charge)

    def _answered(self, moment: Moment, chat: _Chat, strikes: Strikes, now: float) -> Plan:
        number, shape = moment.requests, chat.shape
        if not shape.keys and shape.output is None:
            shape = self._shape_of_prompt(chat)
        if not self._follows_form and shape.keys:
            shape = ReplyShape(output=shape.output, answer=shape.answer, kind=shape.kind)
        most = self._most_output(chat)
        reasoning = self._reasoned(chat)
        if most is not None:
            reasoning = min(reasoning, most)
        left = None if most is None else most - reasoning
        if reasoning and (left == 0 or reasoning >= DEFAULT_MOST):
            reply = Reply("", finish_reason="length")  # it thought up to the limit, and never began to answer
        else:
            asked = Asked(records=chat.records, line=chat.line, shape=shape, max_tokens=left, moment=moment)
            reply = self._writer.write(asked, strikes)
        self.ledger.strikes.update(reply.struck)
        count = self._bill(chat, reply, reasoning, now)
        told = None if self._reasoning is None else self._reasoning.told
        body = wire.completion_body(
            number,
            chat.request.model,
            content=reply.content,
            refusal=reply.refusal,
            finish_reason=reply.finish_reason,
            tokens=count if self._usage else None,
            counts_reasoning=told == "details",
            thought=thought(reasoning) if told == "text" else None,
        )
        plan = self._sent(number, chat, strikes, body, self._delay_s(count, strikes, now))
        is_told = self._usage and plan.action == "respond" and "bad_envelope" not in strikes.call
        unused = (chat.max_tokens or count.completion) - count.completion
        return replace(plan, unused_output=unused, told=count if is_told else None)

    def _reasoned(self, chat: _Chat) -> int:
        if self._reasoning is None:
            return 0
        tokens = self._reasoning.tokens(len(chat.records), chat.request.reasoning_effort, self._thoughts)
        return min(tokens, DEFAULT_MOST)

    def _most_output(self, chat: _Chat) -> int | None:
        if self._output_cap is None or chat.max_tokens is None:
            return self._output_cap or chat.max_tokens
        return min(self._output_cap, chat.max_tokens)

    def _shape_of_prompt(self, chat: _Chat) -> ReplyShape:
        """What the words before the items ask for; they may stand in the same message."""
        before = chat.texts[:-1] if len(chat.texts) > 1 else (chat.texts[-1].rstrip("\n").rpartition("\n")[0],)
        words = shape_of_words("\n".join(before))
        return replace(words, kind=chat.shape.kind) if words.keys and chat.shape.whole is None else chat.shape

    def _bill(self, chat: _Chat, reply: Reply, reasoning: int, now: float) -> wire.Tokens:
        cached = self._cache.cached_tokens(chat.texts[:-1], chat.prefix_tokens, now)
        completion = tokens.count(reply.content or reply.refusal or "") + reasoning
        self.ledger.bill(prompt=chat.prompt_tokens, cached=cached, completion=completion, reasoning=reasoning)
        return wire.Tokens(chat.prompt_tokens, cached, completion, reasoning)

    def _delay_s(self, count: wire.Tokens, strikes: Strikes, now: float) -> float:
        in_flight = self.ledger.in_flight
        if self._slots is not None and self._max_concurrency is not None:
            in_flight = min(in_flight, self._max_concurrency)
        seconds = self._latency.seconds(
            uncached=count.prompt - count.cached, output=count.completion, in_flight=in_flight, rng=self._rng
        )
        if "delay" in strikes.call:
            self.ledger.strikes["delay"] += 1
            seconds *= SLOWED
        return seconds if self._slots is None else seconds + self._slots.wait_s(now, seconds)

    def _sent(self, number: int, chat: _Chat, strikes: Strikes, body: bytes, delay_s: float) -> Plan:
        action: Action = "respond"
        headers = _JSON_HEADERS
        if "cut_body" in strikes.call:
            self.ledger.strikes["cut_body"] += 1
            action = "cut_body"
        elif "bad_envelope" in strikes.call:
            self.ledger.strikes["bad_envelope"] += 1
            body, headers = self._bad_envelope(body)
        return Plan(
            number=number,
            status=200,
            headers=self._with_limits(headers),
            body=body,
            delay_s=delay_s,
            action=action,
            prefix=chat.texts[:-1],
        )

    def _bad_envelope(self, body: bytes) -> tuple[bytes, Mapping[str, str]]:
        """A 200 that is no completion: cut JSON, or a page of some proxy."""
        if self._rng.random() < 0.5:
            return body[: len(body) // 2], _JSON_HEADERS
        return wire.BAD_GATEWAY, _HTML_HEADERS

    def _broken(self, number: int, fault: str) -> Plan:
        if fault == "reset":
            return self._gone(number, "reset")
        if fault == "hang":
            return self._gone(number, "hang")
        made = {
            "http_429": refusal.injected_429,
            "http_500": refusal.server_error,
            "http_502_html": refusal.bad_gateway,
        }[fault]
        return self._error(number, made())

    def _gone(self, number: int, action: Action) -> Plan:
        return Plan(number=number, status=0, headers={}, body=b"", delay_s=ERROR_DELAY_S, action=action)

    def _error(self, number: int, error: Refusal) -> Plan:
        headers = self._with_limits({**_JSON_HEADERS, **(error.headers or {})})
        return Plan(number=number, status=error.status, headers=headers, body=error.body, delay_s=ERROR_DELAY_S)

    def _with_limits(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        limits = self._limits.headers() if self.rules.limits_told is LimitsTold.HEADERS else {}
        return {**headers, **limits} if limits else headers


_SIMULATED = {"x-simulated": "1"}
"""Said in every reply, so that no report of anybody's passes simulated figures for measured ones."""

_JSON_HEADERS: Mapping[str, str] = {"Content-Type": wire.JSON, **_SIMULATED}
_HTML_HEADERS: Mapping[str, str] = {"Content-Type": wire.HTML, **_SIMULATED}


def _shape_for(output_schema: Mapping[str, Any] | None, *, keyed: bool = False) -> ReplyShape:
    keys = ((STARTS, None),) if keyed else ()
    answer = None if output_schema is None else answer_of(output_schema)
    return ReplyShape(keys=keys, output=output_schema, answer=answer)


def _parsed(body: bytes) -> _Chat | Refusal:
    try:
        request = parse_request(body)
        shape = shape_of_format(bytes(request.response_format))
    except BadRequest as error:
        return refusal.invalid(str(error))
    except msgspec.MsgspecError as error:
        return refusal.format_error(error)
    return _chat(request, shape)


def _chat(request: ChatRequest, shape: ReplyShape) -> _Chat:
    texts = tuple(message.text for message in request.messages)
    prompt_tokens, prefix_tokens = tokens.prompt_tokens(texts)
    line = last_line(texts[-1])
    records = parse_records(line) if request.messages[-1].role == "user" else []
    return _Chat(request, texts, shape, line, records, prompt_tokens, prefix_tokens)


__all__ = ["Action", "Plan", "SimulatedEndpoint"]
