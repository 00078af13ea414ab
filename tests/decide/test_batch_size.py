"""The adaptive batch size, on a toy endpoint: slots refilled as they come free, and a model that fails by size."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide.batch_size import AdaptiveBatchSize, Allowed, FixedBatchSize, Work, next_below

STATIC, ITEM, OUT = 500, 40, 12
Fails = Callable[[int, int], float]
"""(size, records done so far) -> the chance that a whole batch of the size brings nothing."""


class Toy:
    """Runs a corpus through `window` slots; failed batches are halved, their cost charged to the size aimed at."""

    def __init__(
        self, size: AdaptiveBatchSize | FixedBatchSize, fails: Fails, *, allowed: Allowed, seed: int = 0
    ) -> None:
        self.size, self.fails, self.allowed = size, fails, allowed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.done = self.requests = 0
        self.tokens = 0.0
        self.sizes: list[int] = []

    def run(self, records: int) -> float:
        """Seconds that the corpus took."""
        left, children, in_flight, order = records, [], [], 0
        free_s = 0.0  # when the limits let the next request start
        while left or children or in_flight:
            may_send = (left or children) and len(in_flight) < self.allowed.window
            if may_send and free_s > self.now and (not in_flight or free_s < in_flight[0][0]):
                self.now = free_s
            if may_send and free_s <= self.now:
                if children:
                    origin, size, first = *children.pop(), False
                else:
                    origin = self.size.size()
                    size, first = min(left, origin), True
                    left -= size
                    self.size.note_sent(origin)
                    self.sizes.append(size)
                tokens = STATIC + size * (ITEM + OUT)
                free_s = self.now + max(
                    60 * tokens / (self.allowed.tokens_per_minute or 1e12),
                    60 / (self.allowed.requests_per_minute or 1e12),
                )
                latency_s = (0.2 + 0.0001 * (STATIC + size * ITEM) + 0.01 * OUT * size) * self.rng.lognormvariate(
                    0, 0.15
                )
                order += 1
                heapq.heappush(in_flight, (self.now + latency_s, order, origin, size, first, latency_s))
                self.requests += 1
                self.tokens += tokens
                continue
            self.now, _, origin, size, first, latency_s = heapq.heappop(in_flight)
            failed = self.rng.random() < self.fails(size, self.done)
            if failed and size > 1:
                children += [(origin, size - size // 2), (origin, size // 2)]
            elif failed:
                children.append((origin, 1))
            else:
                self.done += size
            tokens = STATIC + size * (ITEM + OUT)
            self.size.observe(
                Work(
                    origin=origin, first=first, size=size, accepted=0 if failed else size, tokens=tokens,
                    slot_s=latency_s, cost=STATIC + size * (ITEM + 4 * OUT),
                ),
                allowed=self.allowed,
                now=self.now,
            )  # fmt: skip
        return self.now


def never(size: int, done: int) -> float:
    return 0.0


def smoothly(size: int, done: int) -> float:
    return min(0.9, 0.004 * size**1.5)


def cliff(at: int) -> Fails:
    return lambda size, done: 1.0 if size > at else 0.0


def drift(size: int, done: int) -> float:
    return 1.0 if 6_000 < done < 12_000 and size > 3 else 0.0


WINDOW = Allowed(window=8.0)
REQUESTS = Allowed(window=64.0, requests_per_minute=240.0)
TOKENS = Allowed(window=64.0, tokens_per_minute=60_000.0)


def best_fixed(fails: Fails, allowed: Allowed, records: int) -> float:
    return min(
        Toy(FixedBatchSize(size), fails, allowed=allowed).run(records) for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    )


@pytest.mark.parametrize("allowed", [WINDOW, REQUESTS, TOKENS], ids=["window", "requests", "tokens"])
@pytest.mark.parametrize(
    ("fails", "slack"),
    [(never, 1.05), (smoothly, 1.10), (cliff(16), 1.05), (cliff(3), 1.05), (drift, 1.10)],
    ids=["never", "smoothly", "cliff-16", "cliff-3", "drift"],
)
def test_it_does_as_well_as_the_best_fixed_size(fails: Fails, slack: float, allowed: Allowed) -> None:
    """Whatever limit binds and however failures grow with the size, searching included."""
    best_s = best_fixed(fails, allowed, 20_000)
    ratios = []
    for seed in range(3):
        toy = Toy(AdaptiveBatchSize(most=32), fails, allowed=allowed, seed=seed)
        ratios.append(toy.run(20_000) / best_s)
    assert sorted(ratios)[1] <= slack, ratios


def test_it_starts_small_and_grows_only_after_evidence() -> None:
    """The first batches are small, and the next size is tried after some batches have come back, not before three."""
    size = AdaptiveBatchSize(most=32)
    assert size.size() == 2
    for _ in range(2):
        size.observe(make_work(2), allowed=REQUESTS, now=0.0)
        assert size.size() == 2
    for _ in range(8):
        size.observe(make_work(2), allowed=REQUESTS, now=0.0)
    assert size.size() == 4


def make_work(origin: int, *, accepted: int | None = None, slot_s: float = 1.0) -> Work:
    return Work(
        origin=origin, first=True, size=origin, accepted=origin if accepted is None else accepted, tokens=500.0,
        slot_s=slot_s, cost=500.0,
    )  # fmt: skip


def test_it_can_end_at_one() -> None:
    """A model that can answer only one at a time gets one at a time, and bigger sizes are tried less and less."""
    toy = Toy(AdaptiveBatchSize(most=32), cliff(1), allowed=WINDOW)
    toy.run(5_000)
    assert isinstance(toy.size, AdaptiveBatchSize)
    assert toy.size.settled_size == 1
    assert sum(size > 1 for size in toy.sizes[-1_000:]) <= 30


def test_cost_looks_at_cost_only() -> None:
    """Where the prefix costs next to nothing a larger batch saves no money, and is not worth its risk to the labels."""
    size = AdaptiveBatchSize(most=32, objective="cost")
    for _ in range(200):
        origin = size.size()
        size.note_sent(origin)
        work = Work(origin=origin, first=True, size=origin, accepted=origin, tokens=1.0, slot_s=1.0, cost=50.0 * origin)
        size.observe(work, allowed=REQUESTS, now=0.0)
    assert size.binding == "cost"


@given(
    outcomes=st.lists(st.tuples(st.floats(0, 1), st.floats(0.001, 100), st.booleans()), max_size=200),
    most=st.integers(1, 64),
    caps=st.lists(st.one_of(st.none(), st.integers(1, 64)), min_size=1, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_no_outcome_takes_it_out_of_bounds(
    outcomes: list[tuple[float, float, bool]], most: int, caps: list[int | None]
) -> None:
    """Whatever comes back: from 1 to the most, never above the cap, and every move has a reason."""
    size = AdaptiveBatchSize(most=most)
    cap: int | None = None
    for number, (answered, slot_s, holds) in enumerate(outcomes):
        if number % 40 == 39:
            cap = caps[(number // 40) % len(caps)]
            size.cap(cap, reason="labels", now=float(number))
        size.hold(holds)
        origin = size.size()
        assert 1 <= origin <= min(most, cap or most)
        size.note_sent(origin)
        size.observe(
            make_work(origin, accepted=int(answered * origin), slot_s=slot_s), allowed=WINDOW, now=float(number)
        )
    assert all(move.reason and 1 <= move.new <= most for move in size.history)


def test_while_labels_are_not_sure_nothing_larger_is_tried() -> None:
    """A hold keeps the size where it is, and the climb goes on when it ends."""
    size = AdaptiveBatchSize(most=32)
    size.hold(True)
    for _ in range(100):
        assert size.size() == 2
        size.note_sent(2)
        size.observe(make_work(2), allowed=REQUESTS, now=0.0)
    assert size.next_size == 4
    size.hold(False)
    for _ in range(30):
        origin = size.size()
        size.note_sent(origin)
        size.observe(make_work(origin), allowed=REQUESTS, now=1.0)
    assert size.settled_size >= 4


def climbed(size: AdaptiveBatchSize, *, slot_s: Callable[[int], float], batches: int, window: float = 16.0) -> None:
    """So many batches, one after the other, that take so long each and bring everything."""
    allowed, now = Allowed(window=window), 1_000.0
    for _ in range(batches):
        origin = size.size()
        size.note_sent(origin)
        now += slot_s(origin)
        work = Work(
            origin=origin, first=True, size=origin, accepted=origin, tokens=500.0 + 50.0 * origin,
            slot_s=slot_s(origin), cost=1.0,
        )  # fmt: skip
        size.observe(work, allowed=allowed, now=now)


def test_of_sizes_worth_the_same_the_one_with_fewer_tokens_wins() -> None:
    """A hundredth of the time is given up for a prefix that is paid for half as often."""
    size = AdaptiveBatchSize(most=32)
    climbed(size, slot_s=lambda records: 0.1 * records * (1.01 if records > 16 else 1.0), batches=600)
    assert size.settled_size == 32
    assert any("fewer tokens" in move.reason for move in size.history)


def test_ties_give_up_two_hundredths_together() -> None:
    """Each doubling costs 3 %: fewer tokens are not worth that, and several small losses are not taken one by one."""
    size = AdaptiveBatchSize(most=32)
    climbed(size, slot_s=lambda records: 0.1 * records**1.045, batches=600)
    assert size.settled_size <= 4


def test_what_calls_took_at_another_load_is_forgotten() -> None:
    """The first calls, two at a time, are fast: that is not held against the next size."""
    size, allowed = AdaptiveBatchSize(most=32), Allowed(window=2.0)
    for number in range(4):
        size.note_sent(2)
        size.observe(make_work(2, slot_s=0.1), allowed=allowed, now=number * 0.1)
    climbed(size, slot_s=lambda records: 0.3 + 0.3 * records, batches=40)
    assert size.settled_size >= 4


def test_another_way_to_ask_starts_the_climb_again() -> None:
    """What sizes were worth when asked otherwise says nothing; the present size is kept."""
    size = AdaptiveBatchSize(most=32)
    assert size.worth(WINDOW) is None
    climbed(size, slot_s=lambda records: 0.5 + 0.1 * records, batches=60)
    size.cap(4, reason="labels", now=2_000.0)
    assert size.settled_size == 4
    size.restart()
    assert size.worth(WINDOW) is None
    size.cap(None, reason="", now=2_000.0)
    climbed(size, slot_s=lambda records: 0.5 + 0.1 * records, batches=200)
    assert size.settled_size == 32


def test_ties_give_up_no_more_after_another_way_to_ask() -> None:
    """A climb that begins anew has two hundredths to give up, as the first one had: a record takes 1.8 % more of the
    time in threes than in twos, and 3 % more at each doubling."""
    size = AdaptiveBatchSize(most=32)
    climbed(size, slot_s=lambda records: 0.1 * records**1.045, batches=600)
    before = size.settled_size
    size.restart()
    climbed(size, slot_s=lambda records: 0.1 * records**1.045, batches=600)
    assert (size.settled_size / before) ** 0.045 <= 1 / 0.98


@pytest.mark.parametrize("window", [1.0, 2.0, 16.0])
def test_what_was_on_its_way_when_the_climb_began_anew_says_nothing_of_time(window: float) -> None:
    """It was asked the other way, and may have taken any time."""
    worths = []
    for restarts in (True, False):
        size, allowed, now = AdaptiveBatchSize(most=32), Allowed(window=window), 1_000.0
        if restarts:
            for _ in range(2):
                size.observe(make_work(2), allowed=allowed, now=900.0)
            size.restart()
        for number in range(4):
            now += 1.0
            size.observe(make_work(2, slot_s=0.5 if number else 30.0), allowed=allowed, now=now)
        worths.append(size.worth(allowed))
    assert worths[0] == worths[1] is not None


def test_a_size_is_worth_something_once_a_batch_of_it_has_come_back() -> None:
    """And not before: then nobody knows."""
    size = AdaptiveBatchSize(most=32)
    assert size.worth(REQUESTS) is None
    size.observe(make_work(2), allowed=REQUESTS, now=0.0)
    worth = size.worth(REQUESTS)
    assert worth is not None
    assert worth.rate == pytest.approx(2.0 * 240.0 / 60.0)


@given(start=st.integers(1, 300), most=st.integers(1, 1_000))
def test_a_cap_at_the_present_size_changes_nothing(start: int, most: int) -> None:
    """And when it is lifted the climb goes on by doubling."""
    size = AdaptiveBatchSize(most=most, start=start)
    present, following = size.settled_size, size.next_size
    size.cap(present, reason="labels", now=0.0)
    assert (size.settled_size, size.next_size) == (present, present)
    assert size.history == []
    size.cap(None, reason="", now=0.0)
    assert size.next_size == following == min(2 * present, most)


@given(size=st.integers(1, 1_000), most=st.integers(1, 2_000))
def test_whoever_has_stopped_climbing_looks_at_sizes_that_are_near(size: int, most: int) -> None:
    """The next one is larger, by a half at the most or one record, or twice as large beyond all that are kept; and
    never beyond the most."""
    settled = AdaptiveBatchSize(most=4_000, start=size + 1)
    settled.cap(size, reason="labels", now=0.0)  # that ends the climb
    assert settled.settled_size == size
    settled.cap(most, reason="labels", now=0.0)
    following = settled.next_size
    if most <= size:
        assert following == settled.settled_size == most
    else:
        nearest = 2 * size if size >= 256 else max(size + 1, 1.5 * size)
        assert size < following <= min(most, nearest)
        assert following == most or size < 256 or following == 2 * size


def token_bound(size: AdaptiveBatchSize, tokens: Callable[[int], float], *, batches: int) -> list[int]:
    """So many batches that bring everything and take so many tokens, which bind; the sizes that were sent."""
    sent = []
    for _ in range(batches):
        sent.append(origin := size.size())
        size.note_sent(origin)
        work = Work(
            origin=origin, first=True, size=origin, accepted=origin, tokens=tokens(origin), slot_s=1.0, cost=1.0
        )
        size.observe(work, allowed=TOKENS, now=0.0)
    return sent


def test_a_climb_that_was_wrong_is_gone_back_on() -> None:
    """To the size that was worth most, over those between, which are no better than the present one."""
    size = AdaptiveBatchSize(most=32)
    token_bound(size, lambda records: 500.0 + 50.0 * records, batches=400)
    assert size.settled_size == 32
    token_bound(size, lambda records: (500.0 + 50.0 * records) * (1.6 if records > 16 else 1.0), batches=2_000)
    assert size.settled_size == 16


def test_a_size_that_fails_now_is_not_the_next_to_be_tried() -> None:
    """What it was worth before is forgotten, however much that was: what is nearer to what works is looked at first."""
    size = AdaptiveBatchSize(most=32)
    token_bound(size, lambda records: 500.0 + records, batches=400)
    assert size.settled_size == 32
    while size.settled_size == 32:
        size.note_sent(32)
        size.observe(make_work(32, accepted=0), allowed=TOKENS, now=0.0)
    assert size.settled_size == 16
    sent = token_bound(size, lambda records: 500.0 + records, batches=30)
    others = [one for one in sent if one != 16]
    assert others
    assert others[0] < 32


def test_it_looks_below_now_and_then() -> None:
    """Also at the most that there may be: what is smaller may have become the better one. Trials are of other sizes."""
    size = AdaptiveBatchSize(most=32)
    token_bound(size, lambda records: 500.0 + 50.0 * records, batches=300)
    assert size.settled_size == 32
    tried = set()
    for _ in range(300):
        token_bound(size, lambda records: 500.0 + 50.0 * records, batches=1)
        tried.add(size.tried_size)
        assert ("trying" in repr(size)) == (size.tried_size != size.settled_size)
    assert min(tried) < 32 == size.settled_size


@given(st.integers(1, 600))
def test_the_next_size_below_is_smaller(size: int) -> None:
    """By a half at the most, or one record; there is nothing below one."""
    below = next_below(size)
    assert 1 <= below <= max(1, size - 1)
    assert below >= min(256, size // 2)
