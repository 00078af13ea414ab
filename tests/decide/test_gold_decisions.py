"""Gold in the run: the test of its answers, whose turn it is, and what is counted."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decide import gold_test
from engine.decide.gold_pool import GoldEntry, GoldPool
from engine.decide.gold_tally import GoldTally, judged_variables, sizes_named
from engine.decide.gold_test import GoldTest, Shown
from engine.decide.gold_values import Ride
from engine.decide.quality import QualityGuard
from engine.decide.quality_values import Spending
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Field, FieldType, Task
from engine.vocabulary.values import Record

LABELS = ["red", "green", "blue"]
TASK = Task(instructions="Which?", labels=LABELS)


def answered(test: GoldTest, size: int, *, loss: float, discordant: float, n: int, seed: int) -> Shown | None:
    """So many pairs, one a batch; what is shown first."""
    rng = random.Random(seed)
    for _ in range(n):
        drawn = rng.random()
        x = 1.0 if drawn < (discordant + loss) / 2 else -1.0 if drawn < discordant else 0.0
        shown = test.add(size, [x])
        if shown is not None:
            return shown
    return None


# -- the test ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    plan=st.lists(
        st.tuples(
            st.sampled_from([2, 4, 8, 16, 32, 64]), st.integers(1, 3), st.sampled_from([0.25, 1.0]),
            st.sampled_from([1, 3, 100]),
        ),
        min_size=1, max_size=8,
    ),
    alpha=st.sampled_from([0.9, 0.05, 1e-300]),
)  # fmt: skip
def test_where_nothing_is_lost_the_capital_does_not_grow(plan: list[tuple[int, int, float, int]], alpha: float) -> None:
    """Over all ways in which a fair coin may fall, in batches of any sizes and passes, with games that begin later and
    stakes before and after their deadlines: the mean capital is 1 at the most when a loss is shown or all has come,
    which is what Ville's inequality needs."""
    every, most = gold_test._RESTART_EVERY, gold_test._MOST_RESTARTS
    gold_test._RESTART_EVERY, gold_test._MOST_RESTARTS = 1, 3
    try:
        capitals = []
        for signs in itertools.product((-1.0, 1.0), repeat=len(plan)):
            test = GoldTest(alpha=alpha)
            log = test.log
            for sign, (rung, sweep, height, records) in zip(signs, plan, strict=True):
                test._take(gold_test._Pairs(sweep, rung, sign * height, records))
                log = test.log
                if log >= -math.log(alpha):
                    break
            capitals.append(math.exp(log))
    finally:
        gold_test._RESTART_EVERY, gold_test._MOST_RESTARTS = every, most
    assert math.fsum(capitals) / len(capitals) <= 1.0 + 1e-9


@settings(max_examples=200, deadline=None)
@given(
    past=st.lists(
        st.tuples(st.sampled_from([2, 16, 64]), st.integers(1, 2), st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]),
                  st.sampled_from([1, 2, 60])),
        max_size=30,
    ),
    rung=st.sampled_from([2, 16, 64]), up=st.floats(0.01, 1.0), down=st.floats(0.01, 1.0),
)  # fmt: skip
def test_no_number_is_worth_more_than_nothing(
    past: list[tuple[int, int, float, int]], rung: int, up: float, down: float
) -> None:
    """Whatever came before, a number whose mean is 0 does not let the capital grow on average, however it is spread:
    stakes follow what is in hand and what is missing, and never what comes."""

    def log_after(last: float) -> float:
        test = GoldTest()
        for at, sweep, mean, records in past:
            test._take(gold_test._Pairs(sweep, at, mean, records))
        before.append(test.log)
        test._take(gold_test._Pairs(1, rung, last, 1))
        return test.log

    before: list[float] = []
    grown = up * math.exp(log_after(-down)) + down * math.exp(log_after(up))
    assert grown / (up + down) <= math.exp(before[0]) * (1.0 + 1e-9)


@given(
    missing=st.floats(-800.0, 800.0) | st.just(math.inf),
    squares=st.floats(-10.0, 0.0) | st.floats(1e-300, 1e-6) | st.floats(1e-6, 1e6),
)
def test_a_stake_never_puts_all_at_risk(missing: float, squares: float) -> None:
    """However much is missing and however near the deadline: a tenth of the capital is kept, as the fixed stakes keep
    it. Past the deadline, and where nothing is missing, nothing is staked."""
    stake = gold_test._stake_for(missing, squares=squares)
    assert 0.0 <= stake <= 0.9
    assert (stake == 0.0) == (squares <= 0.0 or missing == math.inf)


