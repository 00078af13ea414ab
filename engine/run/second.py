"""From configuration to the second model's part of a run: its endpoint, its key, its prices."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import msgspec

from engine.adapters.key_file import KEY_FILE_VARIABLE, key_for
from engine.adapters.providers.known import KEY_VARIABLE, provider_at
from engine.run.prices import priced
from engine.vocabulary.config import Endpoint, RunConfig
from engine.vocabulary.errors import ConfigError

SECOND_KEY_VARIABLE = "ANNOTATE_ESCALATE_API_KEY"
_FILL_S = 5.0  # that a batch may take to fill: records come one by one, and nobody waits for a single one


def second_model(first: Endpoint, first_model: str, config: RunConfig) -> tuple[Endpoint, RunConfig]:
    """How the second model is asked: as the first, but for what is its own.

    :raises ConfigError: it has no endpoint, no price where there is a budget in dollars, or is the first model.
    """
    escalation = config.escalation
    if escalation is None:
        raise ConfigError("there is no second model")
    if escalation.model == first_model:
        raise ConfigError(
            f"--escalate-model names {first_model!r}, the model that is unsure; name another, or leave it out"
        )
    if escalation.base_url is None and first.base_url and first.model != first_model:  # the embedded one
        raise ConfigError("the embedded model cannot be followed without an endpoint: give --escalate-base-url")
    endpoint = msgspec.structs.replace(first, model=escalation.model)
    if escalation.base_url is not None and escalation.base_url != first.base_url:
        endpoint = _elsewhere(first, endpoint, escalation.base_url)
    packing = config.packing
    if config.target_p95_s is None:
        packing = msgspec.structs.replace(packing, max_wait_s=max(packing.max_wait_s, _FILL_S))
    own = msgspec.structs.replace(
        config, escalation=None, votes=1, confidence="votes", prices=escalation.prices, packing=packing
    )
    try:
        return endpoint, priced(own, endpoint)
    except ConfigError as error:
        said = str(error).replace("--price-", "--escalate-price-")
        raise ConfigError(f"of the second model: {said}") from None


def _elsewhere(first: Endpoint, second: Endpoint, base_url: str) -> Endpoint:
    """The second model's endpoint, where it is not the first one's.

    The first one's key and headers, which may be keys, go to the same host only. Another has a key of its own.
    """
    ours, theirs = urlsplit(first.base_url), urlsplit(base_url)
    if (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc):  # never from https down to http
        return msgspec.structs.replace(second, base_url=base_url)
    provider = provider_at(base_url)
    environment = {**os.environ, KEY_VARIABLE: os.environ.get(SECOND_KEY_VARIABLE, ""), KEY_FILE_VARIABLE: ""}
    found = key_for(base_url, environment)
    if found is None and provider is not None:
        raise ConfigError(
            f"{provider.name} wants a key for the second model, and none is set in {SECOND_KEY_VARIABLE} or "
            f"{provider.key_variable}; set it with: export {provider.key_variable}=..."
        )
    return Endpoint(
        base_url=base_url,
        model=second.model,
        api_key=None if found is None else found.key,
        temperature=first.temperature,
        connect_timeout_s=first.connect_timeout_s,
        timeout_s=first.timeout_s,
    )
