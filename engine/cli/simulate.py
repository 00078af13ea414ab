"""`annotate simulate`: an endpoint without a model, that can fail in every way, to try things out on."""

from __future__ import annotations

import errno
import ipaddress
import json
from pathlib import Path
from typing import Any

import anyio
import click
from click.core import ParameterSource

from engine.adapters.files.atomic import replacing
from engine.cli.console import UNWRITABLE
from engine.cli.exits import ALL_ANNOTATED
from engine.cli.interrupts import Interrupts
from engine.testing.simulator.command import BEHAVIOURS, LATENCIES, SimulatorConfig, build_endpoint
from engine.testing.simulator.endpoint import SimulatedEndpoint
from engine.testing.simulator.profiles import PROFILES, named_profile
from engine.testing.simulator.rates import ALL_FAULTS, FaultRates, Rate
from engine.testing.simulator.server import serving
from engine.vocabulary.errors import ConfigError


def _faults(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    rates = {}
    for value in values:
        name, separator, number = value.partition("=")
        if name not in ALL_FAULTS:
            raise click.BadParameter(f"there is no fault {name!r}; known: {', '.join(ALL_FAULTS)}")
        try:
            rate = float(number)
        except ValueError:
            rate = -1.0
        if not separator or not 0 <= rate <= 1:
            raise click.BadParameter(f"{value!r} is not of the form NAME=RATE with a rate from 0 to 1")
        rates[name] = rate
    return rates


def _labels(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(label.strip() for label in (value or "").split(",") if label.strip())


def _list_profiles(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    for profile in PROFILES.values():
        click.echo(f"{profile.name:<22} {profile.origin:<9} {profile.says}")
        if profile.evidence:
            click.echo(f"{'':<32} ({profile.evidence})")
    context.exit()


@click.command("simulate")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    metavar="NAME",
    help="A whole set-up by name; the options given beside it change it.",
)
@click.option(
    "--list-profiles",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_profiles,
    help="Say which profiles there are, and whether they are measured or made up.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="0 takes a free one.")
@click.option("--labels", callback=_labels, metavar="A,B,...", help="For requests whose schema names no labels.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option("--latency", type=click.Choice(["fixed", *LATENCIES]), default="fixed", show_default=True)
@click.option(
    "--delay-s",
    type=click.FloatRange(0, 3600),
    default=0.05,
    show_default=True,
    metavar="X",
    help="The latency of `fixed`.",
)
@click.option("--behaviour", type=click.Choice(list(BEHAVIOURS)), help="How answers suffer in larger batches.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_faults,
    metavar="NAME=RATE",
    help=f"May be repeated: {', '.join(ALL_FAULTS)}.",
)
@click.option("--all-faults", type=click.FloatRange(0, 1), metavar="RATE", help="All but the last seven of them.")
@click.option(
    "--strike",
    default="every",
    show_default=True,
    metavar="every|first_sends=N",
    help="Whether faults may strike a record at every send.",
)
@click.option(
    "--mode",
    default="normal",
    show_default=True,
    metavar="NAME",
    help="normal, never_format, always_400, stale, echo_items or swap.",
)
@click.option("--poison-marker", metavar="TEXT", help="Records that contain it are never answered.")
@click.option("--rpm", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Requests a minute.")
@click.option("--tpm", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Tokens a minute.")
@click.option("--rps", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Requests a second, besides.")
@click.option("--output-cap", type=click.IntRange(min=1), metavar="N", help="No reply has more tokens.")
@click.option("--answers-seed", type=int, default=0, metavar="N", help="Draws the right answers anew.")
@click.option("--max-concurrency", type=click.IntRange(min=1), metavar="N", help="Requests at once; more get a 429.")
@click.option("--context-tokens", type=click.IntRange(min=1), metavar="N", help="The context limit.")
@click.option(
    "--schema-support",
    type=click.Choice(["json_schema", "json_object", "none"]),
    default="json_schema",
    show_default=True,
)
@click.option("--model", metavar="NAME", help="The only model that it knows.")
@click.option("--api-key", metavar="KEY", help="The key that it wants; not a real one.")
@click.option("--ledger", type=click.Path(dir_okay=False), metavar="FILE", help="At the end, write there what came.")
def simulate_command(
    host: str,
    port: int,
    profile: str | None,
    labels: tuple[str, ...],
    faults: dict[str, float],
    all_faults: float | None,
    ledger: str | None,
    **options: Any,
) -> int:
    """Serve a simulated endpoint of OpenAI's shape until Ctrl-C. Its base URL is the first line of standard output.

    Nothing is asked of a model: answers are drawn from the texts, always the same for the same text.
    """
    rates = {**(FaultRates.all(all_faults).rates if all_faults else {}), **faults}
    try:
        endpoint = build_endpoint(_config(profile, rates, {"labels": labels, **options}))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if ledger is not None:
        _write_ledger(ledger, endpoint)  # a file that cannot be written is known now
    try:
        anyio.run(_serve, endpoint, host, port)
    except OSError as error:
        if error.errno in (*UNWRITABLE, errno.EPIPE):
            raise  # of standard output, and not of the port
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror or error}; try another --port") from None
    finally:
        if ledger is not None:
            _write_ledger(ledger, endpoint)
    return ALL_ANNOTATED


_OPEN = "annotate: {} is not this machine alone: whoever reaches it may use this endpoint; leave --host out to be alone"


def _is_loopback(host: str) -> bool:
    """A name that is not known to be this machine's own may be any."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _config(profile: str | None, faults: dict[str, Rate], options: dict[str, Any]) -> SimulatorConfig:
    """The set-up: that of a profile, changed by what was given on the command line."""
    if profile is None:
        return SimulatorConfig(faults=faults, **options)
    source = click.get_current_context().get_parameter_source
    given = {name: value for name, value in options.items() if source(name) is not ParameterSource.DEFAULT}
    settings = named_profile(profile).settings
    for name in ("faults", "schema_faults"):
        if faults and settings.get(name) is not None:
            given[name] = {**settings[name], **faults}
    return named_profile(profile).config(**{"faults": {**settings.get("faults", {}), **faults}, **given})


async def _serve(endpoint: SimulatedEndpoint, host: str, port: int) -> None:
    interrupts = Interrupts()
    failure: OSError | None = None
    async with anyio.create_task_group() as tasks:
        interrupts.call(tasks.cancel_scope.cancel)
        await tasks.start(interrupts.watch)
        try:
            async with serving(endpoint, host=host, port=port) as base_url:
                click.echo(base_url)
                click.echo("a simulated endpoint; Ctrl-C ends it", err=True)
                if not _is_loopback(host):
                    click.echo(_OPEN.format(host), err=True)
                await anyio.sleep_forever()
        except OSError as error:
            failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _write_ledger(path: str, endpoint: SimulatedEndpoint) -> None:
    try:
        with replacing(Path(path)) as stream:
            stream.write((json.dumps(endpoint.ledger.as_dict(), indent=2) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"--ledger: {path} cannot be written: {error.strerror}") from None