def test_stakes_follow_what_is_missing_and_the_time_left() -> None:
    """From a share f of its aim the line is as far away as a Brownian motion comes in a case of f: by that the chance
    to have all is kept, whichever way the number goes."""
    for share in (0.03, 0.2, 0.6):
        for squares in (20.0, 200.0):
            missing = math.log((1.0 - share) / share)
            stake = gold_test._stake_for(missing, squares=squares)
            line = NormalDist().inv_cdf(1.0 - share / 2.0) * math.sqrt(squares)
            nearer = 2.0 * (1.0 - NormalDist().cdf((line - 1e-4) / math.sqrt(squares)))
            assert stake == pytest.approx((nearer / share - 1.0) / 1e-4, rel=1e-3)


@pytest.mark.parametrize(("discordant", "together"), [(0.1, False), (0.3, False), (0.3, True)])
def test_a_run_without_a_loss_is_seldom_capped(discordant: float, together: bool) -> None:
    """5 in 100 at the most of such runs, however often they look. By simulation: 150 runs of fixed seeds, on each of
    which the answer is always the same."""
    capped = 0
    for seed in range(150):
        rng = random.Random(seed)
        test = GoldTest()
        for _ in range(200):
            drawn = rng.random()
            x = 1.0 if drawn < discordant / 2 else -1.0 if drawn < discordant else 0.0
            if test.add(16, [x] * 2 if together else [x]) is not None:
                capped += 1
                break
    assert capped <= 0.05 * 150


def test_a_fall_of_15_points_is_found_within_150_answers() -> None:
    """In 9 of 10 runs, where a quarter of the records are right in one way only (20 % are lost, 5 % gained) and where
    three in ten are. By simulation: 100 runs of fixed seeds, so that the answer is always the same."""
    for discordant, least in ((0.25, 0.95), (0.3, 0.9)):
        runs = [answered(GoldTest(), 16, loss=0.15, discordant=discordant, n=150, seed=seed) for seed in range(100)]
        assert sum(shown is not None for shown in runs) >= least * len(runs)


@pytest.mark.parametrize("seed", range(5))
def test_a_fall_is_found_and_the_size_named(seed: int) -> None:
    """15 points above eight: within 150 answers; the sizes below are not blamed."""
    test = GoldTest()
    for size in (2, 4, 8):
        assert answered(test, size, loss=0.0, discordant=0.04, n=5, seed=seed) is None
    shown = answered(test, 16, loss=0.15, discordant=0.17, n=150, seed=seed)
    assert shown is not None
    assert (shown.size, shown.late) == (16, False)
    assert shown.loss > 0.05
    assert test.bad_from == 16
    assert answered(test, 8, loss=0.0, discordant=0.04, n=400, seed=seed) is None
    assert test.bad_from == 16


def test_sizes_are_tested_from_the_top_each_with_its_own_pairs() -> None:
    """A loss at 32 says nothing of 16, which has none; one at 16 is found after it."""
    test = GoldTest()
    assert answered(test, 16, loss=0.0, discordant=0.1, n=60, seed=7) is None
    assert answered(test, 32, loss=0.25, discordant=0.3, n=200, seed=1) is not None
    assert test.bad_from == 32
    assert answered(test, 16, loss=0.0, discordant=0.1, n=400, seed=2) is None
    assert answered(test, 16, loss=0.25, discordant=0.3, n=400, seed=3) is not None
    assert test.bad_from == 16
    assert [each.size for each in test.shown] == [32, 16]


def test_what_small_batches_gain_does_not_hide_what_large_ones_lose() -> None:
    """Batches of two that are better than lone asks, as many as batches of 32 that are worse."""
    test = GoldTest()
    for number in range(120):
        test.add(2, [-1.0 if number % 4 == 0 else 0.0])
        shown = test.add(32, [1.0 if number % 4 == 0 else 0.0])
        if shown is not None:
            break
    assert test.bad_from == 32
    assert number < 100


def test_the_same_records_again_are_no_new_witnesses() -> None:
    """Forty of which three are lost and one gained, in thirty passes: by chance, and it stays that chance."""
    test = GoldTest()
    file = [1.0] * 3 + [-1.0] + [0.0] * 36
    for sweep in range(1, 31):
        random.Random(sweep).shuffle(file)
        for difference in file:
            assert test.add(16, [difference], sweep=sweep) is None
    taken_for_new = GoldTest()
    assert any(taken_for_new.add(16, [difference]) for _ in range(30) for difference in file)


