"""Transports that play a script, or that a test drives by hand, and helpers to write replies.

For tests of one behaviour: "the first reply is cut, the second is whole". Where the test itself decides when and in
which order requests end, use `DrivenTransport`; where faults should come by chance, `engine.testing.simulator`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import anyio.lowlevel


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedReply:
    """One reply of the script.

    :ivar body: bytes as they are, or a document to be written as JSON.
    :ivar delay_s: seconds on the running loop's clock before it comes. More than the timeout of the attempt raises
        `TimeoutError` after that timeout.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One request that was posted.

    :ivar at_s: the loop's clock at that time.
    :ivar document: the body, parsed.
    """

    url: str
    headers: Mapping[str, str]
    document: dict[str, Any]
    connect_timeout_s: float
    timeout_s: float
    at_s: float

    @property
    def items(self) -> list[dict[str, Any]]:
        """The items on the last line of the last message; none, if there are none."""
        return items_of(self.document)

    @property
    def inputs(self) -> list[Any]:
        """Their inputs."""
        return [item["input"] for item in self.items]


Outcome = ScriptedReply | BaseException
"""What a request gets: a reply, or an exception to be raised."""

Answer = Callable[[RecordedRequest], Outcome]
"""What makes it."""


class ScriptedTransport:
    """Plays a script, and records every request.

    :param script: replies, exceptions, or functions that make one from the request, one entry for each request in the
        order of arrival; or one function for all requests.
    :param then: for the requests after the end of the script; None: they fail the test.

    ``requests`` holds what was posted, ``in_flight`` and ``peak_in_flight`` how many at once.
    """

    def __init__(self, script: Iterable[Outcome | Answer] | Answer = (), *, then: Answer | None = None) -> None:
        self._script: Iterator[Outcome | Answer] = iter(()) if callable(script) else iter(script)
        self._then = script if callable(script) else then
        self.requests: list[RecordedRequest] = []
        self.in_flight = 0
        self.peak_in_flight = 0
        self.closed = False

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> ScriptedReply:
        """The next reply of the script.

        :raises AssertionError: if the script is at its end.
        """
        request = _recorded(url, body, headers, connect_timeout_s, timeout_s)
        self.requests.append(request)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return await self._played(request)
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True

    async def _played(self, request: RecordedRequest) -> ScriptedReply:
        outcome = self._next(request)
        if isinstance(outcome, BaseException):
            await anyio.lowlevel.checkpoint()
            raise outcome
        await anyio.sleep(min(outcome.delay_s, request.timeout_s))
        if outcome.delay_s > request.timeout_s:
            raise TimeoutError(f"no reply within {request.timeout_s:g} s")
        return outcome

    def _next(self, request: RecordedRequest) -> Outcome:
        entry = next(self._script, self._then)
        if entry is None:
            raise AssertionError(f"request {len(self.requests)} is beyond the script: {request.inputs!r}")
        return entry(request) if callable(entry) else entry


class DrivenRequest:
    """A request that waits for its test to end it.

    :ivar request: what was posted.
    :ivar fate: None while it waits; ``answered`` when its outcome was given out, ``timed out``, or ``given up`` when
        the caller was cancelled.
    """

    def __init__(self, request: RecordedRequest) -> None:
        self.request = request
        self.fate: Literal["answered", "timed out", "given up"] | None = None
        self.outcome: Outcome | None = None
        self._ended = anyio.Event()

    def __repr__(self) -> str:
        return f"DrivenRequest({len(self.request.items)} items, {self.fate or 'waiting'})"

    def end(self, outcome: Outcome) -> bool:
        """Give it an outcome; False where that comes too late, and nobody gets it.

        The delay of a reply is left to the test.
        """
        if self.outcome is not None or self.fate is not None:
            return False
        self.outcome = outcome
        self._ended.set()
        return True

    async def wait(self) -> ScriptedReply:
        """The reply, or the exception, that it is ended with; `TimeoutError` when its time is over."""
        timeout_s = self.request.timeout_s
        try:
            with anyio.move_on_after(timeout_s):
                await self._ended.wait()
        except BaseException:
            self.fate = "given up"
            raise
        if self.outcome is None:
            self.fate = "timed out"
            raise TimeoutError(f"no reply within {timeout_s:g} s")
        self.fate = "answered"
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class DrivenTransport:
    """Keeps every request waiting until the test ends it: any order, any outcome, late or never.

    :param arrived: called with each request before anything else can happen.

    ``requests`` holds all that were posted, in the order of arrival.
    """

    def __init__(self, arrived: Callable[[DrivenRequest], object] | None = None) -> None:
        self.arrived = arrived
        self.requests: list[DrivenRequest] = []
        self.closed = False

    @property
    def waiting(self) -> list[DrivenRequest]:
        """Requests that have not been ended, the oldest first."""
        return [request for request in self.requests if request.fate is None and request.outcome is None]

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> ScriptedReply:
        """Wait for the test.

        :raises TimeoutError: nothing came in time.
        """
        driven = DrivenRequest(_recorded(url, body, headers, connect_timeout_s, timeout_s))
        self.requests.append(driven)
        if self.arrived is not None:
            self.arrived(driven)
        return await driven.wait()

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True


def _recorded(
    url: str, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
) -> RecordedRequest:
    return RecordedRequest(
        url=url,
        headers=dict(headers),
        document=json.loads(body),
        connect_timeout_s=connect_timeout_s,
        timeout_s=timeout_s,
        at_s=anyio.current_time(),
    )


def items_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items on the last line of the last message of a chat request; none, if it is not such a document."""
    line = document["messages"][-1]["content"].rstrip("\n").rpartition("\n")[2]
    try:
        items: list[dict[str, Any]] = json.loads(line)["items"]
    except (ValueError, KeyError, TypeError):
        return []
    return items


