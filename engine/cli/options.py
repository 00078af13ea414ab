"""The options that `run` and `retry` share, and what they come to."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from engine.adapters.key_file import key_for
from engine.adapters.prices import read_prices
from engine.adapters.providers.known import KEY_VARIABLE, PROVIDERS, key_variables, provider_at
from engine.cli.logs import LEVELS, Wish
from engine.cli.secrets import body_with_secrets, check_body, header_value
from engine.run.prices import priced
from engine.run.second import SECOND_KEY_VARIABLE
from engine.vocabulary.config import (
    MOST_GOLD,
    Endpoint,
    Escalation,
    Limits,
    Packing,
    Prices,
    Quality,
    Recovery,
    RunConfig,
)
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.prices import PriceTable
from engine.vocabulary.secrets import Secret, secret_parameter, shown_address

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers of the engine's own: the user's spelling must not make a second one of them.
_SPELLINGS = {name.lower(): name for name in ("Authorization", "Content-Type", "Accept", "User-Agent")}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the options come to.

    :ivar endpoint: None for the embedded model.
    :ivar embedded: how the embedded model is asked, but for its address.
    :ivar key_variable: the variable or file where the endpoint's key was found; None if there is none.
    :ivar own_prices: the table that the user names.
    """

    endpoint: Endpoint | None
    embedded: Endpoint
    config: RunConfig
    model_path: str | None
    allow_change: bool
    key_variable: str | None = None
    log: Wish = Wish()
    own_prices: PriceTable | None = None


