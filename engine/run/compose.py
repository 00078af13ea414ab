"""From configuration to objects: transport, store, tokenizer and provider are made here, and nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import msgspec

from engine.adapters.http import HttpTransport
from engine.adapters.key_file import key_for
from engine.adapters.local import CONTEXT_TOKENS, LOCAL_MODEL_NAME, local_model
from engine.adapters.providers.openai_chat import EndpointKnowledge, OpenAIChat
from engine.adapters.store import RunStore, open_store, temporary_store
from engine.adapters.store.run_rows import SecondPart
from engine.adapters.stored_again import has_inputs
from engine.adapters.tokens import TiktokenCounter
from engine.decide.escalation import failures_for_second
from engine.decide.estimates import ENTRY_TOKENS
from engine.decide.outputs import check_examples, output_check
from engine.decide.prompts import WHY_TOKENS, Prompt, input_text, make_prompt
from engine.decide.quality_evidence import can_be_judged
from engine.decide.records import RecordReader
from engine.decide.votes import why_in_vain
from engine.report.escalation import EscalationLog
from engine.report.metrics import Counters
from engine.run.budget import Budget
from engine.run.escalate import EscalatingPipeline, Second
from engine.run.gold_set import GoldSet, make_gold_set
from engine.run.intake import Inputs
from engine.run.journal import RunSync, in_thread
from engine.run.log import RunLog
from engine.run.pipeline import Pipeline
from engine.run.plan import Asking, Plan
from engine.run.prices import priced
from engine.run.readers import Prepare
from engine.run.second import second_model
from engine.run.traffic import Traffic
from engine.vocabulary.config import AnswerForm, Endpoint, OnBadRecord, RunConfig, check_config
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.ports import Tokenizer, Transport
from engine.vocabulary.task import FieldType, Task, check_task
from engine.vocabulary.values import BadRecord, RawRecord, Record

EMBEDDED = Endpoint(base_url="", model="", timeout_s=600.0)
"""How the embedded model is asked unless somebody says otherwise; a CPU takes its time."""

LATER_FORMS = ("reason", "alternate", "terse")
_PLAIN_TASK = Task(instructions="")

_TEXT_TOKENS = 60  # expected of a free text or a list, until usage tells
_NUMBER_TOKENS = 4
_FRAME_TOKENS = 13  # {"id":"k3f-1","output":},
_STARTS_TOKENS = 14  # measured: what the keyed form costs an item
_PRIOR_SLACK = 1.5  # other tokenizers than ours, and models that print spaces


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run in the store: of a task, on a model.

    :ivar worked_before: the store holds answers from an earlier run.
    :ivar log: of this run.
    :ivar second: a second model's part of it.
    """

    run_id: int
    settings_id: int
    plan: Plan
    worked_before: bool
    log: RunLog
    second: Run | None = None