def test_a_fall_late_in_the_run_is_found_by_a_game_that_began_late() -> None:
    """After 1,000 answers that lost nothing, in 250 more; and by what came since, not by the mean of all."""
    test = GoldTest()
    assert answered(test, 16, loss=-0.02, discordant=0.12, n=1_000, seed=4) is None
    shown = answered(test, 16, loss=0.15, discordant=0.2, n=250, seed=5)
    assert shown is not None
    assert shown.late
    assert shown.loss > 0.08


def test_what_is_lost_is_less_than_matters() -> None:
    """One point of accuracy, shown beyond doubt, is not acted on."""
    test = GoldTest()
    for number in range(4_000):
        assert test.add(16, [float(number % 100 == 0)]) is None
    assert test.log > 10
    for _ in range(200):
        shown = test.add(16, [1.0])
        if shown is not None:
            break
    assert test.bad_from == 16


def test_records_that_go_wrong_together_count_once() -> None:
    """Four of one batch are one number: as much as a batch with one."""
    together, apart = GoldTest(), GoldTest()
    for number in range(8):
        together.add(16, [1.0, 1.0, 1.0, 0.0] if number % 2 else [0.0] * 4)
        apart.add(16, [0.75 if number % 2 else 0.0])
    assert together._main.log_from(16) == pytest.approx(apart._main.log_from(16))
    assert together.pairs == 4 * apart.pairs


# -- whose turn it is --------------------------------------------------------------------------------------------


def make_entries(count: int) -> list[GoldEntry]:
    return [
        GoldEntry(
            record=Record(position=n, line=n + 1, id=n, key=str(n), input=f"t{n}", digest=str(n).encode()),
            output="red",
            line=n + 1,
        )
        for n in range(count)
    ]


@given(
    count=st.integers(1, 30), rate=st.sampled_from([0.01, 0.05, 0.2, 0.5]), seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 40), max_size=80), lost=st.integers(0, 3),
)  # fmt: skip
def test_each_rides_once_in_a_pass_and_no_more_than_their_share(
    count: int, rate: float, seed: int, sizes: list[int], lost: int
) -> None:
    """Whatever the sizes, and whatever comes back: no second ride before all others had theirs, and in all no more than
    the rate of the records; nothing is asked alone twice."""
    rng = random.Random(seed)
    pool = GoldPool(make_entries(count), rate=rate, rng=random.Random(seed))
    rides: Counter[tuple[int, int]] = Counter()
    alone: Counter[int] = Counter()
    records = back = 0
    for size in sizes:
        entry = pool.next_lone(requests=len(sizes), size=size)
        if entry is not None:
            alone[entry.line] += 1
            pool.lone_answered(entry, answered=rng.random() < 0.8)
        candidates = pool.candidates(size)
        assert len(candidates) < max(2, size)
        riders = pool.ride(candidates, records=size - len(candidates), fits=lambda _: rng.random() < 0.9)
        records += size
        if riders and rng.randrange(4) < lost:
            pool.give_back(riders)
            back += len(riders)
            continue
        for rider in riders:
            rides[pool.passes, rider.line] += 1
    assert max(rides.values(), default=1) == 1
    assert max(alone.values(), default=1) == 1
    assert rides.total() + back <= rate * records + 1
    for sweep in range(1, pool.passes):
        assert sum(of == sweep for of, _ in rides) == count


def test_those_that_have_a_lone_answer_ride_first() -> None:
    """Only they make pairs: while others may still be asked alone, those wait."""
    pool = GoldPool(make_entries(40), rate=0.25, rng=random.Random(0))
    known: set[int] = set()
    for _ in range(60):
        entry = pool.next_lone(requests=1_000, size=8)
        if entry is not None:
            pool.lone_answered(entry, answered=True)
            known.add(entry.line)
        riders = pool.ride(pool.candidates(8), records=6, fits=lambda _: True)
        if pool.passes == 1:
            assert {rider.line for rider in riders} <= known
    assert len(known) == 40


def test_while_a_lone_answer_is_on_its_way_nobody_rides_without_one() -> None:
    """The next to ride may be the one that is asked."""
    pool = GoldPool(make_entries(400), rate=0.5, rng=random.Random(0))
    entry = pool.next_lone(requests=10, size=8)  # 16 may be asked alone: most of the file is to spare
    assert entry is not None
    assert pool.candidates(8) == []
    pool.lone_answered(entry, answered=True)
    assert pool.candidates(8)[0] == entry
    assert len(pool.candidates(8)) == 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), size=st.sampled_from([2, 4, 8, 16, 32]), ahead=st.sampled_from([10.0, 50.0]))
