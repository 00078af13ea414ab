"""What the model of each setting costs: its own price, or none."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.run.prices import priced
from engine.tuning.space import Setting
from engine.tuning.trial import Means
from engine.vocabulary.config import Prices
from engine.vocabulary.errors import ConfigError

_SHOWN = 3


def model_prices(settings: Sequence[Setting], means: Means, *, budget_usd: float | None) -> list[Prices | None]:
    """Of each setting's model, from the user's table, the shipped one, or as the user says it.

    :raises ConfigError: one price is said for several models; or a budget in dollars lacks the price of one.
    """
    given = means.config.prices
    models = _models(settings, means)
    if given is not None and given.source is None:
        if len(models) > 1:
            raise ConfigError(
                f"--price-input and --price-output say one price, and the space asks {len(models)} models "
                f"({_listed(models)}); give each its own in a file: --prices FILE"
            )
        return [given] * len(settings)
    found = {model: _price_of(model, means, budget_usd) for model in models}
    if given is not None:
        found[_own(means)] = given
    return [found[setting.model or _own(means)] for setting in settings]


def unpriced(settings: Sequence[Setting], prices: Sequence[Prices | None], means: Means) -> str | None:
    """A note where tokens decide instead of dollars; None where every price is known."""
    lacking = _models([setting for setting, price in zip(settings, prices, strict=True) if price is None], means)
    if not lacking:
        return None
    if len(_models(settings, means)) == 1:
        return "without prices an output token counts as four of input: --price-input, --price-output"
    return (
        f"no price is known of {_listed(lacking)}: settings are compared by tokens, an output token as four of input, "
        "as if all models cost the same; name the prices: --prices FILE"
    )


def _models(settings: Sequence[Setting], means: Means) -> list[str]:
    return list(dict.fromkeys(setting.model or _own(means) for setting in settings))


def _own(means: Means) -> str:
    """The model that is asked where a setting names none."""
    return means.model if means.is_embedded else means.endpoint.model


def _listed(models: Sequence[str]) -> str:
    return ", ".join(models[:_SHOWN]) + (", ..." if len(models) > _SHOWN else "")


def _price_of(model: str, means: Means, budget_usd: float | None) -> Prices | None:
    endpoint = None if means.is_embedded else msgspec.structs.replace(means.endpoint, model=model)
    config = msgspec.structs.replace(means.config, prices=None, budget_usd=budget_usd)
    return priced(config, endpoint, own=means.own_prices).prices
