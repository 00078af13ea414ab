"""One setting, asked about gold records: its answers are kept in a run store of its own, and never paid for twice."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import msgspec

from engine.adapters.store import read_store
from engine.decide.pricing import cost_usd, worst_usd
from engine.run.result_stream import ResultStream
from engine.run.session import Engine
from engine.run.traffic import Traffic
from engine.tuning.space import Setting
from engine.vocabulary.config import Endpoint, Limits, Packing, Prices, Quality, Recovery, RunConfig
from engine.vocabulary.errors import ConfigError, RunStopped
from engine.vocabulary.ports import Transport
from engine.vocabulary.prices import PriceTable
from engine.vocabulary.task import Task

_NO_SCHEMA = {"response_format": {"type": "text"}}
_OUTPUT_WEIGHT = 4.0
"""Of an output token beside an input token where there are no prices, as in `RunConfig.objective`."""

_CALLS = """
SELECT input_tokens, cached_tokens, output_tokens, latency_s, status = 200 AND accepted < size, written_tokens,
    unconfirmed_input, unconfirmed_output, size
FROM calls
"""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of a setting took, over all runs of the command.

    :ivar cached: part of `input`, as is `written`: into the provider's cache.
    :ivar malformed: replies that left a record unanswered.
    :ivar latency_s: of a request, the median; None before the first reply.
    :ivar unconfirmed_input: of requests without any reply (a kill, a timeout), as is `unconfirmed_output`: the endpoint
        may bill them. A budget counts them; what a record takes does not, or a kill would say which setting is cheap.
    :ivar asked: records in all requests together, as often as each was asked; `squares` is the sum of the squares of
        the requests' sizes.
    """

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    malformed: int = 0
    latency_s: float | None = None
    written: int = 0
    unconfirmed_input: int = 0
    unconfirmed_output: int = 0
    asked: int = 0
    squares: int = 0

    @property
    def tokens(self) -> int:
        """Input and output, for a budget: with what may yet be billed."""
        return self.input + self.output + self.unconfirmed_input + self.unconfirmed_output

    @classmethod
    def of(cls, calls: Iterable[Sequence[Any]]) -> Use:
        """Of rows of `_CALLS`."""
        rows = list(calls)
        if not rows:
            return cls()
        columns = zip(*rows, strict=True)
        inputs, cached, outputs, latencies, malformed, written, maybe_input, maybe_output, sizes = columns
        replied = [latency for latency, maybe in zip(latencies, maybe_input, strict=True) if not maybe]
        return cls(
            requests=len(rows),
            input=sum(inputs),
            cached=sum(cached),
            output=sum(outputs),
            malformed=sum(malformed),
            latency_s=statistics.median(replied) if replied else None,
            written=sum(written),
            unconfirmed_input=sum(maybe_input),
            unconfirmed_output=sum(maybe_output),
            asked=sum(sizes),
            squares=sum(size * size for size in sizes),
        )

    def spent_usd(self, prices: Prices) -> float:
        """Dollars, for a budget: with what may yet be billed, at its worst."""
        maybe = worst_usd(prices, input_tokens=self.unconfirmed_input, output_tokens=self.unconfirmed_output)
        return self.usd(prices) + maybe

    def usd(self, prices: Prices) -> float:
        """Dollars that the endpoint has told."""
        return cost_usd(
            prices,
            input_tokens=self.input,
            cached_tokens=self.cached,
            output_tokens=self.output,
            written_tokens=self.written,
        )

    def cost(self, prices: Prices | None) -> float:
        """In dollars, or in weighted tokens where there are no prices."""
        return self.input + _OUTPUT_WEIGHT * self.output if prices is None else self.usd(prices)


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What all trials share: whom to ask and how, but for what a setting says.

    :ivar model: its name, for people and stores.
    :ivar is_embedded: it runs in this process, at an address that changes.
    :ivar folder: of the stores.
    :ivar own_prices: the user's table, where models may differ.
    """

    endpoint: Endpoint
    model: str
    is_embedded: bool
    config: RunConfig
    folder: Path
    own_prices: PriceTable | None = None


class Shared:
    """What trials share: the limits of each model, so that no minute holds more than is allowed, whichever trial sends;
    and the wish that nothing more is sent."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._traffic: dict[str | None, Traffic] = {}
        self._over = anyio.Event()

    def __repr__(self) -> str:
        return f"Shared({self._traffic}, over={self._over.is_set()})"

    def traffic_of(self, model: str | None) -> Traffic:
        """Of a model; None for the one that the command names."""
        if model not in self._traffic:
            self._traffic[model] = Traffic(self._limits)
        return self._traffic[model]

    def stop(self) -> None:
        """Send nothing more; what is in flight is answered and stored."""
        self._over.set()

    async def stopped(self) -> None:
        """Return when nothing more shall be sent."""
        await self._over.wait()

    @property
    def is_over(self) -> bool:
        """Whether nothing more shall be sent."""
        return self._over.is_set()


