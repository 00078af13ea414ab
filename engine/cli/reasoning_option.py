"""The option with which people say how much a model thinks before it answers."""

from __future__ import annotations

import click


def reasoning_tokens(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    """``N`` or ``N,M``: tokens of a request, and of each record in it."""
    if value is None:
        return None
    call, _, record = value.partition(",")
    try:
        numbers = float(call), float(record or 0)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not of the form N or N,M, such as 800,40") from None
    if not all(0 <= number < 1e9 for number in numbers):
        raise click.BadParameter(f"{value!r}: tokens are numbers from 0 up")
    return numbers