def test_what_rides_before_its_time_is_made_up_for(seed: int, size: int, ahead: float) -> None:
    """A size that must be known soon gets up to two a batch, until so many are owed; then few ride, and some always."""
    pool = GoldPool(make_entries(400), rate=0.05, rng=random.Random(seed))
    steps = 4_000 // size
    rides, owed, soon = 0, 0.0, 0
    for number in range(steps):
        for _ in range(2):
            if (entry := pool.next_lone(requests=1e6, size=size)) is not None:
                pool.lone_answered(entry, answered=True)
        candidates = pool.candidates(size, ahead=ahead if number < steps // 2 else 0.0)
        rides += len(pool.ride(candidates, records=size - len(candidates), fits=lambda _: True))
        owed = max(owed, rides - 0.05 * size * (number + 1))
        soon = rides if number == 4 else soon
    assert owed <= ahead + 2
    assert soon >= 5 * min(2, max(1, size // 4))
    assert 0.75 * 0.05 * 4_000 <= rides <= 0.05 * 4_000 + ahead + 2


@pytest.mark.parametrize("ahead", [0.0, 1e6])
def test_gold_goes_on_where_lone_asks_bring_nothing(ahead: float) -> None:
    """A lone answer that does not come keeps nobody from riding, and the file from its next pass."""
    pool = GoldPool(make_entries(12), rate=0.2, rng=random.Random(0))
    for _ in range(400):
        if (entry := pool.next_lone(requests=1_000, size=8)) is not None:
            pool.lone_answered(entry, answered=entry.line % 2 == 0)
        pool.ride(pool.candidates(8, ahead=ahead), records=8, fits=lambda _: True)
    assert pool.passes > 2


def test_only_new_records_ride_before_their_time() -> None:
    """A second answer to the same record tells too little to hurry for."""
    pool = GoldPool(make_entries(10), rate=0.05, rng=random.Random(0))
    rides = 0
    for _ in range(60):
        if (entry := pool.next_lone(requests=1_000, size=8)) is not None:
            pool.lone_answered(entry, answered=True)
        rides += len(pool.ride(pool.candidates(8, ahead=1e6), records=8, fits=lambda _: True))
    assert 10 <= rides <= 10 + 0.05 * 8 * 60


def test_passes_come_ever_more_seldom() -> None:
    """What has been asked before tells less, and is paid for less."""
    pool = GoldPool(make_entries(10), rate=0.2, rng=random.Random(0))
    needed: Counter[int] = Counter()
    for _ in range(2_000):
        if (entry := pool.next_lone(requests=1_000, size=10)) is not None:
            pool.lone_answered(entry, answered=True)
        pool.ride(pool.candidates(10), records=10, fits=lambda _: True)
        needed[pool.passes] += 1
    assert needed[2] < needed[3] < needed[4]


# -- what is counted ---------------------------------------------------------------------------------------------


def test_accuracy_and_f1_by_size_and_place() -> None:
    """Two of three right at 16: reds 2 of 2, green called red. F1: red 4/5, green 0."""
    tally = GoldTally(TASK)
    for line, (gold, said) in enumerate([("red", "red"), ("red", "red"), ("green", "red")], start=1):
        tally.add(tally.judged(said, gold), line=line, rung=16, position=line)
    tally.add(tally.judged("green", "green"), line=1, rung=1)
    lone, batch = tally.by_size()
    assert (lone.where, lone.accuracy, lone.macro_f1) == ("1", 1.0, 1.0)
    assert (batch.where, batch.answers, batch.records) == ("9-16", 3, 3)
    assert batch.accuracy == pytest.approx(2 / 3)
    assert batch.macro_f1 == pytest.approx((4 / 5 + 0) / 2)
    assert [(row.where, row.accuracy) for row in tally.by_position()] == [("1", 1.0), ("2", 1.0), ("3-5", 0.0)]


def test_another_answer_to_the_same_record_makes_no_interval_narrower() -> None:
    """Records are what there are many of."""
    once, often = GoldTally(TASK), GoldTally(TASK)
    for line in range(20):
        said = "red" if line % 4 else "blue"
        for tally, times in ((once, 1), (often, 50)):
            for _ in range(times):
                tally.add(tally.judged(said, "red"), line=line, rung=8, position=1)
    (one,), (many,) = once.by_size(), often.by_size()
    assert (one.low, one.high) == (many.low, many.high)
    assert (one.answers, many.answers, many.records) == (20, 1_000, 20)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=60))
def test_a_loss_has_an_interval_around_it(differences: list[float]) -> None:
    """Also where nothing differs: 10 records that agree are no proof."""
    tally = GoldTally(TASK)
    for difference in differences:
        tally.add_pair(8, alone=max(0.0, difference), right=max(0.0, -difference))
    (loss,) = tally.losses()
    assert loss.loss == pytest.approx(loss.lost - loss.gained)
    assert loss.low < loss.high
    assert loss.low - 1e-9 <= loss.loss <= loss.high + 1e-9 or len(differences) < 10


def test_lists_of_labels_are_sets_and_true_is_not_one() -> None:
    """The order of labels says nothing; a boolean is no number."""
    fields = {"all": Field(type=FieldType.LABELS, labels=LABELS), "yes": Field(type=FieldType.BOOLEAN),
              "count": Field(type=FieldType.INTEGER), "why": Field(type=FieldType.STRING)}  # fmt: skip
    tally = GoldTally(Task(instructions="?", fields=fields))
    gold = {"all": ["red", "blue"], "yes": True, "count": 1, "why": "so"}
    said = {"all": ["blue", "red"], "yes": True, "count": 2, "why": "because"}
    judged = tally.judged(said, gold)
    assert set(judged.cells) == {"all", "yes", "count"}
    assert judged.right == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="free text only"):
        judged_variables(Task(instructions="?", fields={"why": fields["why"]}))


