"""What a report says that minibatches saved, against runs with one record a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting import report_run

from engine.cli.final import _tokens
from engine.report.counted import CountedInput
from engine.report.html import render
from engine.report.saving import once_words
from engine.testing.simulator import made_up, tokens
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.values import Usage
from support import make_config, make_records


@pytest.fixture(params=[0.6, 1.0, 1.7])
def counts_otherwise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """An endpoint whose tokens are others than ours, in every part of a request alike."""
    counted = tokens.prompt_tokens

    def otherwise(*args: Any, **kwargs: Any) -> Any:
        prompt, prefix = counted(*args, **kwargs)
        return round(prompt * request.param), round(prefix * request.param)

    monkeypatch.setattr(tokens, "prompt_tokens", otherwise)
    return float(request.param)


def input_of_lone_asks(folder: Path) -> int:
    """What the endpoint bills where every record is asked once and alone."""
    folder.mkdir()
    alone = report_run(folder, make_records(120), make_config(1))
    assert alone.report.requests.total == 120
    return int(alone.endpoint.ledger.prompt_tokens)


@pytest.mark.parametrize("size", [2, 10])
def test_the_share_that_was_saved_is_the_share_that_was_saved(
    tmp_path: Path, counts_otherwise: float, size: int
) -> None:
    """Beside the endpoint's own bill for the same records one a call, whatever its tokens are."""
    alone = input_of_lone_asks(tmp_path / "alone")
    done = report_run(tmp_path, make_records(120), make_config(size))
    saved = done.report.tokens.saved
    assert saved is not None
    assert saved.share == pytest.approx(1 - done.endpoint.ledger.prompt_tokens / alone, abs=0.025)
    assert saved.once_share is None
    assert done.report.tokens.parts is not None
    calls = done.report.requests.total
    static = (alone - done.endpoint.ledger.prompt_tokens) / (120 - calls)
    assert done.report.tokens.parts.static == pytest.approx(static * calls, rel=0.12)


def test_with_votes_it_is_said_beside_what_it_was_saved(tmp_path: Path, counts_otherwise: float) -> None:
    """The same asks one a call, and each record once and alone: the latter beside the endpoint's own bill for that."""
    alone = input_of_lone_asks(tmp_path / "alone")
    config = msgspec.structs.replace(make_config(10), votes=3, votes_stop="all")
    done = report_run(tmp_path, make_records(120), config, SimulatorConfig(behaviour=made_up.CHANGES))
    saved = done.report.tokens.saved
    assert saved is not None
    assert saved.once_share is not None
    assert saved.once_share == pytest.approx(1 - done.endpoint.ledger.prompt_tokens / alone, abs=0.04)
    assert saved.share > saved.once_share
    assert done.report.votes is not None
    said = " ".join(_tokens(done.report))
    assert "of the input saved against the same asks one record a call, " in said
    assert once_words(saved.once_share) in said
    assert once_words(saved.once_share) in render(done.report)


def test_votes_that_took_more_than_they_saved_are_said_to() -> None:
    """As a share of one ask of each record alone."""
    assert once_words(0.52) == "52.0 % against one ask of each record alone"
    assert once_words(-0.2) == "20.0 % more than one ask of each record alone"


@given(
    st.lists(st.tuples(st.integers(10, 5_000), st.booleans()), max_size=20),
    st.floats(0.5, 2.0),
    st.integers(0, 900),
)
def test_what_is_told_scales_our_count_and_our_own_estimates_do_not(
    calls: list[tuple[int, bool]], ratio: float, ours: int
) -> None:
    """An endpoint that counts all parts alike: its count of the prompt, to a token; before any reply our own."""
    counted = CountedInput()
    for entries, estimated in calls:
        charged = 9 * entries if estimated else round(ratio * (1_000 + entries))
        counted.add(
            1_000 + entries, static=1_000, usage=Usage(input_tokens=charged, output_tokens=1, estimated=estimated)
        )
    is_told = any(not estimated for _, estimated in calls)
    assert counted.static_tokens(ours) == (pytest.approx(1_000 * ratio, abs=2) if is_told else ours)
    assert counted.static_tokens(None) is None


@given(st.floats(1.0, 1.5), st.floats(0.8, 1.2), st.integers(2, 20))
def test_batches_of_unequal_length_tell_what_does_not_grow(static: float, each: float, size: int) -> None:
    """Prompt and records are counted otherwise: within three per cent, where some requests are half as long."""
    counted = CountedInput()
    for number in range(100):
        entries = 50 * size if number % 2 else 25 * size
        usage = Usage(input_tokens=round(400 * static + entries * each), output_tokens=1)
        counted.add(400 + entries, static=400, usage=usage)
    assert counted.static_tokens(0) == pytest.approx(400 * static, rel=0.03)
