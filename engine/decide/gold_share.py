"""How many requests, counted as lone asks, a run comes to: lone asks of gold get a share of them.

See docs/design/gold.md.
"""

from __future__ import annotations

import msgspec

LEAST_WEIGHT = 0.1
"""Of a lone ask, as a share of what another request takes: it is taken for no cheaper than this."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Of the run so far.

    :ivar requests: other than lone asks of gold, and their `cost`.
    :ivar lone: the mean cost of a lone ask; None while too few are known.
    :ivar entry: what a record more in a request costs.
    """

    requests: int
    cost: float
    lone: float | None
    entry: float


def lone_asks_worth(spent: Spent, *, records_left: float, size: int) -> float:
    """What the run will have taken at its end, where the rest goes in batches of one size.

    :param size: of those batches.
    """
    to_come = records_left / max(1, size)
    requests = spent.requests + to_come
    if not spent.lone:
        return requests
    entry = min(spent.entry, spent.lone)
    batch = spent.lone + (size - 1) * entry  # a lone ask has the static part, and one record
    return min(requests / LEAST_WEIGHT, max(requests, (spent.cost + to_come * batch) / spent.lone))
