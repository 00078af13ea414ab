"""How much a model is to think, in the words that `--reasoning-effort` has: what helps where it thinks too long."""

from __future__ import annotations

_LOW, _LESS = "low", {"low": "minimal", "minimal": "none"}


def less_than(effort: str | None) -> str | None:
    """The next word for less thinking, of those that `--reasoning-effort` has; None where there is none.

    :param effort: that is asked for; None: whatever the model does by itself.
    """
    return None if effort == "none" else _LESS.get(effort or "", _LOW)


def against_long_thoughts(effort: str | None) -> str:
    """What helps where a model is cut while it thinks, as options.

    Not every model takes the words below ``low``: that is said, since a refused one ends a run.
    """
    more = "give it more (--max-output-tokens)"
    less = less_than(effort)
    if less is None:
        return f"{more}; less reasoning than none cannot be asked for"
    where = "" if less == _LOW else ", where the model takes it"
    return f"{more}, or ask for less reasoning (--reasoning-effort {less}{where})"
