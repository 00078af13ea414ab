"""What is advised where a model thinks too long."""

from __future__ import annotations

import pytest

from engine.decide.efforts import against_long_thoughts, less_than


@pytest.mark.parametrize(
    ("effort", "advised"),
    [(None, "low"), ("high", "low"), ("medium", "low"), ("low", "minimal"), ("minimal", "none"), ("xhigh", "low")],
)
def test_less_is_advised_than_is_asked_for(effort: str | None, advised: str) -> None:
    """Never what stands there already."""
    assert less_than(effort) == advised != effort
    assert f"--reasoning-effort {advised}" in against_long_thoughts(effort)


def test_below_none_there_is_only_more_room() -> None:
    """No effort is advised."""
    assert less_than("none") is None
    assert "--reasoning-effort" not in against_long_thoughts("none")
    assert "--max-output-tokens" in against_long_thoughts("none")
