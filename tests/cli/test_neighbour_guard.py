"""`--neighbour-guard`: what it comes to."""

from __future__ import annotations

from typing import Any

import click
import pytest

from engine.cli.options import Settings, run_options, run_settings


@pytest.mark.parametrize(
    ("words", "mode"),
    [([], "watch"), (["--neighbour-guard", "off"], "off"), (["--neighbour-guard", "canaries"], "canaries")],
)
def test_the_guard_is_on_unless_told_otherwise(words: list[str], mode: str) -> None:
    """The default watches."""
    found: list[Settings] = []

    @click.command()
    @run_options
    def probe(**options: Any) -> None:
        found.append(run_settings(options))

    probe.main(words, standalone_mode=False)
    assert found[0].config.quality.neighbours == mode