def chat_reply(
    content: str | None,
    *,
    prompt_tokens: int | None = 100,
    completion_tokens: int = 10,
    cached_tokens: int = 0,
    finish_reason: str = "stop",
    refusal: str | None = None,
    delay_s: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> ScriptedReply:
    """A chat completion with status 200.

    :param prompt_tokens: None leaves ``usage`` out.
    """
    message = {"role": "assistant", "content": content, "refusal": refusal}
    document: dict[str, Any] = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
    }
    if prompt_tokens is not None:
        document["usage"] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }
    return json_reply(document, delay_s=delay_s, headers=headers)


def json_reply(
    document: Any, *, status: int = 200, delay_s: float = 0.0, headers: Mapping[str, str] | None = None
) -> ScriptedReply:
    """Any JSON body."""
    return ScriptedReply(
        status=status,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=json.dumps(document).encode(),
        delay_s=delay_s,
    )


def error_reply(
    status: int,
    message: str = "scripted error",
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    delay_s: float = 0.0,
) -> ScriptedReply:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json_reply({"error": error}, status=status, headers=headers, delay_s=delay_s)


def results_content(items: Iterable[Mapping[str, Any]], answer: Callable[[Any], Any]) -> str:
    """The content that answers these items, compact."""
    results = [{"id": item["id"], "output": answer(item["input"])} for item in items]
    return json.dumps({"results": results}, ensure_ascii=False, separators=(",", ":"))


def answer_all(answer: Callable[[Any], Any], *, delay_s: float = 0.0) -> Answer:
    """A script entry that answers every item of a request.

    :param answer: from an input to its output.
    """
    return lambda request: chat_reply(results_content(request.items, answer), delay_s=delay_s)


def answer_some(answer: Callable[[Any], Any], keep: Callable[[Any], bool], *, delay_s: float = 0.0) -> Answer:
    """A script entry that answers only the items whose input passes `keep`."""

    def reply(request: RecordedRequest) -> Outcome:
        return chat_reply(results_content((i for i in request.items if keep(i["input"])), answer), delay_s=delay_s)

    return reply
