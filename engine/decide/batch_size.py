"""How many records a request should hold. Fixed for now; the adaptive controller takes this place."""

from __future__ import annotations

DEFAULT_BATCH_SIZE = 5
"""Modest on purpose: most of the saving is there (75 % of the input at 5 examples), little of the damage."""


class FixedBatchSize:
    """Always the same number of records."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __repr__(self) -> str:
        return f"FixedBatchSize({self._size})"

    def size(self) -> int:
        """Records that the next request should hold, at the most."""
        return self._size
