"""OpenAI's chat completions, as hosted providers, vLLM, llama.cpp, Ollama and others speak it.

What an endpoint takes is found out once, by asking: json_schema, else json_object, else the prompt alone; `max_tokens`
or `max_completion_tokens`; a temperature or none. A request that is refused for one of these comes back as a fault of
kind UNSUPPORTED, the provider has then taken note, and the same batch is simply sent again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from engine.adapters.providers.classify import (
    EXCERPT,
    MAX_ERROR_BYTES,
    classify,
    error_document,
    error_text,
    excerpt_of,
    one_line,
)
from engine.adapters.providers.document import read_json
from engine.adapters.providers.efforts import refused_effort
from engine.adapters.providers.logprobs import read_tokens
from engine.adapters.providers.quota import read_quotas
from engine.adapters.providers.redaction import redaction_of
from engine.adapters.providers.usage import read_usage
from engine.vocabulary.config import Endpoint
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.ports import HttpReply, Transport
from engine.vocabulary.secrets import revealed, shown_address
from engine.vocabulary.values import Completion, Fault, FaultKind, Usage

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = ("messages", "stream", "n")
_HIDDEN_TOKENS = 200_000  # beside what we sent and got: a provider's own prompt, its searches, reasoning
_REASONS = frozenset({
    "stop", "length", "content_filter", "tool_calls", "function_call", "error", "end_turn", "eos", "eos_token",
    "stop_sequence", "max_tokens", "model_length", "insufficient_system_resource", "safety", "recitation", "abort",
})  # fmt: skip
"""Why a reply may end. Any other word is kept as ``other``: it may be anything, our own key included."""
_DOUBTS = 2  # in vain, of the format: the two probes that a run begins with may both be bad


class Capabilities(msgspec.Struct, frozen=True):
    """What an endpoint takes, as far as it is known. A step down that it asked for is never taken back."""

    response_format: str | None = "json_schema"
    max_tokens_field: str = "max_tokens"
    temperature: bool = True
    logprobs: bool = True


_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")


class EndpointKnowledge:
    """What has been found out about one endpoint; shared by all that ask it, so that it is found out once.

    :ivar proven: a request has succeeded, so an unexplained refusal is about its content.
    :ivar doubted: the format left out since a request that had it was refused without a reason; it comes back when one
        without any format is refused as well, or when one that had it succeeds.
    :ivar doubts: how often it came back because leaving it out had not helped.
    :ivar switched_limit: the other name of the output limit has been tried.
    :ivar simulated: it says of itself, by the header ``x-simulated``, that no model stands behind it.
    """

    def __init__(self) -> None:
        self.capabilities = Capabilities()
        self.proven = False
        self.doubted: str | None = None
        self.doubts = 0
        self.switched_limit = False
        self.simulated = False

    def restore_format(self) -> None:
        """Ask for the format in doubt again: it was not what was refused."""
        if self.doubted is not None:
            self.capabilities = msgspec.structs.replace(self.capabilities, response_format=self.doubted)
            self.doubted = None


_STEP_DOWN = {"json_schema": "json_object", "json_object": None}


def without(capabilities: Capabilities, parameter: str) -> Capabilities | None:
    """The next thing to try when an endpoint refuses `parameter`; None when nothing is left to give up."""
    if parameter == "response_format" and capabilities.response_format is not None:
        return msgspec.structs.replace(capabilities, response_format=_STEP_DOWN[capabilities.response_format])
    if parameter in _LIMIT_FIELDS:  # texts often name both; what it refuses is what it was sent
        other = next(name for name in _LIMIT_FIELDS if name != capabilities.max_tokens_field)
        return msgspec.structs.replace(capabilities, max_tokens_field=other)
    if parameter == "temperature" and capabilities.temperature:
        return msgspec.structs.replace(capabilities, temperature=False)
    if parameter == "logprobs" and capabilities.logprobs:
        return msgspec.structs.replace(capabilities, logprobs=False)
    return None


def chat_url(base_url: str) -> str:
    """Where to post to. A bare host gets ``/v1``; a full ``.../chat/completions`` is taken as it is.

    :raises ConfigError: when it is not an http(s) URL.
    """
    try:
        parts = urlsplit(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        usable = False
    if not usable:
        shown = shown_address(base_url).partition("?")[0].rpartition("@")[2]
        raise ConfigError(f"base URL {shown!r} is not a URL like http://localhost:8000/v1")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def shown_url(url: str) -> str:
    """The URL without a password or query, either of which may be a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class OpenAIChat:
    """A `Provider` for one static prompt on one endpoint."""

    def __init__(
        self,
        *,
        transport: Transport,
        endpoint: Endpoint,
        system: str,
        schema: Mapping[str, Any] | None,
        known: EndpointKnowledge | None = None,
        logprobs: bool = False,
    ) -> None:
        """
        :param schema: of the reply; None asks by the prompt alone.
        :param known: what has been found out about the endpoint, if it is shared with other prompts.
        :param logprobs: ask for the probabilities of the reply's tokens, as long as the endpoint takes that.
        """
        taken = [key for key in _OURS if key in endpoint.extra_body]
        if taken:
            raise ConfigError(f"extra body: {taken[0]!r} is the engine's own; leave it out")
        self._transport = transport
        self._endpoint = endpoint
        self._system = system
        self._schema = schema
        self._logprobs = logprobs
        self._url = chat_url(endpoint.base_url)
        self._headers = _headers(endpoint)
        self._redaction = redaction_of(endpoint, self._headers)
        self._known = known if known is not None else EndpointKnowledge()
        self._heads: dict[tuple[Capabilities, int], bytes] = {}

    def __repr__(self) -> str:
        return f"OpenAIChat({shown_url(self._url)!r}, model={self._endpoint.model!r}, {self._known.capabilities})"

    @property
    def capabilities(self) -> Capabilities:
        """What the endpoint is known, or still believed, to take."""
        return self._known.capabilities

    @property
    def temperature(self) -> float | None:
        """The temperature that is asked for; None where the endpoint's own counts, which nobody knows."""
        own = self._endpoint.temperature if self._known.capabilities.temperature else None
        asked: object = self._endpoint.extra_body.get("temperature", own)
        return float(asked) if isinstance(asked, int | float) and not isinstance(asked, bool) else None

    async def complete(self, *, user: str, max_output_tokens: int, items: int = 0) -> Completion | Fault:
        """See `engine.vocabulary.ports.Provider`."""
        sent_with = self._known.capabilities
        body = self._body(user, max_output_tokens, items if self._endpoint.exact_count else 0)
        try:
            reply = await self._transport.post(
                self._url,
                body=body,
                headers=self._headers,
                connect_timeout_s=self._endpoint.connect_timeout_s,
                timeout_s=self._endpoint.timeout_s,
            )
        except TimeoutError as error:
            message = str(error) or f"no reply within {self._endpoint.timeout_s:g} s"
            return Fault(kind=FaultKind.TIMEOUT, message=self._shown(message))
        except asyncio.IncompleteReadError as error:
            return Fault(kind=FaultKind.TRANSPORT, message=f"the connection broke: {error}")
        except OSError as error:
            sent = not isinstance(error, ConnectionRefusedError)
            return Fault(kind=FaultKind.TRANSPORT, message=self._shown(f"the connection failed: {error}"), sent=sent)
        self._known.simulated |= "x-simulated" in reply.headers
        outcome = self._read(reply, _most_usage(body, reply.body, max_output_tokens))
        quotas = read_quotas(reply.headers)
        if quotas:
            outcome = msgspec.structs.replace(outcome, quotas=quotas)
        if isinstance(outcome, Completion):
            self._worked(sent_with)
            return outcome
        return self._negotiated(outcome, sent_with)

    def _worked(self, sent_with: Capabilities) -> None:
        """What is in doubt was needless to leave out if a request had it, and rightly left out if one had it not."""
        if self._known.doubted is not None:
            if not self._asks_format:
                return  # it says nothing of formats
            if sent_with.response_format == self._known.doubted:
                self._known.restore_format()
        self._known.proven = True

    def _read(self, reply: HttpReply, most: Usage) -> Completion | Fault:
        outcome = read_completion(reply.body, most=most, tokens=self._logprobs) if reply.status == 200 else None
        if isinstance(outcome, Completion):
            answer = self._redaction.answer
            refusal = None if outcome.refusal is None else answer(outcome.refusal)
            return msgspec.structs.replace(outcome, text=answer(outcome.text), refusal=refusal)
        # Before anything is cut to length: half a key is nothing that would be recognised.
        body = self._redaction.body(reply.body[:MAX_ERROR_BYTES])
        status = reply.status if outcome is None else _status_inside(body)
        if status is None:
            return _not_a_completion(body, reply.headers.get("Content-Type", ""))
        headers = {name: self._redaction.text(value) for name, value in reply.headers.items()}
        fault = classify(status, headers, body, url=shown_url(self._url))
        return msgspec.structs.replace(fault, message=self._redaction.text(fault.message))

    def _shown(self, message: str) -> str:
        """The words of a transport's exception, which may quote what came, and that may be our own request."""
        return one_line(self._redaction.text(message))

    def _negotiated(self, fault: Fault, sent_with: Capabilities) -> Fault:
        """Take note of what the endpoint does not take; the fault then asks for the same batch again."""
        parameter = fault.parameter if fault.kind is FaultKind.UNSUPPORTED else None
        if parameter == "reasoning_effort":
            return self._effort_refused(fault)
        if parameter is None:
            unexplained = fault.kind is FaultKind.REJECTED and not self._known.proven
            return self._doubting(fault, sent_with) if unexplained else fault
        if parameter == "response_format" and sent_with.response_format == self._known.doubted:
            self._known.doubted = None  # now it is told
        if sent_with == self._known.capabilities:
            lesser = self._lesser(parameter)
            if lesser is None:
                return msgspec.structs.replace(fault, kind=FaultKind.REJECTED, parameter=None)
            self._known.capabilities = lesser
        return msgspec.structs.replace(fault, kind=FaultKind.UNSUPPORTED, parameter=parameter)

    def _effort_refused(self, fault: Fault) -> Fault:
        """It is not left out in silence: the model would then think as much as it likes, at the user's cost."""
        effort = self._endpoint.reasoning_effort
        if effort is None:
            return msgspec.structs.replace(fault, kind=FaultKind.REJECTED, parameter=None)
        return msgspec.structs.replace(
            fault, kind=FaultKind.MODEL, parameter=None, message=refused_effort(effort, fault.message)
        )

    def _doubting(self, fault: Fault, sent_with: Capabilities) -> Fault:
        """An unexplained refusal before anything worked: of the format, or of the content?

        The same batch without the format tells: if it works, the format stays out, else it comes back. That is done
        `_DOUBTS` times and no more: where nothing works, the brake is to see refusals.
        """
        known = self._known
        if not self._asks_format or (known.doubted is None and known.doubts >= _DOUBTS):
            return fault
        if sent_with.response_format is None:
            known.doubts += known.doubted is not None
            known.restore_format()
            return fault
        if sent_with == known.capabilities:
            known.doubted = known.doubted or sent_with.response_format
            known.capabilities = without(known.capabilities, "response_format") or known.capabilities
        return msgspec.structs.replace(fault, kind=FaultKind.UNSUPPORTED, parameter="response_format")

    @property
    def _asks_format(self) -> bool:
        """Whether a format is asked for, and by us."""
        return self._schema is not None and "response_format" not in self._endpoint.extra_body

    def _lesser(self, parameter: str) -> Capabilities | None:
        if parameter in self._endpoint.extra_body or (parameter == "response_format" and self._schema is None):
            return None  # not ours to leave out, or not there
        if parameter in _LIMIT_FIELDS:
            if self._known.switched_limit:
                return None  # it refuses both names; switching for ever would not help
            self._known.switched_limit = True
        return without(self._known.capabilities, parameter)

    def _current_head(self, exact_items: int) -> bytes:
        """The head for what is known now; another provider on the endpoint may have found something out."""
        key = (self._known.capabilities, exact_items)
        if key not in self._heads:
            self._heads[key] = self._request_head(exact_items)
        return self._heads[key]

    def _request_head(self, exact_items: int) -> bytes:
        """Everything before the user's message, encoded once: it is the same in every request.

        :param exact_items: results that the schema asks for; 0 leaves their number open.
        """
        fields: dict[str, Any] = {"model": self._endpoint.model}
        if self._known.capabilities.temperature and self._endpoint.temperature is not None:
            fields["temperature"] = self._endpoint.temperature
        if self._known.capabilities.response_format is not None and self._schema is not None:
            fields["response_format"] = self._response_format(self._known.capabilities.response_format, exact_items)
        if self._logprobs and self._known.capabilities.logprobs:
            fields["logprobs"] = True
        if self._endpoint.reasoning_effort is not None:
            fields["reasoning_effort"] = self._endpoint.reasoning_effort
        fields |= self._endpoint.extra_body
        system = msgspec.json.encode({"role": "system", "content": self._system})
        opened = msgspec.json.encode(fields).removesuffix(b"}")
        return opened + b',"messages":[' + system + b',{"role":"user","content":'

    def _response_format(self, kind: str, exact_items: int) -> dict[str, Any]:
        if kind == "json_object":
            return {"type": kind}
        schema = self._schema if not exact_items or self._schema is None else _counted(self._schema, exact_items)
        return {"type": kind, "json_schema": {"name": "results", "strict": True, "schema": schema}}

    def _body(self, user: str, max_output_tokens: int, exact_items: int) -> bytes:
        body = self._current_head(exact_items) + msgspec.json.encode(user) + b"}]"
        if self._endpoint.extra_body.keys().isdisjoint(_LIMIT_FIELDS):
            body += f',"{self._known.capabilities.max_tokens_field}":{max_output_tokens}'.encode()
        return body + b"}"


