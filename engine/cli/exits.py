"""Exit codes (contract)."""

from __future__ import annotations

ALL_ANNOTATED = 0
BUG = 1
WRONG_USAGE = 2
SOME_FAILED = 3
STOPPED = 4
