"""Records whose right output is known, as a search uses them; the run uses them as well, see `decide.gold_records`."""

from __future__ import annotations

from engine.decide.gold_records import Gold, read_gold

__all__ = ["Gold", "read_gold"]