class Workbench:
    """Everything that runs on one endpoint share. Made by `open_workbench`."""

    def __init__(
        self, *, endpoint: Endpoint, model_name: str, config: RunConfig, transport: Transport, store: RunStore,
        tokenizer: Tokenizer, run_sync: RunSync, allow_change: bool, traffic: Traffic | None = None,
        first: Workbench | None = None,
    ) -> None:  # fmt: skip
        """:param first: of a second model in the same run: calls are numbered together, and the budget is one."""
        self.endpoint = endpoint
        self.model_name = model_name
        self.config = config
        self.store = store
        self.run_sync = run_sync
        self._transport = transport
        self._tokenizer = tokenizer
        self._allow_change = allow_change
        self._known = EndpointKnowledge()
        self._numbers: Iterator[int] = count(store.next_call_id()) if first is None else first._numbers
        self._salt_offset: int = random.SystemRandom().randrange(1 << 30) if first is None else first._salt_offset
        self._traffic = traffic or Traffic(config.limits, target_s=config.target_p95_s)
        spent = store.spent(model_name)
        if first is None:
            self._budget = Budget.of(config, spent, store.spent())
        else:
            self._budget = first._budget.of_second(config.prices, spent)
        self._second: Workbench | None = None
        self.second_config = config

    @property
    def is_simulated(self) -> bool:
        """Whether the endpoint has said that it is a simulator."""
        return self._known.simulated

    def plan(self, task: Task) -> Plan:
        """How a task is asked on this endpoint.

        :raises ConfigError: the task makes no sense, or does not fit into a request.
        """
        check_task(task)
        check_examples(task)
        if self.config.votes > 1 and not can_be_judged(task):
            raise ConfigError(
                "there is nothing to vote on: the task has free texts and numbers only; leave votes (--votes) out"
            )
        form = self.config.answer_form
        asking = self._asking(task, "compact" if form == "auto" else form)
        most = self.config.packing.max_input_tokens
        if asking.static_tokens >= most:
            raise ConfigError(
                f"the static prompt alone takes {asking.static_tokens:,} tokens and a request may have {most:,}; "
                "shorten instructions or examples, or raise max_input_tokens (--max-input-tokens)"
            )
        above = self.config.limits.exceeded(
            input_tokens=asking.static_tokens + 1, output_tokens=math.ceil(asking.output_tokens)
        )
        if above is not None:
            raise ConfigError(
                f"the static prompt and one answer take some {above}, so no request could ever be sent; "
                f"shorten instructions or examples, or raise {above.option}"
            )
        if in_vain := why_in_vain(self.config, asking.temperature()):
            raise ConfigError(in_vain)
        fallback = self._asking(task, "compact") if asking.keyed else None
        tries = form == "auto" and self.config.packing.batch_size is None and self.config.quality.guard
        keyed = self._asking(task, "keyed") if tries else None
        return Plan(task=task, asking=asking, fallback=fallback, keyed=keyed)

    def _asking(self, task: Task, form: AnswerForm) -> Asking:
        prompt = make_prompt(task, form)
        provider = OpenAIChat(
            transport=self._transport,
            endpoint=self.endpoint,
            system=prompt.system,
            schema=prompt.schema,
            known=self._known,
            logprobs=self.config.confidence == "logprobs",
        )
        return Asking(
            prompt=prompt,
            provider=provider,
            temperature=lambda: provider.temperature,
            reasoning_effort=_effort(self.endpoint),
            check=output_check(task),
            static_tokens=self._tokenizer.count(prompt.system),
            output_tokens=_expected_output(task, prompt, self._tokenizer),
        )

    async def begin(
        self, task: Task, *, note: Mapping[str, Any], gold: GoldSet | None = None
    ) -> Run:  # fmt: skip
        """Note a new run in the store, and with it what a second model is to have of it. `note` is kept with it, for a
        later `annotate retry`.

        :param gold: records with known answers that ride along.
        :raises StoreError: the store holds answers of another task or model.
        """
        plan = msgspec.structs.replace(self.plan(task), gold=gold)
        second = None if self.config.escalation is None else self.second()
        second_plan = None if second is None else second.plan(task)
        part: SecondPart | None = None

        def begin() -> tuple[int, int, bool]:
            nonlocal part
            settings_id = self._settings(task)
            if second is not None:
                below, failures = self._for_second(second)
                config = msgspec.json.encode({"source": "escalation", "failures": sorted(failures)}).decode()
                part = SecondPart(settings_id=second._settings(task), config=config, below=below)
            rule = {} if self.config.votes == 1 else {"votes": self.config.votes, "votes_stop": self.config.votes_stop}
            config = msgspec.json.encode({**note, **rule}).decode()
            run_id = self.store.begin_run(settings_id=settings_id, started_at=time.time(), config=config, second=part)
            return settings_id, run_id, self.store.has_answers(settings_id)

        settings_id, run_id, worked_before = await self.run_sync(begin)
        own = self._started(task, plan, run_id=run_id, settings_id=settings_id, worked_before=worked_before)
        if second is None or second_plan is None or part is None:
            return own
        settings_id, id_ = part.settings_id, run_id + 1
        worked_before = await self.run_sync(lambda: self.store.has_answers(settings_id))
        of_second = second._started(task, second_plan, run_id=id_, settings_id=settings_id, worked_before=worked_before)
        return msgspec.structs.replace(own, second=of_second)

    def _settings(self, task: Task) -> int:
        """The id of the task on this model. Blocks."""
        document = msgspec.json.encode(task).decode()
        return self.store.settings(
            task_key=task_key(task), model=self.model_name, task=document, allow_change=self._allow_change
        )

    def _started(self, task: Task, plan: Plan, *, run_id: int, settings_id: int, worked_before: bool) -> Run:
        log = RunLog()
        log.started(
            store=None if self.store.path is None else str(self.store.path), store_run=run_id, task=task_key(task),
            model=self.model_name, endpoint=self.endpoint, config=self.config,
        )  # fmt: skip
        return Run(run_id=run_id, settings_id=settings_id, plan=plan, worked_before=worked_before, log=log)

    def _for_second(self, second: Workbench) -> tuple[float | None, frozenset[str]]:
        """Under which confidence an answer, and which kinds of failure, go to the second model."""
        escalation = self.config.escalation
        if escalation is None:
            return None, frozenset()
        failures: frozenset[str] = frozenset()
        if escalation.failed:
            failures = failures_for_second(
                first_most_tokens=self.config.packing.max_input_tokens,
                second_most_tokens=second.config.packing.max_input_tokens,
            )
        return escalation.below, failures

    async def end(self, run: Run, status: str, *, came: bool = False) -> None:
        """Note how a run ended; ``came``: and that its list of inputs, noted as they came, is complete.

        Records that failed in a run which the brake ended failed for a cause of the whole: the next run asks them
        again, without being told.
        """

        def end() -> None:
            if came and has_inputs(self.store, run.run_id, usable=status != "done"):
                self.store.complete_inputs(run.run_id)
            if status in ("brake", "endpoint"):
                self.store.mark_redo(run.settings_id, "run_id = ? AND ok = 0", [run.run_id])
            self.store.end_run(run.run_id, ended_at=time.time(), status=status)

        run.log.ended(status)
        await self.run_sync(end)

    def pipeline(
        self,
        run: Run,
        *,
        source_name: str = "input",
        inputs: Inputs = Inputs.NOTE,
        on_bad_record: OnBadRecord | None = None,
        counters: Counters | None = None,
    ) -> Pipeline:
        """A pipeline for one run."""
        config = self.config
        if on_bad_record is not None:
            config = msgspec.structs.replace(config, on_bad_record=on_bad_record)
        kind = (
            Pipeline
            if run.second is None
            else partial(EscalatingPipeline, open_second=partial(self._open_second, run, run.second))
        )
        return kind(
            run.plan,
            config,
            self.store,
            run_id=run.run_id,
            settings_id=run.settings_id,
            source_name=source_name,
            inputs=inputs,
            run_sync=self.run_sync,
            counters=counters,
            budget=self._budget,
            call_number=self._call_number,
            salt_offset=self._salt_offset,
            worked_before=run.worked_before,
            log=run.log,
            traffic=self._traffic,
        )

    def _call_number(self) -> int:
        """Numbers of calls are unique in the store, over all pipelines that write to it."""
        return next(self._numbers)

    def second(self) -> Workbench:
        """What a second model runs on; the same one for all runs of this workbench.

        :raises ConfigError: it has no endpoint, no price where there is a budget in dollars, or is the first model.
        """
        if self._second is None:
            endpoint, config = second_model(self.endpoint, self.model_name, self.second_config)
            self._second = Workbench(
                endpoint=endpoint, model_name=endpoint.model, config=config, transport=self._transport,
                store=self.store, tokenizer=self._tokenizer, run_sync=self.run_sync, allow_change=True, first=self,
            )  # fmt: skip
        return self._second

    def _open_second(self, run: Run, own: Run) -> Second:
        """The pipeline of the second model's part of a run."""
        second = self.second()
        below, failures = self._for_second(second)
        counters = Counters()
        return Second(
            pipeline=second.pipeline(own, inputs=Inputs.HANDED_ON, counters=counters),
            log=EscalationLog(
                model=second.model_name, below=below, failures=failures, prices=second.config.prices, counters=counters
            ),
            first_model=self.model_name,
            end=partial(second.end, own),
        )

    def gold(
        self, task: Task, raws: Iterable[RawRecord] | None, *, name: str = "gold", field: str | None = None,
        keeps_answers: bool = True,
    ) -> GoldSet | None:  # fmt: skip
        """Records with known answers, read and checked; see `gold_set.make_gold_set`. None: there are none."""
        if raws is None:
            return None
        return make_gold_set(
            raws, task, self.prepare(task), name=name, field=field, on_bad_record=self.config.on_bad_record,
            keeps_answers=keeps_answers,
        )  # fmt: skip

    def prepare(self, task: Task, *, each_alone: bool = False) -> Prepare:
        """A function from a record as read to one that can be asked about, its tokens counted."""
        read, count = RecordReader(task, each_alone=each_alone).read, self._tokenizer.count

        def prepare(raw: RawRecord) -> Record | BadRecord:
            record = read(raw)
            if isinstance(record, BadRecord):
                return record
            tokens = count(input_text(record.input)) + ENTRY_TOKENS
            return msgspec.structs.replace(record, input_tokens=tokens)

        return prepare