def _counted(schema: Mapping[str, Any], items: int) -> dict[str, Any]:
    """The reply's schema with the number of its results."""
    results = schema["properties"]["results"] | {"minItems": items, "maxItems": items}
    return dict(schema) | {"properties": {"results": results}}


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "annotation-engine"}
    if endpoint.api_key is not None:
        headers["Authorization"] = f"Bearer {endpoint.api_key.reveal()}"
    given = {name.lower() for name in endpoint.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in given}
    headers |= {name: revealed(value) for name, value in endpoint.headers.items()}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            raise ConfigError(f"header {name!r}, or the key in it, holds a character that no header may hold")
    if "@" in urlsplit(endpoint.base_url).netloc and "authorization" in map(str.lower, headers):
        raise ConfigError("the base URL holds a password, and there is a key as well; leave one of them out")
    return headers


def read_completion(body: bytes, *, most: Usage | None = None, tokens: bool = False) -> Completion | Fault:
    """The completion in a reply with status 200, or the fault that it is instead.

    :param most: usage above which the endpoint's figures cannot be true.
    :param tokens: read their probabilities too.
    """
    try:
        document = read_json(body, lenient=True)
        choice = document["choices"][0]
        message = choice["message"]
        text, refusal = _text(message.get("content")), _text(message.get("refusal"))
        finish_reason = _reason(_text(choice.get("finish_reason")).lower())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return _not_a_completion(body[:MAX_ERROR_BYTES])
    if not refusal and finish_reason.startswith("content_filter"):
        refusal = "content filter"
    usage = read_usage(document.get("usage"), most=most, message=message)
    return Completion(
        text=text, finish_reason=finish_reason, refusal=refusal or None, usage=usage,
        tokens=read_tokens(choice.get("logprobs")) if tokens else (),
    )  # fmt: skip