@given(st.integers(1, 300))
def test_sizes_have_names_that_tell_them_apart(size: int) -> None:
    """Each size is in the range that its rung is called by."""
    rung = 1 << max(0, size - 1).bit_length()
    first, _, last = sizes_named(rung).partition("-")
    assert int(first) <= size <= int(last or first)


# -- what follows for the size -----------------------------------------------------------------------------------


def rides(guard: QualityGuard, size: int, count: int, *, right: float = 1.0, alone: float = 1.0) -> None:
    for _ in range(count):
        guard.observe_gold_batch(size, [Ride(right=right, alone=alone)])


@pytest.mark.parametrize(("alone", "grows"), [(1.0, False), (0.0, True)])
def test_gold_lets_no_size_be_tried_that_was_not_looked_at(alone: float, grows: bool) -> None:
    """However much gold there is: pairs at one size say nothing for the next, and a few at a size are no bound.

    Only what is *shown* to lose less than 2 points there (as here, where each answer is better than the lone one) is
    taken in place of a look, and never for what is larger.
    """
    guard = QualityGuard()
    spending = Spending(audit_cost=0.0, cost_at_one=1e6, audit_requests=0.0, requests=10_000)
    rides(guard, 4, 60, alone=alone)
    plan = guard.wants_audit(size=2, most=32, records_seen=0, anchors=0, spending=spending)
    assert plan is not None
    assert guard.may_grow(2, 4) is grows
    assert not guard.may_grow(2, 8)
    assert not guard.may_grow(4, 8)


def test_gold_that_shows_a_loss_bars_the_size_and_all_above() -> None:
    """Whatever the looks said."""
    guard = QualityGuard()
    for _ in range(64):
        guard.observe_audit("lone", 16, 1, 0, 0)
    assert guard.may_grow(2, 16)
    rides(guard, 8, 30, right=0.0)
    assert guard.verdict(8).kind == "worse"
    assert guard.verdict(16).kind == "worse"
    assert guard.allowed_size() == 4
    assert not guard.may_grow(4, 8)


def test_without_gold_nothing_of_it_is_said() -> None:
    """The guard of a run without gold is what it was: B grows by what was compared, and a verdict speaks of that."""
    guard = QualityGuard()
    assert not guard.may_grow(2, 4)
    assert guard.gold.pairs == 0
    assert "gold" not in guard.verdict(4).sentence


@given(st.lists(st.floats(0, 1), max_size=30))
def test_what_gold_shows_is_what_its_first_pass_shows(shares: list[float]) -> None:
    """Later passes are tested, and count no record a second time."""
    once, twice = QualityGuard(), QualityGuard()
    for share in shares:
        once.observe_gold_batch(8, [Ride(right=share, alone=1.0)])
        twice.observe_gold_batch(8, [Ride(right=share, alone=1.0)])
    for share in shares:
        twice.observe_gold_batch(8, [Ride(right=share, alone=1.0)], sweep=2)
    assert once.cost().gold == twice.cost().gold == len(shares)