def task_key(task: Task) -> str:
    """What makes a task another task: everything that changes what is asked or may be answered."""
    asked = {
        name: getattr(task, name)
        for name in ("instructions", "labels", "multiple", "fields", "abstain", "examples", "template")
    }
    # Forms that came later are named where they are used, so that stores of before them are known again.
    asked |= {name: value for name in LATER_FORMS if (value := getattr(task, name)) != getattr(_PLAIN_TASK, name)}
    return hashlib.blake2b(msgspec.json.encode(asked), digest_size=16).hexdigest()


def _effort(endpoint: Endpoint) -> str | None:
    """What is asked for, of how much to think; the user's own keys of the body count more."""
    asked = endpoint.extra_body.get("reasoning_effort", endpoint.reasoning_effort)
    return asked if isinstance(asked, str) else None


def _expected_output(task: Task, prompt: Prompt, tokenizer: Tokenizer) -> float:
    tokens = _FRAME_TOKENS + (_STARTS_TOKENS if prompt.form == "keyed" else 0) + (WHY_TOKENS if task.reason else 0)
    for name, field in task.variables.items():
        tokens += tokenizer.count(f'"{name}":,') if name else 0
        if field.type is FieldType.LABEL:
            tokens += max(tokenizer.count(label) for label in [*field.labels, task.abstain or ""]) + 1
        elif field.type in (FieldType.BOOLEAN, FieldType.INTEGER, FieldType.NUMBER):
            tokens += _NUMBER_TOKENS
        else:
            tokens += _TEXT_TOKENS
    return tokens * _PRIOR_SLACK


