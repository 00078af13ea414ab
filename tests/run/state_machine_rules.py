"""What the state machines draw from, and the rules that they share: what an endpoint may do, time, and death."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from state_machine_books import check_killed
from state_machine_replies import FATAL, KINDS, MILD, Move, text_of
from state_machine_world import World

from engine import Limits, Packing, RunConfig
from engine.vocabulary.config import Prices, Quality, Recovery

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "")
LONG = PROFILE == "long"
TIMES = int(os.environ.get("HYPOTHESIS_TIMES", "25" if LONG else "1"))
"""How many times the examples of a plain run: 25 in the long profile take hours on a busy machine."""

moves = st.builds(Move, kind=st.sampled_from(KINDS), pick=st.integers(0, 255))
mild = st.builds(Move, kind=st.sampled_from(MILD), pick=st.integers(0, 255))
steps = st.sampled_from((0, 0, 1, 2, 3, 5, 8, 13, 25))
seconds = st.sampled_from((0.0, 0.0, 0.001, 0.005, 0.05, 0.4, 2.0, 31.0, 130.0))

configs = st.fixed_dictionaries(
    {
        "size": st.sampled_from((1, 2, 3, 4, 6, 6, None)),
        "window": st.integers(1, 4),
        "ahead": st.sampled_from((1, 3, 8, 30)),
        "wait_s": st.sampled_from((0.0, 0.05)),
        "form": st.sampled_from(("compact", "compact", "keyed", "auto")),
        "bad": st.sampled_from(("stop", "fail-record", "fail-record")),
        "lone": st.integers(1, 3),
        "sends": st.integers(1, 3),
        "retry": st.booleans(),
        "dedup": st.sampled_from((True, True, True, False)),
        "guard": st.booleans(),
        "budget": st.sampled_from((None, None, None, 0.01)),
        "seed": st.integers(0, 3),
        "votes": st.sampled_from((1, 1, 1, 2, 3)),
        "suffice": st.sampled_from(("decided", "agreed", "never")),
    }
)


def make_config(of: dict[str, Any]) -> RunConfig:
    """Small in everything, so that every bound is met."""
    return RunConfig(
        packing=Packing(
            batch_size=of["size"],
            max_batch_size=6,
            look_ahead=of["ahead"],
            max_wait_s=of["wait_s"],
            deduplicate=of["dedup"],
        ),
        limits=Limits(max_concurrency=of["window"]),
        recovery=Recovery(lone_attempts=of["lone"], transport_attempts=of["sends"], max_failed=1.0, backoff_cap_s=4.0),
        quality=Quality(guard=of["guard"]),
        prices=Prices(input=1.0, output=4.0),
        budget_usd=of["budget"],
        answer_form=of["form"],
        on_bad_record=of["bad"],
        retry_failed=of["retry"],
        votes=of["votes"] if of["size"] != 1 else 1,  # alone it would be asked the same again: that is refused
        votes_stop=of["suffice"],
        seed=of["seed"],
    )


corpora = st.fixed_dictionaries(
    {
        "count": st.one_of(*[st.integers(0, 30)] * 5, st.just(250)),  # the last is more than may be read ahead
        "first_id": st.integers(0, 40),
        "texts": st.sampled_from((1, 3, 7, 16, 24)),
        "shift": st.integers(0, 23),
        "turned": st.booleans(),
        "spoilt": st.sampled_from((None, None, None, "twice", "empty", "true", "lacking", "number", "bytes")),
        "source": st.sampled_from(("list", "iterator", "iterator", "async", "slow", "broken")),
    }
)


def make_corpus(corpus: dict[str, Any]) -> tuple[list[Any], list[Any], list[str | None]]:
    """Records as they are given, the ids that their results must have, and their texts (None: unusable)."""
    count, shift, modulus = corpus["count"], corpus["shift"], corpus["texts"]
    ids: list[Any] = [f"r{(corpus['first_id'] + number) % max(60, count)}" for number in range(count)]
    texts: list[str | None] = [text_of((number * 5 + shift) % modulus) for number in range(count)]
    if corpus["turned"]:
        ids.reverse()
        texts.reverse()
    records: list[Any] = [{"id": id_, "text": text} for id_, text in zip(ids, texts, strict=True)]
    if corpus["spoilt"] and count > 1:
        at = 1 + shift % (count - 1)
        texts[at] = None
        records[at], ids[at] = {
            "twice": ({"id": ids[0], "text": "whatever"}, ids[0]),
            "empty": ({"id": " ", "text": "x"}, None),
            "true": ({"id": True, "text": "x"}, None),
            "lacking": ({"text": "x"}, None),
            "number": (7, None),
            "bytes": ({"id": "bytes", "text": b"x"}, "bytes"),
        }[corpus["spoilt"]]
    return records, ids, texts


class Driven(RuleBasedStateMachine):
    """An engine whose endpoint, clock and end are in the hands of Hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()

    def make_world(self) -> World:
        return World()

    @property
    def is_open(self) -> bool:
        return self.world.host is not None

    # -- what the endpoint does ----------------------------------------------------------------------------------

    @precondition(lambda self: self.world.waiting)
    @rule(chosen=st.lists(moves, min_size=1, max_size=4), newest=st.booleans(), between=steps, after=steps)
    def answer(self, chosen: list[Move], newest: bool, between: int, after: int) -> None:
        for move in chosen:
            waiting = self.world.waiting
            if waiting:
                self.world.end(waiting[-1 if newest else 0], move)
                self.world.go(steps=between)
        self.world.go(steps=after)

    @precondition(lambda self: self.world.waiting)
    @rule(chosen=st.lists(mild, min_size=1, max_size=3), wait=steps)
    def answer_everything(self, chosen: list[Move], wait: int) -> None:
        for number, asked in enumerate(self.world.waiting):
            self.world.end(asked, chosen[number % len(chosen)])
        self.world.go(steps=10, seconds=0.02)
        self.world.go(steps=wait)

    @precondition(lambda self: self.world.waiting)
    @rule(kind=st.sampled_from(FATAL))
    def answer_fatally(self, kind: str) -> None:
        self.world.end(self.world.waiting[0], Move(kind))
        self.world.go(steps=3)

    @precondition(lambda self: self.is_open)
    @rule(chosen=st.lists(moves, max_size=6))
    def answer_by_itself(self, chosen: list[Move]) -> None:
        self.world.autopilot = [Move("honest"), *chosen] if chosen else []
        self.world.go(steps=5, seconds=0.05)

    @precondition(lambda self: self.is_open)
    @rule(steps=steps, seconds=seconds)
    def time_passes(self, steps: int, seconds: float) -> None:
        self.world.go(steps=steps, seconds=seconds)

    @precondition(lambda self: self.is_open)
    @rule(wait=steps)
    def kill(self, wait: int) -> None:
        self.world.go(steps=wait)
        self.world.kill()
        check_killed(self.world)


def profile(examples: int) -> settings:
    """The same examples every time, within seconds; in the long profile others every time, and many more.

    The profile ``hunt`` does not shrink what it finds: to see only whether a mutation is found.
    """
    return settings(
        max_examples=TIMES * examples,
        stateful_step_count=40 if LONG else 25,
        deadline=None,
        derandomize=PROFILE not in ("long", "explore"),
        print_blob=True,
        report_multiple_bugs=False,
        phases=[Phase.generate] if PROFILE == "hunt" else [phase for phase in Phase if phase is not Phase.explain],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
