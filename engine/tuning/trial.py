"""One setting, asked about gold records: its answers are kept in a run store of its own, and never paid for twice."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.store import read_store
from engine.decide.pricing import cost_usd
from engine.run.session import Engine
from engine.tuning.space import Setting
from engine.vocabulary.config import Endpoint, Packing, Prices, Quality, Recovery, RunConfig
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.ports import Transport
from engine.vocabulary.task import Task

_NO_SCHEMA = {"response_format": {"type": "text"}}
_OUTPUT_WEIGHT = 4.0
"""Of an output token beside an input token where there are no prices, as in `RunConfig.objective`."""

_CALLS = """
SELECT input_tokens + unconfirmed_input, cached_tokens, output_tokens + unconfirmed_output, latency_s,
    status = 200 AND accepted < size
FROM calls
"""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of a setting took, over all runs of the command.

    :ivar cached: part of `input`. :ivar malformed: replies that left a record unanswered.
    :ivar latency_s: of a request, the median; None before the first.
    """

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    malformed: int = 0
    latency_s: float | None = None

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input + self.output

    def usd(self, prices: Prices) -> float:
        """Dollars."""
        return cost_usd(prices, input_tokens=self.input, cached_tokens=self.cached, output_tokens=self.output)

    def cost(self, prices: Prices | None) -> float:
        """In dollars, or in weighted tokens where there are no prices."""
        return self.input + _OUTPUT_WEIGHT * self.output if prices is None else self.usd(prices)


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What all trials share: whom to ask and how, but for what a setting says.

    :ivar model: its name, for people and stores.
    :ivar is_embedded: it runs in this process, at an address that changes.
    :ivar folder: of the stores.
    """

    endpoint: Endpoint
    model: str
    is_embedded: bool
    config: RunConfig
    folder: Path


class Trial:
    """A setting with its task, its configuration and its store."""

    def __init__(
        self, setting: Setting, task: Task, means: Means, *, transport: Transport | None = None,
        virtual_time: bool = False,
    ) -> None:  # fmt: skip
        """
        :param task: as the setting asks it.
        :param transport: in place of HTTP, for tests, as is `virtual_time`.
        :raises ConfigError: the setting names a model, and the embedded one is asked.
        """
        self.setting = setting
        self.task = task
        self.store = means.folder / f"{_slug(setting, task, means)}.sqlite"
        self._endpoint = _endpoint(setting, means)
        self._config = _config(setting, means.config)
        self._means = means
        self._transport = transport
        self._virtual_time = virtual_time
        self.broken: str | None = None

    def __repr__(self) -> str:
        return f"Trial({self.store.stem}, broken={self.broken!r})"

    async def ask(
        self, records: Sequence[dict[str, Any]], *, left_usd: float | None, left_tokens: int | None,
        is_over: Callable[[], bool],
    ) -> list[Any]:  # fmt: skip
        """The answers to some records, in their order; None where there is no valid one.

        Answers that the store has cost nothing. A setting that the brake stops (its replies make no sense) answers
        nothing more, now or later.

        :param left_usd: what all trials together may still spend, as `left_tokens`.
        :param is_over: looked at with each answer; True sends nothing more, and waits for what is in flight.
        :raises RunStopped: the budget, the quota, the key or a person does not allow more: that ends the search, too.
        """
        answers: list[Any] = [None] * len(records)
        if self.broken is not None:
            return answers
        try:
            async with (
                self._engine(left_usd, left_tokens) as engine,
                engine.annotate(self.task, list(records)) as stream,
            ):
                async for result in stream:
                    answers[result.position] = result.output
                    if is_over():
                        raise RunStopped("interrupted", "interrupted")
        except RunStopped as stop:
            if stop.kind != "brake":
                raise
            self.broken = str(stop)
        return answers

    def use(self) -> Use:
        """What it has taken so far."""
        if not self.store.exists():
            return Use()
        with closing(read_store(self.store)) as store:
            rows = store.query(_CALLS)
        if not rows:
            return Use()
        inputs, cached, outputs, latencies, malformed = zip(*rows, strict=True)
        return Use(
            requests=len(rows),
            input=sum(inputs),
            cached=sum(cached),
            output=sum(outputs),
            malformed=sum(malformed),
            latency_s=statistics.median(latencies),
        )

    def _engine(self, left_usd: float | None, left_tokens: int | None) -> Engine:
        """The engine's budget is one for all runs on a store: what this one has had comes on top."""
        config, had = self._config, self.use()
        if left_tokens is not None:
            config = msgspec.structs.replace(config, budget_tokens=had.tokens + max(1, left_tokens))
        if left_usd is not None and config.prices is not None:
            config = msgspec.structs.replace(config, budget_usd=had.usd(config.prices) + max(1e-9, left_usd))
        return Engine(
            self._endpoint,
            config,
            store=self.store,
            transport=self._transport,
            virtual_time=self._virtual_time,
        )


def _config(setting: Setting, config: RunConfig) -> RunConfig:
    """Every record is asked as the setting says and nothing besides: no audits, and no end at some failed records."""
    return msgspec.structs.replace(
        config,
        packing=_packing(setting, config.packing),
        recovery=_recovery(config.recovery),
        quality=Quality(guard=False, neighbours=config.quality.neighbours),
        answer_form=setting.form,
        budget_usd=None,
        budget_tokens=None,
    )


def _packing(setting: Setting, packing: Packing) -> Packing:
    most = max(packing.max_batch_size, setting.batch_size)
    return msgspec.structs.replace(packing, batch_size=setting.batch_size, max_batch_size=most)


def _recovery(recovery: Recovery) -> Recovery:
    return msgspec.structs.replace(recovery, max_failed=1.0)


def _endpoint(setting: Setting, means: Means) -> Endpoint:
    endpoint = means.endpoint
    changes: dict[str, Any] = {"extra_body": {**endpoint.extra_body, **extra_body(setting)}}
    if setting.model is not None:
        if means.is_embedded:
            raise ConfigError("the dimension 'model' needs --base-url or --provider; the embedded model is one only")
        changes["model"] = setting.model
    if setting.temperature is not None:
        changes["temperature"] = setting.temperature
    return msgspec.structs.replace(endpoint, **changes)


def extra_body(setting: Setting) -> dict[str, Any]:
    """What a setting adds to each request's body."""
    return setting.body | ({} if setting.schema else _NO_SCHEMA)


def _slug(setting: Setting, task: Task, means: Means) -> str:
    """A name for a store that says what it holds; another task, model or place has another."""
    endpoint = means.endpoint
    place = means.model if means.is_embedded else f"{endpoint.base_url} {endpoint.model}"
    sent = sorted(endpoint.extra_body), endpoint.temperature
    whole = msgspec.json.encode([setting, task, place, sent])
    name = f"b{setting.batch_size}-ex{setting.examples}-{setting.form}-{setting.wording}"
    return f"{re.sub('[^a-z0-9-]', '_', name.lower())[:60]}-{hashlib.blake2b(whole, digest_size=5).hexdigest()}"
