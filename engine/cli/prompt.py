"""`annotate run --show-prompt`: the first request, word for word, and nothing sent."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import islice
from typing import Any, NoReturn

import anyio
import click
import msgspec

from engine.adapters.files import FileSource
from engine.adapters.local import LOCAL_MODEL_NAME, planned_slots
from engine.cli.console import plain
from engine.cli.options import Settings
from engine.decide.batch_size import DEFAULT_BATCH_SIZE
from engine.decide.estimates import TokenEstimates
from engine.decide.prompts import SALTS, request_ids, request_salt, user_message
from engine.run.compose import Workbench, fitted, open_workbench
from engine.vocabulary.config import Endpoint, RunConfig
from engine.vocabulary.errors import InputError
from engine.vocabulary.task import Task
from engine.vocabulary.values import BadRecord, RawRecord, Record

_MESSAGES = "messages"


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it would be posted.

    :ivar records: in it.
    :ivar static_tokens: of the first message, by our own count; `tokens` of the whole.
    """

    url: str
    document: dict[str, Any]
    records: int
    tokens: int
    static_tokens: int


class _Recorder:
    """A transport that keeps what it is given and sends nothing."""

    def __init__(self) -> None:
        self.url = ""
        self.body = b""

    async def post(
        self, url: str, *, body: bytes, headers: Mapping[str, str], connect_timeout_s: float, timeout_s: float
    ) -> NoReturn:
        """Keep the request."""
        self.url, self.body = url, body
        raise ConnectionError("nothing is sent")


def print_first_request(task: Task, source: FileSource, settings: Settings, *, limit: int | None) -> None:
    """Print the request that holds the first records, on standard output.

    :raises InputError: one of these records cannot be read.
    """
    packing = settings.config.packing
    size = min(packing.batch_size or DEFAULT_BATCH_SIZE, packing.max_batch_size, limit or packing.max_batch_size)
    raws = _first(source, size)
    request = anyio.run(_made, task, raws, source.name, settings)
    _print(request, is_embedded=settings.endpoint is None)


def _first(source: FileSource, count: int) -> list[RawRecord]:
    records = iter(source)
    try:
        return list(islice(records, count))
    finally:
        records.close()


async def _made(task: Task, raws: list[RawRecord], name: str, settings: Settings) -> _Request:
    recorder = _Recorder()
    endpoint, config = _target(settings)
    async with open_workbench(endpoint, config, transport=recorder) as bench:
        return await _posted(bench, recorder, task, _readable(bench, task, raws, name))


def _target(settings: Settings) -> tuple[Endpoint, RunConfig]:
    """The endpoint, or one that stands in for the embedded model, which is not started for this."""
    if settings.endpoint is not None:
        return settings.endpoint, settings.config
    endpoint = msgspec.structs.replace(
        settings.embedded, base_url="http://127.0.0.1/v1", model=LOCAL_MODEL_NAME, exact_count=True
    )
    return endpoint, fitted(settings.config, slots=planned_slots())


def _readable(bench: Workbench, task: Task, raws: list[RawRecord], name: str) -> list[Record]:
    prepare = bench.prepare(task)
    records = []
    for raw in raws:
        record = prepare(raw)
        if isinstance(record, BadRecord):
            raise InputError(f"{name}, line {record.line}: {record.message}")
        records.append(record)
    return records


async def _posted(bench: Workbench, recorder: _Recorder, task: Task, records: list[Record]) -> _Request:
    """What the provider itself makes of these records; as many as a request may hold."""
    asking = bench.plan(task).asking
    packing = bench.config.packing
    estimates = TokenEstimates(static_tokens=asking.static_tokens, prior_output_tokens=asking.output_tokens)
    chosen: list[Record] = []
    entry_tokens = 0
    for record in records:
        if chosen and estimates.input_tokens(entry_tokens + record.input_tokens) > packing.max_input_tokens:
            break
        chosen.append(record)
        entry_tokens += record.input_tokens
    ids = request_ids(request_salt(random.SystemRandom().randrange(SALTS), 1), len(chosen))
    user = user_message((id_, record.input) for id_, record in zip(ids, chosen, strict=True))
    most = estimates.max_output_tokens(len(chosen), 1.0, packing.max_output_tokens)
    await asking.provider.complete(user=user, max_output_tokens=most, items=len(chosen))
    return _Request(
        url=recorder.url,
        document=msgspec.json.decode(recorder.body),
        records=len(chosen),
        tokens=estimates.counted_input(entry_tokens),
        static_tokens=asking.static_tokens,
    )


def _print(request: _Request, *, is_embedded: bool) -> None:
    where = "the embedded model" if is_embedded else request.url
    click.echo(f"# To {where}; nothing was sent. {request.records} records.")
    click.echo(f"# About {request.tokens:,} input tokens, {request.static_tokens:,} of them the same in every request.")
    for name, value in request.document.items():
        if name != _MESSAGES:
            click.echo(f"{name}: {msgspec.json.encode(value).decode()}")
    for message in request.document[_MESSAGES]:
        click.echo(f"\n--- {message['role']} ---\n{plain(message['content'])}")