class _Finite(click.FloatRange):
    """A number, and neither nan nor inf, which pass every comparison or none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


def _json_object(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        document = msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise click.BadParameter(f"not a JSON object: {error}") from None
    check_body(document)
    return document


def _headers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str | Secret]:
    """Never repeats what was given: a header may be a key."""
    headers: dict[str, str | Secret] = {}
    for number, value in enumerate(values, start=1):
        name, separator, content = value.partition("=")
        name = name.strip()
        if not separator or not _HEADER_NAME.fullmatch(name):
            raise click.BadParameter(f"number {number} is not of the form NAME=VALUE, such as X-Team=research")
        if not content.isprintable():
            raise click.BadParameter(f"the value of {name} holds a line end or another control character")
        name = _SPELLINGS.get(name.lower(), name)
        headers[name] = header_value(name, content)
    return headers


def _batch_size(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    try:
        size = int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor auto") from None
    if size < 1:
        raise click.BadParameter("must be at least 1")
    return size


def _base_url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter(f"{shown_address(value)!r} is not a URL like http://localhost:8000/v1")
    is_second = parameter.name == "escalate_base_url"
    if "@" in parts.netloc:
        by_header = "" if is_second else ", or use --header Authorization=env:VARIABLE"
        variable = SECOND_KEY_VARIABLE if is_second else KEY_VARIABLE
        raise click.BadParameter(f"holds a user or a password; give a key in {variable}{by_header}")
    parameter_name = secret_parameter(value)
    if parameter_name is not None:
        raise click.BadParameter(
            f"its parameter {parameter_name} looks like a key, and an address is shown; give the key in "
            + (SECOND_KEY_VARIABLE if is_second else f"{KEY_VARIABLE}, or use --header NAME=env:VARIABLE")
        )
    return value.strip()


_TIMEOUT_S, _EMBEDDED_TIMEOUT_S = 120.0, 600.0  # a model on a CPU takes its time

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--output", "-o", metavar="FILE", help="JSONL, CSV or Parquet by its suffix; - is standard output."),
    click.option("--base-url", callback=_base_url, metavar="URL",
                 help="An OpenAI-compatible endpoint, like http://localhost:8000/v1."),
    click.option("--provider", type=click.Choice(list(PROVIDERS)), help="A hosted API by its name, for its URL."),
    click.option("--model", metavar="NAME", help="The model's name at the endpoint."),
    click.option("--model-path", metavar="FILE", help="A GGUF file for the embedded model."),
    click.option("--rpm", type=_Finite(min=1), metavar="N", help="Requests a minute that are allowed."),
    click.option("--tpm", type=_Finite(min=1), metavar="N", help="Tokens a minute that are allowed."),
    click.option("--itpm", type=_Finite(min=1), metavar="N", help="Input tokens a minute, where they count apart."),
    click.option("--otpm", type=_Finite(min=1), metavar="N", help="Output tokens a minute, where they count apart."),
    click.option("--max-concurrency", type=click.IntRange(min=1), metavar="N",
                 help="Requests in flight at once.  [default: found out, at most 64]"),
    click.option("--batch-size", callback=_batch_size, default="auto", show_default=True, metavar="N|auto",
                 help="Inputs in one request."),
    click.option("--max-batch-size", type=click.IntRange(min=1), metavar="N",
                 help="The most that auto may choose.  [default: 32]"),
    click.option("--objective", type=click.Choice(["records-per-second", "cost"]), default="records-per-second",
                 show_default=True, help="What auto serves."),
    click.option("--target-p95-s", type=_Finite(min=0, min_open=True), metavar="S",
                 help="Answer 95 % of the records within S seconds, by smaller batches and a shorter look-ahead."),
    click.option("--max-disagreement", type=_Finite(0, 1), default=0.10, show_default=True, metavar="SHARE",
                 help="Of labels that may change with their batch, beyond what changes when asked twice."),
    click.option("--no-quality-guard", is_flag=True,
                 help="Let auto look at the format only: labels may go wrong in perfect JSON."),
    click.option("--gold", metavar="FILE",
                 help="Records with known answers, mixed into batches to judge their size by; never in the output."),
    click.option("--gold-field", metavar="NAME",
                 help="Of --gold, the field with the right answer.  [default: label, output or gold]"),
    click.option("--gold-rate", type=_Finite(0, MOST_GOLD, min_open=True), default=0.05, show_default=True,
                 metavar="SHARE", help="Of the records that are sent, those from --gold."),
    click.option("--gold-output", metavar="FILE", help="Write the answers to --gold there, right or wrong, as JSONL."),
    click.option("--votes", type=click.IntRange(min=1), default=1, show_default=True, metavar="K",
                 help="Ask each record up to K times, each time among others; the majority counts."),
    click.option("--votes-stop", type=click.Choice(["decided", "agreed", "never"]), default="decided",
                 show_default=True,
                 help="Ask no more when the majority is sure; or when two answers in a row agree; or after all K."),
    click.option("--confidence", type=click.Choice(["votes", "logprobs"]), default="votes", show_default=True,
                 help="logprobs: also by the probabilities of an answer's tokens, where the endpoint gives them."),
    click.option("--escalate-below", type=_Finite(0, 1, min_open=True), metavar="P",
                 help="Ask a second model about records less sure than P; needs --votes or --confidence."),
    click.option("--escalate-failed", is_flag=True, help="Ask it about records that the first model failed, too."),
    click.option("--escalate-model", metavar="NAME", help="The second model, whose answers then count."),
    click.option("--escalate-base-url", callback=_base_url, metavar="URL", help="Its endpoint.  [default: the same]"),
    click.option("--escalate-price-input", type=_Finite(min=0), metavar="X",
                 help="Of the second model, US dollars per million input tokens."),
    click.option("--escalate-price-output", type=_Finite(min=0), metavar="X", help="... per million output tokens."),
    click.option("--neighbour-guard", type=click.Choice(["off", "watch", "canaries"]), default="watch",
                 show_default=True,
                 help="Against orders in a text that change the labels of others; canaries for data you do not trust."),
    click.option("--max-input-tokens", type=click.IntRange(min=1), default=16_000, show_default=True, metavar="N",
                 help="Of one request."),
    click.option("--max-output-tokens", type=click.IntRange(min=1), default=4_000, show_default=True, metavar="N",
                 help="Of one request."),
    click.option("--look-ahead", type=click.IntRange(min=1), default=512, show_default=True, metavar="N",
                 help="Inputs held while requests are formed."),
    click.option("--store", metavar="FILE", help="The run store.  [default: OUTPUT.store.sqlite]"),
    click.option("--csv-safe", is_flag=True,
                 help="In CSV and TSV, mark cells that a spreadsheet would run as a formula."),
    click.option("--report", metavar="DIR",
                 help="Write report.json and report.html there; those of an earlier run become report-1 and so on."),
    click.option("--warm-prefix/--no-warm-prefix", default=None,
                 help="Send the first request alone, for the prefix cache.  [default: where cached input is cheaper]"),
    click.option("--budget-usd", type=_Finite(min=0, min_open=True), metavar="X",
                 help="Stop before more is spent on this store, over all its runs; an unknown model needs prices."),
    click.option("--budget-tokens", type=click.IntRange(min=1), metavar="N",
                 help="Stop before more input and output tokens are used by this store, over all its runs."),
    click.option("--prices", metavar="FILE",
                 help="A table of prices of your own, in TOML; it wins over the one that ships."),
    click.option("--price-input", type=_Finite(min=0), metavar="X", help="US dollars per million input tokens."),
    click.option("--price-output", type=_Finite(min=0), metavar="X", help="US dollars per million output tokens."),
    click.option("--price-cached", type=_Finite(min=0), metavar="X",
                 help="... per million input tokens read from a cache."),
    click.option("--price-cache-write", type=_Finite(min=0), metavar="X",
                 help="... per million input tokens written into a cache, where that costs more than other input."),
    click.option("--timeout-s", type=_Finite(min=0, min_open=True), metavar="X",
                 help="For one HTTP attempt.  [default: 120; embedded model: 600]"),
    click.option("--retry-failed", is_flag=True, help="Ask again for records that failed in an earlier run."),
    click.option("--max-failed", type=_Finite(0, 1), default=0.2, show_default=True, metavar="SHARE",
                 help="Stop when more of the records fail."),
    click.option("--attempts", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
                 help="Asks of a record by itself before it is failed."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N",
                 help="Only the first N records; refused where the output holds others already."),
    click.option("--temperature", type=_Finite(min=0), default=0.0, show_default=True, metavar="X"),
    click.option("--reasoning-effort", type=click.Choice(["none", "minimal", "low", "medium", "high"]),
                 help="How much the model is to think before it answers; what it thinks is paid for as output."),
    click.option("--extra-body", callback=_json_object, metavar="JSON", help="Merged into every request body."),
    click.option("--header", "headers", multiple=True, callback=_headers, metavar="K=V",
                 help="May be repeated. A key is no VALUE: say where it is, K=env:VARIABLE or K=file:PATH."),
    click.option("--key-file", metavar="FILE",
                 help="The file that holds the key; nobody else may read it.  [default: ANNOTATE_API_KEY_FILE]"),
    click.option("--log-json", is_flag=False, flag_value="-", metavar="[FILE]",
                 help="Log events as JSON, one a line, to FILE or to standard error."),
    click.option("--log-level", type=click.Choice(LEVELS),
                 help="How much is logged; without --log-json as text on standard error.  [default: info]"),
    click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the shuffled look-ahead."),
    click.option("--answer-form", type=click.Choice(["auto", "compact", "keyed"]), default="auto", show_default=True,
                 help="keyed: each result repeats the first words of its input."),
    click.option("--on-bad-record", type=click.Choice(["stop", "fail-record"]), default="stop", show_default=True,
                 help="What a record that cannot be read does to the run."),
    click.option("--no-dedup", is_flag=True, help="Ask identical inputs each for itself."),
    click.option("--allow-change", is_flag=True, help="Use a store that holds answers of another task or model."),
]  # fmt: skip


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `run` and `retry` share."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_settings(options: dict[str, Any]) -> Settings:
    """Endpoint and configuration from the options of the command line.

    :raises click.UsageError: options that do not go together.
    """
    base_url, provider, model = options["base_url"], options["provider"], options["model"]
    if base_url is None and provider is not None:
        base_url = PROVIDERS[provider].base_url
    if base_url is None and model is not None:
        raise click.UsageError(
            "--model needs --base-url or --provider; without all three, the small embedded model is used"
        )
    if base_url is not None and model is None:
        raise click.UsageError("--base-url and --provider need --model")
    if base_url is not None and options["model_path"] is not None:
        raise click.UsageError(
            "--model-path is for the embedded model; leave it out, or leave out --base-url and --provider"
        )
    found = None if base_url is None else key_for(base_url, os.environ, key_file=options["key_file"])
    asked = Endpoint(
        base_url=base_url or "",
        model=model or "",
        api_key=found.key if found else None,
        headers=options["headers"],
        extra_body=body_with_secrets(options["extra_body"]),
        temperature=options["temperature"],
        reasoning_effort=options["reasoning_effort"],
        timeout_s=options["timeout_s"] or (_EMBEDDED_TIMEOUT_S if base_url is None else _TIMEOUT_S),
    )
    endpoint = None if base_url is None else asked
    own = None if options["prices"] is None else read_prices(options["prices"])
    return Settings(
        endpoint=endpoint,
        embedded=asked,
        config=priced(_config(options), endpoint, own=own),
        model_path=options["model_path"],
        allow_change=options["allow_change"],
        key_variable=found.variable if found else None,
        log=Wish(json=options["log_json"], level=options["log_level"]),
        own_prices=own,
    )


def check_key(settings: Settings) -> None:
    """A hosted provider without a key would refuse the first request: say so before anything is opened.

    Other addresses may want none, or take it in a header of their own, so they are asked.

    :raises ConfigError: it is a known provider's own host, and neither a key nor a header with one is given.
    """
    endpoint = settings.endpoint
    provider = None if endpoint is None else provider_at(endpoint.base_url)
    if endpoint is None or provider is None or endpoint.api_key is not None:
        return
    if any("authorization" in name.lower() or "key" in name.lower() for name in endpoint.headers):
        return
    ours, theirs = key_variables(endpoint.base_url)
    raise ConfigError(
        f"{provider.name} wants a key, and none is set in {ours} or {theirs}; set it with: export {theirs}=... "
        "or give --key-file FILE"
    )


def _config(options: dict[str, Any]) -> RunConfig:
    return RunConfig(
        limits=Limits(
            requests_per_minute=options["rpm"],
            tokens_per_minute=options["tpm"],
            input_tokens_per_minute=options["itpm"],
            output_tokens_per_minute=options["otpm"],
            max_concurrency=options["max_concurrency"],
        ),
        packing=Packing(
            batch_size=options["batch_size"],
            max_batch_size=_max_batch_size(options["batch_size"], options["max_batch_size"]),
            max_input_tokens=options["max_input_tokens"],
            max_output_tokens=options["max_output_tokens"],
            look_ahead=options["look_ahead"],
            deduplicate=not options["no_dedup"],
        ),
        quality=Quality(
            guard=not options["no_quality_guard"],
            max_disagreement=options["max_disagreement"],
            neighbours=options["neighbour_guard"],
            gold_rate=options["gold_rate"],
        ),
        objective=options["objective"],
        target_p95_s=options["target_p95_s"],
        recovery=Recovery(lone_attempts=options["attempts"], max_failed=options["max_failed"]),
        prices=_prices(options),
        budget_usd=options["budget_usd"],
        budget_tokens=options["budget_tokens"],
        votes=options["votes"],
        votes_stop=options["votes_stop"],
        confidence=options["confidence"],
        escalation=_escalation(options),
        answer_form=options["answer_form"],
        warm_prefix=options["warm_prefix"],
        on_bad_record=options["on_bad_record"],
        retry_failed=options["retry_failed"],
        seed=options["seed"],
    )


def _max_batch_size(batch_size: int | None, most: int | None) -> int:
    if most is None:
        return max(Packing().max_batch_size, batch_size or 0)
    if batch_size is not None and batch_size > most:
        raise click.UsageError(f"--batch-size {batch_size} is above --max-batch-size {most}; leave one of them out")
    return most


def _escalation(options: dict[str, Any]) -> Escalation | None:
    below, failed, model = options["escalate_below"], options["escalate_failed"], options["escalate_model"]
    more = [name for name in ("base_url", "price_input", "price_output") if options[f"escalate_{name}"] is not None]
    if not (below is not None or failed or model is not None or more):
        return None
    if model is None or not (below is not None or failed):
        raise click.UsageError("--escalate-model goes together with --escalate-below or --escalate-failed")
    given = options["escalate_price_input"], options["escalate_price_output"]
    if (given[0] is None) != (given[1] is None):
        raise click.UsageError("--escalate-price-input and --escalate-price-output go together")
    prices = None if given[0] is None else Prices(input=given[0], output=given[1])
    return Escalation(
        below=below, failed=failed, model=model, base_url=options["escalate_base_url"], prices=prices
    )  # fmt: skip


def _prices(options: dict[str, Any]) -> Prices | None:
    given = options["price_input"], options["price_output"]
    if given == (None, None):
        return None
    if None in given:
        raise click.UsageError("--price-input and --price-output go together")
    return Prices(
        input=options["price_input"], output=options["price_output"], cached_input=options["price_cached"],
        cache_write=options["price_cache_write"],
    )  # fmt: skip
