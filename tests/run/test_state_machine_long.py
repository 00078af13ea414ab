"""The whole pipeline with an adaptive batch size and its audits, over corpora long enough for them.

A script instead of a state machine: audits begin after some hundred answers, which no machine gets to step by step. The
endpoint plays a drawn list of moves over and over, and the run is broken off somewhere in one of the known ways.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from state_machine_books import HONEST, check_killed, ended, finish
from state_machine_replies import Move, text_of
from state_machine_rules import moves, profile
from state_machine_world import World

from engine import Limits, Packing, RunConfig
from engine.vocabulary.config import Prices, Quality, Recovery

TEXTS = 1_600
RECORDS = 1_300

breaks = st.sampled_from(("no", "no", "kill", "cancel", "stop", "timeouts"))


def make_records(count: int, twins: int) -> tuple[list[Any], list[Any], list[str | None]]:
    """Records of which every so many-th text is one that came before."""
    numbers = [number if number % twins else number // 2 for number in range(count)]
    texts: list[str | None] = [text_of(number % TEXTS) for number in numbers]
    ids = [f"r{number}" for number in range(count)]
    return [{"id": id_, "text": text} for id_, text in zip(ids, texts, strict=True)], ids, texts


def make_config(form: Any, window: int, ahead: int, most: int) -> RunConfig:
    return RunConfig(
        packing=Packing(max_batch_size=most, look_ahead=ahead),
        limits=Limits(max_concurrency=window),
        recovery=Recovery(max_failed=1.0, backoff_cap_s=4.0),
        quality=Quality(guard=True),
        prices=Prices(input=1.0, output=4.0),
        answer_form=form,
        retry_failed=True,
    )


@profile(6)
@given(
    played=st.lists(moves, max_size=12),
    honest=st.integers(1, 6),
    form=st.sampled_from(("compact", "auto", "keyed")),
    window=st.integers(1, 6),
    ahead=st.sampled_from((5, 64, 512)),
    most=st.sampled_from((4, 16)),
    twins=st.integers(3, 50),
    broken=breaks,
    at_s=st.sampled_from((0.2, 0.8, 1.5, 3.0)),
)
def test_audits_touch_nothing(
    played: list[Move], honest: int, form: Any, window: int, ahead: int, most: int, twins: int, broken: str, at_s: float
) -> None:
    """With audits under way, whatever happens: every record once and right, and each request an ask or an audit."""
    world = World()
    try:
        world.autopilot = [move for one in played for move in (one, *HONEST * honest)] or HONEST
        records, ids, texts = make_records(RECORDS, twins)
        world.open(make_config(form, window, ahead, most))
        world.annotate("pairs", records, ids, texts, "list")
        world.go(seconds=at_s)
        if broken == "kill":
            world.kill()
            check_killed(world)
        elif broken == "cancel":
            world.broken_off.add(world.engines)
            assert world.host is not None
            world.host.cancel()
            ended(world)
        elif broken == "stop":
            world.stop()
        elif broken == "timeouts":
            world.autopilot = [Move("hang")]
            world.go(seconds=40)
        finish(world)
        world.open(make_config("compact", 4, 64, 8))
        run = world.annotate("pairs", records, ids, texts, "list")
        finish(world)
        assert run.error is None, repr(run.error)
        assert all(result.ok for result in run.results.values())
    finally:
        world.clean_up()