def _reason(word: str) -> str:
    if word.startswith("content_filter"):
        return "content_filter"
    return word if word in _REASONS or not word else "other"


def _text(content: Any) -> str:
    if isinstance(content, list):  # content parts
        parts = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(part for part in parts if isinstance(part, str))
    return _whole(content) if isinstance(content, str) else ""


def _whole(text: str) -> str:
    """The text with half characters replaced: no file and no database takes a lone surrogate."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _status_inside(body: bytes) -> int | None:
    """The status that OpenRouter, for one, puts into an error when the reply had begun with a 200."""
    error = error_document(body).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and 400 <= code <= 599 else None


def _not_a_completion(body: bytes, content_type: str = "") -> Fault:
    words, hint = error_text(body).message[:EXCERPT], ""
    if "event-stream" in content_type or body.startswith((b"data:", b"event:")):
        hint = "; it streams, which was not asked for: turn that off at the endpoint, or at a gateway before it"
    elif "html" in content_type:
        hint = "; that is a web page: is base_url (--base-url) the address of the API?"
    return Fault(
        kind=FaultKind.BAD_REPLY,
        message=f"HTTP 200, but no chat completion: {words}{hint}",
        status=200,
        excerpt=excerpt_of(body),
    )


def _most_usage(sent: bytes, received: bytes, max_output_tokens: int) -> Usage:
    """The most tokens that a call can have taken: one is a byte or more, and not all of them are shown."""
    most_output = max(max_output_tokens, len(received)) + _HIDDEN_TOKENS
    return Usage(input_tokens=len(sent) + _HIDDEN_TOKENS, output_tokens=most_output)