def with_environment_key(endpoint: Endpoint) -> Endpoint:
    """The endpoint with the key from the environment (see `key_file.key_for`), unless it has one."""
    found = None if endpoint.api_key is not None else key_for(endpoint.base_url, os.environ)
    return endpoint if found is None else msgspec.structs.replace(endpoint, api_key=found.key)


@contextlib.asynccontextmanager
async def open_workbench(
    endpoint: Endpoint | None,
    config: RunConfig,
    *,
    store: str | os.PathLike[str] | None = None,
    model_path: str | None = None,
    embedded: Endpoint | None = None,
    allow_change: bool = False,
    transport: Transport | None = None,
    run_sync: RunSync = in_thread,
    traffic: Traffic | None = None,
) -> AsyncIterator[Workbench]:
    """Open store, connection and, without an endpoint, the embedded model; close them when the block ends.

    :param store: the run store's file; None keeps answers for this process only.
    :param embedded: how the embedded model is asked: temperature, extra body, timeout; its address is filled in.
    :param transport: in place of HTTP, for tests.
    :param traffic: shared with other workbenches on the same endpoint; None: one of its own.
    :raises ConfigError: something in the configuration is wrong, or a part is not installed.
    """
    check_config(config)
    config = wanted = priced(config, endpoint)  # the second model need not fit into the embedded one
    async with contextlib.AsyncExitStack() as stack:
        if endpoint is None:
            local = await stack.enter_async_context(local_model(model_path))
            endpoint = msgspec.structs.replace(
                embedded or EMBEDDED, base_url=local.base_url, model=LOCAL_MODEL_NAME, exact_count=True
            )
            config, model_name = fitted(config, slots=local.slots, context_tokens=local.context_tokens), local.name
        else:
            endpoint, model_name = with_environment_key(endpoint), endpoint.model
        opened = await run_sync(lambda: temporary_store() if store is None else open_store(store))
        stack.callback(opened.close)
        if transport is None:
            transport = await stack.enter_async_context(HttpTransport(max_connections=config.limits.most_in_flight + 1))
        tokenizer = await run_sync(lambda: TiktokenCounter(model_name))
        bench = Workbench(
            endpoint=endpoint,
            model_name=model_name,
            config=config,
            transport=transport,
            store=opened,
            tokenizer=tokenizer,
            run_sync=run_sync,
            allow_change=allow_change or store is None,  # what is kept for this process alone may hold many tasks
            traffic=traffic,
        )
        if config.escalation is not None:
            bench.second_config = wanted
            bench.second()  # what is wrong with it is said before anything is read
        yield bench


def fitted(config: RunConfig, *, slots: int, context_tokens: int = CONTEXT_TOKENS) -> RunConfig:
    """A configuration that the embedded model can take: no more requests than slots, no more tokens than context."""
    output = min(config.packing.max_output_tokens, context_tokens // 3)
    packing = msgspec.structs.replace(
        config.packing,
        # Its tokenizer makes more tokens of a text than ours: leave room.
        max_input_tokens=min(config.packing.max_input_tokens, int((context_tokens - output) / 1.25)),
        max_output_tokens=output,
    )
    limits = msgspec.structs.replace(config.limits, max_concurrency=min(config.limits.most_in_flight, slots))
    return msgspec.structs.replace(config, packing=packing, limits=limits)