class Trial:
    """A setting with its task, its configuration and its store."""

    def __init__(
        self, setting: Setting, task: Task, means: Means, *, shared: Shared | None = None,
        transport: Transport | None = None, virtual_time: bool = False,
    ) -> None:  # fmt: skip
        """
        :param task: as the setting asks it.
        :param shared: with the other trials.
        :param transport: in place of HTTP, for tests, as is `virtual_time`.
        :raises ConfigError: the setting names a model, and the embedded one is asked.
        """
        self.setting = setting
        self.task = task
        self.store = means.folder / f"{_slug(setting, task, means)}.sqlite"
        self._endpoint = _endpoint(setting, means)
        self._config = _config(setting, means.config)
        self._means = means
        self._shared = shared or Shared(means.config.limits)
        self._transport = transport
        self._virtual_time = virtual_time
        self.broken: str | None = None

    def __repr__(self) -> str:
        return f"Trial({self.store.stem}, broken={self.broken!r})"

    async def ask(
        self, records: Sequence[dict[str, Any]], *, left_usd: float | None, left_tokens: int | None
    ) -> list[Any]:
        """The answers to some records, in their order; None where there is no valid one.

        Answers that the store has cost nothing. A setting that the brake stops (its replies make no sense) answers
        nothing more, now or later.

        :param left_usd: what all trials together may still spend, as `left_tokens`.
        :raises RunStopped: the budget, the quota, the key or a person does not allow more: that ends the search, too.
        """
        answers: list[Any] = [None] * len(records)
        if self.broken is not None:
            return answers
        try:
            async with (
                self._engine(left_usd, left_tokens) as engine,
                engine.annotate(self.task, list(records)) as stream,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self._close_in_time, stream)
                stop = await _read(stream, answers)
                tasks.cancel_scope.cancel()
            if self._shared.is_over:
                raise RunStopped("interrupted", "interrupted")
            if stop is not None:
                raise stop
        except RunStopped as stop:
            if stop.kind != "brake":
                raise
            self.broken = str(stop)
        return answers

    async def _close_in_time(self, stream: ResultStream) -> None:
        await self._shared.stopped()
        await stream.aclose()

    def use(self) -> Use:
        """What it has taken so far."""
        return Use.of(self.calls())

    def calls(self) -> list[tuple[Any, ...]]:
        """One row a request."""
        if not self.store.exists():
            return []
        with closing(read_store(self.store)) as store:
            return store.query(_CALLS)

    def answered(self) -> int:
        """Records that its store has an answer to, or the failure of one, whichever search asked."""
        if not self.store.exists():
            return 0
        with closing(read_store(self.store)) as store:
            return int(store.query("SELECT count(*) FROM answers")[0][0])

    @property
    def prices(self) -> Prices | None:
        """Of its model."""
        return self._config.prices

    def _engine(self, left_usd: float | None, left_tokens: int | None) -> Engine:
        """The engine's budget is one for all runs on a store: what this one has had comes on top."""
        config, had = self._config, self.use()
        if left_tokens is not None:
            config = msgspec.structs.replace(config, budget_tokens=had.tokens + max(1, left_tokens))
        if left_usd is not None and config.prices is not None:
            config = msgspec.structs.replace(config, budget_usd=had.spent_usd(config.prices) + max(1e-9, left_usd))
        return Engine(
            self._endpoint,
            config,
            store=self.store,
            transport=self._transport,
            virtual_time=self._virtual_time,
            traffic=self._shared.traffic_of(self.setting.model),
        )


async def _read(stream: ResultStream, answers: list[Any]) -> RunStopped | None:
    """Put the answers where they belong; what ended the stream early is given back, or a task group would wrap it."""
    try:
        async for result in stream:
            answers[result.position] = result.output
    except RunStopped as stop:
        return stop
    return None


def _config(setting: Setting, config: RunConfig) -> RunConfig:
    """Every record is asked as the setting says and nothing besides: no audits, and no end at some failed records."""
    return msgspec.structs.replace(
        config,
        packing=_packing(setting, config.packing),
        recovery=_recovery(config.recovery),
        quality=Quality(guard=False, neighbours=config.quality.neighbours),
        answer_form=setting.form,
        votes=setting.votes,
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
    effort = [] if endpoint.reasoning_effort is None else [endpoint.reasoning_effort]
    stop = [] if setting.votes == 1 or means.config.votes_stop == "decided" else [means.config.votes_stop]
    sent = sorted(endpoint.extra_body), endpoint.temperature, *effort, *stop
    whole = msgspec.json.encode([_as_before(setting, Setting), _as_before(task, Task), place, sent])
    voted = f"-v{setting.votes}" if setting.votes > 1 else ""
    name = f"b{setting.batch_size}-ex{setting.examples}-{setting.form}{voted}-{setting.wording}"
    return f"{re.sub('[^a-z0-9-]', '_', name.lower())[:60]}-{hashlib.blake2b(whole, digest_size=5).hexdigest()}"


_LATER = frozenset({"choice", "alternate", "reason", "terse", "variables", "votes"})


def _as_before(whole: Setting | Task, kind: type[Setting] | type[Task]) -> dict[str, Any]:
    """Without what came later and says nothing: the answers of an earlier version are found again."""
    plain = {field.name: field.default for field in msgspec.structs.fields(kind)}
    return {
        name: getattr(whole, name)
        for name in kind.__struct_fields__
        if name not in _LATER or getattr(whole, name) != plain[name]
    }
